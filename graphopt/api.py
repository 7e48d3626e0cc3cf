"""The verbs of graphopt in Python; the command line has the same ones.

result = graphopt.optimize("model.onnx")
print(result.report.output.nodes)
result.save("model.opt.onnx")
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from graphopt import pipeline
from graphopt import recipe as recipes
from graphopt.analysis.evidence import Evidence, gather
from graphopt.analysis.facts import facts
from graphopt.analysis.metrics import scores
from graphopt.errors import InputError, UsageError
from graphopt.graph.io import Source, load, save, serialize, weight_bytes
from graphopt.graph.nodes import graphs, is_overridable, key
from graphopt.report.data import (
    CheckReport,
    DataReport,
    Inspection,
    LeftOutReport,
    ModelReport,
    PassReport,
    Report,
    VerificationReport,
)
from graphopt.run import bench as timing
from graphopt.run import probe
from graphopt.run.session import Device, Session
from graphopt.verify import Judge, explain, products

__all__ = ["Result", "bench", "check", "doctor", "inspect", "optimize", "passes"]

_log = logging.getLogger("graphopt")

Model = str | os.PathLike[str] | onnx.ModelProto | ir.Model | Any
"""A path, an `onnx.ModelProto`, an `onnx_ir.Model`, or torch's `ONNXProgram`."""

Progress = Callable[[str], None]
"""Told what begins."""


_TIMING_SECONDS = 1.0


@dataclass(frozen=True)
class Result:
    """What `optimize` made."""

    report: Report
    outcome: pipeline.Outcome
    recipe: recipes.Recipe

    @property
    def model(self) -> onnx.ModelProto:
        """The optimized model, weights inside."""
        content = self.outcome.content
        return onnx.load_from_string(
            content if content is not None else serialize(self.outcome.model, self.outcome.source.carried)
        )

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write the model; it appears at `path` complete, or not at all.

        The written file is read back and compared with the original once more before it is moved into place.

        Args:
            path: where to.
            force: write through a symbolic link, or over the source itself.

        Raises:
            UsageError: `path` is a folder, a symbolic link or the source.
            MachineError: the folder is missing, full or not writable.
        """
        target, source = Path(path), self.outcome.source
        if target.is_dir():
            raise UsageError(f"{target} is a folder: give the name of a file in it")
        if not force and target.is_symlink():
            raise UsageError(
                f"{target} is a symbolic link: give the file it stands for, or --force to replace the link's target"
            )
        if not force and source.path is not None and target.exists() and target.samefile(source.path):
            raise UsageError(f"{target} is the source itself: give another -o, or --force to replace it")
        content = self.outcome.content
        save(
            self.outcome.model if content is None else content,
            target.resolve() if force else target,
            source.carried,
            check=self._check,
        )
        return target

    def _check(self, written: Path) -> None:
        judge = self.outcome.judge
        if judge is not None and not (found := judge.written(written)):
            raise InputError(f"the written file does not do the original's job: {explain(found)}; nothing was emitted")


def optimize(
    model: Model,
    *,
    data: Any = None,
    device: Device = "auto",
    passes: Sequence[str] | None = None,
    skip: Sequence[str] | None = None,
    recipe: str | os.PathLike[str] | recipes.Recipe | None = None,
    freeze: bool = False,
    keep_metadata: bool = False,
    unverified: bool = False,
    set_dims: Mapping[str, int] | None = None,
    threads: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Make a model smaller and faster without changing what it computes, and verify that.

    Args:
        model: a path, an `onnx.ModelProto`, an `onnx_ir.Model` or torch's `ONNXProgram`. It is not changed.
        data: what to verify on: a path, `module:function`, feeds, … (see the README); generated if not given.
        device: "cpu", "cuda" (never falls back) or "auto" (CUDA where it really runs).
        passes: names or `name{field=value}`, in their order; by default the lossless ones.
        skip: keys of nodes to leave as they are.
        recipe: a recipe or its file, instead of `passes`, `skip`, `freeze` and `keep_metadata`.
        freeze: make constants of initializers that a feed could override.
        keep_metadata: keep what exporters noted at each node.
        unverified: check the structure only, and run nothing.
        set_dims: extents of symbolic dimensions in generated feeds.
        threads: of one operator; 0 for all cores.
        seed: of everything random.
        progress: called with a few words when a phase begins.

    Raises:
        InputError: the model or the data cannot be read or is invalid, or the model does not run.
        NeedsData: no generated feed runs on the model.
        UsageError: the arguments contradict each other.
        MachineError: `device` is "cuda", and CUDA does not run here.
    """
    say = progress or _log.info
    if unverified and (data is not None or set_dims or device == "cuda"):
        raise UsageError("unverified runs nothing: leave out data, dimensions and device")
    chosen = _recipe(recipe, passes, skip, freeze=freeze, keep_metadata=keep_metadata)
    say("loading")
    source = load(model, freeze=chosen.freeze)
    _check_keys(source, chosen)
    settings = pipeline.Settings(device, threads, seed, say)
    evidence = None if unverified else gather(source, data, set_dims, seed, say)
    outcome = pipeline.optimize(source, chosen, evidence.feeds if evidence else None, settings)
    say("measuring")
    return Result(_report(outcome, evidence, settings), outcome, chosen)


