"""Fuse spelled-out rotary position embedding into the standard operator, opset 23.

With x (N, H, S, D), its halves a, b along the last axis, and cos = [c, c], sin = [s, s] of shape (N, 1, S, D):

    x · cos + [−b, a] · sin                                    → RotaryEmbedding(x, c, s)
    RotaryEmbedding(split(x), c, s)                            → split(RotaryEmbedding(x, c, s, num_heads))
    [RotaryEmbedding(a, c, s), b]                              → RotaryEmbedding([a, b], c, s, rotary_embedding_dim)

split is Reshape to (N, S, H, D) and Transpose, which then meet those of attention.

Conditions: float32; x is split into two equal halves of an extent that is a number; cos and sin are constants with
equal halves, or functions, element by element, of [f, f] or of rows of such a constant, and c and s are computed from
halves instead; their tokens are provably those of x, and so is their batch, or it is 1, and they are expanded: the
operator does not broadcast them. In the last case, c and s are of the extent of a.

Not-a-number and infinity: as spelled out, but where a product overflows. Source: ONNX operator specification.

ROUNDING: the same function of the reals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.fuse.heads import TURNED, expanded, packed, unpacked, within
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.nodes import array, attr, rank, scalar
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, No, Rule, described, rewrite, rule
from graphopt.match.pattern import op, var
from graphopt.protocol import Context, Pass
from graphopt.rewrite.ask import axis_of, dims, ints, made_by, same_dims

__all__ = ["FuseRotary"]

Array = NDArray[Any]

_AXES = 4
_MOST = 16
"""Nodes between the halves and where they are joined, at most."""
_ALONE = frozenset({"Cos", "Identity", "Neg", "Sin"})
_WITH_NUMBER = frozenset({"Add", "Div", "Mul", "Sub"})


@rule(
    op.Add(
        op.Mul(var("x"), var("cos")),
        op.Mul(op.Concat(op.Neg(var("second")), var("first"), name="turned"), var("sin")),
    ),
    exactness=Exactness.ROUNDING,
    since=23,
)
def rotary(
    draft: Draft,
    _ctx: Context,
    x: ir.Value,
    cos: ir.Value,
    second: ir.Value,
    first: ir.Value,
    turned: ir.Node,
    sin: ir.Value,
) -> Answer:
    """A value and its turned halves, weighted by cosine and sine, become RotaryEmbedding."""
    extents = dims(x)
    if x.dtype is not ir.DataType.FLOAT or extents is None or len(extents) != _AXES:
        return No("it is not known to be float32 of 4 axes")
    size = extents[-1]
    split = _parts(first, second)
    if split is None or split.inputs[0] is not x or not isinstance(size, int) or size % 2:
        return No("what is turned are not the two parts of the same value")
    if dims(first) != dims(second) or axis_of(turned) != _AXES - 1:
        return No("it is not cut into halves of the last axis")
    caches = []
    for name, value in (("cos", cos), ("sin", sin)):
        half = _half(draft, value, x, f"{draft.root.outputs[0].name}/{name}")
        if isinstance(half, No):
            return half
        caches.append(half)
    return within(draft, draft.node("RotaryEmbedding", [x, *caches]))


def _parts(first: ir.Value, second: ir.Value) -> ir.Node | None:
    """The Split along the last of 4 axes whose two parts these are."""
    split = made_by(first, "Split")
    whole = split is not None and list(split.outputs) == [first, second] and axis_of(split) == _AXES - 1
    return split if whole else None


def _half(draft: Draft, value: ir.Value, x: ir.Value, hint: str) -> ir.Value | No:
    """One half, (N, S, D / 2), of cosines or sines (N, 1, S, D) that hold the same twice."""
    batch, _, tokens, size = dims(x) or [None] * _AXES
    contents, shape = array(value), dims(value)
    if contents is not None and contents.ndim < _AXES:
        contents = contents.reshape((1,) * (_AXES - contents.ndim) + contents.shape)
        shape = list(contents.shape)
    if not any(same_dims(shape, [n, 1, tokens, size]) for n in (1, batch)):
        return No("cosines and sines are not known to be of the value's tokens, and of its batch or of 1")
    if contents is not None:
        half = _of_table(draft, contents[:, 0], hint)
    else:
        open_ = made_by(value, "Unsqueeze")
        if open_ is None or ints(open_, "axes", 1) not in ([1], [1 - _AXES]):
            return No("the axis of the heads is not known to be put in")
        half = _computed(draft, open_.inputs[0], hint)
    if half is None:
        return No("they are not known to hold the same twice")
    if shape is not None and shape[0] != batch:
        half = expanded(draft, half, [batch, 1, 1], x)
    return half or No("the batch is not known")


def _of_table(draft: Draft, table: Array, hint: str) -> ir.Value | None:
    """Half of a constant that holds the same twice."""
    first, second = np.split(table, 2, axis=-1)
    return draft.const(first, hint) if first.tobytes() == second.tobytes() else None


def _computed(draft: Draft, value: ir.Value | None, hint: str) -> ir.Value | None:
    """What half of a value (N, S, D) is computed as, if it is the same twice."""
    steps: list[ir.Node] = []
    while (step := _pointwise(value)) is not None and len(steps) < _MOST:
        steps.append(step)
        value = step.inputs[_data(step)]
    join, rows, half = made_by(value, "Concat"), made_by(value, "Gather"), None
    table = None if rows is None else array(rows.inputs[0])
    if join is not None and axis_of(join) == _AXES - 2 and len(join.inputs) == 2 and join.inputs[0] is join.inputs[1]:  # noqa: PLR2004
        half = join.inputs[0]
    elif rows is not None and table is not None and table.ndim == 2 and attr(rows, "axis", 0) == 0:  # noqa: PLR2004
        found = _of_table(draft, table, hint)
        half = None if found is None else draft.like(rows, [found, rows.inputs[1]])
    for step in reversed(steps if half is not None else ()):
        half = draft.like(step, [half if i == _data(step) else v for i, v in enumerate(step.inputs)])
    return half


def _data(step: ir.Node) -> int:
    """Which input is not the number."""
    return 1 if len(step.inputs) > 1 and scalar(step.inputs[1]) is None else 0


def _pointwise(value: ir.Value | None) -> ir.Node | None:
    """The node behind a value if it does the same to each element, and keeps the shape."""
    node = made_by(value, *_ALONE, *_WITH_NUMBER, "Cast")
    if node is None or value is None:
        return None
    if node.op_type not in _WITH_NUMBER:
        return node
    number, data = node.inputs[1 - _data(node)], node.inputs[_data(node)]
    return node if scalar(number) is not None and rank(data) == rank(value) else None


@rule(op.RotaryEmbedding(var("x"), var("cos"), var("sin"), name="node"), exactness=Exactness.ROUNDING)
def packed_rotary(draft: Draft, _ctx: Context, x: ir.Value, cos: ir.Value, sin: ir.Value, node: ir.Node) -> Answer:
    """Heads that are split off before it are split off behind it."""
    part = packed(x)
    if part is None:
        return No("the heads are not known to be split off just before")
    (source,) = unpacked(draft, [part])
    turned = draft.like(node, [source, cos, sin], num_heads=part.heads)
    shape = draft.const(np.asarray([0, 0, part.heads, part.size], np.int64), f"{node.outputs[0].name}/shape")
    return within(draft, draft.node("Transpose", [draft.node("Reshape", [turned, shape])], {"perm": TURNED}))


@rule(
    op.Concat(op.RotaryEmbedding(var("first"), var("cos"), var("sin"), name="node"), var("second"), name="join"),
    exactness=Exactness.ROUNDING,
)
def partial_rotary(
    draft: Draft,
    _ctx: Context,
    first: ir.Value,
    second: ir.Value,
    cos: ir.Value,
    sin: ir.Value,
    node: ir.Node,
    join: ir.Node,
) -> Answer:
    """What stays as it is behind a part that is turned belongs to the operator."""
    split, size = _parts(first, second), (dims(first) or [None])[-1]
    if split is None or axis_of(join) != _AXES - 1 or not isinstance(size, int):
        return No("these are not the two parts of a value, joined again")
    if attr(node, "rotary_embedding_dim", 0):
        return No("the part is turned in part only")
    return within(draft, draft.like(node, [split.inputs[0], cos, sin], rotary_embedding_dim=size))


RULES: tuple[Rule, ...] = (rotary, packed_rotary, partial_rotary)


@dataclass(frozen=True)
class FuseRotary(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "fuse-rotary"
    summary: ClassVar[str] = "spelled-out rotary position embedding into the operator, before heads are split"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    rules: ClassVar[Mapping[str, str]] = described(RULES)

    def run(self, edit: Editor, ctx: Context) -> None:
        """Until no rule fires any more."""
        rewrite(edit, ctx, RULES)
