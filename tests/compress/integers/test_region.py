"""Where quantizers stand on small graphs; with them there, models are valid, run, and are close to what they were."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from graphopt.compress.integers.region import Grid, Layout, layout
from graphopt.targets import CPU, OPENVINO, TENSORRT, Integers, Target
from tests.support.integers import filled, images, noise, placed

FREE = (-inf, inf)
POSITIVE = (0.0, inf)
CLOSE = 3e-3
"""Of the variance of the outputs: more than 25 dB."""


def integers(target: Target) -> Integers:
    assert target.integers is not None
    return target.integers


ON_CPU, ON_TENSORRT, ON_OPENVINO = integers(CPU), integers(TENSORRT), integers(OPENVINO)
WEIGHTS = "float[4,4,3,3] w1, float[4,4,3,3] w2, float[4,4,3,3] w3, float[4,4,1,1] w4, float[4] b1, float[4] b2"


def conv(name: str, result: str, reads: str, **attributes: Any) -> str:
    said = ", ".join(f"{k}={v}" for k, v in ({"pads": "[1,1,1,1]"} | attributes).items())
    return f"[{name}] {result} = Conv<{said}>({reads})"


def net(*lines: str, ends: str = "float[N,4,6,6] y", more: str = "") -> str:
    declared = WEIGHTS + (f", {more}" if more else "")
    return f"g (float[N,4,6,6] x) => ({ends}) <{declared}> {{ {' '.join(lines)} }}"


def assert_laid_out(
    text: str,
    target: Integers,
    values: dict[str, int],
    *,
    products: str,
    others: str = "",
    closed: str = "",
    bounds: dict[int, tuple[float, float]] | None = None,
    shape: tuple[int, ...] = (4, 6, 6),
    skip: tuple[str, ...] = (),
) -> None:
    """The exact layout, names as words in a text; then what it does to the model."""
    model = filled(text)
    everything = dict.fromkeys(values.values(), FREE) | (bounds or {})
    expected = Layout(
        tuple(products.split()),
        frozenset([*products.split(), *others.split()]),
        values,
        frozenset(closed.split()),
        everything,
    )
    found = layout(model, target, skip)
    assert found == expected
    assert list(found.values) == list(values)
    done = placed(model, target, images(*shape), skip=skip)
    assert set(done.weights) == set(expected.products)
    assert 0 < noise(model, done.model, images(*shape, seed=2)) < CLOSE


BLOCK = net(
    conv("p", "a", "x, w1, b1"),
    "r = Relu(a)",
    conv("q", "b", "r, w2"),
    "d = Relu(b)",
    conv("s", "e", "d, w3"),
    "[add] t = Add(e, r)",
    "u = Relu(t)",
    conv("last", "y", "u, w4", pads="[0,0,0,0]"),
)


def test_a_residual_block_is_of_integers_all_through() -> None:
    assert_laid_out(
        BLOCK,
        ON_CPU,
        {"x": 0, "r": 1, "d": 2, "e": 3, "u": 4, "y": 5},
        products="p q s last",
        others="add",
        closed="r d e u y",
        bounds={1: POSITIVE, 2: POSITIVE, 4: POSITIVE},
    )


@pytest.mark.parametrize("target", [ON_TENSORRT, ON_OPENVINO])
def test_elsewhere_results_stay_floats_and_the_operand_of_a_sum_is_quantized(target: Integers) -> None:
    assert_laid_out(
        BLOCK,
        target,
        {"x": 0, "r": 1, "d": 2, "u": 3},
        products="p q s last",
        others="add",
        bounds={1: POSITIVE, 2: POSITIVE, 3: POSITIVE},
    )


@pytest.mark.parametrize("target", [ON_TENSORRT, ON_OPENVINO])
def test_the_operand_of_a_sum_that_no_product_reads_is_quantized_for_it_alone(target: Integers) -> None:
    text = net(conv("p", "a", "x, w1, b1"), "[h] h = Tanh(x)", "[add] y = Add(h, a)")
    assert_laid_out(text, target, {"x": 0, "h": 1}, products="p", others="add")
    made = placed(filled(text), target, images(4, 6, 6)).model
    (add,) = (n for n in made.graph if n.op_type == "Add")
    assert [v.producer().op_type for v in add.inputs if v is not None] == ["DequantizeLinear", "Conv"]  # type: ignore[union-attr]


@pytest.mark.parametrize("target", [ON_TENSORRT, ON_OPENVINO])
def test_a_sum_behind_a_product_of_matrices_keeps_its_floats(target: Integers) -> None:
    text = "g (float[N,8] x) => (float[N,8] y) <float[8,8] m1> { [p] a = MatMul(x, m1) t = Tanh(x) y = Add(t, a) }"
    assert_laid_out(text, target, {"x": 0}, products="p", shape=(8,))


def test_of_two_convolutions_that_are_added_neither_is_quantized_elsewhere() -> None:
    text = net(conv("p", "a", "x, w1, b1"), conv("q", "b", "x, w2"), "y = Add(a, b)")
    assert_laid_out(text, ON_TENSORRT, {"x": 0}, products="p q")
    assert_laid_out(text, ON_TENSORRT, {"x": 0}, products="p", skip=("q",))


@pytest.mark.parametrize("node", ["q", "add"])
def test_what_is_skipped_computes_on_floats(node: str) -> None:
    values = {"x": 0, "r": 1, "d": 2, "e": 3, "u": 4, "y": 5}
    assert_laid_out(
        BLOCK,
        ON_CPU,
        values,
        products=" ".join(p for p in ("p", "q", "s", "last") if p != node),
        others="" if node == "add" else "add",
        closed="r e u y" if node == "q" else "r d e y",
        bounds={1: POSITIVE, 2: POSITIVE, 4: POSITIVE},
        skip=(node,),
    )


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [("0", "0.5", (0.0, 0.5)), ("-0.25", "6", (-0.25, 6.0)), ("0.5", "2", (0.5, 2.0)), ("-2", "-0.25", (-2.0, -0.25))],
)
def test_a_grid_goes_no_further_than_a_clip_and_holds_all_that_it_leaves(
    low: str, high: str, expected: tuple[float, float]
) -> None:
    text = net(
        conv("p", "a", "x, w1, b1"),
        "r = Clip(a, low, high)",
        conv("q", "y", "r, w2"),
        more=f"float low = {{{low}}}, float high = {{{high}}}",
    )
    assert_laid_out(text, ON_CPU, {"x": 0, "r": 1, "y": 2}, products="p q", closed="r y", bounds={1: expected})
    grid = placed(filled(text), ON_CPU, images(4, 6, 6)).ranges[1].grid
    ends = np.array([max(expected[0], -1), min(expected[1], 1)], np.float32)
    np.testing.assert_allclose(seen(grid, ends), ends, atol=grid.scale)


def test_a_clip_between_bounds_that_are_computed_is_an_operator_of_floats() -> None:
    text = net(
        conv("p", "a", "x, w1, b1"), "h = ReduceMax<keepdims=0>(x)", "r = Clip(a, low, h)", conv("q", "y", "r, w2"),
        more="float low = {0}",
    )  # fmt: skip
    assert_laid_out(text, ON_CPU, {"x": 0, "a": 1, "r": 2, "y": 3}, products="p q", closed="a y")


def test_what_only_moves_elements_keeps_one_grid_up_to_the_classifier() -> None:
    text = net(
        conv("p", "a", "x, w1, b1"),
        "r = Relu(a)",
        conv("q", "b", "x, w2"),
        "[cat] k = Concat<axis=1>(r, b)",
        "[pool] m = MaxPool<kernel_shape=[2,2], strides=[1,1], pads=[0,0,1,1]>(k)",
        "[shape] h = Reshape(m, to)",
        "[turn] t = Transpose<perm=[0,1,3,2]>(h)",
        "[split] s1, s2 = Split<axis=1>(t, sizes)",
        conv("s", "e", "s2, w5"),
        conv("u", "f", "s1, w6"),
        "[add] g = Add(e, f)",
        "[mean] c = GlobalAveragePool(g)",
        "[flat] v = Flatten(c)",
        "[gemm] y = Gemm(v, m1, b3)",
        ends="float[N,3] y",
        more="float[4,6,3,3] w5, float[4,2,3,3] w6, float[4,3] m1, float[3] b3, "
        "int64[2] sizes = {2,6}, int64[4] to = {0,8,6,6}",
    )
    moved = dict.fromkeys(("r", "b", "k", "m", "h", "t", "s1", "s2"), 1)
    assert_laid_out(
        text,
        ON_CPU,
        {"x": 0} | moved | {"e": 2, "f": 3, "g": 4, "c": 5, "v": 5},
        products="p q s u gemm",
        others="cat pool shape turn split add mean flat",
        closed="r b k m h t s1 s2 e f g c v",
    )


def test_a_float_operator_in_between_has_quantizers_on_both_sides() -> None:
    text = net(conv("p", "a", "x, w1, b1"), "r = HardSwish(a)", conv("q", "y", "r, w2"))
    assert_laid_out(text, ON_CPU, {"x": 0, "a": 1, "r": 2, "y": 3}, products="p q", closed="a y")
    assert_laid_out(text, ON_TENSORRT, {"x": 0, "r": 1}, products="p q")


@pytest.mark.parametrize("target", [ON_CPU, ON_TENSORRT, ON_OPENVINO])
def test_products_of_matrices_give_floats(target: Integers) -> None:
    text = """g (float[N,8] x) => (float[N,3] y) <float[8,6] m1, float[6] b1, float[6,3] m2> {
        [p] a = Gemm(x, m1, b1) r = Relu(a) [q] y = MatMul(r, m2) }"""
    assert_laid_out(text, target, {"x": 0, "r": 1}, products="p q", bounds={1: POSITIVE}, shape=(8,))


@pytest.mark.parametrize("target", [ON_CPU, ON_TENSORRT, ON_OPENVINO])
def test_of_a_transformer_only_what_products_read_is_quantized(target: Integers) -> None:
    text = """g (float[N,5,8] x) => (float[N,5,8] y)
        <float[8] s, float[8] t, float[8,16] m1, float[16] b1, float[16,8] m2, float[8] b2> {
        n = LayerNormalization(x, s, t) [p] a = MatMul(n, m1) c = Add(a, b1) g0 = Relu(c) g1 = Tanh(g0)
        [q] d = MatMul(g1, m2) e = Add(b2, d) y = Add(x, e) }"""
    assert_laid_out(text, target, {"n": 0, "g1": 1}, products="p q", shape=(5, 8))


def test_a_depthwise_convolution_is_one_of_integers() -> None:
    text = net(
        conv("p", "a", "x, w1, b1"), "r = Relu(a)", conv("d", "b", "r, wd", group=4), conv("q", "y", "b, w2"),
        more="float[4,1,3,3] wd",
    )  # fmt: skip
    assert_laid_out(
        text, ON_CPU, {"x": 0, "r": 1, "b": 2, "y": 3}, products="p d q", closed="r b y", bounds={1: POSITIVE}
    )


def test_an_output_that_is_read_on_is_what_the_others_read() -> None:
    text = net(
        conv("p", "a", "x, w1, b1"), "r = Relu(a)", conv("q", "y", "r, w2"), "z = Tanh(r)",
        ends="float[N,4,6,6] r, float[N,4,6,6] y, float[N,4,6,6] z",
    )  # fmt: skip
    assert_laid_out(text, ON_CPU, {"x": 0, "r": 1, "y": 2}, products="p q", closed="r y", bounds={1: POSITIVE})
    made = placed(filled(text), ON_CPU, images(4, 6, 6)).model
    assert [v.name for v in made.graph.outputs] == ["r", "y", "z"]
    assert [v.producer().op_type for v in made.graph.outputs] == ["DequantizeLinear"] * 2 + ["Tanh"]  # type: ignore[union-attr]


def test_an_output_where_results_are_floats_stays_exact() -> None:
    text = net(
        conv("p", "a", "x, w1, b1"), "r = Relu(a)", conv("q", "y", "r, w2"),
        ends="float[N,4,6,6] r, float[N,4,6,6] y",
    )  # fmt: skip
    assert_laid_out(text, ON_TENSORRT, {"x": 0, "r": 1}, products="p q", bounds={1: POSITIVE})
    made = placed(filled(text), ON_TENSORRT, images(4, 6, 6)).model
    assert [v.producer().op_type for v in made.graph.outputs] == ["Relu", "Conv"]  # type: ignore[union-attr]


def test_an_input_is_quantized_once_for_two_convolutions_and_stays_float_for_others() -> None:
    text = net(conv("p", "a", "x, w1, b1"), conv("q", "b", "x, w2"), "t = Tanh(x)", "u = Add(a, b)", "y = Add(u, t)")
    assert_laid_out(text, ON_CPU, {"x": 0, "a": 1, "b": 2}, products="p q", closed="a b")
    made = placed(filled(text), ON_CPU, images(4, 6, 6)).model
    assert sorted(n.op_type for n in made.graph.inputs[0].consumers()) == ["QuantizeLinear", "Tanh"]


def test_bodies_read_what_stands_behind_the_quantizer() -> None:
    text = net(
        conv("p", "a", "x, w1, b1"),
        "r = Relu(a)",
        """h = If(k) <then_branch = yes () => (float[N,4,6,6] o) { o = Neg(r) },
                     else_branch = no () => (float[N,4,6,6] i) { i = Abs(x) }>""",
        conv("q", "b", "r, w2"),
        "y = Add(b, h)",
        more="bool k = {1}",
    )
    assert_laid_out(text, ON_CPU, {"x": 0, "r": 1, "b": 2}, products="p q", closed="r b", bounds={1: POSITIVE})


def test_a_weight_that_several_nodes_read_leaves_them_on_floats() -> None:
    text = net(conv("p", "a", "x, w1, b1"), "r = Relu(a)", conv("q", "b", "r, w1, b1"), conv("s", "y", "b, w2"))
    assert_laid_out(text, ON_CPU, {"b": 0, "y": 1}, products="s", closed="y")


def test_a_bias_that_several_nodes_read_is_no_obstacle() -> None:
    text = net(conv("p", "a", "x, w1, b1"), "r = Relu(a)", conv("q", "y", "r, w2, b1"))
    assert_laid_out(text, ON_CPU, {"x": 0, "r": 1, "y": 2}, products="p q", closed="r y", bounds={1: POSITIVE})


@pytest.mark.parametrize("operator", ["Mul", "Add"])
def test_a_constant_operand_leaves_an_operator_on_floats(operator: str) -> None:
    text = net(conv("p", "a", "x, w1, b1"), f"r = {operator}(a, k)", conv("q", "y", "r, w2"), more="float[4,1,1] k")
    assert_laid_out(text, ON_CPU, {"x": 0, "a": 1, "r": 2, "y": 3}, products="p q", closed="a y")


def test_a_gate_is_of_integers() -> None:
    text = net(conv("p", "a", "x, w1, b1"), "[s] s = Sigmoid(a)", "[m] b = Mul(a, s)", conv("q", "y", "b, w2"))
    assert_laid_out(
        text, ON_CPU, {"x": 0, "a": 1, "s": 2, "b": 3, "y": 4}, products="p q", others="s m", closed="a s b y"
    )


def test_a_pool_whose_indices_are_asked_for_is_one_of_floats() -> None:
    text = net(
        conv("p", "a", "x, w1"),
        "b, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)",
        conv("q", "y", "b, w2"),
        "n = Shape(i)",
        ends="float[N,4,3,3] y, int64[4] n",
    )
    assert_laid_out(text, ON_CPU, {"x": 0, "a": 1, "b": 2, "y": 3}, products="p q", closed="a y")


def test_a_clipping_that_is_not_alone_is_no_part_of_the_product() -> None:
    text = net(
        conv("p", "a", "x, w1"), "r = Relu(a)", "z = Neg(a)", conv("q", "y", "r, w2"),
        ends="float[N,4,6,6] y, float[N,4,6,6] z",
    )  # fmt: skip
    assert_laid_out(text, ON_CPU, {"x": 0, "a": 1, "r": 2, "y": 3}, products="p q", closed="a y")


@pytest.mark.parametrize(("target", "products"), [(ON_CPU, "p"), (ON_TENSORRT, "p t")])
def test_a_transposed_convolution_is_one_of_integers_where_there_is_a_kernel(target: Integers, products: str) -> None:
    text = net(
        conv("p", "a", "x, w1, b1"), "r = Relu(a)", "[t] y = ConvTranspose<strides=[2,2]>(r, w2)",
        ends="float[N,4,13,13] y",
    )  # fmt: skip
    closed = "r" if target is ON_CPU else ""
    assert_laid_out(text, target, {"x": 0, "r": 1}, products=products, closed=closed, bounds={1: POSITIVE})


def test_more_kinds_of_products() -> None:
    for text, shape in (
        ("g (float[N,4,9] x) => (float[N,3,7] y) <float[3,4,3] w> { [p] y = Conv(x, w) }", (4, 9)),
        ("g (float[N,2,5,5,5] x) => (float[N,3,3,3,3] y) <float[3,2,3,3,3] w, float[3] b> { [p] y = Conv(x, w, b) }",
         (2, 5, 5, 5)),
        ("g (float[N,4,6,6] x) => (float[N,6,4,4] y) <float[6,2,3,3] w, float[6] b> { [p] y = Conv<group=2>(x, w, b) }",
         (4, 6, 6)),
    ):  # fmt: skip
        assert_laid_out(text, ON_CPU, {"x": 0, "y": 1}, products="p", closed="y", shape=shape)


def test_a_result_that_a_sum_widens_is_fitted_for_itself() -> None:
    text = net(conv("p", "a", "x, w5", pads="[0,0,0,0]"), "h = Tanh(x)", "y = Add(a, h)", more="float[1,4,1,1] w5")
    assert_laid_out(text, ON_CPU, {"x": 0, "a": 1}, products="p", closed="a")
    assert_laid_out(text, ON_TENSORRT, {"x": 0}, products="p")


# -- grids -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unsigned", [True, False])
@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 2.0), (0.0, 0.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 1e-44), (-1e-44, 0), (-1e38, 1e38)]
)
def test_a_grid_holds_its_range_and_0(unsigned: bool, low: float, high: float) -> None:  # noqa: FBT001
    grid = Grid.over(low, high, unsigned=unsigned)
    assert grid.scale == np.float32(grid.scale) >= np.finfo(np.float32).tiny
    info = np.iinfo(grid.dtype)
    assert info.min <= grid.zero <= info.max
    assert unsigned or grid.zero == 0
    inside = np.linspace(low, high, 1001).astype(np.float32)
    assert np.all(np.abs(seen(grid, inside) - inside) <= 0.501 * grid.scale + 1e-6 * max(-low, high))
    assert seen(grid, np.zeros(1, np.float32)) == 0


def test_everything_in_a_body_stays_as_it_is() -> None:
    text = net(
        """y = If(k) <then_branch = yes () => (float[N,4,4,4] o) { o = Conv(x, w1) },
                     else_branch = no () => (float[N,4,4,4] i) { i = Conv(x, w2) }>""",
        ends="float[N,4,4,4] y",
        more="bool k = {1}",
    )
    model: ir.Model = filled(text)
    assert not layout(model, ON_CPU).values


def seen(grid: Grid, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each number as its nearest point of a grid."""
    info = np.iinfo(grid.dtype)
    steps = np.clip(np.rint(x / np.float32(grid.scale)) + grid.zero, info.min, info.max)
    found: NDArray[np.float32] = ((steps - grid.zero) * grid.scale).astype(np.float32)
    return found
