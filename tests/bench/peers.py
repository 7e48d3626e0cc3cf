"""Every model of a folder × every optimizer: `python -m tests.bench.peers FOLDER [--tools A,B] [--json FILE]`.

For each pair: nodes, bytes of the file, CPU seconds and peak memory of the tool's own process, whether the result has
the interface of the source and computes the same at two bindings of its dimensions, and the time it takes to run in
relation to the source (onnxruntime, one thread, all optimizations; median and 95 % interval of 50 interleaved pairs).
A tool that fails, or takes too long, is shown with its own words. The peers are in the dependency group `bench`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from tests.bench.counting import nodes
from tests.bench.measure import ROOT, measure
from tests.bench.tools import TOOLS

__all__ = ["Row", "table"]

_TOOLS = ("graphopt", "onnxsim", "onnxslim", "onnxscript")


@dataclass(frozen=True)
class Row:
    """One model and one tool."""

    model: str
    tool: str
    source_nodes: int
    source_bytes: int
    nodes: int | None = None
    bytes: int | None = None
    cpu: float | None = None
    memory: int | None = None
    passed: bool | None = None
    why: str = ""
    """Why it failed, or how the result differs."""
    ms: float | None = None
    """Of one run of the source."""
    ratio: tuple[float, float, float] | None = None
    """Run time of the result over that of the source: the median, and its 95 % interval."""


def main() -> None:
    """Write a markdown table, and JSON where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tools", default=",".join(_TOOLS), help=f"of {', '.join(TOOLS)}")
    parser.add_argument("--opset", type=int, help="what graphopt raises the opset to")
    parser.add_argument("--target", help="what graphopt optimizes for")
    parser.add_argument("--seconds", type=float, default=300.0, help="limit of one process")
    parser.add_argument("--only", default="", help="part of the names of models")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    options = {n: v for n, v in (("opset", asked.opset), ("target", asked.target)) if v is not None}
    rows = []
    for model in sorted(m for m in asked.folder.glob("*.onnx") if asked.only in m.stem):
        for tool in asked.tools.split(","):
            rows.append(_row(model, tool, options if tool == "graphopt" else {}, asked.seconds))
            sys.stderr.write(f"{rows[-1].model} {tool}\n")
        if asked.json:
            asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    sys.stdout.write(table(rows))


def _row(model: Path, tool: str, options: Mapping[str, Any], seconds: float) -> Row:
    source = nodes(onnx.load(model, load_external_data=False))
    size = model.stat().st_size
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.onnx"
        cost = measure(tool, model, result, seconds=seconds, options=options)
        if cost.problem is not None or not result.exists():
            return Row(model.stem, tool, source, size, cpu=cost.cpu, memory=cost.memory, why=cost.problem or "no file")
        count, length = nodes(onnx.load(result, load_external_data=False)), _bytes(Path(folder))
        found = _judged(model, result, seconds)
        return Row(model.stem, tool, source, size, count, length, cost.cpu, cost.memory, **found)


def _bytes(folder: Path) -> int:
    """Of the model and what lies beside it."""
    return sum(file.stat().st_size for file in folder.iterdir())


def _judged(model: Path, result: Path, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.judge", str(model.resolve()), str(result)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
        found: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return {"why": f"judging it took longer than {seconds:g} s"}
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        return {"passed": False, "why": f"judging it failed: {last[0]}"}
    return found


def table(rows: Sequence[Row]) -> str:
    """Markdown; one line for each model and tool, and a summary for each tool."""
    lines = ["| model | tool | nodes | bytes | CPU s | MB | same | run time |", "|---|---|---|---|---|---|---|---|"]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    lines += [
        "",
        "| tool | results | right | fewest nodes | CPU s, all models | faster | slower |",
        "|---|---|---|---|---|---|---|",
    ]
    least: dict[str, int] = {}
    for row in rows:
        if row.passed and row.nodes is not None:
            least[row.model] = min(row.nodes, least.get(row.model, row.nodes))
    for tool in dict.fromkeys(row.tool for row in rows):
        lines.append(f"| {' | '.join(_total(tool, [r for r in rows if r.tool == tool], least))} |")
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    made = "failed" if row.nodes is None else f"{row.source_nodes} → {row.nodes}"
    size = "" if row.bytes is None else f"{row.bytes / row.source_bytes:.2f} ×"
    cpu, memory = f"{row.cpu or 0:.2f}", f"{(row.memory or 0) / 1e6:.0f}"
    same = "yes" if row.passed else row.why.replace("|", "/").replace("\n", " ")[:120]
    ratio = "" if row.ratio is None else "{:.2f} ({:.2f}, {:.2f})".format(*row.ratio)
    return [row.model, row.tool, made, size, cpu, memory, same, ratio]


def _total(tool: str, rows: Sequence[Row], least: Mapping[str, int]) -> list[str]:
    results = sum(row.nodes is not None for row in rows)
    right = [row for row in rows if row.passed]
    fewest = sum(row.nodes == least[row.model] for row in right)
    faster = sum(row.ratio is not None and row.ratio[2] < 1 for row in rows)
    slower = sum(row.ratio is not None and row.ratio[1] > 1 for row in rows)
    cpu = sum(row.cpu or 0 for row in rows)
    return [tool, *map(str, (results, len(right), fewest)), f"{cpu:.1f}", str(faster), str(slower)]


if __name__ == "__main__":
    main()
