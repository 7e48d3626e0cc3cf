"""What cutting channels costs, beside onnxsim: `python -m tests.bench.pruning MODEL CALIBRATION TEST [--macs 0.7,0.5]`.

CALIBRATION and TEST are data as `--data` takes it, TEST with labels; both tools are given the same calibration samples,
without labels. For each share of the multiply-accumulates that may remain, each of onnxsim's ways to cut channels is
given the rate at which what is left, as graphopt counts it, comes closest to the share from below; graphopt is given
the share as a budget. With `--latency 0.7`, graphopt is given budgets of time as well. Results of graphopt are timed
beside the model, in interleaved pairs. Seconds are those of the whole way, with the search for the rate.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import onnx
import onnxsim
from onnx import ModelProto as Model

import graphopt
from graphopt.analysis.facts import facts
from graphopt.analysis.metrics import BATCH, scores
from graphopt.analysis.samples import CALIBRATION
from graphopt.errors import Verdict
from graphopt.graph.load import Source, load
from graphopt.run.bench import Timing, bench
from graphopt.run.data import Data, open_data, rows_of
from graphopt.run.session import Feed, Session

__all__ = ["Row", "Subject", "closest", "table", "ways"]

_FINE: Final = 1 / 512
"""Rates that differ by less are one."""
_PAIRS: Final = 50
_ROWS: Final = 32
"""Of a feed that is timed, as in `graphopt bench`."""
_SECONDS: Final = 300.0

Way = Callable[[Model, Sequence[Feed], float], Model]
"""Cuts a rate of the channels, and may look at calibration feeds."""


@dataclass(frozen=True)
class Row:
    """One result."""

    tool: str
    asked: str
    macs: float
    """The share that is left."""
    accuracy: float | None = None
    agreement: float | None = None
    seconds: float | None = None
    timing: Timing | None = None
    why: str = ""
    """Why there is no result."""


@dataclass(frozen=True)
class Subject:
    """A model, and the data that it is cut and judged by."""

    model: Model
    simple: Model
    """As onnxsim simplifies it: where it cuts, it expects that normalizations were folded."""
    source: Source
    calibration: tuple[Feed, ...]
    test: Data

    @classmethod
    def of(cls, model: Path, calibration: Any, test: Any) -> Subject:
        """Read a model and its data; of the first samples as many as graphopt calibrates on."""
        source = load(model)
        inputs = Session(source.runnable).inputs
        feeds = (feed for feed, _ in open_data(calibration, inputs).batches(BATCH))
        given = onnx.load(model)
        simple, _ = onnxsim.simplify(given)
        return cls(given, simple, source, tuple(_first(feeds, CALIBRATION)), open_data(test, inputs))

    def macs(self, model: Model) -> float:
        """The share of multiply-accumulates that a result has."""
        feed = {name: value[:1] for name, value in self.calibration[0].items()}
        given, found = (facts(s.model, s.carried, feed).macs or 0 for s in (self.source, load(model)))
        return found / given

    def row(self, tool: str, asked: str, model: Model, seconds: float | None = None) -> Row:
        """A result, judged; graphopt's is timed as well."""
        result = load(model).runnable
        found = scores(self.source.runnable, result, self.test.batches(BATCH))
        accuracy, agreement = (found[n][1] if n in found else None for n in ("accuracy", "agreement"))
        timing = None
        if tool == "graphopt":
            feed = {name: value[:_ROWS] for name, value in self.calibration[0].items()}
            timing = bench(Session(self.source.runnable), Session(result), feed, pairs=_PAIRS, seconds=_SECONDS)
        return Row(tool, asked, self.macs(model), accuracy, agreement, seconds, timing)

    def ours(self, **budget: float) -> Row:
        """What graphopt makes of the model under a budget."""
        asked = ", ".join(f"{name} {share:g}" for name, share in budget.items())
        start = time.perf_counter()
        try:
            made = graphopt.optimize(self.model, data=self.calibration, budget=budget, device="cpu")
        except Verdict as problem:
            return Row("graphopt", asked, 1.0, why=str(problem))
        return self.row("graphopt", asked, made.model, time.perf_counter() - start)

    def theirs(self, share: float) -> Iterator[Row]:
        """What each of onnxsim's ways makes of it, if that is not what another way makes as well."""
        asked, seen = f"macs {share:g}", set[bytes]()
        for name, way in ways().items():
            start = time.perf_counter()
            found = self._cut(way, share)
            seconds = time.perf_counter() - start
            if found is None:
                yield Row(f"onnxsim, {name}", asked, 1.0, why="it does not cut as much")
                continue
            rate, made = found
            refit = onnxsim.apply_pruning_finetune(self.simple, made, self.calibration)
            for label, result in ((name, made), (f"{name}, refit", refit)):
                if result.SerializeToString() not in seen:
                    seen.add(result.SerializeToString())
                    yield self.row(f"onnxsim, {label}", f"{asked}: rate {rate:.3f}", result, seconds)

    def _cut(self, way: Way, share: float) -> tuple[float, Model] | None:
        """The rate that it takes, and the result; the rate is looked for with the first feed, and raised from there."""
        rate = closest(lambda r: self.macs(way(self.simple, self.calibration[:1], r)), share)
        while rate is not None and rate < 1:
            made = way(self.simple, self.calibration, rate)
            if self.macs(made) <= share:
                return rate, made
            rate += _FINE
        return None


