"""Parts of a graph as models of their own, to run only what is needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from graphopt.graph.nodes import bodies, is_constant

__all__ = ["behind", "boundary", "part"]


def part(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> ir.Model:
    """A copy of what computes these outputs from these inputs; weights are shared, not copied.

    Args:
        model: is not changed.
        inputs: names of values of the main graph that bound the part; none that bounds nothing is asked for.
        outputs: names of the values that the part ends with, its inputs not among them.
    """
    graph = ir.convenience.extract(model.graph, inputs, outputs)
    graph.opset_imports.update(model.opset_imports)
    functions = [function.clone() for function in model.functions.values()]
    return ir.Model(graph, ir_version=model.ir_version, functions=functions)


def behind(model: ir.Model, first: Iterable[ir.Node]) -> list[ir.Node]:
    """The given nodes of the main graph and all that depend on them, in graph order."""
    reached = set(first)
    touched = {v for node in reached for v in node.outputs}
    for node in model.graph:
        if node not in reached and any(v in touched for v in _reads(node)):
            reached.add(node)
            touched.update(node.outputs)
    return [node for node in model.graph if node in reached]


def boundary(nodes: Sequence[ir.Node]) -> list[ir.Value]:
    """The values that these nodes read and do not make, constants left out, in the order in which they are read."""
    made = {v for node in nodes for v in node.outputs}
    read = dict.fromkeys(v for node in nodes for v in _reads(node))
    return [v for v in read if v not in made and not is_constant(v) and not v.is_initializer()]


def _reads(node: ir.Node) -> Iterable[ir.Value]:
    """What a node reads, also from within its bodies."""
    inner = [v for body in bodies(node) for n in body for v in n.inputs]
    local = {v for body in bodies(node) for v in (*body.inputs, *(o for n in body for o in n.outputs))}
    local.update(v for body in bodies(node) for v in body.initializers.values())
    return [v for v in (*node.inputs, *inner) if v is not None and v not in local]
