"""What is made for CUDA: its operators compute what they stand for, also in half precision, on any machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import product
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

import graphopt
from graphopt.graph.load import load
from graphopt.lower import Lower
from graphopt.targets import TARGETS
from tests.support.models import parse, rewritten, run

DTYPES: Mapping[str, type[np.floating[Any]]] = MappingProxyType({"float": np.float32, "float16": np.float16})
TYPES = pytest.mark.parametrize(("kind", "near"), [("float", 1e-5), ("float16", 1e-2)])
MASKS: Mapping[str, str] = MappingProxyType(
    {
        "large": "f = Cast <to = 1> (mask) o = Sub (one, f) u = Mul (o, low) m = Unsqueeze (u, axes)",
        "infinite": "f = Cast <to = 9> (mask) u = Where (f, zero, none) m = Unsqueeze (u, axes)",
    }
)
CONSTANTS = """float one = {1}, float low = {-3.4028235e38}, float zero = {0}, float none = {-inf},
    int64[2] axes = {1, 2}, int64[4] to = {0, 0, 4, 8}, int64[3] back = {0, 0, 32}, float scale = {0.35}"""
LAYER = """
    n@ = LayerNormalization (x@, g, b)
    q0@ = MatMul (n@, wq) q1@ = Add (q0@, bias) q2@ = Reshape (q1@, to) q@ = Transpose <perm = [0, 2, 1, 3]> (q2@)
    k0@ = MatMul (n@, wk) k2@ = Reshape (k0@, to) k@ = Transpose <perm = [0, 2, 3, 1]> (k2@)
    v0@ = MatMul (n@, wv) v2@ = Reshape (v0@, to) v@ = Transpose <perm = [0, 2, 1, 3]> (v2@)
    s0@ = MatMul (q@, k@) s1@ = Mul (s0@, scale) s@ = Add (s1@, m) p@ = Softmax <axis = -1> (s@)
    h0@ = MatMul (p@, v@) h1@ = Transpose <perm = [0, 2, 1, 3]> (h0@) h@ = Reshape (h1@, back)
    o0@ = MatMul (h@, wo) o@ = Add (o0@, bias) r@ = Add (x@, o@)
    t@ = LayerNormalization (r@, g, b) f0@ = MatMul (t@, wf) f1@ = Add (f0@, bias) f2@ = Relu (f1@)
    f@ = MatMul (f2@, we) x# = Add (r@, f@)
