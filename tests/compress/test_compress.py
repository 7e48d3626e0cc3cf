from __future__ import annotations

from typing import Any, get_args

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from graphopt.analysis.channels import channels
from graphopt.analysis.groups import Channels
from graphopt.compress.axis import Importance
from graphopt.compress.compress import compress, kept
from graphopt.compress.cut import cut
from graphopt.compress.order import orders
from graphopt.graph import values
from graphopt.graph.carry import Carried
from graphopt.graph.save import serialize
from graphopt.run.machine import Machine
from graphopt.run.session import Session
from tests.support.models import source

Array = NDArray[Any]


def residual(redundant: int = 0) -> tuple[ir.Model, Channels]:
    """A residual block, a depthwise convolution and a head; of the block's 12 inner channels some are copies."""
    random = np.random.default_rng(0)
    inner = random.standard_normal((12, 4, 3, 3)) / 6
    bias = random.standard_normal(12)
    inner[12 - redundant :], bias[12 - redundant :] = inner[:redundant], bias[:redundant]
    arrays = {
        "wa": inner,
        "ba": bias,
        "wb": random.standard_normal((4, 12, 3, 3)) / 10,
        "bb": random.standard_normal(4),
        "we": random.standard_normal((10, 4, 1, 1)) / 2,
        "be": random.standard_normal(10),
        "wd": random.standard_normal((10, 1, 3, 3)) / 3,
        "bd": random.standard_normal(10),
        "wy": random.standard_normal((3, 10)),
        "by": random.standard_normal(3),
    }
    declared = ", ".join(
        f"float[{','.join(map(str, a.shape))}] {n} = {{{','.join(f'{v:.5f}' for v in a.ravel())}}}"
        for n, a in arrays.items()
    )
    model = source(
        f"""<ir_version: 10, opset_import: ["" : 21]> g (float[N,4,6,6] x) => (float[N,3] y) <{declared}> {{
            a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, wa, ba)
            ra = Relu(a)
            b = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(ra, wb, bb)
            s = Add(b, x)
            rs = Relu(s)
            e = Conv(rs, we, be)
            re = Relu(e)
            d = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=10>(re, wd, bd)
            rd = Relu(d)
            p = GlobalAveragePool(rd)
            f = Flatten(p)
            y = Gemm<transB=1>(f, wy, by)
        }}"""
    ).model
    return model, channels(model, values.bound(model, {"x": (2, 4, 6, 6)}), samples=2)


def data(count: int = 200, seed: int = 1) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).standard_normal((count, 4, 6, 6)).astype(np.float32)}


def run(model: ir.Model, feed: dict[str, Array]) -> Array:
    found: Array = Session(serialize(model, Carried())).run(feed)["y"]
    return found


def error(model: ir.Model, thin: ir.Model) -> float:
    fresh = data(seed=2)
    expected = run(model, fresh)
    return float(np.mean((run(thin, fresh) - expected) ** 2) / np.var(expected))


def test_channels_that_others_can_stand_in_for_go_for_free() -> None:
    model, found = residual(redundant=5)
    (group,) = (k for k, g in found.groups.items() if g.units == 12)
    curves = orders(model, found, data())
    assert curves[group].error[7] < 2e-3 * curves[group].error[0]
    assert curves[group].error[6] > 3 * curves[group].error[7]
    keep = kept(found, {k: c.order for k, c in curves.items()}, {group: 7})
    result = compress(model, found, keep, data())
    assert error(model, result.model) < 0.05 * error(model, cut(model, found, keep))
    assert {r.key for r in result.refits} >= {"Conv_0", "Conv_2"}


def test_refitting_pays_and_is_told() -> None:
    model, found = residual()
    widths = {k: g.units * 2 // 3 for k, g in found.groups.items()}
    keep = kept(found, {k: c.order for k, c in orders(model, found, data()).items()}, widths)
    assert {k: int(m.sum()) for k, m in keep.items()} == {k: w for k, w in widths.items() if k in keep}
    told: list[str] = []
    result = compress(model, found, keep, data(), Machine(progress=told.append))
    assert error(model, result.model) < 0.5 * error(model, cut(model, found, keep))
    assert told == [f"refitting {r.key}" for r in result.refits]
    for r in result.refits:
        assert r.after <= r.before
        assert r.form == "primal"
        assert r.rows >= 200


def test_nothing_cut_is_nothing_changed() -> None:
    model, found = residual()
    result = compress(model, found, {}, data())
    assert not result.refits
    assert serialize(result.model, Carried()) == serialize(model, Carried())


def test_the_model_that_was_given_stays() -> None:
    model, found = residual()
    before = serialize(model, Carried())
    keep = {k: np.arange(g.units) % 2 == 0 for k, g in found.groups.items()}
    result = compress(model, found, keep, data())
    assert serialize(model, Carried()) == before
    again = compress(model, found, keep, data())
    assert serialize(result.model, Carried()) == serialize(again.model, Carried())


def test_little_memory_is_enough() -> None:
    model, found = residual()
    keep = {k: np.arange(g.units) % 3 > 0 for k, g in found.groups.items()}
    ample, scarce = (compress(model, found, keep, data(), Machine(memory=m)) for m in (1 << 30, 1 << 16))
    assert all(r.rows < s.rows or s.rows == 200 for r, s in zip(scarce.refits, ample.refits, strict=True))
    assert error(model, scarce.model) < 2 * error(model, ample.model)


@pytest.mark.parametrize("importance", get_args(Importance))
def test_every_importance_gives_an_order_and_its_curve(importance: Any) -> None:
    model, found = residual(redundant=3)
    curves = orders(model, found, data(), importance=importance)
    best = orders(model, found, data())
    assert curves.keys() == best.keys()
    assert curves
    for name, curve in curves.items():
        units = found.groups[name].units
        assert sorted(curve.order.tolist()) == list(range(units))
        assert len(curve.error) == units + 1
        assert curve.error[-1] == 0
        assert np.all(np.diff(curve.error) <= 1e-9)
        assert curve.error.sum() >= best[name].error.sum() * 0.99


def test_values_that_are_not_finite_teach_nothing() -> None:
    model, found = residual()
    feed = data()
    feed["x"][3] = np.nan
    keep = {k: np.arange(g.units) % 2 == 0 for k, g in found.groups.items()}
    result = compress(model, found, keep, feed)
    assert {r.form for r in result.refits} == {"its values are not finite"}
