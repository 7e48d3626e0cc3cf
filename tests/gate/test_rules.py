"""Every line of a policy has a candidate that keeps to it and one that does not."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import pytest

import graphopt
from graphopt.errors import GraphoptError, UsageError
from graphopt.gate.metric import Outputs
from graphopt.gate.rules import RULES, Row
from graphopt.report.data import CheckReport
from tests.end_to_end.support import net, stored
from tests.support.models import parse

NET = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,3] y) <float[4,3] w = {
1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.2, 0.1, 0.3}> { p = MatMul(x, w) y = %s }"""
SAME = NET % "Identity(p)"
TURNED = NET % "Neg(p)"
"""Other classes, and infinitely far from the original in every way."""
RENAMED = SAME.replace(" y", " z")
GELU = SAME.replace('["" : 17]', '["" : 17, "com.microsoft" : 1]').replace("Identity(p)", "com.microsoft.Gelu(p)")
X = np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32)
DATA: Mapping[str, np.ndarray] = MappingProxyType(
    {"x": X, "labels": (X @ np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.2, 0.1, 0.3]])).argmax(axis=1)}
)

Case = tuple[Any, Any, str, Any]
"""The limit that is kept, the limit that is not, the row's key, and the candidate that fails."""

CASES: Mapping[str, Case] = MappingProxyType(
    {
        "interface": (True, True, "interface", RENAMED),
        "equal": (True, True, "equal", TURNED),
        "atol": (1e-3, 1e-3, "equal", TURNED),
        "rtol": (1e-3, 1e-3, "equal", TURNED),
        "max-drop": ({"accuracy": 0.1}, {"accuracy": 0.1}, "max-drop.accuracy", TURNED),
        "min-agreement": (0.95, 0.999, "min-agreement", SAME),
        "min-sqnr": (60, 60, "min-sqnr", TURNED),
        "min-cosine": (0.99, 0.99, "min-cosine", TURNED),
        "max-error": (0.01, 0.01, "max-error", TURNED),
        "max-relative-error": (0.01, 0.01, "max-relative-error", TURNED),
        "max-latency": (1000, 0.001, "max-latency", SAME),
        "max-bytes": (1.5, 0.5, "max-bytes", SAME),
        "max-params": (1, 0.5, "max-params", SAME),
        "max-macs": (1, 0.5, "max-macs", SAME),
        "max-opset": (17, 16, "max-opset", SAME),
        "operators": (["Identity", "MatMul"], ["Identity"], "operators", SAME),
        "domains": (["ai.onnx"], ["ai.onnx"], "domains", GELU),
        "onnxruntime": ("1.12", "1.11", "onnxruntime", SAME),
        "provider": ("cpu", "cuda", "provider", SAME),
        "max-elsewhere": (0, 0, "max-elsewhere", SAME),
    }
)
FROM_FILES = {"synthetic", "source", "recipe", "verified"}


def check(candidate: Any, policy: Mapping[str, Any], **given: Any) -> CheckReport:
    options = {"data": dict(DATA), "device": "cpu", "threads": 1, **given}
    return graphopt.check(parse(SAME), parse(candidate), policy=policy, **options)


def row(report: CheckReport, key: str) -> Row:
    (found,) = (r for r in report.rows if r.key == key)
    return found


def test_every_rule_is_tried() -> None:
    assert {*CASES, *FROM_FILES} == set(RULES)


ALONE = {"atol", "rtol", "max-elsewhere"}
"""Lines that would change what others say, or need another machine."""


@cache
def kept() -> CheckReport:
    """A candidate that keeps to everything."""
    return check(SAME, {key: case[0] for key, case in CASES.items() if key not in ALONE})


@cache
def broken(candidate: str, alone: str = "") -> CheckReport:
    """One that breaks all lines that it is given for, or one of them."""
    keys = [k for k, case in CASES.items() if case[3] is candidate and (k == alone if alone else k not in ALONE)]
    return check(candidate, {key: CASES[key][1] for key in keys})


