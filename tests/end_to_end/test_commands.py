"""`check`, `bench`, `inspect`, `passes`, `doctor`: what they answer, and where."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphopt.catalogue import PASSES
from tests.end_to_end.support import (
    MODELS,
    ROOT,
    Answer,
    assert_fails,
    command,
    contents,
    graphopt,
    net,
    stored,
    tensor,
)

RESNET = MODELS / "digits_resnet.onnx"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return stored(net(), tmp_path / "net.onnx")


def scaled(factor: float) -> onnx.ModelProto:
    """The net with outputs that differ by about this factor."""
    proto = net()
    for weight in proto.graph.initializer:
        if weight.name in {"s1", "b1"}:
            weight.CopyFrom(tensor(weight.name, contents(weight) * factor))
    return proto


def assert_json_only(answer: Answer) -> Any:
    """Stdout is one JSON document; the text for people is on stderr."""
    found = json.loads(answer.out)
    assert answer.err.strip()
    return found


# -- check -----------------------------------------------------------------------------------------------------------


def test_a_model_does_its_own_job(model: Path) -> None:
    answer = command("check", model, model)
    assert answer.code == 0
    assert re.search(r"verified: \d+ feeds on CPUExecutionProvider, largest error", answer.out)
    assert answer.err == ""


def test_another_function_does_not(model: Path, tmp_path: Path) -> None:
    other = stored(scaled(1.01), tmp_path / "other.onnx")
    answer = command("check", model, other)
    assert answer.code == 1
    assert "FAILED (the error exceeds the tolerance)" in answer.out
    assert "NOT EQUAL" in answer.out
    assert answer.err == ""


def test_a_process_of_its_own_answers_the_same(model: Path, tmp_path: Path) -> None:
    other = stored(scaled(1.01), tmp_path / "other.onnx")
    assert graphopt("check", model, model, "-q") == Answer(0, "", "")
    assert graphopt("check", model, other, "-q") == Answer(1, "", "")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--rtol", "0.02"], 0),
        (["--rtol", "0.005"], 1),
        (["--atol", "100"], 0),
        (["--atol", "1e-6"], 1),
        (["--atol", "1e-4", "--rtol", "0.011"], 0),
    ],
)
def test_the_tolerance_may_be_given(words: list[str], code: int, model: Path, tmp_path: Path) -> None:
    other = stored(scaled(1.01), tmp_path / "other.onnx")
    assert command("check", model, other, *words).code == code


def test_a_tolerance_of_zero_asks_for_the_same_bits(model: Path, tmp_path: Path) -> None:
    other = stored(scaled(1 + 1e-6), tmp_path / "other.onnx")
    assert command("check", model, other).code == 0
    assert command("check", model, other, "--atol", "0").code == 1


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        pytest.param("float[N,3] z) => (float[N,3] y", "input 'x' is now called 'z'"),
        ("float[N,3] x) => (float[N,3] q", "output 'y' is now called 'q'"),
        pytest.param("float[2,3] x) => (float[2,3] y", "input 'x' had the shape [N, 3], has [2, 3]"),
        ("float[M,3] x) => (float[M,1,3] y", "output 'y' had 2 axes, has 3"),
        pytest.param("double[N,3] x) => (double[N,3] y", "input 'x' was a tensor(float), is a tensor(double)"),
    ],
)
def test_a_change_of_the_interface_is_told_in_words(ends: str, words: str, tmp_path: Path) -> None:
    given, made = ends.split(") =>", maxsplit=1)[0].rsplit(maxsplit=1)[-1], ends.rsplit(maxsplit=1)[-1]
    step = f"Unsqueeze({given}, one)" if "1,3" in ends else f"Identity({given})"
    text = f"g ({ends}) <int64[1] one = {{1}}> {{ {made} = {step} }}"
    before = stored("g (float[N,3] x) => (float[N,3] y) { y = Identity(x) }", tmp_path / "before.onnx")
    answer = command("check", before, stored(text, tmp_path / "after.onnx"), "--json", "-")
    assert answer.code == 1
    assert words in assert_json_only(answer)["verification"]["differences"]
    assert f"difference: {words}" in answer.err


def test_the_report_of_a_check_as_json(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "check.json"
    assert command("check", model, model, "-q", "--json", file).code == 0
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["passed"] is found["verification"]["passed"] is True
    assert (found["reference"], found["candidate"]) == (str(model), str(model))
    assert found["verification"]["outputs"][0]["name"] == "y"
    assert found["data"]["synthetic"] is True
    assert found["schema"] == 1


def test_json_to_stdout_leaves_the_text_to_stderr(model: Path) -> None:
    assert assert_json_only(graphopt("check", model, model, "--json", "-"))["passed"]


def test_random_models_are_checked_with_seeds(tmp_path: Path) -> None:
    text = "g (float[N,3] x) => (float[N,3] y) { r = RandomNormalLike(x) y = Add(x, r) }"
    other = text.replace("y = Add(x, r)", "t = Neg(x) y = Sub(r, t)")
    model = stored(text, tmp_path / "a.onnx")
    assert command("check", model, model).code == 0
    assert command("check", model, stored(other, tmp_path / "b.onnx")).code == 0


def test_generated_feeds_take_the_extents_that_are_set(model: Path) -> None:
    answer = command("check", model, model, "--set", "N=9", "--json", "-")
    assert answer.json["data"]["description"] == "3 generated feeds (N=9)"


def test_a_number_of_random_feeds_may_be_asked_for(model: Path) -> None:
    found = command("check", model, model, "--data", "random:5", "--json", "-").json
    assert found["data"]["description"] == "random:5"
    assert found["data"]["synthetic"]
    found = command("check", model, model, "--data", "random:5", "--set", "N=3", "--json", "-").json
    assert found["data"]["samples"] == 15


# -- bench -----------------------------------------------------------------------------------------------------------


def test_bench_times_one_model_or_two(model: Path) -> None:
    answer = command("bench", model, "--json", "-")
    found = assert_json_only(answer)
    assert answer.code == 0
    assert found["provider"] == "CPUExecutionProvider"
    assert found["pairs"] >= 1
    assert found["original_ms"] > 0
    answer = command("bench", model, model)
    assert (answer.code, answer.err) == (0, "")
    assert "ms per run, median of" in answer.out
    assert "; ratio " in answer.out
    assert "ratio" not in command("bench", model).out


def test_bench_takes_the_first_feed_of_the_data(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((3, 3, 6, 6), np.float32))
    assert command("bench", model, "--data", tmp_path / "data.npz", "-q") == Answer(0, "", "")
    assert graphopt("bench", model, "--data", tmp_path / "data.npz", "--json", "-").json["pairs"]


def test_bench_refuses_a_model_with_other_inputs(model: Path, tmp_path: Path) -> None:
    other = stored("g (float[N] q) => (float[N] y) { y = Neg(q) }", tmp_path / "other.onnx")
    assert_fails(command("bench", model, other), 3, "q")


# -- inspect ---------------------------------------------------------------------------------------------------------


def test_inspect_says_what_each_model_is_made_of(model: Path) -> None:
    answer = command("inspect", RESNET, model, "--json", "-")
    first, second = assert_json_only(answer)["models"]
    assert answer.code == 0
    assert first["name"] == str(RESNET)
    assert first["facts"]["nodes"] == 49
    assert first["facts"]["operators"]["BatchNormalization"] == 11
    assert first["bytes"] == RESNET.stat().st_size
    assert first["opsets"] == {"ai.onnx": 17}
    assert second["facts"]["macs"] == 2 * 2 * 3 * 3 * 9 * 36  # two rows, two convolutions
    assert second["facts"]["unknown_macs"] == 0


def test_inspect_for_people(model: Path) -> None:
    answer = graphopt("inspect", model, RESNET)
    assert (answer.code, answer.err) == (0, "")
    assert "6 nodes" in answer.out
    assert "BatchNormalization" in answer.out
    assert "  input   x  float32 [N, 3, 6, 6]" in answer.out


def test_inspect_says_why_a_rule_did_nothing(tmp_path: Path) -> None:
    text = """g (float[N,3,4,4] x, float[3] s) => (float[N,3,4,4] y)
    <float[3,3,1,1] w = {1,0,0,0,1,0,0,0,1}, float[3] c = {1,2,3}> {
      a = Conv(x, w) b = Relu(a) [norm] n = BatchNormalization(b, c, c, c, c) [twice] m = Mul(a, c) y = Add(n, m) }"""
    model = stored(text, tmp_path / "m.onnx")
    answer = command("inspect", model, "--why", "fold_scale", "--json", "-")
    assert [(m["rule"], m["root"]) for m in answer.json["models"][0]["misses"]] == [("fold_scale", "twice")]
    assert answer.err.startswith(f"{model}: fold_scale did nothing at twice: ")
    assert len(answer.err.splitlines()) == 1
    answer = command("inspect", model, "--why", "twins")
    assert answer == Answer(0, f"{model}: there is no place where twins looked and did nothing\n", "")


def test_a_model_that_does_not_run_is_inspected_all_the_same(tmp_path: Path) -> None:
    text = '<ir_version: 10, opset_import: ["" : 21, "a.b" : 1]> g (float[2] x) => (float[2] y) { y = a.b.Magic(x) }'
    answer = command("inspect", stored(text, tmp_path / "m.onnx"), "--json", "-")
    assert answer.code == 0
    (found,) = answer.json["models"]
    assert found["facts"]["macs"] is None
    assert "its work was not counted" in found["notes"][0]


# -- passes and doctor -----------------------------------------------------------------------------------------------


def test_passes_lists_every_pass_with_its_rules() -> None:
    answer = graphopt("passes")
    assert (answer.code, answer.err) == (0, "")
    found = assert_json_only(command("passes", "--json", "-"))["passes"]
    assert [p["name"] for p in found] == list(PASSES)
    for step in found:
        assert step["name"] in answer.out
        assert step["summary"]
        assert all(summary.endswith(".") for summary in step["rules"].values())
        for rule in step["rules"]:
            assert rule in answer.out
    assert found[3]["fields"] == {"max_bytes": 16 << 20}


def test_doctor_says_what_there_is() -> None:
    answer = graphopt("doctor")
    assert (answer.code, answer.err) == (0, "")
    found = assert_json_only(command("doctor", "--json", "-"))["findings"]
    assert {f["level"] for f in found} <= {"ok", "warn", "error"}
    assert all(f["text"] for f in found)
    assert "onnxruntime" in answer.out


# -- optimize --------------------------------------------------------------------------------------------------------


def test_optimize_speaks_on_stderr_and_quiet_says_nothing(model: Path, tmp_path: Path) -> None:
    answer = command("optimize", model)
    assert answer.out == ""
    assert "fold_batchnorm" in answer.err
    assert f"written: {tmp_path / 'net.opt.onnx'}" in answer.err
    assert command("optimize", model, "-q") == Answer(0, "", "")
    assert set(command("optimize", model, "--json", "-").json) >= {
        "source", "output", "provider", "steps", "verification", "data", "left_out", "unchanged", "notes", "schema",
    }  # fmt: skip


def test_verbose_says_what_is_done_in_between(model: Path) -> None:
    lines = command("optimize", model, "-v").err.splitlines()
    assert lines[:5] == ["loading", "looking for feeds on which the model runs", "rewriting", "verifying", "measuring"]


def test_debug_shows_the_log(model: Path) -> None:
    answer = graphopt("optimize", model, "--debug", "-q")
    assert answer.code == 0
    assert answer.out == ""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_ctrl_c_leaves_nothing_behind(model: Path, tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(
        "import os, signal\ndef feeds():\n    os.kill(os.getpid(), signal.SIGINT)\n    yield {}\n"
    )
    answer = graphopt("optimize", model, "--data", tmp_path / "data.py:feeds")
    assert_fails(answer, 130, "error: interrupted\n")
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != "") == ["data.py", "net.onnx"]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break otherwise there")
@pytest.mark.parametrize("words", [["passes"], ["passes", "--json", "-"]])
def test_a_reader_that_goes_away_is_no_bug_of_ours(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "graphopt", *words],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    os.close(writing)
    assert done.returncode == 1
    assert "bug" not in done.stderr
    assert "Traceback" not in done.stderr
