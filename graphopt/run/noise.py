"""How far the runs of one model differ from each other, output by output and magnitude by magnitude.

An output may hold several populations of values: masked scores beside real ones, probabilities beside coordinates. Each
is to be judged by its own scale, or the largest would excuse any error of the others. So the finite values of an output
are sorted by magnitude into *classes* of a factor of 1024. From the largest class down, one that holds no more values
than the tail of the population above it would put there (a density that is flat around zero) belongs to that
population; a class that cannot be explained so begins a population of its own. Zeros belong to the lowest one.

A population has a scale, its largest magnitude, and a noise, the largest difference that was heard at its values. What
is larger is absolutely no more exact: noise counts for all populations above as well. What is smaller is relatively no
more exact: noise / scale counts for all populations below as well. The tolerance of a value is

    8 x max(noise of its population, 4 eps x scale of its population)

and at least the smallest normal number of the type, since runtimes may flush to zero what is smaller.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final

import ml_dtypes
import numpy as np

__all__ = ["Noise", "classes", "gap", "is_float", "leaves", "magnitude", "misfit", "shown"]

_MARGIN: Final = 8.0
_EPS: Final = 4.0
_BITS: Final = 10  # of the exponent: a factor of 1024
_CLASSES: Final = 216  # of every exponent that float64 has; number 0 is that of zeros
_FIRST: Final = 109
_DENSER: Final = 4.0  # how much denser than flat a tail may be around zero
_COINCIDENCE: Final = math.log(1e-6)


class Noise:
    """One output of the original: its type and magnitudes, and what its own runs disagree about.

    Args:
        runs: for each feed, the tensors of the output.
    """

    def __init__(self, runs: list[list[np.ndarray]]) -> None:
        tensors = [leaf for run in runs for leaf in run]
        self.eps = max((_limits(leaf.dtype)[0] for leaf in tensors), default=0.0)
        self.informative = _informative(runs)
        self.undecided: dict[tuple[int, int], np.ndarray] = {}
        """(feed, tensor) -> mask of positions; a feed on which shapes differ is in `unstable` instead."""
        self.unstable: set[int] = set()
        self._tiny = max((_limits(leaf.dtype)[1] for leaf in tensors), default=0.0)
        self._count, self._sum, self._largest, self._heard = np.zeros((4, _CLASSES))
        for leaf in tensors if self.eps else ():
            size = magnitude(leaf).ravel()
            where = classes(size)
            self._count += np.bincount(where, minlength=_CLASSES)
            self._sum += np.bincount(where, size, _CLASSES)
            np.maximum.at(self._largest, where, size)

    def hear(self, feed: int, expected: list[np.ndarray], other: list[np.ndarray]) -> None:
        """Learn from another run of the original on a feed; `expected` is the first one."""
        if misfit(expected, other):
            self.unstable.add(feed)
            return
        for index, (a, b) in enumerate(zip(expected, other, strict=True)):
            difference, odd = gap(a, b)
            if self.eps:
                np.maximum.at(self._heard, classes(magnitude(a)), difference)
            if odd.any():
                self.undecided[feed, index] = odd | self.undecided.get((feed, index), False)

    @property
    def scale(self) -> float:
        """The largest magnitude."""
        return float(self._largest.max())

    @property
    def loudest(self) -> float:
        """The largest noise of a population, relative to its scale."""
        return max((float(self._heard[p].max() / s) for p, s in self._populations if s), default=0.0)

    @property
    def drowned(self) -> bool:
        """Whether every population has a tolerance as large as its scale: whatever is compared would pass."""
        known = [(p, s) for p, s in self._populations if s]
        return bool(known) and all(self.tolerances()[p[0]] >= s for p, s in known)

    def tolerances(self) -> np.ndarray:
        """The absolute difference that a value may show, by the number of its class."""
        found = np.zeros(_CLASSES)
        if not self.eps:
            return found
        scale = np.array([max(s, self._tiny) for _, s in self._populations])
        noise = np.array([self._heard[p].max() for p, _ in self._populations])
        noise = np.maximum.accumulate(noise[::-1])[::-1]
        with np.errstate(over="ignore"):
            relative = np.maximum.accumulate(np.maximum(noise / scale, _EPS * self.eps))
            allowed = np.clip(_MARGIN * relative * scale, self._tiny, np.finfo(np.float64).max)
        for (members, _), tolerance in zip(self._populations, allowed, strict=True):
            found[members] = tolerance
        return found

    @cached_property
    def _populations(self) -> list[tuple[list[int], float]]:
        """The classes and the scale of each, the largest first."""
        found: list[list[int]] = []
        for number in reversed(range(1, _CLASSES)):
            if self._count[number]:
                if found and self._is_tail(number, found[-1]):
                    found[-1].append(number)
                else:
                    found.append([number])
        found = found or [[]]
        found[-1].append(0)
        return [(members, float(self._largest[members].max())) for members in found]

    def _is_tail(self, number: int, above: list[int]) -> bool:
        """Whether a population may well have so many values in a class below it: their number is Poisson's."""
        here, there = self._count[number], self._count[above].sum()
        expected = _DENSER * there * self._largest[number] * there / self._sum[above].sum()
        if here <= expected:
            return True
        likely = here * math.log(expected) - expected - math.lgamma(here + 1) if expected > 0 else -math.inf
        return bool(likely > _COINCIDENCE)


