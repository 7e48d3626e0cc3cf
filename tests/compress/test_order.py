from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphopt.analysis.groups import Port, Product
from graphopt.analysis.moments import products
from graphopt.analysis.segments import folded
from graphopt.compress.order import gathered, orders
from graphopt.graph.carry import Carried
from graphopt.graph.parts import part
from graphopt.graph.save import runnable
from graphopt.run.machine import Machine, news
from graphopt.run.session import Feed, Session
from tests.plan.models import samples, stack

from .test_compress import data, residual


def parts() -> tuple[Feed, Feed]:
    fitted, held = folded(data())
    assert isinstance(fitted, dict)
    assert isinstance(held, dict)
    return fitted, held


def test_readers_are_what_products_read_relative_to_what_results_vary() -> None:
    model, channels = residual()
    inner = next(k for k, g in channels.groups.items() if g.units == 12)
    ((group, (reader,)),) = gathered(model, channels, [inner], data())
    assert group.key == inner
    fitted, held = parts()
    ran = Session(runnable(part(model, ["x"], ["ra", "s"]), Carried())).run(fitted)
    linear = next(linear for linear in products(model).values() if linear.in_channels == 12)
    x = linear.unfold(np.asarray(ran["ra"])).astype(np.float64)[0]
    assert np.array_equal(reader.matrix, linear.matrix()[0])
    assert np.allclose(reader.gram, x @ x.T / x.shape[1], atol=1e-5)
    assert np.allclose(reader.mean, x.mean(axis=1), atol=1e-6)
    assert np.array_equal(reader.unit, np.arange(12).repeat(9))
    assert reader.gain == pytest.approx(1 / np.asarray(ran["s"]).var(axis=(0, 2, 3), dtype=np.float64).sum(), rel=1e-4)
    assert reader.held is not None
    y = linear.unfold(np.asarray(Session(runnable(part(model, ["x"], ["ra"]), Carried())).run(held)["ra"]))
    assert np.allclose(reader.held.gram, y[0].astype(np.float64) @ y[0].T / y.shape[2], atol=1e-5)


def test_what_is_lost_without_refit_is_what_masking_changes() -> None:
    model, channels = residual()
    inner = next(k for k, g in channels.groups.items() if g.units == 12)
    ((_, (reader,)),) = gathered(model, channels, [inner], data())
    fitted, _ = parts()
    ran = np.asarray(Session(runnable(part(model, ["x"], ["ra"]), Carried())).run(fitted)["ra"])
    second = next(iter(model.graph.initializers["wb"].uses())).node
    gone = np.array([2, 7, 8])
    masked = ran.copy()
    masked[:, gone] = 0
    tail = part(model, ["ra"], [str(second.outputs[0].name)])
    run = Session(runnable(tail, Carried())).run
    (whole,), (less,) = (list(run({"ra": x}).values()) for x in (ran, masked))
    change = np.mean(np.sum((np.asarray(whole, np.float64) - less) ** 2, axis=1))
    assert reader.without(gone) == pytest.approx(reader.gain * change, rel=1e-4)


def test_little_memory_gives_the_same_order_in_more_passes() -> None:
    model, channels = stack([3, 12, 12, 4])
    told: list[str] = []
    ample = orders(model, channels, samples(model, 100))
    scarce = orders(model, channels, samples(model, 100), Machine(memory=380_000, progress=news(told.append)))
    assert [t.split()[0] for t in told] == ["summing", "ordering"] * 2
    for key, found in ample.items():
        assert np.array_equal(found.order, scarce[key].order)
        assert np.allclose(found.error, scarce[key].error)


def test_where_no_plain_product_reads_weights_that_write_say_what_goes_first() -> None:
    model, channels = residual()
    inner = next(k for k, g in channels.groups.items() if g.units == 12)
    group = channels.groups[inner]
    (old,) = group.readers
    strange = (old[0], -1)
    product = channels.products[old]
    nothing = Port((), np.full(4, -1), np.full(4, -1))
    other = replace(
        channels,
        groups={inner: replace(group, readers=(strange,))},
        products={**channels.products, strange: Product(old[0], -1, 1, 0, product.source, nothing)},
    )
    found = orders(model, other, data())[inner]
    weights = model.graph.initializers["wa"].const_value
    assert weights is not None
    norms = (weights.numpy() ** 2).sum(axis=(1, 2, 3))
    assert np.array_equal(found.order, np.argsort(norms))
    assert not found.error.any()


def test_values_that_are_not_finite_say_nothing() -> None:
    model, channels = residual()
    feed = data()
    feed["x"][3] = np.nan
    assert not orders(model, channels, feed)


def test_where_memory_does_for_nothing_but_the_diagonal_that_is_said() -> None:
    model, channels = stack([3, 12, 12, 4])
    found = orders(model, channels, samples(model, 100), Machine(memory=2_000))
    assert all(c.rough for c in found.values())
    assert not any(c.rough for c in orders(model, channels, samples(model, 100)).values())
