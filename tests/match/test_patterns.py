"""What patterns can say: one thing in two places, alternatives, numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, Rule, rewrite, rule
from graphopt.match.pattern import Either, NodeOf, const, either, number, op, var
from graphopt.protocol import Context, Ledger
from tests.support.models import cannot_evaluate, source


def fires(pattern: NodeOf | Either, text: str, *, since: int = 1) -> bool:
    """Whether a rule with this pattern does something in a graph."""

    def found(draft: Draft, _ctx: Context, **_bound: object) -> Answer:
        return draft.node("Abs", [draft.root.inputs[0]])

    return bool(edits([rule(pattern, exactness=Exactness.LOSSY, since=since)(found)], text)[0].edits)


def edits(rules: Sequence[Rule], text: str) -> tuple[Editor, Context]:
    edit, ctx = Editor(source(text).model), Context(cannot_evaluate, Ledger(0, 0))
    rewrite(edit, ctx, rules)
    return edit, ctx


GATE = "g (float[2] x, float[2] z) => (float[2] y) { s = Sigmoid (%s) y = Mul (%s) }"


@pytest.mark.parametrize(
    ("inner", "outer", "expected"), [("x", "x, s", True), ("x", "s, x", True), ("z", "x, s", False)]
)
def test_a_name_that_stands_twice_means_one_value(inner: str, outer: str, expected: bool) -> None:  # noqa: FBT001
    assert fires(op.Mul(var("x"), op.Sigmoid(var("x"))), GATE % (inner, outer)) == expected


def test_a_name_of_a_node_means_one_node() -> None:
    exp = op.Exp(var("x"), name="exp")
    once = "g (float[2] x) => (float[2] y) { e = Exp (x) y = Div (e, e) }"
    twice = "g (float[2] x) => (float[2] y) { e = Exp (x) f = Exp (x) y = Div (e, f) }"
    assert fires(op.Div(exp, exp), once)
    assert not fires(op.Div(exp, exp), twice)
    assert fires(op.Div(op.Exp(var("x")), op.Exp(var("x"))), twice)


@pytest.mark.parametrize(("second", "expected"), [("{1, 2}", True), ("{1, 3}", False)])
def test_a_name_of_a_constant_means_equal_constants(second: str, expected: bool) -> None:  # noqa: FBT001
    text = f"g (float[2] x) => (float[2] y) <float[2] a = {{1, 2}}, float[2] b = {second}>"
    body = "{ s = Sub (x, a) y = Div (s, b) }"
    assert fires(op.Div(op.Sub(var("x"), const("c")), const("c")), text + body) == expected


def test_an_alternative_may_stand_at_the_root_and_inside() -> None:
    half = either(op.Mul(either(op.Exp(), op.Log()), number(0.5)), op.Div(op.Exp(), number(2)))
    text = "g (float[2] x) => (float[2] y) <float h = {%s}> { e = %s (x) y = %s (e, h) }"
    assert fires(half, text % (0.5, "Log", "Mul"))
    assert fires(half, text % (2, "Exp", "Div"))
    assert not fires(half, text % (2, "Log", "Div"))
    assert not fires(half, text % (2, "Exp", "Mul"))


ROOT = np.float32(math.sqrt(2))


@pytest.mark.parametrize(
    ("given", "value", "ulps", "expected"),
    [
        (np.float32(3), 3.0, 0, True),
        (np.int64(3), 3.0, 0, True),
        (np.int64(0), 0.5, 0, False),
        (np.nextafter(np.float32(3), np.float32(4)), 3.0, 0, False),
        (np.float32(0.1), 0.1, 0, True),
        (np.float64(np.float32(0.1)), 0.1, 2, False),
        (np.nextafter(ROOT, np.float32(2)), math.sqrt(2), 0, False),
        (np.nextafter(ROOT, np.float32(2)), math.sqrt(2), 1, True),
        (np.float32(1.414), math.sqrt(2), 2, False),
        (np.float32(-0.0), 0.0, 0, True),
        (np.float32(np.nan), 1.0, 2, False),
        (np.ones(2, np.float32), 1.0, 0, False),
        (np.bool_(True), 1.0, 0, False),
    ],
)
def test_a_number_is_compared_in_its_own_type(given: Any, value: float, ulps: int, expected: bool) -> None:  # noqa: FBT001
    model = source("g (float[2] x) => (float[2] y) <float c = {1}> { y = Add (x, c) }").model
    constant = next(iter(model.graph.initializers.values()))
    constant.const_value = ir.tensor(np.asarray(given))
    edit = Editor(model)

    def found(draft: Draft, _ctx: Context, x: ir.Value) -> Answer:
        return draft.node("Abs", [x])

    wanted = rule(op.Add(var("x"), number(value, ulps=ulps)), exactness=Exactness.LOSSY)(found)
    rewrite(edit, Context(cannot_evaluate, Ledger(0, 0)), [wanted])
    assert bool(edit.edits) == expected


def test_a_rule_waits_for_the_opset_of_its_operators() -> None:
    text = "g (float[2] x) => (float[2] y) { y = Exp (x) }"
    assert fires(op.Exp(), text, since=21)
    assert not fires(op.Exp(), text, since=22)


def test_a_rule_that_waits_says_so() -> None:
    def never(draft: Draft, _ctx: Context) -> Answer:
        raise AssertionError(draft)

    waiting = rule(op.Exp(), exactness=Exactness.LOSSY, since=99)(never)
    _, ctx = edits([waiting], "g (float[2] x) => (float[2] y) { y = Exp (x) }")
    assert [m.reason for m in ctx.misses] == ["opset 21 has no such operator, opset 99 has"]
