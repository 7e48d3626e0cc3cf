from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from graphopt.analysis.frontier import Frontier
from graphopt.analysis.segments import Pieces, Store, Walk, batches, differs
from graphopt.errors import InputError
from graphopt.graph.carry import Carried
from graphopt.graph.nodes import key, name_keys
from graphopt.graph.save import serialize
from graphopt.run.machine import Machine
from graphopt.run.session import Session

Array = NDArray[Any]


def model(body: str, weights: Mapping[str, Sequence[int]], x: str = "float[N,4,6,6] x") -> ir.Model:
    """A graph whose weights are drawn by their names' order."""
    random = np.random.default_rng(0)
    declared = ", ".join(
        f"float[{','.join(map(str, shape))}]".replace("[]", "")
        + f" {name} = {{{','.join(f'{v:.4f}' for v in random.standard_normal(shape).ravel())}}}"
        for name, shape in weights.items()
    )
    made = ir.from_onnx_text(
        f'<ir_version: 10, opset_import: ["" : 21]> g ({x}) => (float y) <{declared}> {{ {body} }}'
    )
    made.graph.outputs[0].shape = None
    name_keys(made)
    return made


CONVS = (
    """
    a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, wa, ba)
    b = Relu(a)
    c = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=4>(b, wc)
    d = Clip(c, lo, hi)
    e = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=2>(d, we, be)
    s = Conv<kernel_shape=[1,1]>(x, ws, bs)
    f = Add(s, e)
    g = Relu(f)
    h = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(g, wh, bh)
    k = MaxPool<kernel_shape=[4,4], strides=[4,4]>(h)
    l = Flatten(k)
    y = Gemm<alpha=0.5, beta=2.0, transB=1>(l, wy, by)
    """,
    {
        "wa": (4, 4, 3, 3),
        "ba": (4,),
        "wc": (4, 1, 3, 3),
        "lo": (),
        "hi": (),
        "we": (6, 2, 3, 3),
        "be": (6,),
        "ws": (6, 4, 1, 1),
        "bs": (6,),
        "wh": (6, 3, 2, 2),
        "bh": (3,),
        "wy": (5, 27),
        "by": (5,),
    },
)
TOKENS = (
    """
    a = MatMul(x, wa)
    b = Add(ba, a)
    c = Relu(b)
    d = MatMul(c, wd)
    e = Add(d, bd)
    f = Add(x, e)
    g = Relu(f)
    y = MatMul(g, wy)
    """,
    {"wa": (4, 8), "ba": (8,), "wd": (8, 4), "bd": (1, 4), "wy": (4, 3)},
)


def convs() -> ir.Model:
    made = model(*CONVS)
    for name, value in (("lo", 0.0), ("hi", 6.0)):
        made.graph.initializers[name].const_value = ir.tensor(np.float32(value))
    return made


def tokens() -> ir.Model:
    return model(*TOKENS, x="float[N,5,4] x")


def samples(made: ir.Model, count: int = 11) -> dict[str, Array]:
    shape = made.graph.inputs[0].shape
    assert shape is not None
    drawn = np.random.default_rng(1).standard_normal((count, *(int(d) for d in shape[1:] if isinstance(d, int))))
    return {"x": drawn.astype(np.float32)}


def outputs(made: ir.Model, feed: Mapping[str, Array]) -> Array:
    found: Array = Session(serialize(made, Carried())).run(dict(feed))["y"]
    return found


def held(frontier: Frontier, *names: str) -> Mapping[str, tuple[Pieces, Pieces]]:
    """Values of both sides, batch by batch; to be read once the frontier is at its end."""
    sides = frontier._dense, frontier._compressed
    for walk in sides:
        walk._last.update(dict.fromkeys(names, len(walk.segments)))  # as if something behind the end read them
    return _Held(sides)


class _Held(dict[str, tuple[Pieces, Pieces]]):
    def __init__(self, sides: tuple[Walk, Walk]) -> None:
        self._sides = sides

    def __missing__(self, name: str) -> tuple[Pieces, Pieces]:
        dense, compressed = self._sides
        return dense.cache[name], compressed.cache[name]


