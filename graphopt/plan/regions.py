"""Which regions of a quantized model stay on floats.

    quantize all ─► what does each region cost the outputs? ─► leave out what costs most

What a region costs is measured: how many decibels the outputs gain where it alone computes on floats again. Without an
allowed drop, a region stays on floats where that brings much and the clock says that it takes little. With one, the
fewest that keep to it do, found by bisection over the regions from the dearest on: log2 N whole evaluations for N.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Final

import onnx_ir as ir

from graphopt.analysis.calibration import observe, recalled
from graphopt.analysis.causes import Seen, Weighed, cause
from graphopt.analysis.facts import few
from graphopt.analysis.histogram import Histogram
from graphopt.analysis.metrics import distance
from graphopt.analysis.samples import UNLEARNED
from graphopt.analysis.segments import Samples, batches
from graphopt.compress.integers.quantize import Quantize, grids, weights
from graphopt.compress.integers.quantizers import Ranged, assembled
from graphopt.compress.integers.region import Layout, around, layout, refused
from graphopt.compress.integers.round import BLIND, Rounded
from graphopt.counted import counted, grouped
from graphopt.errors import InputError, Verdict
from graphopt.plan.budget import excess
from graphopt.run.bench import bench
from graphopt.run.machine import HERE, Machine
from graphopt.run.session import Feed
from graphopt.targets import Integers

__all__ = ["Cost", "Quantized", "Regions"]

_ROUNDED: Final = (64, 256)
"""Samples that weights are rounded on, at least and at most."""
_WORK: Final = 3e10
"""Multiply-accumulates that a model may take for all of them, about."""
_SAMPLES: Final = (8, 64)
"""That the cost of a region is measured on, at least and at most."""
_SHARE: Final = 5
"""Of that work, what one of these measurements may take."""
_AT_ONCE: Final = 8
"""Of them, in one run."""
_WORTH: Final = 0.5
"""Decibels that leaving a region on floats must bring for the clock to be asked."""
_RATE: Final = 15.0
"""Decibels that it must bring for the whole of the model's time: 0.15 for each percent."""
_TRIED: Final = 4
"""Regions that the clock is asked about."""
_SLOWER: Final = 1.07
"""What they may take, all together: the time over that of the model with everything on integers."""
_SECONDS: Final = 2.0
_REASONS: Final = 3
"""That are told, at most, where nothing can be quantized."""

Metrics = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Cost:
    """Why a product on integers costs the outputs much, and what was done about that."""

    cause: str
    """Empty where nothing is known."""
    done: str


@dataclass(frozen=True, eq=False)
class Quantized:
    """A quantized model, and what led to it."""

    model: ir.Model
    layout: Layout
    ranges: Mapping[int, Ranged]
    """By number of the grid."""
    weights: Mapping[str, Rounded]
    """By key of the product."""
    floats: tuple[str, ...]
    """Keys of products that could compute on integers and do not, the dearest first."""
    gains: Mapping[str, float] = field(default_factory=dict)
    """Decibels that the outputs gain with the product of this key alone on floats; where nothing was to be decided,
    none."""
    costs: Mapping[str, Cost] = field(default_factory=dict)
    """By key, of products whose gain is worth a word, the dearest first."""
    slower: float | None = None
    """What leaving `floats` on floats takes: the time over that of the model with everything on integers."""


