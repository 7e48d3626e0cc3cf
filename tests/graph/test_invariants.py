"""Broken graphs are found, whole ones are not accused."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest

from graphopt.graph.invariants import broken
from tests.support.models import source

TEXT = """g (bool c, float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
  a = Mul (x, w)
  y = If (c) <
    then_branch = t () => (float[2] p) <float[2] v = {3, 4}> { p = Mul (a, v) },
    else_branch = e () => (float[2] q) { r = Neg (a) q = Abs (r) }
  >
}"""


def body(model: ir.Model, name: str) -> ir.Graph:
    return model.graph[1].attributes[name].as_graph()


def swap(model: ir.Model) -> None:
    nodes = list(model.graph)
    model.graph.remove(nodes[0])
    model.graph.append(nodes[0])


def rename(model: ir.Model) -> None:
    model.graph[0].outputs[0].name = "x"


def unname(model: ir.Model) -> None:
    model.graph.inputs[0].name = ""


def read_the_other_branch(model: ir.Model) -> None:
    body(model, "then_branch")[0].replace_input_with(0, body(model, "else_branch")[0].outputs[0])


def put_out_a_value_of_the_outer_graph(model: ir.Model) -> None:
    body(model, "then_branch").outputs[0] = model.graph[0].outputs[0]


def read_its_own_result(model: ir.Model) -> None:
    model.graph[0].replace_input_with(0, model.graph[1].outputs[0])


def test_a_whole_graph_breaks_nothing() -> None:
    assert not list(broken(source(TEXT).model))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (rename, "two values are named 'x'"),
        (unname, "has no name"),
        (read_the_other_branch, "'r', which nothing before it computes"),
        (put_out_a_value_of_the_outer_graph, "computed by no node of its graph"),
        (read_its_own_result, "'y', which nothing before it computes"),
        (swap, "'a', which nothing before it computes"),
    ],
    ids=lambda x: x.__name__ if callable(x) else "",
)
def test_damage_is_found(damage: Callable[[ir.Model], None], words: str) -> None:
    model = source(TEXT).model
    damage(model)
    assert any(words in problem for problem in broken(model))
