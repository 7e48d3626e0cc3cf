from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.analysis.groups import Channels
from graphopt.plan.allocate import Unreachable, allocate
from graphopt.plan.budget import Limit, amounts, row
from graphopt.plan.levels import LossCurve

from .chain import chain

CLOSE = 1.25
"""Loss of what is found, at most, over that of the best plan, where costs multiply."""


@st.composite
def instances(draw: st.DrawFn) -> tuple[Channels, dict[str, LossCurve], list[int], list[Limit]]:
    """A chain of products with up to five groups of four units, each loss a random falling curve."""
    count = draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    channels = chain([3, *[4] * count, 5], work=random.integers(1, 50, count + 1).tolist())
    curves = {}
    for key in channels.groups:
        losses = np.cumsum(random.exponential(random.exponential(), 3))
        curves[key] = LossCurve((4, 3, 2, 1), (0.0, *losses.tolist()))
    forms = amounts(channels)
    named = draw(st.lists(st.sampled_from(["macs", "params"]), min_size=1, max_size=2, unique=True))
    full = {name: float(forms[name](row(channels, {}))[0]) for name in named}
    limits = [Limit(name, forms[name], draw(st.floats(0.05, 1.0)) * full[name]) for name in named]
    return channels, curves, [1, 2, 3, 4], limits


def brute(curves: dict[str, LossCurve], widths: list[int], limits: list[Limit]) -> float | None:
    """The least loss of any plan that meets all limits."""
    plans = np.array(list(product(widths, repeat=len(curves))), np.float64)
    fit = np.all([limit.cost(plans) <= limit.most for limit in limits], axis=0)
    losses = [sum(c(w) for c, w in zip(curves.values(), plan, strict=True)) for plan in plans[fit]]
    return min(losses, default=None)


@settings(max_examples=200, deadline=None)
@given(instances())
def test_a_plan_meets_all_limits_and_loses_hardly_more_than_the_best_one(
    instance: tuple[Channels, dict[str, LossCurve], list[int], list[Limit]],
) -> None:
    channels, curves, widths, limits = instance
    best = brute(curves, widths, limits)
    choices = dict.fromkeys(curves, widths)
    if best is None:
        with pytest.raises(Unreachable, match="cannot be met"):
            allocate(channels, curves, choices, limits)
        return
    plan = allocate(channels, curves, choices, limits)
    assert all(limit.cost(row(channels, plan))[0] <= limit.most for limit in limits)
    found = sum(curves[key](width) for key, width in plan.items())
    assert found <= CLOSE * best + 1e-9


def test_nothing_is_cut_where_nothing_need_be() -> None:
    channels = chain([3, 8, 8, 5])
    curves = {key: LossCurve((8, 4), (0.0, 1.0)) for key in channels.groups}
    cost = amounts(channels)["macs"]
    limit = Limit("macs", cost, float(cost(row(channels, {}))[0]))
    assert set(allocate(channels, curves, dict.fromkeys(curves, (4, 6)), [limit]).values()) == {8}


def test_widths_that_were_not_measured_are_never_chosen() -> None:
    channels = chain([3, 8, 5])
    curves = {key: LossCurve((8, 4), (0.0, 1e-9)) for key in channels.groups}
    cost = amounts(channels)["macs"]
    with pytest.raises(Unreachable) as caught:
        allocate(channels, curves, dict.fromkeys(curves, range(1, 9)), [Limit("macs", cost, 10.0)])
    assert set(caught.value.least.values()) == {4}
    assert "the budget macs cannot be met: at least" in str(caught.value)


def test_groups_without_a_curve_keep_all_units() -> None:
    channels = chain([3, 8, 8, 5])
    first, second = channels.groups
    cost = amounts(channels)["macs"]
    limit = Limit("macs", cost, 0.6 * float(cost(row(channels, {}))[0]))
    plan = allocate(channels, {second: LossCurve((8, 1), (0.0, 1.0))}, {second: range(1, 9)}, [limit])
    assert first not in plan
    assert plan[second] < 8


def test_many_groups_are_planned_in_a_moment() -> None:
    channels = chain([3, *[64] * 120, 10])
    random = np.random.default_rng(0)
    curves = {
        key: LossCurve((64, 48, 32, 16, 8), (0.0, *np.cumsum(random.exponential(size=4)).tolist()))
        for key in channels.groups
    }
    forms = amounts(channels)
    limits = [Limit(n, c, 0.5 * float(c(row(channels, {}))[0])) for n, c in forms.items()]
    plan = allocate(channels, curves, dict.fromkeys(curves, range(8, 65, 8)), limits)
    assert all(limit.cost(row(channels, plan))[0] <= limit.most for limit in limits)
