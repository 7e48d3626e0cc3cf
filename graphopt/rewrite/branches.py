"""Branches: what is decided before the graph runs needs no control flow.

    If(constant)(then, else)     → the nodes of the branch that is taken

The nodes get fresh names; what they read from outside they read as before, and the branch's own constants come along.

BITWISE: the same nodes run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from graphopt.graph.edit import Draft, Editor, Exactness
from graphopt.graph.nodes import attr
from graphopt.match.engine import Answer, No, Rule, described, rewrite, rule
from graphopt.match.pattern import const, op
from graphopt.protocol import Context, Pass

__all__ = ["Branches"]


@rule(op.If(const("condition"), name="node"), exactness=Exactness.BITWISE)
def known_branch(draft: Draft, _ctx: Context, condition: object, node: ir.Node) -> Answer:
    """An If with a constant condition becomes the branch that it takes."""
    taken = bool(condition.reshape(-1)[0])  # type: ignore[attr-defined]
    branch: ir.Graph = attr(node, "then_branch" if taken else "else_branch")
    results = list(branch.outputs)
    if len(set(results)) != len(results):
        return No("two of its results are the same value")
    if any(r.producer() is None or r.graph is not branch for r in results):
        return No("a result is not computed in the branch")
    copy = branch.clone(allow_outer_scope_values=True)
    nodes, outputs = list(copy), list(copy.outputs)
    copy.outputs.clear()
    for value in list(copy.initializers.values()):
        tensor = value.const_value
        if tensor is not None:
            value.replace_all_uses_with(draft.tensor(tensor, str(value.name)))
    copy.remove(nodes)
    draft.nodes.extend(nodes)
    return {old: new for old, new in zip(node.outputs, outputs, strict=True) if old.name}


RULES: tuple[Rule, ...] = (known_branch,)


@dataclass(frozen=True)
class Branches(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "branches"
    summary: ClassVar[str] = "take branches that are known beforehand"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    rules: ClassVar[Mapping[str, str]] = described(RULES)

    def run(self, edit: Editor, ctx: Context) -> None:
        """Until no rule fires any more, from the outermost branch inwards."""
        rewrite(edit, ctx, RULES)
