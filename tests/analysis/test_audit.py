"""The audit against onnxruntime: each rule is broken alone, and all of them at random."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from graphopt.analysis.audit import Audit, audit
from graphopt.analysis.unfused import reason
from graphopt.graph.load import load
from graphopt.run.machine import Machine
from graphopt.run.optimized import optimized
from tests.support.models import parse

x86 = pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="the rules are those of x86")
CPU = "CPUExecutionProvider"
UNKNOWN = "onnxruntime does not take it, for no reason that is known here"

IMAGE = "float[1,2,4,4]"
OPERATORS = {"Conv": (IMAGE, "[2,2,1,1]"), "Gemm": ("float[3,2]", "[2,2]"), "MatMul": ("float[3,2]", "[2,2]")}
BIASES = {
    "none": "",
    "int32": "bias = DequantizeLinear(counts, steps)",
    "shifted": "bias = DequantizeLinear(counts, steps, one)",
    "coarse": "bias = DequantizeLinear(counts, sy)",
    "int8": "bias = DequantizeLinear(few, steps)",
    "float": "bias = Identity(biases)",
}
WEIGHTS = {
    "int8": "w = DequantizeLinear(signed, sw, zs)",
    "uint8": "w = DequantizeLinear(unsigned, sw, zu)",
    "int16": "w = DequantizeLinear(wide, sw, z16)",
    "channels": "w = DequantizeLinear<axis=AXIS>(signed, sws, zss)",
    "float": "w = Identity(floats)",
}
BETWEEN = {
    "": "r = Identity(c)",
    "Relu": "r = Relu(c)",
    "Clip": "r = Clip(c, low, high)",
    "Sigmoid": "r = Sigmoid(c)",
}
ZEROS = {"uint8": (0, 7), "int8": (-128, 0), "uint16": (0, 7)}


def quantized(
    operator: str = "Conv",
    *,
    data: str = "uint8",
    result: str = "uint8",
    weight: str = "int8",
    bias: str = "int32",
    between: str = "",
    lowest: bool = False,
    attributes: str = "",
    also: tuple[str, ...] = (),
) -> ir.Model:
    """Q, DQ, product, Q, DQ. `data` and `result` may be "float"; `also` are values that are read elsewhere as well."""
    shape, weights = OPERATORS.get(operator, (IMAGE, "[2,2,1,1]"))
    zx = "zu" if data == "float" else "zx"
    given = f"q = QuantizeLinear(x, sx, {zx}) d = DequantizeLinear(q, sx, {zx})"
    taken = "p = QuantizeLinear(r, sy, zy) e = DequantizeLinear(p, sy, zy) y = Neg(e)"
    body = "\n".join(
        (
            "d = Identity(x)" if data == "float" else given,
            WEIGHTS[weight].replace("AXIS", "0" if operator == "Conv" else "1"),
            BIASES[bias],
            f"c = {operator}{attributes}(d, w{'' if bias == 'none' else ', bias'})",
            BETWEEN[between],
            "y = Neg(r)" if result == "float" else taken,
            *(f"{value}2 = Exp({value})" for value in also),
        )
    )
    outputs = "".join(f", {shape} {value}2" for value in also)
    x, y = ("uint8" if kind == "float" else kind for kind in (data, result))
    return load(
        parse(f"""g ({shape} x) => ({shape} y{outputs}) <
    float sx = {{0.1}}, {x} zx = {{3}}, float sy = {{0.3}}, {y} zy = {{{ZEROS[y][0 if lowest else 1]}}},
    int8{weights} signed = {{1,-2,3,4}}, uint8{weights} unsigned = {{1,2,3,4}}, int16{weights} wide = {{1,2,3,4}},
    float{weights} floats = {{0.1,0.2,0.3,0.4}}, float sw = {{0.2}}, int8 zs = {{0}}, uint8 zu = {{1}},
    int16 z16 = {{0}},
    float[2] sws = {{0.2,0.2}}, int8[2] zss = {{0,0}}, float steps = {{0.02}}, int32[2] counts = {{1,2}},
    int8[2] few = {{1,2}}, int32 one = {{1}}, float[2] biases = {{0.1,0.2}}, float low = {{0.0}},
    float high = {{1000.0}}>
{{ {body} }}""")
    ).model


def audited(model: ir.Model) -> Audit:
    return audit(model, Machine(threads=1))


@pytest.mark.parametrize("weight", ["int8", "uint8", "channels"])
@pytest.mark.parametrize(
    ("data", "result"), [("uint8", "uint8"), ("int8", "int8"), ("int8", "uint8"), ("uint8", "int8")]
)
@pytest.mark.parametrize(
    ("operator", "kernel"), [("Conv", "QLinearConv"), ("Gemm", "QGemm"), ("MatMul", "QLinearMatMul")]
)
@x86
def test_a_product_between_quantizers_is_one_of_integers(
    operator: str, kernel: str, data: str, result: str, weight: str
) -> None:
    model = quantized(operator, data=data, result=result, weight=weight, bias="none")
    found = audited(model)
    (product,) = found.products
    assert product.integer
    assert not product.reason
    assert str(product.kernel).rpartition("::")[2] == kernel
    assert found.kernels[str(product.kernel)] == 1
    assert (found.integer, found.floating, found.provider) == ((product,), (), CPU)


BREAKS: dict[str, tuple[ir.Model, str]] = {
    "data": (quantized(data="float"), "its data do not come from a DequantizeLinear"),
    "data-16": (quantized(data="uint16", bias="none"), "its data are not of 8 bits"),
    "data-int8": (quantized(data="int8", result="int8", also=("d",)), "its data stay int8, read 2 times"),
    "result": (quantized(result="float"), "its result is not quantized"),
    "result-16": (quantized(result="uint16", bias="none"), "its result is not of 8 bits"),
    "result-int8": (quantized(data="int8", result="int8", also=("e",)), "its result stays int8, read 2 times"),
    "result-read": (quantized(also=("c",)), "its result is not only quantized, but read otherwise as well"),
    "sigmoid": (quantized(between="Sigmoid"), "its result is not quantized"),
    "relu": (
        quantized(between="Relu"),
        "Relu is between it and QuantizeLinear, and cuts off more than the ends of the integers",
    ),
    "clip": (
        quantized(between="Clip"),
        "Clip is between it and QuantizeLinear, and cuts off more than the ends of the integers",
    ),
    "relu-alone": (
        quantized("Gemm", result="float", between="Relu"),
        "Relu follows it, and no QuantizeLinear follows that",
    ),
    "weight": (quantized("MatMul", weight="float", bias="none"), "its weight does not come from a DequantizeLinear"),
    "weight-16": (quantized(weight="int16", bias="none"), "its weight is not of 8 bits"),
    "bias": (quantized("Gemm", result="float", bias="float"), "its bias does not come from a DequantizeLinear"),
    "bias-8": (quantized(bias="int8"), "its bias is not of 32-bit integers"),
    "bias-shifted": (quantized(bias="shifted"), "its bias is not quantized around 0"),
    "bias-coarse": (
        quantized(bias="coarse"),
        "its bias does not count in steps of the products, scale of the data times scale of the weight",
    ),
    "alpha": (quantized("Gemm", attributes="<alpha=2.0>"), "alpha or beta is not 1, and there is a bias"),
    "signed": (
        quantized("Gemm", data="int8", result="int8", bias="none", also=("d",)),
        "its data stay int8, read 2 times, and its result does not",
    ),
    "signed-weight": (
        quantized("Gemm", data="int8", result="float", weight="uint8", bias="none", also=("d",)),
        "its data stay int8, read 2 times",
    ),
    "operator": (quantized("ConvTranspose"), "onnxruntime has no product of integers for ConvTranspose"),
}


@pytest.mark.parametrize("case", BREAKS)
@x86
def test_a_rule_that_is_broken_alone_is_the_reason(case: str) -> None:
    model, expected = BREAKS[case]
    (product,) = audited(model).floating
    assert product.reason == expected


@pytest.mark.parametrize(
    "model",
    [
        quantized("Gemm", result="float"),
        quantized("MatMul", result="float", bias="none"),
        quantized("MatMul", result="float", bias="none", between="Sigmoid"),
        quantized("Gemm", bias="coarse"),
        quantized("Gemm", data="int8", result="float", bias="none", also=("d",)),
        quantized("Gemm", data="int8", result="int8", bias="none", also=("d", "e")),
        quantized("Gemm", attributes="<alpha=2.0>", bias="none"),
        quantized("Gemm", attributes="<transB=1>"),
        quantized(bias="float"),
        quantized(weight="float", bias="float"),
        quantized(weight="channels", bias="float"),
        quantized(between="Relu", lowest=True),
        quantized(also=("d",)),
        quantized(also=("e",)),
    ],
)
@x86
def test_what_breaks_no_rule_is_of_integers(model: ir.Model) -> None:
    assert not audited(model).floating


def variants(count: int) -> Iterator[ir.Model]:
    draw = np.random.default_rng(0)

    def one(*among: str) -> str:
        return str(draw.choice(among))

    for _ in range(count):
        operator = one("Conv", "Gemm", "MatMul")
        yield quantized(
            operator,
            data=one("uint8", "int8", "int8", "float"),
            result=one("uint8", "int8", "int8", "float"),
            weight=one("int8", "uint8", "channels", "float"),
            bias="none" if operator == "MatMul" else one(*(b for b in BIASES if b != "int8")),
            between=one("", "", *BETWEEN),
            lowest=bool(draw.integers(2)),
            also=tuple(v for v in ("d", "c", "r") if not draw.integers(4)),
        )


@x86
def test_the_rules_say_what_the_runtime_does() -> None:
    counted = [0, 0]
    for model in variants(150):
        (product,) = audited(model).products
        (node,) = (n for n in model.graph if n.outputs[0].name == "c")
        node.name = "product"
        (seen,) = (
            n
            for n in optimized(model, fuse=False).graph
            if (n.name or "").startswith("product") and n.op_type in OPERATORS
        )
        counted[product.integer] += 1
        assert (reason(node, seen, CPU) == UNKNOWN) is (
            product.integer and product.kernel != "com.microsoft::MatMulNBits"
        )
        assert product.reason != UNKNOWN
    assert min(counted) > 20


ADDED = """g (float[3,2] x) => (float[3,2] y) <
    float s = {0.1}, uint8 z = {3}, int8[2,2] w = {1,2,3,4}, float[2] b = {1,2}>
{
    q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
    v = DequantizeLinear(w, s) m = MatMul(d, v) y = Add(m, b)
}"""


@x86
def test_an_add_makes_a_float_bias() -> None:
    (product,) = audited(load(parse(ADDED)).model).floating
    assert product.reason == "the Add behind it becomes its bias, which does not come from a DequantizeLinear"


def test_another_provider_has_one_reason_for_all() -> None:
    (node,) = (n for n in quantized().graph if n.op_type == "Conv")
    assert reason(node, node, "CUDAExecutionProvider") == (
        "CUDAExecutionProvider runs QuantizeLinear and DequantizeLinear around products of floats"
    )


# -- what computes what ----------------------------------------------------------------------------------------------

TABLES = "float[2,2] w = {1,2,3,4}, float[2] b = {1,2}, float k = {0.5}, int8[2,2] i = {1,2,3,4}, int8 z = {0}"
KERNELS = {
    "t = MatMul(x, w) y = Mul(t, k)": ("com.microsoft::FusedMatMul", False),
    "t = MatMul(x, w) u = Add(t, b) y = Relu(u)": ("com.microsoft::FusedGemm", False),
    "t = Gemm(x, w, b) u = Relu(t) y = Neg(u)": ("com.microsoft::FusedGemm", False),
    "m = Constant<value = float[2,2] {1,2,3,4}>() y = MatMul(x, m)": ("MatMul", False),
    "d = DequantizeLinear(i, k) y = MatMul(x, d)": ("com.microsoft::MatMulNBits", True),
    """q, qs, qz = DynamicQuantizeLinear(x) m = MatMulInteger(q, i, qz, z) f = Cast<to=1>(m)
       t = Mul(qs, k) y = Mul(f, t)""": ("com.microsoft::DynamicQuantizeMatMul", True),
    "q = QuantizeLinear(x, k, z) m = QLinearMatMul(q, k, z, i, k, z, k, z) y = DequantizeLinear(m, k, z)": (
        "QLinearMatMul",
        True,
    ),
}


@pytest.mark.parametrize("body", KERNELS)
def test_fusions_keep_no_product_from_being_found(body: str) -> None:
    found = audited(load(parse(f"g (float[3,2] x) => (float[3,2] y) <{TABLES}> {{ {body} }}")).model)
    (product,) = found.products
    assert (product.kernel, product.integer) == KERNELS[body]
    assert bool(product.reason) is not product.integer


CHAIN = f"""g ({IMAGE} x) => ({IMAGE} y) <float[2,2,1,1] w = {{1,2,3,4}}, float[2] b = {{1,2}}> {{
    t = Conv(x, w, b) u = BatchNormalization(t, b, b, b, b) v = Relu(u)
    s = Conv(v, w) r = Sigmoid(s) y = Conv(r, w) }}"""


def test_convolutions_in_blocks_are_found_by_what_they_make() -> None:
    found = audited(load(parse(CHAIN)).model)
    assert [p.operator for p in found.products] == ["Conv"] * 3
    names = {str(p.kernel) for p in found.products}
    assert {name.rpartition("::")[2] for name in names} <= {"Conv", "FusedConv"}
    assert sum(found.kernels[name] for name in names) == 3


def test_bodies_are_looked_into_and_names_may_be_missing_or_repeated() -> None:
    model = load(
        parse(f"""g (float[3,2] x, bool f) => (float[3,2] y) <{TABLES}> {{ y = If(f) <
            then_branch = a () => (float[3,2] p) {{ p = MatMul(x, w) }},
            else_branch = c () => (float[3,2] q) {{
                e = QuantizeLinear(x, k, z) m = QLinearMatMul(e, k, z, i, k, z, k, z)
                q = DequantizeLinear(m, k, z) }}> }}""")
    ).model
    for node in model.graph.all_nodes():
        node.name = "same"
    found = audited(model)
    assert [(p.kernel, p.integer) for p in found.products] == [("MatMul", False), ("QLinearMatMul", True)]
    assert found.kernels == {"If": 1, "MatMul": 1, "QuantizeLinear": 1, "QLinearMatMul": 1, "DequantizeLinear": 1}
    assert {n.name for n in model.graph.all_nodes()} == {"same"}


def test_products_of_computed_tensors_are_none_and_of_constants_are_gone() -> None:
    body = "c = MatMul(w, w) t = MatMul(x, c) y = MatMul(t, u)"
    found = audited(load(parse(f"g (float[3,2] x, float[2,2] u) => (float[3,2] y) <{TABLES}> {{ {body} }}")).model)
    first, second = found.products
    assert (first.kernel, first.reason) == (
        None,
        "onnxruntime has computed it ahead, or taken it into something larger",
    )
    assert second.kernel == "MatMul"


# -- what others make ------------------------------------------------------------------------------------------------

RESIDUAL = """g (float[1,4,6,6] x) => (float[1,4,6,6] y) <
    float[4,4,3,3] w1, float[4,4,3,3] w2, float[4,4,3,3] w3, float[4] b1, float[4] b2, float[4] b3> {
    a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a) c = Conv<pads=[1,1,1,1]>(r, w2, b2) d = Relu(c)
    e = Conv<pads=[1,1,1,1]>(d, w3, b3) s = Add(e, r) y = Relu(s) }"""


class Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        draw = np.random.default_rng(1)
        self.feeds = iter([{"x": draw.standard_normal((1, 4, 6, 6)).astype(np.float32)} for _ in range(4)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


def statically(folder: Path, kind: QuantType) -> Audit:
    draw = np.random.default_rng(0)
    made = parse(RESIDUAL)
    for declared in made.graph.value_info:
        shape = [d.dim_value for d in declared.type.tensor_type.shape.dim]
        tensor = ir.tensor(draw.standard_normal(shape).astype(np.float32), name=declared.name)
        made.graph.initializer.append(ir.to_proto(tensor))
    onnx.save(made, folder / "given.onnx")
    quantize_static(
        folder / "given.onnx", folder / "made.onnx", Images(), activation_type=kind, weight_type=QuantType.QInt8
    )
    return audited(load(folder / "made.onnx").model)


@x86
def test_signed_residuals_are_why_the_defaults_of_onnxruntime_are_slow(tmp_path: Path) -> None:
    found = statically(tmp_path, QuantType.QInt8)
    assert [(p.integer, p.reason) for p in found.products] == [
        (False, "its result stays int8, read 2 times"),
        (False, "its data stay int8, read 2 times"),
        (True, ""),
    ]


@x86
def test_unsigned_ones_are_all_of_integers(tmp_path: Path) -> None:
    found = statically(tmp_path, QuantType.QUInt8)
    assert len(found.integer) == 3
    assert found.kernels["com.microsoft::QLinearAdd"] == 1