@dataclass(frozen=True, eq=False)
class Regions:
    """One model that is to be quantized."""

    model: ir.Model
    """Canonical."""
    target: Integers
    form: Quantize
    samples: Samples
    """What is learned from."""
    skip: Collection[str] = ()
    """Keys of nodes that compute on floats."""
    timed: Feed | None = None
    """What the clock is asked on; None where it cannot be asked about the target."""
    machine: Machine = HERE
    known: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """By name of a value, its range, where that is not to be observed."""
    kept: Mapping[str, Rounded] = field(default_factory=dict)
    """By key of a product, the integers that its weight is already."""
    moved: bool = False
    """Whether it was quantized before, so that without an allowed drop nothing is to be decided."""

    kept_in: Path | None = None
    """The file that keeps what was observed."""

    def quantized(self, floats: Collection[str]) -> Quantized:
        """With some regions on floats, and all others on integers; their weights are the same whichever these are."""
        plan = layout(self.model, self.target, {*self.skip, *floats})
        ranges = self._grids(plan)
        bias, passed = self.target.bias, self.target.passed
        made = assembled(self.model, plan, ranges, self._weights, integer_bias=bias, passed=passed)
        left = {key: one for key, one in self._weights.items() if key in plan.products}
        return Quantized(made, plan, ranges, left, tuple(floats))

    def settled(self, score: Callable[[ir.Model], Metrics], allowed: Mapping[str, float]) -> Quantized:
        """With the regions on floats that are worth it, or the fewest that keep to an allowed drop.

        Args:
            score: what metrics a model has.
            allowed: as `plan.budget.drops` has it.

        Raises:
            Verdict: nothing can be quantized.
            InputError: nothing can be learned.
        """
        first = self.quantized(())
        if not first.weights:
            why = list(islice(grouped(refused(self.model, self.target, self.skip)), _REASONS))
            raise Verdict(f"nothing in the model can be quantized: {'; '.join(why) or 'it has no products'}")
        if excess(score(first.model), allowed) <= 1 if allowed else self.moved:
            return first
        gains = self._gains(first)
        dearest = sorted(gains, key=lambda k: -gains[k])
        worth = {k: gains[k] for k in dearest if gains[k] >= _WORTH}
        done = dict.fromkeys(worth, "nothing: the drop is kept without" if allowed else "nothing: no clock was asked")
        if allowed:
            floats, slower = dearest[: self._fewest(dearest, score, allowed)], None
        elif self.timed is not None:
            floats, slower, told = self._worth(first, worth, self.timed)
            done |= dict.fromkeys(worth, f"nothing: only the {_TRIED} dearest are timed") | told
        else:
            floats, slower = [], None
        done |= {k: "kept on floats" for k in floats if k in done}
        costs = {k: Cost(why, done[k]) for k, why in self._causes(first, worth)}
        return replace(self.quantized(floats), gains=gains, costs=costs, slower=slower)

    def _causes(self, first: Quantized, keys: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Why products with these keys cost what they do."""
        inputs, ends = {str(v.name) for v in self.model.graph.inputs}, around(self.model, self.target, first.layout)
        for name in keys:
            made, values = first.weights[name], list[Seen]()
            for what, value in zip(("what it reads", "what it makes"), ends[name], strict=True):
                ranged = None if value is None else first.ranges[first.layout.values[value]]
                if ranged is not None and ranged.range is not None and ranged.histogram and ranged.histogram.count:
                    spread = made.spread if not values else 1.0
                    values.append(Seen(what, ranged.histogram, ranged.range, spread, value in inputs))
            rounding = Weighed(self.form.weight_bits, max(made.after - made.before, 0.0), made.peak)
            yield name, cause(values, rounding)

    @cached_property
    def _weights(self) -> dict[str, Rounded]:
        """Of all that can be quantized, on so many samples as take some minutes at most."""
        plan = layout(self.model, self.target, self.skip)
        self.machine.progress("rounding weights")
        some = few(self.model, self.samples, _ROUNDED, _WORK)
        bits = self.form.weight_bits
        made = weights(self.model, plan, self._grids(plan), some, self.machine, bits=bits, kept=self.kept)
        if made and all(one.way == BLIND for one in made.values()):
            raise InputError(UNLEARNED)
        return made

    def notes(self) -> Iterator[str]:
        """Where ranges came from, if not from the samples."""
        found, held = self._observed
        if held:
            yield f"what {held} of {len(found)} values are like was read from {self.kept_in}, not observed"

    @cached_property
    def _observed(self) -> tuple[dict[str, Histogram], int]:
        """With fewer regions on integers, no other values are quantized; and how many a file held."""
        plan = layout(self.model, self.target, self.skip)
        names = [name for name in plan.values if name not in self.known]
        if names and self.kept_in is not None:
            return recalled(self.kept_in, self.model, names, self.samples, self.machine)
        return observe(self.model, names, self.samples, self.machine) if names else {}, 0

    def _grids(self, plan: Layout) -> dict[int, Ranged]:
        return grids(
            plan,
            self._observed[0],
            self.form.method,
            unsigned=self.target.unsigned,
            known=self.known,
            memory=self._settled,
        )

    @cached_property
    def _settled(self) -> dict[Any, Ranged]:
        """Layouts have most of their grids in common."""
        return {}

    def _gains(self, first: Quantized) -> dict[str, float]:
        """See `Quantized.gains`."""
        feeds, _ = batches(self.model, few(self.model, self.samples, _SAMPLES, _WORK / _SHARE), _AT_ONCE)
        session = self.machine.session(self.model, lasting=False)
        expected = [(feed, session.run(feed)) for feed in feeds]
        del session  # one at a time

        def noise(model: ir.Model) -> float:
            return distance(expected, self.machine.session(model, lasting=False))

        at, found = noise(first.model), {}
        for name in self.machine.track(list(first.layout.products), "measuring what quantizing {} costs".format):
            found[name] = noise(self.quantized([name]).model) - at
        return found

    def _fewest(
        self,
        dearest: Sequence[str],
        score: Callable[[ir.Model], Metrics],
        allowed: Mapping[str, float],
    ) -> int:
        """How many of the dearest regions have to be on floats."""
        low, high = 0, len(dearest)
        while high - low > 1:
            middle = (low + high) // 2
            self.machine.progress(f"trying {middle} of {counted(len(dearest), 'region')} on floats")
            keeps = excess(score(self.quantized(dearest[:middle]).model), allowed) <= 1
            low, high = (low, middle) if keeps else (middle, high)
        return high

    def _worth(
        self, first: Quantized, gains: Mapping[str, float], feed: Feed
    ) -> tuple[list[str], float | None, dict[str, str]]:
        """Of the dearest regions those that take little time on floats, what they take together, and about others."""
        chosen, slower, told = list[str](), None, dict[str, str]()
        session = self.machine.timed(first.model)
        for name in self.machine.track(list(gains)[:_TRIED], "timing {} on floats".format):
            other = self.machine.timed(self.quantized([*chosen, name]).model)
            ratio = bench(session, other, feed, seconds=_SECONDS).ratio
            more = ratio - (slower or 1.0)
            told[name] = f"nothing: on floats, the model would take {more:+.1%} of the time"
            if ratio <= _SLOWER and more <= gains[name] / _RATE:
                chosen, slower = [*chosen, name], ratio
        return chosen, slower, told
