"""What became of a model that was to compute on integers: the part of the report that quantizing adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from graphopt.analysis.histogram import Histogram
from graphopt.compress.integers.equalize import Evened
from graphopt.compress.integers.quantizers import Ranged
from graphopt.finish import Integral
from graphopt.lossy import Lossy

__all__ = ["BARS", "IntegersReport", "ProductReport", "TensorReport"]

BARS = 48
"""Bars of a histogram, from the least value to the largest."""


@dataclass(frozen=True)
class TensorReport:
    """One value that a quantizer stands behind."""

    name: str
    method: str
    """How its range was found, or that it was kept."""
    low: float
    high: float
    scale: float
    zero: int
    clipped: float | None
    """The share of its elements that are cut off; None where it was not observed."""
    sqnr: float | None
    """Its signal over its quantization noise, in decibels; None where it was not observed."""
    least: float
    most: float
    bars: tuple[float, ...]
    """How many elements there are between both, in equal parts, as a part of the fullest one."""

    @classmethod
    def of(cls, name: str, found: Ranged) -> TensorReport:
        """What of a range a report keeps."""
        grid, by, seen = found.grid, found.range, found.histogram
        low, high = grid.range
        if by is None or seen is None:
            return cls(name, "kept", low, high, grid.scale, grid.zero, None, None, low, high, ())
        least, most = (seen.low, seen.high) if seen.count else (0.0, 0.0)
        bars = _bars(seen, least, most) if most > least else ()
        return cls(name, by.method, low, high, grid.scale, grid.zero, by.clipped, by.sqnr, least, most, bars)


def _bars(seen: Histogram, least: float, most: float) -> tuple[float, ...]:
    bins = seen.bins(zeros=True)
    middle = (bins.left + bins.right) / 2 * seen.width
    place = np.clip(((middle - least) / (most - least) * BARS).astype(np.int64), 0, BARS - 1)
    counts = np.bincount(place, weights=bins.count, minlength=BARS)
    return tuple((counts / max(counts.max(), 1)).round(6).tolist())


@dataclass(frozen=True)
class ProductReport:
    """One product that could compute on integers."""

    key: str
    way: str
    """How its weights were rounded; empty where they stay floats."""
    before: float
    """Error on samples held back with weights that are floats, behind products that are quantized, as a part of what
    the original's values vary."""
    after: float
    """The same with weights that are integers."""
    gain: float | None
    """Decibels that the outputs gain with it alone on floats, where that was measured."""
    cause: str
    """Why it costs that, where that is much and something is known."""
    done: str
    """What was done about it."""
    integer: bool | None
    """Whether the runtime computes it on integers; None where that was not asked."""
    reason: str
    """Why not."""


@dataclass(frozen=True)
class IntegersReport:
    """What was quantized, why so, and what the runtime makes of it."""

    emitted: bool
    """Whether the model on integers is the result: not if it was slower."""
    bits: int
    """Of a weight."""
    tensors: tuple[TensorReport, ...]
    products: tuple[ProductReport, ...]
    evened: tuple[Evened, ...]
    """Groups of channels that were brought to one range before."""
    evened_gain: float
    """Decibels that the outputs gain by that on samples held back."""
    floats: tuple[str, ...]
    """Keys of products that stay on floats for what that brings."""
    slower: float | None
    """What that takes: the time over that with everything on integers; None where the clock was not asked."""
    kernels: Mapping[str, int]
    """How often the runtime runs each operator; none where it was not asked."""
    ratio: float | None
    """The time over that of the same model on floats; None where it was not asked."""
    low: float | None
    """Its 95 % interval."""
    high: float | None
    pairs: int

    @classmethod
    def of(cls, found: Lossy) -> IntegersReport | None:
        """What a report keeps; None where nothing was to be quantized."""
        integers = found.integers
        if integers is None:
            return None
        made, timing = integers.found, integers.timing
        return cls(
            integers.emitted,
            integers.bits,
            tuple(TensorReport.of(name, made.ranges[number]) for name, number in made.layout.values.items()),
            _products(integers),
            integers.even.groups,
            integers.even.gain,
            made.floats,
            made.slower,
            dict(integers.audit.kernels) if integers.audit else {},
            None if timing is None else timing.ratio,
            None if timing is None else timing.low,
            None if timing is None else timing.high,
            0 if timing is None else timing.pairs,
        )


def _products(integers: Integral) -> tuple[ProductReport, ...]:
    made = integers.found
    seen = {p.key: p for p in integers.audit.products} if integers.audit else {}
    keys = dict.fromkeys((*made.gains, *made.layout.products, *(k for k, p in seen.items() if not p.integer)))
    found = list[ProductReport]()
    for key in keys:
        weights, product, cost = made.weights.get(key), seen.get(key), made.costs.get(key)
        found.append(
            ProductReport(
                key,
                weights.way if weights else "",
                weights.before if weights else 0.0,
                weights.after if weights else 0.0,
                made.gains.get(key),
                cost.cause if cost else "",
                cost.done if cost else "",
                product.integer if product else None,
                product.reason if product else "",
            )
        )
    return tuple(found)
