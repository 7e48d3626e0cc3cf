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

__all__ = ["ENTRIES", "Coded", "coded", "table", "unit"]

Array = NDArray[Any]
ENTRIES: Final = 256
_HIGHEST: Final = 127
"""Entries are kept in 8 bits each."""
_TRAINED: Final = 60_000
"""Vectors that the table is found from, at most."""
_ROUNDS: Final = 20
_SWEEPS: Final = 6
_TINY: Final = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class Coded:
    """The weights of one product as entries of a table."""

    codes: Array
    """(out, vectors): uint8."""
    scale: Array
    """(out, 1): float32."""
    matrix: Array
    """(out, columns): what the product multiplies with."""


def table(matrices: Sequence[Array], length: int) -> Array:
    """(256, length): float32, the vectors that those of some products, (out, columns) each, are nearest to."""
    vectors = np.concatenate([(m / _power(m)).reshape(-1, length) for m in matrices])
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


def coded(matrix: Array, gram: Array, entries: Array, *, sweeps: int = _SWEEPS) -> Coded:
    """The entries of least error for a product.

    Args:
        matrix: (out, columns).
        gram: (columns, columns): H, positive definite.
        entries: (256, length).
        sweeps: of descent.
    """
    entries, scale, length = entries.astype(np.float64), _power(matrix), entries.shape[1]
    codes = _passed_on(matrix, gram, entries, scale)

    def made() -> Array:
        found: Array = (entries[codes] * scale[..., None]).reshape(matrix.shape)
        return found

    for _ in range(sweeps):
        plain = entries[codes].reshape(matrix.shape)
        image = plain @ gram
        above, below = (np.sum(image * m, axis=1, keepdims=True) for m in (matrix, plain))
        scale = np.where((above > 0) & (below > 0), above / np.maximum(below, _TINY), scale)
        now = made()
        slope, changed = (matrix - now) @ gram, False
        for vector, start in enumerate(range(0, matrix.shape[1], length)):
            at = slice(start, start + length)
            own = gram[at, at]
            wanted = now[:, at] + np.linalg.solve(own, slope[:, at].T).T
            new = _nearest(wanted, own, entries, scale)
            rows = np.flatnonzero(new != codes[:, vector])
            if rows.size:
                step = entries[new[rows]] * scale[rows] - now[rows, at]
                codes[rows, vector], changed = new[rows], True
                now[rows, at] += step
                slope[rows] -= step @ gram[at]
        if not changed:
            break
    return Coded(codes.astype(np.uint8), scale.astype(np.float32), made())


def _nearest(vectors: Array, metric: Array, entries: Array, scale: Array) -> NDArray[np.intp]:
    """(out,): the entries c with least (v − s·c)ᵀ·M·(v − s·c)."""
    moved = entries @ metric
    size = np.sum(moved * entries, axis=1)
    return np.asarray(np.argmin(size * scale - 2 * (vectors @ moved.T), axis=1))


def _passed_on(matrix: Array, gram: Array, entries: Array, scale: Array) -> NDArray[np.intp]:
    """(out, vectors): entries in turn, those that matter most first; each makes up for what those before it missed."""
    length = entries.shape[1]
    count = matrix.shape[1] // length
    order = np.argsort(-np.diagonal(gram).reshape(count, length).sum(axis=1), kind="stable")
    columns = (order[:, None] * length + np.arange(length)).reshape(-1)
    inverse = np.linalg.inv(gram[np.ix_(columns, columns)])
    rest, codes = matrix[:, columns].astype(np.float64), np.empty((len(matrix), count), np.intp)
    for place, vector in enumerate(order):
        at, later = slice(place * length, (place + 1) * length), slice((place + 1) * length, None)
        metric = np.linalg.inv(inverse[at, at])
        codes[:, vector] = _nearest(rest[:, at], metric, entries, scale)
        share = metric @ inverse[at, later]
        rest[:, later] -= (rest[:, at] - entries[codes[:, vector]] * scale) @ share
        inverse[later, later] -= inverse[later, at] @ share
    return codes
