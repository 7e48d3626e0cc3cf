"""Rows of numbers as entries of a table, a scale for each row: vector quantization in the metric of the data.

The table is that of k-means (Lloyd, 1982) over all vectors, each row scaled to the same power. Entries are then chosen
with H = E[x·xᵀ] + λ·m·I:

    in turn     w_b ← the entry c with least (w_b − s·c)ᵀ·M_b·(w_b − s·c), M_b = ([H⁻¹]_bb)⁻¹, H of columns to come:
                what it missed is made up for by those (van Baalen et al., GPTVQ, 2024)
    descent     the same for each vector again while all others stay, which only ever lowers the error
    scale       s = ⟨W, Z·H⟩ / ⟨Z, Z·H⟩ for each row, Z the entries
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

__all__ = ["ENTRIES", "Coded", "blocks", "coded", "table", "unit"]

Array = NDArray[Any]
ENTRIES: Final = 256
_HIGHEST: Final = 127
"""Entries are kept in 8 bits each."""
_TRAINED: Final = 60_000
"""Vectors that the table is found from, at most."""
_ROUNDS: Final = 20
_TOGETHER: Final = 1152
"""Columns, about."""
_SWEEPS: Final = 6
_UNREAD: Final = 1e-6
"""What errors of numbers count that nothing reads, in means of the others."""
_TINY: Final = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class Coded:
    """The weights of one product as entries of a table."""

    codes: Array
    """(out, vectors): uint8; the last vector of a row may have more numbers than there are columns left."""
    scale: Array
    """(out, 1): float32."""
    matrix: Array
    """(out, columns): what the product multiplies with."""
    length: int
    """Numbers of one vector."""


def table(matrices: Sequence[Array], length: int) -> Array:
    """(256, length): float32, the vectors that those of some products, (out, columns) each, are nearest to."""
    whole = [(m / _power(m))[:, : m.shape[1] // length * length] for m in matrices]
    vectors = np.concatenate([m.reshape(-1, length) for m in whole])
    random = np.random.default_rng(0)
    some = vectors[np.sort(random.permutation(len(vectors))[:_TRAINED])]
    start = some[np.sort(random.permutation(len(some))[:ENTRIES])]
    start = np.concatenate([start, np.zeros((ENTRIES - len(start), length))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of entries that are nearest to nothing
        found, _ = kmeans2(some, start, iter=_ROUNDS, minit="matrix", missing="warn")
    return np.asarray(unit(found) * np.rint(found / unit(found)), np.float32)


def unit(entries: Array) -> float:
    """What entries are multiples of; they are kept in 8 bits each."""
    return float(np.abs(entries).max()) / _HIGHEST or 1.0


def _power(matrix: Array) -> Array:
    """(out, 1): root mean squares of rows."""
    found: Array = np.sqrt(np.mean(np.square(matrix, dtype=np.float64), axis=1, keepdims=True)) + _TINY
    return found


def blocks(columns: int, length: int) -> list[slice]:
    """Columns that are looked at together: all, or so many as an inverse is made of in good time."""
    most = _TOGETHER // length * length
    return [slice(start, min(start + most, columns)) for start in range(0, columns, most)]


def coded(matrix: Array, grams: Sequence[Array], entries: Array, *, sweeps: int = _SWEEPS) -> Coded:
    """The entries of least error for a product.

    Args:
        matrix: (out, columns).
        grams: H of each of the `blocks` of columns, positive definite; between them it is taken for zero.
        entries: (256, length).
        sweeps: of descent.
    """
    entries, scale, length = entries.astype(np.float64), _power(matrix), entries.shape[1]
    columns = blocks(matrix.shape[1], length)
    parts = [_Part(matrix[:, at], gram, entries) for at, gram in zip(columns, grams, strict=True)]
    for part in parts:
        part.pass_on(scale)
    for _ in range(sweeps):
        above, below = np.sum([part.fit() for part in parts], axis=0)
        scale = np.where((above > 0) & (below > 0), above / np.maximum(below, _TINY), scale)
        changed = [part.descend(scale) for part in parts]
        if not any(changed):
            break
    codes = np.concatenate([part.codes for part in parts], axis=1)
    made = (entries[codes] * scale[..., None]).reshape(len(matrix), -1)[:, : matrix.shape[1]]
    return Coded(codes.astype(np.uint8), scale.astype(np.float32), made, length)


class _Part:
    """Some columns of a product."""

    def __init__(self, matrix: Array, gram: Array, entries: Array) -> None:
        self._entries, self._length = entries, entries.shape[1]
        beyond = -matrix.shape[1] % self._length  # numbers that nothing reads
        self._matrix, self._gram = np.pad(matrix, ((0, 0), (0, beyond))), np.pad(gram, (0, beyond))
        unread = range(len(gram), len(self._gram))
        self._gram[unread, unread] = _UNREAD * np.trace(gram) / len(gram)
        self.codes = np.zeros((len(matrix), self._matrix.shape[1] // self._length), np.intp)

    def pass_on(self, scale: Array) -> None:
        """Entries in turn, those that matter most first; each makes up for what those before it missed."""
        length, count = self._length, self.codes.shape[1]
        order = np.argsort(-np.diagonal(self._gram).reshape(count, length).sum(axis=1), kind="stable")
        columns = (order[:, None] * length + np.arange(length)).reshape(-1)
        inverse = np.linalg.inv(self._gram[np.ix_(columns, columns)])
        rest = self._matrix[:, columns].astype(np.float64)
        for place, vector in enumerate(order):
            at, later = slice(place * length, (place + 1) * length), slice((place + 1) * length, None)
            metric = np.linalg.inv(inverse[at, at])
            self.codes[:, vector] = _nearest(rest[:, at], metric, self._entries, scale)
            share = metric @ inverse[at, later]
            rest[:, later] -= (rest[:, at] - self._entries[self.codes[:, vector]] * scale) @ share
            inverse[later, later] -= inverse[later, at] @ share

    def fit(self) -> tuple[Array, Array]:
        """(out, 1) each: the sums that the best scales are quotients of."""
        plain = self._entries[self.codes].reshape(self._matrix.shape)
        image = plain @ self._gram
        return np.sum(image * self._matrix, axis=1, keepdims=True), np.sum(image * plain, axis=1, keepdims=True)

    def descend(self, scale: Array) -> bool:
        """Each entry once more while all others stay; whether any is another one now."""
        now = (self._entries[self.codes] * scale[..., None]).reshape(self._matrix.shape)
        slope, changed = (self._matrix - now) @ self._gram, False
        for vector in range(self.codes.shape[1]):
            at = slice(vector * self._length, (vector + 1) * self._length)
            own = self._gram[at, at]
            wanted = now[:, at] + np.linalg.solve(own, slope[:, at].T).T
            new = _nearest(wanted, own, self._entries, scale)
            rows = np.flatnonzero(new != self.codes[:, vector])
            if rows.size:
                step = self._entries[new[rows]] * scale[rows] - now[rows, at]
                self.codes[rows, vector], changed = new[rows], True
                now[rows, at] += step
                slope[rows] -= step @ self._gram[at]
        return changed


def _nearest(vectors: Array, metric: Array, entries: Array, scale: Array) -> NDArray[np.intp]:
    """(out,): the entries c with least (v − s·c)ᵀ·M·(v − s·c)."""
    moved = entries @ metric
    size = np.sum(moved * entries, axis=1)
    return np.asarray(np.argmin(size * scale - 2 * (vectors @ moved.T), axis=1))
