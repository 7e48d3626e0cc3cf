"""The order of the story: rewrite → verify → emit. The only place that knows it."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Generic, TypeVar

import onnx_ir as ir

from graphopt.analysis.channels import channels
from graphopt.analysis.facts import extents
from graphopt.analysis.groups import Channels
from graphopt.counted import counted
from graphopt.graph import functions, invariants
from graphopt.graph.collector import resting
from graphopt.graph.edit import Editor
from graphopt.graph.load import Source
from graphopt.graph.record import Edit
from graphopt.graph.save import EXTERNAL_ABOVE, serialize, weight_bytes
from graphopt.protocol import Context, Evaluator, Ledger, Miss, NotEvaluated, Pass, Proposer
from graphopt.provenance import KEYS, Provenance
from graphopt.recipe import Recipe
from graphopt.rewrite import Border, Inline
from graphopt.run import trial
from graphopt.run.bench import Timing, bench
from graphopt.run.child import Child, ChildFailed, Limits
from graphopt.run.compare import Comparison
from graphopt.run.machine import Machine
from graphopt.run.session import Feed
from graphopt.spelling import spec
from graphopt.targets import TARGETS
from graphopt.upgrade import Upgrade
from graphopt.verify import Judge, explain, guilty, rounded
from graphopt.wager import Candidate, settle

__all__ = ["Attempt", "Outcome", "Settings", "Step", "canonical", "groups", "misses", "optimize"]

MOST_GUILTY = 8
"""Edits that are left out one after another before the whole rewriting is given up."""
_MOST_ROUNDS = 20
_PATIENCE = 20.0
"""Seconds that may go into evaluations that fail."""
_GROWTH = 1.5
"""How many times the source's size the emitted file may have."""

