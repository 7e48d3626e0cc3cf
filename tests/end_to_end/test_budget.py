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
from graphopt.errors import InputError, UsageError, Verdict
from graphopt.run.data import rows_of
from graphopt.run.files import read_npz
from graphopt.run.session import Feed
from graphopt.workshop import Workshop

from .support import assert_fails, graphopt, provenance

MODELS = Path(__file__).parents[2] / "models"
NET, CALIBRATION, TEST = MODELS / "digits_resnet.onnx", MODELS / "digits_calib.npz", MODELS / "digits_test.npz"
VIT = MODELS / "digits_vit.onnx"


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


def test_the_curve_of_a_group_says_what_its_width_costs(done: tuple[Path, dict[str, Any]]) -> None:
    groups = done[1]["plan"]["groups"]
    assert all(str(g["after"]) in g["curve"] for g in groups)
    assert all(list(g["curve"].values()) == sorted(g["curve"].values()) for g in groups)


def test_what_the_file_said_of_shapes_is_not_held_against_a_smaller_model() -> None:
    report = api.optimize(MODELS / "digits_mobilenet.onnx", data=CALIBRATION, budget={"macs": 0.7}, target="cpu").report
    assert report.output.unknown_macs == 0
    assert report.source.macs is not None
    assert 0 < (report.output.macs or 0) < 0.7 * report.source.macs


def test_half_a_recurrent_network_does_as_well(tmp_path: Path) -> None:
    net, out = MODELS / "digits_lstm.onnx", tmp_path / "half.onnx"
    found = api.optimize(net, data=CALIBRATION, budget={"params": 0.5}, threads=1)
    found.save(out)
    assert found.report.output.params <= 0.5 * found.report.source.params
    before, after = (api.check(net, model, data=TEST).verification.metrics["accuracy"].after for model in (net, out))
    assert after > before - 0.008


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
    assert provenance(onnx.load(out))["graphopt.verdict"].startswith(
        "verified against the model as it was compressed on"
    )
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
    report = api.optimize(NET, data=CALIBRATION, max_drop={"agreement": 0.01}, threads=1).report
    assert report.verification is not None
    assert report.verification.metrics["agreement"].after >= 0.99
    assert report.output.macs is not None
    assert report.source.macs is not None
    assert report.output.macs < 0.5 * report.source.macs
    assert report.plan is not None
    assert {t.met for t in report.plan.tried} == {True, False}
    assert all(t.met == (t.metrics["agreement"].after >= 0.99) for t in report.plan.tried)
    assert [t.macs for t in report.plan.tried if t.chosen] == [min(t.macs for t in report.plan.tried if t.met)]


def test_without_data_noise_is_learned_from_and_said_to_be() -> None:
    report = api.optimize(NET, budget=["params=0.8"], threads=1).report
    assert report.data is not None
    assert report.data.synthetic
    assert report.output.params <= 0.8 * report.source.params


@pytest.mark.parametrize(
    "skip",
    [
        "/blocks/blocks.3/body/body.1/BatchNormalization/Conv",  # a group, by a name that rewriting made
        "/blocks/blocks.3/body/body.3/Conv",  # the node that reads it
    ],
)
def test_what_is_named_stays_whole(skip: str) -> None:
    words: dict[str, Any] = {"budget": {"macs": 0.6}, "plan_only": True, "threads": 1}
    plan = api.optimize(NET, data=CALIBRATION, skip=skip, **words).report.plan
    assert plan is not None
    assert [g.before == g.after for g in plan.groups if g.key.startswith("/blocks/blocks.3/body/body.1")] == [True]
    assert any(g.after < g.before for g in plan.groups)


def test_the_names_of_groups_are_those_that_inspect_tells() -> None:
    plan = api.optimize(VIT, data=CALIBRATION, budget={"macs": 0.9}, plan_only=True, threads=1).report.plan
    assert plan is not None
    assert [g.key for g in plan.groups] == [g.key for g in api.inspect(VIT, groups=True)[0].groups]


def test_a_name_of_nothing_is_told_under_a_budget_as_well() -> None:
    with pytest.raises(UsageError, match="has no node or group with the key '/head/Gem'; did you mean '/head/Gemm'"):
        api.optimize(NET, data=CALIBRATION, budget={"macs": 0.5}, skip="/head/Gem", threads=1)


def test_where_nothing_can_be_cut_that_is_the_verdict(tmp_path: Path) -> None:
    out, model = tmp_path / "none.onnx", tmp_path / "relu.onnx"
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }'
    onnx.save(onnx.parser.parse_model(text), model)
    assert_fails(graphopt("optimize", model, "-o", out, "--budget", "macs=0.5"), 1, "can be cut")
    assert not out.exists()


def test_a_budget_out_of_reach_emits_nothing(tmp_path: Path) -> None:
    out = tmp_path / "none.onnx"
    answer = graphopt("optimize", NET, "-o", out, "--data", CALIBRATION, "--budget", "macs=0.0001")
    assert_fails(answer, 1, "macs")
    assert not out.exists()


def test_a_drop_of_what_cannot_be_measured_is_told_before_anything_is_learned() -> None:
    said: list[str] = []
    with pytest.raises(UsageError, match="'accuracy' cannot be measured on this model and data; it needs `labels`"):
        api.optimize(NET, budget={"macs": 0.5}, max_drop={"accuracy": 0.01}, threads=1, progress=said.append)
    assert "ordering channels" not in said


def test_noise_tells_the_same_whatever_the_order_of_the_data() -> None:
    arrays = read_npz(CALIBRATION)
    order = np.random.default_rng(1).permutation(len(arrays["labels"]))
    given = (arrays, {name: array[order] for name, array in arrays.items()})
    one, other = (api.optimize(NET, data=d, budget={"macs": 0.2}, threads=1).report.verification for d in given)
    assert one is not None
    assert other is not None
    assert one.noise == other.noise
    assert [n.level for n in one.noise] == [0.0, 0.05, 0.1, 0.2, 0.4]
    clean, worst = one.noise[0].metrics, one.noise[-1].metrics
    assert clean["agreement"] == one.metrics["agreement"]
    assert worst["sqnr"].before < 20
    assert worst["sqnr"].after < clean["sqnr"].after


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_teaches_nothing(value: float) -> None:
    arrays = {name: array.copy() for name, array in read_npz(CALIBRATION).items()}
    arrays[onnx.load(NET).graph.input[0].name][5:] = value  # of few such samples, only these are left out
    with pytest.raises(InputError, match="leave out samples with nan"):
        api.optimize(NET, data=arrays, budget={"macs": 0.5}, threads=1)


def test_a_drop_that_nothing_keeps_is_a_verdict() -> None:
    with pytest.raises(Verdict, match="within the allowed drop"):
        api.optimize(NET, data=CALIBRATION, budget={"macs": 0.1}, max_drop={"sqnr": 90.0}, threads=1)


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
