"""Everything that only a GPU can show, in one command: `python -m tests.bench.cuda FOLDER [MODEL...]`.

Runs `graphopt doctor` and the tests marked `cuda`, then times nets (files, or names of `nets.py`) as they are and as
graphopt makes them, in pairs: at 32 rows (and a length of 128), both as onnxruntime runs them by default, at its full
optimization, but without TF32, unless NVIDIA_TF32_OVERRIDE=1 is in the environment. FOLDER gets `cuda.json` and
`cuda.md`, which grow row by row: rows that are there are not measured again, so that it can be stopped at any time and
go on, then with `--untested`. With `--device cpu` it runs anywhere, and says so.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import onnx

import graphopt
from graphopt.errors import GraphoptError
from graphopt.report.data import BenchReport, to_json
from tests.bench.measure import ROOT
from tests.bench.nets import NETS

__all__ = ["VARIANTS", "Row", "Sheet", "measured", "speedup"]

RAW: Final = "raw fp32"
FAST: Final = "fp16"
VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        RAW: {},
        "graphopt fp32": {"target": "cuda"},
        FAST: {"target": "cuda", "fp16": True},
        "pruned fp16": {"target": "cuda", "fp16": True, "budget": {"macs": 0.7}},
        "weights of 4 bits": {"target": "cuda", "passes": ["lossless", "blocks{bits=4}"]},
    }
)
"""What is compared: the arguments of `graphopt.optimize`."""
_LEARNED: Final = "random:64"
"""Data for what is learned or judged: speed depends on it little."""
_LENGTH: Final = 128
_DEFAULT: Final = ("resnet50", "mobilenet_v2", "encoder_6x384", "encoder_12x768", "decoder_12x768", "vision_12x384")


@dataclass(frozen=True)
class Row:
    """One model in one form, beside the model as it came."""

    model: str
    variant: str
    problem: str = ""
    """Why there is nothing else."""
    seconds: float = 0.0
    """That graphopt took."""
    bytes: int = 0
    nodes: int = 0
    agreement: float | None = None
    """With the model as it came, on made-up data."""
    free: bool = True
    """Whether the number of rows is free: models of one row are told apart."""
    bench: dict[str, Any] = field(default_factory=dict)
    """The document of `graphopt bench`."""

    @property
    def ratio(self) -> float:
        """Its time divided by the raw model's."""
        return float(self.bench["ratio"])


