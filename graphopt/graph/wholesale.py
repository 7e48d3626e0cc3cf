"""A whole model in place of another one: what must hold for it, and how it is done.

For what is no rule: transformations that others wrote, and those that make sense only as a whole. What people see of a
model stays: its interface, its description, the keys of its nodes.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator

import onnx_ir as ir

from graphopt.graph import invariants
from graphopt.graph.nodes import KEY, PROTECTED, graphs, is_overridable, is_protected, key, name_keys

__all__ = ["agree", "changed", "inherit_keys", "objection", "take_over"]


def objection(old: ir.Model, new: ir.Model, keep: Collection[str]) -> str | None:
    """Why `new` cannot take the place of `old`; None if it can.

    Args:
        old: what is there.
        new: with the keys of `old` where its nodes have the same names.
        keep: keys of nodes that have to be as they are.
    """
    problem = _interface(old.graph, new.graph)
    if problem is not None:
        return problem
    names = {v.name: v.is_initializer() for v in _values(new)}
    for value in _values(old):
        if is_protected(value) and names.get(value.name) is not value.is_initializer():
            return f"an annotation refers to {value.name!r}"
    kept = {key(n): n for graph in graphs(old) for n in graph if key(n) in keep}
    there = {key(n): n for graph in graphs(new) for n in graph if key(n) in kept} if kept else {}
    for name, node in kept.items():
        if name not in there or _text(there[name]) != _text(node):
            return f"{name} was asked to stay"
    problem = next(invariants.broken(new), None)
    return None if problem is None else f"the graph would be broken: {problem}"


def _interface(old: ir.Graph, new: ir.Graph) -> str | None:
    """What of the inputs and outputs would change."""
    pairs = ((old.inputs, new.inputs, "inputs"), (old.outputs, new.outputs, "outputs"))
    for before, after, what in pairs:
        if [v.name for v in before] != [v.name for v in after]:
            return f"the {what} would be others"
        for a, b in zip(before, after, strict=True):
            if a.type is not None and b.type is not None and a.type != b.type:
                return f"the type of {a.name!r} would change from {a.type} to {b.type}"
            if a.shape is not None and b.shape is not None and not agree(a.shape, b.shape):
                return f"the shape of {a.name!r} would change from {a.shape} to {b.shape}"
            if is_overridable(a) != is_overridable(b) or (
                is_overridable(a) and not _same(a.const_value, b.const_value)
            ):
                return f"the weight {a.name!r}, which a feed may override, would change"
    return None


def take_over(old: ir.Model, new: ir.Model) -> None:
    """Move the graph and the functions of `new` into `old`. Inputs and outputs stay described as they were."""
    protected = {v.name for v in _values(old) if is_protected(v)}
    for a, b in zip((*old.graph.inputs, *old.graph.outputs), (*new.graph.inputs, *new.graph.outputs), strict=True):
        b.type, b.doc_string = a.type or b.type, a.doc_string
        b.shape = b.shape if a.shape is None else a.shape.copy()
        b.metadata_props.clear()
        b.metadata_props.update(a.metadata_props)
    for value in _values(new) if protected else ():
        if value.name in protected:
            value.meta[PROTECTED] = True
    name_keys(new)
    new.graph.name, new.graph.doc_string = old.graph.name, old.graph.doc_string
    new.graph.metadata_props.clear()
    new.graph.metadata_props.update(old.graph.metadata_props)
    old.graph, old.ir_version = new.graph, new.ir_version
    old.functions.clear()
    old.functions.update(new.functions)


def inherit_keys(old: ir.Model, new: ir.Model) -> None:
    """Give nodes without a key that of the node that had their name."""
    known = {n.name: n.meta[KEY] for graph in graphs(old) for n in graph if n.name and KEY in n.meta}
    for graph in graphs(new):
        for node in graph:
            if KEY not in node.meta and node.name in known:
                node.meta[KEY] = known.pop(node.name)


def changed(old: ir.Model, new: ir.Model) -> tuple[str, ...]:
    """Names of the values of the main graph that both have and that other nodes, or other weights, compute in `new`."""
    before = {v.name: (n, i) for n in old.graph for i, v in enumerate(n.outputs) if v.name}
    found = []
    for node in new.graph:
        for index, value in enumerate(node.outputs):
            if value.name in before:
                producer, position = before[value.name]
                if position != index or not _computes_alike(producer, node):
                    found.append(value.name)
    return tuple(found)


def agree(a: ir.Shape, b: ir.Shape) -> bool:
    """Whether two shapes can describe one tensor: the same rank and no two different numbers on an axis."""
    return len(a) == len(b) and all(
        x == y for x, y in zip(a, b, strict=True) if isinstance(x, int) and isinstance(y, int)
    )


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for graph in graphs(model):
        yield from (*graph.inputs, *graph.initializers.values(), *(o for node in graph for o in node.outputs))


def _computes_alike(a: ir.Node, b: ir.Node) -> bool:
    return _form(a) == _form(b) and all(
        _same(x.const_value, y.const_value)
        for x, y in zip(a.inputs, b.inputs, strict=True)
        if x is not None and y is not None
    )


def _form(node: ir.Node) -> Hashable:
    attributes = sorted((n, ir.serde.serialize_attribute(a).SerializeToString()) for n, a in node.attributes.items())
    return node.op_identifier(), tuple(None if v is None else v.name for v in node.inputs), tuple(attributes)


def _text(node: ir.Node) -> tuple[Hashable, tuple[str | None, ...]]:
    return _form(node), tuple(v.name for v in node.outputs)


def _same(a: ir.TensorProtocol | None, b: ir.TensorProtocol | None) -> bool:
    """Whether both hold the same bits, or neither holds anything."""
    if a is b:
        return True
    if a is None or b is None or a.dtype is not b.dtype or tuple(a.shape.numpy()) != tuple(b.shape.numpy()):
        return False
    if a.dtype is ir.DataType.STRING:
        return bool((a.numpy() == b.numpy()).all())
    return a.tobytes() == b.tobytes()