def _check_keys(source: Source, recipe: recipes.Recipe) -> None:
    """Insist that the nodes to leave alone exist: a misspelt key would be passed over in silence."""
    keys = {key(node) for graph in graphs(source.model) for node in graph}
    if unknown := [k for k in recipe.skip if k not in keys]:
        close = difflib.get_close_matches(unknown[0], keys, n=3)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise UsageError(f"{source.name} has no node with the key {unknown[0]!r}{hint}")


def _recipe(
    recipe: str | os.PathLike[str] | recipes.Recipe | None,
    passes: Sequence[str] | None,
    skip: Sequence[str] | None,
    *,
    freeze: bool,
    keep_metadata: bool,
) -> recipes.Recipe:
    if recipe is None:
        return recipes.Recipe.of(passes or None, skip or (), freeze=freeze, keep_metadata=keep_metadata)
    if passes or skip or freeze or keep_metadata:
        raise UsageError(
            "a recipe already says what to do: give it alone, without passes, skip, freeze or keep-metadata"
        )
    return recipe if isinstance(recipe, recipes.Recipe) else recipes.Recipe.read(Path(recipe))


def _report(outcome: pipeline.Outcome, evidence: Evidence | None, settings: pipeline.Settings) -> Report:
    source, content = outcome.source, outcome.content
    feed = evidence.feeds[0] if evidence else None
    before, after = (facts(m, source.carried, feed) for m in (source.model, outcome.model))
    pair = None
    if content is not None and feed is not None and outcome.unchanged is None:
        first, second = (
            Session(m, device=settings.device, threads=settings.threads) for m in (source.runnable, content)
        )
        pair = timing.bench(first, second, feed, seconds=_TIMING_SECONDS)
    size = weight_bytes(outcome.model) if content is None else len(content)
    digest = source.sha256 if outcome.unchanged or content is None else hashlib.sha256(content).hexdigest()
    verification = None
    if outcome.verification is not None and outcome.judge is not None:
        metrics = {}
        if evidence and evidence.data and content is not None:
            metrics = scores(source.runnable, content, evidence.data, device=settings.device, threads=settings.threads)
        verification = VerificationReport.of(outcome.verification, outcome.judge.reference, metrics)
    return Report(
        version=version("graphopt"),
        source=ModelReport.of(source.name, before, source.size, source.sha256, pair.original_ms if pair else None),
        output=ModelReport.of("result", after, size, digest, pair.candidate_ms if pair else None),
        unchanged=outcome.unchanged,
        provider=outcome.judge.reference.provider if outcome.judge else None,
        steps=outcome.attempt.steps,
        left_out=tuple(LeftOutReport(x.edit.rule, x.edit.root, x.reason) for x in outcome.left_out),
        verification=verification,
        data=DataReport.of(evidence) if evidence else None,
        notes=(*source.notes, *outcome.notes),
    )


