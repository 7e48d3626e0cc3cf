"""Fuse linear maps that follow each other into one product with a constant weight.

    W·(k⊙x + t)                    → (W·k)·x + W·t             BatchNormalization, Mul, Div, Add, Sub before it
    k⊙Concat(W·x, V·z) + t         → Concat(W'·x, V'·z)         they follow a Concat of products
    W·(V·x + c)                    → (W·V)·x + W·c             Gemm and MatMul; a 1×1 Conv before or after another Conv

Conditions: nothing else reads what lies between; a product that pads reads zeros there and not t or c, so those must
be zero; a 1×1 Conv does not pad. Two products become one where that multiplies no more (a bottleneck stays).

With kernels: a 1×1 Conv W after a Conv V has the kernel, pads and dilations of V, and the product of the strides; a
Conv W after a 1×1 Conv V those of W, spread by the strides of V: o·s·s' = (o·s)·s'.

ROUNDING: the same function of the reals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.fuse.affine import AFFINE, affine, doubt, per_channel, rescaled, scaling, unpaid
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.nodes import attr, rank
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, No, Rule, described, rewrite, rule
from graphopt.match.pattern import const, either, linear, one_of, op, var
from graphopt.ops import Linear
from graphopt.protocol import Context, Pass
from graphopt.rewrite.ask import axis_of, read_only_by

__all__ = ["FuseChain"]

Array = NDArray[Any]

MATRIX = 2
"""The rank of one."""


@rule(
    one_of("Conv", "ConvTranspose", "Gemm", "MatMul")(
        one_of(*AFFINE)(name="inner"), var("_weight"), var("_bias", optional=True), name="node"
    ),
    exactness=Exactness.ROUNDING,
)
def affine_into_linear(draft: Draft, ctx: Context, inner: ir.Node, node: ir.Node, **_others: object) -> Answer:
    """W·(k⊙x + t) becomes (W·k)·x + W·t."""
    lin = _only(node)
    axes = rank(inner.outputs[0])
    if lin is None or axes is None:
        return No("the weight is not constant")
    found = affine(inner, lin.y_axis % axes, lin.in_channels)
    if isinstance(found, No):
        return found
    if inner.op_type in {"Div", "Mul"} and np.unique(found.scale).size == 1:
        return No("a factor of the whole input is another rule's")
    if np.any(found.shift) and lin.padded:
        return No("its padding is not shifted")
    if np.any(found.shift) and not _takes_bias(lin):
        return No("the operator has no bias")
    with np.errstate(all="ignore"):
        weight, bias = lin.after(found.scale, found.shift)
    problem = doubt(lin, weight, bias, lambda: lin.after(np.where(found.scale == 0, 1.0, found.scale))[0])
    problem = problem or unpaid(ctx, lin, weight)
    if problem is not None:
        return problem
    draft.reduction = lin.reduction
    return lin.rebuild(draft, weight, bias, found.x)


_CONCAT = op.Concat(name="concat")


@rule(scaling(_CONCAT), exactness=Exactness.ROUNDING)
def affine_past_concat(draft: Draft, ctx: Context, concat: ir.Node, **_constants: object) -> Answer:
    """What scales and shifts a Concat of products goes into each of them."""
    axis, parts = axis_of(concat), []
    for value in concat.inputs:
        producer = None if value is None else value.producer()
        lin = None if producer is None else _only(producer)
        if lin is None or value is None or not read_only_by(value, concat) or len(value.uses()) > 1:
            return No("not every part is a product that only the Concat reads")
        if lin.y_axis % (rank(value) or 1) != axis:
            return No("the parts are not put together along their channels")
        parts.append(lin)
    found = affine(draft.root, axis, sum(p.channels for p in parts))
    if isinstance(found, No):
        return found
    if found.x is not concat.outputs[0]:
        return No("the Concat is not what is scaled")
    if np.any(found.shift) and not all(_takes_bias(p) for p in parts):
        return No("an operator has no bias")
    ends = np.cumsum([p.channels for p in parts])[:-1]
    made: list[ir.Value] = []
    for lin, scale, shift in zip(parts, np.split(found.scale, ends), np.split(found.shift, ends), strict=True):
        part = rescaled(draft, ctx, lin, out=scale, shift=shift)
        if isinstance(part, No):
            return part
        made.append(part)
        draft.matched.append(lin.node)
    return draft.like(concat, made)


# -- products of products --------------------------------------------------------------------------------------------


@rule(
    one_of("Conv", "Gemm", "MatMul")(
        either(linear("first"), op.Add(linear("first"), const("term"), name="sum")),
        var("_weight"),
        var("_bias", optional=True),
        name="node",
    ),
    exactness=Exactness.ROUNDING,
)
def linear_of_linear(
    draft: Draft,
    ctx: Context,
    first: Linear,
    node: ir.Node,
    term: Array | None = None,
    **_others: object,
) -> Answer:
    """W·(V·x + c) becomes (W·V)·x + W·c."""
    second = _only(node)
    if second is None:
        return No("the weight is not constant")
    if (node.op_type == "Conv") != (first.node.op_type == "Conv") or first.node.op_type == "ConvTranspose":
        return No("the products are of two kinds")
    constant = first.beta * first.bias_vector().astype(np.float64)
    if term is not None:
        axes = rank(first.node.outputs[0])
        offset = per_channel(term, axes, first.y_axis % axes if axes else None, first.channels)
        if isinstance(offset, No) or rank(node.inputs[0]) != axes:
            return offset if isinstance(offset, No) else No("how the constant meets the output is not known")
        constant = constant + offset
    if second.padded and np.any(constant):
        return No("its padding is not shifted")
    product = _conv(first, second) if node.op_type == "Conv" else _matrix(first, second)
    if isinstance(product, No):
        return product
    with np.errstate(all="ignore"):
        weight, (_, bias) = product.astype(first.weights.dtype), second.after(1.0, constant)
    return _placed(draft, ctx, first, second, weight, bias)


def _only(node: ir.Node) -> Linear | None:
    """The one product of a node with its first input."""
    found = ops.linears(node)
    return found[0] if len(found) == 1 and found[0].x == 0 else None


def _takes_bias(lin: Linear) -> bool:
    return lin.bias is not None or rank(lin.node.inputs[lin.x]) == MATRIX  # a Gemm takes the place of a MatMul


def _matrix(first: Linear, second: Linear) -> Array | No:
    """The product of two matrices as (in, out), with both alphas in it."""
    if first.in_channels * second.channels > first.weights.size + second.weights.size:
        return No("one product would multiply more than both")
    a, b = (lin.alpha * lin.matrix()[0].T.astype(np.float64) for lin in (first, second))
    product: Array = a @ b
    return product


def _conv(first: Linear, second: Linear) -> Array | No:
    """The kernel of both Convs in a row, one of which is 1×1 and does not pad."""
    if first.groups != second.groups:
        return No("their groups differ")
    if not (_is_point(first) or _is_point(second)):
        return No("neither is a 1×1 Conv without pads")
    form, other = (first, second) if _is_point(second) else (second, first)
    if attr(form.node, "auto_pad", "NOTSET").startswith("SAME") and any(s != 1 for s in _strides(other)):
        return No("its pads follow from the size of its input")
    kernel, inner = form.weights.shape[2:], first.in_channels // first.groups
    positions = prod(_strides(second))  # of the first Conv, for each of the second one
    if second.channels * inner * prod(kernel) > first.weights.size * positions + second.weights.size:
        return No("one product would multiply more than both")
    v, w = (lin.matrix().astype(np.float64) for lin in (first, second))
    if form is first:
        product = np.einsum("goi,gik->gok", w, v, optimize=True)
    else:
        product = np.einsum("goik,gic->gock", w.reshape(*w.shape[:2], v.shape[1], -1), v, optimize=True)
    kernels: Array = product.reshape(second.channels, inner, *kernel)
    return kernels


def _is_point(lin: Linear) -> bool:
    return not lin.padded and prod(lin.weights.shape[2:]) == 1


def _placed(draft: Draft, ctx: Context, first: Linear, second: Linear, weight: Array, bias: Array | None) -> Answer:
    """The node with both products in it."""
    if not np.all(np.isfinite(weight)) or (bias is not None and not np.all(np.isfinite(bias))):
        return No("the fused weights overflow their type")
    old = [lin.node.inputs[lin.weight] for lin in (first, second)]
    leaving = sum(v.const_value.nbytes for v in old if v is not None and v.const_value and len(v.uses()) == 1)
    if not ctx.ledger.spend(weight.nbytes - leaving):
        return No("a weight is shared and the file may not grow")
    draft.reduction = first.reduction + second.reduction
    node, x = second.node, first.node.inputs[0]
    name = str(old[1].name if old[1] is not None else node.name)
    inputs = [x, draft.const(weight, name)]
    if bias is not None:
        inputs.append(draft.const(bias, f"{name}/bias"))
    if node.op_type == "Conv":
        return _conv_node(draft, first, second, inputs)
    if bias is not None and rank(x) == MATRIX:
        return draft.node("Gemm", inputs)
    product = draft.node("MatMul", inputs[:2])
    return product if bias is None else draft.node("Add", [product, inputs[2]])


def _conv_node(draft: Draft, first: Linear, second: Linear, inputs: list[ir.Value | None]) -> ir.Value:
    """The node of both Convs in a row with these inputs."""
    form, other = (first, second) if _is_point(second) else (second, first)
    strides = [s * t for s, t in zip(_strides(first), _strides(second), strict=True)]
    changed: dict[str, Any] = {"strides": strides, "kernel_shape": list(form.weights.shape[2:])}
    if form is second:
        spread = _strides(other)
        for name in ("dilations", "pads"):
            given = attr(form.node, name) or [int(name == "dilations")] * len(spread)
            changed[name] = [n * s for n, s in zip(given, spread * (len(given) // len(spread)), strict=True)]
        if "pads" not in form.node.attributes:
            del changed["pads"]
    return draft.like(form.node, inputs, **changed)


def _strides(lin: Linear) -> list[int]:
    return list(attr(lin.node, "strides") or [1] * (lin.weights.ndim - 2))


RULES: tuple[Rule, ...] = (affine_into_linear, affine_past_concat, linear_of_linear)


@dataclass(frozen=True)
class FuseChain(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "fuse-chain"
    summary: ClassVar[str] = "products in a row into one, and what scales or shifts their input"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    rules: ClassVar[Mapping[str, str]] = described(RULES)

    def run(self, edit: Editor, ctx: Context) -> None:
        """Until no rule fires any more."""
        rewrite(edit, ctx, RULES)
