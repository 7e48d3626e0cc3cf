"""What was asked in Python is asked again on the command line."""

from __future__ import annotations

import inspect
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import graphopt
from graphopt import cli, options
from graphopt.report.asked import command

DEFAULTS = {n: p.default for n, p in inspect.signature(graphopt.optimize).parameters.items()}


def heard(line: str) -> dict[str, Any]:
    """What the command line makes of words, without what has its default."""
    _, verb, *words = shlex.split(line)
    with get_command(cli.app).commands[verb].make_context(verb, words) as context:  # type: ignore[attr-defined]
        given = context.params
    given["set_dims"] = options.dims(given["set_dims"])
    return {k: v for k, v in given.items() if k in DEFAULTS and v not in (None, [], ()) and v != DEFAULTS[k]}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, {}),
        ({"data": "a b.npz", "device": "cpu", "threads": 2}, {}),
        ({"passes": ["lossless", 'sparsify{pattern="2:4"}'], "skip": "$(boom)"}, {"skip": ["$(boom)"]}),
        ({"budget": {"macs": 0.5, "bytes": 0.25}}, {"budget": ["macs=0.5", "bytes=0.25"]}),
        ({"max_drop": ("f1=0.01",), "int8": True, "weight_bits": 4, "target": "cpu"}, {"max_drop": ["f1=0.01"]}),
        ({"set_dims": {"past + seq": 4}, "calibration": Path("a/b")}, {}),
        ({"recipe": "x", "measure": False, "progress": print, "opset": 21}, {"recipe": Path("x"), "progress": None}),
    ],
)  # fmt: skip
def test_the_command_means_the_call(given: dict[str, Any], words: dict[str, Any]) -> None:
    line = command(graphopt.optimize, DEFAULTS | {"model": "some model.onnx"} | given)
    expected = {k: v for k, v in (given | words).items() if v != DEFAULTS[k]}
    assert heard(line) == {"model": Path("some model.onnx")} | expected


def test_what_only_a_program_has_is_a_word_in_capitals() -> None:
    given = DEFAULTS | {"model": object(), "data": [{"x": 1}], "passes": []}
    assert command(graphopt.optimize, given) == "graphopt optimize MODEL --data DATA"
