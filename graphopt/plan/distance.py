"""How far a model's outputs are from the original's: the one currency in which plans are compared.

    scores (2-D floats, at least two classes)   mean KL(original ‖ model) in nats, over softmax where rows are no shares
    other floats                                Σ(a − b)² / Σ(a − mean a)²
    anything else                               share of unequal elements; counts only where no output is a float

summed over outputs. What is not finite in the original does not count; in the model it is an infinite loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from graphopt.run.values import equal

__all__ = ["Distance"]

Array = NDArray[Any]
_LEAST: Final = 1e-12
"""What a class's share is at least: no model is infinitely surprised."""
_SHARES: Final = 1e-3
"""How far the sum of a row of shares may be from one."""


class Distance:
    """The distance of a model to one whose outputs are known.

    Args:
        expected: the original's outputs by name, feed by feed.
    """

    def __init__(self, expected: Sequence[Mapping[str, Any]]) -> None:
        self._expected = expected
        names = list(expected[0]) if expected else []
        floats = [n for n in names if all(_is_float(e[n]) for e in expected)]
        self.outputs = tuple(floats or names)
        """Names of the outputs that count."""
        self._measures = {n: _measure([e[n] for e in expected]) for n in self.outputs}

    def __call__(self, found: Iterable[Mapping[str, Any]]) -> float:
        """The distance of a model with these outputs; what they lack is taken to be as the original's."""
        total = 0.0
        for expected, outputs in zip(self._expected, found, strict=True):
            for name, measure in self._measures.items():
                if name in outputs:
                    total += measure.add(expected[name], outputs[name]) / measure.scale
        return total if np.isfinite(total) else float("inf")


class _Measure(Protocol):
    """The distance of one output: sum over feeds, then divide by the scale."""

    scale: float

    def add(self, expected: Any, found: Any) -> float:
        """That of one feed."""
        ...


def _measure(expected: Sequence[Any]) -> _Measure:
    if not all(_is_float(e) for e in expected):
        return _Unequal(expected)
    scores = all(e.ndim == 2 and e.shape[1] > 1 for e in expected)  # noqa: PLR2004 - rows of classes
    return _Scores(expected) if scores else _Squares(expected)


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)


def _are_shares(rows: Array) -> bool:
    return bool(np.all(rows >= 0) and np.all(np.abs(rows.sum(axis=1, dtype=np.float64) - 1) < _SHARES))


class _Scores:
    """One distribution over classes for each sample."""

    def __init__(self, expected: Sequence[Array]) -> None:
        self._shares = all(_are_shares(e) for e in expected)
        self.scale = float(max(1, sum(len(e) for e in expected)))

    def add(self, expected: Any, found: Any) -> float:
        p, q = self._logs(expected), self._logs(found)
        rows = np.isfinite(p).all(axis=1)
        with np.errstate(invalid="ignore"):
            return float(np.sum((np.exp(p) * (p - q))[rows]))

    def _logs(self, scores: Array) -> Array:
        wide = scores.astype(np.float64)
        if self._shares:
            return np.log(np.maximum(wide, _LEAST))
        with np.errstate(invalid="ignore"):
            wide -= wide.max(axis=1, keepdims=True)
            return np.asarray(wide - np.log(np.sum(np.exp(wide), axis=1, keepdims=True)))


class _Squares:
    """Numbers that are compared as they are."""

    def __init__(self, expected: Sequence[Array]) -> None:
        flat = np.concatenate([e.reshape(-1).astype(np.float64) for e in expected])
        finite = flat[np.isfinite(flat)]
        spread = float(np.sum((finite - finite.mean()) ** 2)) if finite.size else 0.0
        self.scale = spread or float(np.sum(finite**2)) or 1.0

    def add(self, expected: Any, found: Any) -> float:
        if np.shape(expected) != np.shape(found):
            return float("inf")
        finite = np.isfinite(expected)
        error = np.where(finite, found, 0).astype(np.float64) - np.where(finite, expected, 0)
        return float(np.sum(error**2))


class _Unequal:
    """Values that are equal or not."""

    def __init__(self, expected: Sequence[Any]) -> None:
        self.scale = float(max(1, len(expected)))

    def add(self, expected: Any, found: Any) -> float:
        if isinstance(expected, np.ndarray) and isinstance(found, np.ndarray) and expected.shape == found.shape:
            return float(np.mean(expected != found)) if expected.size else 0.0
        return float(not equal(expected, found))
