"""Border: what a padded 1x1 convolution makes of its padding is known ahead, and need not be averaged anew each time.

    mean(f(Conv(x, pads)))  →  mean(f(Conv(x))) · inside/all + f(B) · (all − inside)/all

where the kernel has one element and mean is over all positions (GlobalAveragePool, or ReduceMean over space). At each
position of the border the result is f(B), B the bias; `inside` of `all` positions are not on it. f is any number of
functions of one element. Networks that end in such a convolution spend a part of their time on the border.

ROUNDING: the sum is taken apart. Weights must be finite, since padding times an infinity is not zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from graphopt import ops
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.nodes import array, attr, input_at
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, No, Rule, described, rewrite, rule
from graphopt.match.pattern import one_of
from graphopt.ops.flow import first_only, pointwise
from graphopt.protocol import Context, Pass
from graphopt.rewrite.ask import ints, read_only_by

__all__ = ["Border"]

_SPATIAL = 2


@rule(one_of("GlobalAveragePool", "ReduceMean")(name="pool"), exactness=Exactness.ROUNDING)
def constant_border(draft: Draft, _ctx: Context, pool: ir.Node) -> Answer:
    """The mean over what a padded 1x1 convolution makes leaves out the border, whose result is known."""
    found = _convolution(pool)
    if isinstance(found, No):
        return found
    conv, functions = found
    weights, bias = array(input_at(conv, 1)), array(input_at(conv, 2))
    if weights is None or (bias is None and input_at(conv, 2) is not None):
        return No("its weights are no constants")
    if prod(weights.shape[_SPATIAL:]) != 1 or any(s != 1 for s in attr(conv, "strides") or ()):
        return No("it sees more than one element")
    pads = attr(conv, "pads") or ()
    if attr(conv, "auto_pad", "NOTSET") != "NOTSET" or min(pads, default=0) < 0 or not any(pads):
        return No("it is not padded")
    positions = _positions(conv)
    if positions is None or not _over_space(pool, weights.ndim):
        return No("not all positions are averaged, or their number is not known")
    if not np.isfinite(weights).all():
        return No("a weight is not finite")
    inside, everywhere = positions
    keep = pool.op_type == "GlobalAveragePool" or attr(pool, "keepdims", 1)
    column = (1, -1, *([1] * (weights.ndim - _SPATIAL) if keep else []))
    border = np.zeros(weights.shape[0], weights.dtype) if bias is None else bias
    outside = draft.const(border.reshape(column), "border")
    value = draft.like(conv, conv.inputs, pads=None)
    for function in functions:
        value = draft.like(function, [value, *function.inputs[1:]])
        outside = draft.like(function, [outside, *function.inputs[1:]])
    draft.matched += [conv, *functions]
    draft.reduction = everywhere
    share = np.array(inside / everywhere, weights.dtype)
    mean = draft.node("Mul", [draft.like(pool, [value, *pool.inputs[1:]]), draft.const(share, "inside")])
    rest = np.array(1 - inside / everywhere, weights.dtype)
    return draft.node("Add", [mean, draft.node("Mul", [outside, draft.const(rest, "outside")])])


def _convolution(pool: ir.Node) -> tuple[ir.Node, list[ir.Node]] | No:
    """The Conv behind what is averaged, and the functions of one element in between, in their order."""
    functions: list[ir.Node] = []
    reader, value = pool, pool.inputs[0]
    while value is not None and (node := value.producer()) is not None and read_only_by(value, reader):
        if node.op_type == "Conv" and not node.domain:
            return node, functions[::-1]
        spec = ops.spec_of(node)
        settings = [array(v) for v in node.inputs[1:] if v is not None]
        if spec is None or spec.flow not in {pointwise, first_only} or len(node.outputs) != 1:
            break
        if any(s is None or s.size != 1 for s in settings):
            break
        functions.append(node)
        reader, value = node, node.inputs[0]
    return No("it does not average a function of a convolution")


def _positions(conv: ir.Node) -> tuple[int, int] | None:
    """How many positions there are inside of the border, and in all."""
    before, after = _space(conv.inputs[0]), _space(conv.outputs[0])
    return None if before is None or after is None or not prod(after) else (prod(before), prod(after))


def _space(value: ir.Value | None) -> tuple[int, ...] | None:
    """The extents of all axes behind the channels, if they are known numbers."""
    found = [] if value is None or value.shape is None else list(value.shape)[_SPATIAL:]
    numbers = tuple(d for d in found if isinstance(d, int))
    return numbers if numbers and len(numbers) == len(found) else None


def _over_space(pool: ir.Node, rank: int) -> bool:
    axes = ints(pool, "axes", 1)
    whole = sorted(a % rank for a in axes) == list(range(_SPATIAL, rank)) if axes else False
    return pool.op_type == "GlobalAveragePool" or whole


RULES: tuple[Rule, ...] = (constant_border,)


@dataclass(frozen=True)
class Border(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "border"
    summary: ClassVar[str] = "padding of a 1x1 convolution, whose result is known, out of the mean behind it"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    rules: ClassVar[Mapping[str, str]] = described(RULES)

    def run(self, edit: Editor, ctx: Context) -> None:
        """Once: afterwards no such padding is left."""
        rewrite(edit, ctx, RULES)
