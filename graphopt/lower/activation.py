"""Activations that are one operator of onnxruntime's own.

    x · sigmoid(x),  x · sigmoid(a·x)         → QuickGelu(x, alpha=a)
    Gelu(x + b)                               → BiasGelu(x, b)           b: a number for each element of the last axis
    Gelu(x + b, approximate="tanh")           → FastGelu(x, b)
    x · (1 + erf(x / √2)) / 2                 → Gelu(x)                  before opset 20, which has it
    x · (1 + tanh(√(2/π) · …)) / 2            → FastGelu(x)              before opset 20

Gelu stands for the operator of opset 20 and for both ways to spell it.

Conditions: x is float32, or float16 where the target has kernels for that; no constant adds an axis; a is one number; b
is a constant vector, and the last axis of x is known to be as long, so that the sum is not wider than x.

Not-a-number and infinity: as spelled out, by measurement; where a·x overflows, the sigmoid is 0 or 1 either way.
Speed, 128 × 256 and 128 × 768: 0.99 to 1.01 times the time of the operators they replace.

ROUNDING: the same function of the reals. Source: onnxruntime, docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from types import MappingProxyType

import onnx_ir as ir

from graphopt.fuse.activation import erf_gelu, tanh_gelu
from graphopt.graph.draft import Draft
from graphopt.graph.nodes import attr, is_constant, rank, scalar, static_shape
from graphopt.graph.record import Exactness
from graphopt.lower.kernel import lacking
from graphopt.match.engine import Answer, No, Rule, rule
from graphopt.match.pattern import either, op, var
from graphopt.ops.runtime import DOMAIN
from graphopt.protocol import Context
from graphopt.rewrite.ask import dims

__all__ = ["RULES", "parameters"]

PARAMETERS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "LeakyRelu": {"alpha": 0.01},
        "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
        "Elu": {"alpha": 1.0},
        "Selu": {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
        "ThresholdedRelu": {"alpha": 1.0},
    }
)
"""The attributes of activations that have any, with their defaults, in their order."""

X = var("x")
SUM = op.Add(var("x"), var("bias"))


def parameters(act: ir.Node) -> dict[str, float]:
    """The attributes of an activation, all of them given."""
    return {name: float(attr(act, name, default)) for name, default in PARAMETERS.get(act.op_type, {}).items()}


@rule(
    either(op.Mul(X, op.Sigmoid(X)), op.Mul(X, op.Sigmoid(op.Mul(X, var("factor"))))),
    exactness=Exactness.ROUNDING,
)
def quick_gelu(draft: Draft, ctx: Context, x: ir.Value, factor: ir.Value | None = None) -> Answer:
    """A product x · sigmoid(a·x) becomes QuickGelu."""
    alpha = 1.0 if factor is None else scalar(factor)
    if (lack := lacking(ctx, "QuickGelu", x)) is not None:
        return lack
    if alpha is None or not isfinite(alpha):
        return No("the factor is not one finite number")
    if factor is not None and len(static_shape(factor) or ()) > len(dims(x) or ()):
        return No("the factor has more axes than x")
    return draft.node("QuickGelu", [x], {"alpha": float(alpha)}, domain=DOMAIN)


@rule(
    either(op.Gelu(SUM, name="gelu"), erf_gelu(op.Add(X, var("bias"), name="sum"))),
    exactness=Exactness.ROUNDING,
)
def bias_gelu(
    draft: Draft, ctx: Context, x: ir.Value, bias: ir.Value, gelu: ir.Node | None = None, **_: ir.Node
) -> Answer:
    """A Gelu takes in the bias before it."""
    operator = "FastGelu" if gelu is not None and attr(gelu, "approximate", "none") == "tanh" else "BiasGelu"
    return _biased(draft, ctx, operator, x, bias)


@rule(tanh_gelu(op.Add(X, var("bias"), name="sum")), exactness=Exactness.ROUNDING)
def bias_fast_gelu(draft: Draft, ctx: Context, x: ir.Value, bias: ir.Value, **_: ir.Node) -> Answer:
    """A Gelu by tanh takes in the bias before it."""
    return _biased(draft, ctx, "FastGelu", x, bias)


@rule(erf_gelu(X), exactness=Exactness.ROUNDING)
def spelled_gelu(draft: Draft, ctx: Context, x: ir.Value) -> Answer:
    """A spelled-out Gelu becomes the runtime's, where the opset has none."""
    return _plain(draft, ctx, "Gelu", x)


@rule(tanh_gelu(X), exactness=Exactness.ROUNDING)
def spelled_fast_gelu(draft: Draft, ctx: Context, x: ir.Value) -> Answer:
    """A spelled-out Gelu by tanh becomes the runtime's, where the opset has none."""
    return _plain(draft, ctx, "FastGelu", x)


RULES: tuple[Rule, ...] = (quick_gelu, bias_gelu, bias_fast_gelu, spelled_gelu, spelled_fast_gelu)


def _biased(draft: Draft, ctx: Context, operator: str, x: ir.Value, bias: ir.Value) -> Answer:
    shape, extents = static_shape(bias), dims(x)
    if (lack := lacking(ctx, operator, x)) is not None:
        return lack
    if _widens(draft, x):
        return No("a constant may add an axis")
    if not is_constant(bias) or shape is None or len(shape) != 1:
        return No("what is added is not a constant vector")
    if not extents or extents[-1] != shape[0]:
        return No("the last axis is not known to be as long as the bias")
    return draft.node(operator, [x, bias], domain=DOMAIN)


def _plain(draft: Draft, ctx: Context, operator: str, x: ir.Value) -> Answer:
    if (lack := lacking(ctx, operator, x)) is not None:
        return lack
    if _widens(draft, x):
        return No("a constant may add an axis")
    return draft.node(operator, [x], domain=DOMAIN)


def _widens(draft: Draft, x: ir.Value) -> bool:
    """Whether the result may have more axes than x."""
    return rank(x) is None or rank(draft.root.outputs[0]) != rank(x)
