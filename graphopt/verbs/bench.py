"""How long models take."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphopt.analysis.evidence import gather, survives
from graphopt.arguments import check_batch, check_run, named
from graphopt.counted import counted
from graphopt.errors import UsageError
from graphopt.graph.load import load
from graphopt.report.data import BenchReport
from graphopt.report.timing import RunReport, TimingReport
from graphopt.run import trial
from graphopt.run.benchmark import benchmark
from graphopt.run.child import Child
from graphopt.run.data import rows_are_samples
from graphopt.run.machine import Machine, Progress, news
from graphopt.run.session import Device, Feed, Port
from graphopt.run.trial import guard
from graphopt.verbs.given import LOG, Model

__all__ = ["bench"]

_LARGEST = 1 << 31
"""Bytes that a feed may take; what is computed from it takes more."""


def bench(
    model: Model,
    other: Model | None = None,
    *,
    data: Any = None,
    device: Device = "auto",
    batch: int | Sequence[int] | None = None,
    set_dims: Mapping[str, int] | None = None,
    external_root: str | os.PathLike[str] | None = None,
    threads: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> BenchReport:
    """Time a model, or two of them side by side on the same feed.

    On CUDA what is fed and what comes out stays on the device, and CUDA's events tell the time; there, memory
    is measured as well, and the time with all kernels of a run started at once, as a CUDA graph.

    Args:
        model: the model to time.
        other: another one; the answer then holds the ratio of the two.
        data: its first feed is what is run; generated if not given.
        device: "cpu", "cuda" (never falls back) or "auto" (CUDA where it really runs).
        batch: rows of the feed along the axis that all inputs share first, or several numbers of them, one after the
            other; samples are repeated to get there.
        set_dims: extents of symbolic dimensions in the generated feed.
        external_root: a folder in which weights may be, also behind links, instead of the model's folder.
        threads: of one operator; 0 for all cores.
        seed: of everything random.
        progress: called with a few words when a phase begins, and again with each part of one whose parts are counted:
            the words then have the numbers `done` and `total`.

    Raises:
        InputError: a model or the data cannot be read or is invalid, or a model does not run.
        UsageError: a number is negative, or the arguments contradict each other.
        MachineError: `device` is "cuda", and CUDA does not run here.
    """
    say = progress or news(LOG.info)
    check_run(device=device, threads=threads, seed=seed, set_dims=set_dims)
    sizes = check_batch(batch)
    say("loading")
    given = [(model, "the first model")] + ([] if other is None else [(other, "the other model")])
    sources = []
    with Child() as child:
        for one, role in given:
            with named(one, role):
                sources.append(load(one, external_root=external_root, guard=guard(child)))
        with named(*given[0]):
            feed = gather(sources[0], data, set_dims, seed, say, child).feeds[0]
            feeds = [_of_rows(feed, trial.inputs(child, sources[0].runnable)[0], n) for n in sizes] or [feed]
        for source, (one, role) in zip(sources, given, strict=True):
            with named(one, role):
                survives(source.runnable, feeds, child)
    machine, models = Machine(device, threads, seed, progress=say), [s.runnable for s in sources]
    for runnable, (one, role) in zip(models, given, strict=True):
        with named(one, role):
            machine.session(runnable).run(feeds[0])
    runs = []
    for feed in feeds:
        text = "timing" + (f" {counted(n, 'row')}" if (n := TimingReport.rows_of(feed)) else "")
        runs.append(RunReport.of_run(benchmark(models, feed, machine, text=text), feed))
    second = None if other is None else sources[-1].name
    sweep = tuple(runs) if len(runs) > 1 else ()
    return BenchReport(**vars(runs[0]), model=sources[0].name, other=second, sweep=sweep)


def _of_rows(feed: Feed, inputs: Sequence[Port], count: int) -> Feed:
    """A feed of so many rows, made of another one's."""
    if not rows_are_samples(inputs):
        raise UsageError("its inputs share no first axis of any length: leave out batch, and set dimensions instead")
    size = sum(np.asarray(value[:1]).nbytes for value in feed.values()) * count
    if size > _LARGEST:
        raise UsageError(
            f"{counted(count, 'row')} of the feed would take {counted(size, 'byte')}: give a smaller batch"
        )
    return {name: value[np.arange(count) % len(value)] for name, value in feed.items()}
