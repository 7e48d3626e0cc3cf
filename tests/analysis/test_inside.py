from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis import inside, moments
from graphopt.analysis.calibration import observe
from graphopt.analysis.histogram import Histogram
from graphopt.analysis.moments import Key, Moment, collect, products
from graphopt.run.cuda import cuda_works
from graphopt.run.machine import Machine
from graphopt.run.session import Session
from tests.analysis.test_calibration import same
from tests.plan.models import counted
from tests.support.models import source

CUDA, WHY = cuda_works()

WEIGHTS = {
    "a": (4, 4, 3, 3),
    "b": (4, 4, 3, 2),
    "c": (6, 2, 3, 3),
    "d": (8, 1, 2, 3),
    "e": (4, 4, 1, 1),
    "f": (4, 3, 2, 2),
    "h": (4, 6),
    "i": (5, 4),
    "j": (4, 3),
    "k": (3, 4),
}
PRODUCTS = """
    r = Relu(x)
    z0 = Conv<pads = [1, 1, 1, 1]>(r, a)
    y0 = Add(z0, r)
    y1 = Conv<strides = [2, 1], dilations = [1, 2], pads = [2, 0, 1, 3]>(r, b)
    y2 = Conv<group = 2, auto_pad = "SAME_UPPER", strides = [2, 2]>(x, c)
    y3 = Conv<group = 4, auto_pad = "SAME_LOWER">(r, d)
    y4 = Conv<auto_pad = "VALID">(r, e)
    y5 = ConvTranspose<strides = [2, 1], pads = [1, 0, 0, 1], output_padding = [1, 0]>(r, a)
    y6 = ConvTranspose<group = 2, strides = [3, 2], dilations = [2, 1]>(r, f)
    t = Transpose<perm = [0, 2, 3, 1]>(r)
    z7 = MatMul(t, j)
    y7 = MatMul(z7, k)
    p = ReduceMean<axes = [2, 3], keepdims = 0>(r)
    y8 = Gemm<alpha = 0.5>(p, h)
    y9 = Gemm<transB = 1>(p, i)
    y10 = MatMul(p, j)
"""
"""Each unfolds in a way of its own, of images of any size."""


def constant(name: str, shape: tuple[int, ...]) -> str:
    values = np.random.default_rng(len(name)).standard_normal(shape).reshape(-1)
    return f"float[{','.join(map(str, shape))}] {name} = {{{', '.join(f'{v:.3f}' for v in values)}}}"


def net() -> ir.Model:
    outputs = ", ".join(f"float[] y{i}" for i in range(11))
    weights = ", ".join(constant(n, s) for n, s in WEIGHTS.items())
    head = '<ir_version: 8, opset_import: ["" : 13]> g (float[N,4,H,W] x)'
    return source(f"{head} => ({outputs}) <{weights}> {{ {PRODUCTS} }}").model


def images(count: int, height: int = 7, width: int = 6) -> dict[str, Any]:
    return {"x": np.random.default_rng(count).standard_normal((count, 4, height, width)).astype(np.float32)}


def learned(model: ir.Model, given: Any, machine: Machine) -> dict[Key, Moment]:
    return dict(collect(model, products(model), given, machine))


def assert_close(found: NDArray[Any], expected: NDArray[Any], tolerance: float) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def assert_alike(found: dict[Key, Moment], expected: dict[Key, Moment], tolerance: float = 1e-12) -> None:
    assert list(found) == list(expected)
    for name, moment in found.items():
        usual = expected[name]
        assert (moment.kind, moment.rows) == (usual.kind, usual.rows)
        assert_close(moment.mean, usual.mean, tolerance)
        assert_close(moment.gram, usual.gram, tolerance)
        assert moment.variance == pytest.approx(usual.variance, rel=max(tolerance, 1e-9))


def test_every_operator_with_a_product_is_here() -> None:
    none = next(f.default for f in fields(ops.OpSpec) if f.name == "linears")
    known = {op for (_, op), spec in ops.TABLE.items() if spec.linears is not none}
    assert {node.op_type for node in net().graph if ops.linears(node)} == known


