"""Fuse spelled-out attention into the standard operator, opset 23.

With q (N, H, S, D), k (N, H, T, D), v (N, H, T, E), or without heads, (N, S, D):

    Softmax(c · q·kᵀ) · v                               → Attention(q, k, v, scale=c)
    Softmax(c · q·kᵀ + m) · v                           → Attention(q, k, v, m, scale=c)
    Attention(q, repeat(k), repeat(v))                  → Attention(q, k, v)               grouped queries
    apart(Attention(flat(q), flat(k), flat(v)))         → Attention(q, k, v)
    merge(Attention(split(q), split(k), split(v)))      → Attention(q, k, v, q_num_heads, kv_num_heads)

The factor may stand on q, on k (before or behind its Transpose), on the scores, or be shared out among them. repeat is
Unsqueeze-Expand-Reshape of heads; flat is Reshape of (N, H, S, D) to (N·H, S, D), and apart the way back; split is
Reshape to (N, S, H, D) and Transpose, or a part of what is reshaped to (N, S, 3, H, D), transposed and taken apart;
merge is the way back.

Conditions: float32; the product of the factors is positive; batch and heads are provably the same in q, k and v, since
MatMul would broadcast them; the last axis is normalized; k is transposed (by any permutation). A mask provably
broadcasts to (N, H, S, T). Where it has 1 in place of S or T it is expanded, as onnxruntime insists, if possible with
what is known of it alone, so that all layers share that. A mask below −1e38 is cut off there: the kernel takes a row of
the lowest float for one that attends to nothing and answers zeros, where Softmax spreads evenly, and so it does with
−1e38.

Left as they are: masks that may hold −∞ (a row of nothing else is not-a-number as spelled out, and zeros by the
operator; constants are looked at), but for --fast-math, which cuts them off as well and so has numbers there;
Where(mask, scores, c), which keeps not-a-numbers out that a sum lets in; guards against not-a-number, since rows with
one in q, k or v stay so in the operator.

Not-a-number and infinity: as spelled out, but where an intermediate result overflows. Empty batches and sequences:
onnxruntime's kernel refuses them. Source: ONNX operator specification; onnxruntime, core/providers/cpu/llm/attention.

ROUNDING: the same function of the reals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from graphopt.fuse.heads import TURNED, expanded, merges, packed, repeated, unpacked, within
from graphopt.fuse.ranges import LOW, least_of_rows
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.nodes import attr, rank, scalar
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, No, Rule, described, rewrite, rule
from graphopt.match.pattern import op, var
from graphopt.protocol import Context, Pass
from graphopt.rewrite.ask import Extent, axis_of, dims, made_by, perm_of, read_only_by, same_dims

__all__ = ["FuseAttention", "Spelled", "spelled"]

_OPEN = 1024
"""Taken for an extent that is not known, where the length of a sum is asked for."""
_HEADS, _PLAIN = 4, 3


# -- the core --------------------------------------------------------------------------------------------------------


@rule(
    op.MatMul(op.Softmax(var("scores"), name="softmax"), var("v")),
    exactness=Exactness.ROUNDING,
    since=23,
)
def attention(draft: Draft, ctx: Context, scores: ir.Value, softmax: ir.Node, v: ir.Value) -> Answer:
    """A product of scores, their Softmax, and the product with the values become Attention."""
    if scores.dtype is not ir.DataType.FLOAT:
        return No("they are not known to be float32")
    found = spelled(draft, ctx, scores, softmax, v)
    if isinstance(found, No):
        return found
    heads = {} if rank(scores) == _HEADS else {"q_num_heads": 1, "kv_num_heads": 1}
    inputs = [found.q, found.k, v, *([] if found.mask is None else [found.mask])]
    return within(draft, draft.node("Attention", inputs, {"scale": found.scale, **heads}))


@dataclass(frozen=True)
class Spelled:
    """Softmax(scale · q·kᵀ + mask) · v, with q (…, S, D), k (…, T, D) and a mask that is as wide and long as that."""

    q: ir.Value
    k: ir.Value
    scale: float
    mask: ir.Value | None
    mask_axes: int = 0


def spelled(
    draft: Draft, ctx: Context, scores: ir.Value, softmax: ir.Node, v: ir.Value, *, empty: bool = False
) -> Spelled | No:
    """What attention is of, with heads, (N, H, S, D), or without, (N, S, D); the draft gets what turns the keys.

    Args:
        draft: of what takes its place.
        ctx: of the rule.
        scores: what is normalized.
        softmax: what normalizes them.
        v: what the result is multiplied by.
        empty: whether the operator does to rows of a mask that forbid all what Softmax does, not-a-numbers included.
    """
    axes = rank(scores)
    if axes not in {_PLAIN, _HEADS} or rank(v) != axes:
        return No("they are not known to have 3 or 4 axes")
    if axis_of(softmax, -1) != axes - 1:
        return No("it is not the last axis that is normalized")
    found = _masked(scores, softmax)
    if found is None:
        return No("the scores are not a product of two values, scaled and masked, for the Softmax alone")
    product, factor, mask = found
    left, q = _multiple(product.inputs[0])
    right, turned = _multiple(product.inputs[1])
    turn = made_by(turned, "Transpose")
    perm = None if turn is None else perm_of(turn)
    if q is None or turn is None or perm is None or len(perm) != axes:
        return No("the keys are not transposed")
    before, source = _multiple(turn.inputs[0])
    scale = float(np.float32(factor * left * right * before))
    if source is None or not (isfinite(scale) and scale > 0):
        return No("the factor is not a positive number")
    q_dims, k_dims, v_dims = dims(q), dims(turned), dims(v)
    if q_dims is None or k_dims is None or v_dims is None or len(q_dims) != axes:
        return No("a shape is not known")
    if not all(same_dims(q_dims[:-2], other[:-2]) for other in (k_dims, v_dims)):
        return No("batch and heads are not known to be the same")
    extents = [*q_dims[:-1], k_dims[-1] if k_dims[-1] is not None else v_dims[-2]]
    allowed = None if mask is None else _mask(draft, ctx, mask, q, extents, empty=empty)
    if isinstance(allowed, No):
        return allowed
    draft.reduction = max(e if isinstance(e, int) else _OPEN for e in (q_dims[-1], extents[-1]))
    k = _permuted(draft, source, [*perm[:-2], perm[-1], perm[-2]])
    batched = axes == _PLAIN == rank(mask) and allowed is not None and (dims(mask) or [1])[0] != 1
    return Spelled(q, k, scale, allowed, _HEADS if batched else max(rank(mask) or 0, 2))


def _multiple(value: ir.Value | None) -> tuple[float, ir.Value | None]:
    """A value as a number times another one that has as many axes."""
    factor = 1.0
    while (node := made_by(value, "Mul", "Div")) is not None:
        numbers = [i for i in ((0, 1) if node.op_type == "Mul" else (1,)) if scalar(node.inputs[i]) is not None]
        source = node.inputs[1 - numbers[0]] if numbers else None
        if source is None or rank(source) is None or rank(source) != rank(value):
            break
        number = float(scalar(node.inputs[numbers[0]]))
        if number == 0:
            break
        factor, value = (factor * number if node.op_type == "Mul" else factor / number), source
    return factor, value


def _masked(scores: ir.Value, reader: ir.Node) -> tuple[ir.Node, float, ir.Value | None] | None:
    """The MatMul behind scores that only `reader` needs, what it is multiplied by, and what is added to that."""
    add = made_by(scores, "Add")
    for value, mask in ((scores, None),) if add is None else (tuple(add.inputs), tuple(reversed(add.inputs))):
        factor, plain = _multiple(value)
        product = made_by(plain, "MatMul")
        if product is not None and rank(plain) == rank(scores) and _alone(product, reader):
            return product, factor, mask
    return None


def _alone(node: ir.Node, reader: ir.Node) -> bool:
    """Whether what `node` computes reaches `reader` through nodes with one reader each, and nothing else."""
    current = node
    while current is not reader:
        users = current.outputs[0].consumers()
        if len(users) != 1 or not read_only_by(current.outputs[0], users[0]):
            return False
        current = users[0]
    return True


def _permuted(draft: Draft, value: ir.Value, perm: list[int]) -> ir.Value:
    return value if perm == sorted(perm) else draft.node("Transpose", [value], {"perm": perm})


# -- the mask --------------------------------------------------------------------------------------------------------


def _mask(
    draft: Draft, ctx: Context, mask: ir.Value, q: ir.Value, extents: list[Extent], *, empty: bool
) -> ir.Value | No:
    """The mask as the operator takes it: no row forbids all with −∞, and it is as long and wide as the scores."""
    have = dims(mask)
    if mask.dtype is not q.dtype or have is None or len(have) > len(extents):
        return No("the mask is not known to have as many axes as the scores")
    wanted = extents[len(extents) - len(have) :]
    if any(h != 1 and (h is None or h != w) for h, w in zip(have, wanted, strict=True)):
        return No("the mask is not known to broadcast to the scores")
    least = least_of_rows(mask)
    if least is None and not (ctx.fast_math or empty):
        return No("a row of the mask may hold nothing but -inf: --fast-math allows it")
    name = draft.root.outputs[0].name
    found = mask
    if least < LOW if least is not None else not empty:
        found = draft.node("Max", [found, draft.const(np.asarray(LOW, np.float32), f"{name}/low")])
    if len(extents) == len(have) == _PLAIN and have[0] != 1:
        found = draft.node("Unsqueeze", [found, draft.const(np.asarray([1], np.int64), f"{name}/axes")])
    if have[-2:] == extents[-2:]:
        return found
    lacking = [
        1 if have_it == extent else extent for have_it, extent in zip([1, 1, *have][-2:], extents[-2:], strict=True)
    ]
    return expanded(draft, found, lacking, mask, q) or No("what the mask has to be expanded to is not known")


# -- heads -----------------------------------------------------------------------------------------------------------


@rule(
    op.Attention(var("q"), var("k"), var("v"), var("mask", optional=True), name="core"),
    exactness=Exactness.ROUNDING,
)
def grouped_heads(
    draft: Draft, _ctx: Context, q: ir.Value, k: ir.Value, v: ir.Value, mask: ir.Value | None, core: ir.Node
) -> Answer:
    """Heads of keys and values that are repeated for groups of queries are read again instead."""
    few_k, few_v = repeated(k), repeated(v)
    if few_k is None or few_v is None:
        return No("keys and values are not both known to be repeated heads")
    fewer, heads = (dims(few_k) or [])[1:2], (dims(q) or [])[1:2]
    if fewer != (dims(few_v) or [])[1:2] or heads != (dims(k) or [])[1:2]:
        return No("keys and values are not repeated alike")
    return within(draft, draft.like(core, [q, few_k, few_v, *([] if mask is None else [mask])]))


@rule(
    op.Reshape(
        op.Attention(
            *(op.Reshape(var(name), var(f"_{name}")) for name in "qkv"), var("mask", optional=True), name="core"
        ),
        var("_target"),
        name="node",
    ),
    exactness=Exactness.ROUNDING,
)
def batched_heads(
    draft: Draft,
    _ctx: Context,
    q: ir.Value,
    k: ir.Value,
    v: ir.Value,
    core: ir.Node,
    node: ir.Node,
    **found: ir.Value | None,
) -> Answer:
    """Heads that are made samples before it and heads again behind it stay heads."""
    if attr(core, "q_num_heads") != 1:
        return No("its heads are not samples")
    outer = (dims(q) or [])[:2]
    for apart, flat in zip((q, k, v, node.outputs[0]), (*core.inputs[:3], core.outputs[0]), strict=True):
        before, after = dims(apart), dims(flat)
        if before is None or after is None or len(before) != _HEADS or len(after) != _PLAIN:
            return No("they are not known to be heads of samples")
        if not same_dims(before[:2], outer) or not same_dims(before[2:], after[1:]):
            return No("more than samples and heads is joined, or these are not known to be the same")
    mask = found["mask"]
    if mask is not None and any(e != 1 for e in (dims(mask) or [None, None, None])[:-2]):
        return No("the mask is not known to be the same for all samples and heads")
    given = [q, k, v, *([] if mask is None else [mask])]
    return within(draft, draft.like(core, given, q_num_heads=None, kv_num_heads=None))


@rule(
    op.Reshape(
        op.Transpose(op.Attention(var("q"), var("k"), var("v"), var("mask", optional=True), name="core"), name="turn"),
        var("_target"),
        name="node",
    ),
    exactness=Exactness.ROUNDING,
)
def packed_heads(
    draft: Draft,
    _ctx: Context,
    q: ir.Value,
    k: ir.Value,
    v: ir.Value,
    mask: ir.Value | None,
    core: ir.Node,
    turn: ir.Node,
    node: ir.Node,
    _target: ir.Value,
) -> Answer:
    """Heads that are split off before and merged behind stay packed."""
    parts = [part for part in (packed(q), packed(k), packed(v)) if part is not None]
    if len(parts) != 3:  # noqa: PLR2004 - queries, keys and values
        return No("queries, keys and values are not all known to be split into heads just before")
    if perm_of(turn) != TURNED or not merges(node):
        return No("the heads are not merged right behind it")
    heads = {"q_num_heads": parts[0].heads, "kv_num_heads": parts[1].heads}
    return within(draft, draft.like(core, [*unpacked(draft, parts), *([] if mask is None else [mask])], **heads))


RULES: tuple[Rule, ...] = (attention, grouped_heads, batched_heads, packed_heads)


@dataclass(frozen=True)
class FuseAttention(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "fuse-attention"
    summary: ClassVar[str] = "spelled-out attention into the operator, its heads packed"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    rules: ClassVar[Mapping[str, str]] = described(RULES)

    def run(self, edit: Editor, ctx: Context) -> None:
        """Until no rule fires any more."""
        rewrite(edit, ctx, RULES)
