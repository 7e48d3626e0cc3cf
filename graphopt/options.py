"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "DataOption",
    "DebugOption",
    "Device",
    "DeviceOption",
    "JsonOption",
    "ModelArgument",
    "QuietOption",
    "RootOption",
    "SeedOption",
    "SetOption",
    "ThreadsOption",
    "VerboseOption",
]

Device = Literal["auto", "cpu", "cuda"]

ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", show_default=False, help="An ONNX file, its external data beside it.")
]
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
    typer.Option(
        "--set",
        metavar="DIM=N",
        help="Extent of a symbolic dimension in generated feeds; one without a name is called input[axis]. Repeat.",
    ),
]
RootOption = Annotated[
    Path | None,
    typer.Option(
        "--external-root",
        metavar="DIR",
        show_default=False,
        help="Folder in which weights may be, also behind links, instead of the model's own.",
    ),
]
ThreadsOption = Annotated[
    int, typer.Option("--threads", metavar="N", min=0, help="Threads of one operator; 0: all cores.")
]
SeedOption = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of everything random.")]
JsonOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE|-", help="Write the whole report as JSON; - for stdout.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Print what happens in between, and every edit.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks and the log.")]
