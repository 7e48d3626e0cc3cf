"""Absorb: what an operator can do by itself is not done before it.

    Conv(Pad(x))                          → Conv(x, pads)               zeros around spatial axes
    AveragePool(Pad(x))                   → AveragePool(x, pads)        that counts them
    MaxPool(Pad(x))                       → MaxPool(x, pads)            padded with −∞, or --fast-math: zeros, x ≥ 0
    Conv(Transpose(Pad(x)))               → Conv(Transpose(x), pads)
    Gemm(Transpose(a), b)                 → Gemm(a, b, transA)          of the other input as well
    MatMul(Transpose(a), b)               → Gemm(a, b, transA)          matrices
    LSTM(…, zeros), GRU, RNN              → LSTM(…)                     states start from zero anyway

ROUNDING: a runtime may sum in another order. The initial states are BITWISE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.nodes import array, attr, input_at, rank
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, No, Rule, described, rewrite, rule
from graphopt.match.pattern import one_of, op
from graphopt.protocol import Context, Pass
from graphopt.rewrite.ask import dims, ints, made_by, perm_of, read_only_by

__all__ = ["Absorb"]

_FLOATS = (ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE)
_OPEN = 1024
"""Taken for an extent that is not known, where the length of a sum is asked for."""


@rule(one_of("AveragePool", "Conv", "MaxPool")(name="node"), exactness=Exactness.ROUNDING)
def pad_into_window(draft: Draft, ctx: Context, node: ir.Node) -> Answer:
    """Zeros around the spatial axes become pads of the Conv or pool after them."""
    data = node.inputs[0]
    between = made_by(data, "Transpose")
    pad = made_by(data if between is None else between.inputs[0], "Pad")
    if data is None or pad is None or pad.inputs[0] is None:
        return No("no Pad stands before it")
    if not read_only_by(data, node) or not read_only_by(pad.outputs[0], between or node):
        return No("the padded value is used elsewhere as well")
    more = _spatial_pads(pad, None if between is None else perm_of(between))
    if isinstance(more, No):
        return more
    reason = _unlike_own_padding(node, pad, _fill(pad), fast_math=ctx.fast_math)
    pads = _joined(node, more) if reason is None else No(reason)
    if isinstance(pads, No):
        return pads
    inside = pad.inputs[0] if between is None else draft.like(between, [pad.inputs[0]])
    weight = dims(input_at(node, 1))
    draft.reduction = prod(e if isinstance(e, int) else _OPEN for e in (weight or [_OPEN])[1:])
    counted = {"count_include_pad": 1} if node.op_type == "AveragePool" else {}
    return draft.like(node, [inside, *node.inputs[1:]], pads=pads, auto_pad=None, **counted)


def _unlike_own_padding(node: ir.Node, pad: ir.Node, fill: float | None, *, fast_math: bool) -> str | None:
    """Why padding with a number is not what the node would do by itself."""
    if fill is None:
        return "it is not padded with a constant"
    if node.op_type != "MaxPool":
        return "it is not padded with zeros" if fill != 0 or np.signbit(fill) else None
    if len(node.outputs) > 1:
        return "it tells where it found the largest"
    if fill <= _lowest(pad.outputs[0]):
        return None
    if fill != 0 or not _never_negative(pad.inputs[0]):
        return "what it is padded with may be the largest"
    return None if fast_math else "zeros win over not-a-numbers: --fast-math allows it"


def _lowest(value: ir.Value) -> float:
    """Where a MaxPool of such numbers starts, if not from −∞."""
    return float(np.finfo(value.dtype.numpy()).min) if value.dtype in _FLOATS else -np.inf


_POSITIVE = frozenset({"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax", "Softplus", "Sqrt"})
_THROUGH = ("AveragePool", "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_FEW = 8
"""Nodes up to which what is computed before is looked at."""


def _never_negative(value: ir.Value | None) -> bool:
    """Whether no element is below zero, whatever the feed."""
    for _ in range(_FEW):
        node = made_by(value, *_POSITIVE, *_THROUGH, "Clip")
        if node is None or node.op_type not in _THROUGH:
            break
        value = node.inputs[0]
    if node is None or node.op_type in _THROUGH:
        return False
    if node.op_type != "Clip":
        return True
    low = array(input_at(node, 1)) if input_at(node, 1) is not None else np.asarray(attr(node, "min", -np.inf))
    return low is not None and low.size == 1 and bool(low.item() >= 0)


def _fill(pad: ir.Node) -> float | None:
    """What is padded with, if it is a number that is known."""
    if attr(pad, "mode", "constant") != "constant":
        return None
    fill = array(input_at(pad, 2)) if input_at(pad, 2) is not None else np.asarray(attr(pad, "value", 0.0))
    return None if fill is None or fill.size != 1 else float(fill.item())


def _spatial_pads(pad: ir.Node, perm: list[int] | None) -> list[int] | No:
    """What is added in front of and behind each spatial axis."""
    axes = rank(pad.inputs[0])
    pads = ints(pad, "pads", 1)
    if axes is None or pads is None:
        return No("the pads are not known")
    if input_at(pad, 3) is not None:
        named = array(input_at(pad, 3))
        if named is None:
            return No("the padded axes are not known")
        full = [0] * (2 * axes)
        for i, axis in enumerate(named.reshape(-1).tolist()):
            full[axis % axes], full[axis % axes + axes] = pads[i], pads[i + named.size]
        pads = full
    if perm is not None:
        pads = [pads[half + a] for half in (0, axes) for a in perm]
    if any(pads[i] or pads[i + axes] for i in (0, 1)) or any(p < 0 for p in pads):
        return No("it pads the batch or the channels, or cuts something off")
    return pads[2:axes] + pads[axes + 2 :]


def _joined(node: ir.Node, more: list[int]) -> list[int] | No:
    """The pads of the node with those of the Pad."""
    if attr(node, "auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
        return No("its pads follow from the size of its input")
    own = list(attr(node, "pads") or [0] * len(more))
    if node.op_type != "Conv":
        if node.op_type == "AveragePool" and any(own) and not attr(node, "count_include_pad", 0):
            return No("its own pads are not counted")
        if attr(node, "ceil_mode", 0):
            return No("its last window may reach out")
        if any(d != 1 for d in attr(node, "dilations") or ()):
            return No("its window has gaps, through which all of the input may fall")
        kernel = attr(node, "kernel_shape")
        if any(p + q >= kernel[i % len(kernel)] for i, (p, q) in enumerate(zip(own, more, strict=True))):
            return No("a window would lie in the padding")
    return [p + q for p, q in zip(own, more, strict=True)]


# -- products of matrices --------------------------------------------------------------------------------------------


def _swapped(value: ir.Value | None, reader: ir.Node) -> ir.Value | None:
    """The matrix that `value` is the transpose of."""
    node = made_by(value, "Transpose")
    if node is None or value is None or perm_of(node) != [1, 0] or not read_only_by(value, reader):
        return None
    return node.inputs[0]


@rule(op.Gemm(name="node"), exactness=Exactness.ROUNDING)
def transpose_into_gemm(draft: Draft, _ctx: Context, node: ir.Node) -> Answer:
    """A transposed matrix is read as it lies."""
    inputs, changed = list(node.inputs), {}
    for i, name in enumerate(("transA", "transB")):
        source = _swapped(inputs[i], node)
        if source is not None:
            inputs[i], changed[name] = source, 1 - int(attr(node, name, 0))
    draft.reduction = _common(node)
    return draft.like(node, inputs, **changed) if changed else No("no input is a transposed matrix for it alone")


@rule(op.MatMul(name="node"), exactness=Exactness.ROUNDING)
def transpose_into_matmul(draft: Draft, _ctx: Context, node: ir.Node) -> Answer:
    """A product with a transposed matrix is a Gemm that reads it as it lies."""
    a, b = node.inputs
    if a is None or b is None or rank(a) != 2 or rank(b) != 2 or a.dtype not in _FLOATS:  # noqa: PLR2004 - matrices
        return No("it does not multiply matrices of floats")
    left, right = _swapped(a, node), _swapped(b, node)
    if left is None and right is None:
        return No("no input is a transposed matrix for it alone")
    draft.reduction = _common(node)
    return draft.node(
        "Gemm", [left or a, right or b], {"transA": int(left is not None), "transB": int(right is not None)}
    )


def _common(node: ir.Node) -> int:
    """About how many products each element sums up."""
    extents = dims(node.inputs[0]) or []
    return max((e if isinstance(e, int) else _OPEN for e in extents), default=_OPEN)


# -- recurrent networks ----------------------------------------------------------------------------------------------


@rule(one_of("GRU", "LSTM", "RNN")(name="node"), exactness=Exactness.BITWISE)
def zero_states(draft: Draft, _ctx: Context, node: ir.Node) -> Answer:
    """Initial states of zeros are left out."""
    states = [i for i in (5, 6) if _is_zero(input_at(node, i))]
    if not states:
        return No("its states do not start from zeros")
    inputs = [None if i in states else value for i, value in enumerate(node.inputs)]
    while inputs and inputs[-1] is None:
        inputs.pop()
    draft.like(node, inputs)
    made = draft.nodes[-1]
    made.resize_outputs(len(node.outputs))
    return {old: new for old, new in zip(node.outputs, made.outputs, strict=True) if old.name}


_MOVED = ("Expand", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze")


def _is_zero(value: ir.Value | None) -> bool:
    """Whether all elements are 0.0, however many there are."""
    contents = array(value)
    if contents is not None:
        return not np.any(contents) and not np.any(np.signbit(contents))
    node = made_by(value, "ConstantOfShape", *_MOVED)
    if node is None:
        return False
    if node.op_type == "ConstantOfShape":
        fill = attr(node, "value")
        return fill is None or (not np.any(fill.numpy()) and not np.any(np.signbit(fill.numpy())))
    return _is_zero(node.inputs[0])


RULES: tuple[Rule, ...] = (pad_into_window, transpose_into_gemm, zero_states)
_C_IS_OPTIONAL = 11
"""Opset from which Gemm does without C."""


@dataclass(frozen=True)
class Absorb(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "absorb"
    summary: ClassVar[str] = "padding, transposing and zero states into the operators that do them anyway"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    rules: ClassVar[Mapping[str, str]] = described((*RULES, transpose_into_matmul))

    def run(self, edit: Editor, ctx: Context) -> None:
        """Until no rule fires any more."""
        late = edit.model.opset_imports.get("", 0) >= _C_IS_OPTIONAL
        rewrite(edit, ctx, (*RULES, transpose_into_matmul) if late else RULES)
