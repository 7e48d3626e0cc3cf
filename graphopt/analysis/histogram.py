"""How the elements of a tensor are distributed: exact counts that neither batches nor order nor shards change.

The grid is anchored at 0 and its bins are 2^e wide. Where a magnitude lies beyond it, e grows and bins are merged in
pairs: cutting x/2^(e+1) off to an integer is cutting x/2^e off and then halving, so nothing is approximated, and the
final width is settled by the largest magnitude alone. All that is held can be added up in any order: two histograms
make the one that their data together would have made, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import frexp, inf, isfinite, ldexp
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from graphopt.errors import InputError

__all__ = ["SIDE", "Bins", "Histogram"]

Array = NDArray[Any]

SIDE: Final = 4096
"""Bins on either side of 0, of which data of one sign fills at least half: 8 for each of 256 levels."""
_LEAST: Final = -126
"""No bin is narrower than 2^this, so that its inverse is a float32 as well."""
_BLOCK: Final = 1 << 16
"""Elements that are counted at once, so that what is made of them stays in the cache."""
_COUNTERS: Final = 16
_TURNS: Final = (SIDE + np.arange(_BLOCK) % _COUNTERS).astype(np.int16)
"""Counters behind the others that zeros go to in turn: one alone would have each of them wait for the one before."""
_UNIT: Final = 1074
"""2^−this is the smallest float64: sums in this unit are integers, and exact."""
_SINGLE: Final = tuple(map(np.dtype, (np.float16, ml_dtypes.bfloat16)))
"""Types that are counted as float32, which holds their values exactly."""


@dataclass(frozen=True, eq=False)
class Bins:
    """The bins that hold anything, in order, cut to where data can be."""

    left: NDArray[np.float64]
    """In units of the width of a bin; the same as `right` where all elements of the bin are equal."""
    right: NDArray[np.float64]
    count: NDArray[np.int64]


@dataclass(eq=False)
class Histogram:
    """What is known of a tensor over many samples.

    Bin i, of i from −SIDE + 1 to SIDE − 1, holds what is cut off to i: i·2^e ≤ |x| < (|i| + 1)·2^e with the sign of i;
    the bin in the middle reaches to both sides and holds all zeros. NaN and infinities are told apart and
    counted nowhere else.
    """

    exponent: int = _LEAST
    """e: bins are 2^e wide, the least with which all magnitudes stay below SIDE·2^e."""
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * SIDE - 1, np.int64))
    low: float = inf
    """The least element, exactly; inf where there is none."""
    high: float = -inf
    zeros: int = 0
    """Elements that are 0, which are in the middle bin too."""
    nans: int = 0
    above: int = 0
    """How often +inf was met."""
    below: int = 0
    """How often −inf was met."""
    samples: int = 0
    """Samples with finite elements."""
    lows: int = 0
    """The sum of the least elements of each sample, in units of 2^−1074."""
    highs: int = 0

    @property
    def count(self) -> int:
        """Finite elements."""
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """Of a bin."""
        return ldexp(1.0, self.exponent)

    @property
    def average(self) -> tuple[float, float]:
        """The mean over samples of their least and of their largest elements; (0, 0) where there are none.

        It is what a moving average of the minima and maxima of batches stands for, of which tools ask for batch size,
        momentum and order. Here each sample is a batch, and a cumulative average weighs all of them alike: the sum is
        exact, so it depends on neither, and shards can be merged.
        """
        total = max(self.samples, 1) << _UNIT
        return self.lows / total, self.highs / total

    def add(self, values: Array, samples: int = 1, times: int = 1) -> None:
        """Count elements.

        Args:
            values: of any shape; with several samples, these are equal parts along the first axis.
            samples: how many there are.
            times: how often each of them counts.

        Raises:
            InputError: these are no numbers.
        """
        x = _numbers(values)
        if not x.size:
            return
        parts = x.reshape(samples, -1)
        lows, highs = parts.min(axis=1).tolist(), parts.max(axis=1).tolist()
        if not all(map(isfinite, lows + highs)):
            self.nans += times * int(np.count_nonzero(np.isnan(x)))
            self.above += times * int(np.count_nonzero(x == inf))
            self.below += times * int(np.count_nonzero(x == -inf))
            for part in parts:
                self.add(part[np.isfinite(part)], times=times)
            return
        self.take(lows, highs, lambda exponent: _counted(x.reshape(-1), exponent), times)

    def take(
        self, lows: Sequence[float], highs: Sequence[float], counted: Callable[[int], Array], times: int = 1
    ) -> None:
        """As `add`, of elements that are counted elsewhere.

        Args:
            lows: the least element of each sample, finite.
            highs: the largest ones.
            counted: of bins 2^(its argument) wide, tells how many elements other than 0 are in each, and then how many
                are 0: (2·SIDE,).
            times: how often each element counts.
        """
        self.low, self.high = min(self.low, *lows), max(self.high, *highs)
        self.samples += times * len(lows)
        self.lows += times * sum(map(_units, lows))
        self.highs += times * sum(map(_units, highs))
        self._widen(_exponent(max(-self.low, self.high)))
        found = times * counted(self.exponent).astype(np.int64)
        self.counts += found[:-1]
        self.counts[SIDE - 1] += found[-1]
        self.zeros += int(found[-1])

    def __add__(self, other: Histogram) -> Histogram:
        made = replace(self, counts=self.counts.copy())
        made._widen(other.exponent)
        moved = replace(other, counts=other.counts.copy())
        moved._widen(made.exponent)
        made.counts += moved.counts
        made.low, made.high = min(self.low, other.low), max(self.high, other.high)
        for name in ("zeros", "nans", "above", "below", "samples", "lows", "highs"):
            setattr(made, name, getattr(self, name) + getattr(other, name))
        return made

    def bins(self, *, zeros: bool = False) -> Bins:
        """What is known of where elements lie, zeros among them or not."""
        count = self.counts.copy()
        count[SIDE - 1] -= 0 if zeros else self.zeros
        at = np.flatnonzero(count)
        index = at - (SIDE - 1)
        ends = np.stack([index - (index <= 0), index + (index >= 0)])
        left, right = np.clip(ends, self.low / self.width, self.high / self.width)
        return Bins(left, right, count[at])

    def arrays(self) -> dict[str, Array]:
        """All that is known, as plain arrays."""
        names = ("exponent", "zeros", "nans", "above", "below", "samples")
        return {
            "counts": self.counts,
            "numbers": np.array([getattr(self, n) for n in names], np.int64),
            "ends": np.array([self.low, self.high]),
            "sums": np.array([str(self.lows), str(self.highs)]),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> Histogram:
        """The histogram that `arrays` tells.

        Raises:
            ValueError: no histogram tells that.
        """
        low, high = arrays["ends"].tolist()
        exponent, zeros, nans, above, below, samples = arrays["numbers"].tolist()
        lows, highs = (int(s) for s in arrays["sums"].tolist())
        made = cls(exponent, arrays["counts"], low, high, zeros, nans, above, below, samples, lows, highs)
        counts, count = made.counts, made.count
        empty = (low, high, zeros, samples) == (inf, -inf, 0, 0)
        if (
            (counts.dtype, counts.shape) != (np.dtype(np.int64), (2 * SIDE - 1,))
            or min(int(counts.min()), zeros, nans, above, below, samples) < 0
            or zeros > counts[SIDE - 1]
            or not (empty if not count else -inf < low <= high < inf and 0 < samples <= count)
            or exponent != (_exponent(max(-low, high)) if count else _LEAST)
        ):
            raise ValueError("these numbers contradict each other")
        return made

    def _widen(self, exponent: int) -> None:
        """Merge bins until they are so wide, if they are not."""
        if (more := exponent - self.exponent) > 0:
            merged = np.zeros_like(self.counts)
            index = np.ldexp(np.arange(1.0 - SIDE, SIDE), -more).astype(np.int64)  # cut off, towards 0
            np.add.at(merged, index + SIDE - 1, self.counts)
            self.exponent, self.counts = exponent, merged


def _counted(x: Array, exponent: int) -> NDArray[np.int64]:
    """How many elements are in each bin of a grid that is wide enough, and how many are 0: (2·SIDE,)."""
    scale = x.dtype.type(ldexp(1.0, -exponent))
    found = np.zeros(2 * SIDE - 1 + _COUNTERS, np.int64)
    for start in range(0, x.size, _BLOCK):
        block = x[start : start + _BLOCK]
        index = (block * scale).astype(np.int16)  # exact but for what is cut off anyway
        index += (block == 0) * _TURNS[: len(block)]
        index += SIDE - 1
        np.add.at(found, index.astype(np.intp), 1)
    return np.append(found[:-_COUNTERS], found[-_COUNTERS:].sum())


def _numbers(values: Array) -> Array:
    """The same values in a type that is computed with."""
    x = np.asarray(values)
    if x.dtype in _SINGLE:
        return x.astype(np.float32)
    if x.dtype.kind not in "biuf":
        raise InputError(f"a tensor of {x.dtype} has no range; leave it out")
    return x if x.dtype == np.float32 else x.astype(np.float64, copy=False)


def _exponent(magnitude: float) -> int:
    """The width of bins, as a power of two, that this magnitude asks for."""
    return max(frexp(magnitude)[1] - (SIDE.bit_length() - 1), _LEAST) if magnitude else _LEAST


def _units(value: float) -> int:
    """A number in units of 2^−1074."""
    numerator, denominator = value.as_integer_ratio()
    return numerator << (_UNIT + 1 - denominator.bit_length())
