"""A product written as several smaller ones in a row: y = P·(T·x), where T is what the first ones do to its columns.

    lowrank{first="hw"}   Conv kh×kw to r channels ─► Conv 1×1           Zhang et al., 2015; of a matrix: two of rank r
    lowrank{first="h"}    Conv kh×1 to r channels ─► Conv 1×kw           Jaderberg et al., 2014
    lowrank{first=""}     Conv 1×1 to r channels ─► Conv kh×kw
    tucker                Conv 1×1 ─► Conv kh×kw ─► Conv 1×1             Kim et al., 2016
    separable             depthwise Conv, r for each channel ─► Conv 1×1

Which axes of the kernel each of them spans, and how T is found, is all that tells them apart. T is judged by what is
left when P is solved for, with H = E[x·xᵀ] (less means, where a bias is free):

    min over P of tr((W − P·T)·H·(W − P·T)ᵀ),    P = W·H·Tᵀ·(T·H·Tᵀ)⁻¹

Most forms say which share of the product is left; the rank follows from it, whatever channels the product still has.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar, Final

import numpy as np
import onnx_ir as ir
import scipy.linalg
from numpy.typing import NDArray

from graphopt import ops
from graphopt.compress.forms.form import Form, Left
from graphopt.compress.writer import Writer
from graphopt.errors import UsageError
from graphopt.graph.nodes import key

__all__ = ["SHARES", "Basis", "Factor", "Factored", "Shared", "Spans", "refined", "solved", "spanned", "write"]

Array = NDArray[Any]
_DAMPING: Final = 1e-6
_ROUNDS: Final = 4
_STEPS: Final = 10
SHARES: Final = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
"""Of a product, that are offered."""


@dataclass(frozen=True, eq=False)
class Factor:
    """One of the first products."""

    weight: Array
    """(out, in/groups, kernel…); 1 along axes of the kernel that it does not span."""
    axes: frozenset[int]
    """Of the kernel, that it spans."""
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Basis:
    """What the first products compute."""

    factors: tuple[Factor, ...]
    matrix: Array
    """(rows, columns): T. Its rows are what the last product reads: for each channel, each place of its kernel."""


Spans = Callable[[int], Basis]
"""The first products of a rank."""


@dataclass(frozen=True)
class Factored(Form):
    """A product written as several. See the module's docstring."""

    nested: ClassVar[bool] = False
    """Whether the basis of a lower rank is the first rows of that of a higher one."""

    @abstractmethod
    def rank(self, linear: ops.Linear) -> int:
        """What it comes to for a product; 0 where it is none."""

    def rows(self, linear: ops.Linear, rank: int) -> int:  # noqa: ARG002 - others ask for it
        """Of a basis of some rank."""
        return rank

    @abstractmethod
    def left(self, linear: ops.Linear, rank: int) -> Left:
        """What is left of a product of some rank."""

    @abstractmethod
    def spans(self, linear: ops.Linear, matrix: Array, gram: Array) -> Spans:
        """What the first products compute, for any rank.

        Args:
            linear: the product.
            matrix: (out, columns): its weights.
            gram: (columns, columns): H, positive definite.
        """


@dataclass(frozen=True)
class Shared(Factored):
    """A form whose rank is as high as a share of the work allows."""

    share: float = 0.5
    """Of the product's multiply-accumulates and of its weights, how many may be left."""

    def __post_init__(self) -> None:
        """Insist on a share.

        Raises:
            UsageError: it is none.
        """
        if not 0 < self.share < 1:
            raise UsageError(f"{self.name}{{share={self.share:g}}} is no share: give a number above 0 and below 1")

    @abstractmethod
    def most(self, linear: ops.Linear) -> int:
        """No rank is higher."""

    def rank(self, linear: ops.Linear) -> int:
        """See `Factored`."""
        low, high = 0, self.most(linear)
        while low < high:
            middle = (low + high + 1) // 2
            left = self.left(linear, middle)
            low, high = (middle, high) if max(left.macs, left.params) <= self.share else (low, middle - 1)
        return low


def spanned(factor: Factor, kernel: tuple[int, ...]) -> Array:
    """(out·places, in·kernel): what a first product computes of columns, at each place of the rest of the kernel."""
    weight = _dense(factor)
    rest = [1 if i in factor.axes else k for i, k in enumerate(kernel)]
    found = np.zeros((len(weight), *rest, weight.shape[1], *kernel))
    for place, at in _places(rest, factor.axes):
        found[(slice(None), *place, slice(None), *at)] = weight
    return found.reshape(len(weight) * prod(rest), -1)


def _gathered(columns: Array, factor: Factor, kernel: tuple[int, ...]) -> Array:
    """The adjoint of `spanned`: shaped as the weight."""
    weight = _dense(factor)
    rest = [1 if i in factor.axes else k for i, k in enumerate(kernel)]
    columns = columns.reshape(len(weight), *rest, weight.shape[1], *kernel)
    found = np.zeros(weight.shape)
    for place, at in _places(rest, factor.axes):
        found += columns[(slice(None), *place, slice(None), *at)]
    return found if factor.groups == 1 else found[range(len(found)), _owners(factor)][:, None]


