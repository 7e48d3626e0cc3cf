"""How onnxruntime is spoken to: its errors are one sentence, and what it prints stays away from standard output."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

__all__ = ["CPU", "CUDA", "ERRORS", "Provider", "brief", "create", "guarded"]

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"

Provider = str | tuple[str, Mapping[str, str]]
"""A name, or a name with options."""

ERRORS: Final[tuple[type[Exception], ...]] = (
    *(e for e in vars(native).values() if isinstance(e, type) and issubclass(e, Exception)),
    RuntimeError,
    ValueError,
    TypeError,
)
"""Everything onnxruntime raises; its own exceptions have no common base."""

_NOISE: Final = (
    (r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", ""),
    (r"Non-zero status code returned while running (\w+) node\. Name:'(.*?)' Status Message: ", r"\1 node \2: "),
    (
        r"\S+\.(?:cc|h|cu|cuh):\d+ .*?\)(?:::<lambda\(.*?\)>)?(?: const)?(?: \[with .*?\])? (?=\S)",
        "",
    ),  # the place in its C++ sources
    (r"Please fix either the inputs/outputs or the model\.", ""),
    (r"\s+", " "),
    (r" :", ":"),
)
_LONGEST: Final = 4000
"""Characters of a message that are looked at: a name in it may be very long, and the patterns above are not linear."""
_ALONE: Final = threading.RLock()
"""There is one standard output: two threads that put it away and back would exchange it for good."""


def brief(error: Exception, limit: int = 240) -> str:
    """The part of an onnxruntime message that means something to its reader, on one line."""
    text = str(error)[:_LONGEST]
    for pattern, replacement in _NOISE:
        text = re.sub(pattern, replacement, text)
    text = text.strip().rstrip(".")
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def create(source: bytes, options: ort.SessionOptions, providers: Sequence[Provider]) -> ort.InferenceSession:
    """A session on these providers. Raises ERRORS, and never takes others on its own account."""
    with guarded() if providers != [CPU] else contextlib.nullcontext():
        # With its fallback enabled, onnxruntime prints failures to stdout and goes on with the CPU.
        session = ort.InferenceSession(source, options, list(providers), enable_fallback=0)
    session._model_bytes = None  # noqa: SLF001 - a copy for that fallback, which would be kept as long as the session
    return session


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Sends to standard error what libraries print to standard output meanwhile, which is for data alone.

    That of Python's `print` and that of C, which has a buffer and a file descriptor of its own.
    """
    with _ALONE, contextlib.ExitStack() as stack:
        if sys.stdout is not None:
            sys.stdout.flush()
        _flush()
        with contextlib.suppress(OSError):  # a process may have closed its standard output
            kept = os.dup(1)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, 1)
            stack.callback(_flush)
            os.dup2(2, 1)
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


def _flush() -> None:
    ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None).fflush(None)
