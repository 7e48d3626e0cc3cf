"""Who calls whom, counted without expanding anything."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from graphopt.errors import InputError
from graphopt.graph import functions
from graphopt.graph.load import load
from tests.support.models import parse

HEADER = '<ir_version: 10, opset_import: ["" : 21, "f" : 1]>'
DOMAIN = '<domain: "f", opset_import: ["" : 21, "f" : 1]>'


def doubling(depth: int) -> ir.Model:
    """Each function calls the next one twice."""
    text = f"{HEADER} g (float[N] x) => (float[N] y) {{ y = f.F0 (x) }}"
    for k in range(depth):
        text += f"{DOMAIN} F{k} (a) => (c) {{ b = f.F{k + 1} (a) c = f.F{k + 1} (b) }}"
    return ir.from_proto(parse(f"{text}{DOMAIN} F{depth} (a) => (c) {{ b = Exp (a) c = Neg (b) }}"))


def test_what_doubles_a_hundred_times_is_counted_at_once() -> None:
    size = functions.expanded(doubling(100))
    assert size["f", "F100", ""] == 2
    assert size["f", "F0", ""] == 2**101


def test_calls_count_in_the_graph_in_bodies_and_in_functions_that_are_called() -> None:
    model = ir.from_proto(
        parse(f"""{HEADER} g (float[N] x, bool c) => (float[N] y) {{
          t = f.A (x)
          y = If (c) <then_branch = p () => (float[N] u) {{ u = f.B (t) }},
                      else_branch = q () => (float[N] v) {{ v = f.B (x) }}>
        }}
        {DOMAIN} A (a) => (c) {{ c = f.B (a) }}
        {DOMAIN} B (a) => (c) {{ c = Exp (a) }}
        {DOMAIN} Unused (a) => (c) {{ c = f.A (a) }}""")
    )
    assert functions.called(model) == {("f", "A", ""): 1, ("f", "B", ""): 3}
    assert functions.count(model) == 2 + 2 + 1 + 1 + 1


def test_what_calls_itself_has_no_size() -> None:
    model = doubling(2)
    last, first = model.functions["f", "F2", ""], model.functions["f", "F1", ""]
    last.append(ir.node("F1", [last.inputs[0]], domain="f"))
    assert functions.expanded(model) == {}
    del model.functions["f", "F0", ""]
    assert not functions.expanded(model)
    assert first.name == "F1"


def test_a_model_whose_functions_have_no_end_is_refused_before_anything_runs_it() -> None:
    with pytest.raises(InputError, match=r"is not safe: the calls of its functions come to 1,099,511,627,776 nodes"):
        load(doubling(39))
    assert load(doubling(5)).model.functions
    model = doubling(1)
    last = model.functions["f", "F1", ""]
    last.append(ir.node("F0", [last.inputs[0]], domain="f"))
    with pytest.raises(InputError, match="the function 'F0' comes to call itself"):
        load(model)
