"""Fuse what stands around a matrix product or convolution into it.

    (c·x)·W,  (x/c)·W               → x·(cW),  x·(W/c)      c one number; any product with a constant weight
    (x·W + b)·c,  (x·W + b)/c       → x·(cW) + cb           where the operator has no bias, so that the sum is an Add
    (c·A)·(d·B)                     → (cd·A)·B              MatMul of two computed values
    Gemm(Aᵀ, B),  Gemm(A, Bᵀ)       → Gemm(A, B)            with the other transA or transB
    MatMul(Aᵀ, B),  MatMul(A, Bᵀ)   → Gemm(A, B)            of two matrices, opset 11

Conditions: everything is float32; a number has one element and adds no axis; it is finite and not zero, and what it is
multiplied into neither overflows nor vanishes; a Transpose swaps two axes. Half of a product (x·y/2) stays: by it
runtimes recognize Gelu, and are faster with that than with one factor less.

What comes after a product whose operator has a bias is the business of `linear.py`.

ROUNDING: the same function of the reals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.nodes import attr, rank
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, No, Rule, described, rewrite, rule
from graphopt.match.pattern import const, either, linear, one_of, op, var
from graphopt.ops import Linear
from graphopt.protocol import Context, Pass
from graphopt.rewrite.ask import made_by

__all__ = ["FuseProduct"]

Array = NDArray[Any]

_HALF = 0.5
MATRIX = 2
"""The rank of one."""


@rule(
    one_of("Conv", "ConvTranspose", "Gemm", "MatMul")(
        either(op.Mul(var("x"), const("factor")), op.Div(var("x"), const("divisor"))),
        var("_weight"),
        var("_bias", optional=True),
        name="node",
    ),
    exactness=Exactness.ROUNDING,
)
def fold_factor(
    draft: Draft,
    ctx: Context,
    x: ir.Value,
    _weight: ir.Value,
    node: ir.Node,
    factor: Array | None = None,
    divisor: Array | None = None,
    _bias: ir.Value | None = None,
) -> Answer:
    """A factor of the data of a product goes into the weight."""
    found = ops.linears(node)
    if len(found) != 1 or found[0].x != 0:
        return No("the weight is not constant")
    scaled = node.inputs[0]
    number = _number(factor, divisor, x, scaled)
    if isinstance(number, No):
        return number
    if number == _HALF and made_by(x, "Mul") is not None:
        return No("it may be the half by which runtimes recognize Gelu")
    return _scaled(draft, ctx, found[0], number, [x, *node.inputs[1:]])


@rule(
    either(
        op.Mul(op.Add(linear("lin"), const("term")), const("factor")),
        op.Div(op.Add(linear("lin"), const("term")), const("divisor")),
    ),
    exactness=Exactness.ROUNDING,
)
def scale_past_shift(
    draft: Draft,
    ctx: Context,
    lin: Linear,
    term: Array,
    factor: Array | None = None,
    divisor: Array | None = None,
) -> Answer:
    """A factor of a product plus a constant goes into both."""
    if lin.bias is not None:
        return No("the operator has a bias for the constant")
    y = lin.node.outputs[0]
    number = _number(factor, divisor, y, draft.root.outputs[0])
    if isinstance(number, No):
        return number
    shift = _times(term, number)
    if not _holds(term, shift):
        return No("the constant overflows or vanishes")
    fused = _scaled(draft, ctx, lin, number, list(lin.node.inputs))
    if isinstance(fused, No):
        return fused
    return draft.node("Add", [fused, draft.const(shift, f"{draft.root.outputs[0].name}/shift")])


@rule(op.MatMul(op.Mul(var("a"), const("c")), op.Mul(var("b"), const("d")), name="node"), exactness=Exactness.ROUNDING)
def merge_factors(draft: Draft, _ctx: Context, a: ir.Value, b: ir.Value, c: Array, d: Array, node: ir.Node) -> Answer:
    """Factors of both operands become one of the left one."""
    left, right = _number(c, None, a, node.inputs[0]), _number(d, None, b, node.inputs[1])
    if isinstance(left, No):
        return left
    if isinstance(right, No):
        return right
    both = _times(np.asarray(left, np.float32), right)
    if not _holds(np.asarray(left), both):
        return No("the product of the factors overflows or vanishes")
    scaled = draft.node("Mul", [a, draft.const(both, f"{node.outputs[0].name}/factor")])
    return draft.node("MatMul", [scaled, b])


@rule(
    either(
        op.Gemm(op.Transpose(var("a"), name="left"), var("b"), var("c", optional=True), name="node"),
        op.Gemm(var("a"), op.Transpose(var("b"), name="right"), var("c", optional=True), name="node"),
        op.MatMul(op.Transpose(var("a"), name="left"), var("b"), name="node"),
        op.MatMul(var("a"), op.Transpose(var("b"), name="right"), name="node"),
    ),
    exactness=Exactness.ROUNDING,
    since=11,
)
def transposed_operand(
    draft: Draft,
    _ctx: Context,
    a: ir.Value,
    b: ir.Value,
    node: ir.Node,
    left: ir.Node | None = None,
    right: ir.Node | None = None,
    c: ir.Value | None = None,
) -> Answer:
    """A transposed operand of a product of matrices is read transposed by Gemm."""
    if a.dtype is not ir.DataType.FLOAT or rank(a) != MATRIX or rank(b) != MATRIX:
        return No("they are not known to be matrices of float32")
    name, transpose = ("transA", left) if left is not None else ("transB", right)
    if transpose is None or tuple(attr(transpose, "perm", (1, 0))) != (1, 0):
        return No("it does not swap the axes")
    changed = {name: 1 - attr(node, name, 0)}
    inputs = [a, b] if c is None else [a, b, c]
    return draft.like(node, inputs, **changed) if node.op_type == "Gemm" else draft.node("Gemm", inputs, changed)


RULES: tuple[Rule, ...] = (fold_factor, scale_past_shift, merge_factors, transposed_operand)


@dataclass(frozen=True)
class FuseProduct(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "fuse-product"
    summary: ClassVar[str] = "factors and transpositions before a product, and factors after its sum, into the product"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    rules: ClassVar[Mapping[str, str]] = described(RULES)

    def run(self, edit: Editor, ctx: Context) -> None:
        """Until no rule fires any more."""
        rewrite(edit, ctx, RULES)


def _number(factor: Array | None, divisor: Array | None, value: ir.Value, scaled: ir.Value | None) -> float | No:
    """What `value` is multiplied with to give `scaled`, if that is one usable number."""
    constant = divisor if factor is None else factor
    if constant is None or constant.size != 1 or constant.dtype != np.float32:
        return No("the factor is not one float32 number")
    if rank(value) is None or rank(scaled) != rank(value):
        return No("the factor may add an axis")
    number = float(constant.reshape(-1)[0])
    if number == 0 or not np.isfinite(number):
        return No("the factor is zero or not finite")
    return number if factor is not None else 1.0 / number


def _times(constant: Array, number: float) -> Array:
    """The product, rounded once."""
    with np.errstate(all="ignore"):
        return np.asarray((constant.astype(np.float64) * number).astype(constant.dtype))


def _holds(before: Array, after: Array) -> bool:
    """Whether scaled numbers neither overflowed nor lost digits below the smallest normal number."""
    tiny = np.finfo(np.float32).tiny
    lost = (np.abs(after) < tiny) & (np.abs(before) >= tiny)
    return bool(np.all(np.isfinite(after)) and np.count_nonzero(after) == np.count_nonzero(before) and not lost.any())


def _scaled(draft: Draft, ctx: Context, lin: Linear, number: float, inputs: list[ir.Value | None]) -> ir.Value | No:
    """The node with other inputs and its weight times a number; the bias stays as it is."""
    old, weight = inputs[lin.weight], lin.weights
    fresh = _times(weight, number)
    if weight.dtype != np.float32 or not _holds(weight, fresh):
        return No("the weight is not float32, or overflows or vanishes")
    if old is None or (len(old.uses()) > 1 and not ctx.ledger.spend(fresh.nbytes)):
        return No("the weight is shared and the file may not grow")
    inputs[lin.weight] = draft.const(fresh, str(old.name))
    draft.reduction = lin.reduction
    return draft.like(lin.node, inputs)
