"""The verbs of graphopt in Python; the command line has the same ones.

result = graphopt.optimize("model.onnx")
print(result.report.output.nodes)
result.save("model.opt.onnx")
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir

from graphopt import lossy, pipeline
from graphopt import recipe as recipes
from graphopt.analysis.evidence import gather, survives
from graphopt.analysis.facts import facts
from graphopt.analysis.metrics import BATCH, RIGHT, scores
from graphopt.analysis.owners import largest
from graphopt.analysis.samples import MADE_UP, split
from graphopt.arguments import check_calibration, check_keys, check_opset, check_run, check_tolerance, named
from graphopt.catalogue import PASSES
from graphopt.errors import InputError, UsageError
from graphopt.graph.load import Source, load
from graphopt.graph.nodes import is_overridable
from graphopt.protocol import Miss
from graphopt.report.data import (
    BenchReport,
    CheckReport,
    DataReport,
    GroupReport,
    Inspection,
    PassReport,
    PortReport,
    TimingReport,
    VerificationReport,
)
from graphopt.report.summary import summary
from graphopt.result import Result
from graphopt.run import bench as timing
from graphopt.run import probe
from graphopt.run.child import Child
from graphopt.run.machine import Machine, Progress
from graphopt.run.session import Device
from graphopt.run.trial import guard
from graphopt.verify import Judge, products

__all__ = ["Result", "bench", "check", "doctor", "inspect", "optimize", "passes"]

_log = logging.getLogger("graphopt")

Model = str | os.PathLike[str] | onnx.ModelProto | ir.Model | Any
"""A path, an `onnx.ModelProto`, an `onnx_ir.Model`, or torch's `ONNXProgram`."""


