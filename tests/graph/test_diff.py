"""Every kind of origin on a graph made for it, and what pairs nodes when names do not."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
import pytest

from graphopt import ops
from graphopt.graph.diff import GONE, KINDS, Change, Diff, diff
from tests.support.models import source


def role(node: ir.Node) -> str:
    spec = ops.spec_of(node)
    return spec.adapts if spec else ""


def between(before: str, after: str) -> Diff:
    return diff(source(before).model, source(after).model, role)


def came(before: str, after: str) -> dict[str, Change]:
    """By the first output of each node of the second graph."""
    return {str(n.outputs[0].name): c for n, c in between(before, after).came.items()}


def became(before: str, after: str) -> dict[str, Change]:
    return {str(n.outputs[0].name): c for n, c in between(before, after).became.items()}


def kinds(told: Mapping[str, Change]) -> dict[str, str]:
    return {name: change.kind for name, change in told.items()}


HEAD = "g (float[N,2,4,4] x) => (float[N,2,4,4] y)"
CONSTANTS = "<float[2,2,1,1] w = {1, 2, 3, 4}, float[2] s = {1, 2}, float[2] t = {3, 4}, float[2] m = {0, 1}, float[2] v = {1, 1}>"
NORMALIZED = (
    f"{HEAD} {CONSTANTS} {{ [conv] c = Conv(x, w) [bn] b = BatchNormalization(c, s, t, m, v) [relu] y = Relu(b) }}"
)
FOLDED = f"{HEAD} <float[2,2,1,1] k = {{1, 2, 6, 8}}, float[2] b0 = {{3, 2}}> {{ [bn_conv] b = Conv(x, k, b0) [relu] y = Relu(b) }}"
CHAIN = f"{HEAD} {{ [one] a = Relu(x) [two] b = Tanh(a) [three] y = Sigmoid(b) }}"


def test_a_graph_does_not_differ_from_itself() -> None:
    for text in (NORMALIZED, FOLDED, CHAIN):
        assert set(kinds(came(text, text)).values()) == {"same"}
        assert set(kinds(became(text, text)).values()) == {"same"}


def test_several_nodes_become_one_and_one_becomes_several() -> None:
    assert came(NORMALIZED, FOLDED) == {"b": Change("fused", ("bn", "conv")), "y": Change("same", ("relu",))}
    assert kinds(became(NORMALIZED, FOLDED)) == {"c": "fused", "b": "fused", "y": "same"}
    assert became(NORMALIZED, FOLDED)["c"].nodes == ("bn_conv",)
    found = came(FOLDED, NORMALIZED)
    assert kinds(found) == {"c": "changed", "b": "split", "y": "same"}
    assert found["c"].nodes == found["b"].nodes == ("bn_conv",)


def test_what_is_absorbed_by_a_node_that_stays_is_a_part_of_it() -> None:
    padded = f"{HEAD} <float[2,2,3,3] w = {{{','.join('1' * 36)}}}, int64[8] p = {{0,0,1,1,0,0,1,1}}> {{ [pad] c = Pad(x, p) [conv] y = Conv(c, w) }}"
    whole = f"{HEAD} <float[2,2,3,3] w = {{{','.join('1' * 36)}}}> {{ [conv] y = Conv <pads = [1,1,1,1]> (x, w) }}"
    found = came(padded, whole)["y"]
    assert (found.kind, found.nodes) == ("fused", ("conv", "pad"))
    assert found.notes == ("pads: not given → [1, 1, 1, 1]",)


def test_a_default_that_is_spelled_out_is_no_change() -> None:
    short = f"{HEAD} {{ [s] y = Softmax(x) }}"
    assert came(short, f"{HEAD} {{ [s] y = Softmax <axis = -1> (x) }}")["y"].kind == "same"
    changed = came(short, f"{HEAD} {{ [s] y = Softmax <axis = 1> (x) }}")["y"]
    assert (changed.kind, changed.notes) == ("changed", ("axis: not given → 1",))


def test_weights_of_another_shape_type_or_content() -> None:
    wide = "g (float[N,2,4,4] x) => (float[N,2,4,4] y) {} {{ [a] h = Conv(x, w) [b] y = Conv(h, v) }}"
    four = wide.format("<float[3,2,1,1] w = {1,2,3,4,5,6}, float[2,3,1,1] v = {1,2,3,4,5,6}>")
    two = wide.format("<float[2,2,1,1] w = {1,2,3,4}, float[2,2,1,1] v = {1,2,3,4}>")
    other = wide.format("<float[2,2,1,1] w = {1,2,3,4}, float[2,2,1,1] v = {1,2,3,5}>")
    assert came(four, two)["h"] == Change("resized", ("a",), ("w: float 3×2×1×1 → float 2×2×1×1",))
    assert kinds(came(four, two)) == {"h": "resized", "y": "resized"}
    assert came(two, other) == {
        "h": Change("same", ("a",)),
        "y": Change("changed", ("b",), ("v holds other numbers: float 2×2×1×1",)),
    }


def test_quantizers_are_inserted_and_their_weights_requantized() -> None:
    plain = f"{HEAD} <float[2,2,1,1] w = {{1,2,3,4}}> {{ [conv] y = Conv(x, w) }}"
    integers = (
        f"{HEAD} <int8[2,2,1,1] w_q = {{1,2,3,4}}, float s = {{1}}, int8 z = {{0}}> "
        "{ [q] a = QuantizeLinear(x, s, z) [d] b = DequantizeLinear(a, s, z) [e] w = DequantizeLinear(w_q, s, z) [conv] y = Conv(b, w) }"
    )
    found = came(plain, integers)
    assert kinds(found) == {"a": "inserted", "b": "inserted", "w": "inserted", "y": "requantized"}
    assert found["a"].notes == ("quantizer, before d",)
    assert found["y"].notes == ("w: float 2×2×1×1 → int8 2×2×1×1",)
    assert kinds(became(integers, plain)) == {"a": "bypassed", "b": "bypassed", "w": "folded", "y": "requantized"}


def test_what_goes_is_folded_bypassed_or_dead() -> None:
    full = (
        f"{HEAD} <float two = {{2}}> {{ [idle] i = Identity(x) [sum] k = Add(two, two) [waste] z = Tanh(x) "
        "[mul] p = Mul(i, k) [out] y = Relu(p) }"
    )
    short = f"{HEAD} <float k = {{4}}> {{ [mul] p = Mul(x, k) [out] y = Relu(p) }}"
    found = became(full, short)
    assert kinds(found) == {"i": "bypassed", "k": "folded", "z": "dead", "p": "changed", "y": "same"}
    assert came(full, short)["p"].notes == ("input 1 was computed, and is a constant: k",)


def test_a_duplicate_is_bypassed_by_what_is_kept() -> None:
    twice = f"{HEAD} {{ [a] p = Tanh(x) [b] q = Tanh(x) [sum] y = Add(p, q) }}"
    once = f"{HEAD} {{ [a] p = Tanh(x) [sum] y = Add(p, p) }}"
    assert became(twice, once)["q"] == Change("bypassed", ("a",))
    assert kinds(came(twice, once)) == {"p": "same", "y": "same"}


def test_nodes_that_change_places_are_moved() -> None:
    first = f"{HEAD} {{ [turn] a = Transpose <perm = [0,1,3,2]> (x) [act] y = Relu(a) }}"
    last = f"{HEAD} {{ [act] b = Relu(x) [turn] y = Transpose <perm = [0,1,3,2]> (b) }}"
    assert kinds(came(first, last)) == {"b": "moved", "y": "moved"}
    assert came(first, last)["b"].notes == ("input 0 is x, and was a",)
    renamed = last.replace("[act]", "[p]").replace("[turn]", "[q]")
    assert kinds(came(first, renamed)) == {"b": "same", "y": "inserted"}
    assert kinds(became(first, renamed)) == {"a": "bypassed", "y": "same"}


def test_one_operator_for_another_is_a_change_and_a_product_may_be_split() -> None:
    found = came(CHAIN, CHAIN.replace("Tanh", "Softsign").replace("[two]", "[new]"))
    assert found["b"] == Change("changed", ("two",), ("operator: Tanh → Softsign",))
    whole = "g (float[2,2] x) => (float[2,2] y) <float[2,2] w = {1,2,2,4}> { [mul] y = MatMul(x, w) }"
    parts = "g (float[2,2] x) => (float[2,2] y) <float[2,1] u = {1,2}, float[1,2] v = {1,2}> { [in] h = MatMul(x, u) [mul] y = MatMul(h, v) }"
    assert kinds(came(whole, parts)) == {"h": "split", "y": "resized"}


def test_graphs_that_have_nothing_in_common_say_so() -> None:
    one, other = (
        [f"[{k}{i}] {k}{i + 1} = {op}({k}{i})" for i in range(40)] for k, op in (("a", "Relu"), ("b", "Tanh"))
    )
    first, second = (
        f"g (float[2] {k}0) => (float[2] {k}40) {{ {' '.join(n)} }}" for k, n in (("a", one), ("b", other))
    )
    assert set(kinds(came(first, second)).values()) == {"unknown"}


@pytest.mark.parametrize("names", [("[one]", "[two]", "[three]"), ("", "", "")])
def test_without_names_structure_tells(names: tuple[str, str, str]) -> None:
    text = CHAIN
    for old, new in zip(("[one]", "[two]", "[three]"), names, strict=True):
        text = text.replace(old, new)
    text = text.replace(" a", " v1").replace("(a)", "(v1)").replace(" b", " v2").replace("(b)", "(v2)")
    assert set(kinds(came(CHAIN, text)).values()) == {"same"}
    fused = f"{HEAD} <float[2,2,1,1] k = {{1, 2, 6, 8}}, float[2] b0 = {{3, 2}}> {{ v = Conv(x, k, b0) out = Relu(v) y = Identity(out) }}"
    assert kinds(came(NORMALIZED, fused)) == {"v": "fused", "out": "same", "y": "inserted"}


def test_names_that_were_given_by_chance_are_not_believed() -> None:
    shifted = CHAIN.replace("a = Relu(x)", "q = Relu(x)").replace("(b)", "(r)").replace("b = Tanh(a)", "r = Tanh(q)")
    numbered = "g (float[4] x) => (float[2] y) <int64[1] i = {2}, int64[1] z = {0}> { a = Slice(x, z, i) b = Relu(a) y = Tanh(b) }"
    again = "g (float[4] x) => (float[2] y) <int64[1] i = {2}, int64[1] z = {0}> { b = Tanh(x) a = Relu(x) c = Slice(a, z, i) d = Relu(c) y = Tanh(d) }"
    assert set(kinds(came(CHAIN, shifted)).values()) == {"same"}
    assert came(numbered, again)["c"].nodes == came(numbered, numbered)["a"].nodes


BRANCHES = (
    "g (bool flag, float[2] x) => (float[2] y) {{ [if] y = If(flag) <then_branch = a () => (float[2] p) {{ [yes] p = {}(x) }}, "
    "else_branch = b () => (float[2] q) {{ [no] q = Tanh(x) }}> }}"
)


def test_bodies_are_compared_and_what_is_taken_out_of_them_is_known() -> None:
    found = came(BRANCHES.format("Relu"), BRANCHES.format("Neg"))
    assert kinds(found) == {"y": "same", "p": "changed", "q": "same"}
    flat = "g (bool flag, float[2] x) => (float[2] y) { [yes] y = Relu(x) }"
    assert came(BRANCHES.format("Relu"), flat)["y"] == Change("moved", ("yes",), ("it stands in another body",))


def test_functions_are_compared_and_inlined_ones_are_split_from_their_call() -> None:
    head = '<ir_version: 10, opset_import: ["" : 21, "local" : 1]> g (float[2] x) => (float[2] y) '
    call = (
        head
        + '{{ [call] y = local.f(x) }} <domain: "local", opset_import: ["" : 21]> f (a) => (c) {{ [n] b = Relu(a) [m] c = {}(b) }}'
    )
    found = between(call.format("Tanh"), call.format("Neg"))
    assert {found.after.keys[n]: c.kind for n, c in found.came.items()} == {
        "call": "same", "local::f/n": "same", "local::f/m": "changed",
    }  # fmt: skip
    flat = head + "{ [s] b = Relu(x) [t] y = Tanh(b) }"
    assert [c.nodes for c in came(call.format("Tanh"), flat).values()] == [("call",), ("call",)]


def test_kinds_are_those_that_are_listed() -> None:
    pairs = [(NORMALIZED, FOLDED), (FOLDED, NORMALIZED), (CHAIN, FOLDED)]
    for before, after in pairs:
        found = between(before, after)
        assert {c.kind for c in found.came.values()} <= set(KINDS)
        assert {c.kind for c in found.became.values()} <= {*KINDS, *GONE}
        assert all(c.nodes or c.kind in {"inserted", "unknown"} for c in found.came.values())
