"""What the workshop tells planning of time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphopt import workshop
from graphopt.analysis.groups import Channels
from graphopt.analysis.samples import Split
from graphopt.graph.carry import Carried
from graphopt.graph.save import runnable
from graphopt.plan.plan import Plan
from graphopt.run.bench import Timing
from tests.support.integers import filled

NET = filled("g (float[N,4] x) => (float[N,2] y) <float[4,2] w> { y = MatMul(x, w) }")


def timing(low: float, high: float) -> Timing:
    return Timing(1.0, high, (low + high) / 2, low, high, 50, "CPUExecutionProvider")


@pytest.mark.parametrize(
    ("seen", "told", "runs"),
    [
        ([(0.68, 0.72)], 0.72, 1),
        ([(0.3, 0.9), (0.65, 0.7)], 0.7, 2),
        ([(0.3, 0.9), (0.4, 0.8), (0.2, 0.9)], 0.8, 3),
    ],
)
def test_an_interval_that_others_made_wide_is_measured_again(
    seen: list[tuple[float, float]], told: float, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [timing(*each) for each in seen]

    def bench(*_: Any, **__: Any) -> Timing:
        return left.pop(0)

    monkeypatch.setattr(workshop, "bench", bench)
    feed = {"x": np.zeros((1, 4), np.float32)}
    split = Split(feed, (feed,), (None,), 1, 1)
    found = workshop.Workshop(NET, Channels({}, {}, {}, {}), split, runnable(NET, Carried()), timed=feed)
    assert found.time(Plan({})) == told
    assert len(seen) - len(left) == runs
