"""The one driver for all rules.

What it does once for all of them: looks only where a rule's root operator stands, tries the orders of commutative
inputs lazily, insists that what lies inside a match is used nowhere else, hands the replacement to the editor, visits
the neighbourhood again, notes near misses, and stops when nothing changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any as AnyValue

import numpy as np
import onnx_ir as ir

from graphopt import ops
from graphopt.errors import GraphoptError
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.nodes import array, graphs, is_constant, readers
from graphopt.graph.record import Exactness, Refused
from graphopt.match.pattern import Any, Const, Either, LinearOf, NodeOf, Number, Pattern
from graphopt.protocol import Context

__all__ = ["No", "Rule", "described", "rewrite", "rule"]


@dataclass(frozen=True)
class No:
    """A rule's answer where it must not fire."""

    reason: str


Answer = ir.Value | Mapping[ir.Value, ir.Value] | No
"""What takes the place of the root's first output; or of several outputs; or why nothing does."""

Binding = dict[str, AnyValue]


@dataclass(frozen=True)
class Rule:
    """A pattern, and the function that builds what replaces it."""

    name: str
    pattern: NodeOf | Either
    build: Callable[..., Answer]
    exactness: Exactness
    since: int = 1
    """The first opset that has the operators which the rule puts in."""
    fast: bool = False
    """Whether it does not hold for not-a-number, infinities or −0, and is only wanted under `--fast-math`."""

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (self.build.__doc__ or "").strip().splitlines()[0]


def rule(
    pattern: NodeOf | Either, *, exactness: Exactness, since: int = 1, fast: bool = False
) -> Callable[[Callable[..., Answer]], Rule]:
    """Make a rule of a function, which is given a `Draft`, the `Context`, and what the pattern binds, by name."""

    def decorate(build: Callable[..., Answer]) -> Rule:
        return Rule(build.__name__, pattern, build, exactness, since, fast)

    return decorate


def described(rules: Sequence[Rule]) -> Mapping[str, str]:
    """Name and summary of each rule."""
    return {each.name: each.summary for each in rules}


def rewrite(edit: Editor, ctx: Context, rules: Sequence[Rule]) -> None:
    """Apply `rules` until none of them fires any more, in every graph of the model.

    Raises:
        GraphoptError: the rules undo each other; a bug in one of them.
    """
    index: dict[tuple[str, str], list[Rule]] = {}
    for each in rules:
        for operator in sorted(_roots(each.pattern)):
            index.setdefault(operator, []).append(each)
    work = deque(node for graph in graphs(edit.model) for node in graph if _operator(node) in index)
    waiting = set(work)
    most = 20 * len(work) + 1000
    before = len(edit.edits)
    while work:
        node = work.popleft()
        waiting.discard(node)
        if node.graph is None:
            continue
        touched = next(filter(None, (_apply(edit, ctx, each, node) for each in index[_operator(node)])), [])
        fresh = [n for n in touched if _operator(n) in index and n not in waiting]
        work.extend(fresh)
        waiting.update(fresh)
        if len(edit.edits) - before > most:
            raise GraphoptError(f"rewriting does not end; the last edits were {[str(e) for e in edit.edits[-4:]]}")


def _apply(edit: Editor, ctx: Context, each: Rule, root: ir.Node) -> list[ir.Node]:
    """Try one rule at one node. Answers the nodes to visit again; none where it did not fire."""
    opset = edit.model.opset_imports.get("", 0)
    for binding, (_, *inside) in _match_producer(each.pattern, root, {}):
        reason = _leak(inside, root)
        if reason is None and opset < each.since:
            ctx.miss(each.name, root, f"opset {opset} has no such operator, opset {each.since} has")
            return []
        if reason is None and each.fast and not ctx.fast_math:
            reason = "it does not hold for not-a-number, infinities or -0: --fast-math allows it"
        if reason is None:
            draft = Draft(root)
            answer = each.build(draft, ctx, **binding)
            if not isinstance(answer, No) and (foreign := _foreign(draft, ctx)):
                answer = No(f"target {ctx.target.name} does not take {foreign}")
            if not isinstance(answer, No):
                replaced = answer if isinstance(answer, Mapping) else {root.outputs[0]: answer}
                gone = [*inside, *draft.matched]
                around = [*_neighbours([root, *gone]), *(user for old in replaced for user in old.consumers())]
                try:
                    edit.commit(each.name, each.exactness, replaced, draft=draft, matched=gone)
                except Refused as refusal:
                    reason = str(refusal)
                else:
                    return [root, *draft.nodes, *around]
            else:
                draft.discard()
                reason = answer.reason
        ctx.miss(each.name, root, reason)
    return []


def _operator(node: ir.Node) -> tuple[str, str]:
    return node.domain, node.op_type


def _foreign(draft: Draft, ctx: Context) -> str | None:
    """An operator beyond standard ONNX among those that are wanted, if the target does not take it."""
    found = (f"{n.domain}::{n.op_type}" for n in draft.nodes if n.domain)
    return next((name for name in found if name not in ctx.target.operators), None)


