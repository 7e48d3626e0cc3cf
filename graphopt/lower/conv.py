"""Activations go into the convolution before them.

    act(Conv(x, w, b))       → FusedConv(x, w, b, activation=act)      act: as the target has it (`Target.behind`)
    Relu(Conv(x, w, b) + z)  → FusedConv(x, w, b, z, activation=Relu)  on CUDA

On the CPU the activations are Relu, LeakyRelu, Clip, HardSigmoid, Sigmoid and Tanh. CUDA's kernel takes any, and fails
as the model runs for all but Relu.

Conditions: x is float32, the only type of the kernels, so that in half precision convolutions stay as they are; nothing
else needs the convolution's result; bounds of Clip are numbers that no feed can change, the lower one not above the
upper one; z provably is of the result's shape.

Not-a-number and infinity: as spelled out, by measurement. Speed, 64 channels of 56 × 56, one thread: 0.98 to 1.01
times the time of the two operators, which onnxruntime fuses itself when it loads a model; the gain is in nodes and
loading.

Left as it is on the CPU: act(Conv(x, w, b) + z). That kernel keeps the layout that blocks channels away from all
convolutions around it: 1.2 to 1.5 times the time of the three operators.

ROUNDING: the same function of the reals. Source: onnxruntime, docs/ContribOperators.md, com.microsoft.FusedConv;
contrib_ops/cuda/fused_conv.cc.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.draft import Draft
from graphopt.graph.nodes import attr, input_at, static_shape
from graphopt.graph.record import Exactness
from graphopt.lower.activation import parameters
from graphopt.lower.kernel import lacking
from graphopt.match.engine import Answer, No, Rule, rule
from graphopt.match.pattern import const, either, one_of, op, var
from graphopt.ops.runtime import DOMAIN
from graphopt.protocol import Context
from graphopt.rewrite.ask import dims, same_dims

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
    fused = {"activation": act.op_type}
    numbers = _bounds(act, low, high) if act.op_type == "Clip" else list(parameters(act).values())
    if isinstance(numbers, No):
        return numbers
    return _fused(draft, conv, conv.inputs, fused | ({"activation_params": numbers} if numbers else {}))


@rule(
    op.Relu(either(op.Add(CONV, var("z")), op.Sum(CONV, var("z")), op.Sum(var("z"), CONV))),
    exactness=Exactness.ROUNDING,
)
def residual_conv(draft: Draft, ctx: Context, conv: ir.Node, z: ir.Value) -> Answer:
    """A sum behind a convolution, with a Relu behind that, goes into it."""
    if (lack := lacking(ctx, "FusedConv", conv.inputs[0])) is not None:
        return lack
    if "Add" not in ctx.target.behind:
        return No("it is slower on the target")
    if not same_dims(dims(z), dims(conv.outputs[0])):
        return No("what is added is not known to be of the same shape")
    bias = input_at(conv, 2)
    return _fused(draft, conv, [*conv.inputs[:2], bias, z], {"activation": "Relu"})


def _fused(draft: Draft, conv: ir.Node, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any]) -> ir.Value:
    shape = static_shape(conv.inputs[1])
    draft.reduction = int(np.prod(shape[1:])) if shape else 1
    own = {name: a.value for name, a in conv.attributes.items()}
    return draft.node("FusedConv", inputs, own | dict(attributes), domain=DOMAIN)


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


RULES: tuple[Rule, ...] = (fused_conv, residual_conv)
