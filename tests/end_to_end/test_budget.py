"""A budget goes in, a smaller model comes out, and what that costs is told."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphopt as api
from graphopt.errors import UsageError, Verdict
from graphopt.run.data import rows_of
from graphopt.run.files import read_npz
from graphopt.run.session import Feed
from graphopt.workshop import Workshop

from .support import assert_fails, graphopt, provenance

MODELS = Path(__file__).parents[2] / "models"
NET, CALIBRATION, TEST = MODELS / "digits_resnet.onnx", MODELS / "digits_calib.npz", MODELS / "digits_test.npz"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The ResNet of `models/` with half of its work, and the report."""
    folder = tmp_path_factory.mktemp("budget")
    out = folder / "half.onnx"
    words = ("--budget", "macs=0.5", "--save-recipe", folder / "half.toml", "--json", folder / "half.json")
    answer = graphopt("optimize", NET, "-o", out, "--data", CALIBRATION, "--threads", "1", *words)
    assert answer.code == 0, answer.err
    assert answer.err.index("accuracy falls by") < answer.err.index("MACs")
    return out, json.loads((folder / "half.json").read_text())


def test_the_budget_is_met_and_the_accuracy_stays(done: tuple[Path, dict[str, Any]]) -> None:
    out, report = done
    assert report["output"]["macs"] <= 0.5 * report["source"]["macs"]
    before, after = (api.check(NET, model, data=TEST).verification.metrics["accuracy"].after for model in (NET, out))
    assert after > before - 0.02
    onnx.checker.check_model(onnx.load(out), full_check=True)


def test_the_report_says_what_was_cut_and_what_it_costs(done: tuple[Path, dict[str, Any]]) -> None:
    _, report = done
    plan = report["plan"]
    assert plan["budget"] == {"macs": 0.5}
    assert plan["calibrated"] + plan["judged"] == report["data"]["samples"]
    assert any(g["after"] < g["before"] for g in plan["groups"])
    assert plan["tried"][-1]["met"]
    assert {"accuracy", "f1", "agreement", "sqnr", "cosine"} <= report["verification"]["metrics"].keys()


def test_a_recipe_with_the_plan_gives_the_same_bytes(done: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, _ = done
    recipe = out.with_suffix(".toml")
    assert tomllib.loads(recipe.read_text())["plan"]
    assert "[plan]" in provenance(onnx.load(out))["graphopt.recipe"]
    again = tmp_path / "again.onnx"
    words = ("--data", CALIBRATION, "--recipe", recipe, "--threads", "1", "-q")
    assert graphopt("optimize", NET, "-o", again, *words).code == 0
    assert again.read_bytes() == out.read_bytes()


def test_the_order_of_the_data_and_how_it_is_cut_change_nothing() -> None:
    name = onnx.load(NET).graph.input[0].name
    rows = read_npz(CALIBRATION)[name]
    order = np.random.default_rng(0).permutation(len(rows))
    given = [[{name: rows}], [{name: rows[part]} for part in np.array_split(order, 9)]]
    first, second = (
        api.optimize(NET, data=feeds, budget={"params": 0.7}, threads=1).model.graph.SerializeToString()
        for feeds in given
    )
    assert first == second


@pytest.mark.parametrize(("name", "key"), [("digits_vit", "query"), ("digits_lstm", "LSTM")])
def test_what_no_plain_product_reads_has_a_curve_as_well(name: str, key: str) -> None:
    """Queries and keys meet in a product of two data tensors; hidden units are read by their own layer."""
    plan = api.optimize(MODELS / f"{name}.onnx", data=CALIBRATION, budget={"macs": 0.5}, plan_only=True).report.plan
    assert plan is not None
    mine = [g for g in plan.groups if key in g.key]
    assert mine
    for group in mine:
        losses = list(group.curve.values())
        assert losses[0] == 0
        assert 0 < losses[1] < losses[-1]
    assert any(g.after < g.before for g in mine)


def test_only_a_plan(tmp_path: Path) -> None:
    out = tmp_path / "none.onnx"
    recipe = tmp_path / "plan.toml"
    words = ("--data", CALIBRATION, "--budget", "params=0.5", "--plan-only", "--json", "-", "--save-recipe", recipe)
    answer = graphopt("optimize", NET, "-o", out, *words)
    assert answer.code == 0
    assert tomllib.loads(recipe.read_text())["plan"]
    assert not out.exists()
    assert any(g["after"] < g["before"] for g in json.loads(answer.out)["plan"]["groups"])


def test_the_smallest_model_within_a_drop() -> None:
    report = api.optimize(NET, data=CALIBRATION, max_drop={"agreement": 0.1}, threads=1).report
    assert report.verification is not None
    assert report.verification.metrics["agreement"].after >= 0.9
    assert report.output.macs is not None
    assert report.source.macs is not None
    assert report.output.macs < 0.5 * report.source.macs


def test_without_data_noise_is_learned_from_and_said_to_be() -> None:
    report = api.optimize(NET, budget=["params=0.8"], threads=1).report
    assert report.data is not None
    assert report.data.synthetic
    assert report.output.params <= 0.8 * report.source.params


def test_a_budget_out_of_reach_emits_nothing(tmp_path: Path) -> None:
    out = tmp_path / "none.onnx"
    answer = graphopt("optimize", NET, "-o", out, "--data", CALIBRATION, "--budget", "macs=0.0001")
    assert_fails(answer, 1, "macs")
    assert not out.exists()


def test_a_drop_that_nothing_keeps_is_a_verdict() -> None:
    with pytest.raises(Verdict, match="within the allowed drop"):
        api.optimize(NET, data=CALIBRATION, budget={"macs": 0.03}, max_drop={"agreement": 0.0}, threads=1)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"budget": {"macs": 2}}, "is no share"),
        ({"budget": ["speed=0.5"]}, "there is no budget 'speed'"),
        ({"budget": {"macs": 0.5}, "unverified": True}, "leave out unverified"),
        ({"plan_only": True}, "needs something to plan for"),
        ({"max_drop": {"accuracy": -1}}, "is no drop"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        api.optimize(NET, **given)


def test_what_is_timed_is_what_is_emitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock for which a model takes as long as it has weights, on the feed that reports time as well."""
    timed = list[tuple[onnx.ModelProto, int]]()

    def clock(workshop: Workshop, model: ir.Model, feed: Feed) -> float:
        made, given = (m if isinstance(m, bytes) else m.content for m in (workshop.finish(model), workshop.reference))
        timed.append((onnx.load_from_string(made), rows_of(feed)))
        return len(made) / len(given)

    monkeypatch.setattr(Workshop, "_timed", clock)
    result = api.optimize(NET, data=CALIBRATION, budget={"latency": 0.6}, target="cpu", threads=1)
    assert result.report.plan is not None
    (tried,) = result.report.plan.tried
    assert tried.latency is not None
    assert 0.5 < tried.latency <= 0.6
    last, rows = timed[-1]
    assert [n.op_type for n in last.graph.node] == [n.op_type for n in result.model.graph.node]
    assert any(n.domain for n in last.graph.node)  # the target's own operators
    assert result.report.timing is not None
    assert rows == result.report.timing.rows