@pytest.mark.parametrize("make", [convs, tokens])
@pytest.mark.parametrize(("batch", "memory"), [(1, 1 << 30), (4, 1 << 30), (50, 1 << 30), (4, 0)])
def test_it_is_both_models_run_as_a_whole(make: Any, batch: int, memory: int) -> None:
    dense, data = make(), samples(make())
    thin = dense.clone()
    frontier = Frontier(dense, thin, data, Machine(memory=memory), batch=batch)
    ends = held(frontier, "y")
    sites = []
    for number, site in enumerate(frontier):
        rows = site.sample(70)
        sites.append(site)
        assert site.intact == (number < 2)
        value = site.matrix() @ (rows.x + rows.mean[..., None]) + site.bias()[..., None]
        drift = np.abs((value if rows.base is None else value + rows.base) - rows.target).max()
        assert (drift < 1e-4) == (number < 2), site.key
        if number == 1:
            site.put(site.matrix() * 1.25, site.bias() + 0.25)
    expected = outputs(dense, data), outputs(thin, data)
    assert len(sites) == sum(n.op_type in {"Conv", "ConvTranspose", "Gemm", "MatMul"} for n in dense.graph)
    assert not np.allclose(*expected)
    for side, whole in zip(ends["y"], expected, strict=True):
        np.testing.assert_allclose(np.concatenate(side), whole, atol=1e-4)


@pytest.mark.parametrize("make", [convs, tokens])
def test_what_is_put_is_what_it_then_has(make: Any) -> None:
    dense, thin = make(), make()
    random = np.random.default_rng(0)
    for site in Frontier(dense, thin, samples(dense)):
        matrix, bias = random.standard_normal(site.matrix().shape), random.standard_normal(site.bias().shape)
        site.put(matrix, bias)
        np.testing.assert_allclose(site.matrix(), matrix, atol=1e-6)
        if site.biased:
            np.testing.assert_allclose(site.bias(), bias, atol=1e-6)
        assert not site.intact
    assert np.isfinite(outputs(thin, samples(thin))).all()


def test_what_stands_behind_a_product_is_known() -> None:
    dense = convs()
    found = {
        s.linear.node.outputs[0].name: (s.other, s.low, s.high) for s in Frontier(dense, dense.clone(), samples(dense))
    }
    assert found == {
        "a": (None, 0, inf),
        "c": (None, 0, 6),
        "e": (None, -inf, inf),  # what it is added to is not known yet
        "s": ("e", 0, inf),
        "h": (None, -inf, inf),
        "y": (None, -inf, inf),
    }
    dense = tokens()
    found = {
        s.linear.node.outputs[0].name: (s.other, s.low, s.high) for s in Frontier(dense, dense.clone(), samples(dense))
    }
    assert found == {"a": (None, 0, inf), "d": ("x", 0, inf), "y": (None, -inf, inf)}


@pytest.mark.parametrize(
    ("body", "other", "low"),
    [
        ("s = Slice(x, zero, two, one) b = Pad(s, pads) c = Add(a, b) y = Relu(c)", "b", 0.0),  # made after the product
        ("b = Add(a, a) y = Relu(b)", None, -inf),
        ("b = Add(a, x) c = Relu(b) y = Add(c, a)", None, -inf),  # read twice
        ("b = Sub(a, x) y = Relu(b)", None, -inf),
        ("y = LeakyRelu(a)", None, -inf),
    ],
)
def test_nothing_is_taken_for_granted_behind_a_product(body: str, other: str | None, low: float) -> None:
    text = (
        '<ir_version: 10, opset_import: ["" : 21]> g (float[N,2] x) => (float y) '
        "<float[2,2] w = {1,2,3,4}, float[2] v = {1,2}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, "
        "int64[4] pads = {0,0,0,0}> { a = Gemm(x, w, v) " + body + " }"
    )
    dense = ir.from_onnx_text(text)
    name_keys(dense)
    (site,) = Frontier(dense, dense.clone(), {"x": np.ones((3, 2), np.float32)})
    assert (site.other, site.low) == (other, low)


