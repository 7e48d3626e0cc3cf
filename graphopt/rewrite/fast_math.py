"""Fast math: algebra that holds for the numbers a model is made for, but not for all floats.

    Pow(x, ½),  Pow(x, −½)          → Sqrt(x),  Reciprocal(Sqrt(x))     else for −0 and −∞
    Exp(Log(x)),  Sqrt(x)·Sqrt(x)   → x                                 not for x < 0
    Log(Exp(x))                     → x                                 not where Exp overflows
    Sqrt(x·x),  Sqrt(Pow(x, 2))     → Abs(x)                            not where the square overflows or vanishes
    Log(Softmax(x))                 → LogSoftmax(x)                     not where Softmax vanishes
    Log(Exp(x) + 1)                 → Softplus(x)                       not where Exp overflows

ROUNDING, and only under `--fast-math`. They are rules of the pass `algebra`.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.draft import Draft
from graphopt.graph.nodes import array
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, No, Rule, rule
from graphopt.match.pattern import const, either, number, op, var
from graphopt.protocol import Context

__all__ = ["FAST"]

X = var("x")
SQUARE = either(op.Mul(X, X), op.Pow(X, number(2), name="square"))


def _adds_axes(node: ir.Node | None) -> bool:
    """Whether a constant that the node reads has axes of its own."""
    read = () if node is None else (array(v) for v in node.inputs)
    return any(c is not None and c.ndim for c in read)


@rule(op.Pow(X, const("exponent")), exactness=Exactness.ROUNDING, since=7, fast=True)
def square_root(draft: Draft, _ctx: Context, x: ir.Value, exponent: NDArray[Any]) -> Answer:
    """The power of ½ is a square root."""
    power = None if exponent.ndim else exponent.item()
    if power not in {0.5, -0.5} or x.dtype is None or not x.dtype.is_floating_point():
        return No("the exponent is not ½ or −½")
    root = draft.node("Sqrt", [x])
    return root if exponent > 0 else draft.node("Reciprocal", [root])


@rule(
    either(
        op.Exp(op.Log(X)),
        op.Log(op.Exp(X)),
        op.Mul(op.Sqrt(X), op.Sqrt(X)),
        op.Pow(op.Sqrt(X), number(2), name="square"),
    ),
    exactness=Exactness.ROUNDING,
    fast=True,
)
def undone(_draft: Draft, _ctx: Context, x: ir.Value, square: ir.Node | None = None) -> Answer:
    """What is undone at once is not done."""
    return No("the exponent may add axes") if _adds_axes(square) else x


@rule(op.Sqrt(SQUARE), exactness=Exactness.ROUNDING, fast=True)
def root_of_square(draft: Draft, _ctx: Context, x: ir.Value, square: ir.Node | None = None) -> Answer:
    """The root of a square is the absolute value."""
    return No("the exponent may add axes") if _adds_axes(square) else draft.node("Abs", [x])


@rule(op.Log(op.Softmax(X, name="softmax")), exactness=Exactness.ROUNDING, fast=True)
def log_of_softmax(draft: Draft, _ctx: Context, x: ir.Value, softmax: ir.Node) -> Answer:
    """The logarithm of Softmax is LogSoftmax."""
    attributes = {a.name: a.value for a in softmax.attributes.values()}
    return draft.node("LogSoftmax", [x], attributes)


@rule(op.Log(op.Add(op.Exp(X), number(1), name="plus")), exactness=Exactness.ROUNDING, fast=True)
def softplus(draft: Draft, _ctx: Context, x: ir.Value, plus: ir.Node) -> Answer:
    """Log(1 + Exp(x)) is Softplus."""
    return No("the constant may add axes") if _adds_axes(plus) else draft.node("Softplus", [x])


FAST: tuple[Rule, ...] = (square_root, undone, root_of_square, log_of_softmax, softplus)
