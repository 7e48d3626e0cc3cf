"""Where the result of a product ends, and which positions of it are looked at."""

from __future__ import annotations

from math import inf
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.graph.nodes import array, input_at, is_constant, readers, scalar, static_shape

__all__ = ["added", "bounds", "has_bias", "only_reader", "past_offset", "past_sum", "sampled"]

_GOLDEN: Final = (5**0.5 - 1) / 2


def sampled(first: int, samples: int, rows: int, take: int) -> NDArray[np.intp] | None:
    """Which of the rows of some samples to read; None for all.

    The positions follow the golden ratio: spread evenly over each sample and over all of them, and settled by the
    number of the sample alone.

    Args:
        first: number of the first sample.
        samples: how many there are.
        rows: of all of them together; where they cannot be told apart, they count as one sample's.
        take: rows of each sample.
    """
    if rows % samples:
        samples, take = 1, take * samples
    length = rows // samples
    if take >= length:
        return None
    steps = np.arange(first * take, (first + samples) * take)
    places = np.floor(np.modf(steps * _GOLDEN)[0] * length).astype(np.intp)
    return np.asarray(places + np.repeat(np.arange(samples) * length, take))


def past_sum(value: ir.Value) -> tuple[ir.Value, str | None]:
    """The Add with another computed value in which `value` ends, and the name of that. It is shaped like `value`."""
    reader = only_reader(value)
    if reader is None or reader.op_type != "Add" or reader.domain:
        return value, None
    other = reader.inputs[1 - list(reader.inputs).index(value)]
    if other is None or other is value or is_constant(other) or _widens(value, reader.outputs[0]):
        return value, None
    return reader.outputs[0], str(other.name)


def _widens(value: ir.Value, total: ir.Value) -> bool:
    """Whether a sum is larger than one of its operands."""
    before, after = value.shape, total.shape
    if before is None or after is None:
        return False
    return len(before) != len(after) or any(a == 1 != b for a, b in zip(before, after, strict=True))


def only_reader(value: ir.Value) -> ir.Node | None:
    """The node that alone reads a value, in the same graph, if there is one."""
    found = list(readers(value))
    if len(found) != 1 or value.is_graph_output() or found[0].graph is not value.graph:
        return None
    return found[0]


def past_offset(linear: ops.Linear) -> tuple[ir.Value, ir.Value | None]:
    """The result of a product with the constant row that is added to it, and that row."""
    value = linear.node.outputs[0]
    reader = only_reader(value)
    if linear.bias is not None or reader is None or reader.op_type != "Add" or reader.domain:
        return value, None
    other = reader.inputs[1 - list(reader.inputs).index(value)]
    shape = static_shape(other)
    if other is None or not is_constant(other) or len(other.uses()) > 1 or not shape or linear.y_axis != -1:
        return value, None
    if shape[-1] != linear.channels or any(d != 1 for d in shape[:-1]):
        return value, None
    return reader.outputs[0], other


def has_bias(linear: ops.Linear) -> bool:
    """Whether there is a place for a bias, in the product or in an Add behind it."""
    return past_offset(linear)[1] is not None or (linear.bias is not None and linear.beta != 0)


def added(linear: ops.Linear) -> NDArray[np.float64]:
    """(groups, out): what is added to a product, by the operator itself or by an Add behind it."""
    offset = past_offset(linear)[1]
    found = linear.beta * linear.bias_vector().astype(np.float64)
    if offset is not None:
        found = np.asarray(array(offset), np.float64).reshape(-1)
    return np.broadcast_to(found, linear.channels).reshape(linear.groups, -1)


def bounds(value: ir.Value) -> tuple[float, float]:
    """Where its only reader clips it."""
    reader = only_reader(value)
    if reader is None or reader.domain:
        return -inf, inf
    if reader.op_type == "Relu":
        return 0.0, inf
    if reader.op_type != "Clip" or reader.inputs[0] is not value:
        return -inf, inf
    ends = [input_at(reader, i) for i in (1, 2)]
    found = [scalar(v) for v in ends]
    if any(v is not None and f is None for v, f in zip(ends, found, strict=True)):
        return -inf, inf
    low, high = (default if f is None else float(f) for f, default in zip(found, (-inf, inf), strict=True))
    return (low, high) if low <= high else (-inf, inf)
