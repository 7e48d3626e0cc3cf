"""How long models take."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from graphopt.analysis.evidence import gather, survives
from graphopt.arguments import check_run, named
from graphopt.graph.load import load
from graphopt.report.data import (
    BenchReport,
    TimingReport,
)
from graphopt.run import bench as timing
from graphopt.run.child import Child
from graphopt.run.machine import Machine, Progress
from graphopt.run.session import Device
from graphopt.run.trial import guard
from graphopt.verbs.given import LOG, Model

__all__ = ["bench"]


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
    say = progress or LOG.info
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
