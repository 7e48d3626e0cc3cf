"""The order of the story, and what is emitted when."""

from __future__ import annotations

import time

import onnx
import pytest

from graphopt import pipeline
from graphopt.catalogue import LOSSLESS
from graphopt.graph.load import Source, load
from graphopt.pipeline import Outcome, Settings, optimize
from graphopt.protocol import NotEvaluated
from graphopt.provenance import KEYS
from graphopt.recipe import Recipe
from graphopt.run.child import ChildDied
from tests.end_to_end.support import net, provenance
from tests.support.models import feed, parse

SETTINGS = Settings("cpu", threads=1)


def outcome(
    model: onnx.ModelProto, recipe: Recipe | None = None, *, freeze: bool = False, verify: bool = True
) -> Outcome:
    feeds = [feed(model, {"N": n}, seed=n) for n in (2, 3)] if verify else None
    return optimize(load(model, freeze=freeze), recipe or Recipe(), feeds, SETTINGS)


def emitted(found: Outcome) -> onnx.ModelProto:
    assert found.content is not None
    return onnx.ModelProto.FromString(found.content)


def test_the_source_is_not_changed() -> None:
    source = load(net(2))
    nodes = [n.name for n in source.model.graph]
    optimize(source, Recipe(), None, SETTINGS)
    assert [n.name for n in source.model.graph] == nodes
    assert not source.model.metadata_props


def test_rounds_are_repeated_until_nothing_changes() -> None:
    """Folding makes a constant, which lets the next round fuse, which leaves something dead."""
    model = parse(
        """g (float[N,3] x) => (float[N,3] y) <float[3,3] w = {1,2,3,4,5,6,7,8,9}, float[3] a = {1,2,3}>
        { s = Add(a, a) p = MatMul(x, w) q = Mul(p, s) i = Identity(q) y = Relu(i) }"""
    )
    found = outcome(model)
    assert [n.op_type for n in emitted(found).graph.node] == ["MatMul", "Relu"]
    assert not outcome(emitted(found)).attempt.edits


def test_steps_count_edits_by_rule_in_the_order_of_the_recipe() -> None:
    steps = outcome(net(2)).attempt.steps
    assert [(s.name, s.exactness) for s in steps] == [(p.name, p.exactness.name) for p in LOSSLESS]
    assert {s.name: s.edits for s in steps if s.edits} == {"fuse-linear": {"fold_batchnorm": 2}}
    assert all(s.seconds >= 0 for s in steps)


def test_what_begins_is_told_in_order() -> None:
    told: list[str] = []
    feeds = [feed(net(2), {"N": 2})]
    optimize(load(net(2)), Recipe(), feeds, Settings("cpu", threads=1, progress=told.append))
    assert told == ["rewriting", "verifying"]


def test_theirs_is_kept_and_ours_is_renewed_in_the_metadata() -> None:
    model = net(4, channels=8)
    onnx.helper.set_model_props(model, {"author": "someone", "graphopt.verdict": "old"})
    props = {p.key: p.value for p in emitted(outcome(model)).metadata_props}
    assert props["author"] == "someone"
    assert props["graphopt.verdict"] == "verified on 2 feeds, CPUExecutionProvider"
    assert {k for k in props if k.startswith("graphopt.")} == set(KEYS)


def test_the_stamp_is_left_out_where_it_would_make_the_file_larger() -> None:
    model = parse("g (float[N] x) => (float[N] y) { a = Identity(x) y = Neg(a) }")
    found = outcome(model)
    assert not provenance(emitted(found))
    assert found.growth <= 1


def test_a_small_unverified_file_still_says_that_it_is() -> None:
    found = outcome(net(2), verify=False)
    assert found.judge is None
    assert found.verification is None
    assert found.growth <= 1
    assert provenance(emitted(found))["graphopt.verdict"] == "unverified"


