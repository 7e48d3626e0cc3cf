"""Shape: what is known about shape computations takes their place.

    integers that are known           → initializer
    Reshape(x, computed)              → Reshape(x, [0, 0, -1, 64])     0 copies an extent, -1 takes what is left
    Expand(x, computed)               → Expand(x, [1, 1, 64])          1 keeps an extent
    Slice(x, a, Shape(x)[i])          → Slice(x, a, INT64_MAX)
    a vector of extents, computed     → Concat(Shape(input, i, j), constants), where that is fewer nodes

Extents are polynomials in the dimensions of the inputs (`graph/values.py`), so the constants are right for every
feed, whatever it binds those to.

BITWISE: no float is touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from graphopt.graph.dims import Dim
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor, is_read
from graphopt.graph.nodes import graphs, input_at, is_constant, is_used, key, rank, readers
from graphopt.graph.record import Exactness, Refused
from graphopt.graph.values import Values, follow
from graphopt.protocol import Context, Miss, Pass

__all__ = ["Shape"]

_SHAPE_HAS_BOUNDS = 15
"""Opset from which Shape takes `start` and `end`."""
_BOUNDS_ARE_INPUTS = 10
"""Opset from which Slice, which does it before, reads them."""


@dataclass(frozen=True)
class Shape(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "shape"
    summary: ClassVar[str] = "replace shape computations by what is known about them"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    rules: ClassVar[Mapping[str, str]] = {
        "known": "Integers and truth values that are the same for every feed become an initializer.",
        "reshape-target": "The target of a Reshape becomes a constant with 0 and -1 for open extents.",
        "expand-target": "The target of an Expand becomes a constant with 1 for extents that stay.",
        "slice-end": "The end of a Slice that is the extent itself becomes the largest integer.",
        "extents": "A computed vector of extents is read from the inputs' shapes directly.",
    }

    def run(self, edit: Editor, ctx: Context) -> None:
        """Constants first, then targets, then what is left of the computations."""
        values = follow(edit.model)
        for node in _nodes(edit.model):
            for value in node.outputs:
                if is_used(value):
                    _known(edit, ctx, values, value)
        for node in _nodes(edit.model):
            target = None if node.domain else _TARGETS.get(node.op_type)
            for index, found in target(node, values) if target else ():
                _set_input(edit, ctx, node, index, found)
        if edit.model.opset_imports.get("", 0) >= _BOUNDS_ARE_INPUTS:
            for node in _nodes(edit.model):
                if len(node.outputs) == 1:
                    _read_from_inputs(edit, ctx, values, node)


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    """All nodes of all graphs, as they stand now; one that goes on the way is passed over."""
    for graph in list(graphs(model)):
        for node in list(graph):
            if node.graph is graph:
                yield node


def _known(edit: Editor, ctx: Context, values: Values, value: ir.Value) -> None:
    contents = values.of(value)
    dtype = value.dtype
    if contents is None or dtype is None:
        return
    numbers = [x.number if isinstance(x, Dim) else x for x in contents.reshape(-1)]
    node = value.producer()
    if node is None or any(n is None for n in numbers):
        return
    draft = Draft(node)
    constant = draft.const(np.asarray(numbers, dtype.numpy()).reshape(contents.shape), str(value.name))
    _attempt(edit, ctx, "known", value, constant, draft)


def _attempt(edit: Editor, ctx: Context, rule: str, old: ir.Value, new: ir.Value, draft: Draft) -> None:
    try:
        edit.commit(rule, Exactness.BITWISE, {old: new}, draft=draft)
    except Refused as refusal:
        ctx.misses.append(Miss(rule, key(draft.root), str(refusal)))


def _set_input(edit: Editor, ctx: Context, node: ir.Node, index: int, found: tuple[str, list[int]]) -> None:
    """Replace an input of a one-output node by a constant."""
    rule, numbers = found
    old = node.inputs[index]
    if old is None:
        return
    draft = Draft(node)
    inputs = list(node.inputs)
    dtype = np.int32 if old.dtype is ir.DataType.INT32 else np.int64
    inputs[index] = draft.const(np.asarray(numbers, dtype), str(old.name))
    changed = draft.like(node, inputs, allowzero=None)  # in the targets of `_reshape` a zero copies
    _attempt(edit, ctx, rule, node.outputs[0], changed, draft)


Found = Iterator[tuple[int, tuple[str, list[int]]]]


def _reshape(node: ir.Node, values: Values) -> Found:
    target, before, after = input_at(node, 1), values.shape(node.inputs[0]), values.shape(node.outputs[0])
    if target is None or is_constant(target) or after is None:
        return
    numbers = []
    for i, extent in enumerate(after):
        if extent is not None and extent.number:
            numbers.append(extent.number)
        elif extent is not None and before is not None and i < len(before) and before[i] == extent:
            numbers.append(0)
        else:
            numbers.append(-1)
    given = values.of(target)
    if numbers.count(-1) <= 1 and (-1 not in numbers or 0 not in numbers or _is_left(given, numbers.index(-1))):
        yield 1, ("reshape-target", numbers)


def _is_left(target: Any, index: int) -> bool:
    """Whether the target has its -1 there already: next to an extent of 0 a runtime refuses it."""
    return target is not None and isinstance(target[index], Dim) and target[index].number == -1


def _expand(node: ir.Node, values: Values) -> Found:
    before, after = values.shape(node.inputs[0]), values.shape(node.outputs[0])
    if is_constant(node.inputs[1]) or before is None or after is None:
        return
    aligned = [*[None] * (len(after) - len(before)), *before]
    numbers = [
        1 if have is not None and have == wanted else wanted.number if wanted is not None and wanted.number else None
        for have, wanted in zip(aligned, after, strict=True)
    ]
    if all(n is not None for n in numbers):
        yield 1, ("expand-target", [n for n in numbers if n is not None])


def _slice(node: ir.Node, values: Values) -> Found:
    ends, axes, extents = (values.of(input_at(node, i)) for i in (2, 3, 0))
    shape = values.shape(node.inputs[0])
    end = input_at(node, 2)
    if ends is None or end is None or is_constant(end) or shape is None or extents is not None:
        return
    where = list(range(ends.size)) if axes is None and input_at(node, 3) is None else None
    if axes is not None and all(isinstance(a, Dim) and a.number is not None for a in axes):
        where = [a.number for a in axes]
    steps = values.of(input_at(node, 4))
    forward = input_at(node, 4) is None or (steps is not None and all(s is not None and s.is_positive for s in steps))
    if where is None or not forward or len(where) != ends.size or any(not -len(shape) <= a < len(shape) for a in where):
        return
    most = np.iinfo(np.int32 if end.dtype is ir.DataType.INT32 else np.int64).max
    numbers = [
        e.number if e is not None and e.number is not None else int(most) if e is not None and e == shape[a] else None
        for e, a in zip(ends, where, strict=True)
    ]
    if all(n is not None for n in numbers):
        yield 2, ("slice-end", [n for n in numbers if n is not None])


_TARGETS = {"Reshape": _reshape, "Expand": _expand, "Slice": _slice}


def _read_from_inputs(edit: Editor, ctx: Context, values: Values, node: ir.Node) -> None:
    """Write a vector of extents as pieces of inputs' shapes and constants, if that takes fewer nodes."""
    value = node.outputs[0]
    contents = values.of(value)
    if contents is None or contents.ndim != 1 or value.dtype is not ir.DataType.INT64 or not is_read(value):
        return
    pieces = _pieces(list(contents), edit.model, values)
    if not pieces:
        return
    bounded = edit.model.opset_imports.get("", 0) >= _SHAPE_HAS_BOUNDS
    draft = Draft(node)
    parts = [
        _read(draft, *p, bounded=bounded)
        if isinstance(p, tuple)
        else draft.const(np.asarray(p, np.int64), f"{value.name}/extents")
        for p in pieces
    ]
    if len(draft.nodes) + (len(parts) > 1) >= _only_for(node):
        draft.discard()
        return
    whole = parts[0] if len(parts) == 1 else draft.node("Concat", parts, {"axis": 0})
    _attempt(edit, ctx, "extents", value, whole, draft)


