"""Small questions that several rewrites ask."""

from __future__ import annotations

import onnx_ir as ir

from graphopt import ops
from graphopt.graph.nodes import array, attr, input_at, rank

__all__ = ["Extent", "axis_of", "dims", "draws", "ints", "made_by", "perm_of", "read_only_by", "same_dims"]

Extent = int | str | None
"""A number, the name of a symbolic dimension, or None where nothing is known. Equal names mean equal extents."""


def ints(node: ir.Node, name: str, index: int) -> list[int] | None:
    """Integers that are an attribute in earlier opsets and a constant input in later ones; None if not known."""
    given = attr(node, name)
    if given is not None:
        return [int(i) for i in given]
    contents = array(input_at(node, index))
    return None if contents is None else [int(i) for i in contents.reshape(-1)]


def dims(value: ir.Value | None) -> list[Extent] | None:
    """The shape; None for an unknown rank."""
    if value is None or value.shape is None:
        return None
    return [d if isinstance(d, int) else d.value for d in value.shape]


def same_dims(a: list[Extent] | None, b: list[Extent] | None) -> bool:
    """Whether two shapes are provably equal."""
    return a is not None and a == b and None not in a


def axis_of(node: ir.Node, default: int = 0) -> int | None:
    """The attribute `axis` counted from the front, if that is known."""
    axis = int(attr(node, "axis", default))
    axes = rank(node.inputs[0]) or rank(node.outputs[0])
    return axis if axis >= 0 else None if axes is None else axis + axes


def perm_of(node: ir.Node) -> list[int] | None:
    """The permutation of a Transpose; None where it reverses an unknown number of axes, or is no permutation."""
    perm = attr(node, "perm")
    if perm is not None:
        return [int(i) for i in perm] if sorted(perm) == list(range(len(perm))) else None
    axes = rank(node.inputs[0])
    return None if axes is None else list(reversed(range(axes)))


def made_by(value: ir.Value | None, *ops: str) -> ir.Node | None:
    """The node behind `value` if it is of one of these operators of the standard domain."""
    node = None if value is None else value.producer()
    return node if node is not None and not node.domain and node.op_type in ops else None


def read_only_by(value: ir.Value, reader: ir.Node) -> bool:
    """Whether no other node and no output needs `value`, and it is computed as often as it is read."""
    node = value.producer()
    alone = not value.is_graph_output() and all(user is reader for user in value.consumers())
    return alone and node is not None and node.graph is reader.graph


def draws(node: ir.Node) -> bool:
    """Whether the node itself, as far as its operator is known, is random or in training mode."""
    spec = ops.spec_of(node)
    return spec is not None and not spec.pure(node)
