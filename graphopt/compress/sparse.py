"""Which weights of a product become zero, and what the others become for it.

What removing weight j of a row w costs, the rest refitted, is w_j²/[H⁻¹]_jj, with H = E[x·xᵀ] + λ·m·I (optimal brain
surgeon). What is left of the inverse as one column after the other is done with is in its Cholesky factor, H⁻¹ = Uᵀ·U,
so that all rows are worked on at once, whatever each of them loses (Frantar and Alistarh, SparseGPT, 2023):

    w_j goes where w_j²/U_jj² is small;  then  w ← w − w_j/U_jj·U_j:

Columns are chosen in blocks, each knowing what the ones before it have lost. But a column can only make up for those
before it, so what stays is fitted once more. Rows are independent problems

    min  Σ |z − w·x − b|²/n + λ·m·|w − w₀|²   over the weights that stay,  w₀: as the elimination left them

and conjugate gradients solve all of them at once: what is masked is the gradient, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Final

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from graphopt.analysis.frontier import Rows
from graphopt.compress.refit import STEPS, Fit, Goal, times

__all__ = ["BLOCK", "Chooser", "Sparse", "dearest", "eliminated", "fit_kept", "part", "roots", "solved"]

Array = NDArray[Any]
Chooser = Callable[[Array, Array], Array]
"""What a block of columns would cost, (rows, columns), and what stays of those before it, to what stays of it."""

BLOCK: Final = 128
"""Columns that are chosen at once."""
DAMPING: Final = 1e-2
"""Of the matrix that weights are chosen by."""
DAMPINGS: Final = (1e-1, 1e-2, 1e-3, 1e-4)
"""Of the fit, those that are tried."""
_ITERATIONS: Final = 40
_CLOSE: Final = 1e-6
"""Of a gradient, what is none."""


@dataclass(frozen=True)
class Sparse:
    """What became of one product."""

    key: str
    weights: int
    zeros: int
    form: str
    """How weights were chosen: a field of `Sparsify` and its `by`; else why it stays dense."""
    damping: float | None
    """Of the fit: inf where only the bias is new, None where the weights that stay are as they were."""
    before: float
    """Error on rows held back with the other weights as they were, as a part of what the original's values vary."""
    after: float
    """The same once these are fitted."""


def part(share: float) -> Chooser:
    """Such a part of the weights goes: the cheapest ones of each block."""

    def choose(cost: Array, before: Array) -> Array:
        wanted = round(share * (before.size + cost.size)) - int(np.sum(~before))
        stays = np.ones(cost.size, np.bool_)
        stays[np.argsort(cost, axis=None, kind="stable")[: max(wanted, 0)]] = False
        return stays.reshape(cost.shape)

    return choose


def dearest(count: int, among: int) -> Chooser:
    """Of every `among` columns in a row, `count` stay."""

    def choose(cost: Array, _before: Array) -> Array:
        ranked = np.argsort(-cost.reshape(len(cost), -1, among), axis=-1, kind="stable")
        stays = np.zeros(ranked.shape, np.bool_)
        np.put_along_axis(stays, ranked[..., :count], values=True, axis=-1)
        return stays.reshape(cost.shape)

    return choose


def roots(gram: Array) -> Array:
    """(columns, columns): U, of the second moments E[x·xᵀ]."""
    columns = len(gram)
    damping = DAMPING * max(float(np.trace(gram)) / columns, float(np.finfo(np.float32).tiny))
    found: Array = scipy.linalg.cholesky(np.linalg.inv(gram + damping * np.eye(columns)), check_finite=False)
    return found


def eliminated(matrix: Array, root: Array, choose: Chooser, block: int = BLOCK) -> tuple[Array, Array]:
    """Which weights stay, and what these become as the others go: (rows, columns) both.

    Args:
        matrix: (rows, columns).
        root: (columns, columns): U.
        choose: what stays of a block, given what each of its weights would cost.
        block: columns that are chosen at once.
    """
    columns = len(root)
    weights, stays = matrix.astype(np.float64), np.ones(matrix.shape, np.bool_)
    for start in range(0, columns, block):
        end = min(start + block, columns)
        mine, across = weights[:, start:end], root[start:end, start:end]
        stays[:, start:end] = choose(np.square(mine / np.diagonal(across)), stays[:, :start])
        errors = np.zeros_like(mine)
        for j in range(end - start):
            errors[:, j] = np.where(stays[:, start + j], 0, mine[:, j] / across[j, j])
            mine[:, j:] -= errors[:, j : j + 1] * across[j, j:]
        weights[:, end:] -= errors @ root[start:end, end:]
    return stays, np.where(stays, weights, 0)