def test_a_file_that_would_grow_is_emitted_as_it_came() -> None:
    """The weight is shared, so fusing needs a second one; without that nothing is left to do."""
    model = net(1, channels=8)
    model.graph.node.add(op_type="Conv", input=["x", "w0"], output=["z"], name="other")
    model.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, ["N", 8, 4, 4]))
    found = outcome(model)
    assert found.unchanged == "nothing was found to rewrite"
    assert found.content == model.SerializeToString()


def test_a_model_that_cannot_be_carried_is_not_touched() -> None:
    model = parse(
        """g (float[N] x, bool c) => (float[N] y) { i = Identity(x) y = If (c) <
          then_branch = yes () => (float[N] a) { a = Neg(i) }, else_branch = no () => (float[N] b) { b = Abs(i) }
        > }"""
    )
    values = onnx.helper.make_tensor("sparse", onnx.TensorProto.FLOAT, [1], [2.0])
    indices = onnx.helper.make_tensor("indices", onnx.TensorProto.INT64, [1], [0])
    model.graph.node[1].attribute[0].g.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [3]))
    found = outcome(model, verify=False)
    assert found.unchanged == "a body of If, Loop or Scan holds sparse initializers"
    assert found.content == model.SerializeToString()


def test_misses_say_where_rules_looked() -> None:
    model = parse(
        """g (float[N,3,4,4] x, float[3] s) => (float[N,3,4,4] y) { [bn] y = BatchNormalization(x, s, s, s, s) }"""
    )
    assert pipeline.misses(load(model), Recipe()) == ()
    model = parse(
        """g (float[N,3] x) => (float[N,3] y, float[N,3] z) <float[3,3] w = {1,2,3,4,5,6,7,8,9}, float t = {2}>
        { p = MatMul(x, w) [twice] y = Mul(p, t) z = Neg(p) }"""
    )
    (found,) = [m for m in pipeline.misses(load(model), Recipe()) if m.rule == "fold_scale"]
    assert (found.root, found.reason) == ("twice", "'p' is used elsewhere as well")


def test_constants_that_cannot_be_computed_are_left_to_the_runtime() -> None:
    model = parse(
        """g (float[N,3] x) => (float[N,3] y) <int64[2] a = {1, 2}, int64[1] b = {9}, float[3] c = {1,2,3}>
        { bad = Gather<axis = 0>(c, b) k = Add(c, c) m = Mul(x, k) y = Add(m, bad) }"""
    )
    found = outcome(model, verify=False)
    assert "Gather" in [n.op_type for n in emitted(found).graph.node]
    assert found.attempt.steps[3].edits.get("fold") == 1


def test_the_evaluator_asks_only_once() -> None:
    asked: list[bytes] = []

    def ask(model: bytes) -> int:
        asked.append(model)
        return len(asked)

    evaluate = pipeline._Remembered(ask)
    assert evaluate(b"a") == evaluate(b"a") == 1
    assert evaluate(b"b") == 2
    assert asked == [b"a", b"b"]


def test_the_evaluator_loses_its_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_PATIENCE", 0.01)

    def ask(_model: bytes) -> int:
        time.sleep(0.02)
        raise ChildDied("it took longer")

    evaluate = pipeline._Remembered(ask)
    for model, reason in ((b"a", "it took longer"), (b"b", "too much time"), (b"a", "it took longer")):
        with pytest.raises(NotEvaluated, match=reason):
            evaluate(model)


def test_a_model_in_memory_needs_no_file() -> None:
    source: Source = load(net(2))
    assert source.path is None
    assert outcome(net(2)).source.name == "model"


def test_freezing_alone_is_emitted() -> None:
    model = parse("g (float[N] x, float w) => (float[N] y) <float w = {2}> { y = Pow(x, w) }")
    found = outcome(model, freeze=True)
    assert found.unchanged is None
    assert [i.name for i in emitted(found).graph.input] == ["x"]
