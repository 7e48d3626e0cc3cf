"""Sparse weights, from the command line to the file."""

from __future__ import annotations

import gzip
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

import graphopt as api
from graphopt.errors import UsageError, Verdict

from .support import assert_fails, graphopt, provenance

MODELS = Path(__file__).parents[2] / "models"
NET, CALIBRATION, TEST = MODELS / "digits_resnet.onnx", MODELS / "digits_calib.npz", MODELS / "digits_test.npz"
HALF = "sparsify{share=0.5}"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """The ResNet of `models/` with half of its weights, the report, and what was printed."""
    folder = tmp_path_factory.mktemp("sparse")
    out = folder / "half.onnx"
    words = (
        "--pass",
        "lossless",
        "--pass",
        HALF,
        "--save-recipe",
        folder / "half.toml",
        "--json",
        folder / "half.json",
    )
    page = folder / "half.html"
    answer = graphopt("optimize", NET, "-o", out, "--data", CALIBRATION, "--threads", "1", "--html", page, *words)
    assert answer.code == 0, answer.err
    return out, json.loads((folder / "half.json").read_text()), answer.err


def zeros(model: Path) -> tuple[int, int]:
    """Zeros, and all elements, of the weights that are sums over something."""
    found = [v.const_value for v in ir.load(model).graph.initializers.values()]
    wide = [a for t in found if t is not None and len((a := t.numpy()).shape) > 1 and a.dtype == np.float32]
    return sum(int(np.sum(a == 0)) for a in wide), sum(a.size for a in wide)


def test_half_of_the_weights_are_zero_and_the_accuracy_stays(done: tuple[Path, dict[str, Any], str]) -> None:
    count, every = zeros(done[0])
    assert abs(count / every - 0.5) < 0.001
    before, after = (api.check(NET, m, data=TEST).verification.metrics["accuracy"].after for m in (NET, done[0]))
    assert after > before - 0.01
    onnx.checker.check_model(onnx.load(done[0]), full_check=True)


def test_a_file_with_zeros_packs_better(done: tuple[Path, dict[str, Any], str]) -> None:
    assert len(gzip.compress(done[0].read_bytes())) < 0.6 * len(gzip.compress(NET.read_bytes()))


def test_the_report_says_how_many_zeros_there_are(done: tuple[Path, dict[str, Any], str]) -> None:
    out, report, printed = done
    plan, (count, every) = report["plan"], zeros(out)
    assert plan["sparsify"] == HALF
    assert (sum(s["zeros"] for s in plan["sparse"]), sum(s["weights"] for s in plan["sparse"])) == (count, every)
    assert all(s["after"] <= s["before"] for s in plan["sparse"])
    products = sum(s["zeros"] > 0 for s in plan["sparse"])
    assert {"name": HALF, "exactness": "LOSSY", "edits": {"sparsify": products}} in [
        {k: s[k] for k in ("name", "exactness", "edits")} for s in report["steps"]
    ]
    assert {"accuracy", "agreement", "sqnr"} <= report["verification"]["metrics"].keys()
    assert not plan["groups"]
    assert f"zeros: {count:,} of {every:,} weights (50.0%), in {products} products" in printed
    assert printed.index("accuracy falls by") < printed.index("zeros:")
    page = out.with_suffix(".html").read_text()
    assert "Weights that became zero" in page
    assert f"{count:,} of {every:,} weights" in page
    assert "What was cut" not in page


def test_the_recipe_gives_the_same_bytes(done: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    out, recipe, again = done[0], done[0].with_suffix(".toml"), tmp_path / "again.onnx"
    assert tomllib.loads(recipe.read_text())["passes"][-1] == HALF
    assert HALF in provenance(onnx.load(out))["graphopt.recipe"]
    words = ("--data", CALIBRATION, "--recipe", recipe, "--threads", "1", "-q")
    assert graphopt("optimize", NET, "-o", again, *words).code == 0
    assert again.read_bytes() == out.read_bytes()


def test_together_with_a_budget(tmp_path: Path) -> None:
    passes = ["lossless", 'sparsify{pattern="2:4"}']
    result = api.optimize(NET, data=CALIBRATION, passes=passes, budget={"macs": 0.6}, threads=1)
    plan = result.report.plan
    assert plan is not None
    assert any(g.after < g.before for g in plan.groups)
    assert plan.tried[-1].met
    count, every = plan.zeros
    assert 0.48 < count / every <= 0.5
    path = tmp_path / "both.onnx"
    result.save(path)
    assert zeros(path)[0] == count
    again = api.optimize(NET, data=CALIBRATION, recipe=result.recipe, threads=1)
    assert again.model.SerializeToString() == result.model.SerializeToString()


def test_alone_it_rewrites_nothing_else_and_without_data_learns_from_noise() -> None:
    result = api.optimize(NET, passes=HALF, threads=1)
    assert [s.name for s in result.report.steps] == [HALF]
    assert result.report.output.nodes == result.report.source.nodes
    assert result.report.data is not None
    assert result.report.data.synthetic


def test_a_node_that_is_skipped_keeps_its_weights() -> None:
    name = next(n.name for n in onnx.load(NET).graph.node if n.op_type == "Gemm")
    result = api.optimize(NET, data=CALIBRATION, passes=HALF, skip=name, threads=1)
    assert result.report.plan is not None
    assert {s.key: s.zeros for s in result.report.plan.sparse}[name] == 0


def test_a_drop_that_is_not_allowed_emits_nothing(tmp_path: Path) -> None:
    out = tmp_path / "none.onnx"
    words = ("--pass", "lossless", "--pass", "sparsify{share=0.97}", "--max-drop", "sqnr=30", "--data", CALIBRATION)
    assert_fails(graphopt("optimize", NET, "-o", out, *words), 1, "the allowed drop cannot be kept")
    assert not out.exists()
    passes = ["lossless", "sparsify{share=0.97}"]
    with pytest.raises(Verdict, match="allowed drop"):
        api.optimize(NET, data=CALIBRATION, passes=passes, budget=["macs=0.9"], max_drop=["sqnr=30"], threads=1)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"passes": "sparsify"}, "takes one of share, threshold and pattern"),
        ({"passes": 'sparsify{pattern="4:2"}'}, "write N:M with N from 1 on and below M"),
        ({"passes": "sparsify{share=1.5}"}, "is no share"),
        ({"passes": "sparsify{share=0.5, threshold=0.1}"}, "give one, not share and threshold"),
        ({"passes": [HALF, "sparsify{threshold=0.1}"]}, "sparsify is given twice"),
        ({"passes": HALF, "unverified": True}, "leave out unverified"),
        ({"passes": HALF, "plan_only": True}, "needs something to plan for"),
        ({"passes": "sparsify{threshold=1e-30}"}, "no weight of .* to zero"),
        ({"passes": 'sparsify{pattern="2:7"}'}, "1 input channels are no multiple of 7"),
    ],
)
def test_what_makes_no_sense_or_no_difference_is_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        api.optimize(NET, **given)


def test_a_model_without_products_is_refused() -> None:
    graph = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }'
    )
    with pytest.raises(UsageError, match="no product has a constant weight of its own"):
        api.optimize(graph, passes=HALF, threads=1)
