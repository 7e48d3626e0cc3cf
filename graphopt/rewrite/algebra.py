"""Algebra: two operations that are one, or none.

    Neg(Neg(x)), Not(Not(x))            → x
    f(f(x)), Floor(Round(x)), …         → f(x)                      f idempotent: Relu, Abs, Floor, …
    Max(x, x), And(x, x), …             → x
    Clip(Clip(x)), Relu(Clip(x)), …     → Clip(x)                   float and half, bounds constant
    Min(Max(x, a), b)                   → Clip(x, a, b)
    Cast(Cast(x))                       → Cast(x), or x             the first one loses nothing
    ReduceMean(ReduceMean(x))           → ReduceMean(x)             also sums
    Squeeze(Reduce(x))                  → Reduce(x) without the axes
    x + 0, x − (−0)                     → x                         unless something can tell −0 from 0 by then

and the rules of `arithmetic` and `fast_math`.

BITWISE but for sums and products, which are rounded differently, and for Max and Min, where the runtime decides by the
length of the tensor which of two zeros it answers.

Clip without a bound clips to the largest finite number; Relu does not. Both keep not-a-numbers and the sign of a zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.nodes import attr, graphs, input_at, rank, scalar
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, No, Rule, described, rewrite, rule
from graphopt.match.pattern import const, one_of, op, var
from graphopt.protocol import Context, Pass
from graphopt.rewrite.arithmetic import ARITHMETIC
from graphopt.rewrite.ask import dims, ints, made_by, read_only_by, same_dims
from graphopt.rewrite.fast_math import FAST

__all__ = ["Algebra"]

Array = NDArray[Any]

_TWICE = ("BitwiseNot", "Neg", "Not")
_AGAIN = ("Abs", "Ceil", "Floor", "Relu", "Round", "Sign")
_WHOLE = frozenset({"Ceil", "Floor", "Round"})


@rule(one_of(*_TWICE)(name="node"), exactness=Exactness.BITWISE)
def twice(_draft: Draft, _ctx: Context, node: ir.Node) -> Answer:
    """What undoes itself and is done twice goes."""
    inner = made_by(node.inputs[0], node.op_type)
    x = None if inner is None else inner.inputs[0]
    return No("it does not follow its own kind") if x is None else x


@rule(one_of(*_AGAIN)(var("y"), name="node"), exactness=Exactness.BITWISE)
def again(_draft: Draft, _ctx: Context, y: ir.Value, node: ir.Node) -> Answer:
    """What changes nothing the second time is done once."""
    kinds = _WHOLE if node.op_type in _WHOLE else {node.op_type}
    return No("it does not follow its own kind") if made_by(y, *kinds) is None else y


@rule(one_of("And", "BitwiseAnd", "BitwiseOr", "Max", "Min", "Or")(var("x"), var("x")), exactness=Exactness.BITWISE)
def itself(_draft: Draft, _ctx: Context, x: ir.Value) -> Answer:
    """The larger, the smaller, or both of a value and itself is the value."""
    return x


# -- bounds ----------------------------------------------------------------------------------------------------------

_CLIPPED: Mapping[ir.DataType | None, type[np.floating[Any]]] = MappingProxyType(
    {ir.DataType.FLOAT: np.float32, ir.DataType.FLOAT16: np.float16}
)
"""The types for which it is known what the runtime makes of not-a-numbers and zeros."""
Bounds = tuple[float, float]


def _bounds(node: ir.Node) -> Bounds | None:
    """The bounds of a Relu or Clip with constant ones that are in order."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    dtype = node.inputs[0].dtype if node.inputs[0] is not None else None
    if dtype not in _CLIPPED:
        return None
    widest = np.finfo(_CLIPPED[dtype])
    found = []
    for i, (name, default) in enumerate((("min", widest.min), ("max", widest.max)), 1):
        given = scalar(input_at(node, i)) if input_at(node, i) is not None else attr(node, name, default)
        if given is None or np.isnan(given):
            return None
        found.append(float(given))
    return (found[0], found[1]) if found[0] <= found[1] else None


