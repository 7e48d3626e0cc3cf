"""Channels that may be scaled: whatever their factors, a model computes the same bits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.analysis.factors import Scalable, scalable
from graphopt.analysis.facts import extents
from graphopt.run.machine import Machine
from tests.support.integers import filled, images

PASSING = {
    "Relu": "b = Relu(a)",
    "LeakyRelu": "b = LeakyRelu<alpha=0.1>(a)",
    "PRelu": "b = PRelu(a, p)",
    "one slope": "b = PRelu(a, one)",
    "constant row": "b = Add(row, a)",
    "two paths": "c = Relu(a) d = Neg(a) b = Max(c, d)",
    "sum of two": "[other] c = Conv<pads=[1,1,1,1]>(x, w1, b1) b = Sub(a, c)",
    "pools": "c = MaxPool<kernel_shape=[2,2]>(a) b = AveragePool<kernel_shape=[2,2], pads=[1,1,1,1]>(c)",
    "concatenation": """[other] c = Conv<pads=[1,1,1,1]>(x, wd, bd)
        d, e = Split<axis=1, num_outputs=2>(a) b = Concat<axis=1>(d, c, e)""",
    "each channel alone": "[other] b = Conv<group=6>(a, w3)",
    "groups": "[other] b = Conv<group=2>(a, w4, b4)",
    "there and back": "c = Transpose<perm=[0,2,3,1]>(a) d = Relu(c) b = Transpose<perm=[0,3,1,2]>(d)",
}
HOLDING = {
    "Clip": "b = Clip(a, low, high)",
    "Sigmoid": "b = Sigmoid(a)",
    "an output": "b = Identity(a) z = Relu(a)",
    "a computed factor": "c = Relu(a) b = Mul(a, c)",
    "what all channels share": "c = ReduceMax(a, ch) b = Add(a, c)",
    "one constant": "b = Add(a, one)",
    "the largest of it and 1": "b = Max(a, high)",
}
CNN = """g (float[N,4,6,6] x) => (float[N,D,H,W] y{more})
    <float[6,4,3,3] w0, float[6] b0, float[6,4,3,3] w1, float[6] b1, float[2,4,3,3] wd, float[2] bd,
     float[6,1,1,1] w3, float[4,3,1,1] w4, float[4] b4, float[5,{read},2,2] w2, float[5] b2,
     float[6,1,1] p, float[1] one = {{0.5}}, float[6,1,1] row,
     float low = {{0.0}}, float high = {{1.0}}, int64[1] ch = {{1}}> {{
    [first] a = Conv<pads=[1,1,1,1]>(x, w0, b0)
    {between}
    [last] y = Conv(b, w2, b2) }}"""
TOKENS = """g (float[N,5,8] x) => (float[N,5,4] y)
    <float[8] s, float[8] t, float[8] f, float[8,8] m1, float[8,8] m2, float[8,6] m3, float[6,4] m4, float[6] b3> {
    n = LayerNormalization<axis=-1>(x, s, t)
    [query] q = MatMul(n, m1) [key] k = MatMul(n, m2) h = Mul(q, k)
    g = Mul(h, f) [up] u = MatMul(g, m3) v = Add(u, b3) r = Relu(v) [down] y = MatMul(r, m4) }"""


def checked(model: ir.Model, feed: dict[str, np.ndarray]) -> Scalable:
    """What is found, once it changed no bit."""
    found = scalable(model, extents(model, feed))
    units = sum(map(len, found.groups))
    factors = np.exp2(np.random.default_rng(3).integers(-5, 6, units).astype(np.float64))
    scaled = found.scaled(model, factors)
    before, after = (Machine(threads=1).session(m, optimize=False).run(feed) for m in (model, scaled))
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
    nodes = zip(model.graph, scaled.graph, strict=True)
    both = [(v, w) for a, b in nodes for v, w in zip(a.inputs, b.inputs, strict=True)]
    changed = [v for v, w in both if v is not None and v.const_value is not None and not same(v, w)]
    assert bool(changed) == bool(units)
    return found


def same(a: ir.Value, b: ir.Value | None) -> bool:
    assert b is not None
    assert a.const_value is not None
    assert b.const_value is not None
    return np.array_equal(a.const_value.numpy(), b.const_value.numpy())


@pytest.mark.parametrize("name", PASSING)
def test_factors_go_past(name: str) -> None:
    read = {"concatenation": 8, "groups": 4}.get(name, 6)
    found = checked(filled(CNN.format(between=PASSING[name], read=read, more="")), images(4, 6, 6, count=2))
    assert (found.sources["last"] >= 0).all()
    assert len(np.unique(found.sources["last"])) == read
    assert (found.sources["first"] == -1).all()
    groups = {"each channel alone": 2, "groups": 2}
    assert len(found.groups) == groups.get(name, 1)


@pytest.mark.parametrize("name", HOLDING)
def test_factors_do_not_go_past(name: str) -> None:
    text = CNN.format(between=HOLDING[name], read=6, more=", float[N,6,6,6] z" if name == "an output" else "")
    assert checked(filled(text), images(4, 6, 6, count=2)).groups == ()


def test_a_normalization_and_a_constant_factor_are_divided_where_products_read_them() -> None:
    found = checked(filled(TOKENS), images(5, 8, count=2))
    assert [len(g) for g in found.groups] == [8, 8, 6]
    np.testing.assert_array_equal(found.sources["query"], found.sources["key"])
    assert set(found.constants) == {"s", "t", "f", "b3"}


def test_weights_and_constants_that_others_read_stay() -> None:
    text = CNN.replace("[last]", "c = Conv(b, w2, b2) [last]").format(between="b = Relu(a)", read=6, more="")
    assert checked(filled(text), images(4, 6, 6, count=2)).groups == ()
    text = CNN.format(between="c = Add(row, a) d = Mul(x2, row) b = Add(c, d)", read=6, more="")
    text = text.replace("x) =>", "x, float[N,6,6,6] x2) =>")
    feed = {**images(4, 6, 6, count=2), "x2": images(6, 6, 6, count=2)["x"]}
    assert checked(filled(text), feed).groups == ()


def test_nodes_that_are_named_stay() -> None:
    model, feed = filled(TOKENS), images(5, 8, count=2)
    assert [len(g) for g in scalable(model, extents(model, feed), {"up"}).groups] == [8]
    assert [len(g) for g in scalable(model, extents(model, feed), {"down"}).groups] == [8, 8]
