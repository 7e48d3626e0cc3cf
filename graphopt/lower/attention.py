"""Self-attention of packed heads, with the products for queries, keys and values, in one node.

With x (N, S, C), q = split(x·Wq + bq), k and v alike, split: Reshape to (N, S, H, D) and Transpose to (N, H, S, D),
and merge the way back to (N, S, H·E):

    merge(Softmax(c · q·kᵀ) · v)                         → Attention(x, [Wq Wk Wv], [bq bk bv], scale=c)
    merge(Softmax(c · q·kᵀ + m) · v)                     → Attention(x, …, m, scale=c)
    merge(Attention(x·Wq + bq, x·Wk + bk, x·Wv + bv, m)) → the same, from the operator of opset 23

Conditions: float32, or float16 where the target has a kernel for that; the weights are constant matrices and the biases
constant vectors or missing; Reshapes keep N and S, provably; all heads are as many and q's and k's as wide; c is one
positive number; nothing else needs what lies between the products and the result. A mask provably is (N or 1, H or 1,
S, S); where it has 1 in place of the first S it is expanded, from what is known of it alone, so that all layers share
that. The operator of opset 23 gives zeros for a row whose mask is nothing but −∞ or the lowest float, and onnxruntime's
own one does not: that one's masks are known to stay above −1e38, or --fast-math does not care.

The packed weights take as much room as the single ones; where those are read elsewhere the file may have to grow.

Not-a-number and infinity: as spelled out. Speed against the spelled-out form, one thread: 16 × 64, 0.78 times its
time (0.97 with a mask); 128 × 256, 0.90 (0.95); 128 × 768, 0.96 (0.96). With the products left outside
(MultiHeadAttention, see `heads`) 0.94 to 1.00, but with a mask 0.99 to 1.16, so that is left as it is on the CPU.

Left as they are: masks of integers, which the operator takes for zero or not, and exporters multiply with a large
number.

ROUNDING: the same function of the reals. Source: onnxruntime, docs/ContribOperators.md, com.microsoft.Attention.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.fuse.ranges import LOW, least_of_rows
from graphopt.graph.draft import Draft
from graphopt.graph.nodes import array, attr, input_at, rank, scalar
from graphopt.graph.record import Exactness
from graphopt.lower.kernel import lacking, too_uneven
from graphopt.match.engine import Answer, No, Rule, rule
from graphopt.match.pattern import const, op, var
from graphopt.ops.runtime import DOMAIN
from graphopt.protocol import Context
from graphopt.rewrite.ask import axis_of, dims, made_by, perm_of, read_only_by, same_dims

__all__ = ["RULES"]

Array = NDArray[Any]

HEADS_FIRST, KEYS_TURNED = [0, 2, 1, 3], [0, 2, 3, 1]


@dataclass(frozen=True)
class _Projection:
    """A product x·W + b."""

    x: ir.Value
    product: ir.Node
    weight: Array
    bias: Array

    def part(self, start: int, stop: int) -> _Projection:
        """Some of its columns."""
        return replace(self, weight=self.weight[:, start:stop], bias=self.bias[start:stop])


@rule(
    op.Reshape(
        op.Transpose(op.MatMul(op.Softmax(var("scores"), name="softmax"), var("v")), name="turn"),
        const("to"),
        name="node",
    ),
    exactness=Exactness.ROUNDING,
)
def self_attention(
    draft: Draft, ctx: Context, scores: ir.Value, softmax: ir.Node, v: ir.Value, turn: ir.Node, to: Array, node: ir.Node
) -> Answer:
    """Spelled-out self-attention becomes one node, its projections included."""
    if rank(scores) != len(HEADS_FIRST) or axis_of(softmax, -1) != len(HEADS_FIRST) - 1:
        return No("the scores are not known to have 4 axes, the last one normalized")
    if perm_of(turn) != HEADS_FIRST:
        return No("the heads are not turned back")
    found = _scores(scores, softmax)
    if isinstance(found, No):
        return found
    product, scale, mask = found
    values, heads = _heads(v, HEADS_FIRST)
    queries, of_queries = _heads(product.inputs[0], HEADS_FIRST)
    keys, of_keys = _heads(product.inputs[1], KEYS_TURNED)
    if queries is None or keys is None or values is None:
        return No("queries, keys and values are not split into heads in the usual way")
    if heads[0] != of_queries[0] or of_queries != of_keys:
        return No("queries, keys and values have not the same heads")
    if not _keeps(node, to, values.x) or (dims(node.outputs[0]) or [None])[-1] != heads[0] * heads[1]:
        return No("the heads are not known to be merged")
    return _packed(draft, ctx, (queries, keys, values), heads[0], scale, mask)


@rule(op.Attention(name="node"), exactness=Exactness.ROUNDING)
def projected_attention(draft: Draft, ctx: Context, node: ir.Node) -> Answer:
    """An Attention over products of the same value takes them in."""
    heads = attr(node, "q_num_heads")
    others = any(a.value for name, a in node.attributes.items() if name not in {"q_num_heads", "kv_num_heads", "scale"})
    if not heads or attr(node, "kv_num_heads") != heads or len(node.outputs) > 1 or others:
        return No("it has grouped heads, further outputs or other attributes")
    if any(v is not None for v in node.inputs[4:]):
        return No("it has a cache")
    queries, keys, values = (_linear(v, node) for v in node.inputs[:3])
    if queries is None or keys is None or values is None:
        return No("queries, keys and values are not products with constants that are needed nowhere else")
    size = queries.weight.shape[1] // heads
    if not size:
        return No("there is nothing in a head")
    scale = float(attr(node, "scale", 1 / size**0.5))
    mask = input_at(node, 3)
    least = None if mask is None else least_of_rows(mask)
    if mask is not None and not ctx.fast_math and (least is None or least < LOW):
        return No("a row of the mask may forbid all, which gives zeros by one operator and not by the other")
    return _packed(draft, ctx, (queries, keys, values), heads, scale, mask)


RULES: tuple[Rule, ...] = (self_attention, projected_attention)


# -- what is looked for ----------------------------------------------------------------------------------------------


def _scores(scores: ir.Value, reader: ir.Node) -> tuple[ir.Node, float, ir.Value | None] | No:
    """The MatMul behind the scores, the number that it is multiplied by, and what is added to that."""
    add = made_by(scores, "Add")
    pairs = (
        ((scores, None, reader),)
        if add is None
        else ((a, b, add) for a, b in zip(add.inputs, add.inputs[::-1], strict=True))
    )
    for value, mask, user in pairs:
        product, scale = _scaled(value, user)
        if product is not None and (add is None or read_only_by(scores, reader)):
            if not (isfinite(scale) and scale > 0):
                return No("the factor is not a positive number")
            return product, scale, mask
    return No("the scores are not a product of two values, scaled and masked, for the Softmax alone")


def _scaled(value: ir.Value | None, reader: ir.Node) -> tuple[ir.Node | None, float]:
    """The MatMul behind a value that only `reader` needs, and the one number that it is multiplied by."""
    if value is None or not read_only_by(value, reader):
        return None, 1.0
    node = made_by(value, "Mul", "Div")
    if node is None:
        return made_by(value, "MatMul"), 1.0
    for at in (0, 1) if node.op_type == "Mul" else (1,):
        number, source = scalar(node.inputs[at]), node.inputs[1 - at]
        if number is not None and source is not None and rank(source) == rank(value) and read_only_by(source, node):
            with np.errstate(all="ignore"):
                return made_by(source, "MatMul"), float(number if node.op_type == "Mul" else 1 / number)
    return None, 1.0


def _heads(value: ir.Value | None, perm: list[int]) -> tuple[_Projection | None, tuple[int, int]]:
    """The projection behind heads on an axis of their own, with their number and size."""
    nothing = None, (0, 0)
    turn = made_by(value, "Transpose")
    if turn is None or perm_of(turn) != perm or turn.inputs[0] is None:
        return nothing
    split = made_by(turn.inputs[0], "Reshape")
    source = None if split is None else split.inputs[0]
    if split is None or source is None or not read_only_by(turn.inputs[0], turn):
        return nothing
    inside, to = dims(turn.inputs[0]), array(input_at(split, 1))
    found = _linear(source, split)
    if found is None or inside is None or to is None or len(inside) != len(HEADS_FIRST):
        return nothing
    heads, size = inside[2:]
    if not isinstance(heads, int) or not isinstance(size, int) or heads * size != found.weight.shape[1]:
        return nothing
    return (found, (heads, size)) if _keeps(split, to, found.x) else nothing


def _keeps(reshape: ir.Node, to: Array, x: ir.Value) -> bool:
    """Whether a Reshape keeps the first two axes, which are those of x."""
    made = dims(reshape.outputs[0])
    copied = to[:2].tolist() == [0, 0] and not attr(reshape, "allowzero", 0)
    return copied or same_dims((made or [])[:2], (dims(x) or [None])[:2])


def _linear(value: ir.Value | None, reader: ir.Node) -> _Projection | None:
    """The product with a constant matrix, and a constant vector added to it, that only `reader` needs."""
    if value is None or not read_only_by(value, reader):
        return None
    node = value.producer()
    if made_by(value, "Split") is not None and node is not None:
        return _part(node, node.outputs.index(value))
    bias, add = None, made_by(value, "Add")
    if add is not None:
        at = 0 if array(add.inputs[0]) is not None else 1
        bias, value = array(add.inputs[at]), add.inputs[1 - at]
        if value is None or bias is None or not read_only_by(value, add):
            return None
    product = made_by(value, "MatMul")
    weight = None if product is None else array(product.inputs[1])
    if product is None or weight is None or weight.ndim != 2:  # noqa: PLR2004 - a matrix
        return None
    bias = np.zeros(weight.shape[1], weight.dtype) if bias is None else bias
    x = product.inputs[0]
    return _Projection(x, product, weight, bias) if x is not None and bias.shape == weight.shape[1:] else None


def _part(split: ir.Node, index: int) -> _Projection | None:
    """One part of a product that is taken apart along its last axis."""
    found = _linear(split.inputs[0], split)
    extents = [(dims(v) or [None])[-1] for v in split.outputs]
    sizes = [e for e in extents if isinstance(e, int)]
    if found is None or axis_of(split) != len(HEADS_FIRST) - 2 or len(sizes) != len(extents):
        return None
    start = sum(sizes[:index])
    return found.part(start, start + sizes[index])


# -- what it becomes -------------------------------------------------------------------------------------------------


def _packed(
    draft: Draft,
    ctx: Context,
    projections: tuple[_Projection, _Projection, _Projection],
    heads: int,
    scale: float,
    mask: ir.Value | None,
) -> Answer:
    x = projections[0].x
    extents = dims(x)
    if any(p.x is not x for p in projections):
        return No("queries, keys and values do not come from the same value")
    if (lack := lacking(ctx, "Attention", x)) is not None:
        return lack
    if extents is None or len(extents) != len(HEADS_FIRST) - 1:
        return No("it is not known to have 3 axes")
    sizes = [p.weight.shape[1] for p in projections]
    if sizes[0] != sizes[1] or any(size % heads for size in sizes):
        return No("queries and keys are not equally wide")
    if too_uneven(ctx, sizes[0], sizes[2]):
        return No("the target has no kernel for heads that are not as wide in values as in queries")
    if mask is not None and mask.dtype is not x.dtype:
        return No("the mask is not known to be of the same type")
    allowed = None if mask is None else _mask(draft, mask, [extents[0], heads, extents[1]])
    if isinstance(allowed, No):
        return allowed
    shared = [p for p in projections if p.product.inputs[1] is not None and len(p.product.inputs[1].uses()) > 1]
    if shared and not ctx.ledger.spend(sum(p.weight.nbytes for p in shared)):
        return No("the weights are needed elsewhere and the file may not grow")
    name = next(str(v.name) for v in projections[0].product.inputs[1:] if v is not None)
    packed = draft.const(np.concatenate([p.weight for p in projections], 1), f"{name}/packed")
    bias = draft.const(np.concatenate([p.bias for p in projections]), f"{name}/bias")
    draft.reduction = projections[0].weight.shape[0]
    attributes = {"num_heads": heads, "scale": float(np.float32(scale)), "qkv_hidden_sizes": sizes}
    inputs = [x, packed, bias, *([] if allowed is None else [None, None, allowed])]
    return draft.node("Attention", inputs, attributes, domain=DOMAIN)


def _mask(draft: Draft, mask: ir.Value, extents: list[int | str | None]) -> ir.Value | No:
    """The mask as the operator takes it: with all rows."""
    have = dims(mask)
    batch, heads, length = extents
    if have is None or len(have) != len(HEADS_FIRST):
        return No("the mask is not known to have 4 axes")
    if have[0] not in {1, batch} or have[1] not in {1, heads} or length is None or have[3] != length or None in have:
        return No("the mask is not known to fit the scores")
    if have[2] == length:
        return mask
    if have[2] != 1:
        return No("the mask is not known to fit the scores")
    if isinstance(length, int):
        target = draft.const(np.array([1, 1, length, 1]), f"{mask.name}/rows")
    else:
        shape = draft.node("Shape", [mask])
        last = draft.node("Gather", [shape, draft.const(np.array([3]), f"{mask.name}/last")])
        one, two = (draft.const(np.ones(n, np.int64), f"{mask.name}/ones") for n in (1, 2))
        target = draft.node("Concat", [two, last, one], {"axis": 0})
    return draft.node("Expand", [mask, target])
