"""Weights in blocks and dynamic integers, from the command line to the file."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import graphopt as api
from graphopt.errors import UsageError
from graphopt.run.files import read_npz
from tests.support.sampling import one_in

from .support import graphopt, provenance

MODELS = Path(__file__).parents[2] / "models"
NET, TEST = MODELS / "digits_vit.onnx", MODELS / "digits_test.npz"
WAYS = {
    "dynamic{always=true}": ("MatMulInteger", 0.45, ()),
    "blocks{size=16}": ("DequantizeLinear", 0.4, ("--opset", "21")),
    "blocks{bits=8,size=16}": ("MatMulNBits", 0.5, ("--target", "cpu")),
}


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few samples."""
    path = tmp_path_factory.mktemp("packing") / "some.npz"
    arrays: dict[str, Any] = read_npz(MODELS / "digits_calib.npz")
    np.savez(path, **{name: values[:160] for name, values in arrays.items()})
    return path


@pytest.mark.parametrize("way", one_in(3, WAYS, WAYS))
def test_a_transformer_keeps_its_accuracy_in_less_bytes(way: str, some: Path, tmp_path: Path) -> None:
    kind, share, more = WAYS[way]
    out, report, page, recipe = (tmp_path / f"out.{end}" for end in ("onnx", "json", "html", "toml"))
    words = ("--pass", "lossless", "--pass", way, "--threads", "1", "--json", report, "--html", page, *more)
    answer = graphopt("optimize", NET, "-o", out, "--data", some, "--save-recipe", recipe, *words)
    assert answer.code == 0, answer.err
    assert out.stat().st_size < share * NET.stat().st_size
    before, after = (api.check(NET, m, data=TEST, threads=1).verification.metrics["accuracy"].after for m in (NET, out))
    assert after >= before - 0.005
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=way != "blocks{bits=8,size=16}")
    assert kind in {n.op_type for n in model.graph.node}
    told: dict[str, Any] = json.loads(report.read_text())["packages"]
    assert (told["form"], told["emitted"]) == (way, True)
    done = [p for p in told["packages"] if p["way"]]
    assert done
    assert all(p["after"] < p["before"] and p["sqnr"] > 10 for p in done)
    assert f"packed: {len(done)} of {len(told['packages'])} products and tables" in answer.err
    assert "Packed weights" in page.read_text()
    assert way in tomllib.loads(recipe.read_text())["passes"]
    assert way in provenance(model)["graphopt.recipe"]
    again = tmp_path / "again.onnx"
    words = ("--data", some, "--recipe", recipe, "--threads", "1", "-q")
    assert graphopt("optimize", NET, "-o", again, *words).code == 0
    assert again.read_bytes() == out.read_bytes()


def test_the_clock_decides_on_dynamic_integers_and_the_recipe_remembers(some: Path) -> None:
    result = api.optimize(NET, data=some, passes=["lossless", "dynamic"], threads=1)
    found = result.report.packages
    assert found is not None
    assert found.ratio is not None
    assert found.high is not None
    assert found.emitted == (found.high < 1)
    assert result.recipe.dynamic is None or result.recipe.dynamic.always
    again = api.optimize(NET, data=some, recipe=result.recipe, threads=1)
    assert again.report.packages is None or again.report.packages.ratio is None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"passes": "blocks{bits=5}"}, "give one of 4, 8"),
        ({"passes": "blocks{size=33}"}, "give one of 16, 32, 64, 128, 256"),
        ({"passes": "blocks"}, "blocks for portable needs opset 21, and the model has .*: give --opset 21 as well"),
        ({"passes": ["blocks", "dynamic"], "target": "cpu"}, "blocks and dynamic exclude each other"),
        ({"passes": "dynamic", "target": "tensorrt"}, "no fast kernels for dynamic integers: give one of portable"),
        ({"passes": "blocks{size=256,tables=false}", "target": "cpu"}, "packs nothing of .* no multiple of 256"),
    ],
)
def test_what_makes_no_sense_or_no_difference_is_refused(given: dict[str, Any], sentence: str, some: Path) -> None:
    with pytest.raises(UsageError, match=sentence):
        api.optimize(NET, data=some, threads=1, **given)
