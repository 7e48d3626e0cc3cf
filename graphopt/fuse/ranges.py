"""What numbers a value can hold, whatever the feed: intervals, followed backwards from the value.

They tell a mask that adds a large negative number from one that adds −∞, which no operator treats alike. A floating
point input may hold anything; integers and truth values that become floats lie between the ends of their type. A
product that leaves float32 is taken for its largest number (masks multiply 0 or 1 by it); a sum that leaves it is not
known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from graphopt.graph.nodes import array, is_constant

__all__ = ["LARGEST", "LOW", "Range", "least_of_rows", "range_of"]

Range = tuple[float, float]
"""The least and the largest number, both finite."""

LARGEST = float(np.finfo(np.float32).max)
LOW = -1e38
"""Added to scores, it makes them vanish in the rounding, as the lowest float does, which kernels take for a sign."""
_MOST = 64
"""Values that are looked at before giving up."""

_MOVES = frozenset(
    {"Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
_CASTS = MappingProxyType(
    {
        ir.DataType.BOOL: (0.0, 1.0),
        ir.DataType.UINT8: (0.0, 255.0),
        ir.DataType.INT32: (-(2.0**31), 2.0**31),
        ir.DataType.INT64: (-(2.0**63), 2.0**63),
    }
)


def _product(a: Range, b: Range) -> Range:
    ends = [min(max(x * y, -LARGEST), LARGEST) for x in a for y in b]
    return min(ends), max(ends)


_JOINED: Mapping[str, Callable[[Range, Range], Range]] = MappingProxyType(
    {
        "Add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
        "Sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
        "Mul": _product,
        "Max": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
        "Min": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
        "Where": lambda a, b: (min(a[0], b[0]), max(a[1], b[1])),
    }
)


def range_of(value: ir.Value | None) -> Range | None:
    """The numbers that a float32 value can hold; None where it may hold not-a-number or an infinity."""
    known: dict[ir.Value, Range | None] = {}
    pending = [value]
    while pending and len(known) < _MOST:
        current = pending[-1]
        if current is None or current in known:
            pending.pop()
            continue
        sources = _sources(current)
        missing = [s for s in sources if s not in known]
        if missing:
            pending.extend(missing)
        else:
            known[current] = _range(current, [known[s] for s in sources])
    return None if value is None else known.get(value)


def least_of_rows(mask: ir.Value) -> float | None:
    """At least this is added somewhere in every row of a mask; None where a row may forbid all with −∞."""
    contents = array(mask)
    if contents is None or not contents.size or not contents.ndim:
        found = range_of(mask)
        return None if found is None else found[0]
    highest = contents.max(axis=-1)
    return float(highest.min()) if np.all(np.isfinite(highest)) else None


def _sources(value: ir.Value) -> list[ir.Value]:
    """The values whose numbers decide about those of `value`."""
    node = value.producer()
    if is_constant(value) or node is None or node.domain or value.dtype is not ir.DataType.FLOAT:
        return []
    if node.op_type in _MOVES:
        inputs = node.inputs[:1]
    elif node.op_type == "Where":
        inputs = node.inputs[1:]
    else:
        inputs = node.inputs if node.op_type in {*_JOINED, "Concat"} else ()
    return [v for v in inputs if v is not None]


def _range(value: ir.Value, sources: list[Range | None]) -> Range | None:
    node, contents = value.producer(), array(value)
    if value.dtype is not ir.DataType.FLOAT:
        return None
    if contents is not None:
        return _finite((float(contents.min()), float(contents.max()))) if contents.size else None
    if node is None:
        return None
    if node.op_type == "Cast" and node.inputs[0] is not None and node.inputs[0].dtype is not None:
        return _CASTS.get(node.inputs[0].dtype)
    found: Range | None = None
    join = _JOINED.get(node.op_type, _JOINED["Where"])
    for i, each in enumerate(sources):
        if each is None:
            return None
        found = each if i == 0 or found is None else join(found, each)
    return None if found is None else _finite(found)


def _finite(found: Range) -> Range | None:
    """As float32 rounds it: what is small vanishes next to the largest number."""
    with np.errstate(over="ignore"):
        low, high = (float(np.float32(end)) for end in found)
    return (low, high) if -LARGEST <= low <= high <= LARGEST else None
