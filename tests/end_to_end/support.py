"""The command line as people use it, and small models to give it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from typer.testing import CliRunner

from graphopt.cli import app
from tests.support.models import parse

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
SHARED = ROOT.parent / "shared"
NETS = ("digits_resnet", "digits_mobilenet", "digits_vit", "digits_lstm")
DATA = MODELS / "digits_test.npz"


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def graphopt(*words: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Answer:
    """The command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "graphopt", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(env or {})},
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def command(*words: object) -> Answer:
    """The command in this process, which is faster."""
    done = CliRunner().invoke(app, list(map(str, words)))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Answer(done.exit_code, done.stdout, done.stderr)


def assert_fails(answer: Answer, code: int, *parts: str) -> None:
    """One sentence on stderr that holds all of `parts`, in whatever case, and nothing on stdout."""
    assert answer.code == code, answer
    assert answer.out == ""
    lines = answer.err.splitlines()
    assert len(lines) == 1, answer.err
    assert lines[0].startswith("error: ")
    assert "Traceback" not in answer.err
    for part in parts:
        assert part.lower() in answer.err.lower(), answer.err


# -- models ----------------------------------------------------------------------------------------------------------


def net(layers: int = 2, *, channels: int = 3, seed: int = 0) -> onnx.ModelProto:
    """Convolutions, each with BatchNormalization of small variances and a ReLU: epsilon matters in it."""
    draw = np.random.default_rng(seed)
    lines, weights = [], {}
    for i in range(layers):
        weights[f"w{i}"] = draw.standard_normal((channels, channels, 3, 3)) * 0.02
        for name, low, high in (("s", 0.5, 1.5), ("b", -1, 1), ("m", -0.01, 0.01), ("v", 2e-4, 4e-4)):
            weights[f"{name}{i}"] = draw.uniform(low, high, channels)
        given = f"r{i - 1}" if i else "x"
        taken = f"r{i}" if i < layers - 1 else "y"
        lines.append(f"[conv{i}] c{i} = Conv<pads = [1, 1, 1, 1]>({given}, w{i})")
        lines.append(f"[bn{i}] n{i} = BatchNormalization<epsilon = 0.0001>(c{i}, s{i}, b{i}, m{i}, v{i})")
        lines.append(f"[relu{i}] {taken} = Relu(n{i})")
    ends = f"float[N,{channels},6,6]"
    model = parse(f"net ({ends} x) => ({ends} y) {{ {' '.join(lines)} }}")
    for name, array in weights.items():
        model.graph.initializer.append(tensor(name, array))
    return model


def tensor(name: str, array: NDArray[Any], dtype: Any = np.float32) -> onnx.TensorProto:
    return ir.serde.serialize_tensor(ir.tensor(np.asarray(array, dtype), name=name))


def contents(tensor: onnx.TensorProto) -> NDArray[Any]:
    return ir.serde.deserialize_tensor(tensor).numpy()


def stored(model: onnx.ModelProto | str, path: Path) -> Path:
    """The model in a file."""
    proto = parse(model) if isinstance(model, str) else model
    path.write_bytes(proto.SerializeToString())
    return path


def provenance(model: onnx.ModelProto) -> dict[str, str]:
    return {p.key: p.value for p in model.metadata_props if p.key.startswith("graphopt.")}


def interface(model: onnx.ModelProto) -> list[bytes]:
    """Inputs that must be fed and outputs, with names, types and shapes."""
    given = {t.name for t in model.graph.initializer}
    ports = [*(i for i in model.graph.input if i.name not in given), *model.graph.output]
    return [onnx.ValueInfoProto(name=p.name, type=p.type).SerializeToString(deterministic=True) for p in ports]


def operators(model: onnx.ModelProto) -> Iterator[str]:
    """The operators of the main graph."""
    return (n.op_type for n in model.graph.node)