def test_the_target_makes_up_for_the_drift_of_the_other_operand() -> None:
    dense = tokens()
    thin, data = dense.clone(), samples(dense)
    thin.graph.initializers["wa"].const_value = ir.tensor(dense.graph.initializers["wa"].const_value.numpy() * 1.5)  # type: ignore[union-attr]
    for site in Frontier(dense, thin, data):
        rows = site.sample(5)
        if site.linear.node.outputs[0].name == "d":
            assert rows.base is not None
            places = [int(np.flatnonzero((data["x"].reshape(-1, 4) == r).all(axis=1))[0]) for r in rows.base[0].T]
            assert sorted(p // 5 for p in places) == list(range(11))
            assert [p // 5 % 4 == 3 for p in places] == [i >= rows.fitted for i in range(11)]


def test_only_channels_that_are_kept_are_asked_for() -> None:
    dense = convs()
    thin, kept = dense.clone(), np.array([True, False, True, True])
    for name in ("wa", "ba"):
        value = thin.graph.initializers[name]
        value.const_value = ir.tensor(value.const_value.numpy()[kept])  # type: ignore[union-attr]
        value.shape = ir.Shape(value.const_value.shape.numpy())
    site = next(iter(Frontier(dense, thin, samples(dense))))
    rows = site.sample(100, kept)
    given = site.matrix() @ (rows.x + rows.mean[..., None]) + site.bias()[..., None]
    np.testing.assert_allclose(given, rows.target, atol=1e-4)


def test_rows_do_not_depend_on_the_batch() -> None:
    dense = convs()
    found = []
    for batch in (1, 3, 50):
        sites = Frontier(dense, dense.clone(), samples(dense), batch=batch)
        found.append([site.sample(60) for site in sites])
    for one, other in ((found[0], found[1]), (found[0], found[2])):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a.x, b.x, atol=1e-5)
            np.testing.assert_allclose(a.target, b.target, atol=1e-5)
            assert a.fitted == b.fitted


def test_what_nothing_changed_is_not_computed_twice() -> None:
    dense = convs()
    thin = dense.clone()
    frontier = Frontier(dense, thin, samples(dense))
    values = held(frontier, "b", "s", "d", "y")
    for site in frontier:
        if site.linear.node.outputs[0].name == "c":
            site.put(site.matrix() * 2, site.bias())
    same = {n: all(a is b for a, b in zip(*values[n], strict=True)) for n in ("b", "s", "d", "y")}
    assert same == {"b": True, "s": True, "d": False, "y": False}


def test_feeds_whose_rows_are_no_samples_are_run_as_they_are() -> None:
    dense = tokens()
    feeds = [{"x": np.random.default_rng(i).standard_normal((1, 3 + i, 4)).astype(np.float32)} for i in range(6)]
    dense.graph.inputs[0].shape = ir.Shape([1, "T", 4])
    thin = dense.clone()
    frontier = Frontier(dense, thin, feeds)
    ends = held(frontier, "y")
    counts = [site.sample(12).x.shape[-1] for site in frontier]
    assert counts == [12, 12, 12]
    for feed, value in zip(feeds, ends["y"][1], strict=True):
        np.testing.assert_allclose(value, outputs(dense, feed), atol=1e-5)


def test_a_model_says_how_many_samples_it_takes() -> None:
    dense = convs()
    dense.graph.inputs[0].shape = ir.Shape([2, 4, 6, 6])
    feeds, sizes = batches(dense, samples(dense, 5))
    assert sizes == [2, 2]
    assert all(len(f["x"]) == 2 for f in feeds)
    with pytest.raises(InputError, match="too few"):
        batches(dense, samples(dense, 1))
    with pytest.raises(InputError, match="too few"):
        batches(convs(), {"x": np.zeros((0, 4, 6, 6), np.float32)})


def test_a_product_whose_weight_is_shared_is_left_alone() -> None:
    dense = model("a = MatMul(x, w) b = Relu(a) y = MatMul(b, w)", {"w": (4, 4)}, x="float[N,4] x")
    assert not list(Frontier(dense, dense.clone(), samples(dense)))


def test_a_bias_that_is_shared_gets_its_own_copy() -> None:
    weights = {"w": (4, 4), "u": (4, 4), "b": (4,)}
    dense = model("a = Gemm(x, w, b) c = Relu(a) y = Gemm(c, u, b)", weights, x="float[N,4] x")
    thin = dense.clone()
    for site in Frontier(dense, thin, samples(dense)):
        site.put(site.matrix(), site.bias() + 1)
    assert len(thin.graph.initializers) == 4
    held = [thin.graph[i].inputs[2].const_value.numpy() for i in (0, 2)]  # type: ignore[union-attr]
    np.testing.assert_allclose(held[0], held[1])
    np.testing.assert_allclose(held[0], dense.graph.initializers["b"].const_value.numpy() + 1)  # type: ignore[union-attr]


def test_bodies_read_values_from_outside() -> None:
    body = """
    a = Gemm(x, w, v)
    b = Relu(a)
    c = If (flag) <
        then_branch = t () => (float[N,4] p) { p = Add(b, x) },
        else_branch = e () => (float[N,4] q) { q = Neg(b) }
    >
    y = Gemm(c, w2, v2)
    """
    text = ", ".join(
        f"float[{s}] {n} = {{{','.join(map(str, range(size)))}}}"
        for n, s, size in (("w", "4,4", 16), ("v", "4", 4), ("w2", "4,4", 16), ("v2", "4", 4))
    )
    dense = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[N,4] x, bool flag) => (float y) <'
        + text
        + "> {"
        + body
        + "}"
    )
    name_keys(dense)
    thin = dense.clone()
    feeds = [{"x": np.full((2, 4), i, np.float32), "flag": np.array(bool(i % 2))} for i in range(4)]
    frontier = Frontier(dense, thin, feeds)
    ends = held(frontier, "y")
    for site in frontier:
        site.put(site.matrix() * 0.5, site.bias())
    for feed, *values in zip(feeds, *ends["y"], strict=True):
        for made, value in zip((dense, thin), values, strict=True):
            np.testing.assert_allclose(value, outputs(made, feed), rtol=1e-5)


