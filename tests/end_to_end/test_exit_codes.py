"""Every command ends with the codes of the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.main import get_group

from graphopt import api
from graphopt.cli import app
from tests.end_to_end.support import command, net, stored
from tests.support.models import parse

COMMANDS = get_group(app).commands
OTHER = "g (float[N,3,6,6] x) => (float[N,3,6,6] y) { y = Neg(x) }"

CASES: dict[str, dict[int, list[str]]] = {
    "optimize": {
        0: ["net.onnx"],
        1: ["net.onnx", "--data", "data.npz", "--budget", "macs=0.4", "--max-drop", "sqnr=200"],
        2: ["net.onnx", "--pass", "vanish"],
        3: ["no.onnx"],
    },
    "inspect": {0: ["net.onnx"], 2: ["net.onnx", "--why", "magic"], 3: ["no.onnx"]},
    "check": {
        0: ["net.onnx", "net.onnx", "--data", "data.npz"],
        1: ["net.onnx", "other.onnx", "--data", "data.npz"],
        2: ["net.onnx", "net.onnx", "--max-drop", "speed=1"],
        3: ["net.onnx", "no.onnx"],
    },
    "diff": {0: ["net.onnx", "other.onnx"], 2: ["net.onnx"], 3: ["net.onnx", "no.onnx"]},
    "bench": {0: ["tiny.onnx", "--data", "random:1"], 2: ["net.onnx", "--batch", "0"], 3: ["no.onnx"]},
    "passes": {0: [], 2: ["--nonsense"], 3: ["--json", "no/where.json"]},
    "doctor": {0: [], 2: ["--nonsense"], 3: ["--json", "no/where.json"]},
}
"""By command and code: what ends so."""


def test_every_command_is_here() -> None:
    assert COMMANDS.keys() <= CASES.keys()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    stored(net(), tmp_path / "net.onnx")
    stored(parse(OTHER), tmp_path / "other.onnx")
    stored(parse("g (float[1] x) => (float[1] y) { y = Neg(x) }"), tmp_path / "tiny.onnx")
    x = np.random.default_rng(0).standard_normal((40, 3, 6, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("verb", "code"), [(v, c) for v, cases in CASES.items() for c in cases if v in COMMANDS])
def test_a_command_ends_with(verb: str, code: int, folder: Path) -> None:
    before = sorted(folder.iterdir())
    answer = command(verb, *CASES[verb][code])
    assert answer.code == code, answer
    if code:
        assert sorted(folder.iterdir()) == before, "nothing is written"
    if code == 3 or (code == 1 and verb != "check"):
        assert answer.err.startswith("error: ")
        assert answer.err.count("\n") == 1


def raising(problem: BaseException) -> Callable[..., Any]:
    def verb(*_: object, **__: object) -> None:
        raise problem

    return verb


@pytest.mark.parametrize("verb", COMMANDS)
@pytest.mark.parametrize(
    ("problem", "code"), [(RuntimeError("boom"), 70), (KeyboardInterrupt(), 130), (MemoryError(), 3)]
)
def test_what_goes_wrong_in_any_command(
    verb: str, problem: BaseException, code: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, verb, raising(problem))
    answer = command(verb, *CASES[verb][0])
    assert answer.code == code
    assert "Traceback" not in answer.err
    assert not list(folder.glob("*.opt.onnx"))