def solved(system: Array, right: Array, stays: Array) -> Array:
    """The change d of each row, zero where nothing stays, with d·system = right wherever something does.

    Args:
        system: (columns, columns): positive definite.
        right: (rows, columns).
        stays: (rows, columns).
    """
    scale, found = 1 / np.diagonal(system), np.zeros_like(right)
    residual = np.where(stays, right, 0)
    search = residual * scale
    power = np.sum(residual * search, axis=1)
    enough = _CLOSE**2 * power
    for _ in range(_ITERATIONS):
        open_ = power > enough
        if not open_.any():
            break
        image = np.where(stays, search @ system, 0)
        step = np.divide(power, np.sum(search * image, axis=1), out=np.zeros_like(power), where=open_)[:, None]
        found += step * search
        residual -= step * image
        steep = residual * scale
        now = np.sum(residual * steep, axis=1)
        search = steep + np.divide(now, power, out=np.zeros_like(now), where=open_)[:, None] * search
        power = now
    return found


def fit_kept(
    rows: Rows,
    matrix: Array,
    bias: Array,
    stays: Array,
    start: Array,
    *,
    bounds: tuple[float, float] = (-inf, inf),
    biased: bool = True,
    steps: int = STEPS,
) -> Fit:
    """Fit the weights that stay, as `refit.fit` does all; the answer's `before` is of the weights as they were.

    Args:
        rows: what the product reads and should give.
        matrix: (groups, out, columns): the weights that it has.
        bias: (groups, out): the bias that it has.
        stays: (groups, out, columns): which of them stay.
        start: (groups, out, columns): the weights that the fit starts from and is damped towards.
        bounds: where what follows clips, once `rows.base` is added.
        biased: whether there is a place for a bias.
        steps: how often one-sided targets are moved.
    """
    goal, count = Goal(rows, bounds), rows.x.shape[2]
    matrix, start = np.where(stays, matrix, 0), np.where(stays, start, 0)
    level = bias + (matrix @ rows.mean[..., None])[..., 0]
    held, damping, columns = slice(rows.fitted, count), None, rows.x.shape[1]
    before = after = goal.error(matrix, level, held)
    found = Fit(matrix, bias, None, "masked", before, before, count, columns)
    if not 1 < rows.fitted < count:
        return found
    solve = _solver(rows, goal, slice(rows.fitted), start, level, stays, biased=biased)
    for candidate in (inf, *DAMPINGS):
        error = goal.error(*solve(candidate), held)
        if error < after:
            damping, after = candidate, error
        elif damping is not None:
            break
    if damping is None:
        return found
    solve = _solver(rows, goal, slice(count), start, level, stays, biased=biased)
    matrix, level = solve(damping, steps if goal.clips else 0)
    return replace(
        found, matrix=matrix, bias=level - (matrix @ rows.mean[..., None])[..., 0], damping=damping, after=after
    )


def _solver(
    rows: Rows, goal: Goal, at: slice, start: Array, level: Array, stays: Array, *, biased: bool
) -> Callable[..., tuple[Array, Array]]:
    """What fits to some rows, given a damping and how often one-sided targets are moved."""
    x = rows.x[..., at]
    mean = x.mean(axis=-1, dtype=np.float64) * biased
    gram = times(x, x) / x.shape[-1] - mean[:, :, None] * mean[:, None, :]
    power = np.maximum(np.trace(gram, axis1=1, axis2=2) / gram.shape[1], np.finfo(np.float32).tiny)

    def solve(damping: float, steps: int = 0) -> tuple[Array, Array]:
        weights, bias = start, level
        for _ in range(steps + 1):
            residual = goal.moved(goal.predicted(weights, bias, at), at) - goal.predicted(weights, 0 * bias, at)
            bias = residual.mean(axis=-1, dtype=np.float64) if biased else level
            if damping < inf:
                residual = residual - bias[..., None].astype(np.float32)
                ridge = (damping * power)[:, None, None]
                right = times(residual, x) / x.shape[-1] - ridge * (weights - start)
                systems = gram + ridge * np.eye(gram.shape[1])
                change = np.stack([solved(*each) for each in zip(systems, right, stays, strict=True)])
                weights, bias = weights + change, bias - (change @ mean[..., None])[..., 0]
        return weights, bias

    return solve
