"""Whether a model does the job of another one."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphopt.analysis.evidence import gather, survives
from graphopt.analysis.metrics import BATCH, RIGHT
from graphopt.analysis.perturb import disturbed
from graphopt.arguments import check_run, check_tolerance, named
from graphopt.blame import blamed
from graphopt.errors import UsageError
from graphopt.gate.measured import Measured, Side
from graphopt.gate.metric import Outputs, metric_of
from graphopt.gate.policy import Policy
from graphopt.graph.collector import released
from graphopt.graph.load import load
from graphopt.report.data import (
    CheckReport,
    DataReport,
    VerificationReport,
)
from graphopt.run.child import Child
from graphopt.run.machine import Machine, Progress, news
from graphopt.run.session import Device
from graphopt.run.trial import guard
from graphopt.verbs.given import LOG, Model
from graphopt.verify import Judge, prepared, products

__all__ = ["check"]


def check(
    reference: Model,
    candidate: Model,
    *,
    data: Any = None,
    device: Device = "auto",
    policy: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    max_drop: Mapping[str, float] | Sequence[str] | None = None,
    metric: str | Callable[[Outputs], float] | None = None,
    max_latency: float | None = None,
    max_bytes: float | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    perturb: bool = False,
    blame: bool = False,
    set_dims: Mapping[str, int] | None = None,
    external_root: str | os.PathLike[str] | None = None,
    threads: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> CheckReport:
    """Say whether a model still does the job of another one.

    Without `atol` and `rtol` the tolerance of each output comes from the reference itself: how much it changes with
    the runtime's optimizations, and with rounding noise at every product. Limits on how well the candidate does take
    the place of that: a model that was compressed is another function, and need not give the same values.

    Args:
        reference: the model to compare with.
        candidate: the model in question.
        data: what to compare on; generated if not given.
        device: "cpu", "cuda" (never falls back) or "auto" (CUDA where it really runs).
        policy: a TOML file with limits, or the limits themselves by their keys; see `graphopt.gate.rules`.
        max_drop: how far metrics may fall: "accuracy", "agreement", …; of "sqnr", its least value.
        metric: a function of your own, or `module:function` or `file.py:function`. It is called once for each model,
            with pairs of what the model gives for a few samples (by the names of outputs) and their labels, and gives a
            number of which more is better; `max_drop` knows it by its name.
        max_latency: most of the reference's time that the candidate may take, beyond doubt.
        max_bytes: most of the reference's bytes.
        atol: allowed absolute difference, instead of the derived tolerance.
        rtol: allowed difference relative to the reference, instead of the derived tolerance.
        perturb: give both models disturbed samples too, to learn whether the candidate bears them less well.
        blame: where outputs differ, look for the layer where that begins, and for those that are off on their own.
        set_dims: extents of symbolic dimensions in generated feeds.
        external_root: a folder in which weights may be, also behind links, instead of the model's folder.
        threads: of one operator; 0 for all cores.
        seed: of everything random.
        progress: called with a few words when a phase begins, and again with each part of one whose parts are counted:
            the words then have the numbers `done` and `total`.

    Raises:
        InputError: a model, the data or the policy cannot be read or is invalid, or the reference does not run.
        UsageError: a number is negative, a limit is unknown, no limit is on `metric`, or the arguments contradict each
            other.
        MachineError: `device` is "cuda", and CUDA does not run here.
    """
    say = progress or news(LOG.info)
    check_run(device=device, threads=threads, seed=seed, set_dims=set_dims)
    check_tolerance(atol, rtol)
    own = metric_of(metric)
    options = {"max-drop": max_drop, "max-latency": max_latency, "max-bytes": max_bytes, "atol": atol, "rtol": rtol}
    gate = Policy.of(policy, options, [own.name] if own else [])
    if own and own.name not in {line.name for line in gate.lines}:
        raise UsageError(f"no line asks for the metric {own.name!r}: give max_drop for it, or leave it out")
    if perturb and data is None:
        raise UsageError("perturb disturbs samples that are real: give data")
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
    machine = Machine(device, threads, seed, progress=say)
    feed = evidence.feeds[0] if gate.counts_macs else None
    first, second, notes = Side.of(source, feed), Side.of(other, feed), source.notes
    candidate_runs, inside = prepared(other), (source, other) if blame else None
    del other  # a graph with its weights takes as much memory as the file
    released(second.size)
    with named(reference, "the reference"):
        say("comparing")
        judge = Judge(source, evidence.feeds, products(source.model) if gate.equal else {}, machine)
    found, original = judge.other(candidate_runs, atol=gate.atol, rtol=gate.rtol), judge.reference
    culprits = None
    if inside and not found:
        say("looking inside")
        culprits = blamed(*inside, evidence.feeds, judge, machine, atol=gate.atol, rtol=gate.rtol)
    del source, judge, inside
    released(first.size)
    measured = Measured(first, second, evidence, machine, found, own)
    rows = gate.judge(measured)
    metrics = {}
    if evidence.data and not found.differences:
        told = measured.scores.metrics
        metrics = {name: told[name] for name in RIGHT if name in told}
    disturbances = None
    if perturb and evidence.data and not found.differences:
        say("disturbing")
        read = functools.partial(evidence.data.batches, BATCH)
        disturbances = disturbed(first.runnable, second.runnable, read, machine, rows=evidence.data.rows)
    return CheckReport(
        first.name,
        second.name,
        all(rows),
        rows,
        VerificationReport.of(found, original, metrics),
        DataReport.of(evidence),
        notes,
        measured.distances_found,
        equal=gate.equal,
        perturbed=disturbances,
        blame=culprits,
    )
