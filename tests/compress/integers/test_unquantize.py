"""Quantizers are taken out, and what they knew is kept."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.compress.integers.coding import on_grid, still
from graphopt.compress.integers.unquantize import Unquantized, unquantized
from graphopt.graph.carry import Carried
from graphopt.graph.save import runnable
from graphopt.run.session import Session
from tests.support.models import parse, source

WEIGHTS = """<float s = {0.1}, int8 z = {3}, float t = {0.2}, uint8 u = {0},
  int8[2,2] w = {-3, 4, 127, -128}, float[2] ws = {0.5, 0.25}, int8[2] wz = {0, 0},
  int32[2] b = {10, -20}, float[2] bs = {0.05, 0.025}, int32[2] bz = {0, 0}>"""
PRODUCT = f"""agraph (float[n,2] x) => (float[n,2] y) {WEIGHTS} {{
  q = QuantizeLinear(x, s, z)
  d = DequantizeLinear(q, s, z)
  wd = DequantizeLinear<axis = 1>(w, ws, wz)
  bd = DequantizeLinear<axis = 0>(b, bs, bz)
  r = Gemm(d, wd, bd)
  rq = QuantizeLinear(r, t, u)
  y = DequantizeLinear(rq, t, u)
}}"""


def undone(text: str) -> Unquantized:
    return unquantized(source(text).model)


def operators(found: Unquantized) -> list[str]:
    return [n.op_type for n in found.model.graph]


def test_quantizers_go_and_integers_become_what_they_stand_for() -> None:
    found = undone(PRODUCT)
    assert operators(found) == ["Gemm", "Relu"]
    gemm = next(iter(found.model.graph))
    weight, bias = (v.const_value.numpy() for v in gemm.inputs[1:] if v is not None and v.const_value is not None)
    np.testing.assert_array_equal(weight, np.array([[-1.5, 1], [63.5, -32]], np.float32))
    np.testing.assert_array_equal(bias, np.array([0.5, -0.5], np.float32))
    assert found.undone == {"quantizers": 2, "constants": 2}
    assert not found.left
    assert len(found.model.graph.initializers) == 2


def test_ranges_reach_as_far_as_integers_do() -> None:
    ranges = undone(PRODUCT).ranges
    np.testing.assert_allclose(ranges["x"], ((-128 - 3) * 0.1, (127 - 3) * 0.1), rtol=1e-6)
    np.testing.assert_allclose(ranges["y"], (0, 255 * 0.2), rtol=1e-6)


def test_integers_of_weights_are_found_again() -> None:
    found = undone(PRODUCT)
    (one,) = found.weights(found.model, 8).values()
    assert one.codes.tolist() == [[[-3, 127], [4, -128]]]
    assert one.scale.tolist() == [[0.5, 0.25]]
    assert one.bias.tolist() == [[0.5, -0.5]]
    assert not found.weights(found.model, 4)


def test_weights_that_changed_are_no_integers_any_more() -> None:
    found = undone(PRODUCT)
    gemm = next(iter(found.model.graph))
    assert gemm.inputs[1] is not None
    assert gemm.inputs[1].const_value is not None
    gemm.inputs[1].const_value = ir.tensor(gemm.inputs[1].const_value.numpy() + np.float32(0.01))
    assert not found.weights(found.model, 8)


def test_weights_that_something_was_folded_into_are_integers_in_other_scales() -> None:
    found = undone(PRODUCT)
    gemm = next(iter(found.model.graph))
    assert gemm.inputs[1] is not None
    assert gemm.inputs[1].const_value is not None
    gemm.inputs[1].const_value = ir.tensor(gemm.inputs[1].const_value.numpy() * np.array([-0.3, 0.7], np.float32))
    (one,) = found.weights(found.model, 8).values()
    assert one.codes.tolist() == [[[3, -127], [3, -96]]]  # the least integers, 4/3 of those there were in one row
    np.testing.assert_allclose(one.scale, [[0.15, 0.175 * 4 / 3]], rtol=1e-6)


@pytest.mark.parametrize("columns", [9, 300])
def test_integers_are_found_behind_any_factors(columns: int) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, (2, 20, columns))
    codes[0, 3] = 0
    codes[:, :, 0] = np.where(codes[:, :, 0], 127, 0)
    factors = rng.normal(size=(2, 20, 1)).astype(np.float32)
    matrix = codes.astype(np.float32) * np.float32(0.013) * factors
    found = on_grid(matrix, 8)
    assert found is not None
    np.testing.assert_allclose(found[0] * found[1][..., None], matrix, rtol=1e-6)
    assert np.array_equal(np.abs(found[0]), np.abs(codes))
    assert np.all(found[1] > 0)
    assert on_grid(matrix, 7) is None


def test_floats_are_no_integers() -> None:
    floats = np.random.default_rng(0).normal(size=(1, 4, 9)).astype(np.float32)
    assert on_grid(floats, 9) is None
    assert still(floats, np.array([0.1], np.float32), 8) is None
    assert still(floats, np.array([0.1, 0.1], np.float32), 8) is None


def test_the_result_differs_by_rounding_alone() -> None:
    model = source(PRODUCT).model
    x = np.random.default_rng(0).uniform(-10, 10, (50, 2)).astype(np.float32)
    given, floats = (Session(runnable(m, Carried())).run({"x": x})["y"] for m in (model, unquantized(model).model))
    inside = floats < 255 * 0.2
    assert np.abs(given - floats)[inside].max() <= 64 * 0.05 + 0.1 + 1e-5
    assert floats.min() == 0 == given.min()


def test_a_relu_that_a_quantizer_stands_for_is_put_back_by_the_name_of_its_value() -> None:
    found = undone(PRODUCT)
    gemm, relu = found.model.graph
    assert relu.outputs[0] is found.model.graph.outputs[0]
    assert relu.outputs[0].name == "y"
    assert relu.inputs[0] is gemm.outputs[0]


@pytest.mark.parametrize("positive", ["Relu(x)", "Sigmoid(x)", "Abs(x)"])
def test_no_relu_is_put_where_nothing_is_below_zero(positive: str) -> None:
    text = f"""agraph (float[n,2] x) => (float[n,2] y) {WEIGHTS} {{
      r = {positive}
      m = Add(r, r)
      rq = QuantizeLinear(m, t, u)
      rd = DequantizeLinear(rq, t, u)
      y = Neg(rd)
    }}"""
    assert "Relu" not in operators(undone(text))[1:]


def test_what_ends_at_one_number_together_was_clipped_there() -> None:
    text = f"""agraph (float[n,2] x) => (float[n,2] y, float[n,2] o) {WEIGHTS} {{
      a = Neg(x)
      aq = QuantizeLinear(a, t, u)
      ad = DequantizeLinear(aq, t, u)
      c = Sin(ad)
      cq = QuantizeLinear(c, t, u)
      cd = DequantizeLinear(cq, t, u)
      y = Neg(cd)
      e = Cos(cd)
      eq = QuantizeLinear(e, s, u)
      ed = DequantizeLinear(eq, s, u)
      o = Neg(ed)
    }}"""
    found = undone(text)
    assert operators(found) == ["Neg", "Clip", "Sin", "Clip", "Neg", "Cos", "Relu", "Neg"]
    clip = [n for n in found.model.graph if n.op_type == "Clip"][1]
    ends = [float(v.const_value.numpy()) for v in clip.inputs[1:] if v is not None and v.const_value is not None]
    np.testing.assert_allclose(ends, (0, 255 * 0.2), rtol=1e-6)
    Session(runnable(found.model, Carried())).run({"x": np.ones((1, 2), np.float32)})


def test_moves_between_quantizers_are_made_on_floats() -> None:
    text = f"""agraph (float[2,n] x, float[2,n] v) => (float[m,2] y) {WEIGHTS} {{
      q = QuantizeLinear(x, s, z)
      p = QuantizeLinear(v, s, z)
      c = Concat<axis = 1>(q, p)
      t1 = Transpose(c)
      y = DequantizeLinear(t1, s, z)
    }}"""
    found = undone(text)
    assert operators(found) == ["Concat", "Transpose"]
    assert set(found.ranges) >= {"x", "v", "y"}
    out = Session(runnable(found.model, Carried())).run({n: np.ones((2, 3), np.float32) for n in "xv"})
    assert out["y"].tolist() == np.ones((6, 2)).tolist()


def test_floats_that_are_quantized_in_the_graph_are_rounded() -> None:
    text = """agraph (float[n,2] x) => (float[n,2] y)
      <float[2,2] w = {0.26, 1, -0.5, 0.1}, float[2] ws = {0.5, 0.25}, int8[2] wz = {0, 0}> {
      wq = QuantizeLinear<axis = 0>(w, ws, wz)
      wd = DequantizeLinear<axis = 0>(wq, ws, wz)
      wt = Transpose(wd)
      y = MatMul(x, wt)
    }"""
    found = undone(text)
    assert operators(found) == ["Transpose", "MatMul"]
    (weight,) = found.model.graph.initializers.values()
    assert weight.const_value is not None
    np.testing.assert_array_equal(weight.const_value.numpy(), np.array([[0.5, 1], [-0.5, 0]], np.float32))
    assert list(found.scales) == ["MatMul_3"]


LEFT = {
    "nothing reads it as floats": "qa = Identity(q)\n      y = Cast<to = 1>(qa)",
    "further readers": "d = DequantizeLinear(q, s, z)\n      c = Cast<to = 1>(q)\n      y = Add(d, c)",
    "another scale": "y = DequantizeLinear(q, t, z)",
    "another zero point": "y = DequantizeLinear(q, s, wz1)",
    "computed integers": "i = Add(q, q)\n      y = DequantizeLinear(i, s, z)",
    "padding": "p = Pad(q, pads)\n      y = DequantizeLinear(p, s, z)",
    "integers that are outputs": "y = DequantizeLinear(q, s, z)\n      o = Identity(q)",
}


@pytest.mark.parametrize("body", LEFT.values(), ids=LEFT)
def test_what_has_another_form_stays(body: str) -> None:
    more = ", int8[a,b] o" if " o =" in body else ""
    text = f"""agraph (float[n,2] x) => (float[a,b] y{more})
      <float s = {{0.1}}, int8 z = {{3}}, float t = {{0.2}}, int8 wz1 = {{4}}, int64[4] pads = {{0, 1, 0, 1}}> {{
      q = QuantizeLinear(x, s, z)
      {body}
    }}"""
    given = source(text).model
    found = unquantized(given)
    assert operators(found) == [n.op_type for n in given.graph]
    assert set(found.model.graph.initializers) == set(given.graph.initializers)
    assert "QuantizeLinear_0" in found.left
    assert not found.undone
    assert not found.readings


def test_padding_with_the_number_zero_is_made_on_floats() -> None:
    text = """agraph (float[n,2] x) => (float[a,b] y) <float s = {0.1}, int8 z = {0}, int64[4] pads = {0, 1, 0, 1}> {
      q = QuantizeLinear(x, s, z)
      p = Pad(q, pads)
      y = DequantizeLinear(p, s, z)
    }"""
    assert operators(undone(text)) == ["Pad"]


def test_integer_operators_blocks_wide_integers_and_tables_stay() -> None:
    text = """agraph (float[n,4] x, int64[k] i) => (int32[n,4] y, float[4,4] b, float[n,4] h, float[k,4] g)
      <int8[4,4] w = {1,2,3,4,1,2,3,4,1,2,3,4,1,2,3,4}, float s = {0.1}, int16 z = {0},
       float[2,4] bs = {1,1,1,1,1,1,1,1}> {
      q, qs, qz = DynamicQuantizeLinear(x)
      y = MatMulInteger(q, w, qz)
      b = DequantizeLinear<axis = 0, block_size = 2>(w, bs)
      hq = QuantizeLinear(x, s, z)
      h = DequantizeLinear(hq, s, z)
      t = DequantizeLinear(w, s)
      g = Gather(t, i)
    }"""
    found = undone(text)
    assert operators(found) == [n.op_type for n in ir.serde.deserialize_model(parse(text)).graph]
    assert {n: why.split()[0] for n, why in found.left.items()}.keys() == {
        "MatMulInteger_1",
        "DequantizeLinear_2",
        "QuantizeLinear_3",
        "DequantizeLinear_4",
        "DequantizeLinear_5",
    }
    assert not found.undone


def test_a_value_that_alone_tells_two_outputs_apart_stays_quantized() -> None:
    text = """agraph (float[n,2] x) => (float[n,2] a, float[n,2] y) <float s = {0.1}, int8 z = {3}> {
      a = Neg(x)
      q = QuantizeLinear(a, s, z)
      y = DequantizeLinear(q, s, z)
    }"""
    found = undone(text)
    assert operators(found) == ["Neg", "QuantizeLinear", "DequantizeLinear"]
    assert not found.undone


def test_values_that_moves_hand_on_have_the_same_range() -> None:
    text = f"""agraph (float[n,2] x) => (float[a,b] y) {WEIGHTS} {{
      a = Neg(x)
      m = Transpose(a)
      q = QuantizeLinear(m, s, z)
      d = DequantizeLinear(q, s, z)
      f = Flatten(d)
      y = Neg(f)
    }}"""
    ranges = undone(text).ranges
    assert ranges["a"] == ranges["m"] == ranges["f"]
    assert "y" not in ranges


def test_nothing_is_changed_in_the_model_that_was_given() -> None:
    model = source(PRODUCT).model
    before = ir.serde.serialize_model(model).SerializeToString()
    unquantized(model)
    assert ir.serde.serialize_model(model).SerializeToString() == before


def test_models_on_floats_stay_what_they_are() -> None:
    found = undone("agraph (float[n,2] x) => (float[n,2] y) { y = Relu(x) }")
    assert operators(found) == ["Relu"]
    assert (found.undone, found.left, found.ranges, found.scales) == ({}, {}, {}, {})
    assert not found.products
