"""Operators between DequantizeLinear and QuantizeLinear compute on the integers, as onnxruntime has them at load.

With dq(x) = DequantizeLinear(x, sx, zx) and q(y) = QuantizeLinear(y, sy, zy):

    dq(q(x)) in int8                      → dq(q(x)) in uint8, with zy + 128
    q(Conv(dq(x), dq(w), dq(b)))          → QLinearConv(x, sx, zx, w, sw, zw, sy, zy, b)
    q(Gemm(dq(a), dq(w), dq(b)))          → QGemm(a, sa, za, w, sw, zw, b, sy, zy)
    q(MatMul(dq(a), dq(b)))               → QLinearMatMul(a, sa, za, b, sb, zb, sy, zy)
    q(Add(dq(a), dq(b))), q(Mul(…))       → QLinearAdd(a, sa, za, b, sb, zb, sy, zy), QLinearMul
    q(GlobalAveragePool(dq(x)))           → QLinearGlobalAveragePool(x, sx, zx, sy, zy)
    q(Sigmoid(dq(x))), q(LeakyRelu(…))    → QLinearSigmoid(x, sx, zx, sy, zy), QLinearLeakyRelu
    q(move(dq(x))),  sy = sx, zy = zx     → move(x)          Reshape, Flatten, Transpose, Squeeze, Unsqueeze, MaxPool
    q(Relu(x)), q(Clip(x, a, b))          → q(x)             where the ends of the integers cut off at least as much

Conditions: x and y are uint8 (with int8 the kernels take 5 times as long on x86); scales and zero points are constants,
one number each and scales above zero, those of a weight may be one for each output channel with zero points of 0;
nothing else needs the result before q. A bias is a constant vector, of 32-bit integers around 0 or of floats. Where its
scale is not sx·sw, up to rounding, it is counted in such steps, if half of one is less than a thousandth of a step of
y: no more than the rounding of a sum of floats. Several readers of dq(x) are no obstacle: each that computes on the
integers is one less.

Not-a-number cannot come out of dq. ROUNDING: the integer sums are exact and are rounded once, to a step of y; where
the sum in floats came out on the other side of a half, the result is one step off. MaxPool and what moves: the same
bits. Source: ONNX operator specification; onnxruntime, docs/ContribOperators.md and its quantization guide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.draft import Draft
from graphopt.graph.nodes import array, attr, input_at, scalar
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, No, Rule, rule
from graphopt.match.pattern import NodeOf, Pattern, const, one_of, op, var
from graphopt.ops.runtime import DOMAIN
from graphopt.protocol import Context
from graphopt.rewrite.ask import dims, made_by

__all__ = ["EIGHT_BITS", "RULES", "UNSIGNED", "cut_off"]

Array = NDArray[Any]

EIGHT_BITS = {ir.DataType.INT8, ir.DataType.UINT8}
_OFF = 1e-5
"""By how much the scale of a bias may miss the product of the others, relatively: exporters round it."""
_NOTHING = 2.0**-10
"""The part of a step of y that a bias may be rounded by. Sums of a thousand floats are rounded by as much."""


@dataclass(frozen=True)
class _Steps:
    """A quantized tensor, or how one is made: scale and zero point, and the integers if they are there."""

    scale: ir.Value
    zero: ir.Value
    integers: ir.Value | None = None

    @property
    def steps(self) -> tuple[ir.Value, ir.Value]:
        return self.scale, self.zero

    @property
    def all(self) -> tuple[ir.Value | None, ir.Value, ir.Value]:
        return self.integers, self.scale, self.zero

    @property
    def single(self) -> bool:
        """Whether there is one scale for the whole tensor, above zero, so that more is more."""
        scale, zero = (array(v) for v in self.steps)
        if scale is None or zero is None or max(scale.ndim, zero.ndim) > 1:
            return False
        return scale.size == zero.size == 1 and bool(np.all((scale > 0) & np.isfinite(scale)))


def _behind(value: ir.Value | None) -> _Steps | None:
    """The quantized tensor of 8 bits that a DequantizeLinear reads."""
    node = made_by(value, "DequantizeLinear")
    return None if node is None else _steps(node, node.inputs[0], EIGHT_BITS)


def _steps(node: ir.Node, integers: ir.Value | None, kinds: set[ir.DataType]) -> _Steps | None:
    scale, zero = (input_at(node, i) for i in (1, 2))
    if scale is None or zero is None or array(scale) is None or array(zero) is None or zero.dtype not in kinds:
        return None
    if scale.dtype is not ir.DataType.FLOAT or attr(node, "block_size", 0):
        return None
    return _Steps(scale, zero, integers)


def _scalar(draft: Draft, steps: _Steps) -> _Steps:
    """The same with scale and zero point as scalars, as some operators insist."""
    found = [
        value if contents is None or not contents.ndim else draft.const(contents.reshape(()), f"{value.name}/scalar")
        for value in steps.steps
        for contents in (array(value),)
    ]
    return replace(steps, scale=found[0], zero=found[1])


def _quantize(value: Pattern) -> NodeOf:
    return op.QuantizeLinear(value, const("_scale"), const("_zero"), name="quantize")


def _ends(quantize: ir.Node, *quantized: _Steps | None) -> tuple[_Steps, ...] | No:
    """What is read, and what is made, all with one scale each and of one type."""
    made = _steps(quantize, None, EIGHT_BITS)
    every = (*quantized, made)
    found = tuple(s for s in every if s is not None and s.single)
    if len(found) != len(every):
        return No("it is not between 8-bit integers with one constant scale and zero point each")
    if any(s.zero.dtype is not ir.DataType.UINT8 for s in found):
        return No("the integers are not unsigned")
    return found


@rule(
    op.DequantizeLinear(
        op.QuantizeLinear(var("x"), var("scale"), const("zero"), name="quantize"),
        var("scale"),
        const("zero"),
        name="node",
    ),
    exactness=Exactness.BITWISE,
    since=10,
)
def unsigned(
    draft: Draft, _ctx: Context, x: ir.Value, scale: ir.Value, zero: Array, quantize: ir.Node, node: ir.Node
) -> Answer:
    """Integers that are made and read in between count from 0."""
    if zero.dtype != np.int8:
        return No("they are not signed")
    if any(attr(n, "block_size", 0) or attr(n, "output_dtype", 0) for n in (quantize, node)):
        return No("they are quantized in blocks, or of another type")
    moved = draft.const((zero.astype(np.int16) + 128).astype(np.uint8), f"{node.outputs[0].name}/zero")
    return draft.like(node, [draft.like(quantize, [x, scale, moved]), scale, moved])


@rule(_quantize(op.Conv(name="conv")), exactness=Exactness.ROUNDING, since=10)
def quantized_conv(
    draft: Draft, _ctx: Context, conv: ir.Node, quantize: ir.Node, _scale: Array, _zero: Array
) -> Answer:
    """A convolution between quantized tensors becomes QLinearConv."""
    found = _ends(quantize, _behind(conv.inputs[0]))
    if isinstance(found, No):
        return found
    x, y = found
    w = _weight(conv.inputs[1], 0)
    if w is None:
        return No("the weights are not constants of 8 bits, quantized as a whole or by output channel")
    bias = _bias(draft, input_at(conv, 2), x, w, y)
    if isinstance(bias, No):
        return bias
    attributes = {name: a.value for name, a in conv.attributes.items()}
    inputs = [*x.all, *w.all, *y.steps, *([] if bias is None else [bias])]
    return draft.node("QLinearConv", inputs, attributes)


@rule(_quantize(op.Gemm(name="gemm")), exactness=Exactness.ROUNDING, since=10)
def quantized_gemm(
    draft: Draft, _ctx: Context, gemm: ir.Node, quantize: ir.Node, _scale: Array, _zero: Array
) -> Answer:
    """A Gemm between quantized tensors becomes QGemm."""
    found = _ends(quantize, _behind(gemm.inputs[0]))
    if isinstance(found, No):
        return found
    a, y = found
    if attr(gemm, "alpha", 1.0) != 1 or attr(gemm, "beta", 1.0) != 1:
        return No("alpha or beta is not 1")
    w = _weight(gemm.inputs[1], 0 if attr(gemm, "transB", 0) else 1)
    if w is None:
        return No("the weights are not constants of 8 bits, quantized as a whole or by output channel")
    bias = _bias(draft, input_at(gemm, 2), a, w, y)
    if isinstance(bias, No):
        return bias
    attributes = {name: int(attr(gemm, name, 0)) for name in ("transA", "transB")}
    return draft.node("QGemm", [*a.all, *w.all, bias, *y.steps], attributes, domain=DOMAIN)


@rule(
    _quantize(one_of("MatMul", "Add", "Mul")(var("a"), var("b"), name="node")), exactness=Exactness.ROUNDING, since=10
)
def quantized_pair(
    draft: Draft,
    _ctx: Context,
    node: ir.Node,
    a: ir.Value,
    b: ir.Value,
    quantize: ir.Node,
    _scale: Array,
    _zero: Array,
) -> Answer:
    """A product or sum of two quantized tensors is computed on the integers."""
    found = _ends(quantize, _behind(a), _behind(b))
    if isinstance(found, No):
        return found
    left, right, made = (_scalar(draft, each) for each in found)
    if node.op_type != "MatMul":
        return draft.node(f"QLinear{node.op_type}", [*left.all, *right.all, *made.steps], domain=DOMAIN)
    summed = (*(dims(a) or [])[-1:], *((dims(b) or [])[-2:-1] or (dims(b) or [])))
    if not any(isinstance(extent, int) and extent for extent in summed):
        return No("the sums may be empty, which the kernel does not write")
    return draft.node("QLinearMatMul", [*left.all, *right.all, *made.steps])


@rule(
    _quantize(one_of("GlobalAveragePool", "Sigmoid", "LeakyRelu")(var("x"), name="node")),
    exactness=Exactness.ROUNDING,
    since=10,
)
def quantized_pointwise(
    draft: Draft, _ctx: Context, node: ir.Node, x: ir.Value, quantize: ir.Node, _scale: Array, _zero: Array
) -> Answer:
    """An activation or average of a quantized tensor is computed on the integers."""
    found = _ends(quantize, _behind(x))
    if isinstance(found, No):
        return found
    source, made = found
    attributes: dict[str, float] = {}
    if node.op_type == "GlobalAveragePool":
        attributes = {"channels_last": 0}
    elif node.op_type == "LeakyRelu":
        attributes = {"alpha": float(attr(node, "alpha", 0.01))}
    return draft.node(f"QLinear{node.op_type}", [*source.all, *made.steps], attributes, domain=DOMAIN)


@rule(
    _quantize(
        one_of("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "MaxPool")(name="node"),
    ),
    exactness=Exactness.BITWISE,
    since=13,
)
def moved_integers(
    draft: Draft, _ctx: Context, node: ir.Node, quantize: ir.Node, _scale: Array, _zero: Array
) -> Answer:
    """What only moves elements does so before they are made numbers."""
    found = _ends(quantize, _behind(node.inputs[0]))
    if isinstance(found, No):
        return found
    source, made = found
    if any(array(a) != array(b) for a, b in zip(source.steps, made.steps, strict=True)):
        return No("scale or zero point change")
    if len(node.outputs) > 1:
        return No("it has further outputs")
    return draft.like(node, [source.integers, *node.inputs[1:]])


@rule(
    _quantize(one_of("Relu", "Clip")(name="node")),
    exactness=Exactness.BITWISE,
    since=10,
)
def cut_off_anyway(
    draft: Draft, _ctx: Context, node: ir.Node, quantize: ir.Node, _scale: Array, _zero: Array
) -> Answer:
    """A Relu or Clip before QuantizeLinear goes where the integers end no later."""
    return cut_off(node, quantize) or draft.like(quantize, [node.inputs[0], *quantize.inputs[1:]])


def cut_off(node: ir.Node, quantize: ir.Node) -> No | None:
    """Whether a QuantizeLinear cuts off all that a Relu or Clip before it does: None, or why not."""
    made = _steps(quantize, None, EIGHT_BITS)
    if made is None or not made.single:
        return No("it is not made 8-bit integers with one constant scale and zero point")
    low, high = (0.0, np.inf) if node.op_type == "Relu" else (_bound(node, i) for i in (1, 2))
    if low is None or high is None:
        return No("the bounds are not constants")
    zero = scalar(made.zero)
    ends = np.iinfo(zero.dtype)
    with np.errstate(all="ignore"):
        lowest, highest = (
            np.rint(np.float32(bound) / np.float32(scalar(made.scale))) + int(zero) for bound in (low, high)
        )
    return None if lowest <= ends.min and highest >= ends.max else No("the integers reach further")


UNSIGNED: tuple[Rule, ...] = (unsigned, cut_off_anyway)
RULES: tuple[Rule, ...] = (
    quantized_conv,
    quantized_gemm,
    quantized_pair,
    quantized_pointwise,
    moved_integers,
)


def _bound(clip: ir.Node, index: int) -> float | None:
    """A bound of a Clip, infinite where it is missing; None where it is not a constant number."""
    name, missing = ("min", -np.inf) if index == 1 else ("max", np.inf)
    given = input_at(clip, index)
    if given is None:
        return float(attr(clip, name, missing))
    number = scalar(given)
    return None if number is None else float(number)


def _weight(value: ir.Value | None, axis: int) -> _Steps | None:
    """Constant integers with one scale, or with one for each index of `axis` and zero points of 0."""
    node = made_by(value, "DequantizeLinear")
    found = None if node is None else _steps(node, node.inputs[0], EIGHT_BITS)
    if node is None or found is None or array(found.integers) is None:
        return None
    if found.single:
        return found
    scale, zero, weights = (array(v) for v in (found.scale, found.zero, found.integers))
    if scale is None or zero is None or weights is None or attr(node, "axis", 1) % weights.ndim != axis:
        return None
    return found if scale.shape == zero.shape == (weights.shape[axis],) and not zero.any() else None


def _bias(draft: Draft, value: ir.Value | None, x: _Steps, w: _Steps, y: _Steps) -> ir.Value | No | None:
    """The bias in steps of the products: its own integers, if they count in those, or others."""
    if value is None:
        return None
    channels = np.asarray(array(w.scale), np.float64).reshape(-1)
    step = channels * float(scalar(x.scale))
    node = made_by(value, "DequantizeLinear")
    integers, scale, zero = (None, None, None) if node is None else (input_at(node, i) for i in range(3))
    held, size = array(value if integers is None else integers), array(value if integers is None else scale)
    if held is None or size is None or held.ndim != 1 or not np.all(step > 0):
        return No("the bias is not a constant vector")
    if zero is not None and ((around := array(zero)) is None or around.any()):
        return No("the bias is not quantized around 0")
    own = 1.0 if integers is None else size.astype(np.float64).reshape(-1)
    if integers is not None and held.dtype == np.int32 and np.all(np.abs(own - step) <= _OFF * step):
        return integers
    if np.any(step / 2 > _NOTHING * float(scalar(y.scale))):
        return No("the bias does not count in steps of the products, which are too large to do so")
    counted = np.rint(held * own / step)
    if not np.all(np.abs(counted) <= np.iinfo(np.int32).max):
        return No("the bias is too large for 32 bits")
    return draft.const(counted.astype(np.int32), f"{value.name}/steps")
