"""What the golden pairs cannot show: options, accounts, bisecting, metadata."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from graphopt.catalogue import LOSSLESS
from graphopt.fuse import FuseLinear
from graphopt.fuse import linear as fuse_linear
from graphopt.fuse.linear import BATCHNORM
from graphopt.graph.edit import Editor
from graphopt.graph.load import load
from graphopt.match.engine import Rule
from graphopt.protocol import Context, Evaluator, Ledger, NotEvaluated
from graphopt.rewrite import Clean, Fold, Strip, clean, fold
from tests.support.models import cannot_evaluate, parse, rewritten, show, source

CONV_BN = """g (float[N,1,4] x) => (float[N,2,4] y)
<float[2,1,1] w = {3, 5},
 float[2] s = {2, 4}, float[2] t = {10, 20}, float[2] m = {0.5, 0.25}, float[2] v = {3.75, 3.75}> {
  a = Conv (x, w)
  y = BatchNormalization <epsilon = 0.25> (a, s, t, m, v)
}"""

DEAD_TWINS = """g (float[N] x) => (float[N] y) <float[2] v = {1, 2}, float[2] w = {1, 2}> {
  [one] a = Neg (x)
  [two] b = Neg (x)
  [three] c = Identity (x)
  [four] d = Shape (v)
  [five] e = Constant <value_float = 1.0> ()
  y = Relu (c)
}"""


def test_every_rule_of_the_code_is_one_of_its_pass() -> None:
    found = {r.name for module in (clean, fold, fuse_linear) for r in vars(module).values() if isinstance(r, Rule)}
    assert found <= {name for each in LOSSLESS for name in each.rules}


def test_a_pass_only_makes_edits_of_its_exactness(evaluate: Evaluator) -> None:
    for text in (CONV_BN, DEAD_TWINS):
        for each in LOSSLESS:
            result = rewritten(source(text), [each()], evaluate)
            assert all(e.exactness <= each.exactness for e in result.edits)
            assert all(e.rule in each.rules for e in result.edits)


@pytest.mark.parametrize("text", [CONV_BN, DEAD_TWINS])
def test_any_number_of_edits_leaves_a_valid_graph(text: str, evaluate: Evaluator) -> None:
    """Bisecting stops after k edits, for any k."""
    every = [p() for p in LOSSLESS]
    all_edits = rewritten(source(text), every, evaluate).edits
    assert all_edits
    for k in range(len(all_edits) + 1):
        some = rewritten(source(text), every, evaluate, editor=partial(Editor, limit=k))
        assert some.edits == all_edits[:k]
        onnx.checker.check_model(some.model)


@pytest.mark.parametrize("text", [CONV_BN, DEAD_TWINS])
def test_any_edit_can_be_left_out(text: str, evaluate: Evaluator) -> None:
    every = [p() for p in LOSSLESS]
    for wrong in rewritten(source(text), every, evaluate).edits:
        rest = rewritten(source(text), every, evaluate, editor=partial(Editor, skip=[wrong]))
        assert wrong not in rest.edits
        onnx.checker.check_model(rest.model)


def test_dead_twins_that_were_asked_to_stay_stay() -> None:
    result = rewritten(source(DEAD_TWINS), [Clean()], editor=partial(Editor, keep=["one", "two"]))
    assert {"one", "two"} <= {n.name for n in result.model.graph.node}


def test_the_statistics_of_a_folded_batchnorm_are_kept() -> None:
    given = source(CONV_BN)
    FuseLinear().run(Editor(given.model), Context(cannot_evaluate, Ledger(0, 0)))
    (conv,) = given.model.graph
    scale, shift, mean, variance = conv.meta[BATCHNORM]
    assert (scale.tolist(), shift.tolist()) == ([2, 4], [10, 20])
    assert (mean.tolist(), variance.tolist()) == ([0.5, 0.25], [3.75, 3.75])


def test_the_length_of_the_sum_is_noted() -> None:
    text = CONV_BN.replace("float[N,1,4] x", "float[N,3,4] x").replace(
        "float[2,1,1] w = {3, 5}", "float[2,3,1] w = {1, 2, 3, 4, 5, 6}"
    )
    (edit,) = rewritten(source(text), [FuseLinear()]).edits
    assert edit.values == ("y",)
    assert edit.reduction == 3


def test_notes_go_and_the_rest_stays() -> None:
    model = parse("""<ir_version: 10, opset_import: ["" : 21], metadata_props: ["author" : "me"], doc_string: "model">
      g (bool c, float[N] x) => (float[N] y) {
        y = If (c) <
          then_branch = t () => (float[N] p) { p = Neg (x) },
          else_branch = e () => (float[N] q) { q = Abs (x) }
        >
      }""")
    inner = model.graph.node[0].attribute[0].g.node[0]
    for node in (model.graph.node[0], inner):
        node.doc_string = "File /home/someone/model.py"
        node.metadata_props.add(key="scope", value="layer")
    model.graph.input[0].doc_string = "a condition"
    result = rewritten(load(model), [Strip()])
    assert [e.rule for e in result.edits] == ["strip", "strip"]
    assert b"someone" not in result.model.SerializeToString()
    assert result.model.doc_string == "model"
    assert result.model.metadata_props == model.metadata_props
    assert result.model.graph.input == model.graph.input


# -- folding ---------------------------------------------------------------------------------------------------------

CONSTANTS = """g (float[N,4] x) => (float[N,4] y) <float[4] v = {1, 2, 3, 4}, float[1] z = {0.5}, int64[1] s = {4}> {
  a = Neg (v)
  b = Expand (z, s)
  c = Mul (x, a)
  y = Add (c, b)
}"""


def spying(evaluate: Evaluator, asked: list[onnx.ModelProto]) -> Evaluator:
    def spy(model: bytes) -> dict[str, NDArray[Any]]:
        asked.append(onnx.ModelProto.FromString(model))
        return evaluate(model)

    return spy


def test_a_region_is_evaluated_in_one_go(evaluate: Evaluator) -> None:
    asked: list[onnx.ModelProto] = []
    rewritten(source(CONSTANTS), [Fold()], spying(evaluate, asked), growth=100)
    assert [[o.name for o in m.graph.output] for m in asked] == [["a", "b"]]
    assert not asked[0].graph.input


@pytest.mark.parametrize(("most", "folded"), [(15, 0), (16, 2)])
def test_the_size_of_one_result_is_bounded(most: int, folded: int, evaluate: Evaluator) -> None:
    asked: list[onnx.ModelProto] = []
    result = rewritten(source(CONSTANTS), [Fold(max_bytes=most)], spying(evaluate, asked), growth=100)
    assert len(result.edits) == folded
    assert len(asked) == (1 if folded else 0)


def test_the_file_does_not_grow_without_leave(evaluate: Evaluator) -> None:
    text = """g (float[N,100] x) => (float[N,100] y) <float[1] z = {0.5}, int64[1] s = {100}> {
      b = Expand (z, s)
      y = Add (x, b)
    }"""
    for growth in (0, 100, 1000):
        before = len(parse(text).SerializeToString())
        made = rewritten(source(text), [Fold()], evaluate, growth=growth).model
        assert len(made.SerializeToString()) <= before + growth


def wrong_shape(_model: bytes) -> dict[str, NDArray[Any]]:
    return {"a": np.zeros(3, np.float32), "b": np.zeros(4, np.float64)}


def unwilling(_model: bytes) -> dict[str, NDArray[Any]]:
    raise NotEvaluated("the child was killed")


@pytest.mark.parametrize(
    ("answer", "reasons"),
    [
        (unwilling, {"the child was killed"}),
        (wrong_shape, {"its shape is (3,), not [4]", "the type would change from FLOAT to DOUBLE"}),
    ],
)
def test_an_answer_that_does_not_fit_changes_nothing(answer: Evaluator, reasons: set[str]) -> None:
    result = rewritten(source(CONSTANTS), [Fold()], answer, growth=100)
    assert not result.edits
    assert {m.reason for m in result.misses if m.rule == "fold"} == reasons
    assert show(result.model) == show(parse(CONSTANTS))


def test_what_could_not_be_computed_is_not_booked() -> None:
    given, ctx = source(CONSTANTS), Context(unwilling, Ledger(100, 100))
    Fold().run(Editor(given.model), ctx)
    assert ctx.ledger.left == 100


def test_weights_from_another_file_are_folded(evaluate: Evaluator, tmp_path: Any) -> None:
    model = parse("g (float[N,2] x) => (float[N,2] y) <float[2,2] w> { a = Transpose (w) y = MatMul (x, a) }")
    del model.graph.value_info[:]
    tensor = model.graph.initializer.add(name="w", dims=[2, 2], data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.bin")
    (tmp_path / "w.bin").write_bytes(np.array([1, 2, 3, 4], np.float32).tobytes())
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    result = rewritten(load(tmp_path / "model.onnx"), [Fold()], evaluate)
    assert "{1,3,2,4}" in show(result.model)


@pytest.mark.parametrize(
    ("left", "growth", "allowed", "rest"),
    [(0, 0, True, 0), (0, 1, False, 0), (0, -5, True, 5), (5, 5, True, 0), (-3, 0, True, -3), (-3, 1, False, -3)],
)
def test_an_account_of_bytes(left: int, growth: int, allowed: bool, rest: int) -> None:  # noqa: FBT001
    ledger = Ledger(left, left)
    assert ledger.spend(growth) is allowed
    assert ledger.left == rest