def test_values_above_the_limit_lie_on_the_disk_and_free_what_they_took() -> None:
    store = Store(100)
    first, second = (store.hold(np.arange(20, dtype=np.float32)) for _ in range(2))
    assert not isinstance(first, np.memmap)
    assert isinstance(second, np.memmap)
    assert second.tolist() == list(range(20))
    del first
    assert not isinstance(store.hold(np.zeros(25, np.float32)), np.memmap)
    assert store.hold(["a"]) == ["a"]


def test_products_come_as_late_as_they_can() -> None:
    dense = model(
        "a = MatMul(x, w) s = Neg(x) b = Add(a, s) y = MatMul(b, u)", {"w": (4, 4), "u": (4, 4)}, x="float[N,4] x"
    )
    walk = Walk(dense, [samples(dense)], Store(1 << 20))
    assert [[n.outputs[0].name for n in nodes] for nodes in walk.segments] == [["s"], ["a", "b"], ["y"]]
    assert walk.place(key(dense.graph[0])) == 1
    assert walk.place("nobody") is None


def test_nodes_differ_in_operator_attributes_and_constants() -> None:
    one, other = convs(), convs()
    assert not any(differs(a, b) for a, b in zip(one.graph, other.graph, strict=True))
    other.graph[0].attributes["pads"] = ir.AttrInt64s("pads", [0, 0, 0, 0])
    other.graph.initializers["wy"].const_value = ir.tensor(np.zeros((5, 27), np.float32))
    found = [differs(a, b) for a, b in zip(one.graph, other.graph, strict=True)]
    assert found == [True, *[False] * (len(found) - 2), True]
