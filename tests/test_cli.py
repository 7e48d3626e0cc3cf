"""The command line is the API with other spellings."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from graphopt import api, cli, command, options
from tests.end_to_end.support import ROOT

VERBS = ("optimize", "inspect", "check", "diff", "bench", "passes", "doctor")
ONLY_COMMAND = {
    "out",
    "json",
    "html",
    "junit",
    "sarif",
    "markdown",
    "save_recipe",
    "force",
    "quiet",
    "verbose",
    "debug",
}
"""Where to write, how much to say."""
ONLY_API = {"progress"}
"""What --verbose stands for."""

HEAVY = {
    *("numpy", "ml_dtypes", "onnx", "onnx_ir", "onnxruntime", "onnxsim", "sympy", "tomli_w", "google.protobuf"),
    *("rich.table", "rich.console", "graphopt.api", "graphopt.run", "graphopt.graph", "graphopt.report"),
}


def command_of(verb: str) -> Callable[..., Any]:
    return typing.cast("Callable[..., Any]", getattr(cli, verb))


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def kind(annotation: Any) -> set[type]:
    """What values a parameter takes, as far as the command line can spell them."""
    if typing.get_origin(annotation) is typing.Annotated:
        return kind(get_args(annotation)[0])
    origin, args = typing.get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return set()
    if origin is typing.Literal:
        return {str}
    if annotation is Any:
        return {str}
    if annotation in {bool, int, float, str}:
        return {annotation}
    if origin is not None and origin not in {typing.Union, type(int | str)}:
        name = getattr(origin, "__name__", "")
        return {dict} if "Mapping" in name or origin is dict else {str} if name == "PathLike" else {list}
    if origin is None:
        return {str} if issubclass(annotation, Path) else {annotation}
    return set().union(*(kind(a) for a in args))


@pytest.mark.parametrize("verb", VERBS)
def test_command_and_verb_have_the_same_parameters(verb: str) -> None:
    ours, theirs = parameters(command_of(verb)), parameters(getattr(api, verb))
    assert [n for n in ours if n not in ONLY_COMMAND] == [n for n in theirs if n not in ONLY_API]


@pytest.mark.parametrize("verb", VERBS)
def test_command_and_verb_have_the_same_defaults(verb: str) -> None:
    ours, theirs = parameters(command_of(verb)), parameters(getattr(api, verb))
    for name in ours.keys() & theirs.keys():
        if theirs[name].kind is not inspect.Parameter.VAR_POSITIONAL:
            assert ours[name].default == theirs[name].default, name


@pytest.mark.parametrize("verb", VERBS)
def test_command_and_verb_take_the_same_kinds(verb: str) -> None:
    ours, theirs = get_type_hints(command_of(verb), include_extras=True), get_type_hints(getattr(api, verb))
    for name in (ours.keys() & theirs.keys()) - {
        "return",
        "model",
        "models",
        "other",
        "reference",
        "candidate",
        "before",
        "after",
    }:
        spelled, taken = kind(ours[name]), kind(theirs[name])
        if name == "set_dims":
            assert (spelled, taken) == ({list}, {dict})
        else:
            assert spelled <= taken, f"{name}: {spelled} and {taken}"


@pytest.mark.parametrize("verb", VERBS)
def test_only_models_are_positional(verb: str) -> None:
    models = {"model", "models", "other", "reference", "candidate", "before", "after"}
    for name, parameter in parameters(getattr(api, verb)).items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            assert name not in models
        elif verb != "inspect" or parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            assert name in models


def test_there_is_a_command_for_each_verb_and_no_other() -> None:
    commands = get_command(cli.app).commands  # type: ignore[attr-defined]
    assert set(commands) == set(VERBS) == set(api.__all__) - {"Model", "Result"}


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_and_option_has_help(verb: str) -> None:
    found = get_command(cli.app).commands[verb]  # type: ignore[attr-defined]
    assert found.help
    for parameter in found.params:
        assert parameter.help, parameter.name
        assert parameter.help.endswith((".", ")")), parameter.help
    assert {p.name for p in found.params} == parameters(command_of(verb)).keys()


def test_options_are_spelled_as_the_contract_says() -> None:
    optimize = get_command(cli.app).commands["optimize"]  # type: ignore[attr-defined]
    spelled = {o for p in optimize.params for o in p.opts}
    assert spelled >= {
        "-o", "--data", "--device", "--pass", "--skip", "--recipe", "--save-recipe", "--freeze", "--keep-metadata",
        "--unverified", "--json", "--html", "--set", "--threads", "--seed", "--force", "-q", "-v", "--debug",
    }  # fmt: skip


def test_words_become_a_mapping_of_dimensions() -> None:
    assert options.dims(None) is None
    assert options.dims([]) is None
    assert options.dims(["N=2", "a=b=3", "past + seq=4", "x[0]=5"]) == {"N": 2, "a=b": 3, "past + seq": 4, "x[0]": 5}


@pytest.mark.parametrize("words", [["--help"], ["optimize", "--help"], ["check", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\nfrom graphopt.cli import app\n"
        f"try:\n    app({words!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout
    assert not HEAVY & set(done.stderr.split())


def test_a_command_that_returns_a_code_ends_with_it() -> None:
    @command.command
    def verb() -> int:
        return 1

    with pytest.raises(typer.Exit) as caught:
        verb()
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("optimize --pass fuse-a", ["fuse-activation", "fuse-attention"]),
        ("optimize --pass loss", ["lossless"]),
        ("optimize --target c", ["cpu", "cuda"]),
        ("optimize --device ", ["auto", "cpu", "cuda"]),
        ("optimize --budget ", ["macs=", "params=", "bytes=", "latency="]),
        ("optimize --max-drop a", ["accuracy=", "agreement="]),
        ("inspect --why fold_b", ["fold_batchnorm"]),
        ("do", ["doctor"]),
    ],
)
def test_shells_complete_names(words: str, expected: list[str]) -> None:
    asked = {"COMP_WORDS": f"graphopt {words}", "COMP_CWORD": str(words.count(" ") + 1)}
    env = {"_GRAPHOPT_COMPLETE": "complete_bash"} | asked
    assert CliRunner().invoke(cli.app, [], env=env, prog_name="graphopt").stdout.split() == expected
