"""How two models differ."""

from __future__ import annotations

import os

import onnx_ir as ir

from graphopt import ops
from graphopt.arguments import named
from graphopt.graph.diff import diff as compare
from graphopt.graph.load import load
from graphopt.report.changes import DiffReport
from graphopt.run.child import Child
from graphopt.run.machine import Progress
from graphopt.run.trial import guard
from graphopt.verbs.given import LOG, Model

__all__ = ["diff"]


def diff(
    before: Model,
    after: Model,
    *,
    external_root: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> DiffReport:
    """Say where each node of a model came from in another one, and what else is different. Nothing is run.

    Nodes are paired by the names that were kept, and by structure where none were; the rest is explained by what
    computes the same values in the other model.

    Args:
        before: the model to compare with.
        after: the model in question.
        external_root: a folder in which weights may be, also behind links, instead of the model's folder.
        progress: called with a few words when a phase begins.

    Raises:
        InputError: a model cannot be read or is invalid.
    """
    say = progress or LOG.info
    say("loading")
    with Child() as child:
        with named(before, "the first model"):
            first = load(before, external_root=external_root, guard=guard(child))
        with named(after, "the second model"):
            second = load(after, external_root=external_root, guard=guard(child))
    say("comparing")
    return DiffReport.of(first, second, compare(first.model, second.model, _role))


def _role(node: ir.Node) -> str:
    """What a node adapts a value to, if that is what it is there for."""
    spec = ops.spec_of(node)
    return spec.adapts if spec else ""
