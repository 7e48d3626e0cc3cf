"""The weights of a product as integers of few bits: Ŵ = codes · scale, one scale for each output channel.

    min  tr((W − Ŵ)·H·(W − Ŵ)ᵀ),   H = E[x·xᵀ] + λ·m·I          m: mean diagonal; means taken out where a bias is free

scales      Σ_k H_kk·(w_k − ŵ_k)² is least, among shrunken extents; later s = (w·H·zᵀ)/(z·H·zᵀ) for codes z
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
from graphopt.compress.refit import Goal, fit, times
from graphopt.graph.collector import trimmed

__all__ = ["BITS", "BLIND", "Rounded", "nearest", "rounded"]

Array = NDArray[Any]

BITS: Final = (8, 4, 3)
"""That a weight may have."""
BLIND: Final = "nearest, as its values are not finite"
"""How weights are rounded where nothing can be learned."""
_DAMPING: Final = 1e-2
_SHRINK: Final = {8: 0.8, 4: 0.5, 3: 0.4}
"""By bits, the least part of a channel's largest weight that its codes reach."""
_TRIES: Final = 41
_BLOCK: Final = 64
"""Columns that are rounded before what they missed reaches the others."""
_SWEEPS: Final = 8
_SOLVES: Final = 2
"""How often scales are solved for, given codes."""


@dataclass(frozen=True, eq=False)
class Rounded:
    """Integer weights of one product, and how they were found."""

    codes: Array
    """(groups, out, columns): int8."""
    scale: Array
    """(groups, out): float32."""
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

    @property
    def peak(self) -> float:
        """How far the largest weight of a channel lies beyond their rms there, at most."""
        codes = self.codes.astype(np.float64)
        rms = np.sqrt(np.mean(np.square(codes), axis=-1))
        return float(np.max(np.abs(codes).max(axis=-1) / np.maximum(rms, 1 / codes.shape[-1])))

    @property
    def matrix(self) -> Array:
        """(groups, out, columns): what the product multiplies with."""
        return self.codes.astype(np.float64) * self.scale[..., None].astype(np.float64)


def rounded(
    rows: Rows,
    matrix: Array,
    bias: Array,
    *,
    bits: int = 8,
    bounds: tuple[float, float] = (-inf, inf),
    biased: bool = True,
) -> Rounded:
    """Round a product.

    Args:
        rows: what it reads and should give.
        matrix: (groups, out, columns): the weights that it has.
        bias: (groups, out): the bias that it has.
        bits: 8, 4 or 3; codes go from −(2^(bits − 1) − 1) to its opposite.
        bounds: where what follows clips, once `rows.base` is added.
        biased: whether there is a place for a bias.
    """
    if not rows.finite:
        even = np.broadcast_to(_damped(np.eye(matrix.shape[-1])[None]), (len(matrix), *2 * matrix.shape[-1:]))
        _, codes, scale = next(_ways(matrix, even, bits))
        return Rounded(codes, scale, bias, BLIND, 0.0, 0.0)
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
        for way, codes, scale in _ways(start, system, bits):
            made = Rounded(codes, scale, offset, name + way, before, inf)
            choices = [(made.way, offset)]
            if biased:
                choices.append((made.way + " bias", goal.balanced(made.matrix, offset, learned)))
            for told, shift in choices:
                error = judge(made.matrix, shift)
                back = shift - (made.matrix @ rows.mean[..., None])[..., 0]
                found.append((error, Rounded(codes, scale, back, told, before, error)))
    return replace(min(found, key=lambda f: f[0])[1], spread=_spread(rows.x))


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
    return Rounded(_nearest(matrix, scale, most).astype(np.int8), scale, bias, "nearest", 0.0, 0.0)


def _damped(gram: Array) -> Array:
    """The same matrices, which may be large, with something added to their diagonals."""
    power = np.maximum(np.trace(gram, axis1=1, axis2=2) / gram.shape[1], np.finfo(np.float32).tiny)
    diagonal = np.arange(gram.shape[1])
    gram[:, diagonal, diagonal] += (_DAMPING * power)[:, None]
    return gram


