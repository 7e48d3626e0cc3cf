"""What options do to a graph, and models of unusual kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import external_data_helper  # noqa: TID251 - to write

import graphopt
from tests.end_to_end.support import (
    DATA,
    MODELS,
    command,
    contents,
    interface,
    net,
    operators,
    provenance,
    stored,
    tensor,
)
from tests.end_to_end.support import graphopt as process
from tests.support.models import differences, feed, parse, run


def optimized(model: onnx.ModelProto | str, *, edited: bool = True, **options: object) -> graphopt.Result:
    """The verified result for a model of this test."""
    given = parse(model) if isinstance(model, str) else model
    result = graphopt.optimize(given, threads=1, device="cpu", **options)  # type: ignore[arg-type]
    assert result.report.verification is not None
    assert result.report.verification.passed
    assert (result.report.unchanged is None) == edited, result.report.unchanged
    assert interface(result.model) == interface(given)
    return result


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto, **dims: int) -> None:
    given = feed(before, dims, seed=3)
    assert not differences(run(before, given), run(after, given), relative=1e-5)


# -- options ---------------------------------------------------------------------------------------------------------


def test_skip_leaves_a_node_as_it_is(tmp_path: Path) -> None:
    model = stored(net(3), tmp_path / "net.onnx")
    assert command("optimize", model, "--skip", "bn1", "-q").code == 0
    result = onnx.load(tmp_path / "net.opt.onnx")
    assert [n.name for n in result.graph.node if n.op_type == "BatchNormalization"] == ["bn1"]
    assert list(operators(result)).count("Conv") == 3
    assert_same(net(3), result, N=2)


def test_skip_may_be_repeated() -> None:
    result = optimized(net(3), skip=["bn0", "bn2"])
    assert [n.name for n in result.model.graph.node if n.op_type == "BatchNormalization"] == ["bn0", "bn2"]


def test_a_node_that_nothing_reads_stays_if_it_is_skipped() -> None:
    text = "g (float[N] x) => (float[N] y) { [dead] d = Neg(x) [same] i = Identity(x) y = Abs(i) }"
    assert list(operators(optimized(text, skip=["dead"]).model)) == ["Neg", "Abs"]


def test_keep_metadata_keeps_what_the_exporter_noted(tmp_path: Path) -> None:
    source, kept, stripped = MODELS / "digits_mobilenet.onnx", tmp_path / "kept.onnx", tmp_path / "stripped.onnx"
    assert command("optimize", source, "-o", stripped, "-q").code == 0
    assert command("optimize", source, "-o", kept, "--keep-metadata", "-q").code == 0
    assert not any(n.metadata_props or n.doc_string for n in onnx.load(stripped).graph.node)
    noted = [n for n in onnx.load(kept).graph.node if n.metadata_props]
    before = {n.name: n.metadata_props for n in onnx.load(source).graph.node}
    assert all(list(n.metadata_props) == list(before[n.name]) for n in noted if n.name in before)
    assert len(noted) > 10
    assert list(operators(onnx.load(kept))) == list(operators(onnx.load(stripped)))


def test_passes_are_run_as_they_are_named() -> None:
    assert "BatchNormalization" in set(operators(optimized(net(), passes=["clean", "fold"], edited=False).model))
    result = optimized(net(), passes=["fuse-linear"])
    assert [s.name for s in result.report.steps] == ["fuse-linear"]


OVERRIDABLE = """g (float[N,3] x, float[3,3] w, float[3] b) => (float[N,3] y)
<float[3,3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}, float[3] b = {1, 2, 3}, float[3] s = {2, 2, 2}>
{ [product] p = MatMul(x, w) [sum] a = Add(p, b) y = Mul(a, s) }"""


def test_overridable_weights_stay_inputs() -> None:
    result = optimized(OVERRIDABLE, edited=False)
    assert [i.name for i in result.model.graph.input] == ["x", "w", "b"]
    assert result.report.notes == ("overridable: 2 weights; --freeze makes constants of them",)


def test_freeze_makes_constants_of_them(tmp_path: Path) -> None:
    model = stored(OVERRIDABLE, tmp_path / "m.onnx")
    answer = command("optimize", model, "--freeze")
    assert answer.code == 0
    assert "note: 2 overridable weights were made constants" in answer.err
    result = onnx.load(tmp_path / "m.opt.onnx")
    assert [i.name for i in result.graph.input] == ["x"]
    assert len(result.graph.node) < 3
    assert_same(parse(OVERRIDABLE), result, N=2)


def test_freeze_alone_is_a_change() -> None:
    text = "g (float[N] x, float w) => (float[N] y) <float w = {2}> { y = Pow(x, w) }"
    result = optimized(text, freeze=True)
    assert [i.name for i in result.model.graph.input] == ["x"]


# -- unusual models --------------------------------------------------------------------------------------------------


def test_an_old_model_whose_weights_had_to_be_inputs() -> None:
    proto = parse('<ir_version: 3, opset_import: ["" : 8]> ' + OVERRIDABLE)
    result = optimized(proto)
    assert result.model.ir_version == 4
    assert [i.name for i in result.model.graph.input] == ["x"]
    assert "IR version 3 becomes 4" in result.report.notes[0]
    assert result.model.opset_import[0].version == 8
    assert_same(proto, result.model, N=2)


def test_what_is_random_stays_and_the_rest_is_verified() -> None:
    text = """g (float[N,3] x) => (float[N,3] y) <float[2] s = {4, 3}>
    { a = RandomNormal<shape = [3]>() b = RandomNormal<shape = [3]>() i = Identity(x) c = Add(a, b) y = Add(i, c) }"""
    result = optimized(text)
    assert list(operators(result.model)) == ["RandomNormal", "RandomNormal", "Add", "Add"]
    assert all(not any(a.name == "seed" for a in n.attribute) for n in result.model.graph.node)


def test_an_edited_random_model_is_saved(tmp_path: Path) -> None:
    model = stored(
        "g (float[N,3] x) => (float[N,3] y) { i = Identity(x) r = RandomNormalLike(i) d = Neg(i) y = Add(d, r) }",
        tmp_path / "random.onnx",
    )
    answer = command("optimize", model, "--json", "-")
    assert answer.code == 0, answer.err
    assert answer.json["verification"]["passed"]
    assert list(operators(onnx.load(tmp_path / "random.opt.onnx"))) == ["RandomNormalLike", "Neg", "Add"]


BRANCHES = """g (float[N,3] x, bool c) => (float[N,3] y) <float[1] two = {2}> {
  i = Identity(x)
  t = If (c) <
    then_branch = yes () => (float[N,3] a) { p = Identity(i) q = Mul(p, two) a = Identity(q) },
    else_branch = no () => (float[N,3] b) { k = Constant<value_float = 1.0>() m = Add(i, k) n = Identity(m) b = Neg(n) }
  >
  y = Neg(t)
}"""
LOOP = """g (float[N] x, int64 n) => (float[N] y) <bool go = {1}> {
  i = Identity(x)
  y = Loop (n, go, i) <
    body = step (int64 k, bool c, float[N] a) => (bool d, float[N] z) {
      d = Identity(c) j = Identity(a) h = Mul(j, j) z = Add(h, i)
    }
  >
}"""


@pytest.mark.parametrize(
    ("text", "extra"), [(BRANCHES, {"c": np.array([True, False])}), (LOOP, {"n": np.array([0, 1, 3])})]
)
def test_bodies_of_control_flow_are_rewritten_and_still_right(text: str, extra: dict[str, np.ndarray]) -> None:
    before = parse(text)
    after = optimized(text).model
    assert str(after).count('"Identity"') < str(before).count('"Identity"')
    ((name, values),) = extra.items()
    for value in values:
        given = feed(before, {"N": 2}) | {name: np.asarray(value)}
        assert not differences(run(before, given), run(after, given), relative=1e-6)


def test_local_functions_become_nodes() -> None:
    proto = parse(
        """<ir_version: 10, opset_import: ["" : 21, "my" : 1]>
        g (float[N] x) => (float[N] y) { i = Identity(x) a = my.twice(i) y = Neg(a) }
        <domain: "my", opset_import: ["" : 21]> twice (p) => (q) { s = Identity(p) q = Add(s, s) }"""
    )
    result = optimized(proto)
    assert [n.op_type for n in result.model.graph.node] == ["Add", "Neg"]
    assert not result.model.functions
    assert_same(proto, result.model, N=2)


def external(folder: Path) -> Path:
    """A net whose weights are beside it."""
    folder.mkdir()
    model, path = net(3, channels=16), folder / "net.onnx"
    external_data_helper.convert_model_to_external_data(model, location="net.data", size_threshold=64)
    onnx.save(model, path)
    assert (folder / "net.data").stat().st_size > 10_000
    return path


def test_external_data_in_and_a_single_file_out_that_runs_elsewhere(tmp_path: Path) -> None:
    source, out = external(tmp_path / "in"), tmp_path / "out" / "net.onnx"
    out.parent.mkdir()
    size = sum(p.stat().st_size for p in source.parent.iterdir())
    answer = process("optimize", "net.onnx", "-o", out, "--json", "-", cwd=source.parent)
    assert answer.code == 0, answer.err
    assert answer.json["verification"]["passed"]
    assert answer.json["source"]["bytes"] == size
    assert answer.json["output"]["bytes"] == out.stat().st_size < size
    assert [p.name for p in out.parent.iterdir()] == ["net.onnx"]
    assert_same(onnx.load(source), onnx.load_from_string(out.read_bytes()), N=2)


def test_external_data_of_a_model_that_needs_no_rewriting(tmp_path: Path) -> None:
    first = graphopt.optimize(external(tmp_path / "a")).model
    folder = tmp_path / "b"
    folder.mkdir()
    external_data_helper.convert_model_to_external_data(first, location="net.data", size_threshold=64)
    onnx.save(first, folder / "net.onnx")
    out = tmp_path / "out.onnx"
    answer = command("optimize", folder / "net.onnx", "-o", out, "--json", "-")
    assert answer.code == 0, answer.err
    assert answer.json["unchanged"] == "nothing was found to rewrite"
    assert_same(onnx.load(folder / "net.onnx"), onnx.load_from_string(out.read_bytes()), N=2)
    assert answer.json["output"]["bytes"] == out.stat().st_size


@pytest.mark.parametrize("location", ["../net.data", "missing.data"])
def test_external_data_outside_or_missing_is_refused(location: str, tmp_path: Path) -> None:
    source = external(tmp_path / "in")
    (tmp_path / "net.data").write_bytes((tmp_path / "in" / "net.data").read_bytes())
    model = onnx.load(source, load_external_data=False)
    for weight in model.graph.initializer:
        for entry in weight.external_data:
            if entry.key == "location":
                entry.value = location
    source.write_bytes(model.SerializeToString())
    answer = command("optimize", source)
    assert answer.code == 3
    assert location in answer.err


def test_a_model_without_initializers_or_edits_is_emitted_as_it_is(tmp_path: Path) -> None:
    model = stored("g (float[N] x) => (float[N] y) { y = Neg(x) }", tmp_path / "m.onnx")
    answer = command("optimize", model, "--json", "-")
    assert answer.code == 0
    assert answer.json["unchanged"] == "nothing was found to rewrite"
    assert answer.json["verification"]["passed"]
    assert (tmp_path / "m.opt.onnx").read_bytes() == model.read_bytes()
    assert not provenance(onnx.load(tmp_path / "m.opt.onnx"))


def test_a_small_model_is_not_made_larger_by_its_provenance(tmp_path: Path) -> None:
    model = stored("g (float[N] x) => (float[N] y) { a = Identity(x) y = Neg(a) }", tmp_path / "m.onnx")
    assert command("optimize", model, "-q").code == 0
    assert (tmp_path / "m.opt.onnx").stat().st_size < model.stat().st_size


def test_labels_that_are_no_classes_give_agreement_only(tmp_path: Path) -> None:
    arrays = dict(np.load(DATA))  # noqa: TID251 - our own
    np.savez(tmp_path / "d.npz", image=arrays["image"][:40], labels=arrays["labels"][:40] + np.float32(0.5))
    metrics = graphopt.optimize(MODELS / "digits_resnet.onnx", data=tmp_path / "d.npz").report.verification
    assert metrics is not None
    assert metrics.metrics == {"agreement": (1.0, 1.0)}


def test_weights_of_two_bytes_keep_their_type() -> None:
    proto = net()
    for port in (proto.graph.input[0], proto.graph.output[0]):
        port.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    for weight in proto.graph.initializer:
        weight.CopyFrom(tensor(weight.name, contents(weight), np.float16))
    result = optimized(proto)
    assert {t.data_type for t in result.model.graph.initializer} == {onnx.TensorProto.FLOAT16}
