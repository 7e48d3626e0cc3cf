from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.analysis.groups import Channels, Group, Product
from graphopt.analysis.moments import Moment, collect, products
from graphopt.plan.orders import orders

from .chain import port
from .models import samples, stack


def put(model: ir.Model, name: str, contents: np.ndarray) -> None:
    model.graph.initializers[name].const_value = ir.tensor(contents.astype(np.float32), name=name)


@pytest.mark.parametrize("op", ["Conv", "Gemm"])
def test_what_the_others_can_make_up_for_is_cut_first(op: str) -> None:
    model, channels = stack([3, 6, 4], op)
    linear = products(model)["p0", 0]
    weights, bias = linear.weights.copy(), linear.bias_vector().copy()
    axis = linear.w_out
    twin = weights.take(2, axis)  # unit 5 does what unit 2 does, twice as loud
    np.moveaxis(weights, axis, 0)[5] = 2 * twin
    bias[5] = 2 * bias[2]
    put(model, "w0", weights)
    put(model, "b0", bias)
    given = samples(model, 300)
    (order,) = orders(model, channels, collect(model, [("p1", 0)], given)).values()
    assert sorted(order.tolist()) == list(range(6))
    assert order[0] in {2, 5}
    assert {2, 5} != set(order[:2].tolist())  # one of the two is needed


def test_groups_without_known_readers_are_left_out() -> None:
    model, channels = stack([3, 6, 4, 2])
    found = collect(model, [("p2", 0)], samples(model, 30))
    assert list(orders(model, channels, found)) == ["p1"]


def test_readers_count_by_what_their_results_vary() -> None:
    """Two products read the group; the loud one needs unit 0, the quiet one unit 1, each as a share the same."""
    text = """<ir_version: 8, opset_import: ["" : 13]>
    g (float[N,3] x, float[3,2] a, float[3,2] b) => (float[N,2] y, float[N,2] z) {
        y = MatMul(x, a)
        z = MatMul(x, b)
    }"""
    model = ir.from_onnx_text(text)
    loud, quiet = np.array([[1.0, 0], [0, 0], [0.5, 0]]), np.array([[0, 0], [1.0, 0], [0.5, 0]])
    for name, contents in (("a", 1000 * loud), ("b", quiet)):
        value = next(v for v in model.graph.inputs if v.name == name)
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(contents.astype(np.float32), name=name)
        model.graph.register_initializer(value)
    for node, name in zip(model.graph, "ab", strict=True):
        node.name = name
    readers = (("a", 0), ("b", 0))
    channels = Channels(
        {"g": Group("g", 3, "channel", (), readers)},
        {r: Product(r[0], 0, 6, 6, port(3, "g"), port(2, None)) for r in readers},
        {},
        {},
    )
    square = np.eye(3)[None]
    moments = {}
    for name, weight in (("a", 1000 * loud), ("b", quiet)):
        energy = np.sum(weight**2, axis=0)
        moments[name, 0] = Moment("full", 1000, np.zeros((1, 3)), square, np.zeros(2), energy)
    assert orders(model, channels, moments)["g"].tolist()[0] == 2  # a quarter of both is less than all of one