@dataclass
class Sheet:
    """What was measured so far, on disk."""

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path) -> Sheet:
        """What is there already."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "cuda.json"
        held = json.loads(path.read_text()) if path.exists() else {"facts": {}, "rows": []}
        return cls(folder, held["facts"], [Row(**row) for row in held["rows"]])

    def has(self, model: str, variant: str) -> bool:
        """Whether a row was measured."""
        return any((r.model, r.variant) == (model, variant) for r in self.rows)

    def add(self, row: Row) -> None:
        """Keep a row."""
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        """Both files."""
        content = {"facts": self.facts, "rows": [asdict(r) for r in self.rows]}
        (self.folder / "cuda.json").write_text(json.dumps(content, indent=1) + "\n")
        (self.folder / "cuda.md").write_text(self.markdown())

    def markdown(self) -> str:
        """The table, and how much faster half precision is in the mean."""
        lines = ["| model | | ms | time of raw | as a CUDA graph | memory (MiB) | agreement | file (MB) | nodes |"]
        lines += ["|---|---|---|---|---|---|---|---|---|", *(f"| {' | '.join(_cells(r))} |" for r in self.rows)]
        where = sorted({f"{_where(r.bench)}, {r.bench['rows']} rows" for r in self.rows if r.bench})
        told = [f"{k}: {v}" for k, v in self.facts.items() if isinstance(v, str)]
        mean = speedup(self.rows)
        faster = [] if mean is None else [f"{FAST}: {mean:.2f} times as fast as raw fp32 in the geometric mean"]
        return "\n\n".join(["\n".join(lines), *where, *told, *faster]) + "\n"


def speedup(rows: Iterable[Row]) -> float | None:
    """How many times as fast half precision is, in the geometric mean over models whose number of rows is free."""
    ratios = [r.ratio for r in rows if r.variant == FAST and r.free and r.bench]
    return math.exp(-sum(map(math.log, ratios)) / len(ratios)) if ratios else None


def measured(path: Path, variant: str, folder: Path, *, device: Any, rows: int) -> Row:
    """One row.

    Args:
        path: the model as it came.
        variant: of `VARIANTS`.
        folder: for the result.
        device: where to run, "cpu" or "cuda".
        rows: of the feed that is timed.
    """
    begin, result = time.perf_counter(), path
    dims = _dims(path)
    named: dict[str, Any] = {"set_dims": {"length": _LENGTH} if "length" in dims else None, "device": device}
    free = any(isinstance(d, str) and d != "length" for d in dims)
    try:
        if variant != RAW:
            result = folder / "result.onnx"
            graphopt.optimize(path, data=_LEARNED, **named, **VARIANTS[variant]).save(result, force=True)
        took = time.perf_counter() - begin
        found: BenchReport = graphopt.bench(
            path, None if result == path else result, **named, batch=rows if free else None
        )
        checked = graphopt.check(path, result, data=_LEARNED, **named)
        nodes = graphopt.inspect(result)[0].facts.nodes
    except GraphoptError as problem:
        return Row(path.stem, variant, str(problem), free=free)
    agreement = checked.verification.metrics.get("agreement")
    return Row(
        path.stem,
        variant,
        seconds=round(took, 1),
        bytes=result.stat().st_size,
        nodes=nodes,
        agreement=None if agreement is None else agreement.after,
        free=free,
        bench=json.loads(to_json(found)),
    )


def _dims(path: Path) -> list[int | str]:
    graph = onnx.load(path, load_external_data=False).graph
    weights = {w.name for w in graph.initializer}
    shapes = [p.type.tensor_type.shape.dim for p in graph.input if p.name not in weights]
    return [d.dim_param or d.dim_value for shape in shapes for d in shape]


def _cells(row: Row) -> list[str]:
    if not row.bench:
        return [row.model, row.variant, row.problem.replace("|", "/"), "", "", "", "", "", ""]
    b, alone = row.bench, row.variant == RAW
    graphs = b["graphs"]
    ratio = "1" if alone else f"{b['ratio']:.3f} ({b['low']:.3f}, {b['high']:.3f})"
    captured = (
        "" if graphs is None else f"{graphs['candidate_ms']:.3f} ms" + ("" if alone else f", {graphs['ratio']:.3f}")
    )
    memory = f"{b['memory'][-1] / 2**20:,.0f}" if b["memory"] else ""
    agreement = "" if row.agreement is None else f"{row.agreement:.2%}"
    name = row.model if row.free else f"{row.model} (one row)"
    return [
        *(name, row.variant, f"{b['candidate_ms']:.3f}", ratio, captured, memory, agreement),
        *(f"{row.bytes / 1e6:.1f}", f"{row.nodes:,}"),
    ]


def _where(bench: Mapping[str, Any]) -> str:
    found = bench["environment"]
    gpu = found["gpu"] or {}
    parts = (
        gpu.get("name"),
        gpu.get("driver") and f"driver {gpu['driver']}",
        found["cuda"] and f"CUDA {found['cuda']}",
    )
    told = [str(p) for p in (found["provider"], *parts, f"onnxruntime {found['onnxruntime']}") if p]
    tf32 = [] if found["tf32"] is None else [f"TF32 {'on' if found['tf32'] else 'off'}"]
    return ", ".join([*told, bench["clock"], *tf32])


def _tested() -> str:
    """What pytest says of the tests that need a GPU."""
    words = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-n0", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr.strip()[-200:]


def _files(models: Sequence[str], folder: Path) -> Iterable[Path]:
    for model in models:
        path = Path(model)
        if model in NETS:
            path = folder / f"{model}.onnx"
            onnx.save(NETS[model](), path)
        yield path
        if model in NETS:
            path.unlink()


def main() -> None:
    """Measure what is not measured yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="*", default=list(_DEFAULT), help=f"files, or of {', '.join(NETS)}")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="separated by commas")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--untested", action="store_true", help="leave the tests out")
    asked = parser.parse_args()
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # CUDA's libraries read it as they load, which is later
    sheet = Sheet.open(asked.folder)
    sheet.facts["doctor"] = [asdict(f) for f in graphopt.doctor()]
    if not asked.untested:
        sheet.facts["tests that need a GPU"] = _tested()
    sheet.write()
    with tempfile.TemporaryDirectory() as folder:
        for path in _files(asked.models, Path(folder)):
            for variant in asked.variants.split(","):
                if not sheet.has(path.stem, variant.strip()):
                    sheet.add(measured(path, variant.strip(), Path(folder), device=asked.device, rows=asked.rows))
                    sys.stderr.write(f"| {' | '.join(_cells(sheet.rows[-1]))} |\n")
    sys.stdout.write(sheet.markdown())


if __name__ == "__main__":
    main()
