"""Where quantizers stand, so that a runtime computes on 8-bit integers between them.

A *region* is a product with a constant weight and what becomes one kernel with it: its bias, and the clipping behind.
Around regions, other operators compute on integers if they have nothing but integers at their ends. Everything that
this depends on is data (`targets.Integers`), and which operators pass elements on as they are is told by the table
(`OpSpec.carries`): what such an operator reads and makes shares one grid.

    runtimes that give integers (`results`)            others
    x → Q → DQ → Conv → Relu → Q → DQ → …              x → Q → DQ → Conv → Relu → …
    sums, pools and concatenations between them        of a sum, the operand that is no product's result (`skips`)

Nothing is quantized twice: one grid for each value, one quantizer behind it, and all integer nodes read that.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphopt import ops
from graphopt.analysis.places import bounds, only_reader, past_offset, past_sum
from graphopt.graph.nodes import is_constant, key, readers
from graphopt.targets import Integers

__all__ = ["Grid", "Layout", "around", "clipped", "layout", "refused"]


@dataclass(frozen=True)
class Grid:
    """Integers for a tensor: real = (integer − zero)·scale."""

    scale: float
    zero: int
    unsigned: bool

    @classmethod
    def over(cls, low: float, high: float, *, unsigned: bool) -> Grid:
        """The grid over a range, or around 0 where integers are signed; wherever that is, 0 is one of its points."""
        low, high = min(low, 0.0), max(high, 0.0)
        if not unsigned:
            return cls(_step(max(-low, high), 127), 0, unsigned)
        scale = _step(high - low, 255)
        return cls(scale, int(np.clip(np.rint(-low / scale), 0, 255)), unsigned)

    @property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.int8]:
        """Of the integers."""
        return np.dtype(np.uint8) if self.unsigned else np.dtype(np.int8)

    @property
    def range(self) -> tuple[float, float]:
        """Its least and its largest number; around 0 as many steps on either side."""
        info = np.iinfo(self.dtype)
        least = info.min if self.unsigned or self.zero else -info.max
        return (least - self.zero) * self.scale, (info.max - self.zero) * self.scale


def _step(extent: float, steps: int) -> float:
    """A scale that is a normal number of single precision."""
    return float(max(np.float32(extent / steps), np.finfo(np.float32).tiny)) if extent > 0 else 1.0


@dataclass(frozen=True)
class Layout:
    """Which nodes of a model compute on integers, and which values are quantized for that."""

    products: tuple[str, ...]
    """Keys of products with integer weights, in graph order."""
    nodes: frozenset[str]
    """Keys of all nodes that read what is quantized: those that compute on integers, and sums that end products."""
    values: Mapping[str, int]
    """The number of its grid, by the name of a value that a quantizer stands behind."""
    closed: frozenset[str]
    """Names of those of them that every node reads quantized: an integer node gives nothing else."""
    bounds: Mapping[int, tuple[float, float]]
    """By number, what a grid need not go beyond: a clipping before the quantizer does not."""


def layout(model: ir.Model, target: Integers, skip: Container[str] = ()) -> Layout:
    """Where quantizers stand.

    Args:
        model: canonical; only its main graph is looked at.
        target: what the runtime wants.
        skip: keys of nodes that compute on floats.
    """
    nodes = [n for n in model.graph if key(n) not in skip and not n.domain]
    products = {n: linear for n in nodes if (linear := _product(n, target)) is not None}
    integer = {*products, *(n for n in nodes if _is_capable(n, target))}
    while gone := {n for n in integer - products.keys() if not _is_between(n, integer, target)}:
        integer -= gone
    wanted = dict.fromkeys(v for n in nodes if n in integer for v in _ends(n, products.get(n), target))
    ends = (s for n, linear in products.items() if n.op_type in target.skips for s in _sums(linear, target))
    sums = {node: value for node, value in ends if key(node) not in skip}
    wanted |= dict.fromkeys(sums.values())
    grids = _Classes(wanted)
    for node in integer - products.keys():
        for source, result in _carried(node):
            grids.unite(source, _end(result))
    limits = dict[int, tuple[float, float]]()
    for value, number in grids.numbers.items():
        low, high = clipped(value)
        known = limits.get(number, (low, high))
        limits[number] = (min(known[0], low), max(known[1], high))
    return Layout(
        tuple(key(n) for n in products),
        frozenset(key(n) for n in (*integer, *sums)),
        {str(v.name): number for v, number in grids.numbers.items()},
        frozenset(str(v.name) for v in grids.numbers if _is_closed(_source(v), integer, target)),
        limits,
    )


def refused(model: ir.Model, target: Integers, skip: Container[str] = ()) -> dict[str, str]:
    """By key of a product of floats that has no place in a layout, why not."""
    found = dict[str, str]()
    for node in model.graph:
        spec = ops.spec_of(node)
        if spec is not None and spec.multiplies:
            why = "it is to be left alone" if key(node) in skip else _found(node, target)
            found |= {key(node): why} if isinstance(why, str) else {}
    return found


def _product(node: ir.Node, target: Integers) -> ops.Linear | None:
    """The product of a node with an integer kernel."""
    found = _found(node, target)
    return None if isinstance(found, str) else found


def _found(node: ir.Node, target: Integers) -> ops.Linear | str:
    """The product of a node that has exactly one, on floats of single precision, with an integer kernel; or why not.

    A weight that several nodes read is none: what is best for one of them is not for the others. Nor is one whose
    output channels are not one axis, as of a ConvTranspose in groups: there is no scale for each of them.
    """
    if node.domain or node.op_type not in target.products:
        return f"the target does not compute {node.op_type} on integers"
    found = ops.linears(node)
    if len(found) != 1 or not found[0].channels:
        computed = not any(v is not None and is_constant(v) for v in node.inputs[:2])
        return "its weight is computed" if computed else "its constants are not one matrix behind the data, and a bias"
    linear = found[0]
    x, weight = node.inputs[linear.x], node.inputs[linear.weight]
    if linear.weights.dtype != np.float32:
        return f"its weight is of {linear.weights.dtype}, not of float32"
    if not np.isfinite(linear.weights).all():
        return "its weight is not finite"
    if weight is None or len(weight.uses()) > 1:
        return "other nodes read its weight"
    if x is None or is_constant(x):
        return "its data is constant"
    if linear.weights.shape[linear.w_out] != linear.channels:
        return "its output channels are not one axis of its weight"
    if linear.bias_value is not None and not is_constant(linear.bias_value):
        return "its bias is not constant"
    return linear if linear.alpha == 1 and linear.beta in (0, 1) else "it has factors, alpha or beta"


def _is_capable(node: ir.Node, target: Integers) -> bool:
    """Whether it may compute on integers between others: all floats that it reads are computed."""
    if node.op_type not in target.others:
        return False
    data = _data(node)
    return bool(data) and all(v.dtype is ir.DataType.FLOAT and not is_constant(v) for v in data)


def _data(node: ir.Node) -> list[ir.Value]:
    """What floats a node computes with."""
    return [v for v in node.inputs if v is not None and v.dtype is not None and v.dtype.is_floating_point()]


def _is_between(node: ir.Node, integer: Container[ir.Node], target: Integers) -> bool:
    """Whether all that it reads comes from integer nodes, or is read by products, and its results go to such nodes."""
    for value in _data(node):
        read = any(n in integer and _product(n, target) is not None for n in readers(value))
        if not read and not _is_closed(_source(value), integer, target):
            return False
    ends = [_end(v) for v in node.outputs if v.name]
    return all(any(n in integer for n in readers(v)) for v in ends)


def _is_closed(node: ir.Node | None, integer: Container[ir.Node], target: Integers) -> bool:
    """Whether a node gives integers."""
    return node is not None and node in integer and node.op_type in target.results | target.others


def _ends(node: ir.Node, linear: ops.Linear | None, target: Integers) -> list[ir.Value]:
    """What has to be quantized for a node to compute on integers."""
    if linear is None:
        return [*_data(node), *(_end(v) for v in node.outputs if v.name)]
    x = node.inputs[linear.x]
    found = [] if x is None else [x]
    return [*found, _end(node.outputs[0])] if node.op_type in target.results else found


def around(model: ir.Model, target: Integers, plan: Layout) -> dict[str, tuple[str | None, str | None]]:
    """By key of a product of a layout, the names of what it reads and of what it makes, where these are quantized."""
    found = dict[str, tuple[str | None, str | None]]()
    for node in model.graph:
        if key(node) in plan.products and (linear := _product(node, target)) is not None:
            ends = (node.inputs[linear.x], _end(node.outputs[0]))
            read, made = (str(v.name) if v is not None and v.name in plan.values else None for v in ends)
            found[key(node)] = (read, made if made in plan.closed else None)
    return found


def _end(value: ir.Value) -> ir.Value:
    """The value behind a clipping that becomes one with the quantizer."""
    reader = only_reader(value)
    return value if reader is None or bounds(value) == (-np.inf, np.inf) else reader.outputs[0]


def clipped(value: ir.Value) -> tuple[float, float]:
    """Between which numbers it is for certain."""
    node = value.producer()
    source = node.inputs[0] if node is not None and node.inputs else None
    if source is None or _end(source) is not value or source is value:
        return (-np.inf, np.inf)
    return bounds(source)


def _source(value: ir.Value) -> ir.Node | None:
    """The node that makes a value, a clipping passed over."""
    node = value.producer()
    if node is not None and clipped(value) != (-np.inf, np.inf) and node.inputs[0] is not None:
        return node.inputs[0].producer()
    return node


def _sums(linear: ops.Linear, target: Integers) -> Iterator[tuple[ir.Node, ir.Value]]:
    """The sum in which a product's result ends, and its other operand, unless another product makes that."""
    total, other = past_sum(past_offset(linear)[0])
    reader = total.producer()
    if reader is not None and other is not None:
        value = next(v for v in reader.inputs if v is not None and v.name == other)
        made = value.producer()
        if made is None or _product(made, target) is None:
            yield reader, value


def _carried(node: ir.Node) -> list[tuple[ir.Value, ir.Value]]:
    spec = ops.spec_of(node)
    return [] if spec is None else [(a, b) for a, b in spec.carries(node) if a.dtype is ir.DataType.FLOAT]


class _Classes:
    """Values with one grid each, until they are united."""

    def __init__(self, values: Iterable[ir.Value]) -> None:
        self._parent = {v: v for v in values}

    def _find(self, value: ir.Value) -> ir.Value:
        while self._parent[value] is not value:
            value = self._parent[value]
        return value

    def unite(self, a: ir.Value, b: ir.Value) -> None:
        """One grid for both, if both are quantized."""
        if a in self._parent and b in self._parent:
            self._parent[self._find(b)] = self._find(a)

    @property
    def numbers(self) -> dict[ir.Value, int]:
        """The grid of each value, numbered in their order."""
        order: dict[ir.Value, int] = {}
        return {v: order.setdefault(self._find(v), len(order)) for v in self._parent}
