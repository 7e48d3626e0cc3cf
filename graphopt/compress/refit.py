"""The best weights for a product whose input has changed: ridge least squares towards the ones that it has.

    min  Σ |z − W·x − b|² / n  +  λ·m·|W − W₀|²        m: mean variance of the columns; b is free

With X and Z centred and the residual E = Z − W₀·X, the answer is W = W₀ + E·Xᵀ·(X·Xᵀ/n + λ·m)⁻¹/n, or, the same where
rows are fewer than columns, W₀ + E·(Xᵀ·X/n + λ·m)⁻¹·Xᵀ/n. Both products are summed up once; each λ is one Cholesky
factorization, which is cheaper than one spectrum for all as they are tried from the largest on until it gets worse. The
damping is the one with the least error on rows that were held back; to keep W₀, with another bias or with its own, are
choices as well. With it all rows are fitted. A grouped product is one problem per group, a depthwise one per channel.

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
import scipy.linalg
from numpy.typing import NDArray

from graphopt.analysis.frontier import Rows

__all__ = ["DAMPINGS", "ROWS", "STEPS", "Fit", "Goal", "Refit", "fit", "row_count", "times"]

Array = NDArray[Any]

DAMPINGS: Final = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)
STEPS: Final = 4
ROWS: Final = 60
"""Rows per column that a product is fitted to, where memory and the samples allow it."""
_FEWEST_ROWS: Final = 16384
_SHARE: Final = 4
"""The part of the memory that the rows of one product may take."""
_BLOCK: Final = 1024
"""Rows that are multiplied at once."""
_PANEL: Final = 1024
"""Rows of a large matrix that are made at once."""
_NOTHING: Final = 1e-9
"""An error that is none."""
_PATIENCE: Final = 1
"""How many dampings in a row may be worse than the best."""


@dataclass(frozen=True)
class Refit:
    """What became of one product, or of one recurrent layer."""

    key: str
    rows: int
    columns: int
    damping: float | None
    """inf where only the bias is new, None where all was best as it was."""
    form: str
    """How it was solved: "primal", "dual"; else why it was not."""
    before: float
    """Error on rows held back with the weights cut only, as a part of what the original's values vary; of a recurrent
    layer that of its states."""
    after: float
    """The same once fitted to the other rows."""


@dataclass(frozen=True, eq=False)
class Fit:
    """New weights, and how they were found."""

    matrix: Array
    """(groups, out, columns)."""
    bias: Array
    """(groups, out)."""
    damping: float | None
    """λ; inf where the matrix is the old one, None where the bias is, too."""
    form: str
    """How it was solved: "primal", or "dual" where rows are fewer than columns."""
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
    goal, system = Goal(rows, bounds), _System(rows, biased=biased)
    count, columns = rows.x.shape[2], rows.x.shape[1]
    start = (matrix, bias + (matrix @ rows.mean[..., None])[..., 0])
    held, damping, worse = slice(rows.fitted, count), None, 0
    before = after = goal.error(*start, held)
    if 1 < rows.fitted < count and before > _NOTHING:
        solve = goal.solver(system.part(rows.fitted), *start)
        for candidate in (inf, *sorted(dampings, reverse=True)):
            error = goal.error(*solve(candidate), held)
            worse = 0 if error < after else worse + 1
            if error < after:
                damping, after = candidate, error
            elif damping is not None and worse > _PATIENCE:
                break
        del solve  # what it holds may be large
    if damping is None:
        return Fit(matrix, bias, None, system.form, before, before, count, columns)
    matrix, bias = goal.solver(system.part(count), *start)(damping, steps)
    return Fit(
        matrix, bias - (matrix @ rows.mean[..., None])[..., 0], damping, system.form, before, after, count, columns
    )


def row_count(columns: int, rows: int, memory: int, groups: int = 1) -> int:
    """How many rows a product of so many columns in each group is given, if `rows` for each column are wanted."""
    return min(max(rows * columns, _FEWEST_ROWS), memory // _SHARE // (4 * groups * columns))


class Goal:
    """What a product should give, and how far from it it is."""

    def __init__(self, rows: Rows, bounds: tuple[float, float]) -> None:
        self._rows = rows
        self._low, self._high = bounds
        self.clips = bool(np.isfinite(bounds).any())
        target = np.clip(rows.target, *bounds) if self.clips else rows.target
        self._scale: float = float(np.sum(np.var(target, axis=-1, dtype=np.float64))) or 1.0

    def moved(self, prediction: Array, at: slice) -> Array:
        """The nearest right values to a prediction W·x + b, as targets for it."""
        target = self._rows.target[..., at]
        base = None if self._rows.base is None else self._rows.base[..., at]
        if self.clips:
            total = prediction if base is None else prediction + base
            right = np.where(target <= self._low, np.minimum(total, self._low), target)
            target = np.where(target >= self._high, np.maximum(total, self._high), right)
        return target if base is None else target - base

    def error(self, matrix: Array, bias: Array, at: slice) -> float:
        """Mean squared distance to the nearest right values, relative to the variance of the clipped target."""
        prediction = self.predicted(matrix, bias, at)
        distance = float(np.sum(np.square(prediction - self.moved(prediction, at)), dtype=np.float64))
        count: int = prediction.shape[-1]
        return distance / self._scale / max(1, count)

    def predicted(self, matrix: Array, bias: Array, at: slice) -> Array:
        """W·x + b."""
        x = self._rows.x[..., at]
        return matrix.astype(x.dtype) @ x + bias[..., None].astype(x.dtype)

    def balanced(self, matrix: Array, bias: Array, at: slice) -> Array:
        """The bias with which the mean of the result is right, where clipping does not hide it."""
        plain, found = self.predicted(matrix, np.zeros_like(bias), at), bias
        for _ in range(3 if self.clips else 1):
            target = self.moved(plain + found[..., None].astype(plain.dtype), at)
            found = (target - plain).mean(axis=-1, dtype=np.float64)
        return found

    def solver(self, part: _Part, matrix: Array, bias: Array) -> Callable[..., tuple[Array, Array]]:
        """What fits the product to some rows, given a damping and how often one-sided targets are moved."""
        target = self._rows.target[..., part.at]
        start = self.predicted(matrix, np.zeros_like(bias), part.at)
        plain = target if self._rows.base is None else target - self._rows.base[..., part.at]
        first = part.right(plain - start, bias)

        def solve(damping: float, steps: int = 0) -> tuple[Array, Array]:
            step = part.solver(damping)
            change, offset = step(*first)
            for _ in range(steps if self.clips else 0):
                moved = self.moved(self.predicted(matrix + change, offset, part.at), part.at)
                change, offset = step(*part.right(moved - start, bias))
            return matrix + change, offset

        return solve


class _System:
    """The left side of the least squares problem of each group, over any of the rows."""

    def __init__(self, rows: Rows, *, biased: bool) -> None:
        self.x, self.biased = rows.x, biased
        self.form = "primal" if rows.x.shape[1] <= rows.x.shape[2] else "dual"
        self._sum, self._summed = np.zeros(()), 0

    def part(self, stop: int) -> _Part:
        """So many of the first rows, and no fewer than the last time."""
        x = self.x[..., :stop]
        mean = x.mean(axis=-1, dtype=np.float64) * self.biased
        if self.form == "dual":
            if not self._summed:
                across = self.x.transpose(0, 2, 1)
                self._sum, self._summed = times(across, across), self.x.shape[-1]
            gram = self._sum[:, :stop, :stop] / stop
            if self.biased:
                gram -= gram.mean(axis=1, keepdims=True)
                gram -= gram.mean(axis=2, keepdims=True)
        else:
            more = self.x[..., self._summed : stop]
            total = times(more, more)
            total += self._sum
            self._sum, self._summed = total, stop
            gram = self._sum / stop
            for some, own in zip(gram, mean, strict=True):
                for at in range(0, len(own), _PANEL):
                    some[at : at + _PANEL] -= own[at : at + _PANEL, None] * own
        return _Part(slice(stop), x, mean, gram, self.form, biased=self.biased)


class _Part:
    """Least squares over some of the rows."""

    def __init__(self, at: slice, x: Array, mean: Array, gram: Array, form: str, *, biased: bool) -> None:
        self.at, self._x, self._mean, self._gram, self._dual, self._biased = at, x, mean, gram, form == "dual", biased
        power = np.trace(gram, axis1=1, axis2=2) / x.shape[1]
        self._scale = np.maximum(power, np.finfo(np.float32).tiny)

    def right(self, residual: Array, bias: Array) -> tuple[Array, Array]:
        """The right side of the problem, and what the residual Z − W₀·X is on average, or is left at."""
        mean = residual.mean(axis=-1, dtype=np.float64) if self._biased else bias
        residual = residual - mean[..., None].astype(np.float32)
        return (residual if self._dual else times(residual, self._x)), mean

    def solver(self, damping: float) -> Callable[[Array, Array], tuple[Array, Array]]:
        """What makes of a right side the change of W₀, and the bias, that bring the residual closest to zero."""
        factors = [self._factor(g, damping) for g in range(len(self._gram))] if np.isfinite(damping) else []
        rows, shape = self._x.shape[-1], self._x.shape

        def solve(right: Array, mean: Array) -> tuple[Array, Array]:
            if not factors:
                return np.zeros((shape[0], right.shape[1], shape[1])), mean
            solved = [scipy.linalg.cho_solve(f, r.T).T / rows for f, r in zip(factors, right, strict=True)]
            change = np.stack(solved)
            if self._dual:
                change = times(change, self._x)
            return change, mean - (change @ self._mean[..., None])[..., 0]

        return solve

    def _factor(self, group: int, damping: float) -> tuple[Array, bool]:
        damped = self._gram[group].copy()
        damped[np.diag_indices_from(damped)] += damping * self._scale[group]
        factor: tuple[Array, bool] = scipy.linalg.cho_factor(damped.T, overwrite_a=True, check_finite=False)
        return factor


def times(a: Array, b: Array) -> Array:
    """a·bᵀ of each group, summed up in float64: (groups, n, rows), (groups, m, rows) to (groups, n, m).

    A Gram matrix is multiplied in float64, since what is added to its diagonal may be small; so is what overflows. Of
    a large one, only what is not below the diagonal is multiplied, and some of its rows at once.
    """
    same = a is b
    kind = np.dtype(np.float64 if same else np.float32)
    total: Array = np.zeros((len(a), a.shape[1], b.shape[1]))
    for start in range(0, a.shape[-1], _BLOCK):
        left = a[..., start : start + _BLOCK].astype(kind, copy=False)
        right = left if same else b[..., start : start + _BLOCK].astype(kind, copy=False)
        for top in range(0, a.shape[1], _PANEL):
            some, from_there = left[:, top : top + _PANEL], right[:, top * same :].transpose(0, 2, 1)
            with np.errstate(over="ignore", invalid="ignore"):
                part = some @ from_there
            if not np.isfinite(part).all():
                part = some.astype(np.float64) @ from_there
            total[:, top : top + _PANEL, top * same :] += part
    for top in range(_PANEL, a.shape[1] * same, _PANEL):
        total[:, top : top + _PANEL, :top] = total[:, :top, top : top + _PANEL].transpose(0, 2, 1)
    return total
