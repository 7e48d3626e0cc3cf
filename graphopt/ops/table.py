"""The operator table, and the questions that passes ask it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from types import MappingProxyType

import onnx_ir as ir

from graphopt.graph.nodes import subgraphs
from graphopt.ops import (
    attention,
    control,
    conv,
    elementwise,
    gemm,
    image,
    index,
    layout,
    loss,
    ml,
    norm,
    pool,
    quant,
    recurrent,
    reduce,
    runtime,
    sequence,
    source,
    spectrum,
    stochastic,
    text,
)
from graphopt.ops.gate import Gates
from graphopt.ops.linear import Linear
from graphopt.ops.spec import OpSpec, ShapeOf

__all__ = [
    "TABLE",
    "Functions",
    "gates",
    "is_foldable",
    "is_pure",
    "known",
    "linears",
    "looks_up",
    "macs",
    "places",
    "spec_of",
]

_KEEPS_PLACES = frozenset({("", "Cast", ""), ("", "Identity", "")})

Functions = Mapping[ir.OperatorIdentifier, ir.Function]
"""The local functions of a model, as `ir.Model.functions` holds them."""

_FAMILIES = (
    attention,
    control,
    conv,
    elementwise,
    gemm,
    image,
    index,
    layout,
    loss,
    ml,
    norm,
    pool,
    quant,
    recurrent,
    reduce,
    runtime,
    sequence,
    source,
    spectrum,
    stochastic,
    text,
)

TABLE: Mapping[tuple[str, str], OpSpec] = MappingProxyType(
    {(spec.domain, spec.op): spec for spec in chain.from_iterable(family.SPECS for family in _FAMILIES)}
)
"""Every operator that graphopt knows, by (domain, name)."""


def known() -> frozenset[tuple[str, str]]:
    """The operators with an entry, as (domain, name)."""
    return frozenset(TABLE)


def spec_of(node: ir.Node) -> OpSpec | None:
    """The entry of a node's operator; None for operators of other domains and calls of local functions."""
    return TABLE.get((node.domain, node.op_type))


def is_pure(node: ir.Node, functions: Functions) -> bool:
    """Whether the node, and all that it runs inside, gives the same outputs for the same inputs every time.

    A call of a local function is pure if every node of its body is. What is not known is not pure.
    """
    pending, entered = [node], set()
    while pending:
        current = pending.pop()
        function = functions.get(current.op_identifier())
        if function is None:
            spec = spec_of(current)
            if spec is None or not spec.pure(current):
                return False
            pending.extend(inner for body in subgraphs(current) for inner in body)
        elif current.op_identifier() not in entered:
            entered.add(current.op_identifier())
            pending.extend(function)
    return True


def is_foldable(node: ir.Node) -> bool:
    """Whether the node may be evaluated ahead of time, once its inputs are constants and it is pure."""
    spec = spec_of(node)
    return spec is not None and spec.foldable


def linears(node: ir.Node) -> tuple[Linear, ...]:
    """The products with constant weights inside the node; none where an attribute is a function's parameter."""
    spec = spec_of(node)
    found = () if spec is None or _is_generic(node) else spec.linears(node)
    return tuple(linear for linear in found if linear.reduction and linear.channels)  # not without weights at all


def looks_up(node: ir.Node) -> bool:
    """Whether what the node gives first is rows of its first input, a matrix, at the indices that its second holds."""
    spec = spec_of(node)
    return spec is not None and not _is_generic(node) and spec.looks_up(node)


def places(value: ir.Value) -> tuple[ir.Value, int] | None:
    """Where a value holds places of elements that were picked by their size: what they are of, and along which axis."""
    node = value.producer()
    while node is not None and node.op_identifier() in _KEEPS_PLACES and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    spec = None if node is None else spec_of(node)
    if node is None or spec is None or spec.places is None or _is_generic(node) or node.inputs[0] is None:
        return None
    output, axis = spec.places(node)
    return (node.inputs[0], axis) if node.outputs[output] is value else None


def gates(node: ir.Node) -> tuple[Gates, ...] | None:
    """The products with constant weights inside a recurrent layer, none where they are not plain; None of others."""
    spec = spec_of(node)
    return None if spec is None or spec.gates is None else () if _is_generic(node) else spec.gates(node)


def macs(node: ir.Node, shape: ShapeOf) -> int | None:
    """Multiply-accumulates of the node itself, without its bodies; None where they cannot be told."""
    spec = spec_of(node)
    if spec is None or (spec.multiplies and _is_generic(node)):
        return None
    return spec.macs(node, shape)


def _is_generic(node: ir.Node) -> bool:
    """Whether an attribute gets its value from the call of the local function that the node stands in."""
    return any(a.is_ref() for a in node.attributes.values())