def optimize(
    model: Model,
    *,
    data: Any = None,
    device: Device = "auto",
    passes: str | Sequence[str] | None = None,
    skip: str | Sequence[str] | None = None,
    recipe: str | os.PathLike[str] | recipes.Recipe | None = None,
    freeze: bool = False,
    target: str = "portable",
    opset: int | None = None,
    fast_math: bool = False,
    keep_metadata: bool = False,
    budget: Mapping[str, float] | Sequence[str] | None = None,
    max_drop: Mapping[str, float] | Sequence[str] | None = None,
    int8: bool = False,
    weight_bits: int | None = None,
    fp16: bool = False,
    bf16: bool = False,
    calibration: str | os.PathLike[str] | None = None,
    plan_only: bool = False,
    measure: bool = False,
    unverified: bool = False,
    set_dims: Mapping[str, int] | None = None,
    external_root: str | os.PathLike[str] | None = None,
    threads: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Make a model smaller and faster without changing what it computes, and verify that.

    With a budget or an allowed drop channels are cut, with `sparsify` weights are, and what is left is refit.

    Args:
        model: a path, an `onnx.ModelProto`, an `onnx_ir.Model` or torch's `ONNXProgram`. It is not changed.
        data: what to verify on: a path, `module:function`, feeds, … (see the README); generated if not given.
        device: "cpu", "cuda" (never falls back) or "auto" (CUDA where it really runs).
        passes: names or `name{field=value}`, in their order; by default the lossless ones, and with [] none.
        skip: keys of nodes to leave as they are, and under a budget, of groups of channels to keep whole.
        recipe: a recipe or its file, instead of all that says what to do.
        freeze: make constants of initializers that a feed could override.
        target: the runtime to make the model for: one of `graphopt.targets.TARGETS`.
        opset: of standard ONNX, to be raised to so that newer operators can be used; by default it stays.
        fast_math: allow float algebra that does not hold for not-a-number, infinities and −0.
        keep_metadata: keep what exporters noted at each node.
        budget: shares of the model as given that may remain: of "macs", "params", "bytes" or "latency".
        max_drop: how much worse the result may do: by "accuracy", "agreement", …; without a budget, the smallest model
            within it is looked for.
        int8: compute on 8-bit integers where that pays on the target; ranges are learned from the data.
        weight_bits: of a weight of such a model: 8, 4 or 3.
        fp16: compute in float16 wherever that does no harm; what does is learned from the data.
        bf16: the same in bfloat16.
        calibration: a file that keeps what was seen of its values: it is read, or written where it is not there yet.
        plan_only: only say what would be cut; the result is what there is before.
        measure: let the clock decide on passes that could make a model slower; the result's recipe does without those
            that did not make this one faster.
        unverified: check the structure only, and run nothing.
        set_dims: extents of symbolic dimensions in generated feeds.
        external_root: a folder in which weights may be, also behind links, instead of the model's folder.
        threads: of one operator; 0 for all cores.
        seed: of everything random.
        progress: called with a few words when a phase begins.

    Raises:
        InputError: the model or the data cannot be read or is invalid, or the model does not run.
        NeedsData: no generated feed runs on the model.
        UsageError: the arguments contradict each other.
        MachineError: `device` is "cuda", and CUDA does not run here.
        Verdict: the budget cannot be met, or not within the allowed drop.
    """
    say = progress or _log.info
    check_run(device=device, threads=threads, seed=seed, set_dims=set_dims)
    if unverified and (data is not None or set_dims or device == "cuda"):
        raise UsageError("unverified runs nothing: leave out data, dimensions and device")
    if measure and (unverified or recipe is not None):
        raise UsageError("measuring decides what to do, by running it: give neither a recipe nor unverified with it")
    chosen = recipes.choose(
        recipe,
        passes=passes,
        skip=skip,
        freeze=freeze,
        target=target,
        opset=opset,
        fast_math=fast_math,
        keep_metadata=keep_metadata,
        budget=budget,
        max_drop=max_drop,
        int8=int8,
        weight_bits=weight_bits,
        fp16=fp16,
        bf16=bf16,
    )
    if unverified and chosen.lossy:
        raise UsageError("what is given up is measured: leave out unverified")
    if plan_only and not chosen.cuts:
        raise UsageError("plan_only needs something to plan for: give a budget or an allowed drop")
    kept = check_calibration(calibration, used=chosen.quantize is not None)
    say("loading")
    with Child() as child:
        source = load(model, freeze=chosen.freeze, external_root=external_root, guard=guard(child))
        check_opset(source, opset)
        check_keys(source, () if chosen.lossy else chosen.skip)  # of a lossy recipe once groups are known
        settings = pipeline.Settings(device, threads, seed, progress=say, measure=measure, calibration=kept)
        if chosen.lossy and data is None:
            data = MADE_UP
        evidence = None if unverified else gather(source, data, set_dims, seed, say, child)
        found = None
        if chosen.lossy and evidence and evidence.data:
            found = lossy.compress(
                source, chosen, split(evidence.data), evidence.feeds, settings, child, plan_only=plan_only
            )
            outcome = found.outcome
        else:
            outcome = pipeline.optimize(source, chosen, evidence.feeds if evidence else None, settings, child)
    say("measuring")
    return Result(summary(outcome, evidence, settings, found), outcome, outcome.recipe)


def check(
    reference: Model,
    candidate: Model,
    *,
    data: Any = None,
    device: Device = "auto",
    atol: float | None = None,
    rtol: float | None = None,
    set_dims: Mapping[str, int] | None = None,
    external_root: str | os.PathLike[str] | None = None,
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
        external_root: a folder in which weights may be, also behind links, instead of the model's folder.
        threads: of one operator; 0 for all cores.
        seed: of everything random.
        progress: called with a few words when a phase begins.

    Raises:
        InputError: a model or the data cannot be read or is invalid, or the reference does not run.
        UsageError: a number is negative, or the arguments contradict each other.
        MachineError: `device` is "cuda", and CUDA does not run here.
    """
    say = progress or _log.info
    check_run(device=device, threads=threads, seed=seed, set_dims=set_dims)
    check_tolerance(atol, rtol)
    say("loading")
    with Child() as child:
        with named(reference, "the reference"):
            source = load(reference, external_root=external_root, guard=guard(child))
        with named(candidate, "the candidate"):
            other = load(candidate, external_root=external_root, guard=guard(child))
        with named(reference, "the reference"):
            evidence = gather(source, data, set_dims, seed, say, child)
        with named(candidate, "the candidate"):
            survives(other.runnable, evidence.feeds, child)
    machine = Machine(device, threads, seed)
    with named(reference, "the reference"):
        say("comparing")
        judge = Judge(source, evidence.feeds, products(source.model), machine)
    found = judge.source(other, atol=atol, rtol=rtol)
    metrics = {}
    if evidence.data and not found.differences:
        say("scoring")
        scored = scores(source.runnable, other.runnable, evidence.data.batches(BATCH), machine)
        metrics = {name: scored[name] for name in RIGHT if name in scored}
    return CheckReport(
        source.name,
        other.name,
        found.passed,
        VerificationReport.of(found, judge.reference, metrics),
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
    external_root: str | os.PathLike[str] | None = None,
    threads: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> BenchReport:
    """Time a model, or two of them side by side on the same feed.

    Args:
        model: the model to time.
        other: another one; the answer then holds the ratio of the two.
        data: its first feed is what is run; generated if not given.
        device: "cpu", "cuda" (never falls back) or "auto" (CUDA where it really runs).
        set_dims: extents of symbolic dimensions in the generated feed.
        external_root: a folder in which weights may be, also behind links, instead of the model's folder.
        threads: of one operator; 0 for all cores.
        seed: of everything random.
        progress: called with a few words when a phase begins.

    Raises:
        InputError: a model or the data cannot be read or is invalid, or a model does not run.
        UsageError: a number is negative, or the arguments contradict each other.
        MachineError: `device` is "cuda", and CUDA does not run here.
    """
    say = progress or _log.info
    check_run(device=device, threads=threads, seed=seed, set_dims=set_dims)
    say("loading")
    given = [(model, "the first model")] + ([] if other is None else [(other, "the other model")])
    sources, sessions = [], []
    with Child() as child:
        for one, role in given:
            with named(one, role):
                sources.append(load(one, external_root=external_root, guard=guard(child)))
        with named(*given[0]):
            feed = gather(sources[0], data, set_dims, seed, say, child).feeds[0]
        if other is not None:
            with named(*given[-1]):
                survives(sources[-1].runnable, [feed], child)
    say("timing")
    machine = Machine(device, threads, seed)
    for source, (one, role) in zip(sources, given, strict=True):
        with named(one, role):
            session = machine.session(source.runnable)
            session.run(feed)
        sessions.append(session)
    found = timing.bench(sessions[0], sessions[-1], feed)
    second = None if other is None else sources[-1].name
    return BenchReport(**vars(found), rows=TimingReport.rows_of(feed), model=sources[0].name, other=second)


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
        progress: called with a few words when a phase begins.

    Raises:
        InputError: a model cannot be read or is invalid.
        UsageError: `why` is no rule, or a number is negative.
    """
    check_run(seed=seed, set_dims=set_dims)
    rules = {rule for step in passes() for rule in step.rules}
    if why is not None and why not in rules:
        raise UsageError(f"no rule is called {why!r}: give one of {', '.join(sorted(rules))}")
    say, found = progress or _log.info, []
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


def passes() -> tuple[PassReport, ...]:
    """All passes, with their fields and rules, where they pay, and what was measured of them."""
    return tuple(
        PassReport(
            p.name,
            p.exactness.name,
            p.summary,
            {f.name: f.default for f in dataclasses.fields(p)},
            dict(p.rules),
            p.pays,
            p.evidence(),
        )
        for p in PASSES.values()
    )


def doctor() -> tuple[probe.Finding, ...]:
    """What this installation and this machine can do, and what is wrong with them."""
    return probe.probe()
