from __future__ import annotations

import onnx_ir as ir
import pytest

from graphopt.graph.domain import Domain
from graphopt.ops import domains

TABLE = "float[100,4] table = {" + ",".join(["0"] * 400) + "}"


def found(body: str, *, inputs: str = "int64[N,S] i", constants: str = "", functions: str = "") -> dict[str, Domain]:
    opsets = '["" : 21, "local" : 1]' if functions else '["" : 21]'
    given = TABLE + (f", {constants}" if constants else "")
    return domains(
        ir.from_onnx_text(
            f"<ir_version: 10, opset_import: {opsets}> g ({inputs}) => (float y) <{given}> {{ {body} }} {functions}"
        )
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("j = Identity(i)", Domain(0, 100)),
        ("j = Cast<to = 6>(i)", Domain(0, 100)),
        ("h = Transpose(i) j = Unsqueeze(h, zero)", Domain(0, 100)),
        ("h, g = Split<num_outputs = 2>(i) j = Concat<axis = 0>(g, h)", Domain(0, 100)),
        ("j = Add(i, two)", Domain(-2, 98)),
        ("c = Constant<value_int = 2>() j = Add(i, c)", Domain(-2, 98)),
        ("j = Sub(i, two)", Domain(2, 102)),
        ("j = Mul(two, i)", Domain(0, 50)),
        ("j = Div(i, two)", Domain(0, 200)),
        ("h = Add(i, two) j = Mul(h, two)", Domain(-2, 48)),
        ("j = Where(flag, i, zero)", Domain(0, 100)),
        ("j = Max(i, zero)", Domain(0, 100)),
        ("j = Mod(i, two)", None),
        ("j = Shape(i)", None),
        ("j = Mul(i, i)", None),
    ],
)
def test_what_a_gather_accepts_goes_back_to_the_input(path: str, expected: Domain | None) -> None:
    inputs = "int64[N,S] i, bool[N,S] flag"
    result = found(f"{path} y = Gather(table, j)", inputs=inputs, constants="int64[1] zero = {0}, int64[1] two = {2}")
    assert result.get("i") == expected
    assert "flag" not in result


def test_the_extent_of_a_symbolic_axis_is_its_name() -> None:
    inputs = "float[length,4] x, int64[K] i"
    assert found("y = Gather(x, i)", inputs=inputs) == {"i": Domain(0, "length")}
    below = found("j = Sub(i, two) y = Gather(x, j)", inputs=inputs, constants="int64 two = {2}")
    assert below == {"i": Domain(2, "length")}
    above = found("j = Add(i, two) y = Gather(x, j)", inputs=inputs, constants="int64 two = {2}")
    assert above == {"i": Domain(-2, -1)}  # length − 2 has no name, and −2 becomes index 0


def test_readers_that_accept_different_values_are_met() -> None:
    body = "a = Gather(table, i) b = Gather<axis = 1>(table, i) y = Add(a, b)"
    assert found(body) == {"i": Domain(0, 4)}


def test_an_input_read_inside_a_branch_has_a_domain() -> None:
    body = (
        "y = If(flag) <then_branch = a () => (float p) { p = Gather(table, i) }, "
        "else_branch = b () => (float q) { q = Gather<axis = 1>(table, i) }>"
    )
    assert found(body, inputs="bool flag, int64[N] i") == {"i": Domain(0, 4)}


def test_what_a_branch_gives_has_the_domain_of_its_readers() -> None:
    body = (
        "j = If(flag) <then_branch = a () => (int64[N] p) { p = Identity(i) }, "
        "else_branch = b () => (int64[N] q) { q = Add(k, k) }> y = Gather(table, j)"
    )
    assert found(body, inputs="bool flag, int64[N] i, int64[N] k") == {"i": Domain(0, 100)}


def test_the_state_of_a_loop_has_the_domain_of_its_readers_inside_and_after() -> None:
    loop = (
        "s = Loop(trips, flag, i) <body = b (int64 k, bool c, int64[N] t) => (bool d, int64[N] u) "
        "{{ d = Identity(c) {use} u = Identity(t) }}>"
    )
    inputs = "int64 trips, bool flag, int64[N] i"
    after = found(loop.format(use="") + " y = Gather(table, s)", inputs=inputs)
    assert after == {"trips": Domain(1, 5), "i": Domain(0, 100)}
    inside = found(loop.format(use="v = Gather<axis = 1>(table, t)") + " y = Identity(s)", inputs=inputs)
    assert inside == {"trips": Domain(1, 5), "i": Domain(0, 4)}


def test_what_is_scanned_has_the_domain_of_its_slices() -> None:
    body = (
        "h, y = Scan<num_scan_inputs = 1, body = b (float[4] s, int64 t) => (float[4] u, float[4] v) "
        "{ v = Gather(table, t) u = Add(s, v) }>(x, i)"
    )
    assert found(body, inputs="float[4] x, int64[N] i") == {"i": Domain(0, 100)}


def test_a_call_passes_the_domain_of_the_body_on() -> None:
    functions = (
        '<domain: "local", opset_import: ["" : 21, "local" : 1]> F (t, k) => (b) { b = local.G(t, k) }'
        '<domain: "local", opset_import: ["" : 21]> G (t, k) => (b) { b = Gather(t, k) }'
        '<domain: "local", opset_import: ["" : 21]> H (k) => (b) { b = Identity(k) }'
    )
    # inside a function nothing is known of the table's shape, so that index 0 alone is safe
    assert found("y = local.F(table, i)", functions=functions) == {"i": Domain(0, 1)}
    assert found("j = local.H(i) y = Gather(table, j)", functions=functions) == {"i": Domain(0, 100)}


def test_an_overridable_initializer_needs_no_feed() -> None:
    assert found("y = Gather(table, i)", inputs="int64[2] i", constants="int64[2] i = {1, 2}") == {}


def test_real_numbers_stay_where_the_function_is_defined() -> None:
    assert found("y = Sqrt(x)", inputs="float[N] x") == {"x": Domain(0)}
    half = "float half = {0.5}, float two = {2}"
    assert found("y = Pow(x, half)", inputs="float[N] x", constants=half) == {"x": Domain(0)}
    assert found("y = Pow(x, two)", inputs="float[N] x", constants=half) == {}
    assert found("y = Div(x, x)", inputs="float[N] x") == {}
    assert found("z = Div(n, n) y = Cast<to = 1>(z)", inputs="int64[N] n") == {"n": Domain(1)}
