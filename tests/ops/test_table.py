from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from graphopt import ops
from graphopt.ops.runtime import DOMAIN
from graphopt.ops.table import TABLE
from graphopt.targets import TARGETS

SHARED = Path(__file__).parents[2].parent / "shared"


def parse(body: str, *, inputs: str = "float[2,3] x", opset: int = 21, functions: str = "") -> ir.Model:
    domains = f'"" : {opset}' + (', "local" : 1' if functions else "")
    text = f"<ir_version: 10, opset_import: [{domains}]> g ({inputs}) => (float[2,3] y) {{ {body} }} {functions}"
    return ir.from_onnx_text(text)


def pure(body: str, *, inputs: str = "float[2,3] x", opset: int = 21, functions: str = "") -> bool:
    model = parse(body, inputs=inputs, opset=opset, functions=functions)
    return ops.is_pure(model.graph[-1], model.functions)


def branch(body: str) -> str:
    """An If one of whose branches has this body."""
    return (
        f"y = If(flag) <then_branch = a () => (float p) {{ p = Neg(x) }}, else_branch = b () => (float q) {{ {body} }}>"
    )


def test_every_standard_operator_there_ever_was_has_an_entry() -> None:
    schemas = {(s.domain, s.name) for s in onnx.defs.get_all_schemas_with_history()}
    assert schemas - ops.known() == set()
    assert {domain for domain, _ in ops.known() - schemas} == {DOMAIN}


def test_every_operator_that_a_target_takes_has_an_entry_and_the_other_way_round() -> None:
    taken = {tuple(name.split("::")) for target in TARGETS.values() for name in target.operators}
    assert taken == {(domain, op) for domain, op in ops.known() if domain == DOMAIN}


def test_every_operator_in_the_shared_models_has_an_entry() -> None:
    files = sorted([*SHARED.glob("zoo/*.onnx"), *SHARED.glob("data/*.onnx")])
    if not files:
        pytest.skip("no shared models beside this checkout")
    unknown = set()
    for file in files:
        model = ir.load(file)
        parts: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
        nodes = (node for part in parts for node in part.all_nodes())
        unknown |= {n.op_identifier() for n in nodes if ops.spec_of(n) is None} - model.functions.keys()
    assert unknown == set()


def test_no_operator_has_two_entries_and_none_is_without_summary() -> None:
    assert all((spec.domain, spec.op) == key and spec.summary for key, spec in TABLE.items())


@pytest.mark.parametrize(
    ("body", "opset", "expected"),
    [
        ("y = Dropout(x)", 21, True),
        ("t = Constant<value = bool {0}>() y = Dropout(x, , t)", 21, True),
        ("t = Constant<value = bool {1}>() y = Dropout(x, , t)", 21, False),
        ("y = Dropout(x, , flag)", 21, False),
        ("y = Dropout(x)", 9, True),
        ("y = Dropout(x)", 6, False),
        ("y = Dropout<is_test = 1>(x)", 6, True),
        ("y = BatchNormalization(x, s, s, s, s)", 21, True),
        ("y = BatchNormalization<training_mode = 0>(x, s, s, s, s)", 21, True),
        ("y, m, v = BatchNormalization<training_mode = 1>(x, s, s, s, s)", 21, True),
        ("y = BatchNormalization(x, s, s, s, s)", 9, True),
        ("y, m, v, n, w = BatchNormalization(x, s, s, s, s)", 9, False),
        ("y = BatchNormalization(x, s, s, s, s)", 6, False),
        ("y = BatchNormalization<is_test = 1>(x, s, s, s, s)", 6, True),
        ("y = Unheard(x)", 21, False),
        ("y = RandomNormalLike<seed = 1.0>(x)", 21, False),
        (branch("q = Abs(x)"), 21, True),
        (branch("q = RandomUniformLike(x)"), 21, False),
        (branch("q = If(flag) <then_branch = c () => (float r) { r = Abs(x) }, "
                "else_branch = d () => (float s) { s = Dropout(x, , flag) }>"), 21, False),
    ],
)  # fmt: skip
def test_purity_is_what_can_be_proved(body: str, opset: int, *, expected: bool) -> None:
    assert pure(body, inputs="float[2,3] x, float[3] s, bool flag", opset=opset) == expected


def test_a_dropout_is_pure_when_its_training_mode_is_a_constant_false() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[2] x, bool fed) => (float[2] y)'
        " <float r = {0.5}, bool off = {0}, bool on = {1}, bool fed = {0}>"
        " { y = Dropout(x, r, off) z = Dropout(x, r, on) w = Dropout(x, r, fed) }"
    )
    assert [ops.is_pure(n, {}) for n in model.graph] == [True, False, False]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("b = Relu(a)", True),
        ("b = RandomNormalLike(a)", False),
        ("b = BatchNormalization<training_mode: int = @mode>(a, a, a, a, a)", True),
        ("b = local.F(a)", True),  # calls itself: forbidden, but must end
    ],
)
def test_a_call_is_pure_if_its_body_is(function: str, *, expected: bool) -> None:
    functions = f'<domain: "local", opset_import: ["" : 21, "local" : 1]> F <mode> (a) => (b) {{ {function} }}'
    assert pure("y = local.F<mode = 1>(x)", functions=functions) == expected


def test_an_attribute_that_is_a_parameter_is_not_taken_for_its_default() -> None:
    function = '<domain: "local", opset_import: ["" : 21]> F <t> (a) => (b) { b = Gemm<transA: int = @t>(a, a) }'
    (node,) = next(iter(parse("y = local.F<t = 1>(x)", functions=function).functions.values()))
    assert ops.macs(node, lambda _: (3, 3)) is None
    assert ops.linears(node) == ()


def test_what_is_a_quantizer_or_cannot_be_an_initializer_is_not_folded() -> None:
    refused = {op for (domain, op), spec in TABLE.items() if not spec.foldable and not domain}
    assert refused == {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
        *("SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SplitToSequence"),
        *("Optional", "OptionalGetElement"),
        *("If", "Loop", "Scan", "SequenceMap"),
    }
    assert not ops.is_foldable(ir.node("Unheard", []))


def test_macs_of_operators_that_no_runtime_has_yet() -> None:
    shapes = {"q": (2, 3, 8), "k": (2, 3, 4), "v": (2, 3, 12), "w": (8, 1, 4)}

    def macs(node: ir.Node) -> int | None:
        return ops.macs(node, lambda v: None if v is None else shapes.get(str(v.name)))

    q, k, v, w = (ir.Value(name=n) for n in shapes)
    heads = {"q_num_heads": 2, "kv_num_heads": 1}  # states of 4 by 12
    plain = ir.node("LinearAttention", [q, k, v], heads | {"update_rule": "linear"})
    delta = ir.node("LinearAttention", [q, k, v], heads | {"update_rule": "delta"})
    assert macs(plain) == 2 * 3 * 4 * 12 * (2 + 1)  # samples, tokens, state; reads and updates
    assert macs(delta) == 2 * 3 * 4 * 12 * (2 + 2)
    convolution = ir.node("CausalConvWithState", [q, w], num_outputs=2)
    convolution.outputs[0].name = "q"
    assert macs(convolution) == 2 * 3 * 8 * 4
