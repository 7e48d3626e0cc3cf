"""What goes to the terminal: data on stdout, text and progress on stderr, logs where they are asked for."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from graphopt.errors import MachineError, UsageError
from graphopt.report.text import shown
from graphopt.run.machine import Stage, news

__all__ = ["Bars", "logs", "progress", "show", "write"]

_ROOM = 40
"""Columns of a bar and what stands beside it."""
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
        raise MachineError("stdout cannot be written: it is closed; give --json FILE, or -q")
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
    """What is being done, on stderr: on a terminal a line that renews itself, lines if `verbose`.

    Raises:
        UsageError: both flags are set.
    """
    if quiet and verbose:
        raise UsageError("--quiet and --verbose contradict each other: give one of them")
    with contextlib.redirect_stdout(sys.stderr):  # what users' functions print is no data
        if verbose:
            yield news(lambda text: write(shown(text) + "\n", err=True))
        elif quiet or sys.stderr is None or not sys.stderr.isatty():
            yield lambda _: None
        else:
            with Bars(Console(stderr=True)) as bars:
                yield bars


class Bars(Progress):
    """One line: what is being done and, where that is known, how far it is and how long it will still take.

    Args:
        console: where to.
        get_time: a clock in seconds.
    """

    def __init__(self, console: Console, get_time: Callable[[], float] | None = None) -> None:
        text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
        columns = (SpinnerColumn(), BarColumn(20), _Left(), text)
        super().__init__(*columns, console=console, transient=True, get_time=get_time)
        self._task = self.add_task("", total=None)

    def __call__(self, text: str) -> None:
        """Tell what begins, or goes on."""
        now = self.tasks[0]
        done, total = (text.done, text.total) if isinstance(text, Stage) else (0.0, None)
        if total is None or total != now.total or done < now.completed:
            self.reset(self._task, total=total)
        self.update(
            self._task, description=shown(text, max(self.console.width - _ROOM, _ROOM)), completed=done, total=total
        )


class _Left(TimeRemainingColumn):
    """The time that is left, once there is an estimate of it."""

    def render(self, task: Task) -> Text:
        """Such as "0:01:20 left"."""
        left = task.time_remaining
        return Text("" if task.total is None or left is None else f"{timedelta(seconds=int(left))} left")


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
