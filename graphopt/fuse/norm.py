"""Fuse spelled-out normalizations into standard operators that the model's opset has.

With d = x − mean(x), means over the last axes:

    d / √(mean(d²) + ε)                  → LayerNormalization(x, 1)          opset 17
    x / √(mean(x²) + ε)                  → RMSNormalization(x, 1)            opset 23
    Norm(x, s, b) · g                    → Norm(x, s·g, b·g)                 g a constant on the normalized axes
    Norm(x, s, b) + c                    → Norm(x, s, b + c)                 c a constant on the normalized axes
    exp(e) / Σ exp(e),  e = x − max(x)   → Softmax(x)                        opset 13
    e − log Σ exp(e)                     → LogSoftmax(x)                     opset 13

A square is d·d or d². Dividing by a root is that, a product with Reciprocal(√v), 1 / √v or v^-0.5, or a division by
v^0.5. Scale and shift are their own rules, so that they may stand on either side or be missing, and so that a
normalization that is an operator already takes them in as well.

Conditions: x is float32 (half precision overflows in squares that the operators compute in single); its rank is known;
the axes are, provably, the last ones, the same for both means, and their extents numbers; means keep their axes; ε has
one element; a constant has extent 1 or the axis's own on every normalized axis and 1 on all others, so that it neither
widens the result nor differs from row to row.

Not-a-number and infinity: as spelled out; rows with either give not-a-number where an infinity is subtracted from or
divided by itself. Where squares or sums overflow (magnitudes above 1e18), so that a row becomes 0 or not-a-number, the
operator may still give a number, or 0. Softmax is only taken with its maximum subtracted: without, it overflows above
88, which the operator does not. For the same reason log(Softmax(x)) stays: it is −∞ where the operator is a number.

ROUNDING: the same function of the reals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.nodes import array, attr, input_at, is_constant, rank
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, No, Rule, described, rewrite, rule
from graphopt.match.pattern import Either, NodeOf, Pattern, const, either, number, one_of, op, var
from graphopt.protocol import Context, Pass

__all__ = ["OVER_ROOT", "FuseNorm", "first_axis"]

Array = NDArray[Any]


def _square(value: Pattern) -> Pattern:
    return either(op.Mul(value, value), op.Pow(value, number(2)))


def _reduced(operator: str, value: Pattern, name: str) -> NodeOf:
    """A reduction bound to `name`, with its axes, if they are an input, bound to `name`_axes."""
    return one_of(operator)(value, const(f"{name}_axes", optional=True), name=name)


def _over_deviation(value: Pattern) -> Either:
    """The value over √(mean(value²) + ε)."""
    variance = op.Add(_reduced("ReduceMean", _square(value), "squares"), const("epsilon"))
    deviation = either(op.Sqrt(variance), op.Pow(variance, number(0.5)))
    inverse = either(op.Reciprocal(deviation), op.Div(number(1), deviation), op.Pow(variance, number(-0.5)))
    return either(op.Div(value, deviation), op.Mul(value, inverse))


CENTRED = op.Sub(var("x"), _reduced("ReduceMean", var("x"), "mean"))


@rule(_over_deviation(CENTRED), exactness=Exactness.ROUNDING, since=17)
def layer_norm(
    draft: Draft,
    ctx: Context,
    x: ir.Value,
    mean: ir.Node,
    mean_axes: Array | None,
    squares: ir.Node,
    squares_axes: Array | None,
    epsilon: Array,
) -> Answer:
    """The distance to the mean over the deviation becomes LayerNormalization."""
    axis = first_axis(x, mean, mean_axes)
    if isinstance(axis, No):
        return axis
    if axis != first_axis(x, squares, squares_axes):
        return No("mean and variance are taken over different axes")
    return _normalized(draft, ctx, "LayerNormalization", x, axis, epsilon)


OVER_ROOT = _over_deviation(var("x"))
"""x over the root of the mean of its squares, with `squares`, their axes and `epsilon`."""


@rule(OVER_ROOT, exactness=Exactness.ROUNDING, since=23)
def rms_norm(
    draft: Draft, ctx: Context, x: ir.Value, squares: ir.Node, squares_axes: Array | None, epsilon: Array
) -> Answer:
    """A value over its root mean square becomes RMSNormalization."""
    axis = first_axis(x, squares, squares_axes)
    return axis if isinstance(axis, No) else _normalized(draft, ctx, "RMSNormalization", x, axis, epsilon)


NORM = one_of("LayerNormalization", "RMSNormalization")(
    var("_x"), const("scale"), const("bias", optional=True), name="norm"
)


@rule(op.Mul(NORM, const("factor"), name="node"), exactness=Exactness.ROUNDING)
def norm_scale(
    draft: Draft,
    ctx: Context,
    _x: ir.Value,
    scale: Array,
    bias: Array | None,
    norm: ir.Node,
    factor: Array,
    node: ir.Node,
) -> Answer:
    """A constant factor after a normalization goes into its scale and bias."""
    found = _on_normalized(factor, norm, node)
    if isinstance(found, No):
        return found
    return _with(draft, ctx, norm, _product(scale, found), None if bias is None else _product(bias, found))


@rule(op.Add(NORM, const("term"), name="node"), exactness=Exactness.ROUNDING)
def norm_shift(
    draft: Draft,
    ctx: Context,
    _x: ir.Value,
    scale: Array,
    bias: Array | None,
    norm: ir.Node,
    term: Array,
    node: ir.Node,
) -> Answer:
    """A constant term after a LayerNormalization goes into its bias."""
    if norm.op_type == "RMSNormalization":
        return No("the operator has no bias")
    found = _on_normalized(term, norm, node)
    if isinstance(found, No):
        return found
    with np.errstate(all="ignore"):
        total = found if bias is None else bias + found
    return _with(draft, ctx, norm, scale, total)


EXPONENT = op.Sub(var("x"), _reduced("ReduceMax", var("x"), "peak"))
TOTAL = _reduced("ReduceSum", op.Exp(EXPONENT), "total")


@rule(op.Div(op.Exp(EXPONENT), TOTAL), exactness=Exactness.ROUNDING, since=13)
def softmax(
    draft: Draft,
    _ctx: Context,
    x: ir.Value,
    peak: ir.Node,
    peak_axes: Array | None,
    total: ir.Node,
    total_axes: Array | None,
) -> Answer:
    """Exponentials over their sum, the maximum subtracted, become Softmax."""
    return _softmax(draft, "Softmax", x, (peak, peak_axes), (total, total_axes))


@rule(op.Sub(EXPONENT, op.Log(TOTAL)), exactness=Exactness.ROUNDING, since=13)
def log_softmax(
    draft: Draft,
    _ctx: Context,
    x: ir.Value,
    peak: ir.Node,
    peak_axes: Array | None,
    total: ir.Node,
    total_axes: Array | None,
) -> Answer:
    """Exponents less the logarithm of the sum of exponentials, the maximum subtracted, become LogSoftmax."""
    return _softmax(draft, "LogSoftmax", x, (peak, peak_axes), (total, total_axes))


RULES: tuple[Rule, ...] = (layer_norm, rms_norm, norm_scale, norm_shift, softmax, log_softmax)


@dataclass(frozen=True)
class FuseNorm(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "fuse-norm"
    summary: ClassVar[str] = "spelled-out LayerNormalization, RMSNormalization and Softmax into operators"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    rules: ClassVar[Mapping[str, str]] = described(RULES)

    def run(self, edit: Editor, ctx: Context) -> None:
        """Until no rule fires any more."""
        rewrite(edit, ctx, RULES)


def _axes(reduced: ir.Node, given: Array | None, axes: int) -> tuple[int, ...] | None:
    """The axes that a reduction runs over, counted from the front; None where they are not known."""
    if given is None:
        if input_at(reduced, 1) is not None or attr(reduced, "noop_with_empty_axes", 0):
            return None
        given = np.asarray(attr(reduced, "axes", range(axes)))
    if given.size == 0:
        return None
    return tuple(sorted(int(a) % axes for a in given.reshape(-1)))


def first_axis(x: ir.Value, reduced: ir.Node, given: Array | None) -> int | No:
    """The axis from which on a reduction takes all, of a value whose extents are known there."""
    axes = rank(x)
    if axes is None or x.shape is None:
        return No("the rank is not known")
    over = _axes(reduced, given, axes)
    if not over or over != tuple(range(over[0], axes)):
        return No("the axes are not known to be the last ones")
    if attr(reduced, "keepdims", 1) != 1:
        return No("the reduced axes are dropped")
    if not all(isinstance(extent := x.shape[a], int) and extent for a in over):
        return No("the extent of a normalized axis is not a number above 0")
    return over[0]


def _normalized(draft: Draft, ctx: Context, operator: str, x: ir.Value, axis: int, epsilon: Array) -> Answer:
    """The operator with a scale of ones, for which there has to be room unless a factor takes its place."""
    if x.dtype is not ir.DataType.FLOAT:
        return No("it is not known to be float32")
    if epsilon.size != 1 or epsilon.ndim > (rank(x) or 0):
        return No("epsilon is not one number")
    shape = _normalized_shape(x, axis)
    ones = np.ones(shape, np.float32)
    (root,) = draft.root.outputs
    users = root.consumers()
    scaled = len(users) == 1 and users[0].op_type == "Mul" and any(is_constant(v) for v in users[0].inputs)
    if not scaled and not ctx.ledger.spend(ones.nbytes - _SAVED):
        return No("the file may not grow")
    draft.reduction = ones.size
    attributes = {"axis": axis - (rank(x) or 0), "epsilon": float(epsilon.reshape(-1)[0])}
    return draft.node(operator, [x, draft.const(ones, f"{root.name}/scale")], attributes)


_SAVED = 400
"""Bytes that seven nodes and their values take up in a file, at least."""


def _normalized_shape(x: ir.Value, axis: int) -> tuple[int, ...]:
    return tuple(d for d in (x.shape or ())[axis:] if isinstance(d, int))


def _on_normalized(constant: Array, norm: ir.Node, node: ir.Node) -> Array | No:
    """The constant with the shape of a normalization's scale, if that is how it meets the result."""
    x, scale = norm.inputs[0], array(norm.inputs[1])
    axes = rank(x)
    if x is None or scale is None or axes is None or x.shape is None:
        return No("the rank is not known")
    axis = attr(norm, "axis", -1) % axes
    shape = _normalized_shape(x, axis)
    if len(shape) != axes - axis or scale.shape != shape:
        return No("the shape of the scale is not known to be that of the normalized axes")
    if constant.dtype != np.float32 or not np.all(np.isfinite(constant)):
        return No("the constant is not made of finite float32 numbers")
    if constant.ndim > axes or rank(node.outputs[0]) not in {None, axes}:
        return No("the constant has more axes than the normalized value")
    aligned = constant.reshape((1,) * (axes - constant.ndim) + constant.shape)
    wanted = (1,) * axis + shape
    if any(have not in {1, extent} for have, extent in zip(aligned.shape, wanted, strict=True)):
        return No("the constant does not lie on the normalized axes")
    return np.broadcast_to(aligned.reshape(aligned.shape[axis:]), shape)


