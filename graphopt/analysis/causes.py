"""Why quantizing a product costs what it does, in plain words, from what was counted on the way.

Three things add noise: rounding what it reads, what it makes, and its weights. The one that adds most, as a part of
what it is added to, is named, with the first of these that is true of it:

    tiny step         what is there is less than the least step that runtimes know
    outlier channel   one channel reaches far beyond the others, and all share one step
    long tail         few elements reach far beyond the rest; the range has to cut them off or make the step wide
    clipped           much is cut off
    few levels        what is not 0 lies close together, as seen from the range
    one sign          half of a grid around 0 is never used
    an input          the model is given no more than the levels tell
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from graphopt.analysis.clipping import quantiles
from graphopt.analysis.histogram import SIDE, Histogram
from graphopt.analysis.ranges import Range

__all__ = ["Seen", "Weighed", "cause"]

_BULK: Final = 0.999
"""Elements on either side of this quantile are the tail."""
_TAIL: Final = 4.0
"""How far beyond it a long one reaches: that of a million normal elements reaches 1.6 times as far."""
_OUTLIER: Final = 8.0
"""How far beyond half of the channels one reaches that stands out."""
_CLIPPED: Final = 0.005
"""A share of all elements that is much."""
_MOST: Final = 0.95
"""Between this quantile and its opposite lies most of what is not 0."""
_FEW: Final = 16
"""Levels that are few for that; normal elements have a hundred of 256."""
_PEAK: Final = 16.0
"""How far beyond the rms of its channel a weight lies that stands out."""
_BITS: Final = 8


@dataclass(frozen=True, eq=False)
class Seen:
    """A value that a quantizer stands behind, beside a product."""

    what: str
    """Its name in a sentence: "what it reads"."""
    histogram: Histogram
    """Of what was seen; not empty."""
    range: Range
    spread: float = 1.0
    """How far the farthest of its channels reaches, over the median of them; 1 where that is not known."""
    given: bool = False
    """Whether it is an input of the model."""

    @property
    def noise(self) -> float:
        """Noise over signal."""
        return float(10 ** (-self.range.sqnr / 10))


@dataclass(frozen=True)
class Weighed:
    """Weights that were rounded."""

    bits: int
    noise: float
    """What rounding them adds, as a part of what the result varies."""
    peak: float
    """How far the largest weight of a channel lies beyond their rms there, at most."""


def cause(values: Sequence[Seen], weights: Weighed | None = None) -> str:
    """What quantizing a product costs most, and why; empty where nothing is known, or lost.

    Args:
        values: what it reads and makes, where that is quantized and was observed.
        weights: what became of its weights, where they were rounded on data.
    """
    worst = max((v for v in values if v.noise), key=lambda v: v.noise, default=None)
    if weights is not None and weights.noise > (0 if worst is None else worst.noise):
        return _of_weights(weights)
    return "" if worst is None else f"{worst.what}: {_of_value(worst)}"


def _of_weights(weights: Weighed) -> str:
    said = f"its weights: rounding them to {weights.bits} bits adds {weights.noise:.2%} noise"
    peaked = weights.bits == _BITS and weights.peak > _PEAK
    return f"{said}, one of a channel being {weights.peak:.0f} times the rms" if peaked else said


def _of_value(value: Seen) -> str:
    seen, found = value.histogram, value.range
    cut = _cut(value)
    if found.step <= float(np.finfo(np.float32).tiny):
        return "its numbers are less than the least step"
    if value.spread > _OUTLIER:
        return f"outlier channel: one reaches {value.spread:.3g} times as far as half of them{cut}"
    bulk, far = _reach(quantiles(seen, _BULK)) * seen.width, _reach((seen.low, seen.high))
    if far > _TAIL * bulk:
        return f"long tail: {_BULK:.1%} lie within {bulk:.3g}, the farthest at {far:.3g}{cut}"
    if found.clipped > _CLIPPED:
        return f"much is clipped{cut}"
    held = replace(seen, counts=seen.counts.copy(), zeros=0)
    held.counts[SIDE - 1] -= seen.zeros
    low, high = quantiles(held, _MOST) if held.count else (0.0, 0.0)
    levels = round((high - low) * seen.width / found.step) + 1
    if levels < _FEW:
        return f"few levels: most of what is not 0 lies on {levels} of {found.levels}{cut}"
    if found.low < 0 <= seen.low:
        return f"none is negative, so half of the {found.levels} levels around 0 are never used{cut}"
    limit = "an input of the model, of which" if value.given else "its range fits, but"
    return f"{limit} {found.levels} levels tell {found.sqnr:.1f} dB{cut}"


def _reach(ends: tuple[float, float]) -> float:
    return max(-ends[0], ends[1])


def _cut(value: Seen) -> str:
    """What the range leaves out, if it does."""
    found = value.range
    return f"; range cut at {found.low:.3g} to {found.high:.3g}, {found.clipped:.2%} clipped" if found.clipped else ""
