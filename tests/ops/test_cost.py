from __future__ import annotations

import onnx_ir as ir

from graphopt.graph.nodes import static_shape
from graphopt.ops import Cost, cost, node_cost


def parse(text: str) -> ir.Model:
    return ir.from_onnx_text(text.replace("OPSETS", '<ir_version: 10, opset_import: ["" : 21, "local" : 1]>'))


def test_a_weight_that_two_nodes_share_counts_once() -> None:
    model = parse(
        """OPSETS g (float[2,3] x) => (float[2,3] y)
        <float[3,3] w = {1,2,3,4,5,6,7,8,9}, int64[1] n = {7}, float[2,3] h> { h = MatMul(x, w) y = MatMul(h, w) }"""
    )
    product = Cost(macs=2 * 3 * 3, params=9, bytes=4 * (6 + 9 + 6))
    assert [node_cost(n, static_shape) for n in model.graph] == [product, product]
    assert cost(model, static_shape) == Cost(macs=36, params=9, bytes=2 * product.bytes)


def test_constants_in_nodes_and_bodies_count_as_params() -> None:
    model = parse(
        """OPSETS g (bool flag, float[2] x) => (float[2] y) {
            c = Constant<value = float[2] {1, 2}>()
            i = Constant<value = int64[2] {1, 2}>()
            y = If(flag) <
                then_branch = a () => (float[2] p) <float[2] w = {1, 2}> { p = Add(x, w) },
                else_branch = b () => (float[2] q) { d = Constant<value = float[3] {1, 2, 3}>() q = Add(x, c) }
            >
        }"""
    )
    assert cost(model, static_shape).params == 2 + 2 + 3


def test_products_in_bodies_count_once_per_node() -> None:
    model = parse(
        """OPSETS g (int64 n, bool c, float[2,2] x) => (float[2,2] y) <float[2,2] w = {1, 2, 3, 4}> {
            y = Loop(n, c, x) <body = b (int64 i, bool k, float[2,2] s) => (bool l, float[2,2] t)
                { l = Identity(k) t = MatMul(s, w) }>
        }"""
    )
    assert cost(model, static_shape).macs == 8


def test_products_of_unknown_shape_are_reported_and_the_others_counted() -> None:
    model = parse(
        """OPSETS g (float[2,2] x) => (y) <float[2,2] w = {1, 2, 3, 4}, float[2,2] h>
        { h = MatMul(x, w) a = local.F(h, w) y = local.F(a, w) }
        <domain: "local", opset_import: ["" : 21]> F (a, b) => (d) { c = MatMul(a, b) d = Relu(c) }"""
    )
    found = cost(model, static_shape)
    assert (found.macs, found.unknown) == (8, 2)  # one per call


def test_a_function_that_calls_itself_ends() -> None:
    model = parse(
        """OPSETS g (float[2] x) => (float[2] y) { y = local.F(x) }
        <domain: "local", opset_import: ["local" : 1]> F (a) => (b) { b = local.F(a) }"""
    )
    assert cost(model, static_shape) == Cost()


def test_bytes_count_bits_and_leave_strings_out() -> None:
    model = parse("OPSETS g (int4[3] x, string[3] s) => (y, t) { y = Identity(x) t = Identity(s) }")
    assert cost(model, static_shape).bytes == 2
