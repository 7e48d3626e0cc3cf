"""Fuse what follows a product with a constant weight into the weight.

With y = W·x + b, per output channel:

    BatchNormalization(y)    → (kW)·x + (b − μ)k + t        k = s / sqrt(v + ε)
    … of y as rows         → the same, as rows           for Linear layers of more than two axes
    y · c,  y / c            → (cW)·x + cb                   c one number, or one for each channel
    y + c,  y − c,  c − y    → ±W·x ± b + c                  where the operator has a bias

Conv, ConvTranspose, Gemm and MatMul at once: all are linear in the operator table. New weights get fresh names, so a
weight that another node shares stays as it is; then the file grows, if it may.

ROUNDING: the same function of the reals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.fuse.affine import affine, batchnorm, per_channel, rescaled, scaling
from graphopt.fuse.uniform import fold_uniform
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.nodes import rank
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, No, Rule, described, rewrite, rule
from graphopt.match.pattern import const, either, linear, one_of, op, var
from graphopt.ops import Linear
from graphopt.protocol import Context, Pass

__all__ = ["FuseLinear"]

BATCHNORM = "graphopt.batchnorm"
"""Where a node keeps what its folded BatchNormalization knew of each channel: scale, shift, mean, variance."""

Array = NDArray[Any]


ROWS = one_of("Flatten", "Reshape")(linear("lin"), var("_target", optional=True), name="rows")


@rule(
    op.BatchNormalization(either(linear("lin"), ROWS), const("s"), const("t"), const("mu"), const("v"), name="bn"),
    exactness=Exactness.ROUNDING,
)
def fold_batchnorm(
    draft: Draft,
    ctx: Context,
    lin: Linear,
    s: Array,
    t: Array,
    mu: Array,
    v: Array,
    bn: ir.Node,
    rows: ir.Node | None = None,
    _target: ir.Value | None = None,
) -> Answer:
    """BatchNormalization(W·x + b) becomes (kW)·x + (b − μ)k + t."""
    if (_channel_axis(lin) if rows is None else _row_axis(lin, rows)) != 1:
        return No("channels are not on axis 1")
    found = batchnorm(bn, (s, t, mu, v), lin.channels)
    if isinstance(found, No):
        return found
    k, shift = found
    fused = rescaled(draft, ctx, lin, out=k, shift=shift)
    if not isinstance(fused, ir.Value):
        return fused
    draft.nodes[0].meta[BATCHNORM] = (s, t, mu, v)
    return fused if rows is None else draft.like(rows, [fused, *rows.inputs[1:]])


_NORM = op.BatchNormalization(var("x"), const("s"), const("t"), const("mu"), const("v"), name="norm")


@rule(scaling(_NORM), exactness=Exactness.ROUNDING)
def affine_into_batchnorm(
    draft: Draft, _ctx: Context, x: ir.Value, s: Array, t: Array, mu: Array, v: Array, norm: ir.Node, **_c: Array
) -> Answer:
    """What scales or shifts channels after a BatchNormalization goes into its scale and shift."""
    own = batchnorm(norm, (s, t, mu, v), s.size)
    found = own if isinstance(own, No) else affine(draft.root, 1, s.size)
    if isinstance(found, No):
        return found
    if found.x is not norm.outputs[0]:
        return No("the BatchNormalization is not what is scaled")
    with np.errstate(all="ignore"):
        scale = (found.scale * s.astype(np.float64)).astype(s.dtype)
        shift = (found.scale * t.astype(np.float64) + found.shift).astype(t.dtype)
    lost = (scale == 0) & (found.scale != 0) & (s != 0)
    if not (np.all(np.isfinite(scale)) and np.all(np.isfinite(shift))) or np.any(lost):
        return No("the new scale overflows or vanishes")
    name = norm.outputs[0].name
    inputs = [x, draft.const(scale, f"{name}/scale"), draft.const(shift, f"{name}/shift"), *norm.inputs[3:]]
    return draft.like(norm, inputs)


@rule(op.Mul(linear("lin"), const("c"), name="node"), exactness=Exactness.ROUNDING)
def fold_scale(draft: Draft, ctx: Context, lin: Linear, c: Array, node: ir.Node) -> Answer:
    """(W·x + b) · c becomes (cW)·x + cb."""
    per_channel = _per_channel(lin, c, node)
    return per_channel if isinstance(per_channel, No) else rescaled(draft, ctx, lin, out=per_channel)


@rule(op.Div(linear("lin"), const("c"), name="node"), exactness=Exactness.ROUNDING)
def fold_division(draft: Draft, ctx: Context, lin: Linear, c: Array, node: ir.Node) -> Answer:
    """(W·x + b) / c becomes (W/c)·x + b/c."""
    per_channel = _per_channel(lin, c, node)
    if isinstance(per_channel, No):
        return per_channel
    if not np.all(per_channel):
        return No("it divides by zero")
    return rescaled(draft, ctx, lin, out=1.0 / per_channel)


@rule(op.Add(linear("lin"), const("c"), name="node"), exactness=Exactness.ROUNDING)
def fold_shift(draft: Draft, ctx: Context, lin: Linear, c: Array, node: ir.Node) -> Answer:
    """(W·x + b) + c becomes W·x + (b + c)."""
    return _shifted(draft, ctx, lin, c, node, sign=1.0, offset=1.0)


@rule(op.Sub(linear("lin"), const("c"), name="node"), exactness=Exactness.ROUNDING)
def fold_difference(draft: Draft, ctx: Context, lin: Linear, c: Array, node: ir.Node) -> Answer:
    """(W·x + b) − c becomes W·x + (b − c)."""
    return _shifted(draft, ctx, lin, c, node, sign=1.0, offset=-1.0)


@rule(op.Sub(const("c"), linear("lin"), name="node"), exactness=Exactness.ROUNDING)
def fold_reflection(draft: Draft, ctx: Context, c: Array, lin: Linear, node: ir.Node) -> Answer:
    """C − (W·x + b) becomes (−W)·x + (c − b)."""
    return _shifted(draft, ctx, lin, c, node, sign=-1.0, offset=1.0)


RULES: tuple[Rule, ...] = (
    fold_batchnorm,
    fold_uniform,
    affine_into_batchnorm,
    fold_scale,
    fold_division,
    fold_shift,
    fold_difference,
    fold_reflection,
)


@dataclass(frozen=True)
class FuseLinear(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "fuse-linear"
    summary: ClassVar[str] = "BatchNormalization, scales and shifts into Conv, ConvTranspose, Gemm and MatMul"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    rules: ClassVar[Mapping[str, str]] = described(RULES)

    def run(self, edit: Editor, ctx: Context) -> None:
        """Until no rule fires any more."""
        rewrite(edit, ctx, RULES)


def _channel_axis(lin: Linear) -> int | None:
    """The axis of the output's channels, counted from the front, if that is known."""
    if lin.y_axis >= 0:
        return lin.y_axis
    axes = rank(lin.node.outputs[0])
    return None if axes is None else lin.y_axis + axes


