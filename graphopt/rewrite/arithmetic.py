"""Arithmetic with constants: fewer operations that compute the same numbers.

    (x · a) · b             → x · ab            both growing or both shrinking
    (x + a) + b             → x + (a + b)       none so large that it rounds x
    (x · a + b) · c         → x · ac + bc       factors as above; also with differences and quotients
    1 / (1 + Exp(−x))       → Sigmoid(x)        float and double, unless its logarithm or quotient is taken

ROUNDING. They are rules of the pass `algebra`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.draft import Draft
from graphopt.graph.nodes import rank
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, No, Rule, rule
from graphopt.match.pattern import Either, Pattern, const, either, op, var
from graphopt.protocol import Context

__all__ = ["ARITHMETIC"]

Array = NDArray[Any]

_FAR = 2.0**20
"""Beyond, a product of two factors may leave the range of its type."""


@rule(op.Mul(op.Mul(var("x"), const("a")), const("b"), name="node"), exactness=Exactness.ROUNDING)
def factors(draft: Draft, _ctx: Context, x: ir.Value, a: Array, b: Array, node: ir.Node) -> Answer:
    """(x · a) · b becomes x · ab."""
    if a.size != 1 or b.size != 1 or max(a.ndim, b.ndim) > (rank(x) or 0):
        return No("a factor is more than one number")
    if a.dtype.kind != "f" or a.dtype.itemsize < np.dtype(np.float32).itemsize:
        return No("the product may be out of range of its type")
    sizes = [abs(float(f.item())) for f in (a, b)]
    if not (all(1 / _FAR <= s <= 1 for s in sizes) or all(1 <= s <= _FAR for s in sizes)):
        return No("what the first factor carries out of range, the second may bring back")
    product = (a.astype(np.float64).reshape(()) * b.astype(np.float64).reshape(())).astype(a.dtype)
    return draft.node("Mul", [x, draft.const(np.asarray(product), f"{node.outputs[0].name}/factor")])


_FLAT = 2.0**10
"""Beyond, a term may be there to round what it is added to, and the next one to take it away again."""


def _sum(x: Pattern, c: str, name: str) -> Either:
    """X plus or minus a constant."""
    return either(op.Add(x, const(c), name=name), op.Sub(x, const(c), name=name))


def _scaled(x: Pattern, c: str, name: str) -> Either:
    """X times a constant, or divided by it."""
    return either(op.Mul(x, const(c), name=name), op.Div(x, const(c), name=name))


def _alike(x: ir.Value, *constants: Array) -> No | None:
    """Why constants cannot be reckoned with each other: only those of a shape, and single numbers, can."""
    shapes = {c.shape for c in constants if c.size != 1}
    if any(c.dtype not in (np.float32, np.float64) or not np.all(np.isfinite(c)) for c in constants):
        return No("the constants are not finite floats of at least 32 bits")
    if len(shapes) > 1 or max(c.ndim for c in constants) > (rank(x) or 0):
        return No("the constants differ in shape, or add axes")
    return None


def _signed(node: ir.Node, c: Array) -> Array:
    """What a constant adds to, or how it scales, the other operand of a node."""
    exact: Array = c.astype(np.float64)
    match node.op_type:
        case "Sub":
            return -exact
        case "Div":
            return 1.0 / exact
        case _:
            return exact


def _constant(draft: Draft, numbers: Array, like: Array, kind: str) -> ir.Value:
    return draft.const(np.asarray(numbers.astype(like.dtype)), f"{draft.root.outputs[0].name}/{kind}")


@rule(_sum(_sum(var("x"), "a", "inner"), "b", "node"), exactness=Exactness.ROUNDING)
def terms(draft: Draft, _ctx: Context, x: ir.Value, a: Array, b: Array, inner: ir.Node, node: ir.Node) -> Answer:
    """(x + a) + b becomes x + (a + b)."""
    problem = _alike(x, a, b)
    if problem is not None:
        return problem
    if not (np.any(a) and np.any(b)):
        return No("adding zeros is another rule's")
    if max(np.max(np.abs(c), initial=0) for c in (a, b)) > _FLAT:
        return No("what the first term rounds away, the second may not bring back")
    return draft.node("Add", [x, _constant(draft, _signed(inner, a) + _signed(node, b), a, "term")])


@rule(_scaled(_sum(_scaled(var("x"), "a", "first"), "b", "middle"), "c", "last"), exactness=Exactness.ROUNDING)
def factor_past_term(
    draft: Draft,
    _ctx: Context,
    x: ir.Value,
    a: Array,
    b: Array,
    c: Array,
    first: ir.Node,
    middle: ir.Node,
    last: ir.Node,
) -> Answer:
    """(x · a + b) · c becomes x · ac + bc."""
    problem = _alike(x, a, b, c)
    if problem is not None:
        return problem
    if not (np.all(a) and np.all(c)):
        return No("a factor is zero")
    factors = [_signed(first, a), _signed(last, c)]
    sizes = np.concatenate([np.abs(f).reshape(-1) for f in factors])
    if not (np.all((sizes >= 1 / _FAR) & (sizes <= 1)) or np.all((sizes >= 1) & (sizes <= _FAR))):
        return No("what the first factor carries out of range, the second may bring back")
    product = draft.node("Mul", [x, _constant(draft, factors[0] * factors[1], a, "factor")])
    shift = _signed(middle, b) * factors[1]
    if np.max(np.abs(shift), initial=0) > np.finfo(np.float32).max:
        return No("the term overflows")
    return draft.node("Add", [product, _constant(draft, shift, a, "term")])


_MAGNIFY = frozenset({"Div", "Log", "Pow", "Reciprocal"})
"""What tells small numbers from 0."""
_ONE_PLUS = op.Add(op.Exp(op.Neg(var("x"))), const("one"))


@rule(either(op.Reciprocal(_ONE_PLUS), op.Div(const("unit"), _ONE_PLUS)), exactness=Exactness.ROUNDING)
def sigmoid(draft: Draft, _ctx: Context, x: ir.Value, one: Array, unit: Array | None = None) -> Answer:
    """1 / (1 + Exp(−x)) becomes Sigmoid(x)."""
    if any(c.ndim or c != 1 for c in (one, unit) if c is not None) or x.dtype not in (
        ir.DataType.FLOAT,
        ir.DataType.DOUBLE,
    ):
        return No("the constants are not the number 1 as a float or double")
    if any(user.op_type in _MAGNIFY for user in draft.root.outputs[0].consumers()):
        return No("small numbers count, which runtimes round to 0 in Sigmoid")
    return draft.node("Sigmoid", [x])


ARITHMETIC: tuple[Rule, ...] = (factors, terms, factor_past_term, sigmoid)
