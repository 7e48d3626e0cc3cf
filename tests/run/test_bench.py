from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from onnx import parser

from graphopt.errors import InputError
from graphopt.run.bench import _median_interval, bench, medians
from graphopt.run.session import Session
from graphopt.run.stopwatch import Stopwatch

RELU = bytes(
    parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[n] x) => (float[n] y) { y = Relu(x) }'
    ).SerializeToString()
)
FEED = {"x": np.ones(4, np.float32)}


class Clock:
    """Time that passes only where it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Stub:
    """A session that takes as long as it is told."""

    provider = "CPUExecutionProvider"

    def __init__(self, clock: Clock, *durations: float) -> None:
        self.clock, self.durations, self.runs = clock, itertools.cycle(durations), 0

    def bound(self, _: Any) -> Stub:
        return self

    def run(self) -> None:
        self.runs += 1
        self.clock.now += next(self.durations)


def test_medians_ratio_and_interval() -> None:
    clock = Clock()
    original, candidate = Stub(clock, 0.010), Stub(clock, 0.004, 0.005, 0.006)
    timing = bench(original, candidate, FEED, seconds=100, pairs=60, watch=Stopwatch(clock))  # type: ignore[arg-type]
    assert timing.original_ms == pytest.approx(10)
    assert timing.candidate_ms == pytest.approx(5)
    assert (timing.ratio, timing.low, timing.high) == pytest.approx((0.5, 0.5, 0.5), abs=0.11)
    assert timing.low <= timing.ratio <= timing.high
    assert timing.pairs == 60
    assert timing.faster
    assert not timing.slower
    assert original.runs == candidate.runs == 63


def test_the_budget_ends_it() -> None:
    clock = Clock()
    told = list[float]()
    models = Stub(clock, 1.0), Stub(clock, 1.0)
    timing = bench(*models, FEED, seconds=16, watch=Stopwatch(clock), tell=told.append)  # type: ignore[arg-type]
    assert timing.pairs == 5, "three pairs of warm-up leave ten seconds"
    assert told == [0, 8 / 16, 10 / 16, 12 / 16, 14 / 16], "of its seconds, since these end before its pairs do"
    assert (timing.ratio, timing.faster, timing.slower) == (1, False, False)


def test_one_pair_is_run_whatever_the_budget() -> None:
    clock = Clock()
    assert bench(Stub(clock, 9.0), Stub(clock, 9.0), FEED, seconds=1, watch=Stopwatch(clock)).pairs == 1  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "positions"), [(1, (0, 0)), (5, (0, 4)), (50, (17, 32)), (200, (85, 114))])
def test_the_interval_is_that_of_the_sign_test(count: int, positions: tuple[int, int]) -> None:
    assert _median_interval(count) == positions


def test_real_sessions_run() -> None:
    timing = bench(Session(RELU), Session(RELU, optimize=False), FEED, seconds=1, pairs=5)
    assert timing.pairs >= 1
    assert timing.original_ms > 0
    assert json.loads(json.dumps(asdict(timing)))["provider"] == "CPUExecutionProvider"


def test_a_model_that_does_not_run_is_an_input_error() -> None:
    with pytest.raises(InputError, match="lacks the input 'x'"):
        bench(Session(RELU), Session(RELU), {})


def test_many_cases_are_timed_in_interleaved_rounds() -> None:
    clock = Clock()
    first, second = Stub(clock, 1.0, 1.0, 2.0, 3.0), Stub(clock, 10.0)
    cases: Any = [(first, FEED), (second, FEED)]
    assert medians(cases, seconds=1e9, rounds=3, watch=Stopwatch(clock)) == [2e3, 1e4]
    assert first.runs == second.runs == 4  # one to warm up


def test_a_round_is_timed_whatever_it_takes() -> None:
    clock = Clock()
    cases: Any = [(Stub(clock, 5.0), FEED)]
    assert medians(cases, seconds=0.1, watch=Stopwatch(clock)) == [5e3]
