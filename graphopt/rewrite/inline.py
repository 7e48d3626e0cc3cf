"""Inline: a call of a local function becomes what it calls.

    f(x, y){a=1}        → the nodes of f, with x and y for its inputs and 1 for attributes that refer to `a`
    function            → nothing                  where nothing calls it

An attribute that the call lacks has the function's default, or is left out; so is an input that it lacks. A call stays
where the model has other versions of the operators inside than the function was written for, where it would not end,
or where all calls together come to more than `max_nodes` nodes, which is known before anything is expanded. Without
`shared`, a function that is called more than once stays unless it has a single node: its nodes are there once, and
would be there as often as it is called.

Inlining comes before everything else, since no rule looks into functions; runtimes do it themselves.

BITWISE: the same nodes run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import onnx
import onnx_ir as ir

from graphopt.graph import functions
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.nodes import graphs
from graphopt.graph.record import Exactness, Refused
from graphopt.match.engine import No
from graphopt.protocol import Context, Pass
from graphopt.rewrite.splice import own, splice, within

__all__ = ["Inline"]


@dataclass(frozen=True)
class Inline(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "inline"
    summary: ClassVar[str] = "put what local functions do in place of their calls"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    rules: ClassVar[Mapping[str, str]] = {
        "inline": "A call of a local function becomes its nodes.",
        "unused-function": "A local function that nothing calls goes.",
    }

    shared: bool = True
    max_nodes: int = 100_000

    def run(self, edit: Editor, ctx: Context) -> None:
        """From the outermost call inwards, then what is called no more."""
        model = edit.model
        if not model.functions:
            return
        size, times = functions.expanded(model), functions.called(model)
        pending = deque(n for g in graphs(model) for n in g if n.op_identifier() in model.functions)
        total = sum(size.get(n.op_identifier(), 0) for n in pending)
        while pending:
            call = pending.popleft()
            name, function = call.op_identifier(), model.functions[call.op_identifier()]
            if name not in size:
                reason: str | None = "it calls itself"
            elif total > self.max_nodes:
                reason = f"the calls come to {total:,} nodes, more than {self.max_nodes:,}"
            elif not self.shared and times[name] > 1 and size[name] > 1:
                reason = f"it is called {times[name]} times, and its nodes are there once"
            else:
                reason = _foreign(function, model)
            draft = Draft(call)
            reason = reason or _inline(edit, draft, call, function)
            if reason:
                ctx.miss(self.name, call, reason)
            else:
                pending.extend(n for n in within(draft.nodes) if n.op_identifier() in model.functions)
        edit.drop_functions("unused-function")


def _inline(edit: Editor, draft: Draft, call: ir.Node, function: ir.Function) -> str | None:
    """Put the nodes of `function` in place of its call; the reason where that cannot be."""
    if len(call.inputs) > len(function.inputs) or len(call.outputs) > len(function.outputs):
        return "the call has more inputs or outputs than the function"
    given = {name: a for name, a in function.attributes.items() if a.value is not None} | dict(call.attributes)
    if any(a.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS} for a in given.values()):
        return "it is given a graph"
    results = splice(draft, function.graph, call.inputs, attributes=given)
    replaced = results if isinstance(results, No) else own(draft, call.outputs, results)
    if isinstance(replaced, No):
        draft.discard()
        return replaced.reason
    try:
        edit.commit(Inline.name, Exactness.BITWISE, replaced, draft=draft)
    except Refused as refusal:
        return str(refusal)
    return None


def _foreign(function: ir.Function, model: ir.Model) -> str | None:
    """Why the nodes of a function would be others in the model: an operator has another version there."""
    for node in function.all_nodes():
        if node.op_identifier() in model.functions:
            continue
        domain, operator = node.domain, node.op_type
        inside, outside = function.opset_imports.get(domain), model.opset_imports.get(domain)
        if inside is None or outside is None:
            return f"the domain {domain or 'ai.onnx'!r} is not imported on both sides"
        if inside == outside:
            continue
        versions = [_since(operator, version, domain) for version in (inside, outside)]
        if None in versions or versions[0] != versions[1]:
            return f"{operator} is another one in opset {outside} than in opset {inside} of the function"
    return None if "" in model.opset_imports else "the model does not import the standard operators"


def _since(operator: str, version: int, domain: str) -> int | None:
    """The version of an operator that an opset has."""
    try:
        return onnx.defs.get_schema(operator, version, domain).since_version
    except onnx.defs.SchemaError:
        return None
