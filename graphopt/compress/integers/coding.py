"""How a QuantizeLinear or DequantizeLinear stands for numbers: real = (integer − zero)·scale."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.compress.integers.region import Grid
from graphopt.graph.nodes import attr, input_at, is_protected
from graphopt.ops.spec import contents

__all__ = ["BACK", "BYTES", "QUANTIZE", "WIDE", "Coding", "held", "on_grid", "operator", "still"]

Array = NDArray[Any]

QUANTIZE: Final = ("", "QuantizeLinear")
BACK: Final = ("", "DequantizeLinear")
"""As `operator` has them."""
BYTES: Final = frozenset({np.dtype(np.int8), np.dtype(np.uint8)})
WIDE: Final = frozenset({np.dtype(np.int32)})
"""Integers of data and weights, and of biases."""
_CLOSE: Final = 1e-4
"""Of a step, what rounding of floats may come to, twice, at the largest integers."""
_FEW: Final = 32
"""Columns of a weight."""
_FLOATS: Final = (ir.DataType.UNDEFINED, ir.DataType.FLOAT)


@dataclass(frozen=True, eq=False)
class Coding:
    """One scale and zero point, or one for each index of an axis."""

    scale: Array
    """float32, () or (n,), positive."""
    zero: Array
    """Of the integers' type, shaped like the scale."""
    axis: int

    @classmethod
    def of(cls, node: ir.Node, kinds: Container[np.dtype[Any]]) -> Coding | str:
        """That of one of the two operators with integers of these types, or why it has none of this form."""
        scale, zero = (held(input_at(node, i)) for i in (1, 2))
        if attr(node, "block_size", 0):
            return "it is quantized in blocks"
        if scale is None or (zero is None and input_at(node, 2) is not None):
            return "its scale or zero point is computed"
        if scale.dtype != np.float32 or not np.all((scale > 0) & np.isfinite(scale)):
            return "its scale is no positive number of single precision"
        if zero is None:
            integers = held(node.inputs[0]) if node.op_type == BACK[1] else None
            zero = np.zeros(scale.shape, np.uint8 if integers is None else integers.dtype)
        if zero.dtype not in kinds or attr(node, "output_dtype", 0) not in _FLOATS:
            return "its integers are not of 8 bits"
        if scale.ndim > 1 or scale.size != zero.size:
            return "its scales are neither one nor one for each channel"
        if scale.size == 1:
            return cls(scale.reshape(()), zero.reshape(()), 0)
        return cls(scale, zero.reshape(-1), int(attr(node, "axis", 1)))

    @property
    def grid(self) -> Grid | None:
        """The integers, if one scale is that of the whole tensor."""
        return None if self.scale.ndim else Grid(float(self.scale), int(self.zero), self.zero.dtype == np.uint8)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Coding) and self.told == other.told

    def __hash__(self) -> int:
        return hash(self.told)

    @property
    def told(self) -> tuple[str, bytes, bytes, int]:
        """All of it, for comparing."""
        return str(self.zero.dtype), self.scale.tobytes(), self.zero.tobytes(), self.axis

    def integers(self, x: Array) -> Array:
        """What QuantizeLinear makes of floats."""
        info = np.iinfo(self.zero.dtype)
        steps = np.rint(x / self._along(self.scale, x.ndim)) + self._along(self.zero, x.ndim).astype(np.float32)
        found: Array = np.clip(steps, info.min, info.max).astype(self.zero.dtype)
        return found

    def floats(self, integers: Array) -> Array:
        """What DequantizeLinear makes of integers, in single precision."""
        steps = integers.astype(np.int64) - self._along(self.zero, integers.ndim).astype(np.int64)
        found: Array = steps.astype(np.float32) * self._along(self.scale, integers.ndim)
        return found

    def _along(self, each: Array, rank: int) -> Array:
        return each.reshape([-1 if i == self.axis % rank else 1 for i in range(rank)]) if each.ndim else each


def held(value: ir.Value | None) -> Array | None:
    """What a constant holds, an initializer or what a Constant node gives, that no feed can replace."""
    return None if value is None or value.is_graph_input() or is_protected(value) else contents(value)


def operator(node: ir.Node) -> tuple[str, str]:
    """Domain and name of a node's operator."""
    return node.domain, node.op_type


def still(matrix: Array, scale: Array, bits: int) -> tuple[Array, Array] | None:
    """The integers that weights (groups, out, columns) are in a scale, one or one for each row, and that for each row.

    None where they are no such integers, or need more bits.
    """
    most = 2 ** (bits - 1)
    if scale.size not in {1, matrix.shape[0] * matrix.shape[1]}:
        return None
    each = np.broadcast_to(scale, matrix.shape[0] * matrix.shape[1]).reshape(matrix.shape[:2])
    steps = np.rint(matrix / each[..., None])
    if (
        steps.min() < -most
        or steps.max() >= most
        or not np.array_equal(steps.astype(np.float32) * each[..., None], matrix)
    ):
        return None
    return steps.astype(np.int8), each


def on_grid(matrix: Array, bits: int) -> tuple[Array, Array] | None:
    """The integers that weights (groups, out, columns) are, up to rounding, in scales of their rows, and those.

    None where they are no integers, or need more bits.
    """
    most, rows = 2 ** (bits - 1), matrix.reshape(-1, matrix.shape[-1])
    extent, steps = np.abs(rows).max(axis=1), np.zeros(rows.shape)
    live = extent >= np.finfo(np.float32).tiny * most
    scale, (pending,) = np.ones(len(rows), np.float32), np.nonzero(live)
    for largest in (*range(most - 1, 0, -1), most):
        tried = (extent[pending] / largest).astype(np.float32)
        good = np.ones(len(pending), np.bool_)
        for part in (slice(_FEW), slice(None)):  # most rows are told from a few columns
            near = rows[pending[good], part] / tried[good, None]
            whole = np.rint(near)
            good[good] = (np.abs(near - whole).max(axis=1) <= _CLOSE) & (whole.max(axis=1) < most)
        scale[pending[good]] = tried[good]
        steps[pending[good]] = np.rint(rows[pending[good]] / tried[good, None])
        pending = pending[~good]
    if len(pending):
        return None
    if live.any():
        scale[~live] = np.median(scale[live])  # any will do, but for a bias that counts in it
    return steps.reshape(matrix.shape).astype(np.int8), scale.reshape(matrix.shape[:2])
