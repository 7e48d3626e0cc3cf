"""Attention. Heads stand on an axis of their own (N, heads, length, size), or packed (N, length, heads·size)."""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from graphopt.graph.nodes import attr, input_at
from graphopt.ops.spec import OpSpec, ShapeOf, admit, index_into, length_up_to

__all__ = ["SPECS"]


def _heads(shape: tuple[int, ...] | None, count: int | None) -> tuple[int, ...] | None:
    """(N, heads, length, size) for either form; None where it cannot be told."""
    match shape:
        case (_, _, _, _):
            return shape
        case (batch, length, width) if count:
            return (batch, count, length, width // count)
    return None


def _attention(node: ir.Node, shape: ShapeOf) -> int | None:
    """Q·Kᵀ and its product with V, for all keys; a mask spares nothing."""
    q = _heads(shape(node.inputs[0]), attr(node, "q_num_heads"))
    k, v = (_heads(shape(node.inputs[i]), attr(node, "kv_num_heads")) for i in (1, 2))
    past = input_at(node, 4)
    cached = shape(past) if past is not None else (0, 0, 0, 0)
    if q is None or k is None or v is None or cached is None:
        return None
    return prod(q[:3]) * (k[2] + cached[2]) * (q[3] + v[3])


def _linear_attention(node: ir.Node, shape: ShapeOf) -> int | None:
    """Per token: each head of values updates its state (the delta rules read it first), each query reads one."""
    q = _heads(shape(node.inputs[0]), attr(node, "q_num_heads"))
    v = _heads(shape(node.inputs[2]), attr(node, "kv_num_heads"))
    if q is None or v is None:
        return None
    updates = 2 if "delta" in attr(node, "update_rule", "gated_delta") else 1
    batch, heads, tokens, size = q
    return batch * tokens * (heads + updates * v[1]) * size * v[3]


SPECS = (
    OpSpec(
        op="Attention",
        summary="softmax(scale · Q·Kᵀ + mask) · V, with grouped heads and a cache of past keys and values",
        macs=_attention,
        admits=admit({6: lambda n: length_up_to(n.inputs[1], -2)}),
    ),
    OpSpec(
        op="FlexAttention",
        domain="ai.onnx.preview",
        summary="Attention whose scores and weights pass through bodies",
        macs=_attention,
        foldable=False,
    ),
    OpSpec(
        op="LinearAttention",
        summary="attention by a running state of keys times values, decayed and corrected by `update_rule`",
        macs=_linear_attention,
    ),
    OpSpec(
        op="RotaryEmbedding",
        summary="pairs of elements turned by the angles of their position",
        admits=admit({3: lambda n: index_into(n.inputs[1], 0)}),
    ),
)
