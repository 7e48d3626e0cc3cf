"""Small questions about nodes and values that every room asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = [
    "MAPPABLE",
    "array",
    "attr",
    "bodies",
    "graphs",
    "in_memory",
    "input_at",
    "is_constant",
    "is_overridable",
    "is_protected",
    "is_used",
    "key",
    "let_go",
    "name_keys",
    "opset",
    "rank",
    "readers",
    "scalar",
    "static_shape",
    "subgraphs",
]

KEY = "graphopt.key"
PROTECTED = "graphopt.protected"
TRAINED = "graphopt.trained"
"""In the meta of a main graph: the file also says how to train it, in the same opset."""

MAPPABLE = frozenset(t for t in ir.DataType if t.name not in {"UNDEFINED", "STRING"} and t.bitwidth % 8 == 0) - {
    ir.DataType.COMPLEX64,
    ir.DataType.COMPLEX128,
    ir.DataType.FLOAT8E8M0,
}
"""Types whose weights both numpy and the runtime take as they lie in memory."""


def key(node: ir.Node) -> str:
    """The node's key: the name that plans, recipes and reports use for it, given at load and kept by clones.

    A node made by a rewrite has none of its own and answers with its name.
    """
    return str(node.meta.get(KEY) or node.name or node.op_type)


def name_keys(model: ir.Model) -> None:
    """Give every node that has none its key: its name where that is unique, else operator and position."""
    taken = {str(node.meta[KEY]) for graph in graphs(model) for node in graph if KEY in node.meta}
    again: Counter[str] = Counter()
    for graph in graphs(model):
        for index, node in enumerate(graph):
            if KEY in node.meta:
                continue
            wish = unique = node.name or f"{node.op_type}_{index}"
            while unique in taken:
                again[wish] += 1
                unique = f"{wish}#{again[wish]}"
            taken.add(unique)
            node.meta[KEY] = unique


def attr(node: ir.Node, name: str, default: Any = None) -> Any:
    """The value of an attribute, or `default` where it is absent or refers to a function's attribute."""
    found = node.attributes.get(name)
    return default if found is None or found.is_ref() else found.value


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """Input `index` of `node`; None where it is empty or left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def is_overridable(value: ir.Value) -> bool:
    """Whether a feed may replace this initializer: it is listed among the graph's inputs (IR version 4 and later)."""
    return value.is_graph_input() and value.is_initializer()


def is_protected(value: ir.Value) -> bool:
    """Whether something outside the graph (training information, a quantization annotation) refers to the value."""
    return PROTECTED in value.meta


def is_constant(value: ir.Value | None) -> bool:
    """Whether `value` is an initializer that no feed can replace and no training step changes."""
    return (
        value is not None
        and value.const_value is not None
        and value.is_initializer()
        and not value.is_graph_input()
        and not is_protected(value)
    )


def array(value: ir.Value | None) -> NDArray[Any] | None:
    """The contents of a constant (see `is_constant`); None for anything else."""
    if value is None or not is_constant(value) or value.const_value is None:
        return None
    return value.const_value.numpy()


def in_memory(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The tensor with its contents in memory instead of in another file."""
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def rank(value: ir.Value | None) -> int | None:
    """Number of axes, if known."""
    return None if value is None or value.shape is None else len(value.shape)


def is_used(value: ir.Value) -> bool:
    """Whether a node reads the value."""
    return next(iter(readers(value)), None) is not None


def readers(value: ir.Value) -> Iterator[ir.Node]:
    """The nodes that read the value, one that reads it twice two times. Nothing may be changed on the way.

    `Value.consumers` copies them all first, which makes asking one question of each reader quadratic.
    """
    return (use.node for use in value._uses)  # noqa: SLF001 - see above


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape, if every axis is a known number."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(int(d) for d in value.shape.numpy())


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs that stand in the node's own attributes (bodies of If, Loop, Scan), not those deeper down."""
    for a in node.attributes.data.values():  # .data: the plain dict behind it, since every walk comes by here
        if a.type is ir.AttributeType.GRAPH and not a.is_ref():
            yield a.as_graph()
        elif a.type is ir.AttributeType.GRAPHS and not a.is_ref():
            yield from a.as_graphs()


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """All graphs in the node, also in bodies of bodies, outer before inner."""
    pending = list(subgraphs(node))
    for body in pending:
        yield body
        pending.extend(inner for n in body for inner in subgraphs(n))


def let_go(node: ir.Node) -> list[ir.Value]:
    """Let a node and what is in its bodies read nothing any more. Answers what they read."""
    every = [node, *(n for body in bodies(node) for n in body)]
    sources = [v for n in every for v in n.inputs if v is not None]
    for each in every:
        for index in range(len(each.inputs)):
            each.replace_input_with(index, None)
    return sources


def graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph, then every subgraph below it, outer before inner. Local functions are not entered."""
    pending = [model.graph]
    while pending:
        graph = pending.pop(0)
        yield graph
        for node in graph:
            if node.attributes.data:
                pending.extend(subgraphs(node))


def opset(node: ir.Node) -> int | None:
    """The version of standard ONNX that the node is written in, if that is known."""
    return node.version or (node.graph.opset_imports.get("") if isinstance(node.graph, ir.Graph) else None)


def scalar(value: ir.Value | None) -> Any:
    """The one element of a constant of any rank; None for anything else."""
    a = array(value)
    return a.reshape(-1)[0] if isinstance(a, np.ndarray) and a.size == 1 else None
