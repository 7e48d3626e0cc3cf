"""Fuse spelled-out activation functions into standard operators that the model's opset has.

    x · (1 + erf(x / √2)) / 2                       → Gelu(x)                       opset 20
    x · (1 + tanh(√(2/π) · (x + 0.044715 x³))) / 2  → Gelu(x, approximate="tanh")   opset 20
    clip(x + 3, 0, 6) / 6,  clip(x/6 + ½, 0, 1)     → HardSigmoid(x, 1/6, ½)
    clip(a·x + b, 0, 1)                             → HardSigmoid(x, a, b)
    x · clip(x + 3, 0, 6) / 6                       → x · HardSigmoid(x, 1/6, ½)
    x · HardSigmoid(x, 1/6, ½)                      → HardSwish(x)                  opset 14
    x · tanh(Softplus(x))                           → Mish(x)                       opset 18
    x where x > 0, else c·x;  max(x, c·x)           → LeakyRelu(x, c)               opset 9    max: 0 < c < 1
    relu(x) − c·relu(−x)                            → LeakyRelu(x, c)
    the last two with an array c                    → PRelu(x, c)                   opset 9    c broadcasts to x
    max(x, 0)                                       → Relu(x)
    min(max(x, a), b),  max(min(x, b), a)           → Clip(x, a, b)                 opset 11   a ≤ b

Products of several factors may be associated in any way, and /2, /6 and /√2 may be products with the inverse.

Conditions: x is float32; constants have one element and do not add an axis to the result. Those that binary numbers
hold are exact; the others (√2, 1/√2, √(2/π), 1/6, 0.044715) are what x's type makes of them, up to 2 units in the last
place, since exporters round them in different precisions.

Not-a-number, infinity and large numbers: as spelled out, but where an intermediate product overflows although the
function does not (x·6 or x·2 next to the largest float). Sign of zero: Max, Min, Clip and Relu are free to answer
either zero where both occur.

Left as they are: log(1 + exp(x)), which overflows above 88 and vanishes below −17 where Softplus does not; and what was
measured to be slower as one operator in onnxruntime: x·sigmoid(x) (Swish, opset 24), √Σx² (ReduceL2), Σx²
(ReduceSumSquare), x > 0 ? x : exp(x) − 1 (Elu), Reshape-InstanceNormalization-Reshape (GroupNormalization).

ROUNDING: the same function of the reals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
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
from graphopt.match.pattern import Either, NodeOf, Pattern, const, either, number, one_of, op, var
from graphopt.protocol import Context, Pass

__all__ = ["FuseActivation", "erf_gelu", "tanh_gelu"]

Array = NDArray[Any]

ULPS = 2
"""By how much the rounding of a constant may be off that its type does not hold."""

SIXTH: Mapping[str, Any] = MappingProxyType({"alpha": float(np.float32(1 / 6)), "beta": 0.5})

X, ZERO = var("x"), number(0)


def _times(value: Pattern, factor: float) -> Either:
    """A product with a constant, or a division by its inverse; a power of two is exact, and so is its inverse."""
    ulps = 0 if math.frexp(factor)[0] == 0.5 else ULPS  # noqa: PLR2004 - the mantissa of a power of two
    inverse = 1.0 / factor
    exact = round(inverse) == inverse
    return either(op.Mul(value, number(factor, ulps=ulps)), op.Div(value, number(inverse, ulps=0 if exact else ULPS)))


def _gated(x: Pattern, gate: Pattern, factor: float) -> Either:
    """The product x · gate · factor, associated in any way."""
    return either(_times(op.Mul(x, gate), factor), op.Mul(_times(x, factor), gate), op.Mul(x, _times(gate, factor)))


def _clip(value: Pattern) -> NodeOf:
    """Bounds are inputs from opset 11 on, attributes before."""
    return op.Clip(value, const("low", optional=True), const("high", optional=True), name="clip")


def _cubic(x: Pattern) -> Pattern:
    """√(2/π) · (x + 0.044715 x³), multiplied out or not."""
    square = either(op.Mul(x, x), op.Pow(x, number(2)))
    cube = either(op.Pow(x, number(3)), op.Mul(square, x))
    small = number(0.044715, ulps=ULPS)
    small_square = either(op.Mul(square, small), op.Mul(op.Mul(x, small), x))
    small_cube = either(op.Mul(cube, small), op.Mul(small_square, x), op.Mul(op.Mul(x, small), square))
    scale = math.sqrt(2 / math.pi)
    return either(_times(op.Add(x, small_cube), scale), _gated(x, op.Add(small_square, number(1)), scale))


def erf_gelu(x: Pattern) -> Either:
    """The product x · (1 + erf(x / √2)) / 2, associated in any way."""
    erf = op.Erf(_times(x, math.sqrt(0.5)))
    return either(_gated(x, op.Add(erf, number(1)), 0.5), op.Mul(x, op.Add(_times(erf, 0.5), number(0.5))))


def tanh_gelu(x: Pattern) -> Either:
    """The product x · (1 + tanh(√(2/π) · (x + 0.044715 x³))) / 2, associated in any way."""
    return _gated(x, op.Add(op.Tanh(_cubic(x)), number(1)), 0.5)


SHIFTED = _clip(op.Add(X, number(3)))
NEGATIVE = op.Mul(X, const("slope"))


@rule(erf_gelu(X), exactness=Exactness.ROUNDING, since=20)
def gelu(draft: Draft, _ctx: Context, x: ir.Value) -> Answer:
    """The product x · (1 + erf(x / √2)) / 2 becomes Gelu."""
    return _of(draft, x, "Gelu")


@rule(tanh_gelu(X), exactness=Exactness.ROUNDING, since=20)
def gelu_tanh(draft: Draft, _ctx: Context, x: ir.Value) -> Answer:
    """The product x · (1 + tanh(√(2/π) · (x + 0.044715 x³))) / 2 becomes Gelu."""
    return _of(draft, x, "Gelu", approximate="tanh")


@rule(_times(SHIFTED, 1 / 6), exactness=Exactness.ROUNDING, since=6)
def hard_sigmoid(
    draft: Draft, _ctx: Context, x: ir.Value, clip: ir.Node, low: Array | None, high: Array | None
) -> Answer:
    """clip(x + 3, 0, 6) / 6 becomes HardSigmoid."""
    if _bounds(clip, low, high) != (0.0, 6.0):
        return No("it is not clipped to 0 and 6")
    return _of(draft, x, "HardSigmoid", **SIXTH)


@rule(
    _clip(
        either(
            op.Add(op.Mul(X, const("slope")), const("offset")),
            op.Add(op.Div(X, const("divisor")), const("offset")),
            op.Mul(op.Add(X, const("shift")), const("slope")),
            op.Div(op.Add(X, const("shift")), const("divisor")),
        )
    ),
    exactness=Exactness.ROUNDING,
    since=6,
)
def clipped_line(
    draft: Draft,
    _ctx: Context,
    x: ir.Value,
    clip: ir.Node,
    low: Array | None,
    high: Array | None,
    slope: Array | None = None,
    divisor: Array | None = None,
    offset: Array | None = None,
    shift: Array | None = None,
) -> Answer:
    """clip(a·x + b, 0, 1) becomes HardSigmoid."""
    if _bounds(clip, low, high) != (0.0, 1.0):
        return No("it is not clipped to 0 and 1")
    given = [float(a.reshape(-1)[0]) for a in (slope, divisor, offset, shift) if a is not None and a.size == 1]
    if len(given) != 2 or not all(map(math.isfinite, given)) or (divisor is not None and not divisor.all()):  # noqa: PLR2004 - a and b
        return No("slope and offset are not two finite numbers")
    producer = x.producer()
    if producer is not None and ops.linears(producer) and len(x.uses()) == 1:
        return No("the product before it takes in slope and offset")
    alpha = given[0] if divisor is None else 1 / given[0]
    beta = given[1] if shift is None else given[1] * alpha
    if not math.isfinite(np.float32(alpha)) or not math.isfinite(np.float32(beta)):
        return No("slope or offset overflow")
    return _of(draft, x, "HardSigmoid", alpha=alpha, beta=beta)


@rule(
    either(_times(op.Mul(X, SHIFTED), 1 / 6), op.Mul(_times(X, 1 / 6), SHIFTED)),
    exactness=Exactness.ROUNDING,
    since=6,
)
def hard_gate(draft: Draft, _ctx: Context, x: ir.Value, clip: ir.Node, low: Array | None, high: Array | None) -> Answer:
    """The product x · clip(x + 3, 0, 6) / 6 becomes x · HardSigmoid(x)."""
    if _bounds(clip, low, high) != (0.0, 6.0):
        return No("it is not clipped to 0 and 6")
    gate = _of(draft, x, "HardSigmoid", **SIXTH)
    return gate if isinstance(gate, No) else draft.node("Mul", [x, gate])


@rule(op.Mul(X, op.HardSigmoid(X, name="gate")), exactness=Exactness.ROUNDING, since=14)
def hard_swish(draft: Draft, _ctx: Context, x: ir.Value, gate: ir.Node) -> Answer:
    """The product x · HardSigmoid(x, 1/6, ½) becomes HardSwish."""
    sixth = np.float32(1 / 6)
    slope = np.float32(attr(gate, "alpha", 0.2))
    if abs(slope - sixth) > ULPS * np.spacing(sixth) or attr(gate, "beta", 0.5) != 0.5:  # noqa: PLR2004
        return No("its slope and offset are not 1/6 and 1/2")
    return _of(draft, x, "HardSwish")


@rule(op.Mul(X, op.Tanh(op.Softplus(X))), exactness=Exactness.ROUNDING, since=18)
def mish(draft: Draft, _ctx: Context, x: ir.Value) -> Answer:
    """The product x · tanh(Softplus(x)) becomes Mish."""
    return _of(draft, x, "Mish")


@rule(
    either(
        op.Where(
            either(one_of("Greater", "GreaterOrEqual")(X, ZERO), one_of("Less", "LessOrEqual")(ZERO, X)), X, NEGATIVE
        ),
        op.Where(
            either(one_of("Less", "LessOrEqual")(X, ZERO), one_of("Greater", "GreaterOrEqual")(ZERO, X)), NEGATIVE, X
        ),
        op.Sub(op.Relu(X), op.Mul(op.Relu(op.Neg(X)), const("slope"))),
        op.Add(op.Relu(X), op.Mul(op.Relu(op.Neg(X)), const("falling"))),
        op.Max(X, op.Mul(X, const("below_one"))),
    ),
    exactness=Exactness.ROUNDING,
    since=9,
)
def leaky_relu(
    draft: Draft,
    _ctx: Context,
    x: ir.Value,
    slope: Array | None = None,
    falling: Array | None = None,
    below_one: Array | None = None,
) -> Answer:
    """A value where it is positive, else a multiple of it, becomes LeakyRelu or PRelu."""
    if below_one is not None:
        if not np.all((below_one > 0) & (below_one < 1)):
            return No("the larger one is the other one unless the slope lies between 0 and 1")
        slope = below_one
    if falling is not None:
        slope = -falling
    if slope is None or slope.dtype != np.float32 or not np.all(np.isfinite(slope)):
        return No("the slope is not made of finite float32 numbers")
    if slope.size == 1:
        return _of(draft, x, "LeakyRelu", alpha=float(slope.reshape(-1)[0]))
    extents = list(x.shape or ())[-slope.ndim :]
    if len(extents) != slope.ndim or any(have not in {1, d} for have, d in zip(slope.shape, extents, strict=True)):
        return No("the slopes are not known to broadcast to the value")
    return _of(draft, x, "PRelu", [draft.const(slope, f"{draft.root.outputs[0].name}/slope")])


@rule(op.Max(X, ZERO), exactness=Exactness.ROUNDING, since=6)
def relu(draft: Draft, _ctx: Context, x: ir.Value) -> Answer:
    """max(x, 0) becomes Relu."""
    return _of(draft, x, "Relu")


@rule(
    either(
        op.Min(op.Max(X, const("low")), const("high")),
        op.Max(op.Min(X, const("high")), const("low")),
        op.Min(op.Relu(X), const("high")),
        op.Relu(op.Min(X, const("high"))),
    ),
    exactness=Exactness.ROUNDING,
    since=11,
)
def bounds(draft: Draft, _ctx: Context, x: ir.Value, high: Array, low: Array | None = None) -> Answer:
    """Max and Min with one number each become Clip."""
    lowest = np.zeros((), np.float32) if low is None else low
    if lowest.size != 1 or high.size != 1:
        return No("the bounds are not one number each")
    if not lowest.reshape(()) <= high.reshape(()):
        return No("the bounds cross")
    name = draft.root.outputs[0].name
    ends = [draft.const(end.reshape(()), f"{name}/{hint}") for hint, end in (("min", lowest), ("max", high))]
    return _of(draft, x, "Clip", ends)


RULES: tuple[Rule, ...] = (
    gelu,
    gelu_tanh,
    hard_sigmoid,
    clipped_line,
    hard_gate,
    hard_swish,
    mish,
    leaky_relu,
    bounds,
    relu,
)


@dataclass(frozen=True)
class FuseActivation(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "fuse-activation"
    summary: ClassVar[str] = "spelled-out Gelu, HardSigmoid, HardSwish, LeakyRelu, Clip and others into operators"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    rules: ClassVar[Mapping[str, str]] = described(RULES)

    def run(self, edit: Editor, ctx: Context) -> None:
        """Until no rule fires any more."""
        rewrite(edit, ctx, RULES)


def _of(draft: Draft, x: ir.Value, operator: str, more: Sequence[ir.Value] = (), **attributes: Any) -> ir.Value | No:
    """The operator on x, if x is float32 and the root has its shape: its constants added no axis."""
    if x.dtype is not ir.DataType.FLOAT:
        return No("it is not known to be float32")
    if rank(x) is None or rank(draft.root.outputs[0]) != rank(x):
        return No("the constants may add an axis")
    return draft.node(operator, [x, *more], attributes)


def _bounds(clip: ir.Node, low: Array | None, high: Array | None) -> tuple[float, float] | None:
    """What a Clip clips to, from inputs or attributes; None where it is not two numbers."""
    if low is None and high is None:
        ends = attr(clip, "min"), attr(clip, "max")
        return None if None in ends else (float(ends[0]), float(ends[1]))
    if low is None or high is None:
        return None
    return float(low.reshape(-1)[0]), float(high.reshape(-1)[0])
