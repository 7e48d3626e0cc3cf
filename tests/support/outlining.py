"""A part of a graph that becomes a local function, which is called in its place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import onnx
import onnx_ir as ir
from hypothesis import strategies as st
from onnx import helper

from tests.support.growing import Graph

__all__ = ["DOMAIN", "outline"]

DOMAIN = "local"
_MOST_NODES = 5
_SIMPLE = (onnx.AttributeProto.INT, onnx.AttributeProto.FLOAT, onnx.AttributeProto.INTS)


def outline(g: Graph, outputs: Collection[str], constants: Collection[str], name: str) -> onnx.FunctionProto | None:
    """Move some nodes of the graph into a function; None where nothing reads what they compute.

    Names mean something else inside than outside. Some constants come along as nodes, an attribute may be that of the
    call, and there may be another call, whose results are given away.

    Args:
        g: the graph.
        outputs: what it gives.
        constants: initializers that nobody can override.
        name: of the function.
    """
    start = g.draw(st.integers(0, len(g.nodes) - 1))
    part, rest = g.nodes[start : start + g.pick(range(1, _MOST_NODES + 1))], g.nodes[start:]
    rest = rest[len(part) :]
    made = [n for node in part for n in node.output if n]
    later = {n for node in rest for n in _reads(node)} | set(outputs)
    results = [n for n in made if n in later]
    if not results:
        return None
    inside = [n for n in dict.fromkeys(n for node in part for n in _reads(node)) if n in constants and g.chance(2)]
    given = [n for n in dict.fromkeys(n for node in part for n in _reads(node)) if n not in {*made, *inside}]
    names = [*given, *inside, *made]
    renamed = dict(zip(names, g.draw(st.permutations(names)), strict=True))
    body = [
        helper.make_node("Constant", [], [renamed[n]], value=ir.to_proto(ir.tensor(g.constants[n]))) for n in inside
    ]
    for node in part:
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        _rename(copy, renamed)
        body.append(copy)
    attributes = _referred(g, body)
    imports = [helper.make_opsetid("", g.opset), helper.make_opsetid(DOMAIN, 1)]
    function = helper.make_function(
        DOMAIN, name, [renamed[n] for n in given], [renamed[n] for n in results], body, imports, list(attributes)
    )
    call = helper.make_node(name, given, results, domain=DOMAIN)
    call.attribute.extend(attributes.values())
    calls = [call]
    if g.chance(3) and all(n in g.ports for n in results):
        calls.append(_another(g, call))
    g.nodes[start : start + len(part)] = calls
    return function


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads from around it, those that its bodies read among them."""
    yield from (n for n in node.input if n)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            own = {i.name for i in attribute.g.input} | {n for inner in attribute.g.node for n in inner.output}
            yield from (n for inner in attribute.g.node for n in _reads(inner) if n not in own)


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    for field in (node.input, node.output):
        field[:] = [names.get(n, n) for n in field]
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            for inner in attribute.g.node:
                _rename(inner, names)


def _referred(g: Graph, body: list[onnx.NodeProto]) -> dict[str, onnx.AttributeProto]:
    """Attributes of the call that nodes inside refer to, by name: one or none."""
    found = [a for node in body for a in node.attribute if a.type in _SIMPLE and node.op_type != "Constant"]
    if not found or not g.chance(2):
        return {}
    chosen = g.pick(found)
    value = onnx.AttributeProto.FromString(chosen.SerializeToString())
    value.name = "given"
    for field in ("i", "f", "ints"):
        chosen.ClearField(field)
    chosen.ref_attr_name = "given"
    return {"given": value}


def _another(g: Graph, call: onnx.NodeProto) -> onnx.NodeProto:
    """The call once more, with the same or with other values of the same types."""
    again = onnx.NodeProto.FromString(call.SerializeToString())
    again.output[:] = [g.fresh() for _ in call.output]
    for index, name in enumerate(call.input):
        others = [n for n in g.inputs if g.ports[n] == g.ports.get(name)]
        if others and g.chance(2):
            again.input[index] = g.pick(others)
    g.ports.update({n: g.ports[o] for n, o in zip(again.output, call.output, strict=True)})
    g.promised += [n for n in again.output if g.chance(2)] or list(again.output[:1])
    return again
