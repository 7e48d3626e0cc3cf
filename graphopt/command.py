"""What all commands share: errors become one sentence and an exit code, answers go to stdout or to a file."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from graphopt.errors import GraphoptError

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["answer", "command", "complain", "emit", "store"]


def command(verb: Callable[..., int | None]) -> Callable[..., None]:
    """A command that turns errors into one sentence and an exit code."""

    @wraps(verb)
    def run(*args: Any, **given: Any) -> None:
        from graphopt.report.console import logs

        debug = given.get("debug", False)
        try:
            with logs(debug=debug):
                code = verb(*args, **given)
        except GraphoptError as problem:
            complain(str(problem), debug=debug)
            raise typer.Exit(problem.exit_code) from None
        except MemoryError:
            complain("this needs more memory than there is", debug=debug)
            raise typer.Exit(3) from None
        except KeyboardInterrupt:
            complain("interrupted", debug=debug)
            raise typer.Exit(130) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):  # typer ends quietly when the reader of a pipe goes away
            raise
        except Exception as problem:  # noqa: BLE001 - the last line of defence: a bug of ours
            complain(
                f"this is a bug in graphopt ({type(problem).__name__}: {str(problem)[:200]}): "
                "please report it with the model and the output of the same command with --debug",
                debug=debug,
            )
            raise typer.Exit(70) from None
        if code:
            raise typer.Exit(code)

    return run


def complain(text: str, *, debug: bool = False) -> None:
    """One sentence on stderr, after the traceback if that is asked for."""
    from graphopt.report.console import write
    from graphopt.report.text import shown

    trace = traceback.format_exc().splitlines() if debug else []
    write("".join(f"{shown(line)}\n" for line in (*trace, f"error: {text}")), err=True)


def answer(json: Path | None, text: RenderableType | None, document: str) -> None:
    """Print what a command found: to stdout, unless JSON goes there."""
    from graphopt.report.console import show

    if text is not None:
        show(text, err=json is not None and str(json) == "-")
    emit(json, document)


def emit(json: Path | None, document: str) -> None:
    """Write a document to a file, or to stdout for "-"."""
    if json is None:
        return
    if str(json) == "-":
        from graphopt.report.console import write

        write(document + "\n", err=False)
    else:
        store(json, document + "\n")


def store(path: Path, text: str) -> None:
    """Write a report, in place of the old one once it is complete."""
    from graphopt.graph.save import write_text

    write_text(path, text)
