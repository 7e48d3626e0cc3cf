"""Channels of very different ranges are brought to one range before they share a quantizer.

    max(0, a·x) = a·max(0, x) for a > 0:    W₂·relu(W₁·x + b) = (W₂·S)·relu(S⁻¹·(W₁·x + b)),    S = diag(s)

The function stays the same, to rounding; but a channel that was a few steps of its quantizer high now has as many as
the others, at the cost of columns of W₂ that differ more. Between linear layers that is cross-layer equalization (Nagel
et al., Data-Free Quantization, 2019), behind a normalization it is SmoothQuant (Xiao et al., 2023):

    s_j = max|x_j|^a / max|w_j|^(1 − a)

How far to go (a) is measured for each group of channels, by the error of what the products that read them give with
data and weights on integers. What promises to gain is tried at the outputs of the whole model, on samples held back:
all of it, the better half, and so on. Only what they gain by clearly is taken.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from math import log10
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.calibration import observe
from graphopt.analysis.factors import Scalable, scalable
from graphopt.analysis.facts import extents, few
from graphopt.analysis.histogram import Histogram
from graphopt.analysis.inside import Tap
from graphopt.analysis.metrics import distance
from graphopt.analysis.places import added, sampled
from graphopt.analysis.ranges import chosen
from graphopt.analysis.segments import Samples, batches, folded
from graphopt.compress.integers.quantize import Quantize, grids
from graphopt.compress.integers.quantizers import assembled
from graphopt.compress.integers.region import Grid, layout
from graphopt.compress.integers.round import nearest
from graphopt.graph.collector import trimmed
from graphopt.graph.nodes import key
from graphopt.run.machine import HERE, Machine
from graphopt.run.session import Feed
from graphopt.targets import Integers

__all__ = ["Equalized", "Evened", "equalized"]

Array = NDArray[Any]
Proposal = tuple[Array, Array, "Evened"]
"""Units, what each may be divided by, and what that does."""

_POWERS: Final = (0.25, 0.5, 0.75, 1.0)
_SAMPLES: Final = (16, 96)
"""That are looked at, at least and at most."""
_WORK: Final = 6e9
"""Multiply-accumulates that a model may take for all of them, about."""
_ROWS: Final = 256
"""Positions at which products are looked at."""
_BATCH: Final = 4
"""Samples of one run."""
_LEAST: Final = 2.0**-10
"""Channels that are smaller than this part of the largest one are taken to be so large: what they hold is next to
nothing, and more may come."""
_PROMISING: Final = 0.2
"""Decibels that a group must gain where it is read to be tried."""
_GAIN: Final = 0.5
"""Decibels that the outputs must gain for anything to be changed."""


@dataclass(frozen=True)
class Evened:
    """One group of channels that was equalized."""

    products: tuple[str, ...]
    """Keys of those that read it."""
    power: float
    """a, as above."""
    spread: float
    """The largest factor over the smallest."""
    gain: float
    """Decibels that what these products give gains."""


@dataclass(frozen=True, eq=False)
class Equalized:
    """The same function with other ranges inside."""

    model: ir.Model
    groups: tuple[Evened, ...] = ()
    gain: float = 0.0
    """Decibels that the outputs gain on samples held back, with weights rounded to the nearest."""


@dataclass(frozen=True, eq=False)
class _Read:
    """One product, and what it reads at some positions."""

    key: str
    matrix: Array
    """(groups, out, columns)."""
    rows: Array
    """(groups, columns, rows)."""
    exact: Array
    """(groups, out, rows): what it gives there."""
    units: Array
    """(groups, columns): the unit of each column."""


def equalized(
    model: ir.Model,
    target: Integers,
    form: Quantize,
    samples: Samples,
    *,
    skip: Collection[str] = (),
    machine: Machine = HERE,
) -> Equalized:
    """A model with even channels where that helps its form on integers; the same one where nothing does.

    Args:
        model: canonical; it is not changed.
        target: which integers it is for.
        form: how ranges are chosen, and bits of a weight.
        samples: what is learned from; some are held back to decide. In an order that does not depend on how it was
            given.
        skip: keys of nodes that stay as they are.
        machine: where to run.
    """
    plan = layout(model, target, skip)
    feeds, _ = batches(model, samples, 1)
    found = scalable(model, extents(model, feeds[0]), skip) if feeds and plan.products else None
    if found is None or not found.groups:
        return Equalized(model)
    machine.progress("looking for channels of different ranges")
    learned, held = folded(few(model, samples, _SAMPLES, _WORK))
    wanted = {k for k in plan.products if k in found.sources and (found.sources[k] >= 0).any()}
    linears = {key(n): linear for n in model.graph if key(n) in wanted for linear in ops.linears(n)}
    reads, most = _read(model, found, linears, learned, machine)
    trial = _Trial(model, target, skip, form, learned, held, replace(machine, progress=HERE.progress))
    mine = ([r for r in reads if np.isin(r.units, units).any()] for units in found.groups)
    every = [_proposed(units, some, most, trial) for units, some in zip(found.groups, mine, strict=True)]
    proposals = sorted((p for p in every if p is not None), key=lambda p: -p[2].gain)
    best, before = Equalized(model), trial.noise(model) if proposals else 0.0
    chosen = np.ones(len(most))
    while proposals:
        factors = np.ones(len(most))
        for units, by, _ in proposals:
            factors[units] = by
        gain = trial.noise(found.scaled(model, factors)) - before
        if gain >= max(_GAIN, best.gain):
            best, chosen = Equalized(model, tuple(told for *_, told in proposals), gain), factors
        proposals = proposals[: len(proposals) // 2]
    return replace(best, model=found.scaled(model, chosen)) if best.groups else best


@dataclass(frozen=True, eq=False)
class _Trial:
    """What is tried, and on what."""

    model: ir.Model
    target: Integers
    skip: Collection[str]
    form: Quantize
    learned: Samples
    held: Samples
    machine: Machine

    def noise(self, model: ir.Model) -> float:
        """Signal over noise of the outputs, in decibels, with all on integers that can be."""
        plan = layout(model, self.target, self.skip)
        seen = observe(model, plan.values, self.learned, self.machine)
        ranges = grids(plan, seen, self.form.method, unsigned=self.target.unsigned)
        nodes = {key(n): linear for n in model.graph for linear in ops.linears(n)}
        made = {k: nearest(nodes[k].matrix(), added(nodes[k]), self.form.weight_bits) for k in plan.products}
        other = assembled(model, plan, ranges, made, integer_bias=self.target.bias)
        noise = distance(self._expected, self.machine.session(other, lasting=False))
        size = sum(linear.weights.nbytes for linear in nodes.values())
        del nodes, made, other
        trimmed(size)  # each trial has weights of its own
        return noise

    @cached_property
    def _expected(self) -> list[tuple[Feed, Mapping[str, object]]]:
        session = self.machine.session(self.model, lasting=False)
        return [(feed, session.run(feed)) for feed in batches(self.model, self.held, _BATCH)[0]]


def _read(
    model: ir.Model, found: Scalable, linears: Mapping[str, ops.Linear], samples: Samples, machine: Machine
) -> tuple[list[_Read], Array]:
    """What products read, and the largest magnitude of each unit there: (units,)."""
    nodes = {name: (linear.node.inputs[linear.x], linear.node.outputs[0]) for name, linear in linears.items()}
    ends = {name: [str(v.name) for v in both if v is not None] for name, both in nodes.items()}
    run, (feeds, counts) = Tap(model, chain(*ends.values()), machine), batches(model, samples, _BATCH)
    most = np.zeros(sum(map(len, found.groups)) + 1)
    parts: dict[str, list[Array]] = {name: [] for name in linears}
    share = -(-_ROWS // sum(counts))
    for index, (feed, count) in enumerate(zip(feeds, counts, strict=True)):
        values = run(feed)
        for name, linear in linears.items():
            x, y = (values[end] for end in ends[name])
            flat = np.moveaxis(np.abs(x), linear.y_axis, 0).reshape(linear.in_channels, -1)
            np.maximum.at(most, found.sources[name], flat.max(axis=1))
            parts[name].append(linear.unfold(x, sampled(index * _BATCH, count, y.size // linear.channels, share)))
    reads = []
    for name, linear in linears.items():
        matrix, rows = linear.matrix().astype(np.float32), np.concatenate(parts[name], axis=2).astype(np.float32)
        units = found.sources[name].reshape(linear.groups, -1)
        units = np.repeat(units, matrix.shape[2] // units.shape[1], axis=1)
        if np.isfinite(rows).all():  # else nothing can be learned here
            reads.append(_Read(name, matrix, rows, matrix @ rows, units))
    return reads, most[:-1]


def _proposed(units: Array, reads: Sequence[_Read], most: Array, trial: _Trial) -> Proposal | None:
    """The power with the least error, if that is clearly better than none."""
    size = len(most)
    widest = np.zeros(size + 1)
    for read in reads:
        np.maximum.at(widest, read.units, np.abs(read.matrix).max(axis=1))
    x, w = most[units], widest[units]
    usable = (x > 0) & (w > 0) & np.isfinite(x) & np.isfinite(w)
    if not usable.any():
        return None
    x, w = (np.where(usable, np.maximum(v, v[usable].max() * _LEAST), 1.0) for v in (x, w))

    def error(factors: Array) -> float:
        by = np.ones(size + 1)
        by[units] = factors
        return sum(_error(read, by[read.units], trial) for read in reads)

    found, before = list[Proposal](), error(np.ones(len(units)))
    for power in _POWERS:
        exponents = power * np.log2(x) - (1 - power) * np.log2(w)
        factors = np.where(usable, 2.0 ** (exponents - np.median(exponents[usable])), 1.0)
        after = error(factors)
        if 0 < after < before:
            spread, gain = float(factors.max() / factors.min()), 10 * log10(before / after)
            found.append((units, factors, Evened(tuple(r.key for r in reads), power, spread, gain)))
    return max((p for p in found if p[2].gain >= _PROMISING), key=lambda p: p[2].gain, default=None)


def _error(read: _Read, by: Array, trial: _Trial) -> float:
    """Of what a product gives, with data and weights on integers, as a part of its square."""
    by = by.astype(np.float32)
    x, matrix = read.rows / by[..., None], read.matrix * by[:, None]
    seen, unsigned = Histogram(), trial.target.unsigned
    seen.add(x)
    best = chosen(seen, trial.form.method, symmetric=not unsigned)
    grid = Grid.over(best.low, best.high, unsigned=unsigned)
    data = np.clip(np.rint(x / grid.scale) * grid.scale, *grid.range)
    codes = nearest(matrix, np.zeros(matrix.shape[:2]), trial.form.weight_bits)
    gap = read.exact - codes.matrix.astype(np.float32) @ data
    noise, power = (float(np.square(a, dtype=np.float64).sum()) for a in (gap, read.exact))
    return noise / power if power else 0.0
