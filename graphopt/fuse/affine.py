"""Maps that scale and shift each channel by a number of its own, whatever operator does it.

BatchNormalization(x)      k = s / sqrt(v + ε),  k·x + (t − μ·k)
x · c,  x / c              c·x,  x/c              c one number, or one for each channel
x + c,  x − c,  c − x      x ± c,  −x + c
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.graph.draft import Draft
from graphopt.graph.nodes import array, attr, rank
from graphopt.match.engine import No
from graphopt.match.pattern import Either, Pattern, const, either, one_of, op
from graphopt.ops import Linear
from graphopt.protocol import Context
from graphopt.rewrite.ask import dims

__all__ = ["AFFINE", "Affine", "affine", "batchnorm", "doubt", "per_channel", "rescaled", "scaling", "unpaid"]

Array = NDArray[Any]

AFFINE = ("Add", "BatchNormalization", "Div", "Mul", "Sub")
"""The operators that may be one."""


def scaling(inner: Pattern) -> Either:
    """What scales or shifts what `inner` matches by constants, which `affine` says how; they are bound, too."""
    c = const("_c")
    return either(
        op.BatchNormalization(inner, const("_s"), const("_t"), const("_mu"), const("_v")),
        one_of("Add", "Mul", "Div", "Sub")(inner, c),
        op.Sub(c, inner),
    )


@dataclass(frozen=True)
class Affine:
    """`scale·x + shift`, with one number of each for every channel, in float64."""

    x: ir.Value
    scale: Array
    shift: Array


def per_channel(c: Array, axes: int | None, axis: int | None, channels: int) -> Array | No:
    """`c` as (channels,) in float64 if that is how it meets a tensor, proved by its axis and not by its length.

    Args:
        c: a constant operand.
        axes: the rank of the tensor.
        axis: that of the channels, counted from the front.
        channels: their number.
    """
    if c.dtype.kind != "f" or not np.all(np.isfinite(c)):
        return No("the constant is not made of finite floats")
    if axes is None or axis is None or c.ndim > axes:
        return No("how the constant meets the output is not known")
    shape = (1,) * (axes - c.ndim) + c.shape
    if any(d != 1 for i, d in enumerate(shape) if i != axis) or shape[axis] not in {1, channels}:
        return No("the constant is not one number for each channel")
    return np.broadcast_to(c.astype(np.float64).reshape(-1), channels)


def batchnorm(bn: ir.Node, parameters: Sequence[Array | None], channels: int) -> tuple[Array, Array] | No:
    """Scale and shift of a BatchNormalization with these parameters: its inputs from 1 on. They may not be finite."""
    if attr(bn, "training_mode", 0) or not ops.is_pure(bn, {}):
        return No("it is in training mode")
    if attr(bn, "spatial", 1) != 1:
        return No("it normalizes each position by itself")
    given = [p.astype(np.float64) for p in parameters if p is not None and p.shape == (channels,)]
    if len(given) != len(parameters):
        return No("its parameters are not one per channel")
    scale, shift, mean, variance = given
    with np.errstate(all="ignore"):  # of a variance that makes no sense
        k = scale / np.sqrt(variance + attr(bn, "epsilon", 1e-5))
        return k, shift - mean * k


def affine(node: ir.Node, axis: int | None, channels: int) -> Affine | No:
    """What a node of `AFFINE` does to the channels on an axis, counted from the front."""
    if node.op_type == "BatchNormalization":
        found = batchnorm(node, [array(v) for v in node.inputs[1:]], channels)
        x = node.inputs[0]
        if isinstance(found, No):
            return found
        if axis != 1 or x is None or not all(np.all(np.isfinite(p)) for p in found):
            return No("channels are not on axis 1, or its parameters make no sense")
        return Affine(x, *found)
    constants = [array(v) for v in node.inputs]
    side = next((i for i, c in enumerate(constants) if c is not None), None)
    if side is None or "axis" in node.attributes or (node.op_type, side) == ("Div", 0):
        return No("it does not scale or shift by a constant")
    x, c = node.inputs[1 - side], constants[side]
    extents = dims(x)
    if x is None or c is None or extents is None or axis is None or rank(node.outputs[0]) != len(extents):
        return No("how the constant meets the channels is not known")
    numbers = per_channel(c, len(extents), axis, channels)
    if isinstance(numbers, No) or extents[axis] != channels:
        return numbers if isinstance(numbers, No) else No("the constant makes channels")
    return _arithmetic(node.op_type, x, numbers, left=side == 0)


def _arithmetic(operator: str, x: ir.Value, numbers: Array, *, left: bool) -> Affine | No:
    """What x and numbers, one for each channel, make; the numbers may be the left operand."""
    one, zero = np.ones_like(numbers), np.zeros_like(numbers)
    match operator:
        case "Mul":
            return Affine(x, numbers, zero)
        case "Div":
            return Affine(x, 1.0 / numbers, zero) if np.all(numbers) else No("it divides by zero")
        case "Add":
            return Affine(x, one, numbers)
        case _:
            return Affine(x, -one, numbers) if left else Affine(x, one, -numbers)


def doubt(lin: Linear, weight: Array, bias: Array | None, switched_on: Callable[[], Array] | None = None) -> No | None:
    """Why numbers are not fit to be a product's new weight and bias.

    Args:
        lin: the product.
        weight: of the shape of the old one.
        bias: what goes with it.
        switched_on: the new weight if no channel were scaled by zero; not given where none can be.
    """
    if not np.all(np.isfinite(weight)) or (bias is not None and not np.all(np.isfinite(bias))):
        return No("the fused weights overflow their type")
    tiny = float(ml_dtypes.finfo(weight.dtype).tiny)  # type: ignore[no-untyped-call]
    small = (np.abs(weight) < tiny) & (np.abs(lin.weights) >= tiny)
    if np.any(small) and switched_on is not None:
        small &= np.abs(switched_on()) < tiny
    return No("the fused weights underflow their type") if np.any(small) else None


def rescaled(
    draft: Draft, ctx: Context, lin: Linear, *, out: Array | float = 1.0, shift: Array | float = 0.0
) -> ir.Value | No:
    """The product with a scale and shift of its output inside, unless numbers overflow or the file may not grow."""
    with np.errstate(all="ignore"):
        weight, bias = lin.scaled(out=out, shift=shift)
    problem = doubt(lin, weight, bias, lambda: lin.scaled(out=np.where(np.asarray(out) == 0, 1.0, out))[0])
    problem = problem or unpaid(ctx, lin, weight, draft.root)
    draft.reduction = max(draft.reduction, lin.reduction)
    return problem or lin.rebuild(draft, weight, bias)


def unpaid(ctx: Context, lin: Linear, weight: Array, follower: ir.Node | None = None) -> No | None:
    """Why the file has no room for a new weight beside the old one; if it has, that is accounted for.

    Args:
        ctx: whose ledger is asked.
        lin: the product.
        weight: the new one.
        follower: what is fused into the product, if it stands behind it.
    """
    old = lin.node.inputs[lin.weight]
    if old is None or np.array_equal(weight, lin.weights):
        return None
    others = [use.node for use in old.uses() if (use.node, use.idx) != (lin.node, lin.weight)]
    if others and follower is not None and all(_followed_alike(user, lin.node, follower) for user in others):
        ctx.ledger.lend(weight.nbytes)  # the others get equal weights, of which one will stay
    elif others and not ctx.ledger.spend(weight.nbytes):
        return No("the weight is shared and the file may not grow")
    return None


def _followed_alike(other: ir.Node, node: ir.Node, follower: ir.Node) -> bool:
    """Whether the operation behind another product is, with the same constants, the one behind this one."""
    readers = list(other.outputs[0].consumers())
    if len(readers) != 1 or other.op_type != node.op_type or other.outputs[0].is_graph_output():
        return False
    theirs = [None if v is other.outputs[0] else v for v in readers[0].inputs]
    ours = [None if v is node.outputs[0] else v for v in follower.inputs]
    same = readers[0].op_identifier() == follower.op_identifier() and readers[0].attributes == follower.attributes
    return same and theirs == ours