UNVERIFIED = "unverified"
"""The verdict where nothing was run. It is always written."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Settings(Machine):
    """How one model is treated, whatever is done to it."""

    measure: bool = False
    """Whether the clock decides on passes that could make a model slower."""
    calibration: Path | None = None
    """Where statistics of values are kept that integers are chosen by."""
    stamp: Recipe | None = None
    """What was done in all, where the model was changed before: it says so even if nothing is left to rewrite."""


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
    recipe: Recipe
    """What was done: without the passes that `measure` left out."""
    attempt: Attempt
    judge: Judge | None
    """None where nothing was run."""
    verification: Comparison | None
    left_out: tuple[LeftOut, ...] = ()
    unchanged: str | None = None
    """Why the source is emitted as it came, if it is."""
    notes: tuple[str, ...] = ()

    @property
    def growth(self) -> float:
        """How many times as large as the source the file is; 1 where that is not known, above 2 GB."""
        return 1.0 if self.content is None else len(self.content) / self.source.size


@dataclass
class _Record:
    """What one pass does, over all rounds."""

    step: Pass
    seconds: float = 0.0
    made: Counter[str] = field(default_factory=Counter)
    misses: tuple[Miss, ...] = ()
    """Of the last round."""
    settled: int | None = None
    """Number of edits at which it last found nothing to do: until there are more, it finds nothing again."""

    def run(self, edit: Editor, ctx: Context) -> bool:
        """One round. False where it broke the graph: no pass can work on it, and verification finds whom to blame."""
        start, count = time.perf_counter(), len(edit.edits)
        if count == self.settled:
            return True
        ctx.misses.clear()
        self.step.run(edit, ctx)
        self.seconds += time.perf_counter() - start
        self.made.update(e.rule for e in edit.edits[count:])
        self.misses = tuple(ctx.misses)
        if len(edit.edits) == count:
            self.settled = count
            return True
        return next(invariants.broken(edit.model), None) is None

    def told(self) -> Step:
        return Step(spec(self.step), self.step.exactness.name, dict(self.made), round(self.seconds, 4))


class _Remembered(Generic[_Answer]):
    """What a limited child process answers about a model, which is asked only once, and not for ever."""

    def __init__(self, ask: Callable[[bytes], _Answer]) -> None:
        self._ask = ask
        self._patience = _PATIENCE
        self._known: dict[bytes, _Answer | ChildFailed] = {}

    def __call__(self, model: bytes) -> _Answer:
        digest = hashlib.sha256(model).digest()
        if digest not in self._known:
            if self._patience < 0:
                raise NotEvaluated("too much time went into what cannot be computed")
            start = time.monotonic()
            try:
                self._known[digest] = self._ask(model)
            except ChildFailed as failure:
                self._known[digest] = failure
                self._patience -= time.monotonic() - start
        found = self._known[digest]
        if isinstance(found, ChildFailed):
            raise NotEvaluated(str(found))
        return found


def optimize(
    source: Source, recipe: Recipe, feeds: Sequence[Feed] | None, settings: Settings, child: Child | None = None
) -> Outcome:
    """The whole story for one model. Without feeds nothing is run but folding, and only the structure is checked."""
    with trial.within(Limits(), child) as limited:
        run = _run(source, recipe, feeds, settings, limited)
        if source.carried.untouchable:
            return run.unchanged(Attempt(source.model, (), (), ()), source.carried.untouchable)
        run, told = run.measured()
        outcome = run.outcome()
        if outcome.growth > 1 and not outcome.unchanged:
            del outcome  # its weights are copies
            outcome = replace(run, thrifty=True).outcome()
        if outcome.growth > _GROWTH and not outcome.unchanged:
            outcome = run.unchanged(outcome.attempt, f"the rewritten file would be more than {_GROWTH} times as large")
        return replace(outcome, notes=(*told, *outcome.notes))


def misses(source: Source, recipe: Recipe, child: Child | None = None) -> tuple[Miss, ...]:
    """Where rules looked in the last round and did nothing, and why. Nothing is run but folding."""
    with trial.within(Limits(), child) as limited:
        return _run(source, recipe, None, Settings(), limited).rewrite().misses


def groups(source: Source, recipe: Recipe, feed: Feed, child: Child | None = None) -> Channels:
    """Which channels can be cut together, in the canonical graph. Its extents are those of a feed."""
    with trial.within(Limits(), child) as limited:
        model = _run(source, canonical(recipe), None, Settings(), limited).rewrite().model
    return channels(model, extents(model, feed))


def canonical(recipe: Recipe, *, cut: bool = True) -> Recipe:
    """The half of a recipe that groups are looked for behind: the standard form, before anything for the target."""
    return replace(recipe, passes=(*(p for p in recipe.passes if p.stage == 0), *((Border(),) if cut else ())))


def _run(source: Source, recipe: Recipe, feeds: Sequence[Feed] | None, settings: Settings, child: Child) -> _Run:
    run = _Run(source, recipe, feeds, settings, _Remembered(child.evaluate), _Remembered(child.simplify))
    return run.settled()


@dataclass(frozen=True)
class _Run:
    """One model on its way through the story."""

    source: Source
    recipe: Recipe
    feeds: Sequence[Feed] | None
    settings: Settings
    evaluate: Evaluator
    propose: Proposer
    thrifty: bool = False
    """Whether folding may only spend what other edits saved."""

    @property
    def told(self) -> Recipe:
        """What the emitted model says of how it was made."""
        return self.settings.stamp or self.recipe

    def settled(self) -> _Run:
        """The run that keeps what is called more than once as functions, if inlining it would leave more nodes."""
        model, passes = self.source.model, self.recipe.passes
        sparing = tuple(replace(p, shared=False) if isinstance(p, Inline) else p for p in passes)
        shared = any(times > 1 for times in functions.called(model).values())
        inside = self.recipe.half is not None  # what a function computes is of one type wherever it is called
        if not shared or sparing == passes or inside or self.source.carried.untouchable:
            return self
        grows = functions.count(self.rewrite().model) > functions.count(model)
        return replace(self, recipe=replace(self.recipe, passes=sparing)) if grows else self

    def measured(self) -> tuple[_Run, tuple[str, ...]]:
        """Without the passes with which the model is no faster, where the clock is asked, and what it said."""
        if not self.settings.measure or not self.feeds:
            return self, ()
        feed = self.feeds[0]

        def make(recipe: Recipe) -> Candidate:
            attempt = replace(self, recipe=recipe).rewrite()
            return Candidate(_content(attempt.model, self.source), [sum(s.edits.values()) for s in attempt.steps])

        def compare(original: bytes, candidate: bytes) -> Timing:
            first, second = (self.settings.timed(m) for m in (original, candidate))
            return bench(first, second, feed, tell=self.settings.share("timing a pass"))

        recipe, told = settle(self.recipe, make, compare, self.settings.progress)
        return replace(self, recipe=recipe), told

    def outcome(self) -> Outcome:
        """Rewrite, verify, leave out what is guilty, and seal."""
        self.settings.progress("rewriting")
        attempt = self.rewrite()
        new = self.source.frozen or self.settings.stamp
        if not attempt.edits and not new:
            return self.unchanged(attempt, "nothing was found to rewrite")
        if self.feeds is None:
            return self._sealed(attempt, None, None, ())
        self.settings.progress("verifying")
        judge = self._judge(rounded(attempt.edits))
        left_out: list[LeftOut] = []
        while not (found := judge(attempt.model)):
            if len(left_out) == MOST_GUILTY or not attempt.edits:
                return self.unchanged(attempt, f"the result would differ: {explain(found)}", left_out)
            self.settings.progress(f"looking for the edit to blame ({len(left_out) + 1})")
            left_out.append(LeftOut(self._guilty(attempt, judge, left_out), explain(found)))
            attempt = self.rewrite([x.edit for x in left_out])
        if not attempt.edits and not new:
            return self.unchanged(attempt, "every edit was found to change the result", left_out)
        return self._sealed(attempt, judge, found, left_out)

    @resting()
    def rewrite(self, skip: Sequence[Edit] = (), limit: int | None = None) -> Attempt:
        """Run the passes over a copy of the source, stage by stage, each until a whole round changes nothing.

        What a later stage changes, those before it look at once more, so that a second run finds nothing to do.

        Args:
            skip: edits to leave out.
            limit: number of edits after which to stop.
        """
        recipe = self.recipe
        edit = Editor(self.source.model.clone(), skip=skip, limit=limit, keep=recipe.skip)
        room = 0 if self._is_done else int((_GROWTH - 1) * self.source.size)
        ledger = Ledger(room, 0 if self.thrifty else room)
        ctx = Context(self.evaluate, ledger, TARGETS[recipe.target], recipe.fast_math, self.propose)
        records = [_Record(p) for p in recipe.passes]
        for stage in sorted({p.stage for p in recipe.passes}):
            group = [r for r in records if r.step.stage <= stage]
            for _ in range(_MOST_ROUNDS):
                before = len(edit.edits)
                if not all(r.run(edit, ctx) for r in group) or len(edit.edits) == before:
                    break
        misses = tuple(miss for r in records for miss in r.misses)
        return Attempt(edit.model, tuple(edit.edits), tuple(r.told() for r in records), misses)

    @property
    def _is_done(self) -> bool:
        """Whether this recipe made the source: then it grew as far as it may."""
        said = Provenance.of(self.source.model.metadata_props)
        return bool(said.verdict) and said.recipe in {"", self.told.text()}

    def unchanged(self, attempt: Attempt, reason: str, left_out: Sequence[LeftOut] = ()) -> Outcome:
        """The source as it came; running it once more shows that it repeats itself."""
        source = self.source
        judge = None if self.feeds is None else self._judge({})
        found = None if judge is None else judge(source.model)
        content = source.runnable if isinstance(source.runnable, bytes) else _content(source.model, source)
        return Outcome(
            source, source.model, content, self.told, attempt, judge, found, tuple(left_out), unchanged=reason
        )

    def _judge(self, reductions: Mapping[str, int]) -> Judge:
        return Judge(self.source, self.feeds or (), reductions, self.settings)

    def _guilty(self, attempt: Attempt, judge: Judge, left_out: Sequence[LeftOut]) -> Edit:
        skip = [x.edit for x in left_out]
        return guilty(attempt.edits, lambda limit: bool(judge(self.rewrite(skip, limit).model)))

    def _sealed(
        self, attempt: Attempt, judge: Judge | None, found: Comparison | None, left_out: Sequence[LeftOut]
    ) -> Outcome:
        """Write into the model what was done; where only that makes the file larger than the source, just a warning."""
        source, model = self.source, attempt.model
        verdict = UNVERIFIED
        if judge and found:
            proof = "verified" if found.evidence else "no evidence"
            proof += " against the model as it was compressed" if self.settings.stamp else ""
            verdict = f"{proof} on {counted(found.feeds, 'feed')}, {judge.reference.provider}"
        theirs = {k: v for k, v in model.metadata_props.items() if k not in KEYS}
        ours = theirs | Provenance(version("graphopt"), source.sha256, self.told.text(), verdict).metadata
        wanted = max((step.opset for step in self.recipe.passes if isinstance(step, Upgrade)), default=0)
        notes = [
            f"opset {wanted} could not be reached, only {model.opset_imports['']}: {miss.root}: {miss.reason}"
            for miss in attempt.misses
            if miss.rule == Upgrade.name
        ]
        content = _content(model, source, ours)
        if content is not None and (size := len(content)) > source.size:
            content = None  # one at a time
            content = _content(model, source, theirs if judge else theirs | Provenance(verdict=UNVERIFIED).metadata)
            if content is not None and (len(content) <= source.size or size > _GROWTH * source.size):
                notes.append("the file is too small to say in it how it was made")
            else:
                content = None
                content = _content(model, source, ours)
        return Outcome(source, model, content, self.told, attempt, judge, found, tuple(left_out), notes=tuple(notes))


def _content(model: ir.Model, source: Source, metadata: Mapping[str, str] | None = None) -> bytes | None:
    """The file's bytes, if its weights fit inside; with other metadata, if any is given."""
    if metadata is not None:
        model.metadata_props.clear()
        model.metadata_props.update(metadata)
    return serialize(model, source.carried) if weight_bytes(model) < EXTERNAL_ABOVE else None
