"""How many nodes a model has, as they are compared: every one that a runtime has to run or to get rid of."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

__all__ = ["nodes"]


def nodes(model: onnx.ModelProto) -> int:
    """The nodes of the graph, of the bodies below it, and of local functions.

    A Constant is a weight by another name, and so is a ConstantOfShape of a constant: neither counts.
    """
    return _graph(model.graph, set()) + sum(_count(f.node, set()) for f in model.functions)


def _graph(graph: onnx.GraphProto, outer: set[str]) -> int:
    return _count(graph.node, outer | {t.name for t in graph.initializer})


def _count(found: Iterable[onnx.NodeProto], outer: set[str]) -> int:
    constants, total = set(outer), 0
    for node in found:
        if node.op_type == "Constant" and not node.domain:
            constants.update(node.output)
        elif not (node.op_type == "ConstantOfShape" and not node.domain and constants.issuperset(node.input)):
            total += 1
        for attribute in node.attribute:
            bodies = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
            total += sum(_graph(body, constants) for body in bodies)
    return total
