"""What arithmetic on extents, and choosing between them, comes to. Source: ONNX operator specification."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.graph.contents import FAR, MOST, Rule, Values, broadcast, objects, product, put
from graphopt.graph.dims import Dim
from graphopt.graph.nodes import attr

__all__ = ["RULES"]


def _elementwise(compute: Callable[..., Any]) -> Rule:
    """Any function of elements, broadcast; contents are unknown where it answers None or an operand is unknown."""

    def rule(node: ir.Node, values: Values) -> None:
        _learn_shape(node, values)
        operands = [values.of(v) for v in node.inputs]
        known = [o for o in operands if o is not None]
        if len(known) != len(operands):
            return
        sides = np.broadcast_arrays(*known)
        found = np.empty(sides[0].shape, object)
        flat = found.reshape(-1)
        for i, items in enumerate(zip(*(s.reshape(-1) for s in sides), strict=True)):
            flat[i] = None if any(x is None for x in items) else compute(*items)
        put(node, values, found)

    return rule


def _learn_shape(node: ir.Node, values: Values) -> None:
    """What inference of single nodes cannot tell: it knows extents by name only."""
    shapes = [values.shape(v) for v in node.inputs]
    known = [s for s in shapes if s is not None]
    if len(known) == len(shapes):
        values.learn(node.outputs[0], reduce(broadcast, known))


def _equal(x: Any, y: Any) -> bool | None:
    if isinstance(x, bool) or isinstance(y, bool):
        return x == y if isinstance(x, bool) and isinstance(y, bool) else None
    difference = x - y
    if difference.number is not None:
        return bool(difference.number == 0)
    return False if difference.is_positive or (-difference).is_positive else None


def _less(x: Dim, y: Dim) -> bool | None:
    if (y - x).is_positive:
        return True
    return False if (x - y).is_extent else None


def _many(choose: Callable[[Dim, Dim], Dim | None]) -> Callable[..., Dim | None]:
    """A function of two, for any number of operands."""

    def compute(first: Dim, *others: Dim) -> Dim | None:
        found: Dim | None = first
        for other in others:
            found = None if found is None else choose(found, other)
        return found

    return compute


def _larger(x: Dim, y: Dim) -> Dim | None:
    return x if (x - y).is_extent else y if (y - x).is_extent else None


def _smaller(x: Dim, y: Dim) -> Dim | None:
    return y if (x - y).is_extent else x if (y - x).is_extent else None


def _quotient(x: Dim, y: Dim) -> Dim | None:
    """Integers are divided towards zero, which is downwards for extents only."""
    if x.number is not None and y.number:
        return Dim.of(int(x.number / y.number)) if abs(x.number) < FAR else None
    return x // y if x.is_extent else None


def _remainder(x: Dim, y: Dim) -> Dim | None:
    quotient = x // y if x.is_extent and y.is_positive else None
    return None if quotient is None else _plain(x - quotient * y)


def _plain(extent: Dim) -> Dim | None:
    """Extents only: a difference that may be negative is better not followed."""
    return extent if extent.is_extent or extent.number is not None else None


def _where(node: ir.Node, values: Values) -> None:
    condition, yes, no = (values.of(v) for v in node.inputs)
    if condition is None or yes is None or no is None:
        return
    c, y, n = np.broadcast_arrays(condition, yes, no)
    found = np.empty(c.shape, object)
    for i, (a, b, d) in enumerate(zip(c.reshape(-1), y.reshape(-1), n.reshape(-1), strict=True)):
        found.reshape(-1)[i] = b if a is True or (b is not None and b == d) else d if a is False else None
    put(node, values, found)


def _range(node: ir.Node, values: Values) -> None:
    start, limit, step = (values.of(v) for v in node.inputs)
    if start is None or limit is None or step is None:
        return
    a, b, s = start.item(), limit.item(), step.item()
    if a is None or b is None or s is None or s.number != 1:
        return
    if (b - a).is_extent:
        values.learn(node.outputs[0], [b - a])
    if a.number is not None and b.number is not None and 0 <= b.number - a.number <= MOST:
        put(node, values, objects(np.arange(a.number, b.number)))


def _reduce(combine: Callable[[list[Any]], Dim | None]) -> Rule:
    """Of a vector to one number."""

    def rule(node: ir.Node, values: Values) -> None:
        data = values.of(node.inputs[0])
        if data is not None and data.ndim == 1 and not attr(node, "noop_with_empty_axes", 0):
            shape = (1,) if attr(node, "keepdims", 1) else ()
            found = np.empty(shape, object)
            found[...] = combine(list(data))
            put(node, values, found)

    return rule


def _total(items: list[Any]) -> Dim | None:
    total = Dim.of(0)
    for item in items:
        if item is None:
            return None
        total = total + item
    return total


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Add": _elementwise(lambda x, y: x + y),
        "And": _elementwise(lambda x, y: x and y),
        "Div": _elementwise(_quotient),
        "Equal": _elementwise(_equal),
        "Greater": _elementwise(lambda x, y: _less(y, x)),
        "Less": _elementwise(_less),
        "Max": _elementwise(_many(_larger)),
        "Min": _elementwise(_many(_smaller)),
        "Mod": _elementwise(_remainder),
        "Mul": _elementwise(lambda x, y: x * y),
        "Neg": _elementwise(lambda x: -x),
        "Not": _elementwise(lambda x: not x),
        "Or": _elementwise(lambda x, y: x or y),
        "Range": _range,
        "ReduceProd": _reduce(product),
        "ReduceSum": _reduce(_total),
        "Sub": _elementwise(lambda x, y: x - y),
        "Where": _where,
    }
)