"""


def given(text: str, **constants: NDArray[Any]) -> onnx.ModelProto:
    """A model of opset 17 from a text that leaves out its large constants."""
    model = parse(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    tensors = (ir.tensor(contents, name=name) for name, contents in constants.items())
    model.graph.initializer.extend(map(ir.serde.serialize_tensor, tensors))
    return model


def own(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node if node.domain == "com.microsoft")


def lowered(model: onnx.ModelProto, feed: Mapping[str, NDArray[Any]], near: float) -> onnx.ModelProto:
    """Made for CUDA; it computes the same on the CPU."""
    made = rewritten(load(model), [Lower()], target="cuda").model
    for name, expected in run(model, dict(feed)).items():
        found = run(made, dict(feed))[name]
        assert found.dtype == expected.dtype
        assert np.abs(found.astype(np.float64) - expected).max() <= near
    return made


@TYPES
def test_attention_of_any_shape(kind: str, near: float) -> None:
    random = np.random.default_rng(5)
    sizes = [(1, 1, 1, 1, 3), (3, 5, 2, 4, 7), (2, 3, 9, 8, 1)]
    for masked, (heads, queries, keys, deep, wide) in product((False, True), sizes):
        shapes = {"q": (2, heads, queries, deep), "k": (2, heads, keys, deep), "v": (2, heads, keys, wide)}
        shapes |= {"m": (1, 1, queries, keys)} if masked else {}
        inputs = ", ".join(f"{kind}{list(shape)} {name}" for name, shape in shapes.items())
        scores = "s = MatMul (q, t) a = Add (s, m)" if masked else "a = MatMul (q, t)"
        model = given(f"""g ({inputs}) => ({kind}[2, {heads}, {queries}, {wide}] y) {{
            t = Transpose <perm = [0, 1, 3, 2]> (k) {scores} p = Softmax <axis = -1> (a) y = MatMul (p, v) }}""")
        feed = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        assert own(lowered(model, feed, near)) == {"MultiHeadAttention": 1}


@pytest.mark.parametrize(
    ("queries", "keys", "masked", "fused"),
    [(16, 5, True, False), (16, 5, False, True), (16, 8, True, True), (12, 5, True, True), ("S", 5, True, False)],
)
def test_masks_that_a_kernel_fails_on_stay_outside(queries: int | str, keys: int, masked: bool, fused: bool) -> None:  # noqa: FBT001
    scores = "s = MatMul (q, t) a = Add (s, m)" if masked else "a = MatMul (q, t)"
    model = given(f"""g (float[1,2,{queries},8] q, float[1,2,{keys},8] k, float[1,2,{keys},8] v,
        float[1,1,{queries},{keys}] m) => (float[1,2,{queries},8] y) {{
        t = Transpose <perm = [0, 1, 3, 2]> (k) {scores} p = Softmax <axis = -1> (a) y = MatMul (p, v) }}""")
    made = rewritten(load(model), [Lower()], target="cuda").model
    assert bool(own(made)["MultiHeadAttention"]) == fused


@TYPES
def test_sums_before_a_normalization_of_any_shape(kind: str, near: float) -> None:
    random = np.random.default_rng(6)
    for shape, biased in product([(1, 1), (3, 7), (2, 3, 16)], (False, True)):
        real = f"{kind}{list(shape)}"
        bias = "a = Add (x, c) s = Add (a, z)" if biased else "s = Add (x, z)"
        text = f"g ({real} x, {real} z) => ({real} y, {real} s) {{ {bias} y = LayerNormalization (s, g, b) }}"
        vectors = dict(zip("gbc", random.standard_normal((3, shape[-1])).astype(DTYPES[kind]), strict=True))
        feed = {name: random.standard_normal(shape).astype(np.float32) for name in "xz"}
        made = lowered(given(text, **{n: a for n, a in vectors.items() if biased or n != "c"}), feed, 4 * near)
        assert own(made) == {"SkipLayerNormalization": 1}
        assert len(made.graph.node) == 1


@pytest.mark.parametrize("mask", MASKS)
def test_half_precision_and_operators_of_the_runtime_go_together(mask: str) -> None:
    random = np.random.default_rng(7)
    weights = {f"w{name}": random.standard_normal((32, 32)).astype(np.float32) / 5 for name in "qkvofe"}
    vectors = {name: random.standard_normal(32).astype(np.float32) / 5 + (name == "g") for name in ("g", "b", "bias")}
    layers = "".join(LAYER.replace("@", str(i)).replace("#", str(i + 1)) for i in range(2))
    model = given(
        f"""g (float[N, S, 32] x0, int64[N, S] mask) => (float[N, S, 32] x2) <{CONSTANTS}>
            {{ {MASKS[mask]} {layers} }}""",
        **weights,
        **vectors,
    )
    x, seen = random.standard_normal((20, 8, 32)).astype(np.float32), np.arange(8) < 3 + np.arange(20)[:, None] % 6
    feed = {"x0": x, "mask": seen.astype(np.int64)}
    result = graphopt.optimize(model, target="cuda", fp16=True, data=[feed], device="cpu", threads=1)
    made = result.model
    assert own(made) == {"Attention": 2, "SkipLayerNormalization": 3}
    kinds = {t.name: t.data_type for t in made.graph.initializer}
    fused = [node for node in made.graph.node if node.domain]
    assert {kinds[name] for node in fused for name in node.input if name in kinds} == {onnx.TensorProto.FLOAT16}
    assert sum(node.op_type == "Cast" for node in made.graph.node) <= 5
    assert not result.report.left_out
    exact, found = run(model, feed)["x2"], run(made, feed)["x2"]
    assert np.abs(found - exact).max() < 0.01 * np.abs(exact).max()


def test_what_may_be_emitted_has_kernels() -> None:
    cuda = TARGETS["cuda"]
    assert cuda.halves <= cuda.operators
    assert not cuda.behind, "onnxruntime fuses no convolution there"
    assert "com.microsoft::SkipLayerNormalization" not in TARGETS["cpu"].operators
