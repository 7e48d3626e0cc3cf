"""Matrix products take in what stands around them.

    act(Gemm(a, b, c))                        → FusedGemm(a, b, c, activation=act)      see `ACTIVATIONS`
    c · (A·B),  (A·B) / c,  (c·A)·B, …        → FusedMatMul(A, B, alpha=c)
    Aᵀ·B,  A·Bᵀ                               → FusedMatMul(A, B, transA=1), transB=1   of the last two axes

A·B is a MatMul or what has been made of one already.

Conditions: float32, or float16 where the target has kernels for that, which multiply by c before they round; nothing
else needs the inner result; c is one number between 2⁻²⁰ and 2²⁰, up to its sign, so that products stay in range, and
adds no axis. Both operands of a transposed product have the same rank of at least 2, or the other one is a matrix; the
sums are known not to be empty, and where batches are broadcast, no extent is 0: the kernel makes other shapes then, and
leaves empty sums unwritten.
Scores that a mask is added to before a Softmax stay as they are: the runtime knows attention in that form.

Not-a-number and infinity: as spelled out, by measurement, unless c times a product overflows in between. Speed: Gemm,
1 × 512 × 512 and 64 × 256 × 1024, 0.99 to 1.01 times the time of the two operators; products of 8 heads, 128 × 256
and 128 × 768, 0.99 to 1.00.

ROUNDING: the same function of the reals. Source: onnxruntime, docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np
import onnx_ir as ir

from graphopt.graph.draft import Draft
from graphopt.graph.nodes import attr, is_constant, rank, scalar
from graphopt.graph.record import Exactness
from graphopt.lower.activation import parameters
from graphopt.lower.kernel import lacking
from graphopt.match.engine import Answer, No, Rule, rule
from graphopt.match.pattern import contrib, either, one_of, op, var
from graphopt.ops.runtime import DOMAIN
from graphopt.protocol import Context
from graphopt.rewrite.ask import dims, made_by, perm_of, read_only_by, same_dims

__all__ = ["RULES"]

ACTIVATIONS = (
    *("Relu", "LeakyRelu", "ThresholdedRelu", "Elu", "Selu"),
    *("Sigmoid", "HardSigmoid", "Tanh", "Softplus", "Softsign"),
)
"""What FusedGemm's kernel computes."""

PRODUCT = either(op.MatMul(name="product"), contrib.FusedMatMul(name="product"))
MATRIX = 2
_FAR = 2.0**20
"""Beyond, a product may leave the range of its type with its factor, or without it."""
_OPEN = 1024
"""Taken for an extent that is not known, where the length of a sum is asked for."""


@rule(one_of(*ACTIVATIONS)(op.Gemm(name="gemm"), name="act"), exactness=Exactness.ROUNDING)
def fused_gemm(draft: Draft, ctx: Context, gemm: ir.Node, act: ir.Node) -> Answer:
    """An activation behind a Gemm goes into it."""
    a = gemm.inputs[0]
    if (lack := lacking(ctx, "FusedGemm", a)) is not None:
        return lack
    draft.reduction = _length(a)
    own = {name: each.value for name, each in gemm.attributes.items()}
    fused = {"activation": act.op_type} | {f"activation_{name}": v for name, v in parameters(act).items()}
    return draft.node("FusedGemm", gemm.inputs, own | fused, domain=DOMAIN)


@rule(either(op.Mul(PRODUCT, var("factor")), op.Div(PRODUCT, var("divisor"))), exactness=Exactness.ROUNDING)
def scaled_product(
    draft: Draft, ctx: Context, product: ir.Node, factor: ir.Value | None = None, divisor: ir.Value | None = None
) -> Answer:
    """A number times a matrix product goes into it."""
    if _is_masked(draft.root.outputs[0]):
        return No("the runtime makes one node of attention with a mask when it loads it as it is")
    number = _number(factor, divisor, product.outputs[0])
    if isinstance(number, No):
        return number
    return _product(draft, ctx, product, product.inputs, alpha=number)


@rule(PRODUCT, exactness=Exactness.ROUNDING)
def scaled_operand(draft: Draft, ctx: Context, product: ir.Node) -> Answer:
    """A number times an operand of a matrix product goes into it."""
    for index, operand in enumerate(product.inputs):
        node = made_by(operand, "Mul", "Div")
        if node is None or operand is None or not read_only_by(operand, product):
            continue
        for at in (0, 1) if node.op_type == "Mul" else (1,):
            given, source = node.inputs[at], node.inputs[1 - at]
            factor, divisor = (given, None) if node.op_type == "Mul" else (None, given)
            number = _number(factor, divisor, source)
            if source is not None and not isinstance(number, No):
                inputs = [source if i == index else v for i, v in enumerate(product.inputs)]
                return _product(draft, ctx, product, inputs, alpha=number)
    return No("no operand is a number times something that is needed nowhere else")


