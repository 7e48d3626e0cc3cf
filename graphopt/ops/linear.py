"""A product with a constant weight, seen as a matrix whatever the operator is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, DTypeLike, NDArray

from graphopt.graph.nodes import array, input_at, is_constant, rank, static_shape

if TYPE_CHECKING:
    from graphopt.graph.draft import Draft

Positions = NDArray[np.intp] | None
"""Which rows are wanted, by their numbers; None for all."""
Unfolder = Callable[["Linear", NDArray[Any], Positions], NDArray[Any]]

__all__ = ["Linear", "Part", "Parter", "Positions", "Unfolder", "is_weight"]


def is_weight(value: ir.Value | None) -> bool:
    """Whether `value` is a constant of floating point numbers."""
    return value is not None and is_constant(value) and value.dtype is not None and value.dtype.is_floating_point()


Adjoint = Callable[["Linear", ir.Value, ir.Value, tuple[int, ...], tuple[int, ...]], list[ir.Node]]
"""For a product, a value r like its result, its weight as the node reads it, and the shapes of its data and its result:
the nodes that compute Wᵀ·r, shaped like the data. (alpha is left out.)"""


@dataclass(frozen=True)
class Part:
    """One of some products in a row that do the work of one: the same operator with another weight."""

    attributes: Mapping[str, Any]
    """What its node has instead of the other's attributes; None stands for what goes."""
    kernel: tuple[int, ...] = ()
    """Extents of its kernel: 1 along axes that another one spans."""
    stride: int = 1
    """How many positions of what it reads there are for each of its result."""


Parter = Callable[["Linear", frozenset[int], int], Part]
"""Of a product that is to become several in a row, the one that spans these axes of the kernel, in so many groups."""


