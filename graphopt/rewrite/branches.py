"""Branches: what is decided before the graph runs needs no control flow.

    If(constant)(then, else)     → the nodes of the branch that is taken
    Loop(M, true)(body)          → the nodes of the body, M times in a row    M constant

The nodes get fresh names; what they read from outside they read as before, and the body's own constants come along.

A Loop that never runs hands through what it was given. One that runs twice or more needs a condition that stays true:
it is handed through or a constant. What an iteration puts out is stacked: Unsqueeze on axis 0, then Concat. Since a
Loop costs the runtime more than a few nodes do, the graph may grow by `MORE` nodes for one of up to `TRIPS` iterations.

BITWISE: the same nodes run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor, is_read
from graphopt.graph.nodes import attr, input_at, scalar, static_shape
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, No, Rule, described, rewrite, rule
from graphopt.match.pattern import const, op
from graphopt.protocol import Context, Pass
from graphopt.rewrite.splice import Constants, Results, own, splice, within

__all__ = ["Branches"]

TRIPS = 4
"""Iterations up to which a Loop is written out."""
MORE = 8
"""Nodes by which the graph may grow for it."""
_NODE_BYTES = 60
"""About what a small node takes in the file, names included."""
_AXES_ARE_AN_INPUT = 13
"""Opset from which Unsqueeze takes its axes as an input."""


@rule(op.If(const("condition"), name="node"), exactness=Exactness.BITWISE)
def known_branch(draft: Draft, _ctx: Context, condition: NDArray[Any], node: ir.Node) -> Answer:
    """An If with a constant condition becomes the branch that it takes."""
    branch: ir.Graph = attr(node, "then_branch" if condition.reshape(-1)[0] else "else_branch")
    results = splice(draft, branch)
    return results if isinstance(results, No) else own(draft, node.outputs, results)


@rule(op.Loop(name="node"), exactness=Exactness.BITWISE)
def known_loop(draft: Draft, ctx: Context, node: ir.Node) -> Answer:
    """A Loop with few iterations, as many for every feed, becomes its body in a row."""
    body: ir.Graph = attr(node, "body")
    trips = _trips(node)
    if isinstance(trips, No):
        return trips
    states = len(body.inputs) - 2
    scans = [i for i in range(states, len(node.outputs)) if is_read(node.outputs[i])]
    opset = node.graph.opset_imports.get("") if node.graph else None
    reason = _reason_to_stay(body, trips, bool(scans), opset)
    if reason:
        return No(reason)
    size = sum(1 for _ in within(body))
    more = (trips - 1) * size - 1 + len(scans) * (trips + 1)
    if trips > TRIPS or more > MORE:
        return No(f"{trips} iterations of {size} nodes are too many to write out")
    number, condition = body.inputs[:2]
    goes_on = input_at(node, 1)
    if goes_on is None and condition.uses():
        goes_on = draft.const(np.asarray(1, bool), "condition")
    current: Results = list(node.inputs[2:])
    put_out: list[Results] = []
    constants: Constants = {}
    for trip in range(trips):
        index = np.full(static_shape(number) or (), trip, np.int64)
        first = draft.const(index, "iteration") if number.uses() else None
        found = splice(draft, body, [first, goes_on, *current], constants=constants)
        if isinstance(found, No):
            return found
        current = found[1 : 1 + states]
        put_out.append(found[1 + states :])
    stacked = {i: _stacked(draft, [row[i - states] for row in put_out], opset or 0) for i in scans}
    results = [*current, *(stacked.get(i) for i in range(states, len(node.outputs)))]
    if not ctx.ledger.spend(max(more, 0) * _NODE_BYTES):
        return No("the file would grow")
    return own(draft, node.outputs, results)


def _trips(node: ir.Node) -> int | No:
    """How often a Loop's body runs if its condition stays true."""
    most, condition = input_at(node, 0), input_at(node, 1)
    begins = condition is None or scalar(condition)
    if begins is None:
        return No("whether it begins depends on what is fed")
    if not begins:
        return 0
    number = scalar(most)
    return No("the number of iterations depends on what is fed") if number is None else max(int(number), 0)


def _reason_to_stay(body: ir.Graph, trips: int, scans: bool, opset: int | None) -> str | None:  # noqa: FBT001
    """Why the body of a Loop cannot be written out."""
    number, condition = body.inputs[:2]
    if trips > 1 and not _stays_true(body):
        return "the condition may end it before"
    if any(not _hands_on(use.node) for use in condition.uses()):
        return "the condition is read inside"
    if number.uses() and static_shape(number) not in {(), (1,)}:
        return "the body does not say whether the number of the iteration is a scalar"
    if scans and not trips:
        return "what no iteration puts out has no known shape"
    return "the opset of Unsqueeze is not known here" if scans and opset is None else None


def _stays_true(body: ir.Graph) -> bool:
    """Whether the condition that a body gives is the one it is given, or a constant that is true."""
    value: ir.Value | None = body.outputs[0]
    while value is not None and value is not body.inputs[1]:
        node = value.producer()
        if node is None:
            return bool(scalar(value))
        if node.op_type == "Constant" and not node.domain:
            tensor = attr(node, "value")
            return tensor is not None and tensor.size == 1 and bool(tensor.numpy().reshape(-1)[0])
        if not _hands_on(node):
            return False
        value = node.inputs[0]
    return value is not None


def _hands_on(node: ir.Node) -> bool:
    """Whether the node leaves a truth value as it is."""
    return not node.domain and (
        node.op_type == "Identity" or (node.op_type == "Cast" and attr(node, "to") == ir.DataType.BOOL)
    )


def _stacked(draft: Draft, rows: Sequence[ir.Value | None], opset: int) -> ir.Value:
    """What the iterations put out, along a new first axis."""
    axes: dict[str, Any] = {} if opset >= _AXES_ARE_AN_INPUT else {"axes": [0]}
    given = [] if axes else [draft.const(np.asarray([0], np.int64), "axes")]
    parts = [draft.node("Unsqueeze", [row, *given], axes) for row in rows]
    return parts[0] if len(parts) == 1 else draft.node("Concat", parts, {"axis": 0})


RULES: tuple[Rule, ...] = (known_branch, known_loop)


@dataclass(frozen=True)
class Branches(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "branches"
    summary: ClassVar[str] = "take branches that are known beforehand, and write out short loops"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    rules: ClassVar[Mapping[str, str]] = described(RULES)

    def run(self, edit: Editor, ctx: Context) -> None:
        """Until no rule fires any more, from the outermost body inwards."""
        rewrite(edit, ctx, RULES)
