"""Which range of a tensor its quantized form should cover, told from its histogram.

A quantizer knows the multiples of a step from −below·step to above·step, so that 0 is exact: padding, and what a Relu
cuts off, stays what it is. A narrow range has a small step but clips what lies beyond it.

How much a range loses is not guessed: elements are taken to lie evenly in their bin (zeros lie at 0), and the squared
error of rounding and clipping is integrated over each bin, in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log10
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from graphopt.analysis.clipping import Bounds, least_divergence, least_error, quantiles
from graphopt.analysis.histogram import Bins, Histogram
from graphopt.errors import UsageError

__all__ = ["Method", "Range", "chosen"]

Method = Literal["minmax", "average", "percentile", "entropy", "mse"]

_FINEST: Final = float(np.finfo(np.float32).tiny)
"""No step is smaller: runtimes hold it as a float32, and many flush subnormals to 0."""
_LARGEST: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Range:
    """What a quantized tensor covers, and what that costs."""

    low: float
    """−below·step, at most 0."""
    high: float
    """above·step, at least 0."""
    step: float
    """Between levels: a normal float32."""
    levels: int
    method: Method
    clipped: float
    """The share of all elements that lie more than half a step outside, so that clipping moves them further than
    rounding would."""
    sqnr: float
    """Signal to quantization noise in dB, inf where nothing is lost."""


def chosen(
    histogram: Histogram,
    method: Method = "mse",
    *,
    levels: int = 256,
    symmetric: bool = False,
    percentile: float = 99.99,
) -> Range:
    """The range for a tensor with this histogram; all of it where a method would leave nothing but 0.

    * minmax: all elements.
    * average: the mean over samples of their extremes (`Histogram.average`).
    * percentile: all elements but the share of 1 − percentile/100 on either side.
    * entropy: the least Kullback-Leibler divergence of the quantized from the whole distribution. Migacz, 8-bit
      inference with TensorRT, GTC 2017; the search is over both ends where there are elements on both sides.
    * mse: the least mean squared error. Banner et al., Post training 4-bit quantization of convolutional networks for
      rapid-deployment, NeurIPS 2019; with the histogram in place of a Laplace distribution, and both ends free.

    Args:
        histogram: without elements, any range will do, and the step is 1.
        method: how to choose.
        levels: of the quantizer; at least 2, or 3 if symmetric.
        symmetric: as many levels on either side of 0, one less than `levels` if that is even (−127 to 127 of 256).
        percentile: above 50, at most 100; only `percentile` asks for it.

    Raises:
        UsageError: an argument makes no sense.
    """
    if method not in get_args(Method):
        raise UsageError(f"there is no method {method!r} for ranges: give one of {', '.join(get_args(Method))}")
    if levels < 2 + symmetric or not 50 < percentile <= 100:  # noqa: PLR2004 - the median cuts off everything
        raise UsageError(
            f"a range needs {2 + symmetric} levels or more and a percentile in (50, 100], not {levels} and {percentile}"
        )
    unit, bins = histogram.width, histogram.bins()
    steps = levels - 1 if not symmetric else (levels - 1) // 2 * 2
    bounds = whole = min(histogram.low, 0.0) / unit, max(histogram.high, 0.0) / unit

    def grid(bounds: Bounds) -> _Grid:
        return _grid(bounds, unit, steps, symmetric=symmetric)

    if len(bins.count):
        match method:
            case "average":
                low, high = histogram.average
                bounds = low / unit, high / unit
            case "percentile":
                bounds = quantiles(histogram, percentile / 100)
            case "entropy":
                bounds = least_divergence(histogram, whole, levels, symmetric=symmetric)
            case "mse":
                bounds = least_error(bins, whole, lambda b: grid(b).error(bins), steps, symmetric=symmetric)
    best = grid(bounds if bounds[0] < 0 or bounds[1] > 0 else whole)
    wide = bins.right - bins.left
    signal = float(bins.count @ (((bins.left + bins.right) / 2) ** 2 + wide**2 / 12))
    noise = best.error(bins)
    return Range(
        -best.below * best.step * unit,
        best.above * best.step * unit,
        best.step * unit,
        levels,
        method,
        best.clipped(bins) / max(histogram.count, 1),
        10 * log10(signal / noise) if noise and signal else inf,
    )


@dataclass(frozen=True)
class _Grid:
    """The levels of a quantizer; lengths are in units of the width of a bin."""

    step: float
    below: int
    """Levels below 0."""
    above: int

    def error(self, bins: Bins) -> float:
        """The sum of squared errors.

        With r = x/step − k, k the nearest integer: ∫(x − Q(x))² dx from 0 is step³·(k/12 + r³/3), and beyond the last
        level, at distance d, d³/3 more.
        """
        wide = bins.right - bins.left
        apart = wide > 1e-6 * self.step  # else the difference of the integrals is mostly rounding
        middle = (bins.left + bins.right) / 2
        even = (self._integral(bins.right) - self._integral(bins.left)) / np.where(apart, wide, 1)
        level = np.clip(np.rint(middle / self.step), -self.below, self.above)
        return float(bins.count @ np.where(apart, even, (middle - level * self.step) ** 2))

    def clipped(self, bins: Bins) -> float:
        """How many elements lie more than half a step outside."""
        low, high = -(self.below + 0.5) * self.step, (self.above + 0.5) * self.step
        wide = np.maximum(bins.right - bins.left, np.spacing(np.abs(bins.right)))
        beyond = np.clip((low - bins.left) / wide, 0, 1) + np.clip((bins.right - high) / wide, 0, 1)
        return float(bins.count @ beyond)

    def _integral(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        inside = np.clip(x / self.step, -self.below, self.above)
        k = np.rint(inside)
        return self.step**3 * (k / 12 + (inside - k) ** 3 / 3) + (x - inside * self.step) ** 3 / 3


def _grid(bounds: Bounds, unit: float, steps: int, *, symmetric: bool) -> _Grid:
    """So many steps over these bounds, shifted so that a level is 0 (Jacob et al., Quantization and training, 2018)."""
    low, high = max(min(bounds[0], 0.0), -_LARGEST / unit), min(max(bounds[1], 0.0), _LARGEST / unit)
    if symmetric:
        low, high = min(low, -high), max(high, -low)
    spread = high - low
    step = float(np.float32(max(spread * unit / steps, _FINEST))) if spread else 1.0
    below = steps // 2 if symmetric else round(-low / (spread or 1) * steps)
    return _Grid(step / unit, below, steps - below)