@dataclass(frozen=True)
class Linear:
    """One `y = alpha·W·unfold(x) + beta·b` inside a node, W constant.

    The weight tensor has its output channels on axis `w_out` and its input channels on axis `w_in` (per group);
    the result has its channels on `y_axis` (negative counts from the end). Where `groups` > 1, axis `w_in` of Conv
    holds in/groups channels and axis `w_out` of ConvTranspose holds out/groups channels.

    The data has its channels on `y_axis` as well, and all of them are unfolded alike.

    With y seen as (groups, out/groups, rows), where rows run over all other axes of y in their order,
    `alpha * matrix() @ unfold(x) + beta * bias_vector()` is y; see `rows`.
    """

    node: ir.Node
    weight: int
    """Index of the node's weight input."""
    bias: int | None
    """Index where the operator takes a bias, given or not; always its last input. None where it has no such input."""
    w_out: int
    w_in: int
    y_axis: int
    unfolder: Unfolder
    x: int = 0
    """Index of the node's data input."""
    groups: int = 1
    alpha: float = 1.0
    beta: float = 1.0
    adjoint: Adjoint | None = None
    """The node that takes a value like the result back through the transposed product."""
    padded: bool = False
    """Whether some elements of the result sum over less than the whole kernel, as at the borders of an image."""
    parter: Parter | None = None
    """None where the product cannot be written as several."""

    @property
    def weights(self) -> NDArray[Any]:
        """The weight tensor as the node reads it."""
        found = array(self.node.inputs[self.weight])
        if found is None:
            raise TypeError(f"the weight of {self.node.name!r} is not a constant")
        return found

    @property
    def bias_value(self) -> ir.Value | None:
        """The bias as a graph value; None where there is none."""
        return None if self.bias is None else input_at(self.node, self.bias)

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return self._shape[self.w_out] * (self.groups if self.w_out > self.w_in else 1)

    @property
    def in_channels(self) -> int:
        """Number of input channels."""
        return self._shape[self.w_in] * (self.groups if self.w_in > self.w_out else 1)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Extents of the kernel: of a plain matrix there are none."""
        return tuple(self._shape[2:])

    def laid(self, weight: NDArray[Any]) -> NDArray[Any]:
        """A weight (out, in/groups, kernel…) of any extents as the node reads it."""
        return np.ascontiguousarray(np.moveaxis(weight, (0, 1), (self.w_out, self.w_in)))

    @property
    def reduction(self) -> int:
        """Length of the sum behind each element of the result: in/groups·kernel."""
        return prod(self._shape) // self.channels if self.channels else 0

    def bias_vector(self) -> NDArray[Any]:
        """The bias, one number per output channel: (channels,), zeros where there is none. Not yet times beta."""
        found = array(self.bias_value)
        if found is None:
            return np.zeros(self.channels, self.weights.dtype)
        return np.broadcast_to(found.reshape(-1), self.channels)

    def matrix(self) -> NDArray[Any]:
        """The weight as (groups, out/groups, in/groups·kernel), in the weight's own dtype."""
        grouped = np.moveaxis(self._grouped(self.weights), 1 + self.w_out, 1)
        return grouped.reshape(*grouped.shape[:2], -1)

    def unmatrix(self, matrix: NDArray[Any], dtype: DTypeLike | None = None) -> NDArray[Any]:
        """The inverse of `matrix`: the weight as the node reads it, in this dtype or the weight's own.

        Where nothing has to be moved or converted, it is a view.
        """
        weights = self.weights
        shape = np.moveaxis(self._grouped(weights), 1 + self.w_out, 1).shape
        moved = np.moveaxis(matrix.reshape(shape), 1, 1 + self.w_out).reshape(weights.shape)
        return moved.astype(weights.dtype if dtype is None else dtype, copy=False)

    def unfold(self, x: NDArray[Any], positions: Positions = None) -> NDArray[Any]:
        """What the matrix is multiplied with, for a data input `x`: (groups, in/groups·kernel, rows).

        Of the rows that are not among `positions` nothing is read.
        """
        return self.unfolder(self, x, positions)

    def rows(self, y: NDArray[Any], positions: Positions = None) -> NDArray[Any]:
        """The node's output as the matrix product gives it: (groups, out/groups, rows), all or some of the rows."""
        moved = np.moveaxis(y, self.y_axis, 0)[:, None]
        if positions is not None:
            at: tuple[Any, ...] = np.unravel_index(positions, moved.shape[1:])
            moved = moved[(slice(None), *at)]
        return moved.reshape(self.groups, len(moved) // self.groups, -1)

    def scaled(self, out: ArrayLike = 1.0, shift: ArrayLike = 0.0) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Weight and bias of the node that computes `out·y + shift`, with one number of each per output channel.

        Computed in float64 and rounded once, to the weight's dtype. The bias is final: alpha stays an attribute of
        the rebuilt node, beta is 1. It is None where there was none and nothing is shifted.

        Args:
            out: a number or (channels,).
            shift: a number or (channels,).
        """
        weights = self.weights
        grouped = self._grouped(weights.astype(np.float64))
        factor = np.broadcast_to(np.asarray(out, np.float64), self.channels)
        along = [1] * grouped.ndim
        along[0], along[1 + self.w_out] = self.groups, -1
        weight = (grouped * factor.reshape(along)).reshape(weights.shape).astype(weights.dtype)
        if self.bias_value is None and not np.any(shift):
            return weight, None
        bias = factor * (self.beta * self.bias_vector().astype(np.float64)) + np.asarray(shift, np.float64)
        return weight, bias.astype(weights.dtype)

    def after(self, scale: ArrayLike = 1.0, shift: ArrayLike = 0.0) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Weight and bias of the node that computes of x what this one computes of `scale·x + shift`.

        As `scaled`, with one number of each per input channel. Where the product is `padded`, nothing can be shifted:
        padding stays zero.

        Args:
            scale: a number or (in_channels,).
            shift: a number or (in_channels,).
        """
        weights = self.weights
        grouped = self._grouped(weights.astype(np.float64))
        along = [1] * grouped.ndim
        along[0], along[1 + self.w_in] = self.groups, -1
        factor, offset = (
            np.broadcast_to(np.asarray(a, np.float64), self.in_channels).reshape(along) for a in (scale, shift)
        )
        weight = (grouped * factor).reshape(weights.shape).astype(weights.dtype)
        if self.bias_value is None and not np.any(offset):
            return weight, None
        others = tuple(a for a in range(1, grouped.ndim) if a != 1 + self.w_out)
        constant = (grouped * offset).sum(axis=others).reshape(-1)
        bias = self.beta * self.bias_vector().astype(np.float64) + self.alpha * constant
        return weight, bias.astype(weights.dtype)

    def rebuild(
        self, draft: Draft, weight: NDArray[Any], bias: NDArray[Any] | None, x: ir.Value | None = None
    ) -> ir.Value:
        """The same product with another weight (laid out as the node's) and a final bias (channels,), or without one.

        It reads `x` instead of the node's data input if that is given.

        A weight that stays the same is read on, so that sharing it costs nothing.

        An operator without bias input (MatMul) gets an Add behind it, or becomes a Gemm where its data is a matrix.
        """
        inputs = list(self.node.inputs if self.bias is None else self.node.inputs[: self.bias])
        inputs[self.x] = x or inputs[self.x]
        if not np.array_equal(weight, self.weights):
            inputs[self.weight] = draft.const(weight, self._hint(inputs[self.weight], "weight"))
        offset = None if bias is None else draft.const(bias, self._hint(self.bias_value, "bias"))
        if self.bias is not None:
            changed = {} if self.beta == 1.0 else {"beta": None}
            return draft.like(self.node, inputs if offset is None else [*inputs, offset], **changed)
        if offset is None:
            return draft.like(self.node, inputs)
        if rank(self.node.inputs[self.x]) == 2:  # noqa: PLR2004 - a matrix
            return draft.node("Gemm", [*inputs, offset])
        return draft.node("Add", [draft.like(self.node, inputs), offset])

    @property
    def _shape(self) -> tuple[int, ...]:
        """Of the weight, without reading it."""
        shape = static_shape(self.node.inputs[self.weight])
        return self.weights.shape if shape is None else shape

    def _grouped(self, weights: NDArray[Any]) -> NDArray[Any]:
        """The weight with its groups on an axis of their own, the first one."""
        return weights.reshape(self.groups, -1, *weights.shape[1:])

    def _hint(self, value: ir.Value | None, kind: str) -> str:
        return value.name if value is not None and value.name else f"{self.node.name or self.node.op_type}.{kind}"
