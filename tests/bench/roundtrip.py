"""What loading and saving cost: `python -m tests.bench.roundtrip [--pairs N] [--folder FOLDER] [MODEL...]`.

A model is a file or one of those made here, of 100 MB each. It is loaded and saved by graphopt, which checks and hashes
what it reads, infers shapes, reads back what it wrote, and waits for the disk; and by onnx-ir, which does none of it.
Both take turns, N times each, in ways that are compared as follows:

    as it is       graphopt as it is, onnx-ir as it is
    both wait      graphopt as it is, onnx-ir and then an fsync of each file that it wrote
    nobody waits   graphopt without fsync, onnx-ir as it is

Seconds are medians; a ratio is the median of those of single turns, with the least and the largest of them. What has
external data is saved with external data. Nothing is rewritten or run.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final
from unittest import mock

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from graphopt.graph.load import load
from graphopt.graph.save import save

_BYTES: Final = 100_000_000
"""Of weights in a model made here."""
_TAKEN_IN: Final = "taken_in"
"""What the file is called whose external data shall come to lie in the file that is saved."""


def main() -> None:
    """Write a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MADE), help=f"files, or of {', '.join(MADE)}")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="on the disk to write to")
    asked = parser.parse_args()
    write = sys.stdout.write
    write("| model | MB | onnx-ir s | graphopt s | as it is | both wait | nobody waits |\n")
    write("|---|---|---|---|---|---|---|\n")
    for name in asked.models:
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            model = MADE[name](Path(folder)) if name in MADE else Path(name)
            size = sum(f.stat().st_size for f in Path(folder).iterdir()) or model.stat().st_size
            times = _times(model, Path(folder) / "out", asked.pairs)
            ratios = (
                _ratio(times["graphopt"], times["onnx-ir"]),
                _ratio(times["graphopt"], times["onnx-ir, fsync"]),
                _ratio(times["graphopt, no fsync"], times["onnx-ir"]),
            )
            seconds = (f"{statistics.median(times[way]):.3f}" for way in ("onnx-ir", "graphopt"))
            write(f"| {name} | {size / 1e6:.0f} | {' | '.join((*seconds, *ratios))} |\n")
            sys.stdout.flush()


def _ratio(ours: list[float], theirs: list[float]) -> str:
    turns = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(turns):.2f} ({min(turns):.2f} to {max(turns):.2f})"


def _times(model: Path, folder: Path, pairs: int) -> dict[str, list[float]]:
    """Seconds of each turn of each way; the first turn, which finds nothing warm, is left out."""
    times: dict[str, list[float]] = {way: [] for way in _WAYS}
    outside = model.stem != _TAKEN_IN and _refers(model)
    for _ in range(pairs + 1):
        for way, work in _WAYS.items():
            folder.mkdir()
            gc.collect()
            os.sync()  # so that nobody waits for what another one wrote
            start = time.perf_counter()
            work(model, folder, outside)
            times[way].append(time.perf_counter() - start)
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
    return {way: turns[1:] for way, turns in times.items()}


def _refers(model: Path) -> bool:
    stored = onnx.load(model, load_external_data=False)
    return any(t.data_location == TensorProto.EXTERNAL for t in stored.graph.initializer)


# -- ways ------------------------------------------------------------------------------------------------------------


def _theirs(model: Path, folder: Path, outside: bool) -> None:  # noqa: FBT001 - all ways take it
    loaded = ir.load(model)
    if not outside:
        loaded = ir.external_data.load_to_model(loaded)
    ir.save(loaded, folder / "out.onnx", external_data="out.data" if outside else None)


def _theirs_on_disk(model: Path, folder: Path, outside: bool) -> None:  # noqa: FBT001
    _theirs(model, folder, outside)
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())


def _ours(model: Path, folder: Path, outside: bool) -> None:  # noqa: FBT001
    source = load(model)
    limit = 0 if outside else 1 << 40
    save(source.model, folder / "out.onnx", source.carried, check=lambda _: None, external_above=limit)
    assert source.sha256  # which a thread may still be finding out


def _ours_in_memory(model: Path, folder: Path, outside: bool) -> None:  # noqa: FBT001
    with mock.patch.object(os, "fsync"):
        _ours(model, folder, outside)


_WAYS: Final[Mapping[str, Callable[[Path, Path, bool], None]]] = MappingProxyType(
    {
        "onnx-ir": _theirs,
        "graphopt": _ours,
        "onnx-ir, fsync": _theirs_on_disk,
        "graphopt, no fsync": _ours_in_memory,
    }
)


# -- models ----------------------------------------------------------------------------------------------------------


def _products(count: int, each: int) -> onnx.ModelProto:
    """Products in a row, each with a weight of about `each` bytes."""
    width = max(int((each / 4) ** 0.5), 1)
    draw = np.random.default_rng(0)
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"], name=f"n{i}") for i in range(count)]
    weights = [_tensor(f"w{i}", draw.standard_normal((width, width), np.float32)) for i in range(count)]
    return _model(nodes, weights, ["N", width], f"x{count}")


def _residual(blocks: int) -> onnx.ModelProto:
    """A ResNet: two convolutions, each with BatchNormalization, and a sum in each block."""
    draw, channels = np.random.default_rng(0), 512
    nodes, weights, x, before = [], [], "x0", "x0"
    for i in range(2 * blocks):
        kernel = draw.standard_normal((channels, channels, 3, 3), np.float32)
        weights.append(_tensor(f"w{i}", kernel))
        weights += [_tensor(f"{n}{i}", draw.uniform(0.5, 1.5, channels).astype(np.float32)) for n in "sbmv"]
        nodes.append(helper.make_node("Conv", [x, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("BatchNormalization", [f"c{i}", *(f"{n}{i}" for n in "sbmv")], [f"n{i}"]))
        nodes.append(helper.make_node("Relu", [f"n{i}"], [x := f"r{i}"]))
        if i % 2:
            nodes.append(helper.make_node("Add", [x, before], [x := f"a{i}"]))
            before = x
    return _model(nodes, weights, ["N", channels, 7, 7], x)


def _tensor(name: str, array: np.ndarray) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.tobytes(), raw=True)


def _model(
    nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], shape: list[int | str], output: str
) -> onnx.ModelProto:
    given = helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, [None] * len(shape))
    graph = helper.make_graph(nodes, "main", [given], [result], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _inside(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def _beside(model: onnx.ModelProto, folder: Path, stem: str = "model") -> Path:
    onnx.save(model, folder / f"{stem}.onnx", save_as_external_data=True, location="model.data")
    return folder / f"{stem}.onnx"


MADE: Final[Mapping[str, Callable[[Path], Path]]] = MappingProxyType(
    {
        "few big tensors": lambda folder: _inside(_products(4, _BYTES // 4), folder),
        "external data": lambda folder: _beside(_products(25, _BYTES // 25), folder),
        "external data, taken in": lambda folder: _beside(_products(25, _BYTES // 25), folder, _TAKEN_IN),
        "5,000 tensors": lambda folder: _inside(_products(5000, _BYTES // 5000), folder),
        "residual": lambda folder: _inside(_residual(5), folder),
    }
)


if __name__ == "__main__":
    main()