@pytest.mark.parametrize("key", sorted({*CASES} - {"max-elsewhere"}))
def test_a_line_is_kept_or_not(key: str) -> None:
    _, _, name, candidate = CASES[key]
    report = broken(candidate, key if key in ALONE else "")
    assert row(kept(), name)
    assert not row(report, name)
    assert not report


def test_what_keeps_to_every_line_has_passed() -> None:
    assert kept()


def test_nodes_that_run_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphopt.gate import measured  # noqa: PLC0415 - what is replaced is said beside it
    from graphopt.run.placement import Node, Placement  # noqa: PLC0415

    assert row(check(SAME, {"max-elsewhere": 0}), "max-elsewhere")
    place = Placement("CUDAExecutionProvider", 1, (Node("NonZero", "n", "CPUExecutionProvider"),))
    monkeypatch.setattr(measured.Measured, "placed", ("CUDAExecutionProvider", place, ""))
    report = check(SAME, {"max-elsewhere": 0, "provider": "cuda"})
    assert row(report, "provider")
    assert row(report, "max-elsewhere").value == 1
    assert not report


def test_made_up_data_is_refused_by_a_policy_alone() -> None:
    assert [r.key for r in check(SAME, {"max-bytes": 2}, data=None).rows if not r] == ["synthetic"]
    assert check(SAME, {"max-bytes": 2, "synthetic": True}, data="random:5")
    assert graphopt.check(parse(SAME), parse(SAME), data="random:5", max_bytes=2, device="cpu", threads=1)


def test_where_a_model_is_from(tmp_path: Path) -> None:
    source = stored(net(6, channels=8), tmp_path / "net.onnx")
    result = graphopt.optimize(source, device="cpu", threads=1)
    made = result.save(tmp_path / "made.onnx")
    (recipe := tmp_path / "recipe.toml").write_text(result.recipe.text())
    (other := tmp_path / "other.toml").write_text('version = 1\npasses = ["clean"]')
    lines = {"source": True, "recipe": str(recipe), "verified": True, "synthetic": True}

    def keys(first: Path, second: Path, **changed: Any) -> list[str]:
        found = graphopt.check(first, second, policy=lines | changed, device="cpu", threads=1)
        return [r.key for r in found.rows if not r]

    assert keys(source, made) == []
    assert keys(source, made, recipe=str(other)) == ["recipe"]
    assert keys(made, made) == ["source"], "it was made from another one"
    assert keys(source, source) == ["source", "recipe", "verified"], "it does not say"
    model = onnx.load(made)
    next(p for p in model.metadata_props if p.key == "graphopt.verdict").value = "unverified"
    assert keys(source, stored(model, tmp_path / "unverified.onnx")) == ["verified"]


def test_what_cannot_be_told_is_not_passed() -> None:
    plain = {k: v for k, v in DATA.items() if k != "labels"}
    report = check(SAME, {"max-drop": {"f1": 0.5}}, data=plain)
    assert not report
    assert row(report, "max-drop.f1").text == (
        "cannot be told: it needs an output of scores and `labels` in the data; there is: agreement, sqnr, cosine"
    )
    assert "is now called 'z'" in row(check(RENAMED, {"min-sqnr": 1}), "min-sqnr").text


def spread(batches: Outputs) -> float:
    """The mean of the score of what is there."""
    return float(np.mean([outputs["y"][np.arange(len(t)), t].mean() for outputs, t in batches if t is not None]))


def test_a_metric_of_ones_own() -> None:
    same = check(SAME, {"max-drop": {"spread": 0}}, metric=f"{Path(__file__)}:spread")
    assert same
    assert row(same, "max-drop.spread").value == 0
    assert not check(TURNED, {}, metric=spread, max_drop=["spread=0.01"])
    with pytest.raises(UsageError, match="no line asks for the metric 'spread': give max_drop for it"):
        check(SAME, {"max-bytes": 1}, metric=spread)
    with pytest.raises(UsageError, match="the metric 'spread' failed: KeyError: 'y'"):
        graphopt.check(parse(RENAMED), parse(RENAMED), data=dict(DATA), metric=spread, max_drop={"spread": 1})


