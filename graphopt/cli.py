"""The command line: parse → verb → print → exit code. No logic, and no heavy import before a command runs."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from graphopt.errors import GraphoptError, MachineError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["app", "main"]

app = typer.Typer(
    name="graphopt",
    help="Makes exported ONNX models smaller and faster, and proves that they still do their job.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Device = Literal["auto", "cpu", "cuda"]

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file, its external data beside it.")]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="What to run on: .npz, folder, test_data_set_*, file.py:function, module:function or random:N. "
        "Generated if not given.",
    ),
]
DeviceOption = Annotated[
    Device, typer.Option("--device", help="auto: CUDA where it really runs. cuda: never falls back.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="DIM=N", help="Extent of a symbolic dimension in generated feeds."),
]
ThreadsOption = Annotated[int, typer.Option("--threads", min=0, help="Threads of one operator; 0: all cores.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of everything random.")]
JsonOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE|-", help="Write the whole report as JSON; - for stdout.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Print what happens in between.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks and the log.")]


def main() -> None:
    """The entry point."""
    app()


@app.callback(invoke_without_command=True)
def _graphopt(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(installed("graphopt"))
        raise typer.Exit


def _command(verb: Callable[..., int | None]) -> Callable[..., None]:
    """A command that turns errors into one sentence and an exit code."""

    @wraps(verb)
    def run(*args: Any, **options: Any) -> None:
        debug = options.get("debug", False)
        try:
            code = verb(*args, **options)
        except GraphoptError as problem:
            if debug:
                traceback.print_exc()
            _complain(str(problem))
            raise typer.Exit(problem.exit_code) from None
        except KeyboardInterrupt:
            _complain("interrupted; nothing was written")
            raise typer.Exit(130) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):  # typer ends quietly when the reader of a pipe goes away
            raise
        except Exception as problem:  # noqa: BLE001 - the last line of defence: a bug of ours
            if debug:
                traceback.print_exc()
            _complain(
                f"this is a bug in graphopt ({type(problem).__name__}: {str(problem)[:200]}): "
                "please report it with the model and the output of the same command with --debug"
            )
            raise typer.Exit(70) from None
        if code:
            raise typer.Exit(code)

    return run


def _complain(text: str) -> None:
    from graphopt.report.text import shown

    typer.echo(f"error: {shown(text)}", err=True)


@app.command()
@_command
def optimize(
    model: ModelArgument,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="OUT", help="Where to; MODEL with .opt.onnx if not given.")
    ] = None,
    data: DataOption = None,
    device: DeviceOption = "auto",
    passes: Annotated[
        list[str] | None,
        typer.Option(
            "--pass", metavar="SPEC", help="Run this pass, name or name{field=value}, instead of all. Repeat."
        ),
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option("--skip", metavar="KEY", help="Leave the node with this key as it is. Repeat.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", metavar="FILE", help="Do what this recipe says.")] = None,
    save_recipe: Annotated[
        Path | None, typer.Option("--save-recipe", metavar="FILE", help="Write what was done as a recipe.")
    ] = None,
    freeze: Annotated[
        bool, typer.Option("--freeze", help="Make constants of weights that a feed could override.")
    ] = False,
    keep_metadata: Annotated[
        bool, typer.Option("--keep-metadata", help="Keep what the exporter noted at each node.")
    ] = False,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Run nothing: check the structure only, and say so in the file.")
    ] = False,
    set_dims: SetOption = None,
    threads: ThreadsOption = 0,
    seed: SeedOption = 0,
    force: Annotated[bool, typer.Option("--force", help="Write through a link, or over MODEL itself.")] = False,
    json: JsonOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a model smaller and faster without changing what it computes; verify; write it."""
    api, table = _rooms(debug=debug)
    with _progress(quiet=quiet, verbose=verbose) as progress:
        result = api.optimize(
            model,
            data=data,
            device=device,
            passes=passes,
            skip=skip,
            recipe=recipe,
            freeze=freeze,
            keep_metadata=keep_metadata,
            unverified=unverified,
            set_dims=_dims(set_dims),
            threads=threads,
            seed=seed,
            progress=progress,
        )
        progress("writing")
        written = result.save(out or model.with_name(model.name.removesuffix(".onnx") + ".opt.onnx"), force=force)
    if save_recipe is not None:
        _write(save_recipe, result.recipe.text())
    if not quiet:
        _print(table.optimize(result.report, str(written)), err=True)
    _emit(json, result.report)


