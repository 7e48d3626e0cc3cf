"""Attention. Heads stand on an axis of their own (N, heads, length, size), or packed (N, length, heads·size)."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from graphopt.graph.nodes import attr, input_at
from graphopt.ops.flow import Axes, Axis, opaque
from graphopt.ops.reshape import merged, parted
from graphopt.ops.resize import Cut
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


def _attention_flow(node: ir.Node, axes: Axes) -> None:
    """(N, heads, length, size), or (N, length, heads·size). Sizes are free only where the scale does not depend on them.

    Heads of queries in groups belong to one head of keys and values.
    """
    values = node.inputs[:3]
    if any(v is None for v in values) or any(v.name for v in node.outputs[1:]):
        return opaque(node, axes)
    for value in node.inputs[3:]:
        for axis in axes.of(value) if value is not None else ():
            axes.hold(axis, "Attention needs it as it is")
    counts = [attr(node, name) for name in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
    parts = [_by_head(node, axes, v, n) for v, n in zip(values, counts, strict=True) if v is not None]
    (q_heads, q_size), (k_heads, k_size), (v_heads, v_size) = parts
    axes.tie(k_heads, v_heads)
    axes.tie(np.repeat(k_heads, len(q_heads) // len(k_heads)), q_heads)
    axes.tie(q_size, k_size)
    if attr(node, "scale") is None:
        axes.hold(q_size, "the scale of Attention depends on it")
    y = node.outputs[0]
    first, *_ = axes.of(values[0]) if values[0] is not None else [axes.held(1, "")]
    if counts[0]:
        length = axes.held(axes.shape(y)[1], "Attention works along it")
        axes.put(y, [first, length, merged(node, axes, [q_heads, v_size])])
    else:
        axes.put(y, [first, q_heads, axes.held(axes.shape(y)[2], "Attention works along it"), v_size])
    axes.product(node, q_size, v_size, batch=q_heads, diagonal=not axes.inner)


def _by_head(node: ir.Node, axes: Axes, value: ir.Value, heads: int | None) -> tuple[Axis, Axis]:
    """The axes of heads and of what is inside them."""
    given = axes.of(value)
    axes.hold(given[1 if heads else 2], "Attention works along it")
    if heads is None:
        return given[1], given[3]
    split, inside = parted(node, axes, given[2], [heads, len(given[2]) // heads])
    return split, inside


def _attention_resize(node: ir.Node, cut: Cut) -> None:
    """The number of heads that are left."""
    for name, value in zip(("q_num_heads", "kv_num_heads"), node.inputs[:2], strict=True):
        count = attr(node, name)
        if count and value is not None and not (stay := cut.stays(value)[2]).all():
            cut.attribute(node, name, int(stay.reshape(count, -1).any(axis=1).sum()))


SPECS = (
    OpSpec(
        op="Attention",
        summary="softmax(scale · Q·Kᵀ + mask) · V, with grouped heads and a cache of past keys and values",
        macs=_attention,
        flow=_attention_flow,
        resize=_attention_resize,
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
