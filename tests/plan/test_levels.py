from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.analysis.channels import channels as find
from graphopt.analysis.groups import Channels, Group, Widths
from graphopt.analysis.moments import Moment, collect, products
from graphopt.analysis.segments import batches
from graphopt.compress.compress import kept, orders
from graphopt.compress.cut import cut
from graphopt.graph import values
from graphopt.graph.carry import Carried
from graphopt.graph.save import serialize
from graphopt.plan import levels
from graphopt.plan.distance import Distance
from graphopt.plan.levels import LossCurve, candidates, measure
from graphopt.plan.variants import Variants
from graphopt.run.session import Session

from .models import counted, samples, stack

Moments = dict[tuple[str, int], Moment]


def known(model: ir.Model, channels: Channels, count: int = 200) -> tuple[Moments, dict[str, np.ndarray]]:
    found = collect(model, [r for g in channels.groups.values() for r in g.readers], samples(model, count))
    return found, {k: c.order for k, c in orders(model, channels, samples(model, count)).items()}


def outputs(model: ir.Model, feed: dict[str, Any]) -> dict[str, Any]:
    return Session(serialize(model, Carried())).run(feed)


@pytest.mark.parametrize(
    ("units", "multiple", "step", "expected"),
    [
        (64, 1, 8, tuple(range(8, 65, 8))),
        (16, 1, 8, tuple(range(2, 17, 2))),
        (6, 1, 8, (1, 2, 3, 4, 5, 6)),
        (50, 1, 8, (*range(4, 49, 4), 50)),
        (64, 16, 8, (16, 32, 48, 64)),
        (96, 1, 32, tuple(range(8, 97, 8))),
        (1, 1, 8, (1,)),
    ],
)
def test_candidates_are_multiples_and_all_units(
    units: int, multiple: int, step: int, expected: tuple[int, ...]
) -> None:
    assert candidates(Group("g", units, "channel", (), (), multiple), step) == expected


def test_a_curve_never_falls_and_is_a_power_between_what_was_measured() -> None:
    curve = LossCurve.through({16: 0.0, 12: 0.04, 8: 0.16, 4: 0.1})
    assert curve.losses == (0.0, 0.04, 0.16, 0.16)
    assert curve(10) == pytest.approx(0.04 * (6 / 4) ** 2)
    assert curve(14) == pytest.approx(0.01)  # as from 12 to 8: with the square of what is cut
    assert curve(16) == 0
    assert curve(6) == pytest.approx(0.16)
    losses = [curve(w) for w in np.linspace(4, 16, 40)]
    assert np.all(np.diff(losses) <= 1e-12)
    with pytest.raises(ValueError, match="width 3 is outside of what was measured, 4 to 16"):
        curve(3)


def test_a_curve_through_nothing_but_zeros_is_flat() -> None:
    curve = LossCurve.through({16: 0.0, 8: 0.0, 4: 0.0})
    assert 0 <= curve(10) < 1e-9


@pytest.mark.parametrize("op", ["Conv", "Gemm", "MatMul"])
def test_the_model_at_a_point_is_the_model_cut_to_it(op: str) -> None:
    model, channels = stack([3, 8, 8, 4], op)
    moments, order = known(model, channels)
    feed = samples(model, 9, seed=5)
    dense = Variants(model, channels, order, moments, {})
    assert np.allclose(outputs(dense.base, feed)["y"], outputs(model, feed)["y"], atol=1e-5)
    point = Variants(model, channels, order, moments, {"p0": 5, "p1": 2})
    found = outputs(point.base, feed)["y"]
    values, linears = feed["x"], products(point.base)
    for index in range(3):  # the same by hand: what is cut does not matter
        linear = linears[f"p{index}", 0]
        (weight, bias) = (linear.weights, linear.bias_vector())
        key = f"p{index - 1}"
        if index:
            stays = kept(channels, order, {"p0": 5, "p1": 2})[key]
            assert stays.sum() == {"p0": 5, "p1": 2}[key]
            axis = linear.w_in
            assert not np.compress(~stays, weight, axis=axis).any()
            values = np.where(stays.reshape(-1, *[1] * (values.ndim - 2)), values, 1e3).astype(np.float32)
        assert weight.dtype == np.float32
        assert bias.dtype == np.float32
        if op == "MatMul":
            values = values @ weight
            if index:
                added = [v for n, v in point.base.graph.initializers.items() if n == f"p{index}#0/bias"]
                values = values + added[0].const_value.numpy()  # type: ignore[union-attr]
        else:
            made = linear.matrix() @ linear.unfold(values) + bias.reshape(1, -1, 1)
            made = made[0].reshape(len(bias), len(values), *values.shape[2:]) if op == "Conv" else made[0].T
            values = np.moveaxis(made, 0, 1) if op == "Conv" else made
        values = np.maximum(values, 0) if index < 2 else values
    assert np.allclose(values.mean(axis=(2, 3)) if op == "Conv" else values, found, atol=1e-3)
    assert model.graph.initializers.keys() == {n for n in model.graph.initializers if "#" not in n}  # untouched


@pytest.mark.parametrize("op", ["Conv", "MatMul"])
def test_losses_are_those_of_the_variants(op: str) -> None:
    model, channels = stack([3, 8, 8, 4], op)
    moments, order = known(model, channels)
    feeds, _ = batches(model, samples(model, 40, seed=5), 16)
    curves = measure(model, channels, order, moments, feeds)
    assert list(curves) == ["p0", "p1"]
    distance = Distance([outputs(model, feed) for feed in feeds])
    for key, curve in curves.items():
        assert curve.widths == (8, 6, 4, 2, 1)
        assert curve.losses[0] == 0
        direct = [
            distance(outputs(Variants(model, channels, order, moments, {key: w}).base, f) for f in feeds)
            for w in curve.widths[1:]
        ]
        assert np.allclose(curve.losses[1:], np.maximum.accumulate(direct), rtol=1e-3, atol=1e-7)


def test_little_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, channels = stack([3, 8, 8, 8, 4])
    moments, order = known(model, channels)
    feeds, _ = batches(model, samples(model, 24, seed=5), 10)
    runs = counted(monkeypatch, levels._Keeper, "_values")
    whole = measure(model, channels, order, moments, feeds)
    assert len(runs) == 2
    bit_by_bit = measure(model, channels, order, moments, feeds, memory=1)
    assert len(runs) == 2 + 4
    assert whole == bit_by_bit


def test_groups_whose_readers_have_no_weight_are_measured_by_cutting() -> None:
    model, _ = stack([3, 8, 8, 4])
    channels = find(model, values.bound(model, {"x": (2, 3, 6, 6)}))
    moments, order = known(model, channels)
    key, other = list(channels.groups)
    (reader,) = channels.groups[key].readers
    del moments[reader]
    feeds, _ = batches(model, samples(model, 24, seed=5))
    assert set(measure(model, channels, order, moments, feeds)) == {other}

    def make(widths: Widths) -> ir.Model:
        return cut(model, channels, kept(channels, order, widths))

    found = measure(model, channels, order, moments, feeds, make=make)
    assert list(found) == [key, other]
    assert found[key].losses[-1] > found[key].losses[0] == pytest.approx(0, abs=1e-6)
