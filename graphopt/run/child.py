"""Runs a model in a process of its own, so that a crash, a memory bomb or an endless loop costs only that process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from graphopt.errors import MachineError
from graphopt.graph.external import Outside, Runnable, Weight, weight_of
from graphopt.run.session import Feed, Port, port
from graphopt.run.worker import OUT_OF_MEMORY, Blobs, Limits, pack, receive, send, unpack

__all__ = ["Child", "ChildDied", "ChildFailed", "Limits"]

_STARTUP_SECONDS: Final = 60.0
_LARGE: Final = 1 << 26
"""Bytes of a model that takes more from others, as long as it is kept, than the start of another worker costs."""


class ChildFailed(Exception):  # noqa: N818 - it states what happened to the child
    """The model was not evaluated; the text says why. The next evaluation starts afresh."""


class ChildDied(ChildFailed):
    """The model killed the worker, kept it too long, or wanted more memory than there is."""


@dataclass(frozen=True)
class _Worker:
    """A running worker, what it writes to stderr, and its pipes."""

    process: subprocess.Popen[bytes]
    log: IO[bytes]
    requests: IO[bytes]
    replies: BufferedReader

    @classmethod
    def start(cls) -> Self:
        log = tempfile.TemporaryFile()  # noqa: SIM115 - `end` closes it
        path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "graphopt.run.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # The environment is passed on, not read: the system's loader may need it.
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is for us to handle
            )
        except BaseException:
            log.close()
            raise
        assert process.stdin is not None  # noqa: S101 - they are pipes
        assert isinstance(process.stdout, BufferedReader)  # noqa: S101
        return cls(process, log, process.stdin, process.stdout)

    def end(self) -> None:
        """Kills and reaps it."""
        self.process.kill()
        self.process.wait()
        self.log.close()
        self.replies.close()
        with suppress(OSError):  # it flushes what nobody reads any more
            self.requests.close()

    def obituary(self) -> str:
        """Why it stopped answering."""
        try:
            status = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "the worker sent an answer that makes no sense"
        self.log.seek(max(0, self.log.seek(0, os.SEEK_END) - 4096))
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        if any("bad_alloc" in line or "MemoryError" in line for line in lines):
            return OUT_OF_MEMORY
        if status < 0:
            number = signal.Signals(-status)
            return f"the worker was killed by {number.name} ({signal.strsignal(number)})"
        return f"the worker ended with status {status}{f': {lines[-1]}' if lines else ''}"


class Child:
    """A worker process under limits, started when it is first needed and again after it died.

    Use it as a context manager: leaving it ends the worker. That none can be started is a MachineError.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._worker: _Worker | None = None
        self._told = self.limits
        self._held: tuple[Runnable, bool | None] | None = None
        """The model that the worker has, and whether its session is optimized; None if there is no session yet."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the worker and reaps it. A later `evaluate` starts another."""
        worker, self._worker, self._held = self._worker, None, None
        if worker is not None:
            worker.end()

    @contextmanager
    def within(self, limits: Limits) -> Iterator[Self]:
        """The same worker, under other limits meanwhile. A large model is not kept beyond."""
        before, self.limits = self.limits, limits
        try:
            yield self
        finally:
            self.limits = before
            if self._held is not None and weight_of(self._held[0]) > _LARGE:
                self.close()

    def examine(self, model: Runnable, name: str, *, freeze: bool = False) -> None:
        """Calls `graph.load.examine` there, of which only what it says about the model is answered.

        Raises:
            ChildFailed: it found fault with the model, or the worker died or reached a limit.
        """
        self._held = None
        self._asked(model, {"examine": {"name": name, "freeze": freeze}}, [], optimize=None)

    def evaluate(
        self, model: Runnable, feed: Feed | None = None, *, optimize: bool = False, fetch: bool = True
    ) -> dict[str, Any]:
        """The outputs of `model` for one feed; the model stays loaded for a next call with the same object.

        Args:
            model: the serialized model; large weights beside it are those of files.
            feed: values of its inputs.
            optimize: let onnxruntime optimize the model.
            fetch: send the outputs back; without it, an empty dict says that the model ran.

        Raises:
            ChildFailed: the model does not load or run, or the worker died or reached a limit.
        """
        blobs: Blobs = []
        header = {"feed": pack(feed or {}, blobs), "fetch": fetch}
        reply, payload = self._asked(model, header, blobs, optimize=optimize)
        outputs: dict[str, Any] = unpack(reply["outputs"], payload)
        return outputs

    def inputs(self, model: Runnable, *, optimize: bool = False) -> tuple[Port, ...]:
        """What `model` takes; it stays loaded.

        Raises:
            ChildFailed: the model does not load, or the worker died or reached a limit.
        """
        reply, _ = self._asked(model, {"inputs": True}, [], optimize=optimize)
        return tuple(port(name, kind, shape) for name, kind, shape in reply["inputs"])

    def _asked(
        self, model: Runnable, request: Mapping[str, Any], blobs: Blobs, *, optimize: bool | None
    ) -> tuple[dict[str, Any], memoryview]:
        """The answer to a request about a model, which is sent if the worker does not hold it."""
        header = {**request, "optimize": optimize}
        worker = self._started()
        if self._held is None or self._held[0] is not model or self._held[1] not in {None, optimize}:
            self._held = None
            content = model.content if isinstance(model, Outside) else model
            header["model"] = len(content)
            blobs.insert(0, content)
            if isinstance(model, Outside):
                header["weights"] = {name: _told(weight) for name, weight in model.weights.items()}
        reply, payload = self._exchange(worker, header, blobs, self.limits.seconds)
        self._held = (model, optimize) if reply["loaded"] and self._worker is not None else None
        if "error" in reply:
            reason = self._explain(reply["error"])
            raise (ChildDied if reason.startswith(OUT_OF_MEMORY) else ChildFailed)(reason)
        return reply, payload

    def simplify(self, model: bytes) -> bytes:
        """What onnxsim makes of a serialized model that holds its weights.

        Raises:
            ChildFailed: it refuses the model, or the worker died or reached a limit.
        """
        self._held = None
        reply, payload = self._exchange(
            self._started(), {"model": len(model), "simplify": True}, [model], self.limits.seconds
        )
        if "error" in reply:
            raise ChildFailed(self._explain(reply["error"]))
        return bytes(payload)

    def _started(self) -> _Worker:
        if self._worker is None:
            try:
                self._worker, self._told = _Worker.start(), self.limits
                self._exchange(self._worker, {"limits": asdict(self.limits)}, [], _STARTUP_SECONDS)
            except (OSError, ChildDied) as problem:
                raise MachineError(
                    f"no process can be started in which a model may fail: {problem}; "
                    "free memory, or raise the number of processes"
                ) from problem
        return self._worker

    def _exchange(
        self, worker: _Worker, header: Mapping[str, Any], blobs: Blobs, seconds: float
    ) -> tuple[dict[str, Any], memoryview]:
        """Sends one message and returns the answer to it; a worker that is too slow or dies is ended and reaped."""
        if self._told != self.limits:
            header, self._told = {**header, "limits": asdict(self.limits)}, self.limits
        late = threading.Event()

        def kill() -> None:
            late.set()
            worker.process.kill()

        timer = threading.Timer(seconds, kill)
        timer.start()
        try:
            send(worker.requests, header, blobs)
            reply = receive(worker.replies, self.limits.result_bytes)
        except (OSError, EOFError, ValueError, KeyError) as error:
            reason = f"it took longer than {seconds:g} s" if late.is_set() else self._explain(worker.obituary())
            self.close()
            raise ChildDied(reason) from error
        except BaseException:  # Ctrl-C above all
            self.close()
            raise
        finally:
            timer.cancel()
            timer.join()
        if late.is_set():  # it was killed while its answer arrived
            self.close()
        return reply

    def _explain(self, error: str) -> str:
        if any(sign in error for sign in (OUT_OF_MEMORY, "bad_alloc", "bad allocation", "Failed to allocate memory")):
            memory = self.limits.memory
            return OUT_OF_MEMORY if memory is None else f"{OUT_OF_MEMORY} (limit {memory / (1 << 30):.3g} GiB)"
        return error


def _told(weight: Weight) -> dict[str, Any]:
    """Where a weight lies, for a worker to map it as well."""
    if weight.piece is None:
        raise ValueError("a worker takes weights from files only")
    file, array = weight.piece.file, weight.array
    return {
        "path": str(file.path),
        "identity": file.identity,
        "offset": weight.piece.offset,
        "shape": array.shape,
        "dtype": array.dtype.name,
    }
