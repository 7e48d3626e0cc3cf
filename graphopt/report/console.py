"""What goes to the terminal: data on stdout, text and progress on stderr, logs where they are asked for."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator

from rich.console import Console, RenderableType
from rich.text import Text

from graphopt.errors import MachineError, UsageError
from graphopt.report.text import shown

__all__ = ["logs", "progress", "show", "write"]

_WIDTH_OF_A_PIPE = 160
"""Columns where there is no terminal at whose edge to fold."""


def show(what: RenderableType, *, err: bool) -> None:
    """Lay text out for a terminal, or plainly where there is none, and `write` it."""
    there, laid = Console(stderr=err), io.BytesIO()
    page = io.TextIOWrapper(laid, encoding=there.encoding, errors="backslashreplace", newline="\n")
    width = there.width if there.is_terminal else _WIDTH_OF_A_PIPE
    Console(file=page, force_terminal=there.is_terminal, width=width, markup=False, highlight=False, emoji=False).print(
        what
    )
    page.flush()
    write(laid.getvalue().decode(there.encoding), err=err)


def write(text: str, *, err: bool) -> None:
    """Write `text` as it is to stderr or stdout, at once.

    Raises:
        MachineError: stdout cannot be written. What stderr does not take is dropped.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is None:  # Python was started without it
        if err:
            return
        raise MachineError("stdout cannot be written: it is closed")
    try:
        stream.write(text)
        stream.flush()
    except OSError as problem:
        with contextlib.suppress(OSError, ValueError):  # else Python fails again when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if isinstance(problem, BrokenPipeError) and not err:
            raise
        if not err:
            raise MachineError(f"stdout cannot be written: {problem.strerror}") from None


@contextlib.contextmanager
def progress(*, quiet: bool, verbose: bool) -> Iterator[Callable[[str], None]]:
    """What is being done, on stderr: a line that renews itself on a terminal, lines if `verbose`.

    Raises:
        UsageError: both flags are set.
    """
    if quiet and verbose:
        raise UsageError("--quiet and --verbose contradict each other: give one of them")
    if verbose:
        yield lambda text: write(shown(text) + "\n", err=True)
    elif quiet or sys.stderr is None or not sys.stderr.isatty():
        yield lambda _: None
    else:
        with Console(stderr=True).status("") as status:
            yield lambda text: status.update(Text(shown(text)))


@contextlib.contextmanager
def logs(*, debug: bool) -> Iterator[None]:
    """Send what is logged or warned about to stderr if `debug`, and nowhere otherwise.

    Libraries put names from the model into their warnings, so each line is made harmless first.
    """
    root, ours = logging.getLogger(), logging.getLogger("graphopt")
    levels = root.level, ours.level
    handler = logging.StreamHandler(sys.stderr) if debug else logging.NullHandler()
    handler.setFormatter(_Harmless("%(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    logging.captureWarnings(True)
    if debug:
        root.setLevel(logging.INFO)
        ours.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        root.setLevel(levels[0])
        ours.setLevel(levels[1])


class _Harmless(logging.Formatter):
    """Log records with control characters spelled out."""

    def format(self, record: logging.LogRecord) -> str:
        """The record, its lines kept apart."""
        return "\n".join(shown(text) for text in super().format(record).splitlines())
