from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphopt.analysis.groups import Channels, Group, Port, Product
from graphopt.errors import UsageError
from graphopt.plan.budget import amounts, drops, excess, limits, macs, row, shares

from .chain import chain, port


def test_budgets_are_mappings_or_words() -> None:
    assert shares({"macs": 0.5, "params": 0.35}) == {"macs": 0.5, "params": 0.35}
    assert shares(["bytes=0.25", "latency=.7"]) == {"bytes": 0.25, "latency": 0.7}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"flops": 0.5}, "there is no budget 'flops': give one of macs, params, bytes, latency"),
        ({"macs": 1.0}, "the budget macs=1 is no share: give a number above 0 and below 1"),
        ({"macs": 0.0}, "the budget macs=0 is no share"),
        (["macs"], "budget 'macs' has no value: write macs=0.5"),
        (["macs=half"], "budget macs=half has no number"),
        ({"macs": float("nan")}, "budget macs=nan has no finite number"),
        (["macs=0.5", "macs=0.6"], "budget macs is given twice"),
        ({}, "budget is empty: write macs=0.5"),
        (0.5, "budget is 0.5: name what it is of, as in macs=0.5"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused_in_one_sentence(given: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        shares(given)
    assert words in str(caught.value)
    assert not str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"accuracy": -0.1}, "max_drop accuracy=-0.1 is no drop: give a number of at least 0"),
        ({"agreement": 1.0}, "max_drop agreement=1 allows anything"),
        ({"my metric": 0.1}, "'my metric' is no metric: give accuracy, f1"),
        (["f1"], "max_drop 'f1' has no value: write accuracy=0.002"),
    ],
)
def test_a_drop_that_makes_no_sense_is_refused_in_one_sentence(given: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        drops(given)
    assert words in str(caught.value)


def test_drops_may_be_those_of_own_metrics() -> None:
    assert drops({"mine": 3.0, "sqnr": 30}) == {"mine": 3.0, "sqnr": 30.0}


@pytest.mark.parametrize(
    ("metrics", "allowed", "used"),
    [
        ({"accuracy": (0.9, 0.89)}, {"accuracy": 0.02}, 0.5),
        ({"accuracy": (0.9, 0.95)}, {"accuracy": 0.02}, 0.0),
        ({"accuracy": (0.9, 0.9)}, {"accuracy": 0.0}, 0.0),
        ({"accuracy": (0.9, 0.8)}, {"accuracy": 0.0}, float("inf")),
        ({"agreement": (1.0, 0.97)}, {"agreement": 0.01}, 3.0),
        ({"sqnr": (float("inf"), 30.0)}, {"sqnr": 30.0}, 1.0),
        ({"sqnr": (float("inf"), 50.0)}, {"sqnr": 30.0}, 0.1),
        ({"accuracy": (0.9, 0.89), "f1": (0.9, 0.8)}, {"accuracy": 0.1, "f1": 0.05}, 2.0),
        ({"f1": (0.9, float("nan"))}, {"f1": 0.05}, float("inf")),
    ],
)
def test_the_worst_metric_says_how_much_of_the_drop_is_used(
    metrics: dict[str, tuple[float, float]], allowed: dict[str, float], used: float
) -> None:
    assert excess(metrics, allowed) == pytest.approx(used)


def test_a_metric_that_was_not_measured_is_named() -> None:
    with pytest.raises(UsageError, match=r"the metric 'f1' cannot be measured .* there is: agreement"):
        excess({"agreement": (1.0, 1.0)}, {"f1": 0.1})


@given(st.lists(st.integers(1, 6), min_size=3, max_size=6), st.data())
def test_costs_of_many_plans_are_those_of_each(widths: list[int], data: st.DataObject) -> None:
    channels = chain(widths)
    costs = amounts(channels)
    plans = [{key: data.draw(st.integers(1, group.units)) for key, group in channels.groups.items()} for _ in range(3)]
    rows = np.concatenate([row(channels, plan) for plan in plans])
    for name, cost in costs.items():
        expected = [sum(left(channels, p, plan, name) for p in channels.products.values()) for plan in plans]
        assert np.allclose(cost(rows), expected)


def left(channels: Channels, product: Product, plan: dict[str, int], name: str) -> float:
    """What one product takes, by the channels that stay."""
    keep = {key: np.arange(group.units) < plan[key] for key, group in channels.groups.items()}
    source, result = (p.kept(keep).mean() if len(p.group) else 1.0 for p in (product.source, product.result))
    full = product.macs if name == "macs" else product.params * (4 if name == "bytes" else 1)
    return float(full * source * result)


def test_a_depthwise_product_is_linear_in_its_width_and_repetitions_count() -> None:
    source = port(8, "a")
    heads = Port(("h",), np.zeros(4, np.int64), np.arange(4))
    products = {
        ("depthwise", 0): Product("depthwise", 0, 80, 72, source, source, diagonal=True),
        ("scores", -1): Product("scores", -1, 640, 0, source, port(5, None), batch=heads),
    }
    groups = {k: Group(k, n, "channel", (), ()) for k, n in (("a", 8), ("h", 4))}
    channels = Channels(groups, products, {}, {})
    assert amounts(channels)["macs"](row(channels, {"a": 4, "h": 1}))[0] == 40 + 640 / 2 / 4
    assert macs(channels, {"a": 4, "h": 1}) == 40 + 640 / 2 / 4


def test_bytes_are_those_of_the_type_of_weights() -> None:
    channels = chain([4, 8, 2])
    half = replace(channels, products={k: replace(p, itemsize=2) for k, p in channels.products.items()})
    assert amounts(channels)["bytes"](row(channels, {}))[0] == 4 * 48
    assert amounts(half)["bytes"](row(half, {}))[0] == 2 * 48


def test_limits_are_shares_of_the_model_as_given() -> None:
    channels = chain([4, 8, 2])
    given = {"macs": 100.0, "params": 60.0, "bytes": 1000.0}
    now = {"macs": 58.0, "params": 53.0, "bytes": 300.0}
    found = {x.resource: x for x in limits(channels, {"macs": 0.5, "bytes": 0.25}, given, now)}
    assert set(found) == {"macs", "bytes"}
    assert found["macs"].most == 50
    assert found["macs"].cost(row(channels, {}))[0] == pytest.approx(58)  # 48 of the products, and 10 that stay
    assert found["macs"].cost(row(channels, {"p0": 4}))[0] == pytest.approx(34)
    assert found["bytes"].cost(row(channels, {"p0": 4}))[0] == pytest.approx(300 - 4 * 24)