@app.command()
@_command
def inspect(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="ONNX files.")],
    why: Annotated[
        str | None, typer.Option("--why", metavar="RULE", help="Say where this rule looked and did nothing, and why.")
    ] = None,
    set_dims: SetOption = None,
    seed: SeedOption = 0,
    json: JsonOption = None,
    debug: DebugOption = False,
) -> None:
    """Say what models are made of."""
    api, table = _rooms(debug=debug)
    found = api.inspect(*models, why=why, set_dims=_dims(set_dims), seed=seed)
    _answer(json, table.inspect(found), found)


@app.command()
@_command
def check(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="The model to compare with.")],
    candidate: Annotated[Path, typer.Argument(metavar="CANDIDATE", help="The model in question.")],
    data: DataOption = None,
    device: DeviceOption = "auto",
    atol: Annotated[
        float | None, typer.Option("--atol", min=0, help="Allowed absolute difference, instead of the derived one.")
    ] = None,
    rtol: Annotated[
        float | None, typer.Option("--rtol", min=0, help="Allowed relative difference, instead of the derived one.")
    ] = None,
    set_dims: SetOption = None,
    threads: ThreadsOption = 0,
    seed: SeedOption = 0,
    json: JsonOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    debug: DebugOption = False,
) -> int:
    """Say whether CANDIDATE does the job of REFERENCE: exit code 0 if it does, 1 if not."""
    api, table = _rooms(debug=debug)
    with _progress(quiet=quiet, verbose=verbose) as progress:
        found = api.check(
            reference,
            candidate,
            data=data,
            device=device,
            atol=atol,
            rtol=rtol,
            set_dims=_dims(set_dims),
            threads=threads,
            seed=seed,
            progress=progress,
        )
    _answer(json, None if quiet else table.check(found), found)
    return 0 if found.passed else 1


@app.command()
@_command
def bench(
    model: ModelArgument,
    other: Annotated[Path | None, typer.Argument(metavar="[OTHER]", help="Another one, timed in turn with it.")] = None,
    data: DataOption = None,
    device: DeviceOption = "auto",
    set_dims: SetOption = None,
    threads: ThreadsOption = 0,
    seed: SeedOption = 0,
    json: JsonOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    debug: DebugOption = False,
) -> None:
    """Time a model, or two of them side by side."""
    api, table = _rooms(debug=debug)
    with _progress(quiet=quiet, verbose=verbose) as progress:
        found = api.bench(
            model,
            other,
            data=data,
            device=device,
            set_dims=_dims(set_dims),
            threads=threads,
            seed=seed,
            progress=progress,
        )
    _answer(json, None if quiet else table.bench(found, pair=other is not None), found)


@app.command()
@_command
def passes(json: JsonOption = None, debug: DebugOption = False) -> None:
    """List the passes, their fields and rules."""
    api, table = _rooms(debug=debug)
    found = api.passes()
    _answer(json, table.passes(found), found)


@app.command()
@_command
def doctor(json: JsonOption = None, debug: DebugOption = False) -> None:
    """Say what this installation and this machine can do, and what is wrong with them."""
    api, table = _rooms(debug=debug)
    found = api.doctor()
    _answer(json, table.doctor(found), found)


def _rooms(*, debug: bool) -> tuple[Any, Any]:
    """The heavy half of the package."""
    import logging

    from graphopt import api
    from graphopt.report import table

    if debug:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    return api, table


def _dims(given: list[str] | None) -> dict[str, int] | None:
    """`DIM=N` words as a mapping."""
    dims: dict[str, int] = {}
    for word in given or ():
        name, equals, extent = word.rpartition("=")
        if not equals or not name or not extent.isdecimal() or int(extent) < 1:
            raise UsageError(f"--set {word} is not of the form DIM=N with N at least 1")
        dims[name] = int(extent)
    return dims or None


@contextmanager
def _progress(*, quiet: bool, verbose: bool) -> Iterator[Callable[[str], None]]:
    """What is being done, on stderr: a line that renews itself on a terminal, lines with --verbose."""
    if quiet or not (verbose or sys.stderr.isatty()):
        yield lambda _: None
    elif verbose:
        yield lambda text: typer.echo(text, err=True)
    else:
        from rich.console import Console

        with Console(stderr=True).status("") as status:
            yield status.update


def _print(what: RenderableType, *, err: bool) -> None:
    from rich.console import Console

    console = Console(stderr=err, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no edge at which to fold
    console.print(what)


def _answer(json: Path | None, text: RenderableType | None, report: Any) -> None:
    """Print what a command found: to stdout, unless JSON goes there."""
    if text is not None:
        _print(text, err=json is not None and str(json) == "-")
    _emit(json, report)


def _emit(json: Path | None, report: Any) -> None:
    if json is None:
        return
    from graphopt.report.data import to_json

    if str(json) == "-":
        typer.echo(to_json(report))
    else:
        _write(json, to_json(report) + "\n")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise MachineError(f"{path} cannot be written: {problem.strerror}") from None
