"""The order of the story: rewrite → verify → emit. The only place that knows it."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph import invariants
from graphopt.graph.edit import Edit, Editor
from graphopt.graph.io import EXTERNAL_ABOVE, Source, serialize, weight_bytes
from graphopt.protocol import Context, Evaluator, Ledger, Miss, NotEvaluated
from graphopt.recipe import Recipe, spec
from graphopt.run.child import Child, ChildFailed
from graphopt.run.compare import Comparison
from graphopt.run.session import Device, Feed
from graphopt.verify import Judge, explain, guilty, rounded

__all__ = ["Attempt", "Outcome", "Settings", "Step", "misses", "optimize"]

_log = logging.getLogger(__name__)

MOST_GUILTY = 8
"""Edits that are left out one after another before the whole rewriting is given up."""
_MOST_ROUNDS = 20
_GROWTH = 0.5
"""Share of the source that single edits may add in between; the emitted file is never larger than the source."""

PROVENANCE = ("graphopt.version", "graphopt.source_sha256", "graphopt.recipe", "graphopt.verdict")
"""Keys of the emitted model's metadata_props: what made it, from what, how, and what was found."""
UNVERIFIED = "unverified"
"""The verdict where nothing was run. It is always written."""

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
    judge: Judge | None
    """None where nothing was run."""
    verification: Comparison | None
    left_out: tuple[LeftOut, ...] = ()
    unchanged: str | None = None
    """Why the source is emitted as it came, if it is."""
    notes: tuple[str, ...] = ()

    @property
    def grew(self) -> bool:
        """Whether the file is larger than the source."""
        return self.content is not None and len(self.content) > self.source.size