def _product(a: Array, b: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(a * b)


def _with(draft: Draft, ctx: Context, norm: ir.Node, scale: Array, bias: Array | None) -> Answer:
    """The normalization with another scale and bias, unless numbers overflow or the file may not grow."""
    fresh = [scale] if bias is None else [scale, bias]
    if not all(np.all(np.isfinite(a)) for a in fresh):
        return No("the constants overflow their type")
    inputs: list[ir.Value | None] = [norm.inputs[0]]
    for index, wanted in enumerate(fresh, start=1):
        old = input_at(norm, index)
        held = array(old)
        if old is not None and held is not None and held.shape == wanted.shape and np.array_equal(held, wanted):
            inputs.append(old)
            continue
        if old is not None and len(old.uses()) > 1 and not ctx.ledger.spend(wanted.nbytes):
            return No("the scale or bias is shared and the file may not grow")
        inputs.append(draft.const(wanted, str(old.name) if old is not None else f"{norm.outputs[0].name}/bias"))
    return draft.like(norm, inputs)


Reduction = tuple[ir.Node, Array | None]


def _softmax(draft: Draft, operator: str, x: ir.Value, peak: Reduction, total: Reduction) -> Answer:
    axes = rank(x)
    if x.dtype is not ir.DataType.FLOAT or axes is None:
        return No("it is not known to be float32 of a known rank")
    over = _axes(*peak, axes)
    if over is None or len(over) != 1 or over != _axes(*total, axes):
        return No("maximum and sum are not known to be taken over the same one axis")
    if any(attr(node, "keepdims", 1) != 1 for node, _ in (peak, total)):
        return No("the reduced axis is dropped")
    return draft.node(operator, [x], {"axis": over[0] - axes})