def _places(rest: Sequence[int], axes: frozenset[int]) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Places of the rest of a kernel, and where they are in the whole of it."""
    for place in np.ndindex(*rest):
        yield place, tuple(slice(None) if i in axes else slice(p, p + 1) for i, p in enumerate(place))


def _dense(factor: Factor) -> Array:
    """(out, in, kernel…): its weight, with the zeros of a depthwise one."""
    if factor.groups == 1:
        return factor.weight
    found = np.zeros((len(factor.weight), factor.groups, *factor.weight.shape[2:]))
    found[range(len(found)), _owners(factor)] = factor.weight[:, 0]
    return found


def _owners(factor: Factor) -> NDArray[np.intp]:
    """(out,): the input channel of each result of a depthwise product."""
    return np.arange(len(factor.weight)) * factor.groups // len(factor.weight)


def refined(basis: Basis, matrix: Array, gram: Array, kernel: tuple[int, ...]) -> Basis:
    """A better basis of the same form: P and the first product are solved for in turn (alternating least squares).

    With P as it is, what is sought is F in T = T(F), linear in it:  T*(Pᵀ·P·T(F)·H) = T*(Pᵀ·W·H), T* the adjoint, which
    some steps of conjugate gradients come close to. Where there are several first products, they stay as they are.
    """
    if len(basis.factors) > 1:
        return basis
    (factor,), aim = basis.factors, matrix @ gram
    for _ in range(_ROUNDS):
        last = solved(basis.matrix @ gram @ basis.matrix.T, basis.matrix @ aim.T)
        found, gap = factor.weight, _gathered(last @ (aim - last.T @ basis.matrix @ gram), factor, kernel)
        way, size = gap, float(np.vdot(gap, gap))
        for _ in range(_STEPS):
            image = last @ (last.T @ spanned(replace(factor, weight=way), kernel) @ gram)
            moved = _gathered(image, factor, kernel)
            step = size / max(float(np.vdot(way, moved)), np.finfo(np.float64).tiny)
            found, gap = found + step * way, gap - step * moved
            before, size = size, float(np.vdot(gap, gap))
            way = gap + size / max(before, np.finfo(np.float64).tiny) * way
        factor = replace(factor, weight=found)
        basis = Basis((factor,), spanned(factor, kernel))
    return basis


def solved(square: Array, aim: Array) -> Array:
    """(rows, out): Pᵀ, of T·H·Tᵀ and T·H·Wᵀ."""
    damped = square + np.diag(np.full(len(square), _DAMPING * np.trace(square) / len(square)))
    found: Array = scipy.linalg.solve(damped, aim, assume_a="pos", check_finite=False)
    return found


def write(model: ir.Model, made: Mapping[str, Basis]) -> None:
    """Write products as several, in place. Keys, and names of results, stay with the last of each.

    Args:
        model: in it, the weights of these products are some P·T.
        made: what their first products compute, by key.
    """
    writer = Writer(model)

    def constant(linear: ops.Linear, weight: Array, name: str) -> ir.Value:
        return writer.constant(name, linear.laid(weight / linear.alpha).astype(linear.weights.dtype))

    for node in [n for n in model.graph if key(n) in made]:
        (linear,), basis = ops.linears(node), made[key(node)]
        if linear.parter is None:
            raise ValueError(f"{key(node)} cannot be written as several products")
        rest = frozenset(range(len(linear.kernel))).difference(*(f.axes for f in basis.factors))
        final, value = linear.parter(linear, rest, 1), node.inputs[linear.x]
        matrix = linear.alpha * linear.matrix()[0].astype(np.float64)
        last = np.linalg.lstsq(basis.matrix.T, matrix.T, rcond=None)[0].T.reshape(len(matrix), -1, *final.kernel)
        for number, factor in enumerate(basis.factors):
            weight = constant(linear, factor.weight, f"{key(node)}/weight_{number}")
            inner = writer.like(node, [value, weight], f"{key(node)}/{number}")
            _take(inner, linear.parter(linear, factor.axes, factor.groups))
            inner.outputs[0].type = node.outputs[0].type
            model.graph.insert_before(node, inner)
            value = inner.outputs[0]
        weight = constant(linear, last, f"{key(node)}/weight")
        node.replace_input_with(linear.x, value)
        writer.give(node, linear.weight, weight)
        _take(node, final)


def _take(node: ir.Node, part: ops.Part) -> None:
    """Give a node what a part of it has instead."""
    for name, value in part.attributes.items():
        if value is None:
            node.attributes.pop(name, None)
        else:
            node.attributes.add(ir.convenience.convert_attribute(name, value))
