"""Which nodes and values of one model are those of another one: by name where names were kept, by structure otherwise.

    names      a value or node of the same name in the same scope, unless operators and shapes say it is chance
    ports      inputs and outputs that have other names, by their position
    backward   y = f(x) and y' = f(x') are one node  →  x and x' are one value, and so are the nodes that compute them
    forward    x is one value  →  the nodes f that read it at the same place, and the same besides, are one node
    in order   of what is left, the longest sequence that both have of operators, attributes and shapes of results

Each node and value has at most one counterpart. Time is linear in nodes and their inputs in each round, but for what is
left in the end: of that, a million pairs that look alike are compared at most.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import onnx.defs
import onnx_ir as ir

from graphopt.graph.nodes import key, opset, rank, readers, subgraphs
from graphopt.graph.wholesale import agree

__all__ = ["Pairs", "Side", "constant", "described", "equal", "settings"]

_MOST_COMPARED = 1_000_000
"""Pairs of nodes that look alike, beyond which what is most common is left out."""
_Chain = tuple[ir.Node, ir.Node, "_Chain | None"]
_BODIES: Final = {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}


class Side:
    """One of the two models, with its bodies and functions laid out flat."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.nodes: list[ir.Node] = []
        """Each after what it reads; what is in a body follows the node that the body belongs to."""
        self.keys: dict[ir.Node, str] = {}
        self.owner: dict[ir.Node, ir.Node] = {}
        """The node in whose body another one stands."""
        self.captured: dict[ir.Node, list[ir.Value]] = {}
        """What the bodies of a node read from outside."""
        self._walk(model.graph, "", None)
        for name, function in model.functions.items():
            self._walk(function.graph, "::".join(filter(None, name)) + "/", None)

    def _walk(self, graph: ir.Graph, prefix: str, owner: ir.Node | None) -> tuple[set[ir.Value], list[ir.Value]]:
        """What a graph defines, and what it reads."""
        defined, read = {*graph.inputs, *graph.initializers.values()}, list[ir.Value]()
        for index, node in enumerate(graph):
            self.nodes.append(node)
            name = key(node)
            self.keys[node] = prefix + (name if name != node.op_type else f"{name}_{index}")
            if owner is not None:
                self.owner[node] = owner
            captured: list[ir.Value] = []
            for body in subgraphs(node) if node.attributes.data else ():
                inside, wanted = self._walk(body, prefix, node)
                captured += [v for v in wanted if v not in inside]
            if captured:
                self.captured[node] = list(dict.fromkeys(captured))
            defined.update(node.outputs)
            read += [*(v for v in node.inputs if v is not None), *captured]
        return defined, [*read, *graph.outputs]

    def reads(self, node: ir.Node) -> Iterator[ir.Value]:
        """What a node is computed from, also inside of its bodies."""
        yield from (v for v in node.inputs if v is not None)
        yield from self.captured.get(node, ())

    def readers(self, value: ir.Value) -> Iterator[ir.Node]:
        """The nodes that read a value; where that is in a body, the body's owner as well."""
        for node in readers(value):
            yield node
            while node in self.owner:
                node = self.owner[node]  # noqa: PLW2901 - outwards
                if value in self.captured.get(node, ()):
                    yield node


