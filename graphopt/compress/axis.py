"""Which units of a group go first, and what is lost with each.

A *reader* is a matrix W that sums over the units: x has columns, each of them a unit's (all kernel positions of a
channel, all elements of a head). Without a set S of columns, the rest refitted, the squared error grows by exactly

    ε(S) = tr( W_S · (P_SS)⁻¹ · W_Sᵀ ),   P = (E[x·xᵀ] − μ·μᵀ + λ·m·I)⁻¹          (optimal brain surgeon, in blocks)

so the unit with the least Σ ε over all readers, each times its gain, goes; then

    W ← W − W_S·P_SS⁻¹·P_S:        P ← P − P_:S·P_SS⁻¹·P_S:

and so on to the last one: one elimination gives the order and the error of every width. (The means are taken out since
the bias is refitted, too.) Where there are very many units, some go at once: exactly chosen among three times as many
that are cheapest alone. The simple scores are for comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["IMPORTANCES", "SINGLE", "Curve", "Importance", "Reader", "curve", "ranked"]

Array = NDArray[Any]
Importance = Literal["obs", "energy", "l1", "l2", "scale", "random"]
IMPORTANCES: Final[tuple[Importance, ...]] = ("obs", "energy", "l1", "l2", "scale", "random")

_EXACT: Final = 4e9
"""Elements that one elimination may touch unit by unit: units·columns²."""
SINGLE: Final = 4096
"""Columns above which single precision has to do."""
_MOST_OUTPUTS: Final = 512
"""Rows of a matrix above which they are mixed by random signs: only the length of its columns matters."""
_NOTHING: Final = 1e-30
"""A variance that is as good as none."""
_CHUNK: Final = 32
"""One unit in so many goes at once."""


@dataclass(frozen=True, eq=False)
class Reader:
    """One matrix that sums over units; a grouped product is several."""

    matrix: Array
    """(out, columns)."""
    gram: Array
    """(columns, columns): E[x·xᵀ]."""
    mean: Array
    """(columns,): E[x]."""
    unit: NDArray[np.int64]
    """(columns,): whose column it is; −1 for those that stay."""
    gain: float = 1.0
    """What an error of its result counts."""
    damping: float = 1e-2


@dataclass(frozen=True, eq=False)
class Curve:
    """The order in which units go, and what is lost."""

    order: NDArray[np.int64]
    """(units,): from the least to the most important."""
    error: NDArray[np.float64]
    """(units + 1,): the error when k units stay, k = 0 … units; 0 at the end."""


def curve(
    units: int, readers: Sequence[Reader], *, order: NDArray[np.int64] | None = None, costs: Array | None = None
) -> Curve:
    """The error of every width.

    Args:
        units: how many there are.
        readers: the matrices that sum over them.
        order: from the least to the most important, if it is chosen already.
        costs: (units,): what each unit costs, if not all the same: the least error per cost goes first.
    """
    costs = np.ones(units) if costs is None else np.asarray(costs, np.float64)
    problems = [_Problem(r) for r in readers]
    size = max((p.columns for p in problems), default=0)
    alive = np.arange(units)
    gone: list[int] = []
    losses: list[float] = []
    exact = units * size**2 <= _EXACT
    while len(alive):
        if exact:
            some, count = alive, len(alive)
        else:
            count = max(1, len(alive) // _CHUNK)
            some = alive[np.argsort(_total(problems, alive) / costs[alive], kind="stable")[: 3 * count]]
        if order is not None:
            some = order[len(gone) : len(gone) + count]
        chosen, lost = _greedy([p.part(some) for p in problems], some, count, costs, fixed=order is not None)
        gone += chosen
        losses += lost
        alive = np.setdiff1d(alive, chosen)
        if not exact:
            for problem in problems:
                problem.remove(chosen)
    error = np.concatenate([[0.0], np.cumsum(losses)])[::-1]
    return Curve(np.array(gone, np.int64), error)


def ranked(scores: Array, costs: Array | None = None) -> NDArray[np.int64]:
    """Units from the lowest to the highest score, for its cost."""
    return np.argsort(scores if costs is None else scores / costs, kind="stable")


def _greedy(
    problems: list[_Problem], alive: Array, count: int, costs: Array, *, fixed: bool
) -> tuple[list[int], list[float]]:
    """Take `count` units out, the cheapest at each step or in their order, and tell what each step loses."""
    gone, losses = [], []
    for _ in range(count):
        losses_now = _total(problems, alive)
        best = 0 if fixed else int(np.argmin(losses_now / costs[alive]))
        gone.append(int(alive[best]))
        losses.append(float(losses_now[best]))
        alive = np.delete(alive, best)
        for problem in problems:
            problem.remove(gone[-1:])
    return gone, losses


def _total(problems: Sequence[_Problem], units: Array) -> NDArray[np.float64]:
    return sum((p.losses(units) for p in problems), np.zeros(len(units)))


class _Problem:
    """One reader during the elimination."""

    def __init__(self, reader: Reader) -> None:
        kind = np.dtype(np.float64 if len(reader.mean) <= SINGLE else np.float32)
        moment: Array = np.array(reader.gram, kind)  # ours: there may be no room for another one
        if np.any(reader.mean):
            moment -= np.outer(reader.mean, reader.mean)
        scale = max(float(np.mean(np.diagonal(moment))), _NOTHING)
        moment[np.diag_indices_from(moment)] += reader.damping * scale
        self.inverse: Array = np.linalg.inv(moment)
        self.matrix = _mixed(np.asarray(reader.matrix, kind))
        self.unit = np.asarray(reader.unit)
        self.gain = reader.gain

    @property
    def columns(self) -> int:
        return len(self.unit)

    def part(self, units: Array) -> _Problem:
        """The same with the columns of some units only: enough as long as only these are removed."""
        at = np.flatnonzero(np.isin(self.unit, units))
        made = object.__new__(_Problem)
        made.inverse, made.matrix, made.unit = self.inverse[np.ix_(at, at)], self.matrix[:, at], self.unit[at]
        made.gain = self.gain
        return made

    def losses(self, units: Array) -> NDArray[np.float64]:
        """What is lost with each of `units` alone."""
        order = np.argsort(self.unit, kind="stable")
        found, starts, counts = np.unique(self.unit[order], return_index=True, return_counts=True)
        lost: dict[int, float] = dict.fromkeys(found.tolist(), 0.0)
        for width in np.unique(counts):  # all units that have as many columns at once
            mine = np.flatnonzero((counts == width) & (found >= 0))
            at = order[starts[mine][:, None] + np.arange(width)]
            own = self.inverse[at[:, :, None], at[:, None, :]]
            columns = self.matrix[:, at].transpose(1, 2, 0)
            values = np.einsum("uko,uko->u", np.linalg.solve(own, columns), columns, dtype=np.float64)
            lost.update(zip(found[mine].tolist(), (self.gain * values).tolist(), strict=True))
        return np.array([lost.get(u, 0.0) for u in units.tolist()])

    def remove(self, units: Sequence[int]) -> None:
        """Take the columns of some units out, and let the others make up for them."""
        out = np.isin(self.unit, units)
        gone, stay = np.flatnonzero(out), np.flatnonzero(~out)
        if not len(gone):
            return
        across = self.inverse[np.ix_(gone, stay)]
        share = np.linalg.solve(self.inverse[np.ix_(gone, gone)], across)
        self.matrix = self.matrix[:, stay] - self.matrix[:, gone] @ share
        self.inverse = self.inverse[np.ix_(stay, stay)]
        self.inverse -= across.T @ share
        self.unit = self.unit[stay]


def _mixed(matrix: Array) -> Array:
    """At most so many rows, in which columns keep about their lengths and angles."""
    if len(matrix) <= _MOST_OUTPUTS:
        return matrix
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (_MOST_OUTPUTS, len(matrix))).astype(matrix.dtype)
    mixed: Array = signs @ matrix / np.sqrt(_MOST_OUTPUTS, dtype=matrix.dtype)
    return mixed