@rule(PRODUCT, exactness=Exactness.ROUNDING)
def transposed_product(draft: Draft, ctx: Context, product: ir.Node) -> Answer:
    """A Transpose of the last two axes before a matrix product goes into it."""
    for index, operand in enumerate(product.inputs):
        node = made_by(operand, "Transpose")
        if node is None or operand is None or not read_only_by(operand, product):
            continue
        perm, axes, other = perm_of(node), rank(operand), rank(product.inputs[1 - index])
        if perm is None or axes is None or perm != [*range(axes - 2), axes - 1, axes - 2]:
            continue
        if other is None or other not in {MATRIX, axes}:
            return No("the operands have not the same rank")
        problem = _empty(product, turns_left=index == 0)
        if problem is not None:
            return problem
        inputs = [node.inputs[0] if i == index else v for i, v in enumerate(product.inputs)]
        return _product(draft, ctx, product, inputs, turned="transA" if index == 0 else "transB")
    return No("no operand is a Transpose of the last two axes that is needed nowhere else")


RULES: tuple[Rule, ...] = (fused_gemm, scaled_product, scaled_operand, transposed_product)


def _empty(product: ir.Node, *, turns_left: bool) -> No | None:
    """Where the kernel fails once an operand is transposed: empty sums, and empty extents beside broadcast batches."""
    left, right = (dims(v) or [] for v in product.inputs)
    summed = (left[-2 if attr(product, "transA", 0) else -1], right[-1 if attr(product, "transB", 0) else -2])
    if not any(isinstance(extent, int) and extent for extent in summed):
        return No("the sums may be empty")
    if same_dims(left[:-2], right[:-2]) or all(isinstance(extent, int) and extent for extent in (*left, *right)):
        return None
    if len(left) == MATRIX or (len(right) == MATRIX and turns_left == bool(attr(product, "transA", 0))):
        return None
    return No("batches are broadcast, and something may be empty")


def _is_masked(scores: ir.Value) -> bool:
    """Whether something is added to the value before a Softmax."""
    sums = [v for user in scores.consumers() if user.op_type == "Add" for v in user.outputs]
    return any(reader.op_type == "Softmax" for v in sums for reader in v.consumers())


def _number(factor: ir.Value | None, divisor: ir.Value | None, scaled: ir.Value | None) -> float | No:
    """What `scaled` is multiplied by, if that is one number and leaves its shape alone."""
    given = factor if divisor is None else divisor
    number, axes = scalar(given) if is_constant(given) else None, rank(scaled)
    if number is None or axes is None or (rank(given) or 0) > axes:
        return No("the factor is not one number that leaves the shape alone")
    with np.errstate(all="ignore"):
        found = float(np.float32(number if divisor is None else 1 / number))
    return found if isfinite(found) and found else No("the factor is not a finite number other than 0")


def _product(
    draft: Draft,
    ctx: Context,
    product: ir.Node,
    inputs: Sequence[ir.Value | None],
    *,
    alpha: float = 1.0,
    turned: str | None = None,
) -> Answer:
    """The product with another factor, or with one operand transposed once more."""
    a = product.inputs[0]
    if (lack := lacking(ctx, "FusedMatMul", a)) is not None:
        return lack
    own = {name: each.value for name, each in product.attributes.items()}
    if attr(product, "transBatchA", 0) or attr(product, "transBatchB", 0):
        return No("the batch is transposed as well")
    number = float(np.float32(own.get("alpha", 1.0) * alpha))
    if not 1 / _FAR <= abs(number) <= _FAR:
        return No("the product without the factor may leave the range of its type")
    own["alpha"] = number
    if turned is not None:
        own[turned] = 1 - own.get(turned, 0)
    if number == 1:
        del own["alpha"]
    draft.reduction = _length(a)
    return draft.node("FusedMatMul", inputs, own, domain=DOMAIN)


def _length(a: ir.Value | None) -> int:
    """Length of the sums, as far as it is known."""
    extent = (dims(a) or [None])[-1]
    return extent if isinstance(extent, int) else _OPEN