class _Evaluate:
    """Folding's evaluator: a limited child process that remembers what it was asked."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._known: dict[bytes, dict[str, NDArray[Any]] | str] = {}

    def __call__(self, model: bytes) -> dict[str, NDArray[Any]]:
        digest = hashlib.sha256(model).digest()
        if digest not in self._known:
            try:
                self._known[digest] = self._child.evaluate(model)
            except ChildFailed as failure:
                self._known[digest] = str(failure)
        found = self._known[digest]
        if isinstance(found, str):
            raise NotEvaluated(found)
        return found


def optimize(source: Source, recipe: Recipe, feeds: Sequence[Feed] | None, settings: Settings) -> Outcome:
    """The whole story for one model. Without feeds nothing is run, and only the structure is checked."""
    with Child() as child:
        run = _run(source, recipe, feeds, settings, child)
        if source.carried.untouchable:
            return run.unchanged(Attempt(source.model, (), (), ()), source.carried.untouchable)
        outcome = run.outcome()
        if outcome.grew and not outcome.unchanged:
            _log.debug("the file would grow: once more without room")
            outcome = replace(run, growth=0).outcome()
        if outcome.grew and not outcome.unchanged:
            return run.unchanged(outcome.attempt, "the rewritten file would be larger")
        return outcome


def misses(source: Source, recipe: Recipe) -> tuple[Miss, ...]:
    """Where rules looked in the last round and did nothing, and why. Nothing is run but folding."""
    with Child() as child:
        return _run(source, recipe, None, Settings(), child).rewrite().misses


def _run(source: Source, recipe: Recipe, feeds: Sequence[Feed] | None, settings: Settings, child: Child) -> _Run:
    return _Run(source, recipe, feeds, settings, _Evaluate(child), int(source.size * _GROWTH))


@dataclass(frozen=True)
class _Run:
    """One model on its way through the story."""

    source: Source
    recipe: Recipe
    feeds: Sequence[Feed] | None
    settings: Settings
    evaluate: Evaluator
    growth: int
    """Bytes by which the file may grow in between."""

    def outcome(self) -> Outcome:
        """Rewrite, verify, leave out what is guilty, and seal."""
        self.settings.progress("rewriting")
        attempt = self.rewrite()
        if not attempt.edits and not self.source.frozen:
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
        if not attempt.edits and not self.source.frozen:
            return self.unchanged(attempt, "every edit was found to change the result", left_out)
        return self._sealed(attempt, judge, found, left_out)

    def rewrite(self, skip: Sequence[Edit] = (), limit: int | None = None) -> Attempt:
        """Run the passes over a copy of the source, again and again until a whole round changes nothing.

        Args:
            skip: edits to leave out.
            limit: number of edits after which to stop.
        """
        passes = self.recipe.passes
        edit = Editor(self.source.model.clone(), skip=skip, limit=limit, keep=self.recipe.skip)
        ctx = Context(self.evaluate, Ledger(self.growth))
        seconds = [0.0] * len(passes)
        made: list[Counter[str]] = [Counter() for _ in passes]
        for _ in range(_MOST_ROUNDS):
            before, broken = len(edit.edits), None
            ctx.misses.clear()
            for index, step in enumerate(passes):
                start, count = time.perf_counter(), len(edit.edits)
                step.run(edit, ctx)
                seconds[index] += time.perf_counter() - start
                made[index].update(e.rule for e in edit.edits[count:])
                broken = next(invariants.broken(edit.model), None)
                if broken:
                    break  # no pass can work on such a graph; verification finds the edit to blame
            if broken or len(edit.edits) == before:
                break
        steps = tuple(
            Step(spec(p), p.exactness.name, dict(c), round(s, 4)) for p, c, s in zip(passes, made, seconds, strict=True)
        )
        return Attempt(edit.model, tuple(edit.edits), steps, tuple(ctx.misses))

    def unchanged(self, attempt: Attempt, reason: str, left_out: Sequence[LeftOut] = ()) -> Outcome:
        """The source as it came; running it once more shows that it repeats itself."""
        source = self.source
        judge = None if self.feeds is None else self._judge({})
        found = None if judge is None else judge(source.model)
        content = source.runnable if isinstance(source.runnable, bytes) else _content(source.model, source)
        return Outcome(source, source.model, content, attempt, judge, found, tuple(left_out), unchanged=reason)

    def _judge(self, reductions: Mapping[str, int]) -> Judge:
        settings = self.settings
        return Judge(
            self.source,
            self.feeds or (),
            reductions,
            device=settings.device,
            threads=settings.threads,
            seed=settings.seed,
        )

    def _guilty(self, attempt: Attempt, judge: Judge, left_out: Sequence[LeftOut]) -> Edit:
        skip = [x.edit for x in left_out]
        return guilty(attempt.edits, lambda limit: bool(judge(self.rewrite(skip, limit).model)))

    def _sealed(
        self, attempt: Attempt, judge: Judge | None, found: Comparison | None, left_out: Sequence[LeftOut]
    ) -> Outcome:
        """Write into the model what was done; where that would make the file larger than the source, only a warning."""
        source, model = self.source, attempt.model
        verdict = UNVERIFIED
        if judge and found:
            proof = "verified" if found.evidence else "no evidence"
            verdict = f"{proof} on {found.feeds} feeds, {judge.reference.provider}"
        entries = (version("graphopt"), source.sha256, self.recipe.text(), verdict)
        theirs = {k: v for k, v in model.metadata_props.items() if k not in PROVENANCE}
        _set_metadata(model, theirs | dict(zip(PROVENANCE, entries, strict=True)))
        notes: tuple[str, ...] = ()
        content = _content(model, source)
        if content is not None and len(content) > source.size:
            _set_metadata(model, theirs if judge else theirs | {PROVENANCE[-1]: UNVERIFIED})
            content = _content(model, source)
            notes = ("the file is too small to say in it how it was made",)
        return Outcome(source, model, content, attempt, judge, found, tuple(left_out), notes=notes)


def _set_metadata(model: ir.Model, entries: Mapping[str, str]) -> None:
    model.metadata_props.clear()
    model.metadata_props.update(entries)


def _content(model: ir.Model, source: Source) -> bytes | None:
    """The file's bytes, if its weights fit inside."""
    return serialize(model, source.carried) if weight_bytes(model) < EXTERNAL_ABOVE else None
