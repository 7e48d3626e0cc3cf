"""Sequences: a sequence whose tensors are known one by one needs no sequence.

    SequenceAt(SequenceConstruct(a, b, c), 1)            → b
    SequenceAt(SplitToSequence(x, [3, 4]), 1)            → Slice(x, 3, 7)             slices of a whole become a Split
    ConcatFromSequence(SequenceInsert(s, a))             → Concat(…s, a)              Unsqueezed first for a new axis
    SequenceLength(s)                                    → initializer

Known are what SequenceEmpty and SequenceConstruct make, what SplitToSequence makes of an axis of known extent or cuts
at given places, and what SequenceInsert and SequenceErase make of these at constant positions.

BITWISE: elements are only moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.nodes import array, attr, input_at
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, No, Rule, described, rewrite, rule
from graphopt.match.pattern import op, var
from graphopt.protocol import Context, Pass
from graphopt.rewrite.ask import axis_of, dims, made_by

__all__ = ["Sequences"]

_AXES_ARE_INPUT = 13
"""Opset from which Squeeze and Unsqueeze, which stand for kept and new axes, take axes as an input."""

_MOST = 1024
"""Tensors of a sequence that are looked at one by one: each becomes a Slice of its own."""

UNKNOWN = No("its tensors are not known one by one")


@dataclass(frozen=True)
class _Cut:
    """A part of a tensor along one axis."""

    whole: ir.Value
    axis: int
    start: int
    end: int
    keep: bool
    """Whether the axis, of extent 1 then, stays."""


_Tensor = ir.Value | _Cut


@rule(op.SequenceAt(var("sequence"), var("position")), exactness=Exactness.BITWISE, since=_AXES_ARE_INPUT)
def sequence_element(draft: Draft, _ctx: Context, sequence: ir.Value, position: ir.Value) -> Answer:
    """A known tensor of a sequence is read directly."""
    tensors, index = _tensors(sequence), _number(position)
    if tensors is None or index is None or not -len(tensors) <= index < len(tensors):
        return UNKNOWN
    return _made(draft, tensors[index])


@rule(op.ConcatFromSequence(var("sequence"), name="node"), exactness=Exactness.BITWISE, since=_AXES_ARE_INPUT)
def sequence_joined(draft: Draft, _ctx: Context, sequence: ir.Value, node: ir.Node) -> Answer:
    """Known tensors of a sequence are concatenated directly."""
    tensors = _tensors(sequence)
    if not tensors:
        return UNKNOWN
    parts, axis = [_made(draft, t) for t in tensors], int(attr(node, "axis"))
    if attr(node, "new_axis", 0):
        at = draft.const(np.asarray([axis], np.int64), "axes")
        parts = [draft.node("Unsqueeze", [part, at]) for part in parts]
    return draft.node("Concat", parts, {"axis": axis})


@rule(op.SequenceLength(var("sequence")), exactness=Exactness.BITWISE)
def sequence_length(draft: Draft, _ctx: Context, sequence: ir.Value) -> Answer:
    """The known number of tensors in a sequence becomes an initializer."""
    tensors = _tensors(sequence)
    return UNKNOWN if tensors is None else draft.const(np.asarray(len(tensors), np.int64), "length")


def _made(draft: Draft, tensor: _Tensor) -> ir.Value:
    """The tensor as a value of the graph."""
    if isinstance(tensor, ir.Value):
        return tensor
    start, end, axis = (
        draft.const(np.asarray([n], np.int64), f"{tensor.whole.name}/{kind}")
        for n, kind in ((tensor.start, "start"), (tensor.end, "end"), (tensor.axis, "axis"))
    )
    cut = draft.node("Slice", [tensor.whole, start, end, axis])
    return cut if tensor.keep else draft.node("Squeeze", [cut, axis])


def _tensors(sequence: ir.Value) -> list[_Tensor] | None:
    """What a sequence holds, first to last: found by going up to where it begins, and down again."""
    changes: list[ir.Node] = []
    while (node := made_by(sequence, "SequenceInsert", "SequenceErase")) is not None and node.inputs[0] is not None:
        changes.append(node)
        sequence = node.inputs[0]
    found = _first_tensors(sequence)
    for node in reversed(changes):
        inserts = node.op_type == "SequenceInsert"
        place = input_at(node, 2 if inserts else 1)
        index = (0 if inserts else -1) if place is None else _number(place)
        if found is None or index is None:
            return None
        if inserts and place is None:
            index = len(found)
        if not -len(found) <= index < len(found) + inserts:
            return None
        if not inserts:
            del found[index]
        elif (tensor := node.inputs[1]) is not None:
            found.insert(index, tensor)
    return found


def _first_tensors(sequence: ir.Value) -> list[_Tensor] | None:
    node = made_by(sequence, "SequenceConstruct", "SequenceEmpty", "SplitToSequence")
    if node is None:
        return None
    if node.op_type != "SplitToSequence":
        return [v for v in node.inputs if v is not None]
    whole, axis, sizes = node.inputs[0], axis_of(node), _sizes(node)
    if whole is None or axis is None or sizes is None:
        return None
    keep = bool(attr(node, "keepdims", 1))
    if not keep and input_at(node, 1) is not None:
        return None  # kept by the standard, and not by onnxruntime
    return [_Cut(whole, axis, start, end, keep) for start, end in pairwise(accumulate(sizes, initial=0))]


def _sizes(node: ir.Node) -> Sequence[int] | None:
    """The extents of the parts that a SplitToSequence makes: given, or of equal size up to a smaller last one."""
    given = array(input_at(node, 1))
    if given is not None and given.ndim:
        return [int(n) for n in given] if given.size <= _MOST else None
    extents, axis = dims(node.inputs[0]), axis_of(node)
    extent = extents[axis] if extents is not None and axis is not None else None
    size = 1 if input_at(node, 1) is None else None if given is None else int(given)
    if not isinstance(extent, int) or size is None or size < 1 or extent > size * _MOST:
        return None
    return [min(size, extent - start) for start in range(0, extent, size)]


def _number(value: ir.Value) -> int | None:
    contents = array(value)
    return None if contents is None else int(contents.reshape(-1)[0])


RULES: tuple[Rule, ...] = (sequence_element, sequence_joined, sequence_length)


@dataclass(frozen=True)
class Sequences(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "sequences"
    summary: ClassVar[str] = "read the tensors of known sequences directly"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    rules: ClassVar[Mapping[str, str]] = described(RULES)

    def run(self, edit: Editor, ctx: Context) -> None:
        """Until no rule fires any more."""
        rewrite(edit, ctx, RULES)
