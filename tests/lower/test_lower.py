"""The second rewrite as a whole: what it makes of models, and that others understand the result."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

import graphopt
from graphopt.graph.load import load
from graphopt.lower import Lower
from graphopt.targets import TARGETS
from tests.end_to_end.support import DATA, MODELS, NETS
from tests.support.models import parse, rewritten, run

CONV = """g (float[N,1,3,3] x) => (float[N,2,3,3] y) <float[2,1,1,1] w = {1.5, -0.5}>
    { c = Conv (x, w) y = Relu (c) }"""


def own(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node if node.domain == "com.microsoft")


@pytest.fixture(scope="module", params=NETS)
def lowered(request: pytest.FixtureRequest) -> graphopt.Result:
    return graphopt.optimize(MODELS / f"{request.param}.onnx", data=DATA, target="cpu", threads=1)


def test_a_lowered_model_is_verified_and_smaller(lowered: graphopt.Result) -> None:
    portable = graphopt.optimize(lowered.report.source.name, data=DATA, threads=1)
    assert lowered.report.verification is not None
    assert lowered.report.verification.passed
    assert lowered.report.output.nodes <= portable.report.output.nodes
    assert lowered.report.output.macs == portable.report.output.macs


def test_lowering_again_gives_the_same_bytes(lowered: graphopt.Result, tmp_path: Path) -> None:
    first = lowered.save(tmp_path / "first.onnx")
    second = graphopt.optimize(first, data=DATA, target="cpu", threads=1).save(tmp_path / "second.onnx")
    assert first.read_bytes() == second.read_bytes()


def test_a_lowered_model_can_be_checked_and_inspected(lowered: graphopt.Result, tmp_path: Path) -> None:
    small = lowered.save(tmp_path / "small.onnx")
    assert graphopt.check(lowered.report.source.name, small, data=DATA, threads=1)
    assert graphopt.inspect(small)


def test_images_get_fused_convolutions() -> None:
    result = graphopt.optimize(MODELS / "digits_mobilenet.onnx", target="cpu", unverified=True)
    assert own(result.model)["FusedConv"] > 0
    assert {o.domain: o.version for o in result.model.opset_import}["com.microsoft"] == 1


def test_a_portable_model_has_none_of_the_runtimes_operators() -> None:
    result = graphopt.optimize(MODELS / "digits_mobilenet.onnx", unverified=True)
    assert not own(result.model)
    assert [o.domain for o in result.model.opset_import] == [""]


@pytest.mark.parametrize("target", TARGETS)
def test_only_what_the_target_takes_is_put_in(target: str) -> None:
    for net in NETS:
        result = graphopt.optimize(MODELS / f"{net}.onnx", target=target, unverified=True)
        taken = {name.removeprefix("com.microsoft::") for name in TARGETS[target].operators}
        assert own(result.model).keys() <= taken


def test_what_is_made_for_cuda_runs_and_is_verified_on_any_machine() -> None:
    result = graphopt.optimize(MODELS / "digits_vit.onnx", data=DATA, target="cuda", device="cpu", threads=1)
    assert own(result.model)["SkipLayerNormalization"] > 0
    assert result.report.verification is not None
    assert result.report.verification.passed


def test_the_opset_of_the_runtime_is_imported_where_it_is_used() -> None:
    result = rewritten(load(parse(CONV)), [Lower()], target="cpu")
    assert {o.domain: o.version for o in result.model.opset_import} == {"": 21, "com.microsoft": 1}
    assert not rewritten(load(parse(CONV)), [Lower()]).edits


def test_infinite_and_missing_numbers_come_through_an_activation() -> None:
    given = parse(CONV)
    feed = {"x": np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1, -1, 2, -2], np.float32).reshape(1, 1, 3, 3)}
    made = rewritten(load(given), [Lower()], target="cpu").model
    assert np.array_equal(run(given, feed)["y"], run(made, feed)["y"], equal_nan=True)
