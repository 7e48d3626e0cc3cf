"""The verbs in Python: what they take, what they answer, what they leave alone."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphopt
from graphopt.errors import InputError, MachineError, UsageError
from graphopt.recipe import Recipe
from graphopt.testing import assert_equivalent
from tests.end_to_end.support import net, operators, stored
from tests.support.models import feed, run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return stored(net(), tmp_path / "net.onnx")


def optimized(model: Any, **options: Any) -> graphopt.Result:
    return graphopt.optimize(model, device="cpu", threads=1, **options)


# -- what a model may be ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [Path, str, onnx.load, ir.load, lambda path: SimpleNamespace(model=ir.load(path))],
    ids=["path", "text", "proto", "ir", "exporter's result"],
)
def test_kinds_of_models(given: Any, path: Path) -> None:
    result = optimized(given(path))
    assert list(operators(result.model)) == ["Conv", "Relu"] * 2
    assert result.report.verification is not None
    assert result.report.verification.passed


@pytest.mark.parametrize("given", [None, 7, b"\x08\x0a", [], {}, object(), np.zeros(3), onnx.GraphProto()])
def test_what_is_no_model(given: Any) -> None:
    for verb in (graphopt.optimize, graphopt.inspect, graphopt.bench):
        with pytest.raises(UsageError, match="is no model: give a path, an onnx"):
            verb(given)
    with pytest.raises(UsageError, match="is no model"):
        graphopt.check(net(), given)


def test_what_is_given_is_not_changed(path: Path) -> None:
    proto, graph, content = onnx.load(path), ir.load(path), path.read_bytes()
    before = graph.graph.num_nodes()
    optimized(proto)
    optimized(graph)
    optimized(path)
    assert proto == net()
    assert graph.graph.num_nodes() == before
    assert ir.to_proto(graph) == ir.to_proto(ir.from_proto(net()))
    assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == ["net.onnx"]


def test_a_model_in_memory_must_hold_its_weights(path: Path) -> None:
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.data", size_threshold=0)
    with pytest.raises(InputError, match="a model in memory must hold its weights"):
        optimized(onnx.load(path, load_external_data=False))


# -- what data may be ------------------------------------------------------------------------------------------------


IMAGES = np.random.default_rng(0).standard_normal((40, 3, 6, 6), np.float32)


@pytest.mark.parametrize(
    ("data", "samples", "synthetic"),
    [
        ({"x": IMAGES}, 40, False),
        ([{"x": IMAGES[:3]}, {"x": IMAGES[3:5]}], 5, False),
        (iter([({"x": IMAGES[:3]}, np.arange(3))]), 3, False),
        (lambda: iter([{"x": IMAGES}]), 40, False),
        ("random:3", 6, True),
    ],
    ids=["arrays", "feeds", "pairs", "function", "random"],
)
def test_kinds_of_data(data: Any, samples: int, synthetic: bool) -> None:  # noqa: FBT001
    report = optimized(net(), data=data).report
    assert report.data is not None
    assert (report.data.samples, report.data.synthetic) == (samples, synthetic)
    assert report.verification is not None
    assert report.verification.passed


def test_rows_are_cut_in_two_ways_so_that_a_baked_in_batch_shows() -> None:
    report = optimized(net(), data={"x": IMAGES}).report
    assert report.verification is not None
    assert report.verification.feeds == 2 + 4  # 32 and 8 rows; four times 7


def test_accuracy_is_told_for_scores_with_labels() -> None:
    text = "g (float[N,4] x) => (float[N,4] y) { i = Identity(x) y = Softmax(i) }"
    scores = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1]]
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    report = optimized(proto, data={"x": scores, "labels": np.array([0, 1, 2, 3, 1, 1])}).report
    assert report.verification is not None
    assert report.verification.metrics == {"accuracy": (5 / 6, 5 / 6), "agreement": (1.0, 1.0)}


def test_no_data_fits_nothing() -> None:
    with pytest.raises(UsageError, match=r"data cannot be a (int|object)|Data cannot be a"):
        optimized(net(), data=object())
    with pytest.raises(InputError):
        optimized(net(), data=[])


# -- what comes back -------------------------------------------------------------------------------------------------


def test_a_result_is_saved_as_its_model_says(tmp_path: Path) -> None:
    result = optimized(net())
    written = result.save(tmp_path / "out.onnx")
    assert written == tmp_path / "out.onnx"
    assert onnx.load(written) == result.model
    assert result.report.output.bytes == written.stat().st_size
    given = feed(net(), {"N": 4})
    np.testing.assert_allclose(run(net(), given)["y"], run(result.model, given)["y"], rtol=1e-4, atol=1e-4)


def test_saving_again_replaces_the_file_and_keeps_its_mode(tmp_path: Path) -> None:
    (out := tmp_path / "out.onnx").write_bytes(b"old")
    out.chmod(0o640)
    optimized(net()).save(str(out))
    assert onnx.load(out).graph.node
    assert out.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]


def test_saving_where_it_must_not(path: Path, tmp_path: Path) -> None:
    result = optimized(path)
    with pytest.raises(UsageError, match="is the source itself"):
        result.save(path)
    with pytest.raises(UsageError, match="is a folder"):
        result.save(tmp_path)
    with pytest.raises(MachineError, match="nothing was changed"):
        result.save(tmp_path / "no" / "out.onnx")
    assert result.save(path, force=True) == path


def test_a_file_that_came_out_wrong_is_not_emitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = optimized(net())
    wrong = net(seed=1).SerializeToString()
    monkeypatch.setattr("graphopt.graph.save._write", lambda path, _content: path.write_bytes(wrong))
    with pytest.raises(InputError, match="the written file does not do the original's job: output 'y' is off by"):
        result.save(tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_the_report_names_both_sides(path: Path) -> None:
    report = optimized(path).report
    assert report.source.name == str(path)
    assert (report.source.nodes, report.output.nodes) == (6, 4)
    assert report.source.macs == report.output.macs == 2 * 2 * 3 * 3 * 9 * 36
    assert report.timing is not None
    assert report.schema == 1
    assert optimized(net()).report.source.name == "model"


def test_an_unverified_result_has_nothing_that_needs_a_run() -> None:
    report = optimized(net(), unverified=True).report
    measured = (report.verification, report.data, report.provider, report.source.macs, report.timing)
    assert measured == (None,) * 5


def test_progress_is_told_and_by_default_logged(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    optimized(net(), progress=told.append)
    assert told[0] == "loading"
    assert told[-1] == "measuring"
    with caplog.at_level(logging.INFO, "graphopt"):
        optimized(net())
    assert [r.message for r in caplog.records if r.name == "graphopt"] == told


def test_a_recipe_may_be_given_as_an_object_or_a_file(path: Path, tmp_path: Path) -> None:
    recipe = Recipe.of(["clean"])
    (tmp_path / "recipe.toml").write_text(recipe.text(), encoding="utf-8")
    for given in (recipe, tmp_path / "recipe.toml", str(tmp_path / "recipe.toml")):
        assert optimized(path, recipe=given).recipe == recipe


@pytest.mark.parametrize("more", [{"passes": ["clean"]}, {"skip": ["a"]}, {"freeze": True}, {"keep_metadata": True}])
def test_a_recipe_is_given_alone(more: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="a recipe already says what to do"):
        optimized(net(), recipe=Recipe(), **more)


def test_check_answers_with_a_report() -> None:
    good, bad = graphopt.check(net(), net(), threads=1), graphopt.check(net(), net(seed=1), threads=1)
    assert good.passed
    assert not bad.passed
    assert bad.verification.outputs[0].note == "the error exceeds the tolerance"
    assert graphopt.check(net(), net(seed=1), atol=1e9).passed


def test_inspect_takes_several_models() -> None:
    first, second = graphopt.inspect(net(1), net(2))
    assert (first.facts.nodes, second.facts.nodes) == (3, 6)
    assert first.facts.operators == {"BatchNormalization": 1, "Conv": 1, "Relu": 1}
    assert graphopt.inspect() == ()


def test_bench_compares_two() -> None:
    timing = graphopt.bench(net(1), net(1), threads=1)
    assert timing.low <= timing.ratio <= timing.high
    assert timing.pairs >= 1


# -- what a report says of itself ------------------------------------------------------------------------------------


def test_a_verdict_has_a_truth_value() -> None:
    good, bad = graphopt.check(net(), net(), threads=1), graphopt.check(net(), net(seed=1), threads=1)
    assert good
    assert good.verification
    assert not bad
    assert not bad.verification


def test_a_result_is_shown_in_a_line(path: Path) -> None:
    assert repr(optimized(path)) == f"<Result for {path}: 6 → 4 nodes, verified>"
    assert repr(optimized(net(), unverified=True)) == "<Result for model: 6 → 4 nodes, unverified>"


def test_the_version_is_there_when_it_is_asked_for() -> None:
    assert graphopt.__version__ == optimized(net()).report.version


def test_the_report_names_every_edit() -> None:
    assert optimized(net()).report.edits[-2:] == ("fold_batchnorm at bn0", "fold_batchnorm at bn1")


def test_no_passes_are_run_if_none_are_wanted(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("version = 1\npasses = []\n")
    empty: list[dict[str, Any]] = [{"passes": []}, {"recipe": tmp_path / "recipe.toml"}, {"recipe": Recipe(())}]
    for options in empty:
        result = optimized(net(), **options)
        assert result.report.unchanged == "nothing was found to rewrite"
        assert result.report.steps == ()


def test_a_lone_word_is_a_list_of_it() -> None:
    result = optimized(net(), passes="fuse-linear", skip="bn0")
    assert [s.name for s in result.report.steps] == ["fuse-linear"]
    assert "BatchNormalization" in operators(result.model)


@pytest.mark.parametrize("given", [5, b"recipe.toml", ["clean"], {}])
def test_what_is_no_recipe(given: Any) -> None:
    with pytest.raises(UsageError, match="is no recipe: give a Recipe or the path of its file"):
        optimized(net(), recipe=given)


SCORES = onnx.parser.parse_model(
    '<ir_version: 10, opset_import: ["" : 21]> g (float[N,4] x) => (float[N,4] y) { y = Softmax(x) }'
)


def test_a_check_on_labelled_data_tells_how_well_both_do() -> None:
    data = {"x": np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1]], "labels": np.array([0, 1, 2, 3, 1, 1])}
    found = graphopt.check(SCORES, SCORES, data=data, threads=1)
    assert found.verification.metrics["accuracy"].before == 5 / 6
    assert found.verification.metrics == {"accuracy": (5 / 6, 5 / 6), "agreement": (1.0, 1.0)}
    worse = onnx.ModelProto()
    worse.CopyFrom(SCORES)
    worse.graph.node[0].op_type = "Neg"
    found = graphopt.check(SCORES, worse, data=data, threads=1)
    assert not found
    assert found.verification.metrics["accuracy"].after < 5 / 6
    other = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[N,4] x) => (float[N,4] z) { z = Softmax(x) }'
    )
    assert graphopt.check(SCORES, other, data=data, threads=1).verification.metrics == {}


CUSTOM = onnx.parser.parse_model(
    '<ir_version: 10, opset_import: ["" : 21, "a.b" : 1]> g (float[N,4] x) => (float[N,4] y) { y = a.b.Magic(x) }'
)


def test_a_batch_is_of_a_size_that_can_be_fed() -> None:
    assert graphopt.bench(net(1), batch=3, threads=1).rows == 3
    with pytest.raises(UsageError, match="give a smaller batch"):
        graphopt.bench(net(1), batch=2**31 - 1, threads=1)


def test_errors_say_which_of_two_models_they_are_about(tmp_path: Path) -> None:
    good, bad = stored(SCORES, tmp_path / "good.onnx"), stored(CUSTOM, tmp_path / "bad.onnx")
    for first, second in ((good, bad), (bad, good)):
        with pytest.raises(InputError, match=f"^{bad}: "):
            graphopt.bench(first, second, threads=1)
    with pytest.raises(InputError, match=f"^{bad}: "):
        graphopt.check(bad, good, threads=1)
    with pytest.raises(InputError, match=r"^the reference: "):
        graphopt.check(CUSTOM, SCORES, threads=1)
    with pytest.raises(InputError, match=r"^the other model: "):
        graphopt.bench(SCORES, CUSTOM, threads=1)
    with pytest.raises(InputError, match=f"^{tmp_path / 'no.onnx'} does not exist"):
        graphopt.check(good, tmp_path / "no.onnx")


# -- in people's own tests -------------------------------------------------------------------------------------------


def test_a_test_may_have_a_metric_of_its_own() -> None:
    values = iter((1.0, 0.25))

    def falling(_outputs: object) -> float:
        return next(values)

    with pytest.raises(AssertionError, match=r"max-drop\.falling: falls by 0\.75"):
        assert_equivalent(net(), net(), metric=falling, max_drop={"falling": 0.5})
