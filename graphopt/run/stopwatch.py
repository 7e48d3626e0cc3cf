"""Clocks for timing runs: the host's, and events on the device."""

from __future__ import annotations

import ctypes
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

from graphopt.errors import MachineError

__all__ = ["HOST", "EventClock", "Stopwatch"]

_NON_BLOCKING: Final = 1
"""Of a stream: it does not wait for what happens on the default one."""


class Stopwatch:
    """Times runs by the clock of the host.

    Args:
        now: seconds.
    """

    name = "host clock"

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now

    def __call__(self, run: Callable[[], object]) -> float:
        """The seconds that something takes, until its results are there."""
        begin = self.now()
        run()
        return self.now() - begin


HOST: Final = Stopwatch()


class EventClock(Stopwatch):
    """Times runs by two events on a CUDA stream, before and behind them. Sessions have to be made for `stream`.

    It is the device's clock, but the host's delays count: an idle stream passes the first event at once, and a run is
    waited for before the second one is recorded. Kernels shorter than what starts them are not told from it.

    Args:
        runtime: the library libcudart, or what has its functions.

    Raises:
        MachineError: the library refuses.

    Source: CUDA Runtime API, modules "Stream Management" and "Event Management".
    """

    name = "CUDA events"

    def __init__(self, runtime: Any) -> None:
        super().__init__()
        self._runtime = runtime
        self._stream, self._start, self._stop = (ctypes.c_void_p() for _ in range(3))
        self._ask("cudaStreamCreateWithFlags", ctypes.byref(self._stream), ctypes.c_uint(_NON_BLOCKING))
        for event in (self._start, self._stop):
            self._ask("cudaEventCreate", ctypes.byref(event))
        weakref.finalize(self, _released, runtime, self._stream, (self._start, self._stop))

    @property
    def stream(self) -> int:
        """The address of the stream."""
        return self._stream.value or 0

    def __call__(self, run: Callable[[], object]) -> float:
        """The seconds from before `run`, which puts something on the stream, to when that is done."""
        elapsed = ctypes.c_float()
        self._ask("cudaEventRecord", self._start, self._stream)
        run()
        self._ask("cudaEventRecord", self._stop, self._stream)
        self._ask("cudaEventSynchronize", self._stop)
        self._ask("cudaEventElapsedTime", ctypes.byref(elapsed), self._start, self._stop)
        return elapsed.value / 1e3

    def _ask(self, function: str, *arguments: Any) -> None:
        if code := getattr(self._runtime, function)(*arguments):
            raise MachineError(f"the time on the GPU cannot be taken: {function} answers with error {code}")


def _released(runtime: Any, stream: ctypes.c_void_p, events: tuple[ctypes.c_void_p, ...]) -> None:
    for event in events:
        runtime.cudaEventDestroy(event)
    runtime.cudaStreamDestroy(stream)
