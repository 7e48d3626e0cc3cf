"""Depthwise-separable factorization: each input channel is filtered on its own, then all are mixed by a 1×1 product.

For input channel i with its r filters F_i (r, kernel) and their mixing weights P_i (out, r), W_i ≈ P_i·F_i. With
L_i·L_iᵀ the moments of what channel i reads, the first filters are those of svd(W_i·L_i). Then both are solved for in
turn, over all channels at once since these are correlated: P as in `form`, the filters with P as it is, from

    Σ_j (P_iᵀ·P_j) ⊙ H_ij·F_j = (Pᵀ·W·H)_i        by conjugate gradients; H_ij: moments between channels

(alternating least squares). With one filter for each channel, much is lost that training would not lose (Howard et al.,
MobileNets, 2017, train it): measured losses say where it pays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from graphopt import ops
from graphopt.compress.form import Basis, Factor, Form, Left, Spans, solved
from graphopt.errors import UsageError

__all__ = ["Separable"]

Array = NDArray[Any]
_ROUNDS: Final = 3
_STEPS: Final = 10
_MOST: Final = 4
"""Filters of a channel."""


@dataclass(frozen=True)
class Separable(Form):
    """A depthwise product with some filters for each channel, and a 1×1 product."""

    name: ClassVar[str] = "separable"
    summary: ClassVar[str] = "write a convolution as a depthwise one and 1×1"

    filters: int = 1
    """Of each input channel."""

    def __post_init__(self) -> None:
        """Insist on a number.

        Raises:
            UsageError: it is none.
        """
        if self.filters < 1:
            raise UsageError(f"{self.name}{{filters={self.filters}}} are none: give a number from 1 on")

    @classmethod
    def offered(cls, linear: ops.Linear) -> Iterator[Sequence[Self]]:
        """See `Form`."""
        yield [cls(n) for n in range(min(_MOST, prod(linear.kernel) - 1), 0, -1)]

    def rank(self, linear: ops.Linear) -> int:
        """See `Form`."""
        return self.filters if linear.parter is not None and prod(linear.kernel) > self.filters else 0

    def left(self, linear: ops.Linear, rank: int) -> Left:
        """See `Form`."""
        kernel, out = prod(linear.kernel), linear.channels
        left = rank * (kernel + out) / (kernel * out)
        return Left(left, left, kernel / (kernel + out))

    def spans(self, linear: ops.Linear, matrix: Array, gram: Array) -> Spans:
        """See `Form`."""
        count, kernel = linear.in_channels, linear.kernel
        every = frozenset(range(len(kernel)))

        def span(rank: int) -> Basis:
            filters = _fitted(matrix, gram, count, rank)
            weight = filters.reshape(count * rank, 1, *kernel)
            return Basis((Factor(weight, every, count),), _spread(filters))

        return span


def _fitted(matrix: Array, gram: Array, count: int, rank: int) -> Array:
    """(channels, rank, kernel): filters."""
    size = matrix.shape[1] // count
    own = gram.reshape(count, size, count, size)[range(count), :, range(count)]
    root = np.linalg.cholesky(own)
    _, _, seen = np.linalg.svd(matrix.reshape(-1, count, size).transpose(1, 0, 2) @ root, full_matrices=False)
    filters: Array = seen[:, :rank] @ np.linalg.inv(root)
    aim = matrix @ gram
    for _ in range(_ROUNDS):
        basis = _spread(filters)
        mixed = solved(basis @ gram @ basis.T, basis @ aim.T).T.reshape(-1, count, rank)
        filters = _filtered(mixed, gram, np.einsum("oir,oik->irk", mixed, aim.reshape(-1, count, size)), filters)
    return filters


def _filtered(mixed: Array, gram: Array, aim: Array, start: Array) -> Array:
    """The filters of least error for given mixing weights, as far as some steps of conjugate gradients lead."""

    def applied(filters: Array) -> Array:
        made = np.einsum("oir,irk->oik", mixed, filters)
        seen = (made.reshape(len(made), -1) @ gram).reshape(made.shape)
        found: Array = np.einsum("oir,oik->irk", mixed, seen)
        return found

    found = start.copy()
    gap = aim - applied(found)
    way, size = gap, float(np.vdot(gap, gap))
    for _ in range(_STEPS):
        if not size:
            break
        image = applied(way)
        step = size / float(np.vdot(way, image))
        found, gap = found + step * way, gap - step * image
        last, size = size, float(np.vdot(gap, gap))
        way = gap + size / last * way
    return found


def _spread(filters: Array) -> Array:
    """(channels·rank, channels·kernel): each filter sees its channel."""
    count, rank, size = filters.shape
    found = np.zeros((count, rank, count, size))
    found[range(count), :, range(count)] = filters
    return found.reshape(count * rank, count * size)
