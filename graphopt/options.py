"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from graphopt import completion
from graphopt.errors import UsageError
from graphopt.gate.rules import RULES

__all__ = [
    "AtolOption",
    "Bf16Option",
    "BitsOption",
    "BlameOption",
    "BudgetOption",
    "CalibrationOption",
    "DataOption",
    "DebugOption",
    "Device",
    "DeviceOption",
    "DrawingOption",
    "DropOption",
    "FastMathOption",
    "Fp16Option",
    "FreezeOption",
    "HtmlOption",
    "Int8Option",
    "JsonOption",
    "JunitOption",
    "MarkdownOption",
    "MaxBytesOption",
    "MaxLatencyOption",
    "MeasureOption",
    "MetadataOption",
    "MetricOption",
    "ModelArgument",
    "OpsetOption",
    "PassOption",
    "PerturbOption",
    "PlanOnlyOption",
    "PolicyOption",
    "QuietOption",
    "RootOption",
    "RtolOption",
    "SarifOption",
    "SeedOption",
    "SetOption",
    "SkipOption",
    "TargetOption",
    "ThreadsOption",
    "UnverifiedOption",
    "VerboseOption",
    "WholeOption",
    "dims",
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
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write the report as a page with pictures, for a browser.")
]
DrawingOption = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Draw both graphs side by side, as a page for a browser."),
]
WholeOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print what happens in between, and lists as long as they are.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Print what happens in between, and every edit.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks and the log.")]
PassOption = Annotated[
    list[str] | None,
    typer.Option(
        "--pass",
        metavar="SPEC",
        autocompletion=completion.passes,
        help="Run this pass, name or name{field=value}, instead of 'lossless' ones. Repeat.",
    ),
]
SkipOption = Annotated[
    list[str] | None,
    typer.Option("--skip", metavar="KEY", help="Leave this node as it is, or this group of channels whole. Repeat."),
]
TargetOption = Annotated[
    str,
    typer.Option(
        "--target",
        metavar="T",
        autocompletion=completion.targets,
        help="The runtime to make the model for: portable, cpu, cuda, tensorrt, openvino.",
    ),
]
OpsetOption = Annotated[
    int | None, typer.Option("--opset", metavar="N", min=1, help="Raise the opset, so that newer operators serve.")
]
FastMathOption = Annotated[
    bool, typer.Option("--fast-math", help="Allow float algebra that fails for NaN, infinities and -0.")
]
MetadataOption = Annotated[bool, typer.Option("--keep-metadata", help="Keep what the exporter noted at each node.")]
BudgetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        metavar="KEY=FRACTION",
        autocompletion=completion.budgets,
        show_default=False,
        help="Share that may remain of macs, params, bytes or latency. Repeat.",
    ),
]
DropOption = Annotated[
    list[str] | None,
    typer.Option(
        "--max-drop",
        metavar="METRIC=X",
        autocompletion=completion.drops,
        show_default=False,
        help="How far accuracy, agreement or f1 may fall; with optimize alone, the smallest such model. Repeat.",
    ),
]
Int8Option = Annotated[
    bool, typer.Option("--int8", help="Compute on 8-bit integers where that pays on the target; learns from --data.")
]
BitsOption = Annotated[
    int | None,
    typer.Option("--weight-bits", metavar="8|4|3", show_default=False, help="Of a weight of an int8 model."),
]
Fp16Option = Annotated[
    bool, typer.Option("--fp16", help="Compute in float16 where that does no harm; learns from --data where.")
]
Bf16Option = Annotated[bool, typer.Option("--bf16", help="The same in bfloat16.")]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        show_default=False,
        help="Keep what --int8 saw of values of this model on this data: read, or written where it is not there yet.",
    ),
]
FreezeOption = Annotated[bool, typer.Option("--freeze", help="Make constants of weights that a feed could override.")]
AtolOption = Annotated[
    float | None,
    typer.Option("--atol", metavar="X", min=0, help="Allowed absolute difference, instead of the derived one."),
]
RtolOption = Annotated[
    float | None,
    typer.Option("--rtol", metavar="X", min=0, help="Allowed relative difference, instead of the derived one."),
]
PolicyOption = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        metavar="FILE",
        show_default=False,
        help="TOML of lines to keep to, or a pyproject.toml with [tool.graphopt.check]. Lines: "
        + ", ".join(RULES)
        + ".",
    ),
]
MetricOption = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="M",
        show_default=False,
        help="A function of yours that --max-drop may name: file.py:function or module:function.",
    ),
]
MaxLatencyOption = Annotated[
    float | None,
    typer.Option("--max-latency", metavar="RATIO", show_default=False, help=RULES["max-latency"].help),
]
MaxBytesOption = Annotated[
    float | None, typer.Option("--max-bytes", metavar="RATIO", show_default=False, help=RULES["max-bytes"].help)
]
JunitOption = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="Write each line as a test case, in JUnit's XML.")
]
SarifOption = Annotated[
    Path | None, typer.Option("--sarif", metavar="FILE", help="Write each line as a result, in SARIF 2.1.0.")
]
MarkdownOption = Annotated[
    Path | None, typer.Option("--markdown", metavar="FILE", help="Write a table for a pull request.")
]
PerturbOption = Annotated[
    bool, typer.Option("--perturb", help="Say whether CANDIDATE bears disturbed samples less well; needs --data.")
]
BlameOption = Annotated[
    bool,
    typer.Option("--blame", help="Where outputs differ, say in which layer that begins, and which ones cost most."),
]
OutOption = Annotated[
    Path | None, typer.Option("-o", "--out", metavar="OUT", help="Where to; MODEL with .opt.onnx if not given.")
]
RecipeOption = Annotated[Path | None, typer.Option("--recipe", metavar="FILE", help="Do what this recipe says.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Write through a link, or over MODEL itself.")]
SaveOption = Annotated[
    Path | None, typer.Option("--save-recipe", metavar="FILE", help="Write what was done as a recipe.")
]
PlanOnlyOption = Annotated[bool, typer.Option("--plan-only", help="Only say what would be cut; write no model.")]
MeasureOption = Annotated[
    bool, typer.Option("--measure", help="Time passes that could make a model slower, and leave those out that do.")
]
UnverifiedOption = Annotated[
    bool, typer.Option("--unverified", help="Run nothing: check the structure only, and say so in the file.")
]


def dims(given: list[str] | None) -> dict[str, int] | None:
    """`DIM=N` words as a mapping.

    Raises:
        UsageError: a word is of another form.
    """
    found: dict[str, int] = {}
    for word in given or ():
        name, equals, extent = word.rpartition("=")
        if not equals or not name or not extent.isdecimal() or int(extent) < 1:
            raise UsageError(f"--set {word} is not of the form DIM=N with N at least 1")
        found[name] = int(extent)
    return found or None
