"""How long models take, for people and programs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.run.bench import Timing
from graphopt.run.benchmark import Benchmark
from graphopt.run.environment import Environment
from graphopt.run.placement import Placement
from graphopt.run.session import Feed

__all__ = ["RunReport", "TimingReport"]


@dataclass(frozen=True)
class TimingReport(Timing):
    """Median times of one run, both models measured in turn, and their ratio with its 95 % interval."""

    rows: int | None
    """Length of the first axis of all inputs of the feed that was run, where they share one."""

    @staticmethod
    def rows_of(feed: Feed) -> int | None:
        """The length of the first axis that all inputs share, if they do."""
        lengths = {v.shape[0] if isinstance(v, np.ndarray) and v.ndim else None for v in feed.values()}
        return lengths.pop() if len(lengths) == 1 else None

    @classmethod
    def of(cls, timing: Timing, feed: Feed) -> TimingReport:
        """What was measured, and on how much."""
        return cls(**vars(timing), rows=cls.rows_of(feed))


@dataclass(frozen=True)
class RunReport(TimingReport):
    """What one model or two take on one feed."""

    environment: Environment
    placement: Placement
    """Where the nodes of the last model run."""
    memory: tuple[int, ...] = ()
    """Bytes of the device that each takes; only told on CUDA."""
    graphs: Timing | None = None
    """The same as CUDA graphs."""
    ungraphed: str = ""
    """Why not, on CUDA."""

    @classmethod
    def of_run(cls, found: Benchmark, feed: Feed) -> RunReport:
        """What was measured, and on how much."""
        timing = TimingReport.of(found.timing, feed)
        return cls(**vars(timing), **{n: v for n, v in vars(found).items() if n != "timing"})
