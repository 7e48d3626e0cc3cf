from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from graphopt import ops
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.record import Exactness


def parse(body: str, constants: str, *, inputs: str = "float[2,3] x", result: str = "float[M,N] y") -> ir.Model:
    opsets = '["" : 21]'
    return ir.from_onnx_text(
        f"<ir_version: 10, opset_import: {opsets}> g ({inputs}) => ({result}) <{constants}> {{ {body} }}"
    )


def linears(body: str, constants: str, *, inputs: str = "float[2,3] x") -> tuple[ops.Linear, ...]:
    return ops.linears(parse(body, constants, inputs=inputs).graph[-1])


WEIGHT = "float[3,2] w = {1,2,3,4,5,6}"


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("y = Gemm<transA = 1>(x, w)", "float[2,2] w = {1,2,3,4}"),
        ("y = Gemm(x, v)", WEIGHT),  # a weight that is computed or fed
        ("y = Gemm(x, w, v)", WEIGHT),  # a bias that is fed
        ("y = Gemm(x, w, b)", WEIGHT + ", float[2,1] b = {1,2}"),  # differs from row to row
        ("y = Gemm(x, w, b)", WEIGHT + ", float[2,2] b = {1,2,3,4}"),
        ("y = MatMul(x, w)", "float[3] w = {1,2,3}"),
        ("y = MatMul(x, w)", "float[1,3,2] w = {1,2,3,4,5,6}"),
        ("y = MatMul(w, x)", WEIGHT),  # from the left
        ("y = MatMul(n, w)", "int64[3,2] w = {1,2,3,4,5,6}"),  # integers round otherwise
        ("y = Conv(image, v)", WEIGHT),
        ("y = Conv(image, w, v)", "float[1,1,1] w = {1}"),
        ("y = ConvTranspose(image, v)", WEIGHT),
        ("y = Relu(x)", WEIGHT),
        ("y = Unheard(x, w)", WEIGHT),
    ],
)
def test_what_is_not_matrix_times_input_plus_row_is_no_linear(body: str, constants: str) -> None:
    assert linears(body, constants, inputs="float[2,3] x, float[3,2] v, int64[2,3] n, float[1,1,4] image") == ()


def test_a_weight_that_a_feed_can_replace_is_no_constant() -> None:
    assert linears("y = MatMul(x, w)", WEIGHT, inputs="float[2,3] x, float[3,2] w") == ()


def test_an_empty_name_means_no_bias() -> None:
    (linear,) = linears("y = Gemm(x, w, )", WEIGHT)
    assert linear.bias_value is None
    assert linear.bias_vector().tolist() == [0, 0]
    assert linear.bias_vector().dtype == np.float32


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16])
def test_the_dtype_of_the_weight_is_kept(dtype: ir.DataType) -> None:
    tensor = ir.tensor([[1, 2], [3, 4], [5, 6]], dtype=dtype, name="w")
    w = ir.Value(name="w", const_value=tensor, type=ir.TensorType(dtype), shape=ir.Shape([3, 2]))
    x = ir.Value(name="x", type=ir.TensorType(dtype))
    node = ir.node("MatMul", [x, w])
    ir.Graph([x], node.outputs, nodes=[node], initializers=[w])
    (linear,) = ops.linears(node)
    weight, bias = linear.scaled([2, 3], 1)
    assert bias is not None
    assert linear.matrix().dtype == weight.dtype == bias.dtype == linear.weights.dtype
    assert weight.astype(float).tolist() == [[2, 6], [6, 12], [10, 18]]
    assert bias.astype(float).tolist() == [1, 1]


def test_codes_of_a_weight_are_shared_by_the_models_that_have_them() -> None:
    (linear,) = linears("y = Gemm<transB = 1>(x, w)", "float[2,3] w = {1,2,3,4,5,6}")
    codes = linear.matrix().astype(np.int8)
    assert np.shares_memory(linear.unmatrix(codes, np.int8), codes)
    assert linear.unmatrix(codes, np.int8).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_scaling_rounds_once() -> None:
    (linear,) = linears("y = Gemm(x, w, b)", "float[3,1] w = {0.1,0.2,0.3}, float[1] b = {0.7}")
    _, bias = linear.scaled(1 / 3, 1e-9)
    assert bias is not None
    assert bias == np.float32(np.float64(np.float32(0.7)) * (1 / 3) + 1e-9)


@pytest.mark.parametrize(
    ("body", "inputs", "shift", "expected"),
    [
        ("y = MatMul(x, w)", "float[2,3] x", 1.0, ["Gemm"]),
        ("y = MatMul(x, w)", "float[2,2,3] x", 1.0, ["MatMul", "Add"]),
        ("y = MatMul(x, w)", "float[2,2,3] x", 0.0, ["MatMul"]),
        ("y = Gemm<alpha = 0.5, beta = 2.0>(x, w)", "float[2,3] x", 1.0, ["Gemm"]),
        ("y = Gemm<alpha = 0.5, beta = 2.0>(x, w)", "float[2,3] x", 0.0, ["Gemm"]),
    ],
)
def test_a_linear_without_bias_gets_one_only_if_needed(
    body: str, inputs: str, shift: float, expected: list[str]
) -> None:
    model = parse(body, WEIGHT, inputs=inputs, result="float y" if "2,2,3" not in inputs else "float[2,2,2] y")
    (linear,) = ops.linears(model.graph[0])
    draft = Draft(linear.node)
    result = linear.rebuild(draft, *linear.scaled(2.0, shift))
    assert [n.op_type for n in draft.nodes] == expected
    assert "beta" not in draft.nodes[0].attributes
    assert result is draft.nodes[-1].outputs[0]
    assert len(draft.constants) == (2 if shift else 1)


def test_a_rebuilt_node_replaces_the_old_one_under_its_name() -> None:
    model = parse("h = MatMul(x, w) y = Relu(h)", WEIGHT, result="float[2,2] y")
    (linear,) = ops.linears(model.graph[0])
    draft = Draft(linear.node)
    replaced = {linear.node.outputs[0]: linear.rebuild(draft, *linear.scaled(shift=[1, 2]))}
    Editor(model).commit("shift", Exactness.ROUNDING, replaced, draft=draft)
    assert [n.op_type for n in model.graph] == ["Gemm", "Relu"]
    assert [v.name for v in model.graph[1].inputs if v] == ["h"]
    assert len(model.graph.initializers) == 2
