"""Attention. Heads stand on an axis of their own (N, heads, length, size), or packed (N, length, heads·size)."""

from __future__ import annotations

import math
from math import prod

import numpy as np
import onnx_ir as ir

from graphopt.graph.nodes import attr, input_at
from graphopt.ops.flow import Axes, Axis, opaque, tie_all
from graphopt.ops.reshape import merged, parted
from graphopt.ops.resize import Cut
from graphopt.ops.spec import OpSpec, ShapeOf, admit, index_into, length_up_to

__all__ = ["SPECS"]

PAST_KEY = 4
"""From this input on there is a cache, or what it holds."""
HEADS_OF_MASK = 3
"""Its axis of heads, counted from the end."""


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
    """(N, heads, length, size), or (N, length, heads·size). Queries in groups belong to one head of keys and values."""
    q, k, v = node.inputs[:3]
    past = [value for value in node.inputs[PAST_KEY:] if value is not None]
    if q is None or k is None or v is None or past or any(value.name for value in node.outputs[1:]):
        return opaque(node, axes)
    many, few = attr(node, "q_num_heads"), attr(node, "kv_num_heads")
    (q_heads, q_size), (k_heads, k_size), (v_heads, v_size) = (
        _by_head(node, axes, value, heads) for value, heads in ((q, many), (k, few), (v, few))
    )
    for value in (k, v):
        axes.tie(axes.of(q)[0], axes.of(value)[0])
    axes.tie(k_heads, v_heads)
    axes.tie(np.repeat(k_heads, len(q_heads) // len(k_heads)), q_heads)
    axes.tie(q_size, k_size)
    y, length, why = node.outputs[0], axes.of(k)[1 if few else 2], "Attention works along it"
    _mask(node, axes, q_heads)
    free = merged(node, axes, [q_heads, v_size]) if many else None
    made = axes.held(axes.shape(y)[-2], why)
    axes.put(y, [axes.of(q)[0], q_heads, made, v_size] if free is None else [axes.of(q)[0], made, free])
    part = len(q_size) / (len(q_size) + len(v_size))
    axes.product(node, q_size, length, index=-2, batch=q_heads, part=part)
    return axes.product(node, length, v_size, batch=q_heads, part=1 - part)


def _mask(node: ir.Node, axes: Axes, heads: Axis) -> None:
    """It broadcasts to (N, heads, queries, keys)."""
    mask = input_at(node, 3)
    given = axes.of(mask) if mask is not None else []
    for place, axis in enumerate(reversed(given), 1):
        if place == HEADS_OF_MASK and len(axis) == len(heads):
            axes.tie(axis, heads)
        else:
            axes.hold(axis, "Attention needs it as it is")


def _by_head(node: ir.Node, axes: Axes, value: ir.Value, heads: int | None) -> tuple[Axis, Axis]:
    """The axes of heads and of what is inside them."""
    given = axes.of(value)
    axes.hold(given[1 if heads else 2], "Attention works along it")
    if heads is None:
        return given[1], given[3]
    split, inside = parted(node, axes, given[2], [heads, len(given[2]) // heads])
    return split, inside


def _attention_resize(node: ir.Node, cut: Cut) -> None:
    """The number of heads that are left; the scale stays that of the whole size."""
    for name, value in zip(("q_num_heads", "kv_num_heads"), node.inputs[:2], strict=True):
        count = attr(node, name)
        if value is None:
            continue
        stay = cut.stays(value)[2 if count else 3]
        sizes = np.any(stay.reshape(count or 1, -1), axis=0, keepdims=True)
        if count and not stay.all():
            cut.attribute(node, name, int(stay.reshape(count, -1).any(axis=1).sum()))
        if attr(node, "scale") is None and not sizes.all():
            cut.attribute(node, "scale", 1 / math.sqrt(sizes.size))


def _rotary_flow(node: ir.Node, axes: Axes) -> None:
    """X is (N, heads, length, size), or (N, length, heads·size). Whole heads are turned alike."""
    x, (y, *_) = node.inputs[0], node.outputs
    if x is None:
        return opaque(node, axes)
    heads, given = attr(node, "num_heads", 0), list(axes.of(x))
    place = len(given) - 1 if heads else 1
    settings = (axis for v in node.inputs[1:] if v is not None for axis in axes.of(v))
    for axis in (*given[:place], *given[place + 1 :], *settings):
        axes.hold(axis, "RotaryEmbedding needs it as it is")
    if heads and axes.inner:
        axes.hold(given[place], "RotaryEmbedding turns pairs of it")
    elif heads:
        given[place] = np.repeat(tie_all(axes, given[place].reshape(heads, -1)), len(given[place]) // heads)
    return axes.put(y, given)


def _rotary_resize(node: ir.Node, cut: Cut) -> None:
    """The number of heads that are left."""
    x, heads = node.inputs[0], attr(node, "num_heads", 0)
    if x is not None and heads and not (stay := cut.stays(x)[2]).all():
        cut.attribute(node, "num_heads", int(stay.reshape(heads, -1).any(axis=1).sum()))


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
        flow=_rotary_flow,
        resize=_rotary_resize,
        admits=admit({3: lambda n: index_into(n.inputs[1], 0)}),
    ),
)
