"""Reports that would destroy something, and streams that take nothing: told before any work is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

import graphopt
from graphopt import api
from tests.end_to_end.support import ROOT, Answer, assert_fails, command, net, stored

MODEL_AND = {"optimize": [], "inspect": [], "bench": ["other.onnx"], "check": ["other.onnx"]}
FULL = Path("/dev/full")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stored(net(), Path("net.onnx"))
    stored(net(), Path("other.onnx"))


@pytest.fixture
def _no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object, **__: object) -> Any:
        raise AssertionError("it was not refused before the work began")

    for verb in MODEL_AND:
        monkeypatch.setattr(api, verb, work)


@pytest.mark.usefixtures("_no_work")
@pytest.mark.parametrize("verb", MODEL_AND)
def test_a_report_never_replaces_a_model(verb: str) -> None:
    words = [verb, "net.onnx", *MODEL_AND[verb], "--json"]
    contents = {p: p.read_bytes() for p in Path().iterdir()}
    for model in ("net.onnx", *MODEL_AND[verb]):
        assert_fails(command(*words, model), 2, f"--json {model} is ", " itself: give another file")
    Path("link").symlink_to("elsewhere.json")
    assert_fails(command(*words, "link"), 2, "is a symbolic link")
    assert_fails(command(*words, "/dev/null"), 2, "is a device or a pipe")
    assert_fails(command(*words, "no/report.json"), 3, "cannot be written: No such file or directory")
    assert {p: p.read_bytes() for p in Path().iterdir() if not p.is_symlink()} == contents


@pytest.mark.usefixtures("_no_work")
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--json", "net.opt.onnx"], "--json net.opt.onnx is OUT itself"),
        (["-o", "x.onnx", "--save-recipe", "x.onnx"], "--save-recipe x.onnx is OUT itself"),
        (["--save-recipe", "net.onnx"], "--save-recipe net.onnx is MODEL itself"),
        (["--json", "a", "--save-recipe", "./a"], "--save-recipe a is --json itself"),
        (["--html", "net.onnx"], "--html net.onnx is MODEL itself"),
        (["--json", "a", "--html", "./a"], "--html a is --json itself"),
        (["--recipe", "r.toml", "--save-recipe", "r.toml"], "is the recipe itself"),
        (["--data", "d.npz", "--json", "d.npz"], "is the data itself"),
        (["-o", "/dev/null"], "is a device or a pipe"),
        (["-o", "/dev/null", "--force"], "is a device or a pipe"),
        (["-o", "net.onnx"], "is the source itself"),
    ],
)
def test_no_two_things_are_one_file(words: list[str], reason: str) -> None:
    assert_fails(command("optimize", "net.onnx", *words), 2, reason)


def test_a_report_never_replaces_weights() -> None:
    onnx.save(net(), "big.onnx", save_as_external_data=True, location="big.data", size_threshold=0)
    content = Path("big.data").read_bytes()
    assert_fails(command("check", "big.onnx", "big.onnx", "--json", "big.data"), 2, "holds the weights of big.onnx")
    assert_fails(command("optimize", "big.onnx", "-o", "big.data", "--force"), 2, "holds the weights of the source")
    assert Path("big.data").read_bytes() == content


def test_a_report_appears_whole_and_keeps_its_mode() -> None:
    Path("report.json").write_text("old")
    Path("report.json").chmod(0o640)
    assert command("check", "net.onnx", "other.onnx", "-q", "--json", "report.json").code == 0
    assert Path("report.json").read_text().endswith("}\n")
    assert Path("report.json").stat().st_mode & 0o777 == 0o640
    assert sorted(p.name for p in Path().iterdir()) == ["net.onnx", "other.onnx", "report.json"]


def test_an_api_result_is_not_saved_to_a_device() -> None:
    result = graphopt.optimize("net.onnx", device="cpu", threads=1)
    for force in (False, True):
        with pytest.raises(graphopt.UsageError, match="is a device or a pipe"):
            result.save(os.devnull, force=force)


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("words", [["inspect", "net.onnx"], ["doctor"], ["--help"], ["--version"]])
def test_a_stdout_that_is_full_is_told(words: list[str]) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "graphopt", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert_fails(Answer(done.returncode, "", done.stderr), 3, "stdout cannot be written: No space left on device")


@pytest.mark.parametrize("verb", MODEL_AND)
def test_quiet_and_verbose_contradict_each_other(verb: str) -> None:
    assert_fails(command(verb, "net.onnx", *MODEL_AND[verb], "-q", "-v"), 2, "--quiet and --verbose contradict")


def test_letters_that_the_terminal_lacks_are_spelled_out() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    words = [sys.executable, "-m", "graphopt", "bench", "net.onnx", "other.onnx", "--threads", "1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert r"\u2192" in done.stdout


SLOW = """
import os, sys, time
from graphopt import api
from graphopt.cli import main
api.Result._check = lambda *_: (os.write(1, b"written\\n"), time.sleep(60))
sys.argv = ["graphopt", "optimize", "net.onnx", "--device", "cpu"]
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)], ids=["term", "hup", "int"]
)
def test_a_signal_leaves_nothing_behind(number: signal.Signals, code: int) -> None:
    before = sorted(p.name for p in Path().iterdir())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        assert len(list(Path().iterdir())) == len(before) + 1
        process.send_signal(number)
        assert process.wait(30) == code
    assert sorted(p.name for p in Path().iterdir()) == before
