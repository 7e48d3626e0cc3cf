"""Which numbers weights of few bits may be: Ŵ = scale · (code − zero), for each row and each block of its columns.

    zero = 0     codes from −(2^(bits − 1) − 1) to its opposite
    zero free    codes from 0 to 2^bits − 1, and the zero is one of them

The first scales are those that do best among shrunken extents of each block, by Σ_k H_kk·(w_k − ŵ_k)² of the nearest
codes; a free zero is then moved to where a line through (code, weight) says that it is, least squares with these
weights, and codes are taken anew, in turn. Scales for given codes z are solved for with the whole of H, all blocks of a
row at once:

    min over s of (w − Z·s)ᵀ·H·(w − Z·s),   column b of Z: the codes of block b, less their zero, and 0 elsewhere
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["BITS", "Codes", "Steps"]

Array = NDArray[Any]

BITS: Final = (8, 4, 3)
"""That a weight may have."""
_SHRINK: Final = {8: 0.8, 4: 0.5, 3: 0.4}
"""By bits, the least part of a block's largest weight that its codes reach."""
_TRIES: Final = 41
_LINES: Final = 3
"""How often free zeros are moved."""
_TINY: Final = np.finfo(np.float32).tiny


@dataclass(frozen=True, eq=False)
class Codes:
    """The weights of a product as whole numbers."""

    codes: Array
    """(groups, out, columns): less their zero."""
    scale: Array
    """(groups, out, blocks): representable in single precision."""
    zero: Array
    """(groups, out, blocks): whole."""

    @property
    def matrix(self) -> Array:
        """(groups, out, columns): what they stand for."""
        return self.codes * _wide(self.scale, self.codes.shape[-1])


@dataclass(frozen=True)
class Steps:
    """See the module's docstring."""

    bits: int = 8
    size: int = 0
    """Columns of a block; 0 for all."""
    free: bool = False
    """Whether the zero is free."""

    def first(self, matrix: Array, weights: Array) -> Codes:
        """The nearest codes, with scales and zeros that suit them.

        Args:
            matrix: (groups, out, columns).
            weights: (groups, columns): what the square of an error counts in each column.
        """
        blocks, heavy = self._parts(matrix), self._parts(weights)[:, None]
        low, high = blocks.min(axis=-1), blocks.max(axis=-1)
        most = 2**self.bits - 1 if self.free else 2 ** (self.bits - 1) - 1
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        reach = high - low if self.free else np.maximum(high, -low)
        reach = np.maximum(reach, _TINY * most)
        scale, zero = self._step(reach / most), np.zeros(reach.shape)
        best: Array = np.full(reach.shape, np.inf)
        for part in np.linspace(_SHRINK[self.bits], 1, _TRIES):
            tried = self._step(part * reach / most)
            origin = np.clip(np.rint(-part * low / tried), 0, most) if self.free else zero
            error = self._missed(blocks, heavy, tried, origin)
            better = error < best
            best, scale, zero = _taken(better, (error, tried, origin), (best, scale, zero))
        for _ in range(_LINES if self.free else 0):
            tried, origin = self._line(blocks, heavy, scale, zero)
            error = self._missed(blocks, heavy, tried, origin)
            better = error < best
            best, scale, zero = _taken(better, (error, tried, origin), (best, scale, zero))
        return Codes(self._nearest(blocks, scale, zero).reshape(matrix.shape), scale, zero)

    def limits(self, found: Codes) -> tuple[Array, Array, Array]:
        """The step, the lowest and the highest code less zero of each weight: (groups, out, columns) each."""
        columns, (low, high) = found.codes.shape[-1], self._ends(found.zero)
        return _wide(found.scale, columns), _wide(low, columns), _wide(high, columns)

    def solved(self, matrix: Array, system: Array, found: Codes) -> Codes:
        """The scales of least error for given codes; in a row without such ones, they are as they were.

        Args:
            matrix: (groups, out, columns).
            system: (groups, columns, columns): H, positive definite.
            found: the codes.
        """
        codes, size = found.codes, self.size or matrix.shape[-1]
        count = found.scale.shape[-1]
        square, aim = np.empty((*codes.shape[:2], count, count)), np.empty(found.scale.shape)
        pull, every = matrix @ system, self._parts(codes)
        for b in range(count):
            at = slice(b * size, (b + 1) * size)
            image = self._parts(codes[..., at] @ system[:, at])
            square[..., b, :] = np.sum(image * every, axis=-1)
            aim[..., b] = np.sum(codes[..., at] * pull[..., at], axis=-1)
        empty = np.einsum("gobb->gob", square) <= 0
        square[empty[..., None] & np.eye(count, dtype=np.bool_)] = 1.0
        steps = np.linalg.solve(square, aim[..., None])[..., 0].astype(np.float32)
        steps = np.where(empty, found.scale, steps.astype(np.float64))
        good = np.all(np.isfinite(steps) & (steps >= _TINY), axis=-1, keepdims=True)
        return Codes(codes, np.where(good, steps, found.scale), found.zero)

    def _parts(self, rows: Array) -> Array:
        """(…, columns) as (…, blocks, columns of a block)."""
        return rows.reshape(*rows.shape[:-1], -1, self.size or rows.shape[-1])

    def _ends(self, zero: Array) -> tuple[Array, Array]:
        """The lowest and the highest code, less its zero."""
        if self.free:
            return -zero, 2**self.bits - 1 - zero
        most = np.full(zero.shape, 2.0 ** (self.bits - 1) - 1)
        return -most, most

    def _nearest(self, blocks: Array, scale: Array, zero: Array) -> Array:
        low, high = self._ends(zero)
        found: Array = np.clip(np.rint(blocks / scale[..., None]), low[..., None], high[..., None])
        return found

    def _missed(self, blocks: Array, heavy: Array, scale: Array, zero: Array) -> Array:
        gap = blocks - self._nearest(blocks, scale, zero) * scale[..., None]
        found: Array = np.sum(np.square(gap) * heavy, axis=-1)
        return found

    def _line(self, blocks: Array, heavy: Array, scale: Array, zero: Array) -> tuple[Array, Array]:
        """The scale and the zero of the weighted least squares line through codes and weights."""
        codes = self._nearest(blocks, scale, zero) + zero[..., None]
        total = np.sum(heavy, axis=-1)
        code, weight = (np.sum(a * heavy, axis=-1) / total for a in (codes, blocks))
        spread = np.sum(np.square(codes - code[..., None]) * heavy, axis=-1)
        slope = np.sum((codes - code[..., None]) * blocks * heavy, axis=-1)
        tried = self._step(np.divide(slope, spread, out=scale.copy(), where=spread > 0))
        return tried, np.clip(np.rint(code - weight / tried), 0, 2**self.bits - 1)

    @staticmethod
    def _step(scale: Array) -> Array:
        found: Array = np.maximum(scale, _TINY).astype(np.float32).astype(np.float64)
        return found


def _taken(better: Array, new: tuple[Array, Array, Array], old: tuple[Array, Array, Array]) -> list[Array]:
    """What is new where that is better."""
    return [np.where(better, n, o) for n, o in zip(new, old, strict=True)]


def _wide(blocks: Array, columns: int) -> Array:
    """(…, blocks) as (…, columns)."""
    one = blocks.shape[-1] == 1
    return (
        np.broadcast_to(blocks, (*blocks.shape[:-1], columns))
        if one
        else np.repeat(blocks, columns // blocks.shape[-1], axis=-1)
    )