def classes(size: np.ndarray) -> np.ndarray:
    """The number of the class of each magnitude; larger magnitudes have larger numbers."""
    return np.where(size > 0, np.frexp(size)[1] // _BITS + _FIRST, 0)


def magnitude(a: np.ndarray) -> np.ndarray:
    """|a| in float64, 0 where it is not finite."""
    with np.errstate(all="ignore"):
        size = np.asarray(np.abs(_wide(a)))
    size[~np.isfinite(size)] = 0.0
    return size


def gap(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|a - b| where both can be subtracted (else 0), and where they differ in a way that no tolerance covers."""
    if a.dtype == object:
        return np.zeros(a.shape), np.asarray(a != b)
    x, y = _wide(a), _wide(b)
    with np.errstate(all="ignore"):
        difference = np.asarray(np.abs(x - y))
        finite = np.isfinite(x) & np.isfinite(y)
        difference[~finite] = 0.0
        if not _limits(a.dtype)[0]:
            return difference, np.asarray(a != b)
        return difference, np.asarray(~(finite | (x == y) | (np.isnan(x) & np.isnan(y))))


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether values are real numbers in floating point; numpy knows neither bfloat16 nor smaller types as such."""
    return dtype.kind == "f" or (dtype.kind == "V" and "int" not in dtype.name)


def leaves(outputs: dict[str, Any]) -> dict[str, list[np.ndarray]]:
    """Every output as the list of its tensors: sequences and maps flattened, an empty optional none at all."""
    return {name: list(_flat(value)) for name, value in outputs.items()}


def misfit(expected: list[np.ndarray], actual: list[np.ndarray]) -> str:
    """How types or shapes differ, in words; empty if they do not."""
    if len(expected) != len(actual):
        return f"{len(expected)} tensors became {len(actual)}"
    for a, b in zip(expected, actual, strict=True):
        if a.dtype != b.dtype:
            return f"{a.dtype} became {b.dtype}"
        if a.shape != b.shape:
            return f"the shape {shown(a.shape)} became {shown(b.shape)}"
    return ""


def shown(shape: tuple[int | str | None, ...]) -> str:
    """A shape in words."""
    return f"[{', '.join('?' if d is None else str(d) for d in shape)}]"


def _flat(value: Any) -> Iterator[np.ndarray]:
    match value:
        case None:
            return
        case dict():
            yield from (np.asarray(list(value)), np.asarray(list(value.values())))
        case list():
            for item in value:
                yield from _flat(item)
        case _:
            yield np.asarray(value)


def _wide(a: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # not-a-numbers that signal
        return a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)


def _limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Distance from 1 to the next number, and the smallest normal number; 0 for types whose values must be equal."""
    if not (is_float(dtype) or dtype.kind == "c"):
        return 0.0, 0.0
    info = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    return float(info.eps), float(info.smallest_normal)


def _informative(runs: list[list[np.ndarray]]) -> bool:
    """Whether the values depend on the feed; of a single feed, whether they vary at all.

    Feeds may differ in shape: only the region that they share is compared, so that a row repeated along the batch is
    still the same output.
    """
    first = runs[0]
    if len(runs) == 1:
        return any(leaf.size == 1 or (leaf != leaf.ravel()[:1]).any() for leaf in first if leaf.size)
    return any(
        len(run) != len(first) or any(not _same(a, b) for a, b in zip(first, run, strict=True)) for run in runs[1:]
    )


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    if a.ndim != b.ndim:
        return False
    shared = tuple(slice(min(m, n)) for m, n in zip(a.shape, b.shape, strict=True))
    a, b = a[shared], b[shared]
    return bool(np.all((a == b) | ((a != a) & (b != b))))  # noqa: PLR0124 - NaN
