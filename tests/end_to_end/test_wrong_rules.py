"""Wrong rules, planted here: their edits are found, named and left out, and the rest of the work is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

import graphopt
from graphopt.catalogue import LOSSLESS
from graphopt.fuse import FuseLinear
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, Rule, described, rewrite, rule
from graphopt.match.pattern import const, linear, op, var
from graphopt.ops import Linear
from graphopt.protocol import Context, Pass
from graphopt.recipe import Recipe
from tests.end_to_end.support import MODELS, net, operators
from tests.support.models import differences, feed, parse, run

Array = NDArray[np.float32]


@rule(
    op.BatchNormalization(linear("lin"), const("s"), const("t"), const("mu"), const("v"), name="bn"),
    exactness=Exactness.ROUNDING,
)
def forgets_epsilon(
    draft: Draft, _ctx: Context, lin: Linear, s: Array, t: Array, mu: Array, v: Array, bn: ir.Node
) -> Answer:
    """BN(W·x + b) becomes kW·x + (b − μ)k + t with k = s / sqrt(v), which lacks ε."""
    assert bn.op_type == "BatchNormalization"
    k = s / np.sqrt(v)
    return lin.rebuild(draft, *lin.scaled(out=k, shift=t - mu * k))


@rule(op.Mul(linear("lin"), const("c")), exactness=Exactness.ROUNDING)
def scales_too_much(draft: Draft, _ctx: Context, lin: Linear, c: Array) -> Answer:
    """(W·x + b) · c becomes (1.001 c W)·x + 1.001 c b."""
    return lin.rebuild(draft, *lin.scaled(out=1.001 * float(c)))


@rule(op.Add(var("x"), const("c")), exactness=Exactness.BITWISE)
def drops_an_addition(_draft: Draft, _ctx: Context, x: ir.Value, c: Array) -> Answer:
    """X + c becomes x."""
    assert c.size
    return x


@rule(op.Relu(var("x"), name="node"), exactness=Exactness.BITWISE)
def reads_ahead(draft: Draft, _ctx: Context, x: ir.Value, node: ir.Node) -> Answer:
    """Relu(x) becomes the larger of x and of what is computed after it."""
    later = node.outputs[0].consumers()[0].outputs[0]
    return draft.node("Max", [x, later])


WRONG = {r.name: r for r in (forgets_epsilon, scales_too_much, drops_an_addition, reads_ahead)}


@dataclass(frozen=True)
class Wrong(Pass):
    """What a careless contributor would write."""

    name: ClassVar[str] = "wrong"
    summary: ClassVar[str] = "rewrites wrongly"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    rules: ClassVar[Mapping[str, str]] = described(tuple(WRONG.values()))

    which: str = " ".join(WRONG)

    def run(self, edit: Editor, ctx: Context) -> None:
        rewrite(edit, ctx, [WRONG[name] for name in self.which.split()])


def with_wrong(*which: Rule) -> Recipe:
    """The usual passes, after a wrong one."""
    return Recipe((Wrong(" ".join(r.name for r in which)), *(p() for p in LOSSLESS)))


def optimized(model: onnx.ModelProto, recipe: Recipe) -> graphopt.Result:
    return graphopt.optimize(model, recipe=recipe, device="cpu", threads=1)


def left_out(report: graphopt.Report) -> Counter[str]:
    return Counter(x.rule for x in report.left_out)


def assert_same_function(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    for rows in (2, 5):
        given = feed(before, {"N": rows}, seed=rows)
        assert not differences(run(before, given), run(after, given), relative=1e-5)


def chain(*steps: str) -> onnx.ModelProto:
    """A chain of nodes between `x` and `y`, with some constants to use."""
    lines = " ".join(f"v{i + 1} = {step.format(f'v{i}')}" for i, step in enumerate(steps))
    return parse(
        f"""g (float[N,3] v0) => (float[N,3] v{len(steps)})
        <float[3,3] w = {{1, 2, 3, 4, 5, 6, 7, 8, 10}}, float two = {{2}}, float tiny = {{0}}, float one = {{1}}>
        {{ {lines} }}"""
    )


def test_the_planted_rules_change_the_result_when_nothing_verifies() -> None:
    result = graphopt.optimize(net(), recipe=with_wrong(forgets_epsilon), unverified=True)
    given = feed(net(), {"N": 2})
    assert differences(run(net(), given), run(result.model, given), relative=1e-2)


def test_a_fold_that_forgets_epsilon_is_left_out_at_each_place_and_done_right_there() -> None:
    before = net(layers=3)
    result = optimized(before, with_wrong(forgets_epsilon))
    assert [(x.rule, x.root) for x in result.report.left_out] == [("forgets_epsilon", f"bn{i}") for i in range(3)]
    assert all("output 'y' is off by" in x.reason for x in result.report.left_out)
    assert result.report.verification is not None
    assert result.report.verification.passed
    assert result.report.unchanged is None
    assert sum((Counter(s.edits) for s in result.report.steps), Counter())["fold_batchnorm"] == 3
    assert list(operators(result.model)) == ["Conv", "Relu"] * 3
    assert_same_function(before, result.model)


def test_a_scale_that_is_off_by_a_thousandth_is_found_between_right_edits() -> None:
    before = chain("Identity({})", "MatMul({}, w)", "Mul({}, two)", "Relu({})", "Identity({})", "Add({}, one)")
    result = optimized(before, with_wrong(scales_too_much))
    assert left_out(result.report) == {"scales_too_much": 1}
    assert list(operators(result.model)) == ["MatMul", "Relu", "Add"]
    assert_same_function(before, result.model)


def test_an_addition_that_is_dropped_is_left_out_and_one_that_adds_nothing_is_not() -> None:
    before = chain("Add({}, tiny)", "Relu({})", "Add({}, one)", "Add({}, tiny)")
    result = optimized(before, with_wrong(drops_an_addition))
    assert [(x.rule, x.root) for x in result.report.left_out] == [("drops_an_addition", "Add_2")]
    assert list(operators(result.model)) == ["Relu", "Add"]
    assert_same_function(before, result.model)


def test_two_wrong_rules_at_once_are_both_found() -> None:
    before = chain("MatMul({}, w)", "Mul({}, two)", "Relu({})", "Identity({})", "Add({}, one)", "Neg({})")
    result = optimized(before, with_wrong(scales_too_much, drops_an_addition))
    assert left_out(result.report) == {"scales_too_much": 1, "drops_an_addition": 1}
    assert list(operators(result.model)) == ["MatMul", "Relu", "Add", "Neg"]
    assert_same_function(before, result.model)


def test_a_model_on_which_every_edit_is_wrong_is_emitted_as_it_came() -> None:
    before = chain("Add({}, one)", "Relu({})")
    result = optimized(before, Recipe((Wrong(drops_an_addition.name),)))
    assert result.report.unchanged == "every edit was found to change the result"
    assert left_out(result.report) == {"drops_an_addition": 1}
    assert result.model == before


def test_more_than_eight_wrong_edits_give_the_original_with_the_reason() -> None:
    before = chain(*["Add({}, one)", "Relu({})"] * 9)
    result = optimized(before, with_wrong(drops_an_addition))
    assert result.report.unchanged is not None
    assert result.report.unchanged.startswith("the result would differ: output 'v18' is off by")
    assert left_out(result.report) == {"drops_an_addition": 8}
    assert result.model == before
    assert result.report.output.sha256 == result.report.source.sha256


def test_eight_wrong_edits_are_just_left_out() -> None:
    before = chain(*["Add({}, one)", "Relu({})"] * 8, "Identity({})")
    result = optimized(before, with_wrong(drops_an_addition))
    assert left_out(result.report) == {"drops_an_addition": 8}
    assert result.report.unchanged is None
    assert list(operators(result.model)) == ["Add", "Relu"] * 8


def test_a_graph_that_breaks_a_structural_rule_is_traced_to_its_edit() -> None:
    before = chain("Neg({})", "Relu({})", "Identity({})", "Neg({})")
    result = optimized(before, with_wrong(reads_ahead))
    assert left_out(result.report) == {"reads_ahead": 1}
    assert "which nothing before it computes" in result.report.left_out[0].reason
    assert list(operators(result.model)) == ["Neg", "Relu", "Neg"]
    assert_same_function(before, result.model)


def test_an_example_model_with_epsilon_forgotten_is_left_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the package's own pass, as if the mistake were in it."""
    wrong = Rule("fold_batchnorm", forgets_epsilon.pattern, forgets_epsilon.build, Exactness.ROUNDING)
    monkeypatch.setattr("graphopt.fuse.linear.RULES", (wrong,))
    result = graphopt.optimize(MODELS / "digits_resnet.onnx", passes=[FuseLinear.name], device="cpu", threads=1)
    report = result.report
    assert set(left_out(report)) == {"fold_batchnorm"}
    assert report.unchanged is not None or (report.verification is not None and report.verification.passed)
    before = onnx.load(MODELS / "digits_resnet.onnx")
    given = feed(before, {"batch": 3}, seed=1)
    assert not differences(run(before, given), run(result.model, given), relative=1e-5)
