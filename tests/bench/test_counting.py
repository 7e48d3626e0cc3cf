"""What counts as a node, and what the benchmark writes."""

from __future__ import annotations

from pathlib import Path

import onnx

from tests.bench.counting import nodes
from tests.bench.measure import measure
from tests.bench.peers import Row, table
from tests.support.models import parse


def test_constants_are_no_nodes() -> None:
    model = parse("""g (float[2] x, bool c) => (float[2] y) <int64[1] s = {2}> {
      zeros = ConstantOfShape (s)
      one = Constant <value_float = 1.0> ()
      length = Shape (x)
      more = ConstantOfShape (length)
      a = Add (x, zeros)
      b = Add (a, more)
      y = If (c) <
        then_branch = g1 () => (float[2] t) { i = ConstantOfShape (s) t = Add (b, i) },
        else_branch = g2 () => (float[2] e) { k = Constant <value_float = 2.0> () e = Mul (b, k) }
      >
    }""")
    assert nodes(model) == 4 + 1 + 2  # Shape, ConstantOfShape of what is computed, Add, Add; If; one in each body


def test_nodes_of_functions_count() -> None:
    model = parse("""<ir_version: 10, opset_import: ["" : 21, "mine" : 1]>
    g (float[2] x) => (float[2] y) { y = mine.twice (x) }
    <domain: "mine", opset_import: ["" : 21]>
    twice (a) => (b) { two = Constant <value_float = 2.0> () b = Mul (a, two) }""")
    assert nodes(model) == 2


def test_a_tool_is_run_in_a_process_of_its_own(tmp_path: Path) -> None:
    source = tmp_path / "source.onnx"
    onnx.save(parse("g (float[2] x) => (float[2] y) { a = Identity (x) y = Relu (a) }"), source)
    cost = measure("graphopt", source, tmp_path / "result.onnx")
    assert cost.problem is None
    assert cost.cpu > 0
    assert cost.memory > 10_000_000
    assert nodes(onnx.load(tmp_path / "result.onnx")) == 1
    assert measure("graphopt", tmp_path / "nothing.onnx", tmp_path / "result.onnx").problem is not None


def test_failures_are_shown_in_the_words_of_the_tool() -> None:
    good = Row("m", "a", 9, 100, 3, 50, 0.5, 10**8, passed=True, ms=2.0, ratio=(0.5, 0.4, 0.6))
    text = table([good, Row("m", "b", 9, 100, cpu=0.1, why="ValueError: no | such thing")])
    assert "| m | a | 9 → 3 | 0.50 × | 0.50 | 100 | yes | 0.50 (0.40, 0.60) |" in text
    assert "| m | b | failed |  | 0.10 | 0 | ValueError: no / such thing |  |" in text
    assert "| a | 1 | 1 | 1 | 0.5 | 1 | 0 |" in text
