"""Which layer of a candidate is the first to give something else than the reference, and which are off on their own.

Values of the two models are paired, and a *layer* is what a model computes from one pair to the next. Each pair is
looked at twice, in the way of running in which the outputs differ:

    error   candidate and reference, both on the same feed
    own     the same, but the layer of the candidate reads what the reference has there: only its own error is left

The error is held against the tolerance that `run.compare` derives for that value: injected noise at products makes it
as wide as deep layers need. From an output that is off, what is off is followed backward until all that is read is
within its tolerance: there it began. Of a candidate that is compressed all layers are off a little; the own errors say
which ones cost.

Pairs are looked at in topological order, as many at a time as memory holds, on the feeds on which the outputs are
furthest off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from graphopt import pipeline
from graphopt.counted import counted
from graphopt.errors import GraphoptError
from graphopt.graph.load import Source
from graphopt.pairwise import NEGLIGIBLE, Layer, Pairwise
from graphopt.provenance import Provenance
from graphopt.recipe import Recipe
from graphopt.run.compare import Bound, Way, bound
from graphopt.run.machine import HERE, Machine
from graphopt.run.session import Feed
from graphopt.verify import Judge, prepared

__all__ = ["Blame", "blamed"]

_FEEDS: Final = 2
"""Those on which values inside are looked at."""
_WORST: Final = 5
"""Layers that are told."""


@dataclass(frozen=True)
class Blame:
    """Where outputs that differ begin to differ."""

    text: str
    """What was found, as one sentence."""
    way: str
    """How the models were run, in words."""
    provider: str
    feeds: int
    """So many of those that were compared were looked at more closely."""
    pairs: int
    """Values that both models have."""
    first: Layer | None
    """None where every value that leads to the outputs is within its tolerance."""
    only: str
    """If it differs in this way of running alone: "on CUDA only"; else empty."""
    skip: tuple[str, ...]
    """Of a result of graphopt, keys to leave as they are: of the layer with the largest own error, else the first."""
    made: str
    """What made it so, where its recipe is known: a form, passes or rules."""
    off: int
    """How many layers are off on their own."""
    worst: tuple[Layer, ...]
    """Those of them whose own error is largest, the largest first."""

    def __str__(self) -> str:
        return self.text


def blamed(
    reference: Source,
    candidate: Source,
    feeds: Sequence[Feed],
    judge: Judge,
    machine: Machine = HERE,
    *,
    atol: float | None = None,
    rtol: float | None = None,
) -> Blame | None:
    """Look for the layers in which a candidate departs from a reference; None where no output of both does.

    Args:
        reference: the model to compare with.
        candidate: the model in question, which runs on the feeds.
        feeds: what both are run on.
        judge: of the reference on these feeds.
        machine: where to run, and how many bytes values may take that are looked at at the same time.
        atol: allowed absolute difference of outputs, instead of their derived tolerances.
        rtol: the same, relative to the reference.

    Raises:
        InputError: the candidate does not run in one of the ways in which the reference does.
    """
    found = _failing(candidate, feeds, judge, bound(atol, rtol))
    if found is None:
        return None
    way, provider, some, outputs = found
    search = Pairwise(reference, candidate, some, way.words, machine)
    layers = search.layers()
    first = search.first(layers, outputs)
    off = sorted((x for x in layers.values() if x.own_db < math.inf), key=lambda x: x.own_db)
    off = [x for x in off if x.own_db <= off[0].own_db + NEGLIGIBLE]
    chosen = off[0] if len(off) > 1 else first
    skip, made = _remedy(reference, candidate, chosen.stands_for if chosen else ())
    only = search.only(first) if first else ""
    if first is None:
        why = "what the runtime fuses is not fused while it is looked at" if way.optimize else "it adds up"
        inside = f"none of {counted(len(layers), 'value')} inside that both models have is beyond its tolerance"
        text = f"outputs differ on {provider} {way.words}, but {inside}: {why}"
    else:
        amount = str(first.error).removeprefix(f"output {first.value!r}").removeprefix(" is").lstrip(": ")
        where = f"the first value that differs is {first.value!r} ({first.operator} {first.key!r})"
        before = (
            "all that it reads is equal" if search.knows(layers, first) else "it is the first one that both models have"
        )
        text = f"{where}{only and f', {only}'}: {amount}; {before}"
    worst = tuple(off[:_WORST])
    return Blame(text, way.words, provider, len(some), len(layers), first, only, skip, made, len(off), worst)


def _remedy(reference: Source, candidate: Source, keys: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Which of the reference's nodes to skip, and what made the candidate of them, if its recipe says so."""
    said = Provenance.of(candidate.model.metadata_props)
    if not said.version or said.source_sha256 != reference.sha256:
        return (), ""
    try:
        recipe = Recipe.parse(said.recipe, "the recipe in the candidate")
        if recipe.lossy:
            forms = dict.fromkeys(recipe.forms[k] for k in keys if k in recipe.forms)
            return tuple(keys), " and ".join(forms or recipe.given_up)
        edits = pipeline.optimize(reference, recipe, None, pipeline.Settings()).attempt.edits
    except GraphoptError:  # what is written there need not be ours
        return tuple(keys), ""
    there = [e for e in edits if e.root in keys]
    loosest = max((e.exactness for e in there), default=None)
    return tuple(keys), " and ".join(dict.fromkeys(e.rule for e in there if e.exactness == loosest))


def _failing(
    candidate: Source, feeds: Sequence[Feed], judge: Judge, limit: Bound | None
) -> tuple[Way, str, list[Feed], list[str]] | None:
    """The first way of running in which outputs differ, on what, the feeds on which they do most, and which ones."""
    content = prepared(candidate)
    for way in judge.reference.ways:
        session = way.session(content)
        names = [p.name for p in session.outputs if p.name in judge.reference.expected[0]]
        if not names:
            return None
        off, wrong = dict[int, float](), dict[str, None]()
        for index, feed in enumerate(feeds):
            errors = judge.reference.judged(names, [(index, session.run(feed, names))], limit)
            if failed := [e for e in errors if not e]:
                off[index] = max(e.share if e.share > 1 else math.inf for e in failed)
                wrong |= dict.fromkeys(e.name for e in failed)
        if off:
            worst = sorted(off, key=lambda i: -off[i])[:_FEEDS]
            return way, session.provider, [feeds[i] for i in sorted(worst)], list(wrong)
    return None
