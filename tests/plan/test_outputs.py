from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from graphopt.analysis.channels import channels as find
from graphopt.analysis.groups import Channels
from graphopt.analysis.segments import batches
from graphopt.compress.compress import kept
from graphopt.compress.cut import cut
from graphopt.compress.order import orders
from graphopt.graph import values
from graphopt.graph.carry import Carried
from graphopt.graph.save import serialize
from graphopt.plan.outputs import _distance, alone, measure
from graphopt.run.machine import Machine
from graphopt.run.session import Session

from .models import samples, stack

Orders = dict[str, NDArray[np.int64]]


@pytest.fixture(scope="module")
def known() -> tuple[ir.Model, Channels, Orders]:
    model, _ = stack([3, 16, 16, 4])
    channels = find(model, values.bound(model, {"x": (2, 3, 6, 6)}))
    return model, channels, {k: c.order for k, c in orders(model, channels, samples(model, 100)).items()}


def outputs(model: ir.Model, feed: dict[str, Any]) -> NDArray[Any]:
    return np.asarray(Session(serialize(model, Carried())).run(feed)["y"])


def test_a_loss_is_that_of_cutting_this_group_alone(known: tuple[ir.Model, Channels, Orders]) -> None:
    model, channels, order = known
    feed, told = samples(model, 24, seed=5), list[str]()
    feeds, _ = batches(model, feed, 10)
    found = measure(model, channels, order, list(order), feeds, Machine(progress=told.append))
    assert told == [f"measuring the loss of {key}" for key in order]
    dense = outputs(model, feed)
    for key, losses in found.items():
        assert list(losses) == [12, 8, 4, 2]
        assert losses[2] > losses[12]
        for width, loss in losses.items():
            thin = outputs(cut(model, channels, kept(channels, order, {key: width})), feed)
            assert loss == pytest.approx(np.sum((thin - dense) ** 2) / np.sum((dense - dense.mean()) ** 2), rel=1e-4)


def test_each_unit_alone_is_told_by_masking_it(known: tuple[ir.Model, Channels, Orders]) -> None:
    model, channels, order = known
    feed = samples(model, 24, seed=5)
    feeds, _ = batches(model, feed, 10)
    key = next(iter(order))
    found = alone(model, channels, key, feeds)
    dense = outputs(model, feed)
    assert found.shape == (16,)
    for unit in (0, 7):
        keep = {key: np.arange(16) != unit}
        error = np.sum((outputs(cut(model, channels, keep), feed) - dense) ** 2)
        assert found[unit] == pytest.approx(error / np.sum((dense - dense.mean()) ** 2), rel=1e-4)


def test_numbers_count_where_there_are_no_floats() -> None:
    first, second = np.array([3, 5, 5, 7]), np.array([3, 4, 5, 7])
    dense, thin = {"best": first}, {"best": second}
    assert _distance([dense], [thin]) == 1 / 8
    assert _distance([dense | {"y": first * 0.5}], [thin | {"y": first * 0.5}]) == 0


def test_what_is_not_finite_in_the_dense_model_does_not_count() -> None:
    dense, thin = [{"y": np.array([0.0, 2.0, np.inf])}], [{"y": np.array([0.0, 1.0, 3.0])}]
    assert _distance(dense, thin) == 1 / 2
    assert _distance(thin, dense) == np.inf