@pytest.mark.parametrize("code", [0, 143])
def test_a_metric_does_not_decide_how_a_check_ends(code: int) -> None:
    def leaves(_: Outputs) -> float:
        raise SystemExit(code)  # as sys.exit does, and a signal that asks the process to end

    with pytest.raises(SystemExit if code else UsageError, match=str(code)):
        check(SAME, {"max-drop": {"leaves": 1}}, metric=leaves)


BESIDE = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,4] x) => (float[N,4] y, %s z) {
    y = Identity(x)
    h = %s(x)
    %s
}"""


@pytest.mark.parametrize(
    ("kind", "last"), [("bfloat16[N,4]", "z = Cast <to = 16> (h)"), ("seq(float[N,4])", "z = SequenceConstruct(h)")]
)
def test_outputs_of_every_form_of_floats_count(kind: str, last: str) -> None:
    models = [parse(BESIDE % (kind, how, last)) for how in ("Exp", "Neg")]
    report = graphopt.check(*models, policy={"min-sqnr": 3}, data={"x": X}, device="cpu", threads=1)
    assert row(report, "min-sqnr").text.endswith("dB, at least 3.0 dB (output 'z')")
    assert not row(report, "min-sqnr")


def test_text_is_compared_where_data_is_given() -> None:
    text = "g (float[N,4] x) => (string[N] z) { h = %s <axis = 1, keepdims = 0> (x)\n z = Cast <to = 8> (h) }"
    models = [parse(text % f"Arg{which}") for which in ("Max", "Min")]
    report = graphopt.check(*models, data={"x": X}, blame=True, device="cpu", threads=1)
    assert "values differ" in next(r.text for r in report.rows if not r)
    assert graphopt.check(models[0], models[0], data={"x": X}, device="cpu", threads=1)


def test_nothing_is_blamed_where_no_output_is_in_common() -> None:
    report = graphopt.check(parse(SAME), parse(RENAMED), data=dict(DATA), blame=True, device="cpu", threads=1)
    assert not report
    assert report.blame is None


@pytest.mark.parametrize("metric", ["spread", "no.module:spread", 3, lambda _: 0.0])
def test_what_is_no_metric(metric: Any) -> None:
    with pytest.raises(GraphoptError):
        check(SAME, {}, metric=metric)


def test_limits_take_the_place_of_equality_and_tolerances_bring_it_back() -> None:
    near = SAME.replace("0.3}", "0.31}")
    assert not graphopt.check(parse(SAME), parse(near), data=dict(DATA), device="cpu", threads=1)
    assert check(near, {"min-sqnr": 20})
    assert check(near, {"equal": False})
    assert [r.key for r in check(near, {"min-sqnr": 20, "equal": True}).rows if not r] == ["equal"]
    assert check(near, {"min-sqnr": 20, "atol": 0.1})
    assert not check(near, {"max-bytes": 2}), "what says nothing of how well it does leaves equality as it is"


def test_what_is_not_finite_in_one_of_both_is_far() -> None:
    lines = {"min-sqnr": 1, "max-error": 1e9, "min-cosine": -0.5}
    assert [r.key for r in check(NET % "Log(p)", lines).rows if not r] == ["min-sqnr", "min-cosine", "max-error"]


def test_rows_are_in_the_report() -> None:
    report = check(SAME, {"max-bytes": 2, "min-sqnr": 3})
    assert [r.key for r in report.rows] == ["interface", "synthetic", "min-sqnr", "max-bytes"]
    assert '"max-bytes"' in report.to_json()
    assert report.distances[0].name == "y"
