"""Half precision, from the command line to the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import graphopt as api
from graphopt.run.files import read_npz

from .support import MODELS, Answer, assert_fails, command, contents, graphopt

NET, CALIBRATION, TEST = (MODELS / f"{name}" for name in ("digits_resnet.onnx", "digits_calib.npz", "digits_test.npz"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    folder = tmp_path_factory.mktemp("half")
    np.savez(folder / "few.npz", **{name: a[:60] for name, a in read_npz(CALIBRATION).items()}, allow_pickle=False)
    words = ("--json", folder / "out.json", "--html", folder / "out.html", "--save-recipe", folder / "out.toml")
    answer = graphopt(
        "optimize", NET, "-o", folder / "out.onnx", "--fp16", "--data", folder / "few.npz",
        "--threads", 1, "--device", "cpu", *words,
    )  # fmt: skip
    return folder, answer


def test_a_file_of_half_the_weights_does_the_same_job(done: tuple[Path, Answer]) -> None:
    folder, answer = done
    made, given = onnx.load(folder / "out.onnx"), onnx.load(NET)
    onnx.checker.check_model(made, full_check=True)
    assert [(p.name, p.type.tensor_type.elem_type) for p in (*made.graph.input, *made.graph.output)] == [
        (p.name, p.type.tensor_type.elem_type) for p in (*given.graph.input, *given.graph.output)
    ]
    report = json.loads((folder / "out.json").read_text())["half"]
    assert report["after"] < 0.51 * report["before"]
    assert report["nodes"] > 20
    assert report["samples"] == 16
    metrics = api.check(NET, made, data=TEST, threads=1).verification.metrics
    assert metrics["agreement"].after >= 0.998
    assert "float16: " in answer.err
    assert "In half precision" in (folder / "out.html").read_text()


def test_a_recipe_makes_the_same_bytes(done: tuple[Path, Answer]) -> None:
    folder, _ = done
    again = api.optimize(NET, data=folder / "few.npz", recipe=folder / "out.toml", threads=1, device="cpu")
    assert again.model.SerializeToString(deterministic=True) == (folder / "out.onnx").read_bytes()
    assert again.report.half is not None
    assert again.report.half.samples == 0


def test_without_data_it_learns_from_what_is_made_up() -> None:
    result = api.optimize(MODELS / "digits_lstm.onnx", fp16=True, threads=1, device="cpu")
    assert result.report.data is not None
    assert result.report.data.synthetic
    large = [t for t in result.model.graph.initializer if contents(t).size > 1000]
    assert {t.data_type for t in large} == {onnx.TensorProto.FLOAT16}
    found = result.report.verification
    assert found is not None
    assert found.metrics["sqnr"].after > 40
    assert np.isfinite(found.metrics["sqnr"].after)


def test_inputs_and_outputs_in_half_precision(tmp_path: Path) -> None:
    words: dict[str, Any] = {"data": CALIBRATION, "threads": 1, "device": "cpu"}
    result = api.optimize(NET, passes=["lossless", "half{io=true}"], **words)
    made, given = onnx.load(result.save(tmp_path / "out.onnx")), onnx.load(NET)
    onnx.checker.check_model(made, full_check=True)
    ports = zip((*made.graph.input, *made.graph.output), (*given.graph.input, *given.graph.output), strict=True)
    for port, before in ports:
        assert port.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
        assert port.type.tensor_type.shape == before.type.tensor_type.shape
    assert not any(node.op_type == "Cast" for node in made.graph.node)
    report = result.report
    assert report.half is not None
    assert report.half.ends == ("image", "logits")
    assert report.verification is not None
    assert report.verification.metrics["agreement"].after >= 0.999
    assert 50 < report.verification.metrics["sqnr"].after < 90
    again = api.optimize(NET, recipe=result.recipe, **words)
    assert again.model.SerializeToString(deterministic=True) == (tmp_path / "out.onnx").read_bytes()
    answer = command("check", NET, tmp_path / "out.onnx", "--threads", 1)
    assert answer.code == 1
    assert "input 'image' was a tensor(float), is a tensor(float16)" in answer.out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--fp16", "--bf16"), "two types of half precision"),
        (("--fp16", "--int8", "--target", "cpu"), "give one of them"),
        (("--fp16", "--pass", "half"), "half is given twice"),
        (("--pass", "half{type='float8'}"), "float16 or bfloat16"),
        (("--pass", "half{margin=0.5}"), "1 or more"),
        (("--fp16", "--unverified"), "leave out unverified"),
    ],
)
def test_what_makes_no_sense_is_refused(words: tuple[str, ...], why: str, tmp_path: Path) -> None:
    assert_fails(command("optimize", NET, "-o", tmp_path / "out.onnx", *words), 2, why)


def test_a_type_that_the_runtime_lacks_is_told(tmp_path: Path) -> None:
    words = ("--bf16", "--data", CALIBRATION, "--device", "cpu", "--threads", 1)
    assert_fails(
        command("optimize", MODELS / "digits_vit.onnx", "-o", tmp_path / "out.onnx", *words),
        3,
        "CPUExecutionProvider does not run",
    )
