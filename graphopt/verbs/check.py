"""Whether a model does the job of another one."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

from graphopt.analysis.evidence import gather, survives
from graphopt.analysis.metrics import BATCH, RIGHT, scores
from graphopt.analysis.perturb import disturbed
from graphopt.arguments import check_run, check_tolerance, named
from graphopt.blame import blamed
from graphopt.errors import UsageError
from graphopt.graph.load import load
from graphopt.report.data import (
    CheckReport,
    DataReport,
    VerificationReport,
)
from graphopt.run.child import Child
from graphopt.run.machine import Machine, Progress
from graphopt.run.session import Device
from graphopt.run.trial import guard
from graphopt.verbs.given import LOG, Model
from graphopt.verify import Judge, products

__all__ = ["check"]


def check(
    reference: Model,
    candidate: Model,
    *,
    data: Any = None,
    device: Device = "auto",
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
    the runtime's optimizations, and with rounding noise at every product.

    Args:
        reference: the model to compare with.
        candidate: the model in question.
        data: what to compare on; generated if not given.
        device: "cpu", "cuda" (never falls back) or "auto" (CUDA where it really runs).
        atol: allowed absolute difference, instead of the derived tolerance.
        rtol: allowed difference relative to the reference, instead of the derived tolerance.
        perturb: give both models disturbed samples too, to learn whether the candidate bears them less well.
        blame: where outputs differ, look for the layer where that begins, and for those that are off on their own.
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
    say = progress or LOG.info
    check_run(device=device, threads=threads, seed=seed, set_dims=set_dims)
    check_tolerance(atol, rtol)
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
    disturbances = culprits = None
    if perturb and evidence.data and not found.differences:
        say("disturbing")
        read = functools.partial(evidence.data.batches, BATCH)
        disturbances = disturbed(source.runnable, other.runnable, read, machine, rows=evidence.data.rows)
    if blame and not found:
        say("looking inside")
        culprits = blamed(source, other, evidence.feeds, judge, machine, atol=atol, rtol=rtol)
    return CheckReport(
        source.name,
        other.name,
        found.passed,
        VerificationReport.of(found, judge.reference, metrics),
        DataReport.of(evidence),
        source.notes,
        perturbed=disturbances,
        blame=culprits,
    )