class Pairs:
    """The counterparts of what is in the second of two models; `stands_for` and `is_now` ask the other way round."""

    def __init__(self, before: Side, after: Side) -> None:
        self.before, self.after = before, after
        self.nodes: dict[ir.Node, ir.Node] = {}
        self.values: dict[ir.Value, ir.Value] = {}
        self.is_now: dict[ir.Node, ir.Node] = {}
        self.stands_for: dict[ir.Value, ir.Value] = {}
        self._new: list[tuple[ir.Node, ir.Node]] = []
        self._scopes(before.model.graph, after.model.graph)
        for name in before.model.functions.keys() & after.model.functions.keys():
            self._scopes(before.model.functions[name].graph, after.model.functions[name].graph)
        self._settle()
        self._across()
        while self._forward() or self._in_order():
            self._settle()

    # -- by name --------------------------------------------------------------------------------------------------

    def _scopes(self, old: ir.Graph, new: ir.Graph) -> None:
        """Two graphs that stand for each other."""
        self._ports(old.inputs, new.inputs)
        theirs, trusted = _named(_values(old)), _chance(old, new)
        for value in _values(new):
            other = theirs.get(value.name) if trusted else None
            if other is not None and (rank(other) is None or rank(value) in {None, rank(other)}):
                self._pair(other, value)
        self._ports(old.outputs, new.outputs)
        names: dict[str | None, ir.Node] = {n.name: n for n in old if n.name}
        for node in new:
            made_by = [v.producer() for v in (self.values.get(o) for o in node.outputs) if v is not None]
            for maker in (*made_by, names.get(node.name) if trusted else None):
                if maker is not None and self._match(maker, node):
                    break

    def _ports(self, old: Sequence[ir.Value], new: Sequence[ir.Value]) -> None:
        """Inputs or outputs: by name, and what is left by its position, if there is as much of it on both sides."""
        theirs = _named(old)
        rest = [v for v in new if v.name not in theirs]
        for value in new:
            if value.name in theirs:
                self._pair(theirs[value.name], value)
        names = {v.name for v in new}
        others = [v for v in old if v.name not in names]
        for other, value in zip(others, rest, strict=True) if len(others) == len(rest) else ():
            self._pair(other, value)

    def _across(self) -> None:
        """What was moved from one scope to another, as the body of an If whose condition is known, by unique names."""
        count = Counter(n.name for side in (self.before, self.after) for n in side.nodes)
        theirs: dict[str | None, ir.Node] = {n.name: n for n in self.before.nodes if n.name and n not in self.is_now}
        for node in self.after.nodes:
            other = theirs.get(node.name)
            if other is not None and count[node.name] == 2 and node not in self.nodes:  # noqa: PLR2004 - one on each side
                self._match(other, node)
        self._settle()

    # -- by structure ---------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Backward from all that was found."""
        while self._new:
            old, new = self._new.pop()
            for theirs, ours in zip(old.outputs, new.outputs, strict=False):
                self._pair(theirs, ours)
            for before, after in zip(subgraphs(old), subgraphs(new), strict=False):
                self._scopes(before, after)
            for read, reads in zip(old.inputs, new.inputs, strict=False):
                if read is None or reads is None or reads in self.values or read in self.stands_for:
                    continue
                makers = read.producer(), reads.producer()
                if makers[0] is not None and makers[1] is not None:
                    if read.index() == reads.index():
                        self._match(makers[0], makers[1])
                elif makers == (None, None):
                    self._pair(read, reads)

    def _forward(self) -> bool:
        """One walk over what has no counterpart yet. Whether anything was found."""
        found = False
        for node in self.after.nodes:
            if node in self.nodes or any(v in self.values for v in node.outputs):
                continue
            moving = [(i, v) for i, v in enumerate(node.inputs) if v is not None and constant(v) is None]
            if not moving or any(v not in self.values for _, v in moving):
                continue
            best = max(
                (n for n in readers(self.values[moving[0][1]]) if self._alike(n, node, moving)),
                key=lambda n: _likeness(n, node),
                default=None,
            )
            if best is not None and self._match(best, node):
                found = True
                self._settle()
        return found

    def _in_order(self) -> bool:
        """The longest common subsequence of what is left (Hunt and Szymanski 1977). Whether there is any."""
        theirs, places = [n for n in self.before.nodes if n not in self.is_now], dict[object, list[ir.Node]]()
        for node in theirs:
            places.setdefault(_look(node), []).append(node)
        ours = [n for n in self.after.nodes if n not in self.nodes and not any(v in self.values for v in n.outputs)]
        looks = [_look(n) for n in ours]
        count = Counter(looks)
        room = _MOST_COMPARED
        for look in sorted(count.keys() & places.keys(), key=lambda k: count[k] * len(places[k])):
            room -= count[look] * len(places[look])
            if room < 0:
                del places[look]
        index = {n: i for i, n in enumerate(theirs)}
        ends, best = list[int](), list[_Chain]()
        for node, look in zip(ours, looks, strict=True):
            for other in reversed(places.get(look, [])):
                at = bisect_left(ends, index[other])
                ends[at : at + 1] = [index[other]]
                best[at : at + 1] = [(other, node, best[at - 1] if at else None)]
        chain, found = (best[-1] if best else None), False
        while chain is not None:
            found |= self._match(chain[0], chain[1])
            chain = chain[2]
        return found

    def _alike(self, old: ir.Node, new: ir.Node, moving: Iterable[tuple[int, ir.Value]]) -> bool:
        if old in self.is_now or len(old.inputs) != len(new.inputs) or _operator(old) != _operator(new):
            return False
        if any(old.inputs[i] is not self.values[v] for i, v in moving):
            return False
        if settings(old) == settings(new) and all(_like(a, b) for a, b in zip(old.inputs, new.inputs, strict=True)):
            return True  # else it may be a part of the other one, such as a factor of its weight
        behind = [{_operator(r) for v in n.outputs for r in readers(v)} for n in (old, new)]
        return behind[0] == behind[1]

    def _match(self, old: ir.Node, new: ir.Node) -> bool:
        if old in self.is_now or new in self.nodes or _operator(old) != _operator(new):
            return False
        self.nodes[new], self.is_now[old] = old, new
        self._new.append((old, new))
        return True

    def _pair(self, old: ir.Value, new: ir.Value) -> None:
        if new not in self.values and old not in self.stands_for:
            self.values[new], self.stands_for[old] = old, new


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """What a value always holds, if it is an initializer that no feed replaces, or a Constant node's."""
    if value is None or value.is_graph_input():
        return None
    return ir.convenience.get_const_tensor(value)


