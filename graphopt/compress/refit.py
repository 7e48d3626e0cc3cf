"""The best weights for a product whose input has changed: ridge least squares towards the ones that it has.

    min  Σ |z − W·x − b|² / n  +  λ·m·|W − W₀|²        m: mean variance of the columns; b is free

With X and Z centred and the residual E = Z − W₀·X, the answer is W = W₀ + E·Xᵀ·(X·Xᵀ/n + λ·m)⁻¹/n, and one
eigendecomposition, of X·Xᵀ or, where rows are fewer than columns, of Xᵀ·X, serves every λ. The damping is the one with
the least error on rows that were held back; to keep W₀, with another bias or with its own, are choices as well. With it
all rows are fitted once more. A grouped product is one such problem per group, a depthwise one per channel.

One-sided targets. Where the original's value is at or below the lower bound of a clipping behind (0 of a Relu), a
prediction is right if it is, too; and so above an upper bound. That error is majorized by the distance to the nearest
right value (the prediction itself, or the bound), so fitting to these again and again only ever lowers it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from graphopt.analysis.frontier import Rows

__all__ = ["DAMPINGS", "Fit", "fit"]

Array = NDArray[Any]

DAMPINGS: Final = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)
STEPS: Final = 4
_BLOCK: Final = 2048
"""Rows that are multiplied in float64 at once."""


@dataclass(frozen=True, eq=False)
class Fit:
    """New weights, and how they were found."""

    matrix: Array
    """(groups, out, columns)."""
    bias: Array
    """(groups, out)."""
    damping: float
    """λ; inf where the matrix is the old one."""
    form: str
    """"primal", "dual", or "kept" where nothing is better than what there was."""
    before: float
    """Error on the rows held back, with the old weights, relative to the variance of the target."""
    after: float
    """The same with the weights fitted to the other rows."""
    rows: int
    columns: int


def fit(
    rows: Rows,
    matrix: Array,
    bias: Array,
    *,
    bounds: tuple[float, float] = (-inf, inf),
    biased: bool = True,
    dampings: Sequence[float] = DAMPINGS,
    steps: int = STEPS,
) -> Fit:
    """Fit a product to what it should give.

    Args:
        rows: what it reads and should give.
        matrix: (groups, out, columns): the weights that it has.
        bias: (groups, out): the bias that it has.
        bounds: where what follows clips, once `rows.base` is added.
        biased: whether there is a place for a bias.
        dampings: those that are tried.
        steps: how often one-sided targets are moved.
    """
    goal = _Goal(rows, bounds)
    train, held = np.flatnonzero(~rows.held), np.flatnonzero(rows.held)
    scale = goal.scale(held if len(held) else train)
    before = goal.error(matrix, bias, held) / scale
    columns, count = rows.x.shape[1:]
    damping, after, form = inf, before, "kept"
    if len(held) and len(train) > 1:
        ridge = _Ridge(rows.x[..., train], biased=biased, spectrum=True)
        for candidate in (inf, *sorted(dampings, reverse=True)):
            error = goal.error(*goal.solve(ridge, train, matrix, bias, candidate), held) / scale
            if error < after:
                damping, after, form = candidate, error, ridge.form
    if form != "kept":
        every = np.arange(count)
        matrix, bias = goal.solve(_Ridge(rows.x, biased=biased), every, matrix, bias, damping, steps)
    return Fit(matrix, bias, damping, form, before, after, count, columns)


class _Goal:
    """What a product should give, and how far from it it is."""

    def __init__(self, rows: Rows, bounds: tuple[float, float]) -> None:
        self._rows = rows
        self._low, self._high = bounds

    def moved(self, prediction: Array, at: Array) -> Array:
        """The nearest right values to a prediction W·x + b, as targets for it."""
        target = self._rows.target[..., at]
        total = prediction if self._rows.base is None else prediction + self._rows.base[..., at]
        right = np.where(target <= self._low, np.minimum(total, self._low), target)
        right = np.where(target >= self._high, np.maximum(total, self._high), right)
        return right if self._rows.base is None else right - self._rows.base[..., at]

    def plain(self, at: Array) -> Array:
        """The targets themselves."""
        target = self._rows.target[..., at]
        return target if self._rows.base is None else target - self._rows.base[..., at]

    def error(self, matrix: Array, bias: Array, at: Array) -> float:
        """Mean over rows of the squared distance to the nearest right values."""
        if not len(at):
            return 0.0
        prediction = _predict(matrix, bias, self._rows.x[..., at])
        return float(np.sum((prediction - self.moved(prediction, at)) ** 2, dtype=np.float64) / len(at))

    def scale(self, at: Array) -> float:
        """Mean over rows of the squared distance of the clipped target to its mean; never 0."""
        target = np.clip(self._rows.target[..., at], self._low, self._high)
        return float(np.sum(np.var(target, axis=-1, dtype=np.float64))) or 1.0

    def solve(
        self, ridge: _Ridge, at: Array, matrix: Array, bias: Array, damping: float, steps: int = 0
    ) -> tuple[Array, Array]:
        """The fit to some rows, with `steps` moves of one-sided targets."""
        x = self._rows.x[..., at]
        start = _predict(matrix, np.zeros_like(bias), x)
        step = ridge.solver(damping)
        found = step(self.plain(at) - start, matrix, bias)
        for _ in range(steps if np.isfinite((self._low, self._high)).any() else 0):
            found = step(self.moved(_predict(*found, x), at) - start, matrix, bias)
        return found


class _Ridge:
    """The left side of the least squares problem, of each group.

    Args:
        x: (groups, columns, rows).
        biased: whether the bias is free.
        spectrum: factorize it for all dampings.
    """

    def __init__(self, x: Array, *, biased: bool, spectrum: bool = False) -> None:
        self.form = "primal" if x.shape[1] <= x.shape[2] else "dual"
        self._biased = biased
        self._mean = x.mean(axis=-1, keepdims=True, dtype=np.float64) if biased else np.zeros((*x.shape[:2], 1))
        self._x = x - self._mean.astype(x.dtype)
        power = np.mean(np.square(self._x), axis=(1, 2), dtype=np.float64)
        self._scale = np.maximum(power, np.finfo(np.float32).tiny)[:, None]
        side = self._x if self.form == "primal" else self._x.transpose(0, 2, 1)
        self._gram = _times(side, side) / x.shape[-1]
        self._spectrum = np.linalg.eigh(self._gram) if spectrum else None

    def solver(self, damping: float) -> Callable[[Array, Array, Array], tuple[Array, Array]]:
        """What makes of a residual Z − W₀·X, W₀ and b₀ the matrix and bias that bring it closest to zero."""
        inverse = self._inverse(damping) if np.isfinite(damping) else None
        rows = self._x.shape[-1]

        def solve(residual: Array, matrix: Array, bias: Array) -> tuple[Array, Array]:
            mean = residual.mean(axis=-1, dtype=np.float64) if self._biased else bias
            if inverse is None:
                return matrix, mean
            residual = residual - mean[..., None].astype(np.float32)
            if self.form == "primal":
                change = _times(residual, self._x) @ inverse / rows
            else:
                change = _times((residual @ inverse), self._x) / rows
            return matrix + change, mean - (change @ self._mean)[..., 0] if self._biased else bias

        return solve

    def _inverse(self, damping: float) -> Array:
        if self._spectrum is None:
            return np.linalg.inv(self._gram + (damping * self._scale)[..., None] * np.eye(self._gram.shape[-1]))
        values, vectors = self._spectrum
        weights = 1 / (np.maximum(values, 0.0) + damping * self._scale)
        return (vectors * weights[:, None, :]) @ vectors.transpose(0, 2, 1)


def _times(a: Array, b: Array) -> Array:
    """a·bᵀ of each group, in float64, block by block: (groups, n, rows), (groups, m, rows) to (groups, n, m)."""
    total = np.zeros((len(a), a.shape[1], b.shape[1]))
    for start in range(0, a.shape[-1], _BLOCK):
        block = slice(start, start + _BLOCK)
        left = a[..., block].astype(np.float64)
        right = left if a is b else b[..., block].astype(np.float64)
        total += left @ right.transpose(0, 2, 1)
    return total


def _predict(matrix: Array, bias: Array, x: Array) -> Array:
    """W·x + b."""
    return matrix.astype(x.dtype) @ x + bias[..., None].astype(x.dtype)
