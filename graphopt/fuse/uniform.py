"""Uniform weights: tensors that hold one number everywhere, and are made by a ConstantOfShape that takes a few bytes.

    BatchNormalization(Conv(x, w…, b…), s…, t…, μ…, v…)     → Conv(x, kw…, (kb + t − μk)…)     k = s / sqrt(v + ε)
    k… · Conv(x, w…, b…) + t…                               → Conv(x, kw…, (kb + t)…)

Architectures without their weights are exchanged this way. Writing the weights out would make the file hundreds of
times as large, so what is fused into them stays one number as well.

ROUNDING: the same function of the reals.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphopt.fuse.affine import affine, batchnorm, scaling
from graphopt.graph.draft import Draft
from graphopt.graph.nodes import array, attr, is_constant
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, No, rule
from graphopt.match.pattern import either, op, var
from graphopt.protocol import Context
from graphopt.rewrite.ask import dims, made_by

__all__ = ["fold_uniform"]

_CONV = op.Conv(var("x"), var("w"), var("b", optional=True), name="conv")


@rule(
    either(op.BatchNormalization(_CONV, *(var(name) for name in ("_s", "_t", "_mu", "_v"))), scaling(_CONV)),
    exactness=Exactness.ROUNDING,
)
def fold_uniform(
    draft: Draft,
    _ctx: Context,
    x: ir.Value,
    w: ir.Value,
    b: ir.Value | None,
    conv: ir.Node,
    **_constants: object,
) -> Answer:
    """What scales and shifts a Conv of one number in every weight, by one number too, becomes other numbers."""
    filled = made_by(w, "ConstantOfShape")
    if filled is None or not is_constant(filled.inputs[0]):
        return No("the weight is no ConstantOfShape")
    channels = (dims(conv.outputs[0]) or [None, None])[1]
    weight, bias = _number(w), 0.0 if b is None else _number(b)
    if weight is None or bias is None or not isinstance(channels, int):
        return No("a parameter is not one and the same number")
    found = _affine(draft.root, conv, channels)
    if isinstance(found, No):
        return found
    scale, shift = found
    fused = np.asarray([weight * scale, bias * scale + shift], np.float32)
    if not np.all(np.isfinite(fused)) or (abs(fused[0]) < np.finfo(np.float32).tiny and weight and scale):
        return No("the fused weights overflow or underflow their type")
    draft.reduction = int(np.prod([e for e in (dims(w) or [])[1:] if isinstance(e, int)]))
    extents = draft.const(np.asarray([channels], np.int64), f"{draft.root.outputs[0].name}/channels")
    return draft.like(conv, [x, _filled(draft, filled.inputs[0], fused[:1]), _filled(draft, extents, fused[1:])])


def _affine(node: ir.Node, conv: ir.Node, channels: int) -> tuple[float, float] | No:
    """The one number by which all channels are scaled, and the one that is added to them."""
    if node.op_type == "BatchNormalization":
        numbers = [None if value is None else _number(value) for value in node.inputs[1:]]
        if None in numbers:
            return No("a parameter is not one and the same number")
        found = batchnorm(node, [np.full(channels, n, np.float32) for n in numbers], channels)
    else:
        by_channel = affine(node, 1, channels)
        if not isinstance(by_channel, No) and by_channel.x is not conv.outputs[0]:
            return No("the Conv is not what is scaled")
        found = by_channel if isinstance(by_channel, No) else (by_channel.scale, by_channel.shift)
    if isinstance(found, No):
        return found
    scale, shift = found
    if np.ptp(scale) or np.ptp(shift):
        return No("a parameter is not one and the same number")
    return float(scale[0]), float(shift[0])


def _number(value: ir.Value) -> float | None:
    """The number that a float32 tensor holds everywhere."""
    if value.dtype is not ir.DataType.FLOAT:
        return None
    contents = array(value)
    node = made_by(value, "ConstantOfShape")
    if node is not None:
        fill = attr(node, "value")
        return 0.0 if fill is None else float(fill.numpy().reshape(-1)[0])
    same = contents is not None and contents.size and np.all(contents == contents.reshape(-1)[0])
    return float(contents.reshape(-1)[0]) if contents is not None and same else None


def _filled(draft: Draft, extents: ir.Value | None, number: np.ndarray) -> ir.Value:
    return draft.node("ConstantOfShape", [extents], {"value": ir.tensor(number)})
