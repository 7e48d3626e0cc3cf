"""The lossy story: integers undone → rewrite → measure → plan → compress, zeros, other types → rewrite for the target.

The lossless halves are `pipeline.optimize`, before and after: the first proves its result against the original, the
second against the compressed model. What is lost in between is measured on samples that nothing was learned from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import get_args

from graphopt import moving, pipeline
from graphopt.analysis.channels import channels
from graphopt.analysis.facts import Facts, extents, facts
from graphopt.analysis.groups import Channels
from graphopt.analysis.mirror import mirrored
from graphopt.analysis.robustness import Noisy
from graphopt.analysis.samples import Split
from graphopt.arguments import check_keys
from graphopt.compress.compress import Compressed
from graphopt.compress.forms.offers import Stored, everywhere
from graphopt.compress.refit import Refit
from graphopt.compress.sparse import Sparse
from graphopt.counted import counted
from graphopt.errors import UsageError, Verdict
from graphopt.finish import Half, Integral, Packages
from graphopt.graph.load import Source
from graphopt.plan.budget import Limit, excess, limits
from graphopt.plan.halves import Halved
from graphopt.plan.latency import latency
from graphopt.plan.levels import LossCurve, candidates
from graphopt.plan.plan import Plan, Tried
from graphopt.plan.planner import Planner
from graphopt.recipe import Recipe
from graphopt.run.child import Child
from graphopt.run.data import rows_of
from graphopt.run.session import Feed
from graphopt.spelling import spec
from graphopt.targets import TARGETS
from graphopt.workshop import Workshop

__all__ = ["Lossy", "compress"]


@dataclass(frozen=True, eq=False)
class Lossy:
    """A compressed model, and what led to it."""

    outcome: pipeline.Outcome
    """What is to be emitted; its source is the original."""
    plan: Plan
    channels: Channels
    sites: Channels
    """The same, and choices between ways to write products, if it was planned here."""
    tried: tuple[Tried, ...]
    """Every plan that was compressed and measured; none where a recipe held the plan."""
    curves: Mapping[str, LossCurve]
    """By group, what it costs the outputs to keep fewer units, on the dense model."""
    refits: tuple[Refit, ...]
    sparse: tuple[Sparse, ...]
    """What became of each product where weights became zero."""
    integers: Integral | None
    """What became of it where it was to compute on integers."""
    halves: Halved | None
    """What became of it where it was to compute in half precision."""
    split: Split
    metrics: Mapping[str, tuple[float, float]]
    """Of the original and of the result, on samples that judge."""
    noise: tuple[Noisy, ...] = ()
    """How both do on such samples with noise."""
    packages: Packages | None = None
    """What became of its weights where they were to be packed."""
    only: bool = False
    """Whether it is a plan and no more: the outcome is what there was before."""


def compress(
    source: Source,
    recipe: Recipe,
    split: Split,
    feeds: Sequence[Feed],
    settings: pipeline.Settings,
    child: Child | None = None,
    *,
    plan_only: bool = False,
) -> Lossy:
    """The whole story for one model with a budget, an allowed drop, a plan, or a pass that gives something up.

    Args:
        source: the original.
        recipe: with `budget`, `max_drop`, `plan`, `forms` or a lossy pass.
        split: samples to learn from and to judge by.
        feeds: what the lossless halves are proved on.
        settings: how models are run.
        child: where models are run first.
        plan_only: stop once there is a plan; the outcome is that of the first half.

    Raises:
        Verdict: nothing can be cut, the budget cannot be met, or not within the allowed drop, or the recipe's plan is
            not for this model.
        UsageError: a key to leave alone is of no node or group, the allowed drop is of what cannot be measured, or
            nothing can be set to zero.
    """
    if source.carried.untouchable:
        raise UsageError(f"nothing of {source.name} can be given up: {source.carried.untouchable}")
    canonical, target = pipeline.canonical(recipe, cut=recipe.cuts), TARGETS[recipe.target]
    given, steps = moving.undone(source, recipe)
    floating = moving.floating(source, given.model)
    first = pipeline.optimize(floating, canonical, feeds, replace(settings, measure=False), child)
    model = first.model
    feed = feeds[0]
    rows = rows_of(feed) if isinstance(split.calibration, Mapping) else 1
    settings.progress("looking for groups")
    groups = channels(model, extents(model, feed), samples=rows) if recipe.cuts else Channels({}, {}, {}, {})
    ends = (*model.graph.inputs, *model.graph.outputs) if recipe.half is not None else ()
    named = {*groups.groups, *(node for node, _ in groups.products), *(str(v.name) for v in ends)}
    check_keys(source, recipe.skip, named)
    more = None
    if recipe.cuts or recipe.sparsify is not None:
        more = mirrored(split.calibration, source.runnable, settings)
    half = Half(source, floating, source.carried.without(groups.values), feeds, settings, child)
    workshop = Workshop(
        model,
        groups,
        split if more is None else replace(split, calibration=more),
        reference=source.runnable,
        widths=partial(candidates, step=target.multiple, strict=target.strict),
        machine=settings,
        limited=tuple(n for n in get_args(Stored) if n in recipe.budget and not (n == "bytes" and recipe.retyped)),
        timed=feed if "latency" in recipe.budget else None,
        finish=partial(half.finished, recipe),
        sized=partial(half.sized, recipe),
        form=recipe.sparsify,
        skip=recipe.skip,
    )
    _check_measured(workshop, recipe.max_drop)
    sites = workshop.sites if recipe.cuts and not (recipe.planned or recipe.form) else groups
    if recipe.cuts and not (sites.groups or recipe.form or recipe.forms):
        raise Verdict(f"nothing in {source.name} can be cut: `graphopt inspect MODEL --groups` says why")
    planner, bounds = _planner(sites, recipe, workshop), _Bounds(source, first, sites, feed, rows)
    plan, made = _planned(planner, recipe, bounds, workshop, only=plan_only)
    tried, done = tuple(planner.tried), replace(recipe, plan=plan.widths, forms=plan.forms, form=None)
    first = replace(first, notes=(*first.notes, *moving.left(given), *_notes(workshop, mirrored=more is not None)))
    if plan_only:
        first = replace(first, recipe=done)
        return Lossy(first, plan, groups, sites, tried, planner.curves, (), (), None, None, split, {}, only=True)
    made = made or workshop.compressed(plan)
    zeros, half = _zeros(made, recipe, source.name), half.after(made)
    integers, packages, halves = None, None, None
    if recipe.packing is not None:
        last, packages = half.packed(made.model, done, recipe.packing, split.calibration)
    elif recipe.half is not None:
        last, halves = half.lowered(made.model, done, recipe.half, workshop, split.calibration)
    elif recipe.quantize is None:
        last = half.emitted(made.model, done, () if made.coded else None)
    else:
        moved = moving.Moved(given, intact=made.model is first.model, rewritten=bool(first.attempt.edits))
        last, integers = half.quantized(made.model, done, workshop, split.calibration, moved)
    settings.progress("judging")
    result = half.runnable(last.model) if last.content is None else last.content
    metrics, noise = workshop.scores(result), workshop.robustness(result)
    measured = recipe.cuts and not (recipe.form or recipe.retyped)
    if not measured and (used := excess(metrics, recipe.max_drop)) > 1:
        raise Verdict(
            f"the allowed drop cannot be kept: the result uses {used:.3g} times of it; allow more, or ask for less"
        )
    outcome = _joined(replace(source, carried=half.carried), first, last, steps, zeros)
    return Lossy(
        outcome,
        plan,
        groups,
        sites,
        tried,
        planner.curves,
        made.refits,
        made.sparse,
        integers,
        halves,
        split,
        metrics,
        noise,
        packages=packages,
    )


def _planner(groups: Channels, recipe: Recipe, workshop: Workshop) -> Planner:
    whole = _whole(groups, recipe.skip)
    return Planner(
        groups,
        {key: (g.units,) if key in whole else workshop.widths(g) for key, g in groups.groups.items()}
        | {key: range(1, groups.groups[key].units + 1) for key in groups.choices},
        workshop,
        progress=workshop.machine.progress,
    )


def _check_measured(workshop: Workshop, allowed: Mapping[str, float]) -> None:
    """What cannot be measured is told before anything takes long.

    Raises:
        UsageError: a metric has no value on this model and data.
    """
    if allowed:
        excess(workshop.scores(workshop.reference), {name: most for name, most in allowed.items() if name != "sqnr"})


def _notes(workshop: Workshop, *, mirrored: bool) -> Iterator[str]:
    """What is to be known of how it was learned."""
    if workshop.split.left_out:
        yield f"nothing was learned from {counted(workshop.split.left_out, 'sample')} with nan or infinities"
    if mirrored:
        yield "the model takes images and their mirror images for the same: both were learned from"
    if "curves" in vars(workshop) and (rough := [key for key, curve in workshop.curves.items() if curve.rough]):
        yield f"memory was short: channels were judged one by one, each without the others, in {', '.join(rough)}"


def _planned(
    planner: Planner, recipe: Recipe, bounds: _Bounds, workshop: Workshop, *, only: bool
) -> tuple[Plan, Compressed | None]:
    """The plan of the recipe, the best under its budget, or the smallest within the allowed drop; and what it made."""
    if recipe.form is not None:
        return Plan({}, everywhere(workshop.model, recipe.form, recipe.skip)), None
    if recipe.planned or not recipe.cuts:
        return Plan.of(recipe.plan, recipe.forms, workshop.channels), None
    if only and recipe.budget:
        return planner.proposed(bounds(recipe.budget, workshop)), None
    if recipe.budget:
        best = planner.within(bounds(recipe.budget, workshop), recipe.max_drop)
    else:
        best = planner.smallest(lambda share: bounds({"macs": share}, workshop), recipe.max_drop)
    return best.plan, best.made.model


@dataclass(frozen=True, eq=False)
class _Bounds:
    """Limits on plans, from shares of what the model costs as given."""

    source: Source
    first: pipeline.Outcome
    groups: Channels
    feed: Feed
    rows: int

    def __call__(self, budget: Mapping[str, float], workshop: Workshop) -> list[Limit]:
        given = self._amounts(facts(self.source.model, self.source.carried, self.feed), self.source.size)
        size = self.source.size if self.first.content is None else len(self.first.content)
        now = self._amounts(facts(self.first.model, self.source.carried, self.feed), size)
        found = limits(self.groups, budget, given, now)
        if "latency" in budget:
            found.append(self._time(budget["latency"], workshop))
        return found

    def _amounts(self, counted: Facts, size: int) -> dict[str, float]:
        return {"macs": (counted.macs or 0) / self.rows, "params": counted.params, "bytes": size}

    def _time(self, share: float, workshop: Workshop) -> Limit:
        """Of the canonical model, as its parts were timed; what is measured later is compared with the model given."""
        cost, whole = latency(
            self.first.model,
            self.groups,
            extents(self.first.model, self.feed),
            self.feed,
            workshop.machine,
        )
        return Limit("latency", cost, share * whole, share)


def _whole(groups: Channels, skip: Sequence[str]) -> set[str]:
    """Groups that are named, or written or read by a node that is named: they keep all their units."""
    named = set(skip)
    return {k for k, g in groups.groups.items() if named & {k, *(node for node, _ in (*g.writers, *g.readers))}}


def _zeros(made: Compressed, recipe: Recipe, name: str) -> tuple[pipeline.Step, ...]:
    """What was done about weights as a step of the story.

    Raises:
        UsageError: nothing, where something was asked for.
    """
    form = recipe.sparsify
    if form is None:
        return ()
    count = sum(s.zeros > 0 for s in made.sparse)
    if not count:
        found = next((s for s in made.sparse), None)
        why = f"{found.key}: {found.form}" if found else "no product has a constant weight of its own"
        raise UsageError(f"{spec(form)} sets no weight of {name} to zero, so ask for more or leave it out ({why})")
    return (pipeline.Step(spec(form), form.exactness.name, {form.name: count}, round(made.seconds, 4)),)


def _joined(
    source: Source,
    first: pipeline.Outcome,
    last: pipeline.Outcome,
    before: tuple[pipeline.Step, ...],
    between: tuple[pipeline.Step, ...],
) -> pipeline.Outcome:
    """One outcome of both halves, and what was done in between."""
    attempt = replace(
        last.attempt,
        edits=(*first.attempt.edits, *last.attempt.edits),
        steps=(*before, *first.attempt.steps, *between, *last.attempt.steps),
    )
    notes = dict.fromkeys((*first.notes, *last.notes))
    return replace(last, source=source, attempt=attempt, left_out=(*first.left_out, *last.left_out), notes=tuple(notes))