def _ways(matrix: Array, system: Array, bits: int) -> Iterator[tuple[str, Array, Array]]:
    """Codes and scales: the nearest ones, and those of least error."""
    most = 2 ** (bits - 1) - 1
    weights = np.diagonal(system, axis1=1, axis2=2)
    scale = _scales(matrix, weights, most, _SHRINK[bits])
    codes = _nearest(matrix, scale, most)
    yield "nearest", codes.astype(np.int8), scale.astype(np.float32)
    passed = _passed_on(matrix, system, scale, most)
    better = _missed(matrix, system, scale, passed) < _missed(matrix, system, scale, codes)
    codes = np.where(better[..., None], passed, codes)
    for _ in range(_SOLVES):
        codes = _descended(matrix, system, scale, codes, most)
        scale = _solved(matrix, system, scale, codes)
    codes = _descended(matrix, system, scale, codes, most)
    yield "descent", codes.astype(np.int8), scale.astype(np.float32)


def _nearest(matrix: Array, scale: Array, most: int) -> Array:
    found: Array = np.clip(np.rint(matrix / scale[..., None]), -most, most)
    return found


def _scales(matrix: Array, weights: Array, most: int, least: float) -> Array:
    """(groups, out), representable in single precision: those with the least weighted error of the nearest codes."""
    extent = np.maximum(np.abs(matrix).max(axis=-1), np.finfo(np.float32).tiny * most)
    best: Array = np.full(extent.shape, np.inf)
    scale: Array = extent / most
    for part in np.linspace(least, 1, _TRIES):
        tried = (part * extent / most).astype(np.float32).astype(np.float64)
        tried = np.maximum(tried, np.finfo(np.float32).tiny)
        missed = np.square(matrix - _nearest(matrix, tried, most) * tried[..., None])
        error = (missed @ weights[..., None])[..., 0]
        better = error < best
        best, scale = np.where(better, error, best), np.where(better, tried, scale)
    return scale


def _passed_on(matrix: Array, system: Array, scale: Array, most: int) -> Array:
    """Codes column by column, the ones that matter most first, each making up for what those before it missed."""
    order = np.argsort(-np.diagonal(system, axis1=1, axis2=2).mean(axis=0), kind="stable")
    upper = _upper(system, order)
    rest, codes = matrix[..., order].astype(np.float64), np.empty(matrix.shape)
    columns = matrix.shape[-1]
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        missed = np.zeros((*matrix.shape[:2], stop - start))
        for k in range(start, stop):
            codes[..., k] = np.clip(np.rint(rest[..., k] / scale), -most, most)
            gap = (rest[..., k] - codes[..., k] * scale) / upper[:, k, k, None]
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


def _missed(matrix: Array, system: Array, scale: Array, codes: Array) -> Array:
    """(groups, out): the error of codes."""
    gap = matrix - codes * scale[..., None]
    found: Array = np.sum((gap @ system) * gap, axis=-1)
    return found


def _descended(matrix: Array, system: Array, scale: Array, codes: Array, most: int) -> Array:
    """Coordinate descent on codes, until nothing changes."""
    codes, columns = codes.copy(), matrix.shape[-1]
    diagonal = np.diagonal(system, axis1=1, axis2=2)
    slope = (matrix - codes * scale[..., None]) @ system
    for _ in range(_SWEEPS):
        changed = False
        for start in range(0, columns, _BLOCK):
            stop = min(start + _BLOCK, columns)
            own, moved = system[:, start:stop, start:stop], np.zeros((*codes.shape[:2], stop - start))
            near = slope[..., start:stop].copy()
            for k in range(stop - start):
                now = codes[..., start + k]
                new = np.clip(np.rint(now + near[..., k] / (diagonal[:, start + k, None] * scale)), -most, most)
                step = (new - now) * scale
                if step.any():
                    near -= step[..., None] * own[:, None, k, :]
                    moved[..., k], codes[..., start + k], changed = step, new, True
            if moved.any():
                slope -= moved @ system[:, start:stop, :]
        if not changed:
            break
    return codes


def _solved(matrix: Array, system: Array, scale: Array, codes: Array) -> Array:
    """The scales of least error for given codes; as they are where that is none."""
    image = codes @ system
    above, below = np.sum(image * matrix, axis=-1), np.sum(image * codes, axis=-1)
    found = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    good = found.astype(np.float32) >= np.finfo(np.float32).tiny
    solved: Array = np.where(good, found.astype(np.float32).astype(np.float64), scale)
    return solved