def _read(draft: Draft, source: ir.Value, start: int, end: int, *, bounded: bool) -> ir.Value:
    """The extents of a value from one axis up to another."""
    if bounded:
        return draft.node("Shape", [source], {"start": start, "end": end})
    extents = draft.node("Shape", [source])
    if (start, end) == (0, rank(source)):
        return extents
    bounds = (draft.const(np.asarray([n], np.int64), f"{source.name}/axis") for n in (start, end))
    return draft.node("Slice", [extents, *bounds])


Piece = tuple[ir.Value, int, int] | list[int]
"""An input's extents from one axis up to another, or numbers."""


def _pieces(items: list[Any], model: ir.Model, values: Values) -> list[Piece] | None:
    found: list[Piece] = []
    position = 0
    while position < len(items):
        item = items[position]
        if not isinstance(item, Dim):
            return None
        if item.number is not None:
            if found and isinstance(found[-1], list):
                found[-1].append(item.number)
            else:
                found.append([item.number])
            position += 1
            continue
        run = max(_runs(items[position:], model, values), key=lambda r: r[2] - r[1], default=None)
        if run is None:
            return None
        found.append(run)
        position += run[2] - run[1]
    return found


def _runs(items: list[Any], model: ir.Model, values: Values) -> Iterator[tuple[ir.Value, int, int]]:
    """Where inputs have the first of `items` as an extent, and how far they agree from there."""
    for source in model.graph.inputs:
        extents = values.shape(source) if isinstance(source.type, ir.TensorType) else None
        for start, extent in enumerate(extents or ()):
            if extent is not None and extent == items[0]:
                end = start + 1
                while (
                    extents and end < len(extents) and end - start < len(items) and extents[end] == items[end - start]
                ):
                    end += 1
                yield source, start, end


def _only_for(node: ir.Node) -> int:
    """Number of nodes that go if nothing reads this node any more."""
    gone = {node}
    pending = [node]
    while pending:
        for value in pending.pop().inputs:
            producer = value.producer() if value is not None else None
            if producer is None or producer in gone or any(v.is_graph_output() for v in producer.outputs):
                continue
            if all(user in gone for v in producer.outputs for user in readers(v)):
                gone.add(producer)
                pending.append(producer)
    return len(gone)
