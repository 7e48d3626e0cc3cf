from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

from graphopt.errors import InputError
from graphopt.run import benchmark as module
from graphopt.run.bench import Timing, bench
from graphopt.run.benchmark import benchmark
from graphopt.run.machine import Machine
from tests.run.test_stopwatch import FakeRuntime
from tests.support.faking import FakeCuda
from tests.support.models import parse

RELU = parse("g (float[n] x) => (float[n] y) { y = Relu(x) }").SerializeToString()
FEED = {"x": np.ones(4, np.float32)}


def on_cuda(monkeypatch: pytest.MonkeyPatch, runtime: FakeRuntime | None, *used: int | None) -> None:
    marks = iter(used)
    monkeypatch.setattr(module, "cudart", lambda: runtime)
    monkeypatch.setattr(module, "used_memory", lambda device: next(marks) if device == 0 else None)


def test_on_the_cpu_there_is_time_and_nothing_else() -> None:
    found = benchmark([RELU, RELU], FEED, Machine(threads=1), seconds=0.1)
    assert (found.timing.provider, found.timing.clock) == ("CPUExecutionProvider", "host clock")
    assert (found.memory, found.graphs, found.ungraphed) == ((), None, "")


def test_on_cuda_time_is_the_devices_and_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cuda(monkeypatch, FakeRuntime(), 1000, 1500, 1700)
    found = benchmark([RELU, RELU], FEED, FakeCuda(device="auto", threads=1), seconds=0.1)
    assert found.memory == (500, 200)
    assert found.timing.clock == "CUDA events"
    assert found.timing.provider == "CUDAExecutionProvider"
    assert found.environment.tf32, "as the provider is on its own: without it, half precision leaves the tensor cores"
    assert found.graphs is not None
    assert found.graphs.clock == "CUDA events"
    assert found.ungraphed == ""


def test_what_cannot_be_captured_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cuda(monkeypatch, FakeRuntime(), 0, 1)
    machine = FakeCuda(device="cuda", threads=1, uncaptured="it has an If")
    found = benchmark([RELU], FEED, machine, seconds=0.1)
    assert (found.memory, found.graphs) == ((1,), None)
    assert "it has an If" in found.ungraphed


@pytest.mark.parametrize("failing", [False, True])
def test_sessions_end_before_the_stream_that_they_use(monkeypatch: pytest.MonkeyPatch, *, failing: bool) -> None:
    alive, left, make = weakref.WeakSet[Any](), list[int](), FakeCuda.session

    def session(self: FakeCuda, *given: Any, **named: Any) -> Any:
        alive.add(made := make(self, *given, **named))
        return made

    def timed(*given: Any, **named: Any) -> Timing:
        if failing and "enable_cuda_graph" in given[0].options:
            raise InputError("the stream is capturing")
        return bench(*given, **named)

    class Runtime(FakeRuntime):
        def _cudaStreamDestroy(self, _: Any) -> None:  # noqa: N802
            left.append(len(alive))

    monkeypatch.setattr(FakeCuda, "session", session)
    monkeypatch.setattr(module, "bench", timed)
    on_cuda(monkeypatch, Runtime(), 0, 1)
    found = benchmark([RELU], FEED, FakeCuda(device="cuda", threads=1), seconds=0.1)
    assert (found.graphs is None, left) == (failing, [0])


@pytest.mark.parametrize("runtime", [None, FakeRuntime("cudaStreamCreateWithFlags")])
def test_without_the_devices_clock_the_host_tells_the_time(
    runtime: FakeRuntime | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cuda(monkeypatch, runtime, None, None)
    found = benchmark([RELU], FEED, FakeCuda(device="cuda", threads=1), seconds=0.1)
    assert found.timing.clock == "host clock"
    assert found.memory == (), "the driver does not tell"
