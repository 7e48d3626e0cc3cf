from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from graphopt.analysis.channels import channels
from graphopt.analysis.groups import Channels
from graphopt.compress.compress import Compressed, compress, kept
from graphopt.compress.cut import cut
from graphopt.compress.order import orders
from graphopt.graph import values
from graphopt.graph.carry import Carried
from graphopt.graph.save import serialize
from graphopt.run.session import Feed, Session
from tests.support.models import source
from tests.support.recurrent import CELLS, COPIES, UNITS, Cell, declared, layer

Array = NDArray[Any]


def built(cell: Cell) -> tuple[ir.Model, Channels, list[Feed]]:
    model, feed = layer(cell, "z")
    found = channels(model, values.bound(model, {name: v.shape for name, v in feed.items()}), samples=1)
    return model, found, [feed, *(layer(cell, "z", seed)[1] for seed in range(1, 8))]


def error(model: ir.Model, thin: ir.Model, feed: Feed) -> float:
    expected, found = (Session(serialize(m, Carried())).run(feed)["z"] for m in (model, thin))
    return float(np.mean((found - expected) ** 2) / np.var(expected))


def copies(group: str) -> dict[str, NDArray[np.bool_]]:
    return {group: np.arange(UNITS) < UNITS - COPIES}


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_others_do_what_their_copies_did(cell: Cell) -> None:
    """Nothing is lost with a unit that is a copy of another one, once R reads that for both."""
    model, found, feeds = built(cell)
    (group,) = found.groups
    keep = copies(group)
    made = compress(model, found, keep, feeds)
    fresh = layer(cell, "z", seed=100)[1]
    assert error(model, cut(model, found, keep), fresh) > 1e-2
    assert error(model, made.model, fresh) < 1e-5
    first = made.refits[0]
    assert first.damping is not None
    assert first.before > 1e-3
    assert first.after < 1e-5


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_copies_go_first(cell: Cell) -> None:
    model, found, feeds = built(cell)
    ((key, curve),) = orders(model, found, feeds).items()
    assert not curve.partial
    assert found.groups[key].units == UNITS
    assert {unit % (UNITS - COPIES) for unit in curve.order[:COPIES].tolist()} == set(range(COPIES))
    assert curve.error[UNITS - COPIES] < 0.2 * curve.error[UNITS - COPIES - 1]
    assert 0 < curve.held[2] < curve.held[1]


@pytest.mark.parametrize("cell", [Cell("RNN"), Cell("GRU"), Cell("LSTM", "bidirectional")], ids=str)
def test_what_is_lost_is_mostly_made_up_for(cell: Cell) -> None:
    model, found, feeds = built(cell)
    curves = orders(model, found, feeds)
    keep = kept(found, {k: c.order for k, c in curves.items()}, dict.fromkeys(found.groups, UNITS // 2))
    fresh = layer(cell, "z", seed=100)[1]
    made = compress(model, found, keep, feeds)
    assert error(model, made.model, fresh) < 0.5 * error(model, cut(model, found, keep), fresh)
    assert made.refits[0].after < made.refits[0].before


def test_a_layer_behind_is_fitted_to_what_it_then_reads() -> None:
    """The second layer, of which only the last states are read, keeps its units; samples are the first axis of x."""
    random = np.random.default_rng(0)
    shapes = {"w": (2, 24, 3), "r": (2, 24, 6), "b": (2, 48), "v": (1, 15, 12), "s": (1, 15, 5), "m": (5, 2)}
    arrays = {name: random.standard_normal(shape) / 2 for name, shape in shapes.items()}
    model = source(
        f"""g (float[N,4,3] x) => (float[N,2] z) <{declared(arrays)},
        int64[3] flat = {{4, -1, 12}}, int64[1] first = {{0}}> {{
            t = Transpose<perm = [1, 0, 2]>(x)
            y = LSTM<hidden_size = 6, direction = "bidirectional">(t, w, r, b)
            u = Transpose<perm = [0, 2, 1, 3]>(y)
            f = Reshape(u, flat)
            , h = GRU<hidden_size = 5>(f, v, s)
            e = Squeeze(h, first)
            z = MatMul(e, m) }}"""
    ).model
    feed = {"x": random.standard_normal((400, 4, 3)).astype(np.float32)}
    found = channels(model, values.bound(model, {"x": feed["x"].shape}), samples=400)
    (key, *_) = found.groups
    order = orders(model, found, feed)[key].order
    keep = kept(found, {key: order}, {key: 4})
    made, fresh = compress(model, found, keep, feed), {"x": random.standard_normal((50, 4, 3)).astype(np.float32)}
    first, second, _ = made.refits
    assert first.after < 0.5 * first.before
    assert second.after < 0.5 * second.before
    assert error(model, made.model, fresh) < 0.5 * error(model, cut(model, found, keep), fresh)
    assert made.model.graph.initializers["s"].shape == ir.Shape([1, 15, 5])


def reason(made: Compressed) -> str:
    first = made.refits[0]
    assert (first.rows, first.damping) == (0, None)
    return first.form


@pytest.mark.parametrize("attributes", [', activations = ["HardSigmoid", "Tanh"]', ", clip = 3.0"])
def test_what_has_another_form_stays_as_it_is(attributes: str) -> None:
    model, found, feeds = built(Cell("GRU", attributes=attributes))
    (group,) = found.groups
    made, thin = compress(model, found, copies(group), feeds), cut(model, found, copies(group))
    assert reason(made) == "its gates are not plain products with constant weights of its own"
    for name in ("w", "r", "b"):
        mine, other = (m.graph.initializers[name].const_value for m in (made.model, thin))
        assert mine is not None
        assert other is not None
        np.testing.assert_array_equal(mine.numpy(), other.numpy())
    assert orders(model, found, feeds)[group].partial


def test_what_is_not_finite_stays_as_it_is() -> None:
    model, found, feeds = built(Cell("RNN"))
    feeds[1]["x"][0, 0, 0] = np.nan
    assert reason(compress(model, found, copies(next(iter(found.groups))), feeds)) == "its values are not finite"
