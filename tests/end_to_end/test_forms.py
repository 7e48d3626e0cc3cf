"""Products that are written in other ways, through the whole story: asked for by name, or chosen under a budget."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import onnx
import pytest

import graphopt
from graphopt.errors import UsageError
from graphopt.recipe import Recipe
from tests.end_to_end.test_budget import CALIBRATION, MODELS

NET = MODELS / "digits_mobilenet.onnx"
WORDS: dict[str, Any] = {"data": str(CALIBRATION), "device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[graphopt.Result, Path]:
    result = graphopt.optimize(NET, budget={"bytes": 0.2}, **WORDS)
    path = tmp_path_factory.mktemp("forms") / "small.onnx"
    result.save(path)
    return result, path


def test_a_budget_of_bytes_is_met_by_the_file(small: tuple[graphopt.Result, Path]) -> None:
    result, path = small
    assert 0.17 * NET.stat().st_size < path.stat().st_size <= 0.2 * NET.stat().st_size
    plan = result.report.plan
    assert plan is not None
    assert any(form.form.startswith("codebook") for form in plan.forms)
    assert all(form.loss is not None and 0 < form.left["bytes"] < 1 for form in plan.forms)
    assert result.report.verification is not None
    assert result.report.verification.metrics["agreement"].after > 0.9


def test_the_plan_in_the_file_gives_the_same_file_again(small: tuple[graphopt.Result, Path], tmp_path: Path) -> None:
    _, path = small
    text = next(p.value for p in onnx.load(path).metadata_props if p.key == "graphopt.recipe")
    assert tomllib.loads(text)["forms"]
    again = graphopt.optimize(NET, recipe=Recipe.parse(text), **WORDS)
    again.save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("form", "operator", "size"),
    [("codebook{length=2}", "Gather", 0.3), ('lowrank{share=0.6,first="hw"}', "Conv", 0.85)],
)
def test_a_form_for_every_product(form: str, operator: str, size: float, tmp_path: Path) -> None:
    result = graphopt.optimize(NET, passes=["lossless", form], **WORDS)
    result.save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").stat().st_size < size * NET.stat().st_size
    before, after = (sum(n.op_type == operator for n in onnx.load(p).graph.node) for p in (NET, tmp_path / "out.onnx"))
    assert after > before
    assert result.report.plan is not None
    assert {f.form for f in result.report.plan.forms} == {form}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"passes": ["codebook", "tucker"]}, "codebook and tucker exclude each other"),
        ({"passes": ["codebook"], "budget": {"macs": 0.5}}, "a budget chooses among all forms by itself"),
        ({"passes": ["codebook"], "int8": True, "target": "cpu"}, "codebook and quantize exclude each other"),
        ({"passes": ["lowrank{share=0.001}"]}, "no product of the model is smaller"),
        ({"passes": ["codebook{length=0}"]}, "is no length"),
    ],
)
def test_what_makes_no_sense_is_told(words: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        graphopt.optimize(NET, **words, **WORDS)
