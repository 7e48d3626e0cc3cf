"""Sums go into the normalizations that read them, as around every block of a transformer.

    s = x + z,  LayerNormalization(s, g, b)         → SkipLayerNormalization(x, z, g, b)      and s, if read elsewhere
    s = x + z,  RMSNormalization(s, g)              → SkipSimplifiedLayerNormalization(x, z, g)
    s = x + z,  s / √(mean(s²) + ε)                 → SkipSimplifiedLayerNormalization(x, z, 1)    before opset 23
    … of (x + c) + z                                → …(x, z, g, b, c)                      c a constant vector

Conditions: float32, or float16 where the target has a kernel for that; x and z have 2 or 3 axes and provably the same
shape; the last axis is normalized, in float32, and its extent is that of g, b and c, which are constants; nothing reads
mean and deviation. Where c is inside, nothing else reads x + c.

Not-a-number and infinity: as spelled out, by measurement; but where squares of float16 overflow as they are spelled
out, kernels have them in float32.

What it gains on CUDA: one pass over memory instead of two or three. On the CPU it is slower (`targets`), so that no
target for that has it.

ROUNDING: the same function of the reals. Source: onnxruntime, docs/ContribOperators.md,
com.microsoft.SkipLayerNormalization; contrib_ops/cpu/skip_layer_norm_helper.h.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.fuse.norm import OVER_ROOT, first_axis
from graphopt.graph.draft import Draft
from graphopt.graph.nodes import array, attr, is_constant, rank, static_shape
from graphopt.graph.record import Exactness
from graphopt.lower.kernel import lacking
from graphopt.match.engine import Answer, No, Rule, rule
from graphopt.match.pattern import const, either, one_of, op, var
from graphopt.ops.runtime import DOMAIN
from graphopt.protocol import Context
from graphopt.rewrite.ask import axis_of, dims, made_by, read_only_by, same_dims

__all__ = ["RULES"]

Array = NDArray[Any]

_OPERATORS: Mapping[str, str] = MappingProxyType(
    {"LayerNormalization": "SkipLayerNormalization", "RMSNormalization": "SkipSimplifiedLayerNormalization"}
)
_SUM = 3
"""The output of both operators that is the sum."""
_RANKS = {2, 3}


@rule(
    one_of(*_OPERATORS)(var("x"), var("scale"), var("shift", optional=True), name="norm"),
    exactness=Exactness.ROUNDING,
)
def skip_norm(
    draft: Draft, ctx: Context, x: ir.Value, scale: ir.Value, shift: ir.Value | None, norm: ir.Node
) -> Answer:
    """A normalization takes in the sum before it."""
    if any(v.uses() or v.is_graph_output() for v in norm.outputs[1:]) or attr(norm, "stash_type", 1) != 1:
        return No("its mean and deviation are read, or not in float32")
    if axis_of(norm, -1) != (rank(x) or 0) - 1:
        return No("it is not the last axis alone that is normalized")
    given = [scale, *([shift] if norm.op_type == "LayerNormalization" else [])]
    operator, epsilon = _OPERATORS[norm.op_type], float(attr(norm, "epsilon", 1e-5))
    return _skipping(draft, ctx, operator, x, given, epsilon, shared=not read_only_by(x, norm))


@rule(either(op.Mul(OVER_ROOT, const("gain")), OVER_ROOT), exactness=Exactness.ROUNDING)
def skip_root(
    draft: Draft,
    ctx: Context,
    x: ir.Value,
    squares: ir.Node,
    squares_axes: Array | None,
    epsilon: Array,
    gain: Array | None = None,
) -> Answer:
    """A value over its root mean square, spelled out, takes in the sum before it."""
    axis, extents = first_axis(x, squares, squares_axes), dims(x) or [None]
    if isinstance(axis, No):
        return axis
    if axis != len(extents) - 1 or epsilon.size != 1 or epsilon.ndim > len(extents):
        return No("it is not the last axis alone that is normalized, with one epsilon")
    (root,) = draft.root.outputs
    if gain is None and any(u.op_type == "Mul" and any(map(is_constant, u.inputs)) for u in root.consumers()):
        return No("a factor goes along with it")
    ones = np.ones(extents[-1] if isinstance(extents[-1], int) else 0, epsilon.dtype)
    if gain is None and not ctx.ledger.spend(ones.nbytes):
        return No("the file may not grow")
    scale = draft.const(ones if gain is None else gain, f"{root.name}/scale")
    shared = len(set(x.consumers())) > 2 or x.is_graph_output()  # noqa: PLR2004 - the square, and what divides
    return _skipping(
        draft, ctx, _OPERATORS["RMSNormalization"], x, [scale], float(epsilon.reshape(-1)[0]), shared=shared
    )


RULES: tuple[Rule, ...] = (skip_norm, skip_root)


def _skipping(
    draft: Draft,
    ctx: Context,
    operator: str,
    x: ir.Value,
    given: list[ir.Value | None],
    epsilon: float,
    *,
    shared: bool,
) -> Answer:
    """The operator in place of a normalization of x with such constants, and of x, where that is read elsewhere."""
    if f"{DOMAIN}::{operator}" not in ctx.target.operators:
        return No(f"target {ctx.target.name} does not take it")
    if (lack := lacking(ctx, operator, x)) is not None:
        return lack
    add, extents = made_by(x, "Add"), dims(x)
    if add is None or extents is None or len(extents) not in _RANKS or add.graph is not draft.root.graph:
        return No("it is no sum of 2 or 3 axes that is normalized")
    if not all(same_dims(dims(v), extents) for v in add.inputs):
        return No("the terms are not known to be of the same shape")
    known = (v in draft.constants or is_constant(v) for v in given if v is not None)
    if not all(known) or any(static_shape(v) != (extents[-1],) for v in given if v is not None):
        return No("scale and shift are not constants of the last axis")
    terms = list(add.inputs)
    bias = None
    for index, term in enumerate(add.inputs):
        found = _biased(term, add, extents[-1])
        if found is not None:
            terms[index], bias = found
            break
    inputs = [*terms, *given, *([] if bias is None else [bias])]
    draft.reduction = extents[-1] if isinstance(extents[-1], int) else 1
    attributes = {"epsilon": epsilon}
    if not shared:
        return draft.node(operator, inputs, attributes, domain=DOMAIN)
    made = ir.node(operator, inputs, attributes, domain=DOMAIN, num_outputs=_SUM + 1)
    for absent in made.outputs[1:_SUM]:
        absent.name = ""
    draft.nodes.append(made)
    draft.matched.append(draft.root)
    return {x: made.outputs[_SUM], draft.root.outputs[0]: made.outputs[0]}


def _biased(term: ir.Value | None, reader: ir.Node, width: int | str | None) -> tuple[ir.Value, ir.Value] | None:
    """A term of a sum as another one and a constant vector, if only the sum needs it."""
    add = made_by(term, "Add")
    if term is None or add is None or not read_only_by(term, reader):
        return None
    for bias, data in (tuple(add.inputs), tuple(reversed(add.inputs))):
        if bias is not None and data is not None and array(bias) is not None and static_shape(bias) == (width,):
            return (data, bias) if same_dims(dims(data), dims(term)) else None
    return None
