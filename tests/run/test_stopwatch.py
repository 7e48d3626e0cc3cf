from __future__ import annotations

import ctypes
import gc
from typing import Any

import pytest

from graphopt.errors import MachineError
from graphopt.run.stopwatch import EventClock, Stopwatch


class FakeRuntime:
    """A libcudart on which a recorded event holds the number of milliseconds that were run before it."""

    def __init__(self, failing: str = "") -> None:
        self.calls: list[str] = []
        self.failing, self.worked, self.events, self.made = failing, 0.0, dict[int, float](), 0

    def __getattr__(self, name: str) -> Any:
        def function(*arguments: Any) -> int:
            self.calls.append(name)
            if name == self.failing:
                return 999
            act = getattr(type(self), f"_{name}", None)
            return int((act and act(self, *arguments)) or 0)

        return function

    def _new(self, target: Any) -> None:
        self.made += 1
        ctypes.cast(target, ctypes.POINTER(ctypes.c_void_p))[0] = 0x1000 * self.made

    def _cudaStreamCreateWithFlags(self, target: Any, flags: ctypes.c_uint) -> None:  # noqa: N802
        assert flags.value == 1, "it does not wait for the default stream"
        self._new(target)

    def _cudaEventCreate(self, target: Any) -> None:  # noqa: N802
        self._new(target)

    def _cudaEventRecord(self, event: ctypes.c_void_p, stream: ctypes.c_void_p) -> None:  # noqa: N802
        assert stream.value == 0x1000
        self.events[event.value or 0] = self.worked

    def _cudaEventElapsedTime(self, target: Any, start: Any, stop: Any) -> None:  # noqa: N802
        found = self.events[stop.value] - self.events[start.value]
        ctypes.cast(target, ctypes.POINTER(ctypes.c_float))[0] = found


def test_the_host_times_by_its_clock() -> None:
    ticks = iter([1.0, 3.5])
    watch = Stopwatch(lambda: next(ticks))
    assert watch(lambda: None) == 2.5


def test_events_time_what_the_device_does() -> None:
    runtime = FakeRuntime()
    watch = EventClock(runtime)
    assert watch.stream == 0x1000

    def run() -> None:
        runtime.worked += 7.5

    assert [watch(run), watch(run)] == [0.0075, 0.0075]
    assert watch.name == "CUDA events"
    recorded = [c for c in runtime.calls if c.startswith("cudaEvent") and c != "cudaEventCreate"][:4]
    assert recorded == ["cudaEventRecord", "cudaEventRecord", "cudaEventSynchronize", "cudaEventElapsedTime"]
    del watch
    gc.collect()
    assert runtime.calls[-3:] == ["cudaEventDestroy", "cudaEventDestroy", "cudaStreamDestroy"]


@pytest.mark.parametrize("failing", ["cudaStreamCreateWithFlags", "cudaEventCreate"])
def test_a_library_that_refuses_is_named_with_its_error(failing: str) -> None:
    with pytest.raises(MachineError, match=f"{failing} answers with error 999"):
        EventClock(FakeRuntime(failing))
