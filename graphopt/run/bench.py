"""Times two models side by side, so that whatever disturbs the machine disturbs both.

What is fed and what comes out stays where a model runs, so that copies are no part of what is timed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np

from graphopt.run.session import Feed, Session
from graphopt.run.stopwatch import HOST, Stopwatch

__all__ = ["Timing", "bench", "medians"]

_Z95: Final = 1.959964
_WARM_UP: Final = 3


@dataclass(frozen=True)
class Timing:
    """Medians in milliseconds per run, and the median of candidate / original with its 95 % interval.

    A ratio below 1 means that the candidate is faster; the difference is real if the interval leaves out 1.
    """

    original_ms: float
    candidate_ms: float
    ratio: float
    low: float
    high: float
    pairs: int
    provider: str
    clock: str = field(default=HOST.name, kw_only=True)
    """What tells the time: the host's clock, or events on the device."""

    @property
    def faster(self) -> bool:
        """Whether the candidate is faster beyond doubt."""
        return self.high < 1

    @property
    def slower(self) -> bool:
        """Whether the candidate is slower beyond doubt."""
        return self.low > 1


def bench(
    original: Session,
    candidate: Session,
    feed: Feed,
    *,
    seconds: float = 10.0,
    pairs: int = 200,
    watch: Stopwatch = HOST,
    tell: Callable[[float], None] = lambda _: None,
) -> Timing:
    """Runs both models in interleaved pairs, in alternating order, after a warm-up.

    Args:
        original: the model to compare with.
        candidate: the model whose ratio is asked for.
        feed: what both are run on.
        seconds: no pair starts later than this; at least one pair is run.
        pairs: the most pairs.
        watch: what times a run.
        tell: told before each pair what share of all is done.

    Raises:
        InputError: a model does not run on the feed.
    """
    start = watch.now()
    one = _runs(original, feed)
    other = one if candidate is original else _runs(candidate, feed)
    for _ in range(_WARM_UP):
        watch(one)
        watch(other)
    samples: list[tuple[float, float]] = []
    while not samples or (len(samples) < pairs and watch.now() - start < seconds):
        tell(max(len(samples) / pairs, (watch.now() - start) / seconds) if samples else 0.0)
        if len(samples) % 2:
            second, first = watch(other), watch(one)
        else:
            first, second = watch(one), watch(other)
        samples.append((first, second))
    ratios = sorted(b / a if a else math.inf for a, b in samples)
    low, high = _median_interval(len(ratios))
    return Timing(
        original_ms=1e3 * statistics.median(a for a, _ in samples),
        candidate_ms=1e3 * statistics.median(b for _, b in samples),
        ratio=statistics.median(ratios),
        low=ratios[low],
        high=ratios[high],
        pairs=len(samples),
        provider=candidate.provider,
        clock=watch.name,
    )


def medians(
    cases: Sequence[tuple[Session, Feed]],
    *,
    seconds: float = 2.0,
    rounds: int = 30,
    watch: Stopwatch = HOST,
) -> list[float]:
    """The median milliseconds of each case, run in interleaved rounds, every other one backwards, after a warm-up.

    Args:
        cases: models, each with what it is run on.
        seconds: no round starts later than this; at least one is run.
        rounds: the most rounds.
        watch: what times a run.

    Raises:
        InputError: a model does not run on its feed.
    """
    runs = [_runs(session, feed) for session, feed in cases]
    for run in runs:
        run()
    start = watch.now()
    taken: list[list[float]] = [[] for _ in cases]
    done = 0
    while not done or (done < rounds and watch.now() - start < seconds):
        order = range(len(cases)) if done % 2 else range(len(cases) - 1, -1, -1)
        for index in order:
            taken[index].append(watch(runs[index]))
        done += 1
    return [1e3 * statistics.median(times) for times in taken]


def _runs(session: Session, feed: Feed) -> Callable[[], object]:
    """A run on a feed, which stays where the session runs where it is made of tensors of numbers alone."""
    numbers = all(isinstance(v, np.ndarray | np.generic) and v.dtype.kind not in "OSU" for v in feed.values())
    return session.bound(feed).run if numbers else partial(session.run, feed)


def _median_interval(count: int) -> tuple[int, int]:
    """Positions of the order statistics that hold the median with 95 % probability.

    The number of samples below the median is binomial with p = 1/2; this is its normal approximation. Fewer than
    six samples cannot bound the median: their extremes are the best there is.
    """
    reach = _Z95 * math.sqrt(count) / 2
    return max(0, math.floor((count - 1) / 2 - reach)), min(count - 1, math.ceil((count - 1) / 2 + reach))