def equal(a: ir.TensorProtocol, b: ir.TensorProtocol) -> bool:
    """Whether two tensors hold the same bits."""
    if a.dtype != b.dtype or tuple(a.shape.numpy()) != tuple(b.shape.numpy()):
        return False
    first, second = a.numpy(), b.numpy()
    return first is second or np.array_equal(first, second) or first.tobytes() == second.tobytes()


def described(tensor: ir.TensorProtocol) -> str:
    """Its type and shape."""
    return f"{tensor.dtype.name.lower()} {'×'.join(map(str, tensor.shape.numpy())) or 'scalar'}"


def _operator(node: ir.Node) -> tuple[str, str, str]:
    return node.op_identifier()


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _named(values: Iterable[ir.Value]) -> dict[str | None, ir.Value]:
    return {v.name: v for v in values if v.name}


def _chance(old: ir.Graph, new: ir.Graph) -> bool:
    """Whether shared names mean shared values: at most half of them are of other operators and other shapes."""
    theirs = _named(v for node in old for v in node.outputs)
    shared = [(theirs[v.name], v) for node in new for v in node.outputs if v.name in theirs]
    return 2 * sum(_could_be(a, b) for a, b in shared) >= len(shared)


def _could_be(old: ir.Value, new: ir.Value) -> bool:
    makers = old.producer(), new.producer()
    if makers[0] is not None and makers[1] is not None and _operator(makers[0]) == _operator(makers[1]):
        return True
    return old.shape is None or new.shape is None or agree(old.shape, new.shape)


def _like(old: ir.Value | None, new: ir.Value | None) -> bool:
    """Whether two values may be the same, by the form of constants."""
    first, second = constant(old), constant(new)
    return first is second or (first is not None and second is not None and first.shape == second.shape)


def _look(node: ir.Node) -> object:
    """What two nodes have in common that could be one."""
    shapes = [
        None if v.shape is None else (*(d if isinstance(d, int) else None for d in v.shape),) for v in node.outputs
    ]
    return _operator(node), *sorted(settings(node).items()), *shapes


def _likeness(old: ir.Node, new: ir.Node) -> tuple[int, int]:
    """How many attributes and constants two nodes of one operator share; constants by what they hold."""
    tensors = [(constant(a), constant(b)) for a, b in zip(old.inputs, new.inputs, strict=True)]
    shapes = sum(a is not None and b is not None and a.shape == b.shape for a, b in tensors)
    same = sum(a is not None and b is not None and equal(a, b) for a, b in tensors)
    return (same, shapes + len(settings(old).items() & settings(new).items()))


def settings(node: ir.Node) -> dict[str, str]:
    """The attributes of a node as text, without bodies and what is the default anyway."""
    implied = _defaults(node)
    return {
        name: _written(a)
        for name, a in node.attributes.items()
        if a.type not in _BODIES and (a.is_ref() or name not in implied or implied[name] != a.value)
    }


def _defaults(node: ir.Node) -> dict[str, Any]:
    """What attributes that are left out stand for."""
    if not node.attributes.data:
        return {}
    try:
        schema = onnx.defs.get_schema(node.op_type, opset(node) or onnx.defs.onnx_opset_version(), node.domain)
    except onnx.defs.SchemaError:
        return {}
    given = {name: a.default_value for name, a in schema.attributes.items() if name in node.attributes}
    return {n: ir.serde.deserialize_attribute(value).value for n, value in given.items() if value.name}


def _written(attribute: ir.Attr) -> str:
    if attribute.is_ref():
        return f"@{attribute.ref_attr_name}"
    value = attribute.value
    if isinstance(value, ir.TensorProtocol):
        digest = hashlib.sha256(value.tobytes()).hexdigest()[:8]
        return f"{value.dtype.name.lower()} {list(value.shape.numpy())} {digest}"
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str([*value]) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