@rule(
    one_of("Clip", "Relu")(
        one_of("Clip", "Relu")(var("x"), var("_a", optional=True), var("_b", optional=True), name="inner"),
        var("_c", optional=True),
        var("_d", optional=True),
        name="node",
    ),
    exactness=Exactness.BITWISE,
)
def clips(draft: Draft, _ctx: Context, x: ir.Value, inner: ir.Node, node: ir.Node, **_given: object) -> Answer:
    """Two bounds in a row become one."""
    if x.dtype not in _CLIPPED:
        return No("it is not known how the runtime clips this type")
    form = next((n for n in (node, inner) if n.op_type == "Clip"), None)
    if form is None:
        return No("there is nothing to bound")
    first, second = _bounds(inner), _bounds(node)
    if first is None or second is None:
        return No("the bounds are not constants in order")
    low, high = (min(max(bound, second[0]), second[1]) for bound in first)
    if "min" in form.attributes or "max" in form.attributes:
        return draft.like(form, [x], min=low, max=high)
    if not form.inputs[1:]:
        return No("it is not known how the bounds are given")
    dtype = _CLIPPED[x.dtype]
    name = node.outputs[0].name
    limits = [draft.const(np.asarray(v, dtype), f"{name}/{k}") for k, v in (("min", low), ("max", high))]
    return draft.node("Clip", [x, *limits])


@rule(op.Min(op.Max(var("x"), const("low")), const("high"), name="node"), exactness=Exactness.ROUNDING)
def max_min(draft: Draft, _ctx: Context, x: ir.Value, low: Array, high: Array, node: ir.Node) -> Answer:
    """Min(Max(x, a), b) becomes Clip(x, a, b)."""
    return _clip(draft, x, low, high, node)


@rule(op.Max(op.Min(var("x"), const("high")), const("low"), name="node"), exactness=Exactness.ROUNDING)
def min_max(draft: Draft, _ctx: Context, x: ir.Value, low: Array, high: Array, node: ir.Node) -> Answer:
    """Max(Min(x, b), a) becomes Clip(x, a, b)."""
    return _clip(draft, x, low, high, node)


def _clip(draft: Draft, x: ir.Value, low: Array, high: Array, node: ir.Node) -> Answer:
    axes = rank(x)
    if x.dtype not in _CLIPPED:
        return No("it is not known how the runtime clips this type")
    if low.size != 1 or high.size != 1 or axes is None or max(low.ndim, high.ndim) > axes:
        return No("a bound is more than one number")
    if not float(low.item()) <= float(high.item()):
        return No("the bounds are not in order")
    name = node.outputs[0].name
    return draft.node(
        "Clip", [x, draft.const(low.reshape(()), f"{name}/min"), draft.const(high.reshape(()), f"{name}/max")]
    )


# -- types -----------------------------------------------------------------------------------------------------------

_T = ir.DataType
_FLOATS = (_T.FLOAT16, _T.BFLOAT16, _T.FLOAT, _T.DOUBLE)
_SIGNED = (_T.INT8, _T.INT16, _T.INT32, _T.INT64)
_UNSIGNED = (_T.UINT8, _T.UINT16, _T.UINT32, _T.UINT64)
_DIGITS: Mapping[ir.DataType, int] = {_T.FLOAT16: 11, _T.BFLOAT16: 8, _T.FLOAT: 24, _T.DOUBLE: 53}
"""Bits of the whole numbers that a floating point type holds without gaps."""


def _holds(wide: ir.DataType, narrow: ir.DataType) -> bool:
    """Whether every value of one type is a value of the other."""
    if wide == narrow:
        return True
    if narrow is _T.BOOL:
        return wide in (*_FLOATS, *_SIGNED, *_UNSIGNED)
    if narrow in _FLOATS:
        return wide is _T.DOUBLE or (wide is _T.FLOAT and narrow is not _T.DOUBLE)
    if narrow not in (*_SIGNED, *_UNSIGNED):
        return False
    bits = narrow.itemsize * 8 - (narrow in _SIGNED)
    if wide in _FLOATS:
        return bits <= _DIGITS[wide]
    if wide in _UNSIGNED:
        return narrow in _UNSIGNED and wide.itemsize >= narrow.itemsize
    return wide in _SIGNED and wide.itemsize * 8 - 1 >= bits


def _direct(source: ir.DataType, middle: ir.DataType, target: ir.DataType) -> bool:
    """Whether casting directly gives the same, out of range as well."""
    if not _holds(middle, source):
        return False
    if _holds(target, source):
        return True
    whole = (*_SIGNED, *_UNSIGNED)
    if all(t in whole for t in (source, middle, target)):
        return True  # the lowest bits stay
    return all(t in _FLOATS for t in (source, middle, target))


@rule(op.Cast(var("y"), name="node"), exactness=Exactness.BITWISE)
def casts(draft: Draft, _ctx: Context, y: ir.Value, node: ir.Node) -> Answer:
    """A Cast that loses nothing before another Cast goes."""
    inner = made_by(y, "Cast")
    x = None if inner is None else inner.inputs[0]
    if x is None or x.dtype is None or y.dtype is None:
        return No("it does not follow a Cast of a known type")
    target = ir.DataType(attr(node, "to"))
    if not _direct(x.dtype, y.dtype, target):
        return No(f"{x.dtype.name} to {y.dtype.name} to {target.name} may lose something on the way")
    if x.dtype == target:
        return x
    return draft.like(node, [x]) if read_only_by(y, node) else No("the value in between is used elsewhere as well")


