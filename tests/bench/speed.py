"""How much CPU time optimizers take: `python -m tests.bench.speed [--tools A,B] [--repeat N] MODEL...`.

A model is a file, a folder of files, or the name of a generated graph (see `graphs.py`). Time includes the interpreter,
imports, loading and saving; the best of N runs counts, tools taking turns. graphopt only rewrites (`unverified`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx

from tests.bench.graphs import GRAPHS
from tests.bench.measure import measure
from tests.bench.tools import TOOLS


def main() -> None:
    """Write one line of a markdown table for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(GRAPHS))
    parser.add_argument("--tools", default="graphopt,onnxslim,onnxscript", help=f"of {', '.join(TOOLS)}")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--least", type=int, default=0, help="nodes below which a model is passed over")
    asked = parser.parse_args()
    tools = asked.tools.split(",")
    write = sys.stdout.write
    write(f"| CPU seconds | nodes | {' | '.join(tools)} | ratio |\n|---|{'---|' * (len(tools) + 2)}\n")
    with tempfile.TemporaryDirectory() as folder:
        for model in _files(asked.models, Path(folder)):
            nodes = len(onnx.load(model, load_external_data=False).graph.node)
            if nodes < asked.least:
                continue
            times = _times(tools, model, Path(folder), asked.repeat)
            ratio = times[0] / min(times[1:], default=times[0])
            write(f"| {model.stem} | {nodes} | {' | '.join(f'{t:.2f}' for t in times)} | {ratio:.2f} |\n")
            sys.stdout.flush()


def _files(models: Sequence[str], folder: Path) -> Iterator[Path]:
    for model in models:
        if model in GRAPHS:
            made = folder / f"{model}.onnx"
            onnx.save(GRAPHS[model](), made)
            yield made
        else:
            yield from sorted(Path(model).glob("*.onnx")) if Path(model).is_dir() else [Path(model)]


def _times(tools: Sequence[str], model: Path, folder: Path, repeat: int) -> list[float]:
    best = [float("inf")] * len(tools)
    for _ in range(repeat):
        for index, tool in enumerate(tools):
            cost = measure(tool, model, folder / "out.onnx")
            if cost.problem is None:
                best[index] = min(best[index], cost.cpu)
            else:
                sys.stderr.write(f"{tool} on {model.stem}: {cost.problem}\n")
    return best


if __name__ == "__main__":
    main()
