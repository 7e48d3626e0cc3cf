"""Attention over any queries, keys and values in one node, which stops at the products before it.

With q (N, H, S, D), k (N, H, T, D), v (N, H, T, E), or without heads, (N, S, D), and pack: Transpose to (N, S, H, D)
and Reshape to (N, S, H·D):

    Softmax(c · q·kᵀ) · v          → unpack(MultiHeadAttention(pack(q), pack(k), pack(v), num_heads=H, scale=c))
    Softmax(c · q·kᵀ + m) · v      → unpack(MultiHeadAttention(pack(q), pack(k), pack(v), m, num_heads=H, scale=c))

Heads that were split just before are not packed but read as they were; what unpacks the result cancels with the
Transpose and Reshape behind it, where there are some. It takes what `attention` leaves: cross attention, products of
other values, weights that are not constant, what was done to heads between the products and here.

Conditions: float32, or float16 where the target has a kernel for that; before opset 23, whose Attention the target
computes with the same kernels, and which reads grouped heads as they are; what `fuse.attention` asks for, but rows that
a mask forbids altogether. Heads and their sizes are numbers. With a mask there are as many keys as queries, or a
multiple of 8, or a number of queries that is none: CUDA takes memory-efficient attention where the queries are a
multiple of that, and it fails on a mask if the keys are not (`cutlass_fmha/kernel_forward.h`, check_supported).

What it gains on CUDA: no matrix of scores in memory. Of half precision, with heads of up to 256 in steps of 8, there
are kernels for that (flash attention without a mask, memory-efficient attention with one that is as wide as a multiple
of 4 or 8); of float32 from some length on. Everything else is computed as it is spelled out, in fewer kernels.

Not-a-number and infinity: as spelled out by the CPU's kernel, rows that a mask forbids with −∞ included, which are
not-a-numbers. A mask below −1e38 is cut off there where its least number is known, since CUDA's kernel multiplies it by
log2 e.

Left as they are: GroupQueryAttention for grouped heads. Its only kernels on CUDA are of half precision, it takes the
lengths of each sample as integers in memory, and unless it is causal, that is known of every row of the mask, it is
another function; heads are repeated before opset 23, and the operator of opset 23 reads them again. Masks of a number
for each key, as integers: exporters add floats.

ROUNDING: the same function of the reals. Source: onnxruntime, docs/ContribOperators.md,
com.microsoft.MultiHeadAttention; contrib_ops/cuda/bert/multihead_attention.cc.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from graphopt.fuse.attention import spelled
from graphopt.fuse.heads import TURNED, Packed, packed, unpacked, within
from graphopt.graph.draft import Draft
from graphopt.graph.nodes import opset, rank
from graphopt.graph.record import Exactness
from graphopt.lower.kernel import lacking, too_uneven
from graphopt.match.engine import Answer, No, Rule, rule
from graphopt.match.pattern import op, var
from graphopt.ops.runtime import DOMAIN
from graphopt.protocol import Context
from graphopt.rewrite.ask import dims, same_dims

__all__ = ["RULES"]

_STANDARD = 23
"""The opset whose Attention is as good."""
_OPERATOR = "MultiHeadAttention"
_STEP = 8
"""Elements that memory-efficient attention of float16 reads of a mask at once."""


@rule(op.MatMul(op.Softmax(var("scores"), name="softmax"), var("v")), exactness=Exactness.ROUNDING, since=15)
def multi_head(draft: Draft, ctx: Context, scores: ir.Value, softmax: ir.Node, v: ir.Value) -> Answer:
    """A product of scores, their Softmax, and the product with the values become MultiHeadAttention."""
    if (lack := lacking(ctx, _OPERATOR, scores)) is not None:
        return lack
    if f"{DOMAIN}::{_OPERATOR}" not in ctx.target.operators:
        return No(f"target {ctx.target.name} does not take it")
    if (opset(softmax) or _STANDARD) >= _STANDARD:
        return No("the standard operator is as good")
    found = spelled(draft, ctx, scores, softmax, v, empty=True)
    if isinstance(found, No):
        return found
    deep, wide = _size(found.q), _size(v)
    if deep is None or wide is None:
        return No("the number and the size of heads are not known")
    if found.mask is not None and not _aligned(*((dims(value) or [None, None])[-2] for value in (found.q, v))):
        return No("the mask's rows may be of a length that a kernel of the target fails on")
    if too_uneven(ctx, prod(deep), prod(wide)):
        return No("the target has no kernel for heads that are not as wide in values as in queries")
    parts = [_pack(draft, value, size) for value, size in ((found.q, deep), (found.k, deep), (v, wide))]
    inputs = [
        *unpacked(draft, parts),
        *([] if found.mask is None else [None, None, _four(draft, found.mask, found.mask_axes)]),
    ]
    heads, size = wide
    made = draft.node(_OPERATOR, inputs, {"num_heads": heads, "scale": found.scale}, domain=DOMAIN)
    made.type, made.shape = scores.type, _flat(found.q, heads * size)
    if rank(v) == len(TURNED):
        shape = draft.const(np.asarray([0, 0, heads, size], np.int64), f"{draft.root.outputs[0].name}/heads")
        made = draft.node("Transpose", [draft.node("Reshape", [made, shape])], {"perm": TURNED})
    draft.prune([made])
    return within(draft, made)


RULES: tuple[Rule, ...] = (multi_head,)


def _size(value: ir.Value) -> tuple[int, int] | None:
    """How many heads there are and how large they are; without an axis for them there is one."""
    extents = dims(value) or [None]
    heads = 1 if len(extents) < len(TURNED) else extents[1]
    return (heads, extents[-1]) if isinstance(heads, int) and isinstance(extents[-1], int) and extents[-1] else None


def _aligned(queries: int | str | None, keys: int | str | None) -> bool:
    """Whether no kernel is taken, by the number of queries, that fails on a mask for so many keys."""
    other = isinstance(queries, int) and queries % _STEP != 0
    return other or same_dims([queries], [keys]) or (isinstance(keys, int) and keys % _STEP == 0)


def _pack(draft: Draft, value: ir.Value, size: tuple[int, int]) -> Packed:
    """Heads side by side: as they lay before they were split, if they just were."""
    if rank(value) == len(TURNED) - 1:
        return Packed(value, *size)
    if (part := packed(value)) is not None:
        return part
    shape = draft.const(np.asarray([0, 0, size[0] * size[1]], np.int64), f"{draft.root.outputs[0].name}/packed")
    turned = draft.node("Transpose", [value], {"perm": TURNED})
    return Packed(draft.node("Reshape", [turned, shape]), *size)


def _four(draft: Draft, mask: ir.Value, axes: int) -> ir.Value:
    """A mask with all four axes."""
    if axes == len(TURNED):
        return mask
    missing = np.arange(len(TURNED) - axes, dtype=np.int64)
    return draft.node("Unsqueeze", [mask, draft.const(missing, f"{draft.root.outputs[0].name}/axes")])


def _flat(queries: ir.Value, width: int) -> ir.Shape:
    """(N, S, H·E), after that of (N, H, S, D) or (N, S, D)."""
    extents = dims(queries) or []
    return ir.Shape([extents[0], extents[-2], width])