# -- sums and products -----------------------------------------------------------------------------------------------

_NESTING = ("ReduceL1", "ReduceL2", "ReduceMean", "ReduceSum")


@rule(
    one_of(*_NESTING)(
        one_of(*_NESTING)(var("x"), var("_a", optional=True), name="inner"), var("_b", optional=True), name="node"
    ),
    exactness=Exactness.ROUNDING,
)
def reduces(draft: Draft, _ctx: Context, x: ir.Value, inner: ir.Node, node: ir.Node, **_axes: object) -> Answer:
    """A sum of sums, or a mean of means, is taken at once."""
    axes = rank(x)
    first, second = ints(inner, "axes", 1), ints(node, "axes", 1)
    if inner.op_type != node.op_type or axes is None or not first or not second:
        return No("it does not follow its own kind along known axes")
    keep = bool(attr(inner, "keepdims", 1))
    if keep != bool(attr(node, "keepdims", 1)):
        return No("only one of them keeps its axes")
    first = [a % axes for a in first]
    left = list(range(axes)) if keep else [a for a in range(axes) if a not in first]
    both = sorted({*first, *(left[a] for a in second)})
    extents = dims(x) or []
    known = [e for a in both if isinstance(e := extents[a], int)]
    draft.reduction = int(np.prod(known)) if len(known) == len(both) else 1024
    return _reduce(draft, node, x, both, keep=keep)


def _reduce(draft: Draft, node: ir.Node, x: ir.Value, axes: list[int], *, keep: bool) -> ir.Value:
    if "axes" in node.attributes:
        return draft.like(node, [x], axes=axes, keepdims=int(keep))
    constant = draft.const(np.asarray(axes, np.int64), f"{node.outputs[0].name}/axes")
    return draft.like(node, [x, constant], keepdims=int(keep))


_REDUCING = (*_NESTING, "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSumSquare")


@rule(
    one_of("Flatten", "Reshape", "Squeeze")(
        one_of(*_REDUCING)(var("x"), var("_a", optional=True), name="inner"), var("_b", optional=True), name="node"
    ),
    exactness=Exactness.BITWISE,
)
def squeezed_reduce(draft: Draft, _ctx: Context, x: ir.Value, inner: ir.Node, node: ir.Node, **_axes: object) -> Answer:
    """A reduction whose axes are taken out afterwards does not keep them."""
    given, extents = ints(inner, "axes", 1), dims(inner.outputs[0])
    if not given or extents is None or not attr(inner, "keepdims", 1):
        return No("it does not keep known axes")
    axes = [a % len(extents) for a in given]
    if not same_dims([e for a, e in enumerate(extents) if a not in axes], dims(node.outputs[0])):
        return No("other axes are taken out")
    return _reduce(draft, inner, x, axes, keep=False)


RULES: tuple[Rule, ...] = (
    twice,
    again,
    itself,
    clips,
    casts,
    reduces,
    squeezed_reduce,
    *ARITHMETIC,
    *FAST,
)
BOUNDED: tuple[Rule, ...] = (max_min, min_max)
_BOUNDS_ARE_INPUTS = 12
"""Opset from which Clip takes its bounds as inputs for all types."""


@dataclass(frozen=True)
class Algebra(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "algebra"
    summary: ClassVar[str] = "make one operation, or none, of two"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    rules: ClassVar[Mapping[str, str]] = {
        **described((*RULES, *BOUNDED)),
        "added_zeros": "Adding zeros goes where nothing tells a zero from a negative zero.",
    }

    def run(self, edit: Editor, ctx: Context) -> None:
        """Until no rule fires any more."""
        late = edit.model.opset_imports.get("", 0) >= _BOUNDS_ARE_INPUTS
        rewrite(edit, ctx, (*RULES, *BOUNDED) if late else RULES)
        _added_zeros(edit, ctx)


def _added_zeros(edit: Editor, ctx: Context) -> None:
    """What is told apart is found for the whole graph at once; without these nodes it stays the same."""
    adding = [
        (node, same)
        for graph in graphs(edit.model)
        for node in graph
        if node.op_type in {"Add", "Sub"} and not node.domain and (same := ops.adds_zeros(node)) is not None
    ]
    seen = ops.seen_signs(edit.model) if adding else frozenset()
    for node, same in adding:
        x = node.inputs[same]
        if node.outputs[0] in seen:
            ctx.miss("added_zeros", node, "a zero must keep its sign here")
        elif x is not None:
            with ctx.noting("added_zeros", node):
                edit.commit("added_zeros", Exactness.ROUNDING, {node.outputs[0]: x})
