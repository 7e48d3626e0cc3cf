"""Sequences and optionals. None of them can be an initializer, so nothing that makes one is folded."""

from __future__ import annotations

from graphopt.graph.domain import Domain
from graphopt.graph.nodes import attr
from graphopt.ops.spec import OpSpec, admit, carry, family, length_up_to

__all__ = ["SPECS"]

FIRST = Domain(0, 1)
"""The one position that every sequence has unless it is empty."""

SPECS = (
    OpSpec(op="SequenceEmpty", summary="a sequence of nothing", foldable=False),
    *family(
        {"SequenceConstruct": "the inputs as a sequence", "Optional": "the input, or nothing, as an optional"},
        foldable=False,
        carries=carry(),
    ),
    OpSpec(
        op="SplitToSequence",
        summary="consecutive parts along `axis`",
        foldable=False,
        admits=admit({1: lambda n: length_up_to(n.inputs[0], attr(n, "axis", 0))}),
        carries=carry(0),
    ),
    OpSpec(
        op="SequenceInsert",
        summary="the sequence with a tensor put in at a position, at its end by default",
        foldable=False,
        admits=admit({2: FIRST}),
        carries=carry(0, 1),
    ),
    OpSpec(
        op="SequenceErase",
        summary="the sequence without the tensor at a position, its last by default",
        foldable=False,
        admits=admit({1: FIRST}),
        carries=carry(0),
    ),
    OpSpec(op="SequenceAt", summary="the tensor at a position", admits=admit({1: FIRST}), carries=carry(0)),
    OpSpec(
        op="ConcatFromSequence", summary="the tensors one after another, along an old or new axis", carries=carry(0)
    ),
    OpSpec(op="OptionalGetElement", summary="what the optional holds", foldable=False, carries=carry(0)),
    *family({"SequenceLength": "number of tensors", "OptionalHasElement": "whether there is something"}),
)
