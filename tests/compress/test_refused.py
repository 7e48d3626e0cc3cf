"""What no quantizer is put around, and why."""

from __future__ import annotations

import pytest

from graphopt.compress.integers.region import Layout, layout, refused
from graphopt.graph.nodes import key
from graphopt.targets import Integers
from tests.compress.integers.test_region import ON_CPU, ON_TENSORRT, conv, net
from tests.support.integers import filled

FORM = "its constants are not one matrix behind the data, and a bias"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (net(conv("p", "y", "x, w1, b1")).replace("float[", "float16["), "its weight is of float16, not of float32"),
        ("g (float[N,4,3] x) => (float[N,5,3] y) <float[5,4] m1> { y = MatMul(m1, x) }", FORM),
        ("g (float[N,4] x) => (float[N] y) <float[4] m1> { y = MatMul(x, m1) }", FORM),
        ("g (float[N,2,3,4] x) => (float[N,2,3,5] y) <float[2,4,5] m1> { y = MatMul(x, m1) }", FORM),
        ("g (float[4,N] x) => (float[N,5] y) <float[4,5] m1> { y = Gemm<transA=1>(x, m1) }", FORM),
        ("g (float[N,4] x, float[5] b) => (float[N,5] y) <float[4,5] m1> { y = Gemm(x, m1, b) }", FORM),
        (
            "g (float[N,4] x) => (float[N,5] y) <float[4,5] m1> { y = Gemm<alpha=2.0>(x, m1) }",
            "it has factors, alpha or beta",
        ),
        ("g (float[N,4] x, float[4,5] w) => (float[N,5] y) { y = MatMul(x, w) }", "its weight is computed"),
        ("g (float[N,5] x) => (float[N,6] y) <float[5,6] m1> { a = MatMul(x, m1) b = MatMul(x, m1) y = Add(a, b) }",
         "other nodes read its weight"),
        ("g (float[N,5] x) => (float[N,5] y) <float[5,4] m1, float[4,5] m2> { a = MatMul(m1, m2) b = Tanh(a) y = MatMul(x, b) }",  # noqa: E501
         "its data is constant"),
        ("g (float[N,4] x) => (float[N,4] y) { y = Add(x, x) }", ""),
        ("g (float[N,4,6] x) => (float[N,6,8] y) <float[4,3,3] k1> { y = ConvTranspose<group=2>(x, k1) }",
         "its output channels are not one axis of its weight"),
    ],
    ids=["half", "left", "vector", "batched", "transposed", "bias", "alpha", "computed", "shared", "constants", "sum",
         "groups"],
)  # fmt: skip
@pytest.mark.parametrize("target", [ON_CPU, ON_TENSORRT])
def test_what_has_no_kernel_changes_nothing_and_that_is_told(text: str, why: str, target: Integers) -> None:
    model = filled(text)
    assert layout(model, target) == Layout((), frozenset(), {}, frozenset(), {})
    missing = "ConvTranspose" in text and target is ON_CPU
    told = next(iter(refused(model, target).values()), "")
    assert told == ("the target does not compute ConvTranspose on integers" if missing else why)
    skipped = refused(model, target, [key(n) for n in model.graph])
    assert set(skipped.values()) == ({"it is to be left alone"} if why else set())
