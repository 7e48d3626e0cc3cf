"""What is written: standard integers around the same operators, in steps that fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from graphopt import ops
from graphopt.analysis.calibration import observe
from graphopt.compress.integers.quantize import Quantize, grids, weights
from graphopt.compress.integers.quantizers import assembled
from graphopt.compress.integers.region import Grid, layout
from graphopt.compress.integers.steps import BITS
from graphopt.errors import UsageError
from graphopt.graph.carry import Carried
from graphopt.graph.nodes import array, key
from graphopt.graph.save import serialize
from graphopt.run.machine import Machine
from tests.compress.integers.test_region import BLOCK, ON_CPU, ON_OPENVINO, ON_TENSORRT
from tests.support.integers import Placed, filled, images, noise, placed

KINDS = """g (float[N,4,8,8] x) => (float[N,8,8,7] y)
    <float[6,4,3,3] wp, float[6] bp, float[6,2,3,3] wg, float[6,1,3,3] wd, float[6] bd, float[6,7] m1, float[7] b1> {
    [plain] a = Conv<pads=[1,1,1,1]>(x, wp, bp) ra = Relu(a)
    [split] b = Conv<pads=[1,1,1,1], group=3>(ra, wg) rb = Relu(b)
    [deep] c = Conv<pads=[1,1,1,1], group=6>(rb, wd, bd)
    t = Transpose<perm=[0,2,3,1]>(c)
    [matrix] d = MatMul(t, m1) y = Add(d, b1) }"""
MATRICES = """g (float[N,8] x) => (float[N,3] y) <float[8,6] m1, float[6] b1, float[3,6] w2, float[1,3] b2> {
    [first] a = Gemm(x, m1, b1) r = Relu(a) [second] y = Gemm<transB=1>(r, w2, b2) }"""


def node(model: ir.Model, name: str) -> ir.Node:
    return next(n for n in model.graph if key(n) == name)


def integers(value: ir.Value | None) -> tuple[Any, Any, int]:
    """What a DequantizeLinear reads, with scale and axis."""
    assert value is not None
    back = value.producer()
    assert back is not None
    assert back.op_type == "DequantizeLinear"
    codes, scale, zero = (array(v) for v in back.inputs)
    assert codes is not None
    assert scale is not None
    assert zero is not None
    assert zero.dtype == codes.dtype
    assert zero.shape == scale.shape
    assert not zero.any()
    return codes, scale, back.attributes["axis"].as_int()


@pytest.fixture(scope="module")
def kinds() -> tuple[ir.Model, Placed]:
    model = filled(KINDS)
    return model, placed(model, ON_CPU, images(4, 8, 8))


def test_weights_have_a_scale_for_each_output_channel(kinds: tuple[ir.Model, Placed]) -> None:
    model, made = kinds
    for name, axis in (("plain", 0), ("split", 0), ("deep", 0), ("matrix", 1)):
        codes, scale, along = integers(node(made.model, name).inputs[1])
        (linear,) = ops.linears(node(model, name))
        assert along == axis
        assert codes.dtype == np.int8
        assert scale.shape == (codes.shape[axis],)
        across = tuple(a for a in range(codes.ndim) if a != axis)
        wide = np.abs(linear.weights).max(across)
        told = codes * np.expand_dims(scale, across)
        assert np.all(np.abs(told - linear.weights).max(across) <= 0.2 * wide)
        np.testing.assert_allclose(linear.unmatrix(made.weights[name].matrix), told, rtol=1e-6)


def test_a_bias_has_the_steps_of_data_times_weights(kinds: tuple[ir.Model, Placed]) -> None:
    made = kinds[1]
    for name, source in (("plain", "x"), ("split", "ra"), ("deep", "rb")):
        product = node(made.model, name)
        wide, steps, axis = integers(product.inputs[2])
        _, scale, _ = integers(product.inputs[1])
        assert (wide.dtype, axis) == (np.int32, 0)
        grid = made.ranges[made.layout.values[source]].grid
        np.testing.assert_array_equal(steps, np.float32(grid.scale) * scale)
        np.testing.assert_allclose(wide * steps, made.weights[name].bias.reshape(-1), atol=steps.max())


def test_a_row_that_is_added_to_a_matrix_product_stays_one_of_floats(kinds: tuple[ir.Model, Placed]) -> None:
    made = kinds[1]
    (add,) = node(made.model, "matrix").outputs[0].consumers()
    found = array(add.inputs[1])
    assert found is not None
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, made.weights["matrix"].bias.reshape(-1), rtol=1e-6)


@pytest.mark.parametrize("target", [ON_TENSORRT, ON_OPENVINO])
def test_elsewhere_biases_are_floats(target: Any) -> None:
    for text, shape in ((KINDS, (4, 8, 8)), (MATRICES, (8,))):
        model = filled(text)
        made = placed(model, target, images(*shape))
        for name in made.layout.products:
            (linear,) = ops.linears(node(model, name))
            product = node(made.model, name)
            _, scale, axis = integers(product.inputs[1])
            assert axis == linear.w_out
            assert len(scale) == linear.channels
            if linear.bias is not None:
                bias = array(product.inputs[2])
                assert bias is not None
                assert bias.dtype == np.float32
                np.testing.assert_allclose(bias, made.weights[name].bias.reshape(-1), rtol=1e-6)


def test_a_grid_around_0_is_signed_elsewhere() -> None:
    made = placed(filled(BLOCK), ON_TENSORRT, images(4, 6, 6))
    assert all((r.grid.zero, r.grid.unsigned) == (0, False) for r in made.ranges.values())
    assert all(r.range is not None and r.range.levels == 256 for r in made.ranges.values())
    zeros = [array(n.inputs[2]) for n in made.model.graph if n.op_type == "QuantizeLinear"]
    assert len(zeros) == 4
    assert all(z is not None and z.dtype == np.int8 and z.shape == () and z == 0 for z in zeros)


def test_behind_a_clipping_zero_is_the_least_integer() -> None:
    made = placed(filled(BLOCK), ON_CPU, images(4, 6, 6))
    zeros = {n: made.ranges[number].grid.zero for n, number in made.layout.values.items()}
    assert {n: zeros[n] for n in ("r", "d", "u")} == {"r": 0, "d": 0, "u": 0}
    assert 80 < zeros["x"] < 176


def test_both_layouts_of_a_gemm() -> None:
    model = filled(MATRICES)
    made = placed(model, ON_CPU, images(8))
    assert [integers(node(made.model, n).inputs[1])[2] for n in ("first", "second")] == [1, 0]
    assert [integers(node(made.model, n).inputs[2])[0].shape for n in ("first", "second")] == [(6,), (3,)]
    assert noise(model, made.model, images(8, seed=3)) < 1e-3


def test_a_gemm_that_leaves_its_bias_out_goes_on_doing_so() -> None:
    model = filled("""g (float[N,4] x) => (float[N,5] y) <float[4,5] m1, float[5] b1> {
        [p] y = Gemm<beta=0.0>(x, m1, b1) }""")
    made = placed(model, ON_CPU, images(4, count=400))
    assert noise(model, made.model, images(4, seed=3)) < 1e-3


@pytest.mark.parametrize("scale", [0.0, 1e-44, 1e-37, 1e-20, 1e-9, 1e-6])
def test_a_channel_that_is_all_bias_keeps_it(scale: float) -> None:
    model = filled("""g (float[N,4,6,6] x) => (float[N,4,4,4] y) <float[4,4,3,3] w1, float[4] b1> {
        [p] y = Conv(x, w1, b1) }""")
    weight, bias = (model.graph.initializers[n] for n in ("w1", "b1"))
    for value, contents in ((weight, array(weight)), (bias, array(bias))):
        assert contents is not None
        changed = contents.copy()
        changed[1] = contents[1] * scale if contents.ndim > 1 else 0.75
        changed[2] = 0 if contents.ndim > 1 else 0.0
        value.const_value = ir.tensor(changed)
    made = placed(model, ON_CPU, images(4, 6, 6))
    product = node(made.model, "p")
    wide, steps, _ = integers(product.inputs[2])
    assert np.all(steps >= np.finfo(np.float32).tiny)
    assert np.abs(wide.astype(np.int64)).max() < 2**31 - 2**20
    np.testing.assert_allclose((wide * steps)[1:3], [0.75, 0.0], rtol=1e-5)
    assert noise(model, made.model, images(4, 6, 6, seed=3)) < 1e-3


@pytest.mark.parametrize("bits", BITS)
def test_fewer_bits_are_smaller_integers(bits: int) -> None:
    model = filled(BLOCK)
    made = placed(model, ON_CPU, images(4, 6, 6), bits=bits)
    most = 2 ** (bits - 1) - 1
    found = [integers(node(made.model, n).inputs[1])[0] for n in made.layout.products]
    assert max(int(np.abs(c.astype(int)).max()) for c in found) == most
    assert noise(model, made.model, images(4, 6, 6, seed=3)) < {8: 1e-3, 4: 0.05, 3: 0.2}[bits]


def test_the_model_that_was_given_stays_and_the_result_is_the_same_again() -> None:
    model = filled(BLOCK)
    before = serialize(model, Carried())
    first, second = (placed(model, ON_CPU, images(4, 6, 6)).model for _ in range(2))
    assert serialize(model, Carried()) == before
    assert serialize(first, Carried()) == serialize(second, Carried())


def test_a_name_that_is_taken_is_no_obstacle() -> None:
    model = filled(BLOCK.replace("float[N,4,6,6] y)", "float[N,4,6,6] y, float[N,4,6,6] exact)").replace("u = Relu(t)", "u = Relu(t) exact = Neg(t)"))  # fmt: skip # noqa: E501
    for old, new in (("d", "r/quantized"), ("e", "y/exact"), ("t", "x/scale")):
        next(v for n in model.graph for v in n.outputs if v.name == old).name = new
    made = placed(model, ON_CPU, images(4, 6, 6))
    assert noise(model, made.model, images(4, 6, 6, seed=2)) < 1e-3
    names = [v.name for n in made.model.graph for v in n.outputs] + list(made.model.graph.initializers)
    assert len(names) == len(set(names))


def test_weights_that_were_left_out_stay_floats_and_so_do_their_data() -> None:
    model = filled(BLOCK)
    made = placed(model, ON_CPU, images(4, 6, 6))
    fewer = layout(model, ON_CPU, {"q", "add"})
    part = assembled(model, fewer, made.ranges, made.weights, integer_bias=True)
    assert array(node(part, "q").inputs[1]) is not None
    assert array(node(part, "p").inputs[1]) is None
    assert node(part, "q").outputs[0].name not in fewer.values
    assert 0 < noise(model, part, images(4, 6, 6, seed=2)) < 1e-3


def test_weights_are_fitted_to_the_operand_that_the_sum_reads() -> None:
    """The sum reads h as it is, though a product reads it quantized: there is no drift of h to make up for."""
    model = filled("""g (float[N,8] x) => (float[N,8] y, float[N,8] a) <float[8,8] m1, float[8,8] m2, float[8] b1> {
        h = Tanh(x) t = Sigmoid(x) [q] b = Gemm(t, m2, b1) y = Add(b, h) [p] a = MatMul(h, m1) }""")
    samples, plan = images(8, count=400), layout(model, ON_CPU)
    found = grids(plan, observe(model, plan.values, samples), "mse", unsigned=True)
    number = plan.values["h"]
    coarse = replace(found[number], grid=Grid.over(-16, 16, unsigned=True))
    fine, rough = (weights(model, plan, f, samples) for f in (found, {**found, number: coarse}))
    assert rough["p"].before > 10 * fine["p"].before
    assert rough["q"].before == fine["q"].before


def test_little_memory_is_enough() -> None:
    model = filled(BLOCK)
    plan, samples = layout(model, ON_CPU), images(4, 6, 6)
    found = grids(plan, observe(model, plan.values, samples), "mse", unsigned=True)
    large, small = (weights(model, plan, found, samples, Machine(memory=m)) for m in (1 << 30, 1 << 14))
    assert large.keys() == small.keys()
    assert all(small[k].after < 0.01 for k in small)


def test_values_that_are_not_finite_teach_nothing() -> None:
    model, samples = filled(BLOCK), images(4, 6, 6)
    samples["x"][3] = np.nan
    made = placed(model, ON_CPU, samples)
    assert {w.way for w in made.weights.values()} == {"nearest, as its values are not finite"}
    assert noise(model, made.model, images(4, 6, 6, seed=2)) < 3e-3


def test_values_that_are_all_the_same() -> None:
    model = filled(BLOCK)
    made = placed(model, ON_CPU, {"x": np.zeros((20, 4, 6, 6), np.float32)})
    assert all(r.grid.scale >= np.finfo(np.float32).tiny for r in made.ranges.values())
    noise(model, made.model, images(4, 6, 6, seed=2))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"weight_bits": 5}, "weights have 8, 4, 3 bits, not 5"),
        ({"weight_bits": 0}, "give one of these"),
        ({"ranges": "luck"}, "ranges are not chosen by 'luck': give one of minmax, average, percentile, entropy, mse"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Quantize(**fields)


@pytest.mark.parametrize("ranges", ["minmax", "average", "percentile", "entropy", "mse"])
def test_every_way_to_choose_ranges(ranges: Any) -> None:
    model, samples = filled(BLOCK), images(4, 6, 6)
    plan = layout(model, ON_CPU)
    found = grids(plan, observe(model, plan.values, samples), ranges, unsigned=True)
    made = weights(model, plan, found, samples)
    done = assembled(model, plan, found, made, integer_bias=True)
    assert noise(model, done, images(4, 6, 6, seed=2)) < 0.01


POOLED = """g (float[N,4,9,9] x) => (float[N,4,4,4] y) <float[4,4,3,3] w1, float[4] b1, float[4,4,3,3] w2> {
    [stem] a = Conv<pads=[1,1,1,1]>(x, w1, b1) [clip] r = Relu(a)
    [pool] p = MaxPool<kernel_shape=[3,3], strides=[2,2]>(r) [last] y = Conv<pads=[1,1,1,1]>(p, w2) }"""


@pytest.mark.parametrize(
    ("text", "skip", "order"),
    [
        (POOLED, ["stem"], ["stem", "pool", "clip", "last"]),
        (POOLED.replace("Relu(a)", "Clip(a, low, high)").replace("w2>", "w2, float low = {-0.5}, float high = {0.75}>"),
         ["stem"], ["stem", "pool", "clip", "last"]),
        (POOLED, [], ["stem", "clip", "pool", "last"]),
        (POOLED, ["stem", "last"], ["stem", "clip", "pool", "last"]),
        (POOLED.replace("float[N,4,4,4] y", "float[N,4,4,4] y, float[N,4,9,9] r"),
         ["stem"], ["stem", "clip", "pool", "last"]),
        (POOLED.replace("float[N,4,4,4] y", "float[N,4,4,4] y, float[N,4,4,4] p"),
         ["stem"], ["stem", "pool", "clip", "last"]),
        (POOLED.replace("MaxPool", "AveragePool"), ["stem"], ["stem", "clip", "pool", "last"]),
    ],
    ids=["relu", "clip", "integers", "floats", "read", "output", "average"],
)  # fmt: skip
def test_a_clipping_goes_behind_a_pool_on_floats_and_nothing_changes(
    text: str, skip: list[str], order: list[str]
) -> None:
    model, feed = filled(text), images(4, 9, 9)
    made = placed(model, ON_CPU, feed, skip=skip)
    assert [key(n) for n in made.model.graph if key(n) in order] == order
    plain = placed(model, replace(ON_CPU, passed=frozenset()), feed, skip=skip)
    assert noise(plain.model, made.model, feed) == 0
    assert made.layout == plain.layout