def check(
    reference: Model,
    candidate: Model,
    *,
    data: Any = None,
    device: Device = "auto",
    atol: float | None = None,
    rtol: float | None = None,
    set_dims: Mapping[str, int] | None = None,
    threads: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> CheckReport:
    """Say whether a model still does the job of another one.

    Without `atol` and `rtol` the tolerance of each output comes from the reference itself: how much it changes with
    the runtime's optimizations, and with rounding noise at every product.

    Args:
        reference: the model to compare with.
        candidate: the model in question.
        data: what to compare on; generated if not given.
        device: "cpu", "cuda" (never falls back) or "auto" (CUDA where it really runs).
        atol: allowed absolute difference, instead of the derived tolerance.
        rtol: allowed difference relative to the reference, instead of the derived tolerance.
        set_dims: extents of symbolic dimensions in generated feeds.
        threads: of one operator; 0 for all cores.
        seed: of everything random.
        progress: called with a few words when a phase begins.

    Raises:
        InputError: a model or the data cannot be read or is invalid, or the reference does not run.
        MachineError: `device` is "cuda", and CUDA does not run here.
    """
    say = progress or _log.info
    say("loading")
    source, other = load(reference), load(candidate)
    evidence = gather(source, data, set_dims, seed, say)
    say("comparing")
    judge = Judge(source, evidence.feeds, products(source.model), device=device, threads=threads, seed=seed)
    found = judge.source(other, atol=atol, rtol=rtol)
    return CheckReport(
        source.name,
        other.name,
        found.passed,
        VerificationReport.of(found, judge.reference, {}),
        DataReport.of(evidence),
        source.notes,
    )


def bench(
    model: Model,
    other: Model | None = None,
    *,
    data: Any = None,
    device: Device = "auto",
    set_dims: Mapping[str, int] | None = None,
    threads: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> timing.Timing:
    """Time a model, or two of them side by side on the same feed.

    Args:
        model: the model to time.
        other: another one; the answer then holds the ratio of the two.
        data: its first feed is what is run; generated if not given.
        device: "cpu", "cuda" (never falls back) or "auto" (CUDA where it really runs).
        set_dims: extents of symbolic dimensions in the generated feed.
        threads: of one operator; 0 for all cores.
        seed: of everything random.
        progress: called with a few words when a phase begins.

    Raises:
        InputError: a model or the data cannot be read or is invalid, or a model does not run.
        MachineError: `device` is "cuda", and CUDA does not run here.
    """
    say = progress or _log.info
    say("loading")
    first = load(model)
    second = first if other is None else load(other)
    feed = gather(first, data, set_dims, seed, say).feeds[0]
    say("timing")
    sessions = [Session(m.runnable, device=device, threads=threads, seed=seed) for m in (first, second)]
    return timing.bench(sessions[0], sessions[-1], feed)


def inspect(
    *models: Model, why: str | None = None, set_dims: Mapping[str, int] | None = None, seed: int = 0
) -> tuple[Inspection, ...]:
    """Say what models are made of.

    Args:
        models: what to look at.
        why: a rule (see `passes`): also say where it looked and did nothing, and why.
        set_dims: extents of symbolic dimensions, for counting work.
        seed: of the generated feed.

    Raises:
        InputError: a model cannot be read or is invalid.
        UsageError: `why` is no rule.
    """
    rules = {rule for step in passes() for rule in step.rules}
    if why is not None and why not in rules:
        raise UsageError(f"no rule is called {why!r}: give one of {', '.join(sorted(rules))}")
    return tuple(_inspect(load(m), why, set_dims, seed) for m in models)


def _inspect(source: Source, why: str | None, set_dims: Mapping[str, int] | None, seed: int) -> Inspection:
    notes = source.notes
    feed = None
    try:
        feed = gather(source, None, set_dims, seed, _log.info).feeds[0]
    except InputError as problem:
        notes = (*notes, f"its work was not counted: {problem}")
    misses = pipeline.misses(source, recipes.Recipe()) if why else ()
    return Inspection(
        source.name,
        facts(source.model, source.carried, feed),
        source.size,
        source.sha256,
        {d or "ai.onnx": v for d, v in source.model.opset_imports.items()},
        tuple(str(v) for v in source.model.graph.inputs if not is_overridable(v)),
        tuple(str(v) for v in source.model.graph.outputs),
        notes,
        tuple(m for m in misses if m.rule == why),
    )


def passes() -> tuple[PassReport, ...]:
    """All passes, with their fields and rules."""
    return tuple(
        PassReport(
            p.name,
            p.exactness.name,
            p.summary,
            {f.name: f.default for f in dataclasses.fields(p)},
            dict(p.rules),
        )
        for p in recipes.PASSES.values()
    )


def doctor() -> tuple[probe.Finding, ...]:
    """What this installation and this machine can do, and what is wrong with them."""
    return probe.probe()