def closest(left: Callable[[float], float], share: float) -> float | None:
    """The least rate at which at most this share is left; None if there is none below 1."""
    low, high = 0, round(1 / _FINE)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if left(middle * _FINE) <= share else (middle, high)
    return high * _FINE if high * _FINE < 1 else None


def ways() -> dict[str, Way]:
    """All that onnxsim has to cut channels; its other ways set weights to zero, which leaves as much work."""
    return {
        f"{kind} {norm}{', all layers together' * together}": partial(way, norm, together)
        for kind, way in (("magnitude", _magnitude), ("Wanda", _wanda))
        for norm in ("l2", "l1")
        for together in (False, True)
    }


def _magnitude(norm: str, together: bool, model: Model, _: Sequence[Feed], rate: float) -> Model:  # noqa: FBT001
    """Channels with the least weights go."""
    found: Model = onnxsim.apply_structured_pruning(model, rate, norm, together)
    return found


def _wanda(norm: str, together: bool, model: Model, feeds: Sequence[Feed], rate: float) -> Model:  # noqa: FBT001
    """Channels with the least weights times activations go."""
    found: Model = onnxsim.apply_structured_wanda_pruning(
        model, feeds, sparsity=rate, importance_norm=norm, global_sparsity=together
    )
    return found


def _first(feeds: Iterator[Feed], most: int) -> Iterator[Feed]:
    for feed in feeds:
        if most <= 0:
            return
        yield {name: value[:most] for name, value in feed.items()}
        most -= rows_of(feed)


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| tool | asked | MACs left | accuracy | agreement | s | run time |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(f"| {' | '.join(_cells(row))} |" for row in rows)]) + "\n"


def _cells(row: Row) -> list[str]:
    if row.why:
        return [row.tool, row.asked, row.why.replace("|", "/"), "", "", "", ""]
    right = ["" if x is None else f"{x:.2%}" for x in (row.accuracy, row.agreement)]
    timing, seconds = row.timing, "" if row.seconds is None else f"{row.seconds:.0f}"
    ratio = "" if timing is None else f"{timing.ratio:.3f} ({timing.low:.3f}, {timing.high:.3f})"
    return [row.tool, row.asked, f"{row.macs:.1%}", *right, seconds, ratio]


def main() -> None:
    """Write a markdown table, row by row to stderr while it grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("calibration")
    parser.add_argument("test")
    parser.add_argument("--macs", default="0.7,0.5", help="shares that may remain")
    parser.add_argument("--latency", default="", help="shares of the time that may remain, for graphopt alone")
    parser.add_argument("--alone", action="store_true", help="without onnxsim")
    asked = parser.parse_args()
    subject = Subject.of(asked.model, asked.calibration, asked.test)
    rows = []
    for row in _rows(subject, _shares(asked.macs), _shares(asked.latency), alone=asked.alone):
        rows.append(row)
        sys.stderr.write(f"{' | '.join(_cells(row))}\n")
    sys.stdout.write(table(rows))


def _rows(subject: Subject, macs: Sequence[float], latency: Sequence[float], *, alone: bool) -> Iterator[Row]:
    yield subject.row("as given", "", subject.model)
    for share in macs:
        if not alone:
            yield from subject.theirs(share)
        yield subject.ours(macs=share)
    for share in latency:
        yield subject.ours(latency=share)


def _shares(text: str) -> list[float]:
    return [float(word) for word in text.split(",") if word]


if __name__ == "__main__":
    main()