@pytest.mark.parametrize("few", ["", "of the positions"])
@pytest.mark.parametrize(
    ("given", "memory", "kinds"),
    [
        (images(13), 1 << 30, {"full"}),
        ([images(n, 5 + n, 9 - n) for n in (1, 3, 2)], 1 << 30, {"full", "rows"}),
        (images(13), 100, {"diagonal"}),
    ],
)
def test_moments_are_those_of_the_cpu(
    few: str, given: Any, memory: int, kinds: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if few:
        monkeypatch.setattr(moments, "_FEWEST_ROWS", 0)
        monkeypatch.setattr(moments, "ROWS", 1)
    model, machine = net(), Machine(memory=memory)
    usual = learned(model, given, machine)
    here = counted(monkeypatch, moments._Here, "add")
    monkeypatch.setattr(Session, "remote", True)  # the CPU counts as a device from which nothing is to be read
    found = learned(model, given, machine)
    assert not here
    assert_alike(found, usual)
    assert {m.kind for m in found.values()} == kinds


def test_many_columns_are_summed_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "_SINGLE", 5)
    usual = learned(net(), images(13), Machine())
    monkeypatch.setattr(Session, "remote", True)
    found = learned(net(), images(13), Machine())
    assert {m.gram.dtype for m in found.values()} == {np.dtype(np.float32), np.dtype(np.float64)}
    assert_alike(found, usual, 1e-5)


VALUES = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,M] x) => (float[] y)
    <float[2] c = {-1.0, 5.0}, float[1] wide = {1.0e30}, float[1] thin = {1.0e-42}, int64[1] flat = {-1}> {
    r = Relu(x)
    t = Transpose(x)
    m = Reshape(x, flat)
    k = Mul(c, c)
    s = ReduceMax<keepdims = 0>(x)
    w = Mul(x, wide)
    n = Mul(x, thin)
    l = Log(x)
    d = Cast<to = 11>(x)
    h = Cast<to = 10>(w)
    b = Cast<to = 16>(x)
    i = Cast<to = 7>(w)
    u = Cast<to = 2>(r)
    o = Cast<to = 9>(r)
    y = Neg(x)
}"""
"""Of many types and magnitudes, with samples along many axes, denormal, infinite or not a number."""


def numbers(*shapes: tuple[int, int]) -> list[NDArray[Any]]:
    return [np.random.default_rng(0).standard_normal(shape).astype(np.float32) for shape in shapes]


def observed(samples: Any, machine: Machine) -> dict[str, Histogram]:
    model = source(VALUES).model
    return observe(model, ["x", *(str(v.name) for node in model.graph for v in node.outputs)], samples, machine)


@pytest.mark.parametrize(
    "given", [{"x": numbers((70, 5))[0]}, [{"x": x} for x in numbers((2, 4), (3, 2), (2, 9))]], ids=["rows", "feeds"]
)
def test_histograms_are_those_of_the_cpu(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = observed(given, Machine())
    monkeypatch.setattr(Session, "remote", True)
    whole, back = counted(monkeypatch, inside.Tap, "__call__"), counted(monkeypatch, inside.Inside, "read")
    found = observed(given, Machine())
    assert [name for name in found if not same(found[name], usual[name])] == []
    assert {n for n, h in found.items() if h.nans + h.above + h.below} == {"l", "h"}
    assert (len(whole), len(back)) == (1, 2 * 3)  # to see shapes; and those two in each of three runs


@pytest.mark.cuda
@pytest.mark.skipif(not CUDA, reason=WHY)
def test_a_gpu_sums_up_what_it_would_give_back(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, sessions, make = Machine(device="cuda"), list[Session](), Machine.session

    def kept(self: Machine, model: Any, **options: Any) -> Session:
        made = make(self, model, **options)
        if isinstance(model, ir.Model) and model.graph.name == "inside":
            sessions.append(made)
        return made

    monkeypatch.setattr(Machine, "session", kept)
    given = {"x": numbers((70, 5))[0]}
    found, histograms = learned(net(), images(13), machine), observed(given, machine)
    assert len(sessions) > 3
    assert [s.placement.elsewhere for s in sessions if s.placement.elsewhere] == []
    monkeypatch.setattr(Session, "remote", False)
    assert_alike(found, learned(net(), images(13), machine), 1e-5)  # convolutions may be computed in another way
    usual = observed(given, machine)
    assert [name for name in usual if not same(histograms[name], usual[name])] == []
