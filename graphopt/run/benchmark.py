"""What one or two models take on one feed: time, with and without CUDA graphs, and memory of the device.

On CUDA they run as they are deployed, with the options that the provider has on its own: TF32, convolutions by cuDNN's
thorough heuristics (`cudnn_conv_algo_search`), channels first (`prefer_nhwc`). Whoever wants floats that are exact sets
NVIDIA_TF32_OVERRIDE=0, which CUDA's libraries obey.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Final

from graphopt.errors import InputError, MachineError
from graphopt.graph.external import Runnable
from graphopt.run.bench import Timing, bench
from graphopt.run.environment import Environment, environment
from graphopt.run.gpu import cudart, used_memory
from graphopt.run.machine import Machine
from graphopt.run.placement import Placement
from graphopt.run.runtime import CUDA
from graphopt.run.session import Feed, Session
from graphopt.run.stopwatch import HOST, EventClock, Stopwatch

__all__ = ["Benchmark", "benchmark"]

_CAPTURED: Final = {"enable_cuda_graph": "1"}


@dataclass(frozen=True)
class Benchmark:
    """What was measured. One model alone is timed against itself."""

    timing: Timing
    environment: Environment
    placement: Placement
    """Where the nodes of the last model run."""
    memory: tuple[int, ...] = ()
    """Bytes of the device that each model takes: weights, values and what its runtime keeps, which gets room for values
    in powers of two, as long as nobody asks it otherwise. Only told on CUDA, where all that begins or ends meanwhile on
    the same GPU counts as well."""
    graphs: Timing | None = None
    """The same with all kernels of a run started at once, as a CUDA graph. Shapes must not change for that."""
    ungraphed: str = ""
    """Why there is none, on CUDA."""


def benchmark(
    models: Sequence[Runnable], feed: Feed, machine: Machine, *, seconds: float = 10.0, text: str = "timing"
) -> Benchmark:
    """Time one model or two, in turn.

    Args:
        models: one, or two.
        feed: what all are run on.
        machine: where to run.
        seconds: that timing may take, and again with CUDA graphs.
        text: what progress calls that.

    Raises:
        InputError: a model does not run on the feed.
        MachineError: the device is missing.
    """
    first, timed = machine.timed(models[0]), partial(bench, seconds=seconds, tell=machine.share(text))
    if first.provider != CUDA:
        last = machine.timed(models[-1]) if len(models) > 1 else first
        return Benchmark(timed(first, last, feed), environment(first), last.placement)
    device = int(first.options.get("device_id", 0))
    del first
    machine = replace(machine, device="cuda")
    watch, options = _clock()
    timed = partial(timed, watch=watch)
    found = _plain(models, feed, machine, options, device, timed)
    try:
        return replace(found, graphs=_captured(models, feed, machine, options, timed))
    except InputError as problem:
        return replace(found, ungraphed=str(problem))


def _clock() -> tuple[Stopwatch, Mapping[str, str]]:
    """The clock of the device where it can be had, and what a session has to be told for it."""
    runtime = cudart()
    try:
        watch = None if runtime is None else EventClock(runtime)
    except MachineError:
        watch = None
    return (HOST, {}) if watch is None else (watch, {"user_compute_stream": str(watch.stream)})


def _plain(
    models: Sequence[Runnable],
    feed: Feed,
    machine: Machine,
    options: Mapping[str, str],
    device: int,
    timed: Callable[[Session, Session, Feed], Timing],
) -> Benchmark:
    """All but the CUDA graphs. The sessions end here, before the clock whose stream they use."""
    for model in models:  # kernels that CUDA loads but once, of each type on their own, are no model's own
        machine.timed(model, options).run(feed)
    sessions, marks = list[Session](), [used_memory(device)]
    for model in models:
        sessions.append(machine.timed(model, options))
        sessions[-1].run(feed)
        marks.append(used_memory(device))
    known = [m for m in marks if m is not None]
    memory = tuple(max(0, b - a) for a, b in pairwise(known)) if len(known) == len(marks) else ()
    timing = timed(sessions[0], sessions[-1], feed)
    return Benchmark(timing, environment(sessions[0]), sessions[-1].placement, memory)


def _captured(
    models: Sequence[Runnable],
    feed: Feed,
    machine: Machine,
    options: Mapping[str, str],
    timed: Callable[[Session, Session, Feed], Timing],
) -> Timing:
    """The time with CUDA graphs.

    Raises:
        InputError: there are none. Nodes on the CPU that values are copied to and control flow are refused as the
            session begins; a kernel that waits for the device, or copies to the host, fails in the first run.
    """
    sessions = [machine.timed(m, {**options, **_CAPTURED}) for m in models]
    return timed(sessions[0], sessions[-1], feed)
