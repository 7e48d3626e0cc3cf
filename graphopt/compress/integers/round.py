"""The weights of a product as integers of few bits, a scale for each output channel or each block of its weights.

    min  tr((W − Ŵ)·H·(W − Ŵ)ᵀ),   H = E[x·xᵀ] + λ·m·I          m: mean diagonal; means taken out where a bias is free

scales      see `steps`: first by the nearest codes, later solved for, given codes
codes       column by column, what the last one missed shifted to those to come (Frantar et al., GPTQ, 2022), then
            coordinate descent, which only ever lowers the error (Behdin et al., QuantEase, 2023):
            z_k ← round(z_k + ((W − Ŵ)·H)_k/(H_kk·s))
W           as it is, or refit first to what the original gives, on the data as it now is (`refit`)
bias        as it is, or so that the mean of the result is right (Nagel et al., Data-Free Quantization, 2019, measured)

Which of these is taken, rows held back decide, product by product: with 8 bits and few samples refitting learns noise,
with 3 bits nothing else helps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Final

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from graphopt.analysis.frontier import Rows
from graphopt.compress.integers.steps import Codes, Steps
from graphopt.compress.refit import Goal, fit, times
from graphopt.graph.collector import trimmed

__all__ = ["BLIND", "Rounded", "nearest", "rounded"]

Array = NDArray[Any]

BLIND: Final = "nearest, as its values are not finite"
"""How weights are rounded where nothing can be learned."""
EIGHT: Final = Steps()
"""8 bits, a scale for each row."""
_DAMPING: Final = 1e-2
_BLOCK: Final = 64
"""Columns that are rounded before what they missed reaches the others."""
_SWEEPS: Final = 8
_SOLVES: Final = 2
"""How often scales are solved for, given codes."""


@dataclass(frozen=True, eq=False)
class Rounded:
    """Integer weights of one product, and how they were found."""

    codes: Array
    """(groups, out, columns): less their zero; int8, or int16 where that is free."""
    scale: Array
    """(groups, out), or (groups, out, blocks) where there are such: float32."""
    bias: Array
    """(groups, out)."""
    way: str
    """What was taken: "nearest" or "descent", after "refit" where the weights were, with "bias" where that is new.
    Where data is not finite, nothing is learned from it."""
    before: float
    """Error on rows held back with the weights as they were, as a part of what the original's values vary; the data is
    what quantized products before it give."""
    after: float
    """The same with integer weights."""
    spread: float = 1.0
    """How far the farthest column of what it reads reaches from its mean, over the median of those that vary; 1 where
    that was not seen."""
    zero: Array | None = None
    """Shaped as `scale`: int16, the codes that stand for 0, where they are free."""

    @property
    def peak(self) -> float:
        """How far the largest weight of a channel lies beyond their rms there, at most."""
        codes = self.codes.astype(np.float64)
        rms = np.sqrt(np.mean(np.square(codes), axis=-1))
        return float(np.max(np.abs(codes).max(axis=-1) / np.maximum(rms, 1 / codes.shape[-1])))

    @property
    def matrix(self) -> Array:
        """(groups, out, columns): what the product multiplies with."""
        scale = self.scale.astype(np.float64).reshape(*self.codes.shape[:2], -1)
        return Codes(self.codes.astype(np.float64), scale, np.zeros(scale.shape)).matrix


def rounded(
    rows: Rows,
    matrix: Array,
    bias: Array,
    *,
    steps: Steps = EIGHT,
    bounds: tuple[float, float] = (-inf, inf),
    biased: bool = True,
) -> Rounded:
    """Round a product.

    Args:
        rows: what it reads and should give.
        matrix: (groups, out, columns): the weights that it has.
        bias: (groups, out): the bias that it has.
        steps: which numbers weights may be.
        bounds: where what follows clips, once `rows.base` is added.
        biased: whether there is a place for a bias.
    """
    if not rows.finite:
        even = np.broadcast_to(_damped(np.eye(matrix.shape[-1])[None]), (len(matrix), *2 * matrix.shape[-1:]))
        return _told(next(_ways(matrix, even, steps))[1], steps, bias, BLIND)
    goal, count = Goal(rows, bounds), rows.x.shape[2]
    learned = slice(rows.fitted if 0 < rows.fitted < count else count)
    judged = slice(rows.fitted, count) if learned.stop < count else learned
    level = bias + (matrix @ rows.mean[..., None])[..., 0]

    def judge(weights: Array, offset: Array) -> float:
        return goal.error(weights, offset, judged)

    starts = [("", matrix, level)]
    refit = fit(rows, matrix, bias, bounds=bounds, biased=biased)
    if refit.damping is not None and refit.after < refit.before:
        starts.append(("refit ", refit.matrix, refit.bias + (refit.matrix @ rows.mean[..., None])[..., 0]))
    before, found = judge(matrix, level), list[tuple[float, Rounded]]()
    x = rows.x[..., learned]
    trimmed(8 * matrix.shape[-1] ** 2)
    system = times(x, x)
    system /= max(1, x.shape[-1])
    _damped(system)
    for name, start, offset in starts:
        for way, codes in _ways(start, system, steps):
            made = _told(codes, steps, offset, name + way)
            choices = [(made.way, offset)]
            if biased:
                choices.append((made.way + " bias", goal.balanced(made.matrix, offset, learned)))
            for told, shift in choices:
                error = judge(made.matrix, shift)
                back = shift - (made.matrix @ rows.mean[..., None])[..., 0]
                found.append((error, replace(made, bias=back, way=told, before=before, after=error)))
    return replace(min(found, key=lambda f: f[0])[1], spread=_spread(rows.x))


def _told(found: Codes, steps: Steps, bias: Array, way: str) -> Rounded:
    """As it can be written; with errors that are not known yet."""
    scale, zero = (a if steps.size else a[..., 0] for a in (found.scale.astype(np.float32), found.zero))
    codes = found.codes.astype(np.int16 if steps.free else np.int8)
    return Rounded(codes, scale, bias, way, 0.0, 0.0, zero=zero.astype(np.int16) if steps.free else None)


def _spread(x: Array) -> float:
    """See `Rounded.spread`."""
    reach = np.maximum(x.max(axis=2), -x.min(axis=2)).reshape(-1)
    reach = reach[reach > 0]
    return float(reach.max() / np.median(reach)) if reach.size else 1.0


def nearest(matrix: Array, bias: Array, bits: int) -> Rounded:
    """What needs no data: codes that reach as far as each channel's largest weight. Errors are not measured.

    Args:
        matrix: (groups, out, columns).
        bias: (groups, out): kept.
        bits: as `rounded` takes it.
    """
    most = 2 ** (bits - 1) - 1
    scale = (np.maximum(np.abs(matrix).max(axis=-1), np.finfo(np.float32).tiny * most) / most).astype(np.float32)
    codes = np.clip(np.rint(matrix / scale[..., None]), -most, most).astype(np.int8)
    return Rounded(codes, scale, bias, "nearest", 0.0, 0.0)


def _damped(gram: Array) -> Array:
    """The same matrices, which may be large, with something added to their diagonals."""
    power = np.maximum(np.trace(gram, axis1=1, axis2=2) / gram.shape[1], np.finfo(np.float32).tiny)
    diagonal = np.arange(gram.shape[1])
    gram[:, diagonal, diagonal] += (_DAMPING * power)[:, None]
    return gram


def _ways(matrix: Array, system: Array, steps: Steps) -> Iterator[tuple[str, Codes]]:
    """The nearest codes, and those of least error."""
    found = steps.first(matrix, np.diagonal(system, axis1=1, axis2=2))
    yield "nearest", found
    passed = replace(found, codes=_passed_on(matrix, system, *steps.limits(found)))
    better = _missed(matrix, system, passed) < _missed(matrix, system, found)
    found = replace(found, codes=np.where(better[..., None], passed.codes, found.codes))
    for _ in range(_SOLVES):
        found = replace(found, codes=_descended(matrix, system, found.codes, *steps.limits(found)))
        found = steps.solved(matrix, system, found)
    yield "descent", replace(found, codes=_descended(matrix, system, found.codes, *steps.limits(found)))


def _passed_on(matrix: Array, system: Array, step: Array, low: Array, high: Array) -> Array:
    """Codes column by column, the ones that matter most first, each making up for what those before it missed."""
    order = np.argsort(-np.diagonal(system, axis1=1, axis2=2).mean(axis=0), kind="stable")
    upper = _upper(system, order)
    rest, codes = matrix[..., order].astype(np.float64), np.empty(matrix.shape)
    step, low, high = (a[..., order] for a in (step, low, high))
    columns = matrix.shape[-1]
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        missed = np.zeros((*matrix.shape[:2], stop - start))
        for k in range(start, stop):
            codes[..., k] = np.clip(np.rint(rest[..., k] / step[..., k]), low[..., k], high[..., k])
            gap = (rest[..., k] - codes[..., k] * step[..., k]) / upper[:, k, k, None]
            rest[..., k:stop] -= gap[..., None] * upper[:, None, k, k:stop]
            missed[..., k - start] = gap
        rest[..., stop:] -= missed @ np.ascontiguousarray(upper[:, start:stop, stop:])
    return codes[..., np.argsort(order)]


def _upper(system: Array, order: Array) -> Array:
    """(groups, columns, columns): U with Uᵀ·U = H⁻¹, of the columns in this order.

    Where H = L·Lᵀ of the columns in the opposite order, U is L⁻¹ turned back. All of it is done in one room.
    """
    turned = order[::-1]
    room = np.ascontiguousarray(system[:, turned[:, None], turned])
    for square in room:
        factor = scipy.linalg.cholesky(square.T, overwrite_a=True, check_finite=False)
        square[...] = scipy.linalg.lapack.dtrtri(factor, overwrite_c=True)[0].T
    return room[:, ::-1, ::-1]


def _missed(matrix: Array, system: Array, made: Codes) -> Array:
    """(groups, out): the error of codes."""
    gap = matrix - made.matrix
    found: Array = np.sum((gap @ system) * gap, axis=-1)
    return found


def _descended(matrix: Array, system: Array, codes: Array, step: Array, low: Array, high: Array) -> Array:
    """Coordinate descent on codes, until nothing changes."""
    codes, columns = codes.copy(), matrix.shape[-1]
    diagonal = np.diagonal(system, axis1=1, axis2=2)
    slope = (matrix - codes * step) @ system
    for _ in range(_SWEEPS):
        changed = False
        for start in range(0, columns, _BLOCK):
            stop = min(start + _BLOCK, columns)
            own, moved = system[:, start:stop, start:stop], np.zeros((*codes.shape[:2], stop - start))
            near = slope[..., start:stop].copy()
            for k in range(stop - start):
                at = start + k
                now = codes[..., at]
                wish = np.rint(now + near[..., k] / (diagonal[:, at, None] * step[..., at]))
                new = np.clip(wish, low[..., at], high[..., at])
                moves = (new - now) * step[..., at]
                if moves.any():
                    near -= moves[..., None] * own[:, None, k, :]
                    moved[..., k], codes[..., at], changed = moves, new, True
            if moved.any():
                slope -= moved @ system[:, start:stop, :]
        if not changed:
            break
    return codes
