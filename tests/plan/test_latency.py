from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.analysis.channels import channels as find
from graphopt.graph import values
from graphopt.graph.nodes import name_keys
from graphopt.plan import latency as module
from graphopt.plan.budget import row
from graphopt.plan.latency import Latency, latency
from graphopt.run.machine import Machine
from graphopt.run.session import Session

from .models import samples, stack


def by_size(cases: list[tuple[Session, dict[str, np.ndarray]]], **_: Any) -> list[float]:
    """A clock for which time is the product of inputs and outputs, in channels; 1 of it passes anyway."""
    times = []
    for session, feed in cases:
        (y,) = session.run(feed).values()
        x = next(iter(feed.values()))
        times.append(1.0 + (x.shape[1] * y.shape[1] if x.ndim > 1 else 0))
    return times


def test_products_are_timed_at_several_widths_and_the_rest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "medians", by_size)
    model, channels = stack([4, 16, 8, 2])
    feed = samples(model, 1)
    cost, now = latency(model, channels, values.bound(model, {"x": feed["x"].shape}), feed)
    assert now == 1 + 4 * 2  # the whole, as this clock sees it
    assert cost.tables.shape == (4, 5, 5)
    scale = now / (4 * 16 + 16 * 8 + 8 * 2)  # alone they take more than the whole
    assert np.allclose(cost(row(channels, {})), now)
    assert np.allclose(cost(row(channels, {"p0": 8})), scale * (4 * 8 + 8 * 8 + 8 * 2))
    assert np.allclose(cost(row(channels, {"p0": 6, "p1": 4})), scale * (4 * 6 + 6 * 4 + 4 * 2))


def test_depthwise_products_are_timed_by_their_one_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "medians", by_size)
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[N,4,6,6] x, float[8,4,1,1] a, float[8,1,3,3] d, float[2,8,1,1] c) => (float[N,2,4,4] y) {
            p = Conv(x, a)
            q = Conv<group = 8>(p, d)
            y = Conv(q, c)
        }"""
    )
    for value in list(model.graph.inputs)[1:]:
        model.graph.inputs.remove(value)
        assert value.shape is not None
        value.const_value = ir.tensor(np.ones(value.shape.numpy(), np.float32), name=value.name)
        model.graph.register_initializer(value)
    name_keys(model)
    values.follow(model)
    shape = values.bound(model, {"x": (1, 4, 6, 6)})
    channels = find(model, shape)
    (key,) = channels.groups
    cost, now = latency(model, channels, shape, {"x": np.ones((1, 4, 6, 6), np.float32)})
    assert np.allclose(cost(row(channels, {key: 4})), now / (4 * 8 + 8 * 8 + 8 * 2) * (4 * 4 + 4 * 4 + 4 * 2))


def test_times_never_fall_with_a_width(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0)
    monkeypatch.setattr(module, "medians", lambda cases, **_: noise.random(len(cases)).tolist())
    model, channels = stack([4, 16, 8, 2], "Gemm")
    feed = samples(model, 1)
    cost, _ = latency(model, channels, values.bound(model, {"x": feed["x"].shape}), feed)
    assert np.all(np.diff(cost.tables, axis=1) >= 0)
    assert np.all(np.diff(cost.tables, axis=2) >= 0)
    assert np.all(cost.tables >= 0)


def test_between_widths_times_are_interpolated() -> None:
    table = np.array([[1.0, 2.0], [3.0, 8.0]])[None]
    lines = np.zeros((3, 3, 1))
    lines[0, 1], lines[1, 2], lines[2, 0] = 1 / 10, 1 / 10, 1.0
    cost = Latency(table, np.zeros(1, np.intp), lines, np.array([0.5, 1.0]), rest=7.0)
    plans = np.array([[5, 5], [10, 10], [10, 5], [7.5, 7.5], [1, 1]], np.float64)
    assert np.allclose(cost(plans), 7 + np.array([1, 8, 3, 3.5, 1]))


def test_it_really_times() -> None:
    model, channels = stack([4, 16, 8, 2])
    feed = samples(model, 1)
    cost, now = latency(
        model, channels, values.bound(model, {"x": feed["x"].shape}), feed, Machine(threads=1), seconds=0.01
    )
    full = cost(row(channels, {}))[0]
    assert 0 < cost(row(channels, {"p0": 2, "p1": 2}))[0] <= full
    assert now > 0
