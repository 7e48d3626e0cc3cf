"""What models are made of."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from graphopt import pipeline
from graphopt import recipe as recipes
from graphopt.analysis.evidence import gather
from graphopt.analysis.facts import facts
from graphopt.analysis.owners import largest
from graphopt.arguments import check_run
from graphopt.catalogue import PASSES
from graphopt.errors import InputError, UsageError
from graphopt.graph.load import Source, load
from graphopt.graph.nodes import is_overridable
from graphopt.protocol import Miss
from graphopt.report.data import (
    GroupReport,
    Inspection,
    PortReport,
)
from graphopt.run.child import Child
from graphopt.run.machine import Progress, news
from graphopt.run.trial import guard
from graphopt.verbs.given import LOG, Model

__all__ = ["inspect"]


def inspect(
    *models: Model,
    groups: bool = False,
    why: str | None = None,
    set_dims: Mapping[str, int] | None = None,
    external_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Inspection, ...]:
    """Say what models are made of.

    Args:
        models: what to look at.
        groups: also say which channels can be cut together, and why others cannot.
        why: a rule (see `passes`): also say where it looked and did nothing, and why.
        set_dims: extents of symbolic dimensions, for counting work.
        external_root: a folder in which weights may be, also behind links, instead of the model's folder.
        seed: of the generated feed.
        progress: called with a few words when a phase begins, and again with each part of one whose parts are counted:
            the words then have the numbers `done` and `total`.

    Raises:
        InputError: a model cannot be read or is invalid.
        UsageError: `why` is no rule, or a number is negative.
    """
    check_run(seed=seed, set_dims=set_dims)
    rules = {rule for step in PASSES.values() for rule in step.rules}
    if why is not None and why not in rules:
        raise UsageError(f"no rule is called {why!r}: give one of {', '.join(sorted(rules))}")
    say, found = progress or news(LOG.info), []
    with Child() as child:
        for model in models:
            say("loading")
            source = load(model, external_root=external_root, guard=guard(child))
            made = _inspect(source, child, groups=groups, why=why, set_dims=set_dims, seed=seed, say=say)
            found.append(made)
    return tuple(found)


def _inspect(
    source: Source,
    child: Child,
    *,
    groups: bool,
    why: str | None,
    set_dims: Mapping[str, int] | None,
    seed: int,
    say: Progress,
) -> Inspection:
    notes, feed = source.notes, None
    try:
        feed = gather(source, None, set_dims, seed, say, child).feeds[0]
    except InputError as problem:
        notes = (*notes, f"its work was not counted: {problem}")
    misses: Sequence[Miss] = ()
    if why is not None:
        say("rewriting")
        misses = pipeline.misses(source, recipes.Recipe(), child)
    found = None
    if groups and feed is not None:
        say("looking for groups")
        found = pipeline.groups(source, recipes.Recipe(), feed, child)
    return Inspection(
        source.name,
        facts(source.model, source.carried, feed),
        source.size,
        source.sha256,
        {d or "ai.onnx": v for d, v in source.model.opset_imports.items()},
        tuple(PortReport.of(source.carried.declared(v)) for v in source.model.graph.inputs if not is_overridable(v)),
        tuple(PortReport.of(source.carried.declared(v)) for v in source.model.graph.outputs),
        largest(source.model),
        notes,
        tuple(m for m in misses if m.rule == why),
        GroupReport.all(found) if found else (),
        found.frozen if found else {},
    )
