"""The command line: parse → verb → print → exit code. No logic, and no heavy import before a command runs."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from graphopt import completion, options
from graphopt.command import answer, command, complain, emit, store

if TYPE_CHECKING:
    pass

__all__ = ["app", "main"]

app = typer.Typer(
    name="graphopt",
    help="Makes exported ONNX models smaller and faster, and verifies that they still do their job.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every terminal knows every letter
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, _ended)
    try:
        app()
    except OSError as problem:  # of --help and --version
        complain(f"stdout cannot be written: {problem.strerror}")
        sys.exit(3)


def _ended(number: int, _frame: FrameType | None) -> None:
    """Leave as at Ctrl-C, so that whatever is half done is put away."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


@app.callback(invoke_without_command=True)
def _graphopt(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(installed("graphopt"))
        raise typer.Exit


@app.command()
@command
def optimize(
    model: options.ModelArgument,
    out: options.OutOption = None,
    data: options.DataOption = None,
    device: options.DeviceOption = "auto",
    passes: options.PassOption = None,
    skip: options.SkipOption = None,
    recipe: options.RecipeOption = None,
    save_recipe: options.SaveOption = None,
    freeze: options.FreezeOption = False,
    target: options.TargetOption = "portable",
    opset: options.OpsetOption = None,
    fast_math: options.FastMathOption = False,
    keep_metadata: options.MetadataOption = False,
    budget: options.BudgetOption = None,
    max_drop: options.DropOption = None,
    int8: options.Int8Option = False,
    weight_bits: options.BitsOption = None,
    fp16: options.Fp16Option = False,
    bf16: options.Bf16Option = False,
    calibration: options.CalibrationOption = None,
    plan_only: options.PlanOnlyOption = False,
    measure: options.MeasureOption = False,
    unverified: options.UnverifiedOption = False,
    set_dims: options.SetOption = None,
    external_root: options.RootOption = None,
    threads: options.ThreadsOption = 0,
    seed: options.SeedOption = 0,
    force: options.ForceOption = False,
    json: options.JsonOption = None,
    html: options.HtmlOption = None,
    markdown: options.MarkdownOption = None,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Rewrite a model, verify it, write it.

    The result is smaller and faster where that is possible, and does the same job.
    """
    from graphopt import api
    from graphopt.report import console, files, table
    from graphopt.report.html import page
    from graphopt.report.markdown import markdown as as_markdown

    place = out or files.beside(model)
    if files.is_there(model):  # else there is more to say of it than of where the result would go
        files.refuse_out(place, model, force=force)
    others = {"OUT": place, "the recipe": recipe, "the data": Path(data) if data else None}
    reports = {
        "--json": json,
        "--html": html,
        "--markdown": markdown,
        "--save-recipe": save_recipe,
        "--calibration": calibration,
    }
    files.refuse_side_files(reports, {"MODEL": model}, others, external_root)
    with console.progress(quiet=quiet, verbose=verbose) as progress:
        result = api.optimize(
            model,
            data=data,
            device=device,
            passes=passes or None,
            skip=skip,
            recipe=recipe,
            freeze=freeze,
            target=target,
            opset=opset,
            fast_math=fast_math,
            keep_metadata=keep_metadata,
            budget=budget or None,
            max_drop=max_drop or None,
            int8=int8,
            weight_bits=weight_bits,
            fp16=fp16,
            bf16=bf16,
            calibration=calibration,
            plan_only=plan_only,
            measure=measure,
            unverified=unverified,
            set_dims=options.dims(set_dims),
            external_root=external_root,
            threads=threads,
            seed=seed,
            progress=progress,
        )
        report = result.report
        if not plan_only:
            progress("writing")
            report = report.at(result.save(place, force=force))
    if save_recipe is not None:
        store(save_recipe, result.recipe.text())
    if html is not None:
        store(html, page(report, result.recipe.text()))
    if markdown is not None:
        store(markdown, as_markdown(report))
    if not quiet:
        console.show(table.optimize(report, edits=verbose), err=True)
    emit(json, report.to_json())


@app.command()
@command
def inspect(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL", show_default=False, help="ONNX files.")],
    groups: Annotated[
        bool, typer.Option("--groups", help="Say which channels can be cut together, and why others cannot.")
    ] = False,
    why: Annotated[
        str | None,
        typer.Option(
            "--why",
            metavar="RULE",
            autocompletion=completion.rules,
            help="Say where this rule looked and did nothing, and why.",
        ),
    ] = None,
    set_dims: options.SetOption = None,
    external_root: options.RootOption = None,
    seed: options.SeedOption = 0,
    json: options.JsonOption = None,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Say what models are made of."""
    from graphopt import api
    from graphopt.report import console, data, files, table

    files.refuse_side_files({"--json": json}, {f"MODEL {m}": m for m in models}, {}, external_root)
    with console.progress(quiet=quiet, verbose=verbose) as progress:
        found = api.inspect(
            *models,
            groups=groups,
            why=why,
            set_dims=options.dims(set_dims),
            external_root=external_root,
            seed=seed,
            progress=progress,
        )
    answer(json, None if quiet else table.inspect(found, groups=groups, why=why), data.to_json(found, "models"))


@app.command()
@command
def check(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", show_default=False, help="What to compare with.")],
    candidate: Annotated[Path, typer.Argument(metavar="CANDIDATE", show_default=False, help="The model in question.")],
    data: options.DataOption = None,
    device: options.DeviceOption = "auto",
    policy: options.PolicyOption = None,
    max_drop: options.DropOption = None,
    metric: options.MetricOption = None,
    max_latency: options.MaxLatencyOption = None,
    max_bytes: options.MaxBytesOption = None,
    atol: options.AtolOption = None,
    rtol: options.RtolOption = None,
    perturb: options.PerturbOption = False,
    blame: options.BlameOption = False,
    set_dims: options.SetOption = None,
    external_root: options.RootOption = None,
    threads: options.ThreadsOption = 0,
    seed: options.SeedOption = 0,
    json: options.JsonOption = None,
    junit: options.JunitOption = None,
    sarif: options.SarifOption = None,
    markdown: options.MarkdownOption = None,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    debug: options.DebugOption = False,
) -> int:
    """Say whether CANDIDATE does REFERENCE's job.

    The exit code is 0 if it does, 1 if not. Limits on how well it does take the place of equal values.
    """
    from graphopt import api
    from graphopt.report import console, files, gate, table

    others = {"the data": Path(data) if data else None, "the policy": policy}
    reports = {"--json": json, "--junit": junit, "--sarif": sarif, "--markdown": markdown}
    files.refuse_side_files(reports, {"REFERENCE": reference, "CANDIDATE": candidate}, others, external_root)
    with console.progress(quiet=quiet, verbose=verbose) as progress:
        found = api.check(
            reference,
            candidate,
            data=data,
            device=device,
            policy=policy,
            max_drop=max_drop or None,
            metric=metric,
            max_latency=max_latency,
            max_bytes=max_bytes,
            atol=atol,
            rtol=rtol,
            perturb=perturb,
            blame=blame,
            set_dims=options.dims(set_dims),
            external_root=external_root,
            threads=threads,
            seed=seed,
            progress=progress,
        )
    for place, view in ((junit, gate.junit), (sarif, gate.sarif), (markdown, gate.markdown)):
        if place is not None:
            store(place, view(found))
    answer(json, None if quiet else table.check(found), found.to_json())
    return 0 if found else 1


@app.command()
@command
def diff(
    before: Annotated[Path, typer.Argument(metavar="A", show_default=False, help="The model to compare with.")],
    after: Annotated[Path, typer.Argument(metavar="B", show_default=False, help="The model in question.")],
    external_root: options.RootOption = None,
    json: options.JsonOption = None,
    html: options.DrawingOption = None,
    quiet: options.QuietOption = False,
    verbose: options.WholeOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Say where each node of B came from in A, and what else is different.

    Nothing is run. The exit code is 0 also where they differ.
    """
    from graphopt import api
    from graphopt.report import changes_page, changes_table, console, files

    files.refuse_side_files({"--json": json, "--html": html}, {"A": before, "B": after}, {}, external_root)
    with console.progress(quiet=quiet, verbose=verbose) as progress:
        found = api.diff(before, after, external_root=external_root, progress=progress)
    if html is not None:
        store(html, changes_page.page(found))
    answer(json, None if quiet else changes_table.diff(found, whole=verbose), found.to_json())


@app.command()
@command
def bench(
    model: options.ModelArgument,
    other: Annotated[Path | None, typer.Argument(metavar="OTHER", help="Another one, timed in turn with it.")] = None,
    data: options.DataOption = None,
    device: options.DeviceOption = "auto",
    batch: Annotated[
        list[int] | None,
        typer.Option(metavar="N", min=1, help="Rows of the feed; samples are repeated. Repeat."),
    ] = None,
    set_dims: options.SetOption = None,
    external_root: options.RootOption = None,
    threads: options.ThreadsOption = 0,
    seed: options.SeedOption = 0,
    json: options.JsonOption = None,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Time a model, or two of them side by side."""
    from graphopt import api
    from graphopt.report import console, files, table

    others = {"the data": Path(data) if data else None}
    files.refuse_side_files({"--json": json}, {"MODEL": model, "OTHER": other}, others, external_root)
    with console.progress(quiet=quiet, verbose=verbose) as progress:
        found = api.bench(
            model,
            other,
            data=data,
            device=device,
            batch=batch,
            set_dims=options.dims(set_dims),
            external_root=external_root,
            threads=threads,
            seed=seed,
            progress=progress,
        )
    answer(json, None if quiet else table.bench(found), found.to_json())


@app.command()
@command
def passes(json: options.JsonOption = None, debug: options.DebugOption = False) -> None:
    """List the passes, their fields and rules, where they pay, and what was measured of them."""
    from graphopt import api
    from graphopt.report import data, files, table

    files.refuse_side_files({"--json": json}, {}, {})
    found = api.passes()
    answer(json, table.passes(found), data.to_json(found, "passes"))


@app.command()
@command
def doctor(json: options.JsonOption = None, debug: options.DebugOption = False) -> None:
    """Say what runs here, and what is wrong."""
    from graphopt import api
    from graphopt.report import data, files, table

    files.refuse_side_files({"--json": json}, {}, {})
    found = api.doctor()
    answer(json, table.doctor(found), data.to_json(found, "findings"))
