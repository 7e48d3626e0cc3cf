"""Where to clip a tensor: searches for the bounds of its range. All bounds are in units of the width of a bin."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphopt.analysis.histogram import SIDE, Bins, Histogram

__all__ = ["Bounds", "least_divergence", "least_error", "quantiles"]

Array = NDArray[np.float64]
Bounds = tuple[float, float]

_OCTAVES: Final = 10
"""The narrowest range whose error is looked at is 2^this times narrower than the data."""
_PER_OCTAVE: Final = 12
_FAR: Final = 1 / 4
"""Octaves from the best of these to the first bounds that are tried beside it: it may be off where levels are few."""
_NEAR: Final = 1 / 100
"""Bounds that are so close are as good as each other."""
_CANDIDATES: Final = 128
"""Bounds on each side whose divergence is looked at."""
_ROUNDS: Final = 4
"""At most, of one end after the other."""


def quantiles(histogram: Histogram, share: float) -> Bounds:
    """The quantiles at 1 − share and at share, of evenly filled bins; numpy's to within the width of a bin."""
    bins = histogram.bins(zeros=True)
    until = np.cumsum(bins.count)
    last = int(until[-1]) - 1

    def ranked(rank: int) -> float:
        i = int(np.searchsorted(until, rank, "right"))
        if histogram.zeros and bins.left[i] <= 0 <= bins.right[i]:
            return 0.0  # mostly, and never far from it
        inside = (rank - int(until[i] - bins.count[i]) + 0.5) / int(bins.count[i])
        return float(bins.left[i] + inside * (bins.right[i] - bins.left[i]))

    def quantile(at: float) -> float:
        rank = int(at * last)
        first = ranked(rank)
        return first + (at * last - rank) * (ranked(min(rank + 1, last)) - first)

    return quantile(1 - share), quantile(share)


def least_error(bins: Bins, whole: Bounds, error: Callable[[Bounds], float], steps: int, *, symmetric: bool) -> Bounds:
    """The bounds with the least squared error: the best of all pairs on a coarse grid, then coordinate search.

    All pairs are compared by step²/12 for what is inside, and by the squared distance for what is not; both come from
    sums of counts, of counts·x and of counts·x² beyond a bound. What is finer is told by `error`.

    Args:
        bins: without zeros, which have no error.
        whole: the least and the largest element, or 0.
        error: exactly, of bounds.
        steps: between levels, in all.
        symmetric: whether bounds are equal but for their sign.
    """
    shares = 2.0 ** -(np.arange(_OCTAVES * _PER_OCTAVE + 1) / _PER_OCTAVE)
    if symmetric:
        whole = min(whole[0], -whole[1]), max(whole[1], -whole[0])
    lows, highs = (end * (shares if end else shares[:1]) for end in whole)
    cut, under = _tail(Bins(-bins.right[::-1], -bins.left[::-1], bins.count[::-1]), -lows)
    over, beyond = _tail(bins, highs)
    inside = float(bins.count.sum()) - under[:, None] - beyond
    guessed = cut[:, None] + over + inside * ((highs - lows[:, None]) / steps) ** 2 / 12
    if symmetric:
        best = np.full(2, shares[np.argmin(np.diagonal(guessed))])
        moves = [(1, 1)]
    else:
        best = shares[np.array(np.unravel_index(np.argmin(guessed), guessed.shape))]
        moves = [(1, 0), (0, 1), (1, 1)]

    def bounds(part: Array) -> Bounds:
        return whole[0] * float(part[0]), whole[1] * float(part[1])

    least, octaves = error(bounds(best)), _FAR
    while octaves > _NEAR:
        tried = [np.minimum(best * 2.0 ** (sign * octaves * np.array(m)), 1) for m in moves for sign in (-1, 1)]
        errors = [error(bounds(t)) for t in tried]
        if min(errors) < least:
            least, best = min(errors), tried[int(np.argmin(errors))]
        else:
            octaves /= 2
    return min(whole, bounds(best), key=error)


def _tail(bins: Bins, ends: Array) -> tuple[Array, Array]:
    """For each bound: the squared distance of what lies above it, summed, and how many elements these are."""
    middle, count = (bins.left + bins.right) / 2, bins.count.astype(np.float64)
    terms = np.stack([count, count * middle, count * (middle**2 + (bins.right - bins.left) ** 2 / 12)])
    sums = np.concatenate([np.cumsum(terms[:, ::-1], axis=1)[:, ::-1], np.zeros((3, 1))], axis=1)
    zeroth, first, second = sums[:, np.searchsorted(middle, ends, "right")]
    return np.maximum(second - 2 * ends * first + ends**2 * zeroth, 0), zeroth


def least_divergence(histogram: Histogram, whole: Bounds, levels: int, *, symmetric: bool) -> Bounds:
    """The bounds with the least divergence: both ends together, then one after the other until neither moves.

    P is what lies inside, with the mass of the tails in its outermost bins. Q is what lies inside, without them, merged
    into levels and spread evenly over those bins of a level that hold anything: with the tails in Q as well, a range as
    wide as `levels` bins would lose nothing. Zeros are left out: they are exact whatever the range, and after a Relu
    they would outweigh all else.
    """
    counts = histogram.counts.astype(np.float64)
    counts[SIDE - 1] -= histogram.zeros
    if symmetric:  # of |x|
        counts[SIDE:] += counts[: SIDE - 1][::-1]
        counts[: SIDE - 1] = 0
        levels //= 2
        whole = 0.0, max(-whole[0], whole[1])
    full = np.flatnonzero(counts) - (SIDE - 1)
    ends = min(int(full[0]), 0), max(int(full[-1]), 0)
    shares = [i / _CANDIDATES for i in range(_CANDIDATES, 0, -1)]
    lows, highs = ([round(end * share) for share in shares] for end in ends)

    def best(tried: Iterable[tuple[int, int]]) -> tuple[int, int]:
        return min(dict.fromkeys(tried), key=lambda e: _divergence(counts, e, levels))

    found = best(zip(lows, highs, strict=True))
    for _ in range(_ROUNDS):
        start = found
        found = best([found, *((found[0], high) for high in highs)])
        found = best([found, *((low, found[1]) for low in lows)])
        if found == start:
            break
    return max(whole[0], found[0] - 1.0), min(whole[1], found[1] + 1.0)


def _divergence(counts: Array, ends: tuple[int, int], levels: int) -> float:
    """Of Q from P, over the bins from one end to the other; inf where it has none, or levels would be empty."""
    first, last = (e + SIDE - 1 for e in ends)
    inside = counts[first : last + 1]
    if len(inside) < levels:
        return np.inf
    p = inside.copy()
    p[0] += counts[:first].sum()
    p[-1] += counts[last + 1 :].sum()
    level = np.arange(len(p)) * levels // len(p)
    held = p > 0
    mass, bins = np.bincount(level, inside), np.bincount(level, held)
    p, q = p[held], (mass / np.maximum(bins, 1))[level[held]]
    if not q.all():
        return np.inf
    return float(p @ np.log(p / q) / p.sum() + np.log(q.sum() / p.sum()))
