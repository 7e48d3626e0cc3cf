"""Heads in other bases: the same function, and less of it lost where units are cut."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from graphopt.analysis.channels import channels
from graphopt.analysis.facts import extents
from graphopt.analysis.samples import Split
from graphopt.compress.turn import Turns, balanced, turns
from graphopt.graph.carry import Carried
from graphopt.graph.save import runnable
from graphopt.plan.plan import Plan
from graphopt.run.session import Feed
from graphopt.workshop import Workshop
from tests.support.integers import filled, images, noise

APART = """a = MatMul(x, wq) qa = Add(a, bq) qr = Reshape(qa, heads) q = Transpose<perm=[0,2,1,3]>(qr)
    [key] b = MatMul(x, wk) {between} kr = Reshape(kb, heads) k = Transpose<perm=[0,2,3,1]>(kr)
    v0 = MatMul(x, wv) va = Add(v0, bv) vr = Reshape(va, heads) v = Transpose<perm=[0,2,1,3]>(vr)"""
SCORES = "qs = Mul(q, half) s = MatMul(qs, k) p = Softmax<axis=-1>(s) z = MatMul(p, v)"
PACKED = """a = MatMul(x, wqkv) b = Add(bqkv, a) r = Reshape(b, packed) t = Transpose<perm=[2,0,3,1,4]>(r)
    q = Gather<axis=0>(t, n0) k0 = Gather<axis=0>(t, n1) v = Gather<axis=0>(t, n2) k = Transpose<perm=[0,1,3,2]>(k0)"""
SPLIT = """a = MatMul(x, wqkv) b = Add(a, bqkv) qa, ka, va = Split<axis=2, num_outputs=3>(b)
    qr = Reshape(qa, heads) q = Transpose<perm=[0,2,1,3]>(qr) kr = Reshape(ka, heads) k = Transpose<perm=[0,2,3,1]>(kr)
    vr = Reshape(va, heads) v = Transpose<perm=[0,2,1,3]>(vr)"""
GROUPED = """a = MatMul(x, wq) qr = Reshape(a, heads) q = Transpose<perm=[0,2,1,3]>(qr)
    b = MatMul(x, wk1) kr = Reshape(b, one) kt = Transpose<perm=[0,2,3,1]>(kr) k = Expand(kt, twice)
    v0 = MatMul(x, wv) vr = Reshape(v0, heads) v = Transpose<perm=[0,2,1,3]>(vr)"""
ONE_NODE = """q0 = MatMul(x, wq) k0 = MatMul(x, wk) v0 = MatMul(x, wv) q = Add(q0, bq)
    j = Attention<q_num_heads=2, kv_num_heads=2>(q, k0, v0)"""
MERGED = "zt = Transpose<perm=[0,2,1,3]>(z) j = Reshape(zt, whole)"

CHAIN = "g (float[N,7,8] x) => (float[N,7,9] y) <float[8,6] w, float[6,9] v> {a = MatMul(x, w) y = MatMul(a, v)}"
NET = """<ir_version: 10, opset_import: ["" : 23]> g (float[N,7,8] x) => (float[N,7,5] y{more})
    <float[8,12] wq, float[12] bq, float[8,12] wk, float[12] bk, float[8,12] wv, float[12] bv, float[8,6] wk1,
     float[8,36] wqkv, float[36] bqkv, float[12,8] wo, float[8] bo, float[8,5] wy, float[12] each,
     float half = {{0.5}}, int64 n0 = {{0}}, int64 n1 = {{1}}, int64 n2 = {{2}},
     int64[4] heads = {{0,7,2,6}}, int64[4] one = {{0,7,1,6}}, int64[5] packed = {{0,7,3,2,6}},
     int64[3] whole = {{0,7,12}}, int64[4] twice = {{1,2,1,1}}> {{
    {attention} [out] o = MatMul(j, wo) ob = Add(o, bo) t9 = Tanh(ob) y = MatMul(t9, wy) }}"""

Array = NDArray[np.float64]


def net(attention: str, more: str = "") -> ir.Model:
    return filled(NET.format(attention=attention, more=more))


def apart(between: str = "kb = Identity(b)", more: str = "") -> ir.Model:
    return net(f"{APART.format(between=between)} {SCORES} {MERGED}", more)


def found(model: ir.Model, feed: Feed) -> Turns:
    return turns(model, channels(model, extents(model, feed), samples=len(feed["x"])), feed)


@pytest.mark.parametrize(
    ("model", "groups"),
    [
        (apart("kb = Add(bk, b)"), 2),
        (net(f"{PACKED} {SCORES} {MERGED}"), 1),
        (net(f"{SPLIT} {SCORES} {MERGED}"), 2),
        (net(f"{GROUPED} {SCORES} {MERGED}"), 2),
        (net(ONE_NODE), 2),
    ],
    ids=["apart", "packed", "split", "one key for all", "one node"],
)
def test_heads_in_other_bases_are_the_same_function(model: ir.Model, groups: int) -> None:
    feed = images(7, 8)
    made = found(model, feed)
    assert len(made.by) == groups
    assert made.turned(()) is model
    turned = made.turned(made.by)
    assert noise(model, turned, images(7, 8, seed=2)) < 1e-9
    constants = [str(place.value) for turn in made.by.values() for place, _ in turn]
    for name in constants:
        before, after = (m.graph.initializers[name].const_value for m in (model, turned))
        assert before is not None
        assert after is not None
        assert not np.allclose(before.numpy(), after.numpy(), atol=0.05)


@pytest.mark.parametrize(
    ("between", "more"),
    [
        ("kb = Mul(b, each)", ""),
        ("kb = Add(b, half)", ""),
        ("kb = Relu(b)", ""),
        ("kb = Clip(b, half)", ""),
        ("c = MatMul(x, wk) kb = Add(b, c)", ""),
        ("kb = Identity(b)", ", float[N,7,12] kb"),
    ],
    ids=["unit by unit", "one number added", "bent", "clipped", "one weight twice", "shown"],
)
def test_what_has_a_basis_of_its_own_keeps_it(between: str, more: str) -> None:
    made = found(apart(between, more), images(7, 8))
    assert [[place.value for place, _ in turn] for turn in made.by.values()] == [["wv", "bv", "wo"]]


def test_outside_of_attention_nothing_is_mixed() -> None:
    assert not found(filled(CHAIN), images(7, 8)).by


def test_a_balanced_basis_holds_the_best_product_of_each_rank() -> None:
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((50, 5)) @ random.standard_normal((5, 5)) for _ in range(2))
    first, second = balanced(a.T @ a, b.T @ b)
    assert np.allclose(first @ second.T, np.eye(5))
    ours = [a @ first[:, :r] @ (b @ second[:, :r]).T for r in range(6)]
    u, s, vt = np.linalg.svd(a @ b.T)
    for r, product in enumerate(ours):
        assert np.allclose(product, u[:, :r] * s[:r] @ vt[:r], atol=1e-6 * s[0])


def test_what_heads_do_not_need_is_cut_for_nothing() -> None:
    """All six units of each head are in use; what they do has rank 3."""
    model, random = apart("kb = Add(bk, b)"), np.random.default_rng(1)
    for name in ("wk", "bk", "wv", "bv"):
        value = model.graph.initializers[name]
        assert value.const_value is not None
        shape = value.const_value.numpy().shape
        few = [random.standard_normal((*shape[:-1], 3)) @ random.standard_normal((3, 6)) for _ in range(2)]
        value.const_value = ir.tensor((np.concatenate(few, axis=-1) / 3).astype(np.float32), name=name)
    # a bias beside its weight would add a dimension
    for weight, bias in (("wk", "bk"), ("wv", "bv")):
        held = model.graph.initializers[weight].const_value
        assert held is not None
        row = (random.standard_normal(8) @ held.numpy()).astype(np.float32)
        model.graph.initializers[bias].const_value = ir.tensor(row, name=bias)
    feed = images(7, 8, count=100)
    groups = channels(model, extents(model, feed), samples=100)
    workshop = Workshop(model, groups, Split(feed, (feed,), (None,), 100, 100), runnable(model, Carried()))
    plain = Workshop(model, groups, workshop.split, workshop.reference)
    vars(plain)["_turns"] = Turns(model)
    heads = {name: 3 for name, group in groups.groups.items() if group.units == 6}
    fresh = images(7, 8, seed=2)
    losses = [noise(model, shop.compressed(Plan(heads)).model, fresh) for shop in (workshop, plain)]
    assert losses[0] < 1e-6
    assert losses[1] > 1e-3
