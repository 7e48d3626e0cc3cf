"""Activations go into the convolution before them.

    act(Conv(x, w, b))  → FusedConv(x, w, b, activation=act)      act: as the target has it (`Target.behind`)

On the CPU these are Relu, LeakyRelu, Clip, HardSigmoid, Sigmoid and Tanh.

Conditions: x is float32, the only type of the kernel; nothing else needs the convolution's result; bounds of Clip are
numbers that no feed can change, the lower one not above the upper one.

Not-a-number and infinity: as spelled out, by measurement. Speed, 64 channels of 56 × 56, one thread: 0.98 to 1.01
times the time of the two operators, which onnxruntime fuses itself when it loads a model; the gain is in nodes and
loading.

Left as it is: act(Conv(x, w, b) + z), whose kernel keeps the layout that blocks channels away from all convolutions
around it, 1.2 to 1.5 times the time of the three operators. On CUDA, all of it: FusedConv is there for old models only.
It calls an older interface of cuDNN than Conv does, and with a z it needs a bias, two spatial axes and even padding:
without a bias it reads a null pointer, in the others z is laid out unlike what it is added to.

ROUNDING: the same function of the reals. Source: onnxruntime, docs/ContribOperators.md, com.microsoft.FusedConv;
contrib_ops/cuda/fused_conv.cc; pull request 19470.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.draft import Draft
from graphopt.graph.nodes import attr, static_shape
from graphopt.graph.record import Exactness
from graphopt.lower.activation import parameters
from graphopt.lower.kernel import lacking
from graphopt.match.engine import Answer, No, Rule, rule
from graphopt.match.pattern import const, either, one_of, op
from graphopt.ops.runtime import DOMAIN
from graphopt.protocol import Context

__all__ = ["RULES"]

Array = NDArray[Any]

CONV = op.Conv(name="conv")
HIGHEST = float(np.finfo(np.float32).max)


@rule(
    either(
        one_of("Relu", "LeakyRelu", "HardSigmoid", "Sigmoid", "Tanh")(CONV, name="act"),
        op.Clip(CONV, const("low", optional=True), const("high", optional=True), name="act"),
    ),
    exactness=Exactness.ROUNDING,
)
def fused_conv(
    draft: Draft, ctx: Context, conv: ir.Node, act: ir.Node, low: Array | None = None, high: Array | None = None
) -> Answer:
    """An activation behind a convolution goes into it."""
    if (lack := lacking(ctx, "FusedConv", conv.inputs[0])) is not None:
        return lack
    if act.op_type not in ctx.target.behind:
        return No(f"the target takes in no {act.op_type}")
    numbers = _bounds(act, low, high) if act.op_type == "Clip" else list(parameters(act).values())
    if isinstance(numbers, No):
        return numbers
    fused: dict[str, Any] = {"activation": act.op_type} | ({"activation_params": numbers} if numbers else {})
    shape = static_shape(conv.inputs[1])
    draft.reduction = int(np.prod(shape[1:])) if shape else 1
    own = {name: a.value for name, a in conv.attributes.items()}
    return draft.node("FusedConv", conv.inputs, own | fused, domain=DOMAIN)


def _bounds(clip: ir.Node, low: Array | None, high: Array | None) -> list[float] | No:
    """The bounds of a Clip, inputs from opset 11 on and attributes before; the largest numbers where there are none."""
    bounds = [
        np.asarray(attr(clip, name, default) if given is None else given)
        for name, given, default in (("min", low, -HIGHEST), ("max", high, HIGHEST))
    ]
    if any(b.size != 1 for b in bounds):
        return No("a bound is not one number")
    numbers = [float(b.reshape(-1)[0]) for b in bounds]
    return numbers if numbers[0] <= numbers[1] else No("the lower bound is above the upper one")


RULES: tuple[Rule, ...] = (fused_conv,)
