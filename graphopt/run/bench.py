"""Times two models side by side, so that whatever disturbs the machine disturbs both."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from graphopt.run.session import Feed, Session

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
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Runs both models in interleaved pairs, in alternating order, after a warm-up.

    Args:
        original: the model to compare with.
        candidate: the model whose ratio is asked for.
        feed: what both are run on.
        seconds: no pair starts later than this; at least one pair is run.
        pairs: the most pairs.
        clock: seconds, for tests.

    Raises:
        InputError: a model does not run on the feed.
    """
    start = clock()

    def timed(session: Session) -> float:
        begin = clock()
        session.run(feed)
        return clock() - begin

    for _ in range(_WARM_UP):
        timed(original)
        timed(candidate)
    samples: list[tuple[float, float]] = []
    while not samples or (len(samples) < pairs and clock() - start < seconds):
        if len(samples) % 2:
            second, first = timed(candidate), timed(original)
        else:
            first, second = timed(original), timed(candidate)
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
    )


def medians(
    cases: Sequence[tuple[Session, Feed]],
    *,
    seconds: float = 2.0,
    rounds: int = 30,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """The median milliseconds of each case, run in interleaved rounds, every other one backwards, after a warm-up.

    Args:
        cases: models, each with what it is run on.
        seconds: no round starts later than this; at least one is run.
        rounds: the most rounds.
        clock: seconds, for tests.

    Raises:
        InputError: a model does not run on its feed.
    """
    for session, feed in cases:
        session.run(feed)
    start = clock()
    taken: list[list[float]] = [[] for _ in cases]
    done = 0
    while not done or (done < rounds and clock() - start < seconds):
        order = range(len(cases)) if done % 2 else range(len(cases) - 1, -1, -1)
        for index in order:
            session, feed = cases[index]
            begin = clock()
            session.run(feed)
            taken[index].append(clock() - begin)
        done += 1
    return [1e3 * statistics.median(times) for times in taken]


def _median_interval(count: int) -> tuple[int, int]:
    """Positions of the order statistics that hold the median with 95 % probability.

    The number of samples below the median is binomial with p = 1/2; this is its normal approximation. Fewer than
    six samples cannot bound the median: their extremes are the best there is.
    """
    reach = _Z95 * math.sqrt(count) / 2
    return max(0, math.floor((count - 1) / 2 - reach)), min(count - 1, math.ceil((count - 1) / 2 + reach))
