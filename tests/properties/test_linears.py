"""Every `Linear` is the matrix product that it claims to be, and can be scaled, shifted and rebuilt."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from graphopt import ops
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.record import Exactness

from .single import Array, Const, Example, run

ROUNDING = 1e-5


@st.composite
def convolutions(draw: st.DrawFn) -> Example:
    """Conv and ConvTranspose in 1 to 3 dimensions, with whatever attributes go together."""
    random = np.random.default_rng(draw(st.integers(0, 99)))
    transposed, groups, rank = draw(st.booleans()), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    size = st.integers(1, 3)

    def per_axis(numbers: st.SearchStrategy[int], count: int = rank) -> list[int]:
        return draw(st.lists(numbers, min_size=count, max_size=count))

    mode = draw(st.sampled_from(["NOTSET", "PADS", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    kernel, strides = per_axis(size), per_axis(size)
    dilations = per_axis(st.integers(1, 1 if mode.startswith("SAME") else 2))  # the runtime's limit
    inner, outer, batch = draw(size), draw(size), draw(size)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    extents = [span + extra for span, extra in zip(spans, per_axis(st.integers(0, 3)), strict=True)]
    attributes: dict[str, Any] = {"group": groups, "strides": strides, "dilations": dilations}
    if mode == "PADS":
        attributes["pads"] = [
            min(p, span - 1) for p, span in zip(per_axis(st.integers(0, 2), 2 * rank), spans * 2, strict=True)
        ]
    elif mode != "NOTSET":
        attributes["auto_pad"] = mode
    if transposed and draw(st.booleans()):
        attributes["output_shape"] = [(e - 1) * s + k for e, s, k in zip(extents, strides, kernel, strict=True)]
    elif transposed and draw(st.booleans()):
        attributes["output_padding"] = [
            min(p, s - 1) for p, s in zip(per_axis(st.integers(0, 1)), strides, strict=True)
        ]
    weight = (groups * inner, outer) if transposed else (groups * outer, inner)
    x, w = random.standard_normal((batch, groups * inner, *extents)), random.standard_normal((*weight, *kernel))
    inputs: list[Array | Const | None] = [x.astype(np.float32), Const(w.astype(np.float32))]
    if draw(st.booleans()):
        inputs.append(Const(random.standard_normal(groups * outer).astype(np.float32)))
    return Example("ConvTranspose" if transposed else "Conv", tuple(inputs), attributes)


@st.composite
def products(draw: st.DrawFn) -> Example:
    """Gemm with every form of bias, and MatMul of data of every rank."""
    random = np.random.default_rng(draw(st.integers(0, 99)))
    m, k, n = (draw(st.integers(1, 4)) for _ in range(3))
    if draw(st.booleans()):
        shape = draw(st.sampled_from([(k,), (m, k), (2, m, k), (2, 3, m, k)]))
        inputs = (
            random.standard_normal(shape).astype(np.float32),
            Const(random.standard_normal((k, n)).astype(np.float32)),
        )
        return Example("MatMul", inputs)
    transposed = draw(st.integers(0, 1))
    weight = random.standard_normal((n, k) if transposed else (k, n)).astype(np.float32)
    bias = draw(st.sampled_from([None, (), (1,), (n,), (1, n), (1, 1)]))
    offset = None if bias is None else Const(np.asarray(random.standard_normal(bias), np.float32))
    attributes = {
        "transB": transposed,
        "alpha": draw(st.sampled_from([1.0, 0.5])),
        "beta": draw(st.sampled_from([1.0, -2.0])),
    }
    return Example("Gemm", (random.standard_normal((m, k)).astype(np.float32), Const(weight), offset), attributes)


def only_linear(example: Example) -> tuple[ir.Model, ops.Linear]:
    model = example.model()
    (linear,) = ops.linears(model.graph.node("node"))
    return model, linear


def close(left: Array, right: Array) -> bool:
    return left.shape == right.shape and bool(np.allclose(left, right, rtol=ROUNDING, atol=ROUNDING * 10))


@settings(max_examples=250, deadline=None)
@given(st.one_of(convolutions(), products()))
def test_a_linear_is_matrix_times_unfolded_input_plus_bias(example: Example) -> None:
    model, linear = only_linear(example)
    (y,) = run(model, example.feed())
    assume(y.size)
    x = example.feed()["in0"].astype(np.float64)
    product = linear.alpha * linear.matrix().astype(np.float64) @ linear.unfold(x)
    bias = linear.beta * linear.bias_vector().astype(np.float64)
    assert linear.matrix().shape == (linear.groups, linear.channels // linear.groups, linear.reduction)
    assert close(linear.rows(y), product + bias.reshape(linear.groups, -1, 1))
    assert np.array_equal(linear.unmatrix(linear.matrix()), linear.weights)
    some = np.random.default_rng(0).permutation(product.shape[-1])[: 1 + product.shape[-1] // 2]
    assert np.array_equal(linear.unfold(x, some), linear.unfold(x)[..., some])
    assert np.array_equal(linear.rows(y, some), linear.rows(y)[..., some])


@settings(max_examples=150, deadline=None)
@given(st.one_of(convolutions(), products()))
def test_the_adjoint_is_the_transposed_product(example: Example) -> None:
    """For any r, the sum over W·x times r is that over x times what the adjoint gives for r."""
    model, linear = only_linear(example)
    x = example.feed()["in0"]
    assume(x.ndim > 1)
    rows = linear.matrix().astype(np.float64) @ linear.unfold(x.astype(np.float64))
    (y,) = run(model, example.feed())
    assume(y.size)
    r = np.random.default_rng(0).standard_normal(y.shape).astype(np.float32)
    if linear.adjoint is None:
        assert {"auto_pad", "output_shape"} & example.attributes.keys()  # pads that are not written out
        return
    given_r = ir.val("r", ir.DataType.FLOAT, r.shape)
    weight = ir.val("w", const_value=ir.tensor(linear.weights, name="w"))
    nodes = linear.adjoint(linear, given_r, weight, x.shape, y.shape)
    nodes[-1].outputs[0].name = "g"
    outputs = [nodes[-1].outputs[0]]
    graph = ir.Graph([given_r], outputs, nodes=nodes, initializers=[weight], opset_imports={"": 21}, name="back")
    (back,) = run(ir.Model(graph, ir_version=10), {"r": r})
    assert back.shape == x.shape
    assert np.isclose(np.sum(rows * linear.rows(r)), np.sum(x.astype(np.float64) * back), rtol=1e-4, atol=1e-3)


@settings(max_examples=150, deadline=None)
@given(st.one_of(convolutions(), products()), st.sets(st.sampled_from(["out", "shift"])))
def test_a_rebuilt_linear_is_scaled_and_shifted(example: Example, parts: set[str]) -> None:
    model, linear = only_linear(example)
    (y,) = run(model, example.feed())
    random = np.random.default_rng(0)
    out = random.standard_normal(linear.channels) if "out" in parts else np.ones(linear.channels)
    offset = random.standard_normal(linear.channels) if "shift" in parts else np.zeros(linear.channels)
    wanted = np.moveaxis(np.moveaxis(y, linear.y_axis, -1) * out + offset, -1, linear.y_axis)
    weight, bias = linear.scaled(out, offset)
    assert weight.dtype == linear.weights.dtype
    assert (bias is None) == (linear.bias_value is None and "shift" not in parts)
    draft = Draft(linear.node)
    replaced = {linear.node.outputs[0]: linear.rebuild(draft, weight, bias)}
    Editor(model).commit("scale", Exactness.ROUNDING, replaced, draft=draft)
    assert close(run(model, example.feed())[0], wanted)


@settings(max_examples=150, deadline=None)
@given(st.one_of(convolutions(), products()), st.sets(st.sampled_from(["scale", "shift"])))
def test_a_rebuilt_linear_scales_and_shifts_its_input(example: Example, parts: set[str]) -> None:
    model, linear = only_linear(example)
    x = example.feed()["in0"]
    random = np.random.default_rng(0)
    scale = random.standard_normal(linear.in_channels) if "scale" in parts else np.ones(linear.in_channels)
    shift = random.standard_normal(linear.in_channels) * ("shift" in parts and not linear.padded)
    axis = linear.y_axis if x.ndim > 1 else 0
    moved = np.moveaxis(np.moveaxis(x, axis, -1) * scale + shift, -1, axis).astype(x.dtype)
    (wanted,) = run(model, example.feed() | {"in0": moved})
    draft = Draft(linear.node)
    replaced = {linear.node.outputs[0]: linear.rebuild(draft, *linear.after(scale, shift))}
    Editor(model).commit("scale", Exactness.ROUNDING, replaced, draft=draft)
    assert close(run(model, example.feed())[0], wanted)
