"""Which weights of a product become zero, and what the others become for it.

What removing weight j of a row w costs, once the rest is refitted, is w_j²/[H⁻¹]_jj with H = E[x·xᵀ] + λ·m·I (optimal
brain surgeon; Frantar and Alistarh, SparseGPT, 2023). Weights go in a few rounds, many at first and few at last (Zhu
and Gupta, 2017): the cheapest ones go, the others are refitted, and cost something else. On the layers tried, that left
between a third and two thirds of the error of SparseGPT's single way through the columns, its result refitted as well.

To refit is to solve, for each row and the weights of it that stay,

    min  Σ |z − w·x − b|²/n + λ·m·|w − w₀|²

Rows have different weights and so different problems, but one H: conjugate gradients solve all of them at once, where
what is masked is the gradient, and nothing else. While weights are chosen, z is w·x of the weights that there were; at
the end it is what the original gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from graphopt.analysis.frontier import Rows
from graphopt.compress.refit import STEPS, Fit, Goal, times

__all__ = ["ROUNDS", "SHARES", "Sparse", "allocated", "cheapest", "dearest", "fit_kept", "solved", "thinned"]

Array = NDArray[Any]
DAMPING: Final = 1e-2
"""Of the matrix that weights are chosen by."""
DAMPINGS: Final = (1e-1, 1e-2, 1e-3, 1e-4)
"""Of the fit, those that are tried."""
ROUNDS: Final = tuple(1 - (1 - r / 8) ** 3 for r in range(1, 9))
"""Of what is to go in the end, the part that is gone after each round."""
SHARES: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Of a product's weights, that are tried where a share of all is to go."""
_FINE: Final = 501
_HALVINGS: Final = 60
_FEW: Final = 20
_MANY: Final = 40
"""Steps of conjugate gradients, between rounds and at the end."""
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


def allocated(losses: Array, sizes: Array, share: float) -> Array:
    """(products,): which part of each goes so that the sum of losses is least, and the share of all goes.

    Args:
        losses: (products, len(SHARES)): of each, at each of `SHARES`.
        sizes: (products,): how many weights each has.
        share: of all weights.
    """
    fine = np.linspace(0, SHARES[-1], _FINE)
    curves = np.stack([np.interp(fine, SHARES, loss) for loss in losses])

    def at(price: float) -> Array:
        found: Array = fine[np.argmin(curves - price * sizes[:, None] * fine, axis=1)]
        return found

    low, high, wanted = 1e-15, 1e3, share * np.sum(sizes)
    for _ in range(_HALVINGS):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if at(middle) @ sizes < wanted else (low, middle)
    few, many = at(low), at(high)
    between = float(wanted - few @ sizes) / max(float((many - few) @ sizes), 1e-12)
    found: Array = few + min(max(between, 0.0), 1.0) * (many - few)
    return found


def thinned(
    matrix: Array, gram: Array, shares: Iterable[float], among: tuple[int, int] | None = None
) -> Iterator[tuple[Array, Array]]:
    """Take weights away in rounds: after each of them, which ones stay and what they are now, (rows, columns) both.

    Args:
        matrix: (rows, columns).
        gram: (columns, columns): E[x·xᵀ].
        shares: which part of the weights is gone after each round; rising.
        among: (N, M): of every M columns in a row N must stay, in each row.
    """
    power = max(float(np.trace(gram)) / len(gram), float(np.finfo(np.float32).tiny))
    system = gram + DAMPING * power * np.eye(len(gram))
    worth, wanted = 1 / np.diagonal(np.linalg.inv(system)), matrix @ system
    stays, weights = np.ones(matrix.shape, np.bool_), matrix.astype(np.float64)
    for share in shares:
        cost = np.where(stays, np.square(weights) * worth, -1)
        if among is not None:
            cost = np.where(cheapest(cost, *among), cost, inf)
        stays = dearest(cost, share)
        start = np.where(stays, weights, 0)
        weights = start + solved(system, wanted - start @ system, stays, _FEW)
        yield stays, weights


def dearest(cost: Array, share: float) -> Array:
    """(rows, columns): all but such a part of the weights, the cheapest ones."""
    stays = np.ones(cost.size, np.bool_)
    stays[np.argsort(cost, axis=None, kind="stable")[: round(share * cost.size)]] = False
    return stays.reshape(cost.shape)


def cheapest(cost: Array, count: int, among: int) -> Array:
    """(rows, columns): of every `among` columns in a row, all but the `count` dearest."""
    groups = cost.reshape(len(cost), -1, among)
    found = np.zeros(groups.shape, np.bool_)
    order = np.argsort(groups, axis=-1, kind="stable")
    np.put_along_axis(found, order[..., : among - count], values=True, axis=-1)
    return found.reshape(cost.shape)


def solved(system: Array, right: Array, stays: Array, steps: int = _MANY) -> Array:
    """The change d of each row, zero where nothing stays, with d·system = right wherever something does.

    Args:
        system: (columns, columns): positive definite.
        right: (rows, columns).
        stays: (rows, columns).
        steps: of conjugate gradients, at most.
    """
    scale, found = 1 / np.diagonal(system), np.zeros_like(right)
    residual = np.where(stays, right, 0)
    search = residual * scale
    power = np.sum(residual * search, axis=1)
    enough = _CLOSE**2 * power
    for _ in range(steps):
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
