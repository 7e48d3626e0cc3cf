"""What int8 costs, beside onnxruntime's own quantization: `python -m tests.bench.quantizing MODEL CALIBRATION TEST`.

CALIBRATION and TEST are data as `--data` takes it, TEST with labels. Both tools are given the same calibration data, at
most so many samples of it, without labels; each runs in a process of its own, of which CPU seconds and the largest
resident size are told. Results are judged on the same samples, and timed beside the model in interleaved pairs on one
sample.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from graphopt.analysis.metrics import BATCH, scores
from graphopt.graph.load import load
from graphopt.run.bench import Timing, bench
from graphopt.run.data import open_data
from graphopt.run.machine import Machine
from graphopt.run.session import Session
from tests.bench.measure import Cost, measure

__all__ = ["WAYS", "Row", "rows", "table"]

_SECONDS: Final = 8.0
"""That timing one result may take."""
_U8S8: Final = {"activation_type": "QUInt8", "weight_type": "QInt8"}
WAYS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "onnxruntime, its defaults (S8S8, minmax)": ("onnxruntime-int8", {}),
    "onnxruntime, U8S8, minmax": ("onnxruntime-int8", {**_U8S8, "calibrate_method": "MinMax"}),
    "onnxruntime, U8S8, percentile": ("onnxruntime-int8", {**_U8S8, "calibrate_method": "Percentile"}),
    "graphopt --int8": ("graphopt-int8", {}),
    "graphopt --int8 --weight-bits 4": ("graphopt-int8", {"weight_bits": 4}),
    "graphopt --int8 --weight-bits 3": ("graphopt-int8", {"weight_bits": 3}),
}
"""What is compared, by name: a tool and its options."""


@dataclass(frozen=True)
class Row:
    """One result."""

    name: str
    metrics: dict[str, tuple[float, float]]
    timing: Timing | None = None
    cost: Cost | None = None
    bytes: int = 0


def rows(model: Path, calibration: str, test: str, *, samples: int = 512, threads: int = 1) -> Iterator[Row]:
    """Each way's result, judged.

    Args:
        model: the original.
        calibration: what is learned from.
        test: what is judged by.
        samples: that onnxruntime is given; graphopt takes those that it takes.
        threads: of one operator, where results are timed.
    """
    machine, source = Machine(threads=threads), load(model)
    original = machine.session(source.runnable)
    judged = open_data(test, original.inputs)
    feed = next({n: v[:1] for n, v in f.items()} for f, _ in judged.batches(BATCH))
    with tempfile.TemporaryDirectory() as folder:
        for name, (tool, options) in WAYS.items():
            path = Path(folder) / "result.onnx"
            given = {**options, "data": calibration, "threads": threads}
            cost = measure(tool, model, path, options={**given, "samples": samples} if "onnx" in tool else given)
            if cost.problem:
                yield Row(name, {}, cost=cost)
                continue
            result = load(path).runnable
            found = scores(source.runnable, result, judged.batches(BATCH), machine)
            timing = bench(original, Session(result, threads=threads), feed, seconds=_SECONDS)
            yield Row(name, found, timing, cost, path.stat().st_size)


def table(found: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| | accuracy | agreement | sqnr (dB) | time of fp32 | bytes | CPU s | MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(f"| {' | '.join(_cells(row))} |" for row in found)]) + "\n"


def _cells(row: Row) -> list[str]:
    cost = ["", ""] if row.cost is None else [f"{row.cost.cpu:.0f}", f"{row.cost.memory / 1e6:.0f}"]
    if row.timing is None:
        why = row.cost.problem if row.cost and row.cost.problem else ""
        return [row.name, why.replace("|", "/"), "", "", "", "", *cost]
    told = [f"{row.metrics[n][1]:.2%}" if n in row.metrics else "" for n in ("accuracy", "agreement")]
    noise = f"{row.metrics['sqnr'][1]:.2f}" if "sqnr" in row.metrics else ""
    timing = row.timing
    took = f"{timing.ratio:.3f} ({timing.low:.3f}, {timing.high:.3f})"
    return [row.name, *told, noise, took, f"{row.bytes:,}", *cost]


def main() -> None:
    """Write a markdown table, row by row to stderr while it grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("calibration")
    parser.add_argument("test")
    parser.add_argument("--samples", type=int, default=512, help="that onnxruntime is given")
    asked = parser.parse_args()
    found = []
    for row in rows(asked.model.resolve(), asked.calibration, asked.test, samples=asked.samples):
        found.append(row)
        sys.stderr.write(f"{' | '.join(_cells(row))}\n")
    sys.stdout.write(table(found))


if __name__ == "__main__":
    main()
