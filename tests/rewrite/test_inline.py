"""What golden pairs cannot show of functions: bounds, what no checker lets in, and what the pipeline makes of it."""

from __future__ import annotations

import onnx_ir as ir
import pytest

import graphopt
from graphopt.graph import functions
from graphopt.graph.edit import Editor
from graphopt.protocol import Context, Ledger
from graphopt.rewrite import Inline
from tests.graph.test_functions import DOMAIN, HEADER, doubling
from tests.support.models import cannot_evaluate, differences, feed, parse, rewritten, run, source


def inlined(model: ir.Model, step: Inline | None = None) -> tuple[ir.Model, list[str]]:
    """The model after one round, which is changed in place, and why calls stay."""
    edit, ctx = Editor(model), Context(cannot_evaluate, Ledger(0, 0))
    (step or Inline()).run(edit, ctx)
    return model, [m.reason for m in ctx.misses]


def test_a_bomb_is_not_expanded() -> None:
    model, reasons = inlined(doubling(60))
    assert reasons == [f"the calls come to {2**61:,} nodes, more than 100,000"]
    assert functions.count(model) == 1 + 2 * 60 + 2


def test_the_bound_is_a_field() -> None:
    assert len(inlined(doubling(3), Inline(max_nodes=15))[0].graph) == 1
    model, reasons = inlined(doubling(3), Inline(max_nodes=16))
    assert (len(model.graph), len(model.functions), reasons) == (16, 0, [])


def test_recursion_stays() -> None:
    model = doubling(1)
    last = model.functions["f", "F1", ""]
    last.append(ir.node("F0", [last.inputs[0]], domain="f"))
    assert inlined(model)[1] == ["it calls itself"]


def test_operators_of_another_opset_stay() -> None:
    model = doubling(0)
    function = model.functions["f", "F0", ""]
    function.opset_imports[""] = 12
    assert inlined(model)[1] == ["Exp is another one in opset 21 than in opset 12 of the function"]
    function.opset_imports[""] = 13
    assert inlined(model)[1] == []


def test_shared_functions_stay_where_that_is_asked_for_and_single_nodes_do_not() -> None:
    model, reasons = inlined(
        ir.from_proto(
            parse(f"""{HEADER} g (float[N] x) => (float[N] y) {{
              a = f.Once (x) b = f.Two (a) c = f.Two (b) y = f.One (c)
            }}
            {DOMAIN} Once (a) => (c) {{ b = f.One (a) c = Neg (b) }}
            {DOMAIN} Two (a) => (c) {{ b = Exp (a) c = Neg (b) }}
            {DOMAIN} One (a) => (c) {{ c = Abs (a) }}""")
        ),
        Inline(shared=False),
    )
    assert [n.op_type for n in model.graph] == ["Abs", "Neg", "Two", "Two", "Abs"]
    assert reasons == ["it is called 2 times, and its nodes are there once"] * 2
    assert list(model.functions) == [("f", "Two", "")]


def called(times: int, body: str) -> str:
    """A graph that calls one function several times in a row."""
    calls = " ".join(f"v{k + 1} = f.Part (v{k})" for k in range(times))
    return f"{HEADER} g (float[2,3] v0) => (float[2,3] v{times}) {{ {calls} }} {DOMAIN} Part (a) => (c) {{ {body} }}"


LONG = "b = Exp (a) d = Sin (b) e = Tanh (d) h = Cos (e) c = Atan (h)"
SHRINKS = "b = Identity (a) d = Identity (b) e = Relu (d) h = Relu (e) c = Neg (h)"


@pytest.mark.parametrize(("body", "nodes", "left"), [(LONG, 9, 1), (SHRINKS, 8, 0)], ids=["grows", "shrinks"])
def test_the_pipeline_inlines_what_is_shared_unless_there_are_more_nodes_then(body: str, nodes: int, left: int) -> None:
    given = parse(called(4, body))
    result = graphopt.optimize(given, device="cpu", threads=1)
    assert result.report.source.nodes == 9
    assert result.report.output.nodes == nodes
    assert len(result.model.functions) == left
    data = feed(given, {})
    assert not differences(run(given, data), run(result.model, data))


def test_names_stay_apart_when_a_function_with_bodies_is_called_twice() -> None:
    text = f"""{HEADER} g (float[2] x, bool c) => (float[2] y) {{ t = f.Pick (x, c) y = f.Pick (t, c) }}
    {DOMAIN} Pick (x, c) => (y) {{
      t = Neg (x)
      y = If (c) <then_branch = p () => (float[2] u) {{ u = Abs (t) }},
                  else_branch = q () => (float[2] v) {{ v = Exp (t) }}>
    }}"""
    given = source(text)
    result = rewritten(given, [Inline()])
    names = [o for n in result.model.graph.node for a in n.attribute for i in a.g.node for o in i.output]
    assert len(set(names)) == 4
    for seed in range(3):
        data = feed(parse(text), {}, seed=seed)
        assert not differences(run(parse(text), data), run(result.model, data))
