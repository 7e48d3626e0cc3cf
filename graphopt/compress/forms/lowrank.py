"""Low rank: what a product reads is mapped to few channels first. See `factor` for what is made of it.

The first product is a matrix of some rank over (channels, the axes of the kernel that it spans), one for all places of
the other axes. With L·Lᵀ the mean over these places of what is read there,

    U·S·Vᵀ = svd([W₁·L; W₂·L; …]),   first = V_rᵀ·L⁻¹

Where there is one place, as for matrices and for kernels that go first as a whole, this is the best there is (whitened
SVD; Wang et al., SVD-LLM, 2024); else it takes what is read at different places for uncorrelated.

Tucker's form maps the result of such a first product to few channels once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import inf, prod
from typing import Any, ClassVar, Final, Self

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from graphopt import ops
from graphopt.compress.forms.factor import SHARES, Basis, Factor, Shared, Spans, solved, spanned
from graphopt.compress.forms.form import Left
from graphopt.errors import UsageError

__all__ = ["LowRank", "Tucker"]

Array = NDArray[Any]
_AXES: Final = "dhw"
_PARTS: Final = 64


@dataclass(frozen=True)
class LowRank(Shared):
    """Two products, of which the first one spans some axes of the kernel.

    Measured: models/digits_vit.onnx with share=0.5 has 54 % of its MACs and 51 % of its bytes, takes 0.91 of the time,
    and has an accuracy of 96.6 % in place of 98.0 %; digits_resnet.onnx 49 % of its MACs and 74.8 % in place of 99.6 %:
    a budget, which chooses product by product, loses less.
    """

    name: ClassVar[str] = "lowrank"
    summary: ClassVar[str] = "write a product as two of low rank, by the singular values of what it does to the data"
    nested: ClassVar[bool] = True

    first: str = ""
    """The axes of the kernel that the first one spans: of d, h and w. Of a matrix, none."""

    def __post_init__(self) -> None:
        """Insist on axes.

        Raises:
            UsageError: there are others.
        """
        super().__post_init__()
        if self.first not in {"", "w", "h", "hw", "d", "dw", "dh", "dhw"}:
            raise UsageError(f"{self.first!r} are no axes of a kernel: give some of d, h and w, in this order")

    def axes(self, kernel: tuple[int, ...]) -> frozenset[int]:
        """Numbers of the axes that the first one spans."""
        return frozenset(i for i, name in enumerate(_named(kernel)) if name in self.first)

    @classmethod
    def offered(cls, linear: ops.Linear) -> Iterator[Sequence[Self]]:
        """See `Factored`."""
        long = [name for name, extent in zip(_named(linear.kernel), linear.kernel, strict=True) if extent > 1]
        for first in dict.fromkeys("".join(c) for n in range(len(long) + 1) for c in combinations(long, n)):
            yield [cls(share, first) for share in SHARES]

    def rows(self, linear: ops.Linear, rank: int) -> int:
        """See `Factored`."""
        axes = self.axes(linear.kernel)
        return rank * prod(k for i, k in enumerate(linear.kernel) if i not in axes)

    def left(self, linear: ops.Linear, rank: int) -> Left:
        """See `Factored`."""
        axes = self.axes(linear.kernel)
        rest = frozenset(range(len(linear.kernel))) - axes
        return _left(linear, [(linear.in_channels, rank, axes), (rank, linear.channels, rest)])

    def most(self, linear: ops.Linear) -> int:
        """See `Factored`."""
        inner = prod(k for i, k in enumerate(linear.kernel) if i in self.axes(linear.kernel))
        return min(linear.in_channels * inner, linear.channels * prod(linear.kernel) // inner)

    def spans(self, linear: ops.Linear, matrix: Array, gram: Array) -> Spans:
        """See `Factored`."""
        axes = self.axes(linear.kernel)
        firsts = Factor(_firsts(linear, matrix, gram, axes), axes)
        whole = spanned(firsts, linear.kernel)

        def span(rank: int) -> Basis:
            return Basis((replace(firsts, weight=firsts.weight[:rank]),), whole[: self.rows(linear, rank)])

        return span


@dataclass(frozen=True)
class Tucker(Shared):
    """Three products: to fewer channels, the kernel between these, to all channels. A rank is one of both in 64.

    Measured: models/digits_resnet.onnx with share=0.5 has 48 % of its MACs, 50 % of its bytes and an accuracy of 98.4 %
    in place of 99.6 %, and takes 1.8 times as long on a CPU: products as small as these cost more to start than to
    compute.
    """

    name: ClassVar[str] = "tucker"
    summary: ClassVar[str] = "write a convolution as 1×1, its kernel between fewer channels, and 1×1"

    @classmethod
    def offered(cls, linear: ops.Linear) -> Iterator[Sequence[Self]]:
        """See `Factored`."""
        if prod(linear.kernel) > 1:
            yield [cls(share) for share in SHARES]

    def left(self, linear: ops.Linear, rank: int) -> Left:
        """See `Factored`."""
        read, made = _ranks(linear, rank)
        every = frozenset(range(len(linear.kernel)))
        none = frozenset[int]()
        return _left(linear, [(linear.in_channels, read, none), (read, made, every), (made, linear.channels, none)])

    def most(self, linear: ops.Linear) -> int:
        """See `Factored`."""
        return _PARTS if prod(linear.kernel) > 1 else 0

    def spans(self, linear: ops.Linear, matrix: Array, gram: Array) -> Spans:
        """See `Factored`."""
        every, none = frozenset(range(len(linear.kernel))), frozenset[int]()
        firsts = _firsts(linear, matrix, gram, none)

        def span(rank: int) -> Basis:
            read, made = _ranks(linear, rank)
            first = Factor(firsts[:read], none)
            inner = spanned(first, linear.kernel)
            square = inner @ gram @ inner.T
            core = _leading(solved(square, inner @ gram @ matrix.T).T, square)[:made]
            return Basis((first, Factor(core.reshape(made, read, *linear.kernel), every)), core @ inner)

        return span


def _named(kernel: tuple[int, ...]) -> str:
    return _AXES[-len(kernel) :] if kernel else ""


def _ranks(linear: ops.Linear, rank: int) -> tuple[int, int]:
    """Channels that are read, and made, by the product in the middle."""
    read = max(1, linear.in_channels * rank // _PARTS)
    return read, min(max(1, linear.channels * rank // _PARTS), read * prod(linear.kernel))


def _left(linear: ops.Linear, chain: list[tuple[int, int, frozenset[int]]]) -> Left:
    """What is left of a product as some in a row: inputs, outputs and axes of each."""
    macs = params = 0.0
    if linear.parter is None:
        return Left(inf, inf, inf)
    parts = [linear.parter(linear, axes, 1) for _, _, axes in chain]
    for number, ((read, made, _), part) in enumerate(zip(chain, parts, strict=True)):
        size = read * made * prod(part.kernel)
        params += size
        macs += size * prod(later.stride for later in parts[number + 1 :])
    full = linear.channels * linear.reduction
    return Left(macs / full, params / full, params / full)


def _firsts(linear: ops.Linear, matrix: Array, gram: Array, axes: frozenset[int]) -> Array:
    """(rank, in, kernel…): first products, the most telling one first."""
    kernel = linear.kernel
    columns = np.arange(matrix.shape[1]).reshape(linear.in_channels, *kernel)
    inner = [k if i in axes else 1 for i, k in enumerate(kernel)]
    order = np.moveaxis(columns, [1 + i for i in sorted(axes)], range(1, 1 + len(axes)))
    at = order.reshape(linear.in_channels * prod(inner), -1).T  # (places, columns of the first one)
    mean = np.mean([gram[np.ix_(place, place)] for place in at], axis=0)
    found = _leading(np.concatenate([matrix[:, place] for place in at]), mean)
    return found.reshape(-1, linear.in_channels, *inner)


def _leading(matrix: Array, gram: Array) -> Array:
    """(rank, columns): what a matrix looks at in its data, what matters most first: V_rᵀ·L⁻¹."""
    root = np.linalg.cholesky(gram)
    _, _, seen = np.linalg.svd(matrix @ root, full_matrices=False)
    found: Array = scipy.linalg.solve_triangular(root.T, seen.T, lower=False, check_finite=False).T
    return found