def _neighbours(nodes: Iterable[ir.Node]) -> list[ir.Node]:
    """The nodes that `nodes` read from: with fewer readers they may match what they did not match before."""
    return [p for n in nodes for v in n.inputs if v is not None and (p := v.producer()) is not None]


def _leak(inside: Sequence[ir.Node], root: ir.Node) -> str | None:
    """Why the inner nodes of a match cannot go: they run at another time, or something else uses what they compute."""
    if any(node.graph is not root.graph for node in inside):
        return "it stands in another graph, and a body may run more often than what is around it"
    matched = {root, *inside}
    for node in inside:
        for value in node.outputs:
            if value.is_graph_output() or any(user not in matched for user in readers(value)):
                return f"{value.name!r} is used elsewhere as well"
    return None


def _roots(pattern: Pattern) -> set[tuple[str, str]]:
    """The operators at which a pattern can end, as (domain, name)."""
    if isinstance(pattern, Either):
        return {operator for choice in pattern.choices for operator in _roots(choice)}
    return {(pattern.domain, name) for name in pattern.ops} if isinstance(pattern, NodeOf) else set()


# -- matching --------------------------------------------------------------------------------------------------------

Found = tuple[Binding, tuple[ir.Node, ...]]
"""What is bound, and the nodes that were matched, the upper one first."""


def _match_node(pattern: NodeOf, node: ir.Node, binding: Binding) -> Iterator[Found]:
    """All ways in which the inputs of `node` match; its operator is known to fit."""
    if pattern.name is not None:
        if binding.get(pattern.name, node) is not node:
            return
        binding = binding | {pattern.name: node}
    if pattern.inputs is None:
        yield binding, ()
        return
    inputs: list[ir.Value | None] = list(node.inputs)
    if len(inputs) > len(pattern.inputs):
        return
    inputs += [None] * (len(pattern.inputs) - len(inputs))
    yield from _match_all(pattern.inputs, inputs, binding)
    spec = ops.spec_of(node)
    if spec is not None and spec.commutes and len(inputs) == 2:  # noqa: PLR2004 - a pair has two orders
        yield from _match_all(pattern.inputs, inputs[::-1], binding)


def _match_all(patterns: Sequence[Pattern], values: Sequence[ir.Value | None], binding: Binding) -> Iterator[Found]:
    if not patterns:
        yield binding, ()
        return
    for bound, nodes in _match(patterns[0], values[0], binding):
        for rest, more in _match_all(patterns[1:], values[1:], bound):
            yield rest, nodes + more


def _match(pattern: Pattern, value: ir.Value | None, binding: Binding) -> Iterator[Found]:
    if isinstance(pattern, Either):
        for choice in pattern.choices:
            yield from _match(choice, value, binding)
    elif isinstance(pattern, Any | Const | Number):
        bound = _match_value(pattern, value, binding)
        if bound is not None:
            yield bound, ()
    elif value is not None:
        node = value.producer()
        if node is not None and value is node.outputs[0]:
            yield from _match_producer(pattern, node, binding)


def _match_value(pattern: Any | Const | Number, value: ir.Value | None, binding: Binding) -> Binding | None:
    """What is bound after a pattern that looks at nothing but the value; None where it does not match."""
    if isinstance(pattern, Number):
        return binding if value is not None and _is_number(pattern, value) else None
    found: AnyValue = value if isinstance(pattern, Any) else array(value)
    matches = pattern.optional if value is None else found is not None
    if not matches or (pattern.name in binding and not _same(binding[pattern.name], found)):
        return None
    return binding | {pattern.name: found}


def _match_producer(pattern: Pattern, node: ir.Node, binding: Binding) -> Iterator[Found]:
    if isinstance(pattern, Either):
        for choice in pattern.choices:
            yield from _match_producer(choice, node, binding)
    elif isinstance(pattern, LinearOf):
        found = ops.linears(node)
        if len(found) == 1:
            yield binding | {pattern.name: found[0]}, (node,)
    elif isinstance(pattern, NodeOf) and node.op_type in pattern.ops and node.domain == pattern.domain:
        for bound, nodes in _match_node(pattern, node, binding):
            yield bound, (node, *nodes)


def _same(a: AnyValue, b: AnyValue) -> bool:
    """Whether two values are one, or two constants hold the same with the same type and shape."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a is b


def _is_number(pattern: Number, value: ir.Value) -> bool:
    """Whether a constant has one element, the wanted one as its own type rounds it."""
    tensor = value.const_value
    if tensor is None or tensor.size != 1 or not is_constant(value):
        return False
    found = tensor.numpy().reshape(-1)[0]
    if found.dtype.kind in "iu":
        return bool(found == pattern.value)
    if found.dtype.kind != "f":
        return False
    wanted = found.dtype.type(pattern.value)
    return bool(abs(found - wanted) <= pattern.ulps * np.spacing(abs(wanted)))
