"""The order of the story: rewrite → verify → emit. The only place that knows it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.edit import Edit, Editor
from graphopt.graph.io import EXTERNAL_ABOVE, Source, serialize, weight_bytes
from graphopt.passes import Context, Ledger, Miss, NotEvaluated
from graphopt.recipe import Recipe, spec
from graphopt.run.child import Child, ChildFailed
from graphopt.run.compare import Comparison
from graphopt.run.session import Device, Feed
from graphopt.verify import Judge, explain, guilty, rounded

__all__ = ["Attempt", "Outcome", "Settings", "Step", "misses", "optimize", "rewrite"]

_log = logging.getLogger(__name__)

MOST_GUILTY = 8
"""Edits that are left out one after another before the whole rewriting is given up."""
_MOST_ROUNDS = 20
_GROWTH = 0.5
"""Share of the source that single edits may add in between; the emitted file is never larger than the source."""

PROVENANCE = ("graphopt.version", "graphopt.source_sha256", "graphopt.recipe", "graphopt.verdict")
"""Keys of the emitted model's metadata_props: what made it, from what, how, and what was found."""

Progress = Callable[[str], None]
"""Told what begins."""


@dataclass(frozen=True)
class Settings:
    """How to run models, as opposed to what to do with them."""

    device: Device = "cpu"
    threads: int = 0
    seed: int = 0
    progress: Progress = field(default=lambda _: None)


@dataclass(frozen=True)
class Step:
    """What one pass did, over all rounds."""

    name: str
    exactness: str
    edits: dict[str, int]
    """Number of edits by rule."""
    seconds: float


@dataclass(frozen=True)
class Attempt:
    """A rewritten graph, and the record of how it came about."""

    model: ir.Model
    edits: tuple[Edit, ...]
    steps: tuple[Step, ...]
    misses: tuple[Miss, ...]


@dataclass(frozen=True)
class LeftOut:
    """An edit that changed the result and was left out."""

    edit: Edit
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What is to be emitted, and why it can be trusted."""

    source: Source
    model: ir.Model
    content: bytes | None
    """The file's bytes; None where it needs external data."""
    attempt: Attempt
    verification: Comparison | None
    left_out: tuple[LeftOut, ...] = ()
    unchanged: str | None = None
    """Why the source is emitted as it came, if it is."""
    judge: Judge | None = None


