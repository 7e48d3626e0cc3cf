"""What goes wrong: the exit code, and one sentence on stderr that says what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.main import get_group

from graphopt import api, errors
from graphopt.cli import app
from graphopt.run import session
from graphopt.run.cuda import cuda_works
from tests.end_to_end.support import DATA, Answer, assert_fails, command, graphopt, net, provenance, stored
from tests.support.models import parse

CYCLE = "g (float[2] x) => (float[2] y) { a = Add(x, b) b = Neg(a) y = Neg(b) }"
CUSTOM = """<ir_version: 10, opset_import: ["" : 21, "some.where" : 1]>
g (float[2] x) => (float[2] y) { a = Identity(x) b = some.where.Magic(a) y = Identity(b) }"""
KILLS = """<ir_version: 10, opset_import: ["" : 21]>
g (float[N,4] x) => (float[N,4] y) { n, m = LayerNormalization <axis = 1000000000000>(x, x) y = Identity(n) }"""
"""Shape inference goes far beyond the end of a shape."""
CUDA, WHY = cuda_works()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return stored(net(), tmp_path / "net.onnx")


def optimize(*words: object) -> Answer:
    return command("optimize", *words)


# -- models that cannot be read --------------------------------------------------------------------------------------


def test_a_process_ends_with_the_code_and_one_sentence(tmp_path: Path) -> None:
    answer = graphopt("optimize", tmp_path / "no.onnx")
    assert_fails(answer, 3, "no.onnx does not exist: give the path of an .onnx file")


@pytest.mark.parametrize("verb", ["optimize", "inspect", "bench"])
def test_every_command_refuses_a_missing_file(verb: str, tmp_path: Path) -> None:
    assert_fails(command(verb, tmp_path / "no.onnx"), 3, "does not exist")


def test_a_check_refuses_a_missing_file_on_either_side(model: Path, tmp_path: Path) -> None:
    assert_fails(command("check", model, tmp_path / "no.onnx"), 3, "no.onnx does not exist")
    assert_fails(command("check", tmp_path / "no.onnx", model), 3, "no.onnx does not exist")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file(model: Path, share: float) -> None:
    content = model.read_bytes()
    model.write_bytes(content[: int(len(content) * share)])
    assert_fails(optimize(model), 3, "net.onnx")
    assert not model.with_suffix(".opt.onnx").exists()


def test_a_file_that_kills_the_checker(model: Path, tmp_path: Path) -> None:
    path = stored(parse(KILLS), tmp_path / "kills.onnx")
    for words in (["optimize", path], ["optimize", path, "--unverified"], ["inspect", path], ["check", model, path]):
        assert_fails(command(*words), 3, "kills.onnx is not safe: onnx does not survive the model: the worker was ki")
    assert not path.with_suffix(".opt.onnx").exists()


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "photo.onnx"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    assert_fails(optimize(path), 3, "photo.onnx is not")


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()
    assert_fails(optimize(path), 3, "is empty: export the model again")


def test_a_folder(tmp_path: Path) -> None:
    assert_fails(optimize(tmp_path), 3, "is a folder: give the .onnx file inside it")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_a_file_that_may_not_be_read(model: Path) -> None:
    model.chmod(0)
    assert_fails(optimize(model), 3, "cannot be read: Permission denied")


def test_a_cycle(tmp_path: Path) -> None:
    assert_fails(optimize(stored(CYCLE, tmp_path / "c.onnx")), 3, "not a valid ONNX model: its graph has a cycle")


def test_a_name_that_would_repaint_the_terminal_is_spelled_out(tmp_path: Path) -> None:
    answer = optimize(tmp_path / "\x1b[2Jno\nname.onnx")
    assert_fails(answer, 3, r"\x1b[2Jno\nname.onnx")


# -- calls that make no sense ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--pass", "vanish"], "no pass is called 'vanish': give one of inline, strip, clean, fold, "),
        (["--pass", "fold{"], "no pass is called 'fold{'"),
        (["--pass", "fold{=}"], "cannot be read: write fold{field=value, field=value}"),
        (["--pass", "fold{size=1}"], "fold has no field 'size': it has max_bytes"),
        (["--pass", "clean{size=1}"], "clean has no field 'size': it has none"),
        (["--pass", "fold{max_bytes=true}"], "fold{max_bytes} is of type int, not bool"),
        (["--pass", 'fold{max_bytes="1"}'], "fold{max_bytes} is of type int, not str"),
        (["--pass", f"fold{{max_bytes={'1' * 5000}}}"], "cannot be read"),
        (["--set", "N"], "--set N is not of the form DIM=N"),
        (["--set", "N=0"], "--set N=0 is not of the form DIM=N with N at least 1"),
        (["--set", "N=two"], "--set N=two is not of the form"),
        (["--set", "=2"], "--set =2 is not of the form"),
        (["--set", "M=2"], "the inputs have no such dimension; they have: N"),
        (["--recipe", "r.toml", "--freeze"], "a recipe already says what to do: give it alone"),
        (["--data", str(DATA), "--set", "N=2"], "give either --data or --set"),
        (["--pass", f"fold{{max_bytes={'[' * 9999}}}"], "cannot be read"),
    ],
)
def test_usage_errors(words: list[str], sentence: str, model: Path) -> None:
    assert_fails(optimize(model, *words), 2, sentence)
    assert not model.with_suffix(".opt.onnx").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["optimize"],
        ["optimise", "x"],
        ["optimize", "x", "--nonsense"],
        ["check", "x"],
        ["inspect"],
        ["bench", "a", "b", "c"],
    ],
)
def test_what_the_parser_refuses_ends_with_2(words: list[str]) -> None:
    answer = command(*words)
    assert (answer.code, answer.out) == (2, "")
    assert "Traceback" not in answer.err


def test_values_out_of_range_are_refused_by_the_parser(model: Path) -> None:
    for words in (["--threads", "-1"], ["--seed", "x"], ["--device", "tpu"]):
        assert optimize(model, *words).code == 2
    assert command("check", model, model, "--atol", "-1").code == 2


def test_a_rule_that_does_not_exist(model: Path) -> None:
    assert_fails(command("inspect", model, "--why", "magic"), 2, "no rule is called 'magic'", "fold_batchnorm")


# -- recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        ("version = ", 3, "is not TOML"),
        ("", 3, "recipe of version None: this graphopt reads 1"),
        ("version = 2", 3, "recipe of version 2: this graphopt reads 1"),
        ('version = 1\npasses = "clean"', 3, "is no recipe"),
        ("version = 1\npasses = [1]", 3, "is no recipe"),
        ("version = 1\nfreeze = 1", 3, "is no recipe"),
        ("version = 1\nspeed = 9", 3, "is no recipe"),
        ('version = 1\npasses = ["vanish"]', 3, "recipe.toml is no recipe: no pass is called 'vanish'"),
    ],
)
def test_a_bad_recipe(text: str, code: int, sentence: str, model: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text, encoding="utf-8")
    assert_fails(optimize(model, "--recipe", recipe), code, sentence)


def test_a_recipe_that_cannot_be_read(model: Path, tmp_path: Path) -> None:
    assert_fails(optimize(model, "--recipe", tmp_path / "no.toml"), 3, "no.toml cannot be read")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    assert_fails(optimize(model, "--recipe", binary), 3, "binary.toml cannot be read")


# -- where to write --------------------------------------------------------------------------------------------------


def test_out_is_a_folder(model: Path, tmp_path: Path) -> None:
    assert_fails(optimize(model, "-o", tmp_path), 2, "is a folder: give the name of a file in it")


def test_the_folder_of_out_is_missing(model: Path, tmp_path: Path) -> None:
    assert_fails(optimize(model, "-o", tmp_path / "no" / "out.onnx"), 3, "cannot be written: No such file or directory")


def test_out_is_the_source(model: Path) -> None:
    content = model.read_bytes()
    assert_fails(optimize(model, "-o", model), 2, "is the source itself", "--force")
    assert model.read_bytes() == content
    answer = optimize(model, "-o", model, "--force")
    assert answer.code == 0
    assert len(model.read_bytes()) < len(content)


def test_out_is_the_source_by_another_name(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.hardlink_to(model)
    assert_fails(optimize(model, "-o", other), 2, "is the source itself")


def test_out_is_a_symbolic_link(model: Path, tmp_path: Path) -> None:
    target, link = tmp_path / "target.onnx", tmp_path / "link.onnx"
    target.write_bytes(b"precious")
    link.symlink_to(target)
    assert_fails(optimize(model, "-o", link), 2, "is a symbolic link", "--force")
    assert target.read_bytes() == b"precious"
    assert optimize(model, "-o", link, "--force").code == 0
    assert link.is_symlink()
    assert onnx.load(target).graph.node


def test_a_dangling_link_is_not_written_through(model: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.onnx"
    link.symlink_to(tmp_path / "nowhere.onnx")
    assert_fails(optimize(model, "-o", link), 2, "is a symbolic link")


def test_a_failure_leaves_nothing_behind(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out := tmp_path / "out.onnx").write_bytes(b"old")

    def broken(_self: object, _path: Path) -> None:
        raise errors.InputError("the written file does not do the original's job")

    monkeypatch.setattr(api.Result, "_check", broken)
    assert_fails(optimize(model, "-o", out), 3, "does not do the original's job")
    assert out.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "out.onnx"]


@pytest.mark.parametrize("option", ["--json", "--html", "--save-recipe"])
def test_a_report_that_cannot_be_written(option: str, model: Path, tmp_path: Path) -> None:
    answer = optimize(model, "-q", option, tmp_path / "no" / "file")
    assert_fails(answer, 3, "cannot be written: No such file or directory")


# -- what does not run -----------------------------------------------------------------------------------------------


def test_a_model_that_the_runtime_cannot_run(tmp_path: Path) -> None:
    model = stored(CUSTOM, tmp_path / "custom.onnx")
    assert_fails(optimize(model), 3, "some.where")
    assert not (tmp_path / "custom.opt.onnx").exists()


def test_unverified_works_on_it_and_is_stamped(tmp_path: Path) -> None:
    model = stored(CUSTOM, tmp_path / "custom.onnx")
    answer = optimize(model, "--unverified", "--json", "-")
    assert answer.code == 0
    assert "unverified: nothing was run" in answer.err
    assert answer.json["verification"] is None
    result = onnx.load(tmp_path / "custom.opt.onnx")
    assert [n.op_type for n in result.graph.node] == ["Magic"]
    assert provenance(result)["graphopt.verdict"] == "unverified"


def test_a_large_unverified_model_has_the_whole_stamp(tmp_path: Path) -> None:
    model = stored(net(4, channels=8), tmp_path / "large.onnx")
    assert optimize(model, "--unverified", "-q").code == 0
    stamp = provenance(onnx.load(tmp_path / "large.opt.onnx"))
    assert stamp.keys() == {"graphopt.version", "graphopt.source_sha256", "graphopt.recipe", "graphopt.verdict"}
    assert stamp["graphopt.verdict"] == "unverified"


def test_a_model_for_which_no_feed_is_found_needs_data(tmp_path: Path) -> None:
    model = stored(
        "g (float[N,2] x) => (float[7,11] y) <int64[2] s = {7, 11}> { y = Reshape(x, s) }", tmp_path / "m.onnx"
    )
    assert_fails(optimize(model, "--set", "N=3"), 3, "No generated feed runs on this model, so give --data")


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"z": np.zeros((4, 3, 6, 6), np.float32)}, "nothing for the input 'x'"),
        ({"x": np.zeros((4, 3, 6, 6))}, "as float64; the model takes float32"),
        ({"x": np.zeros((4, 3, 6, 7), np.float32)}, "with the shape"),
        ({"x": np.zeros((0, 3, 6, 6), np.float32)}, "holds no feeds: give data with at least one sample"),
        ({"x": np.zeros((4, 3, 6, 6), np.float32), "labels": np.zeros(3)}, "3 labels for 4 samples"),
    ],
)
def test_data_that_does_not_fit(arrays: dict[str, Any], sentence: str, model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **arrays)
    assert_fails(optimize(model, "--data", tmp_path / "data.npz"), 3, sentence)


def test_data_that_is_not_there(model: Path) -> None:
    assert_fails(optimize(model, "--data", "no.npz"), 3, "no.npz cannot be read")
    assert_fails(optimize(model, "--data", "no"), 3, "no does not exist")
    assert_fails(command("check", model, model, "--data", "no.py:feeds"), 3, "cannot be imported")


WITH_A_DEVICE = [name for name, verb in get_group(app).commands.items() if any(p.name == "device" for p in verb.params)]


@pytest.mark.parametrize("verb", WITH_A_DEVICE)
def test_cuda_never_falls_back(verb: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "cuda_works", lambda: (False, "libcublas.so.13 is not found"))
    answer = command(verb, model, *([model] if verb == "check" else []), "--device", "cuda")
    assert_fails(answer, 3, "CUDA does not run here: libcublas.so.13 is not found")
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.skipif(CUDA, reason="CUDA works here")
def test_why_cuda_does_not_run_is_data_and_nothing_else_is() -> None:
    answer = graphopt("doctor", "--json", "-")
    assert answer.code == 0
    assert any(WHY in f["text"] for f in answer.json["findings"])


@pytest.mark.cuda
@pytest.mark.skipif(not CUDA, reason=WHY)
def test_cuda_is_used_where_it_works(model: Path) -> None:
    answer = command("optimize", model, "--device", "cuda", "--json", "-")
    assert answer.code == 0
    assert answer.json["provider"] == answer.json["verification"]["provider"] == "CUDAExecutionProvider"


# -- the last lines of defence ---------------------------------------------------------------------------------------


def raising(problem: BaseException) -> Any:
    def verb(*_: object, **__: object) -> None:
        raise problem

    return verb


def test_an_unexpected_exception_is_a_bug_to_report(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "optimize", raising(RuntimeError("boom\nboom")))
    answer = optimize(model)
    assert_fails(
        answer, 70, "this is a bug in graphopt (RuntimeError: boom", "please report it with the model", "--debug"
    )


def test_debug_shows_where(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "check", raising(RuntimeError("boom")))
    answer = command("check", model, model, "--debug")
    assert answer.code == 70
    assert "Traceback" in answer.err
    assert answer.err.splitlines()[-1].startswith("error: this is a bug")


def test_an_interruption_ends_with_130(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "bench", raising(KeyboardInterrupt()))
    assert_fails(command("bench", model), 130, "error: interrupted\n")


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (errors.GraphoptError("g"), 70),
        (errors.UsageError("u"), 2),
        (errors.InputError("i"), 3),
        (errors.NeedsData("n"), 3),
        (errors.MachineError("m"), 3),
        (errors.Verdict("v"), 1),
    ],
)
def test_each_error_has_its_exit_code(
    problem: errors.GraphoptError, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "doctor", raising(problem))
    assert_fails(command("doctor"), code, str(problem))