def _row_axis(lin: Linear, rows: ir.Node) -> int | None:
    """The axis of the output's channels once it was reshaped to a matrix of rows, if it is the last of both."""
    axes, shape = rank(lin.node.outputs[0]), rows.outputs[0].shape
    kept = shape is not None and len(shape) == 2 and shape[1] == lin.channels  # noqa: PLR2004 - a matrix
    return 1 if kept and axes is not None and _channel_axis(lin) == axes - 1 else None


def _per_channel(lin: Linear, c: Array, node: ir.Node) -> Array | No:
    """`c` as (channels,) in float64 if that is how it meets the output."""
    if "axis" in node.attributes:
        return No("it broadcasts along an axis of its choice, as before opset 7")
    axes = rank(lin.node.outputs[0])
    if rank(node.outputs[0]) not in {None, axes}:
        return No("how the constant meets the output is not known")
    return per_channel(c, axes, _channel_axis(lin), lin.channels)


def _shifted(draft: Draft, ctx: Context, lin: Linear, c: Array, node: ir.Node, *, sign: float, offset: float) -> Answer:
    if lin.bias is None and rank(lin.node.inputs[lin.x]) != 2:  # noqa: PLR2004 - a matrix, so that a Gemm takes its place
        return No("the operator has no bias")
    per_channel = _per_channel(lin, c, node)
    if isinstance(per_channel, No):
        return per_channel
    return rescaled(draft, ctx, lin, out=sign, shift=offset * per_channel)
