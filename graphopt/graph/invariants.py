"""What holds for every graph that is loaded, edited or emitted."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from graphopt.graph.nodes import key, subgraphs

__all__ = ["broken"]


def broken(model: ir.Model) -> Iterator[str]:
    """One sentence for each structural rule that the model breaks: static single assignment, scopes, order.

    Source: ONNX IR specification, "Graphs" and "Names Within a Graph".
    """
    mains = (model.graph, *(f.graph for f in model.functions.values()))
    pending: list[tuple[ir.Graph, frozenset[ir.Value]]] = [(graph, frozenset()) for graph in mains]
    while pending:
        graph, outer = pending.pop()
        visible = set(outer)
        names: dict[str, ir.Value] = {}
        for value in (*graph.inputs, *graph.initializers.values()):
            yield from _declare(value, names)
            visible.add(value)
        for node in graph:
            for read in node.inputs:
                if read is not None and read not in visible:
                    yield f"{_what(node)} reads {read.name!r}, which nothing before it computes"
            for value in node.outputs:
                if value.name:
                    yield from _declare(value, names)
                visible.add(value)
            pending.extend((body, frozenset(visible)) for body in subgraphs(node))
        for value in graph.outputs:
            if value not in visible or value in outer:
                yield f"the output {value.name!r} is computed by no node of its graph"


def _declare(value: ir.Value, names: dict[str, ir.Value]) -> Iterator[str]:
    name = value.name or ""
    if not name:
        yield "an input or initializer has no name"
    elif names.setdefault(name, value) is not value:
        yield f"two values are named {name!r}"


def _what(node: ir.Node) -> str:
    return f"{node.op_type} {key(node)!r}"
