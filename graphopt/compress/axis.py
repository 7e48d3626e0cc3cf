"""Which units of a group go first, and what is lost with each.

A *reader* is a matrix W that sums over the units: x has columns, each of them a unit's (all kernel positions of a
channel, all elements of a head). Without a set S of columns, the rest refitted, the squared error grows by exactly

    ε(S) = tr( W_S · (P_SS)⁻¹ · W_Sᵀ ),   P = (E[x·xᵀ] − μ·μᵀ + λ·m·I)⁻¹          (optimal brain surgeon, in blocks)

so the unit with the least Σ ε over all readers, each times its gain, goes; then

    W ← W − W_S·P_SS⁻¹·P_S:        P ← P − P_:S·P_SS⁻¹·P_S:

and so on to the last one: one elimination gives the order and the error of every width. (The means are taken out since
the bias is refitted, too.) Where there are very many units, some go at once: exactly chosen among three times as many
that are cheapest alone. The simple scores are for comparison.

Of fewer rows than columns, X with one row of x in each of its n columns, P is never written out (Woodbury):

    P = (X·Xᵀ/n + s·I)⁻¹ = I/s − V·Xᵀ,   V = X·(XᵀX + n·s·I)⁻¹/s        and with S gone   V ← V − P_:S·P_SS⁻¹·V_S

A diagonal has the same form, with no rows at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from graphopt.analysis.moments import Kind, gather, mirror, precision

__all__ = ["NOTHING", "Curve", "Importance", "Reader", "curve", "damp", "ranked"]

Array = NDArray[Any]
Importance = Literal["obs", "energy", "l1", "l2", "scale", "random"]

NOTHING: Final = 1e-30
"""A variance that is as good as none."""
_EXACT: Final = 4e9
"""Elements that one elimination may touch unit by unit: units·columns²."""
_MOST_OUTPUTS: Final = 512
"""Rows of a matrix above which they are mixed by random signs: only the length of its columns matters."""
_CHUNK: Final = 32
"""One unit in so many goes at once."""
_TRIES: Final = 8
_AT_ONCE: Final = 1024
"""Rows of a large matrix that are changed at once, to spare a copy."""


def damp(gram: Array, share: float) -> Array:
    """H + λ·m·I, in place, m the mean of its diagonal, and never singular."""
    gram[np.diag_indices_from(gram)] += share * np.trace(gram) / len(gram) + NOTHING
    return gram


@dataclass(frozen=True, eq=False)
class Reader:
    """One matrix that sums over units; a grouped product is several."""

    matrix: Array
    """(out, columns)."""
    gram: Array
    """(columns, columns): E[x·xᵀ]; or what `kind` says."""
    mean: Array
    """(columns,): E[x]."""
    unit: NDArray[np.int64]
    """(columns,): whose column it is; −1 for those that stay."""
    gain: float = 1.0
    """What an error of its result counts."""
    damping: float = 1e-2
    kind: Kind = "full"
    """rows: `gram` is x, (columns, rows); diagonal: E[x²], (columns,)."""
    held: Reader | None = None
    """The same, on samples held back."""

    @property
    def energy(self) -> Array:
        """(columns,): E[x²]."""
        match self.kind:
            case "full":
                return np.diagonal(self.gram)
            case "rows":
                return np.asarray(np.mean(self.gram**2, axis=1, dtype=np.float64))
            case _:
                return self.gram

    def without(self, units: Array) -> float:
        """The error if the columns of some units are zero and nothing makes up for them: gain·tr(W_S·G_SS·W_Sᵀ)."""
        return self.error(np.where(np.isin(self.unit, units), self.matrix, 0), np.zeros(len(self.unit)))

    def error(self, change: Array, mean: Array) -> float:
        """gain·E|Δ·(x − μ)|².

        Args:
            change: (out, columns): Δ.
            mean: (columns,): μ.
        """
        change = change.astype(np.float64)
        level = change @ mean
        match self.kind:
            case "full":
                total = np.sum((change @ self.gram) * change) - level @ (2 * (change @ self.mean) - level)
            case "rows":
                total = np.sum((change @ self.gram - level[:, None]) ** 2) / self.gram.shape[1]
            case _:
                total = np.sum(change**2 * self.gram) - level @ (2 * (change @ self.mean) - level)
        return self.gain * float(total)


@dataclass(frozen=True, eq=False)
class Curve:
    """The order in which units go, and what is lost."""

    order: NDArray[np.int64]
    """(units,): from the least to the most important."""
    error: NDArray[np.float64]
    """(units + 1,): the error when k units stay, k = 0 … units; 0 at the end."""
    held: Mapping[int, float] = field(default_factory=dict)
    """By the number of units that stay, the error on samples held back, at some widths."""
    rough: bool = False
    """Whether memory was too short for what columns have in common: each was judged alone."""
    partial: bool = False
    """Whether some readers are no sums with constant weights: nothing is known of what these lose."""


def curve(units: int, readers: Sequence[Reader], order: NDArray[np.int64] | None = None) -> Curve:
    """The error of every width.

    Args:
        units: how many there are.
        readers: the matrices that sum over them.
        order: from the least to the most important, if it is chosen already.
    """
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
            some = alive[np.argsort(_total(problems, alive), kind="stable")[: 3 * count]]
        if order is not None:
            some = order[len(gone) : len(gone) + count]
        chosen, lost = _greedy([p.part(some) for p in problems], some, count, fixed=order is not None)
        gone += chosen
        losses += lost
        alive = np.setdiff1d(alive, chosen)
        if not exact:
            for problem in problems:
                problem.remove(chosen)
    error = np.concatenate([[0.0], np.cumsum(losses)])[::-1]
    return Curve(np.array(gone, np.int64), error)


def ranked(scores: Array) -> NDArray[np.int64]:
    """Units from the lowest to the highest score."""
    return np.argsort(scores, kind="stable")


def _greedy(problems: list[_Problem], alive: Array, count: int, *, fixed: bool) -> tuple[list[int], list[float]]:
    """Take `count` units out, the cheapest at each step or in their order, and tell what each step loses."""
    gone, losses = [], []
    for _ in range(count):
        losses_now = _total(problems, alive)
        best = 0 if fixed else int(np.argmin(losses_now))
        gone.append(int(alive[best]))
        losses.append(float(losses_now[best]))
        alive = np.delete(alive, best)
        for problem in problems:
            problem.remove(gone[-1:])
    return gone, losses


def _total(problems: Sequence[_Problem], units: Array) -> NDArray[np.float64]:
    return sum((p.losses(units) for p in problems), np.zeros(len(units)))


class _Dense:
    """P, written out."""

    def __init__(self, matrix: Array) -> None:
        self._matrix = matrix

    def block(self, at: Array) -> Array:
        """P[at, at] for each row of `at`: (…, k) to (…, k, k)."""
        return self._matrix[at[..., :, None], at[..., None, :]]

    def remove(self, gone: Array, stay: Array) -> Array:
        """P_SS⁻¹·P_S: of the columns that stay; P is that of these from now on."""
        across = self._matrix[np.ix_(gone, stay)]
        share: Array = np.linalg.solve(self.block(gone), across)
        self._matrix = self._matrix[np.ix_(stay, stay)]
        for start in range(0, len(stay), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            self._matrix[some] -= across[:, some].T @ share
        return share


class _Thin:
    """P = diag(d) − V·Xᵀ; V and X are (columns, rows)."""

    def __init__(self, diagonal: Array, v: Array, x: Array) -> None:
        self._diagonal, self._v, self._x = diagonal, v, x

    def block(self, at: Array) -> Array:
        """See `_Dense`."""
        found: Array = -(self._v[at] @ self._x[at].swapaxes(-1, -2))
        found[..., range(at.shape[-1]), range(at.shape[-1])] += self._diagonal[at]
        return found

    def remove(self, gone: Array, stay: Array) -> Array:
        """See `_Dense`."""
        own, mine = self.block(gone), self._v[gone]
        self._diagonal, self._v, self._x = self._diagonal[stay], self._v[stay], self._x[stay]
        across = -(mine @ self._x.T)
        self._v -= across.T @ np.linalg.solve(own, mine)
        return np.asarray(np.linalg.solve(own, across))


class _Problem:
    """One reader during the elimination."""

    def __init__(self, reader: Reader) -> None:
        self.inverse = _inverse(reader)
        self.matrix = _mixed(reader.matrix).astype(precision(len(reader.unit)))
        self.unit = np.asarray(reader.unit)
        self.gain = reader.gain

    @property
    def columns(self) -> int:
        return len(self.unit)

    def part(self, units: Array) -> _Problem:
        """The same with the columns of some units only: enough as long as only these are removed."""
        at = np.flatnonzero(np.isin(self.unit, units))
        made = object.__new__(_Problem)
        made.inverse, made.matrix, made.unit = _Dense(self.inverse.block(at)), self.matrix[:, at], self.unit[at]
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
            columns = self.matrix[:, at].transpose(1, 2, 0)
            solved = np.linalg.solve(self.inverse.block(at), columns)
            values = np.einsum("uko,uko->u", solved, columns, dtype=np.float64)
            lost.update(zip(found[mine].tolist(), (self.gain * values).tolist(), strict=True))
        return np.array([lost.get(u, 0.0) for u in units.tolist()])

    def remove(self, units: Sequence[int]) -> None:
        """Take the columns of some units out, and let the others make up for them."""
        out = np.isin(self.unit, units)
        gone, stay = np.flatnonzero(out), np.flatnonzero(~out)
        if not len(gone):
            return
        gap = self.matrix[:, gone]
        self.matrix = self.matrix[:, stay] - gap @ self.inverse.remove(gone, stay)
        self.unit = self.unit[stay]


def _inverse(reader: Reader) -> _Dense | _Thin:
    """(moment + damping·its mean diagonal)⁻¹."""
    kind, mean = precision(len(reader.unit)), reader.mean
    shift = reader.damping * max(float(np.mean(reader.energy - mean**2)), NOTHING)
    if reader.kind == "diagonal":
        return _Thin(1 / (np.maximum(reader.gram - mean**2, 0) + shift), *np.zeros((2, len(mean), 0)))
    if reader.kind == "rows":
        x = reader.gram.astype(kind) - mean[:, None].astype(kind)
        square = (x.T @ x).astype(np.float64)
        square[np.diag_indices_from(square)] += x.shape[1] * shift
        return _Thin(np.full(len(x), 1 / shift, kind), (np.linalg.solve(square, x.T).T / shift).astype(kind), x)
    double = kind == np.float64
    factor, invert = (lapack.dpotrf, lapack.dpotri) if double else (lapack.spotrf, lapack.spotri)
    for _ in range(_TRIES):
        matrix = np.array(reader.gram, kind)  # the only copy: lower triangles do
        gather(matrix, mean[:, None].astype(kind), -1.0)
        matrix[np.diag_indices_from(matrix)] += shift
        _, failed = factor(matrix.T, lower=0, clean=0, overwrite_a=1)
        if not failed:
            break
        shift *= 10  # rounding left it indefinite
    invert(matrix.T, lower=0, overwrite_c=1)
    mirror(matrix)
    return _Dense(matrix)


def _mixed(matrix: Array) -> Array:
    """At most so many rows, in which columns keep about their lengths and angles."""
    if len(matrix) <= _MOST_OUTPUTS:
        return matrix
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (_MOST_OUTPUTS, len(matrix))).astype(matrix.dtype)
    mixed: Array = signs @ matrix / np.sqrt(_MOST_OUTPUTS, dtype=matrix.dtype)
    return mixed