class _Evaluate:
    """Folding's evaluator: a limited child process that remembers what it was asked."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._known: dict[bytes, dict[str, NDArray[Any]] | str] = {}

    def __call__(self, model: bytes) -> dict[str, NDArray[Any]]:
        if model not in self._known:
            try:
                self._known[model] = self._child.evaluate(model)
            except ChildFailed as failure:
                self._known[model] = str(failure)
        found = self._known[model]
        if isinstance(found, str):
            raise NotEvaluated(found)
        return found


def rewrite(
    source: Source,
    recipe: Recipe,
    evaluate: Callable[[bytes], dict[str, NDArray[Any]]],
    *,
    growth: int = 0,
    skip: Sequence[Edit] = (),
    limit: int | None = None,
) -> Attempt:
    """Run the recipe's passes over a copy of the source, again and again until a whole round changes nothing.

    Args:
        source: is not changed.
        recipe: the passes, and the keys of nodes to leave alone.
        evaluate: computes constants.
        growth: bytes by which the file may grow.
        skip: edits to leave out.
        limit: number of edits after which to stop.
    """
    model = source.model.clone()
    edit = Editor(model, skip=skip, limit=limit, keep=recipe.skip)
    ctx = Context(evaluate, Ledger(growth))
    seconds = [0.0] * len(recipe.passes)
    made: list[Counter[str]] = [Counter() for _ in recipe.passes]
    for _ in range(_MOST_ROUNDS):
        before = len(edit.edits)
        ctx.misses.clear()
        for index, step in enumerate(recipe.passes):
            start, count = time.perf_counter(), len(edit.edits)
            step.run(edit, ctx)
            seconds[index] += time.perf_counter() - start
            made[index].update(e.rule for e in edit.edits[count:])
        if len(edit.edits) == before:
            break
    steps = tuple(
        Step(spec(p), p.exactness.name, dict(c), round(s, 4))
        for p, c, s in zip(recipe.passes, made, seconds, strict=True)
    )
    return Attempt(edit.model, tuple(edit.edits), steps, tuple(ctx.misses))


def misses(source: Source, recipe: Recipe) -> tuple[Miss, ...]:
    """Where rules looked in the last round and did nothing, and why. Nothing is run but folding."""
    with Child() as child:
        return rewrite(source, recipe, _Evaluate(child)).misses


def optimize(source: Source, recipe: Recipe, feeds: Sequence[Feed] | None, settings: Settings) -> Outcome:
    """The whole story for one model. Without feeds nothing is run, and only the structure is checked."""
    if source.carried.untouchable:
        return _unchanged(source, Attempt(source.model, (), (), ()), source.carried.untouchable)
    with ExitStack() as stack:
        evaluate = _Evaluate(stack.enter_context(Child()))
        outcome = _attempt(source, recipe, feeds, settings, evaluate, growth=int(source.size * _GROWTH))
        if outcome.content is not None and len(outcome.content) > source.size:
            _log.debug("the file would grow by %d bytes: once more without room", len(outcome.content) - source.size)
            outcome = _attempt(source, recipe, feeds, settings, evaluate, growth=0)
            if outcome.content is not None and len(outcome.content) > source.size:
                return _unchanged(source, outcome.attempt, "the rewritten file would be larger")
    return outcome


def _attempt(
    source: Source,
    recipe: Recipe,
    feeds: Sequence[Feed] | None,
    settings: Settings,
    evaluate: _Evaluate,
    *,
    growth: int,
) -> Outcome:
    settings.progress("rewriting")
    attempt = rewrite(source, recipe, evaluate, growth=growth)
    if not attempt.edits and not source.frozen:
        return _unchanged(source, attempt, "nothing was found to rewrite")
    judge, verification = None, None
    left_out: list[LeftOut] = []
    if feeds is not None:
        settings.progress("verifying")
        judge = Judge(
            source, feeds, rounded(attempt.edits), device=settings.device, threads=settings.threads, seed=settings.seed
        )
        while not (verification := judge(attempt.model)):
            if len(left_out) == MOST_GUILTY or not attempt.edits:
                return _unchanged(source, attempt, f"the result would differ: {explain(verification)}", left_out)
            settings.progress(f"looking for the edit to blame ({len(left_out) + 1})")
            skip = [x.edit for x in left_out]

            def holds(limit: int, skip: list[Edit] = skip, judge: Judge = judge) -> bool:
                return bool(judge(rewrite(source, recipe, evaluate, growth=growth, skip=skip, limit=limit).model))

            left_out.append(LeftOut(guilty(attempt.edits, holds), explain(verification)))
            attempt = rewrite(source, recipe, evaluate, growth=growth, skip=[x.edit for x in left_out])
        if not attempt.edits and not source.frozen:
            return _unchanged(source, attempt, "every edit was found to change the result", left_out)
    provider = judge.reference.provider if judge else None
    return _sealed(source, recipe, attempt, verification, provider, left_out, judge)


def _unchanged(source: Source, attempt: Attempt, reason: str, left_out: Sequence[LeftOut] = ()) -> Outcome:
    content = source.runnable if isinstance(source.runnable, bytes) else None
    return Outcome(source, source.model, content, attempt, None, tuple(left_out), unchanged=reason)


def _sealed(
    source: Source,
    recipe: Recipe,
    attempt: Attempt,
    verification: Comparison | None,
    provider: str | None,
    left_out: Sequence[LeftOut],
    judge: Judge | None,
) -> Outcome:
    """Write into the model what was done, as far as that leaves the file no larger than the source."""
    model = attempt.model
    verdict = "unverified" if verification is None else f"verified on {verification.feeds} feeds, {provider}"
    entries = dict(zip(PROVENANCE, (version("graphopt"), source.sha256, recipe.text(), verdict), strict=True))
    plain = {k: v for k, v in model.metadata_props.items() if k not in PROVENANCE}
    model.metadata_props.clear()
    model.metadata_props.update(plain | entries)
    content = serialize(model, source.carried) if weight_bytes(model) < EXTERNAL_ABOVE else None
    if content is not None and len(content) > source.size:
        model.metadata_props.clear()
        model.metadata_props.update(plain)
        content = serialize(model, source.carried)
    return Outcome(source, model, content, attempt, verification, tuple(left_out), judge=judge)
