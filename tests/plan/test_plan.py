from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from graphopt.analysis.groups import Channels, Choice
from graphopt.compress.forms.offers import with_choices
from graphopt.errors import Verdict
from graphopt.plan.budget import Limit, amounts, macs, row
from graphopt.plan.levels import LossCurve
from graphopt.plan.plan import Made, Plan, Unmet
from graphopt.plan.planner import Planner

from .chain import chain

WIDTHS = [2, 4, 6, 8, 10, 12, 14, 16]


class Fake:
    """A workshop whose truth is another loss than what is measured on the dense model."""

    def __init__(self, channels: Channels, *, slow: float = 1.0, fixed: float = 0.0, jitter: float = 1.0) -> None:
        self.channels, self.slow, self.fixed, self.jitter = channels, slow, fixed, jitter
        self.made: list[Mapping[str, int]] = []
        self.extra = 0

    def truth(self, widths: Mapping[str, int]) -> float:
        cut = [(i + 1) * (1 - widths.get(k, 16) / 16) ** 2 for i, k in enumerate(self.channels.groups)]
        return sum(cut) + 4 * sum(cut) ** 2

    def losses(self) -> Mapping[str, LossCurve]:
        return {
            key: LossCurve.through({w: self.truth({key: w}) for w in (16, 12, 8, 4, 2)}) for key in self.channels.groups
        }

    def make(self, plan: Plan) -> Made:
        self.made.append(plan.widths)
        loss = self.truth(plan.widths)
        accuracy = 0.9 - 0.01 * loss
        return Made(None, loss, {"accuracy": (0.9, accuracy)}, self.jitter * self.time(plan))

    def work(self, plan: Plan) -> float:
        """What is written takes a little more than what was counted."""
        cost, steps = amounts(self.channels)["macs"], dict(plan.widths)
        for key, choice in self.channels.choices.items():
            steps[key] = choice.ways.index(plan.forms.get(choice.product[0], "")) + 1
        return 1.01 * float(cost(row(self.channels, steps))[0] / cost(row(self.channels, {}))[0])

    def size(self, plan: Plan) -> int:
        """A file has more in it than weights."""
        return int(amounts(self.channels)["bytes"](row(self.channels, plan.widths))[0]) + self.extra

    def time(self, plan: Plan) -> float:
        cost = amounts(self.channels)["macs"]
        share = float(cost(row(self.channels, plan.widths))[0] / cost(row(self.channels, {}))[0])
        return min(1.0, self.fixed + (self.slow - self.fixed) * share)


@pytest.fixture
def channels() -> Channels:
    return chain([16, 16, 16, 16, 10])


def limit(channels: Channels, share: float, resource: str = "macs") -> Limit:
    cost = amounts(channels)["macs"]
    return Limit(resource, cost, share * float(cost(row(channels, {}))[0]), share)


def planner(channels: Channels, workshop: Fake) -> Planner:
    return Planner(channels, dict.fromkeys(channels.groups, WIDTHS), workshop)


def test_what_is_only_proposed_is_not_made(channels: Channels) -> None:
    fake = Fake(channels)
    plan = planner(channels, fake).proposed([limit(channels, 0.5)])
    assert not fake.made
    assert macs(channels, plan.widths) <= 0.5 * macs(channels, {})


def test_a_budget_out_of_reach_says_what_is_the_least(channels: Channels) -> None:
    with pytest.raises(Unmet, match="the budget macs cannot be met: at least") as caught:
        planner(channels, Fake(channels)).within([limit(channels, 0.01)])
    assert caught.value.exit_code == 1
    assert caught.value.best is None


def test_a_budget_that_drops_too_much_carries_the_best_plan(channels: Channels) -> None:
    with pytest.raises(Unmet, match="within the allowed drop: the best plan found uses") as caught:
        planner(channels, Fake(channels)).within([limit(channels, 0.3)], {"accuracy": 1e-4})
    assert caught.value.best is not None
    assert caught.value.tried


def test_bytes_are_those_of_the_file(channels: Channels) -> None:
    fake, cost = Fake(channels), amounts(channels)["bytes"]
    most = 0.5 * float(cost(row(channels, {}))[0])
    fake.extra = int(0.2 * most)
    best = planner(channels, fake).within([Limit("bytes", cost, most)])
    assert 0.9 * most < fake.size(best.plan) <= most


@pytest.mark.parametrize(("widest", "extra", "room"), [(16, 101, 100), (2, -200, -100)])
def test_files_are_sought_until_one_is_small_enough(channels: Channels, widest: int, extra: int, room: int) -> None:
    """The next smaller plan is far away, or all is smaller than what was counted."""
    fake, cost = Fake(channels), amounts(channels)["bytes"]
    fake.extra = extra
    most = float(cost(row(channels, {"p0": 2, "p1": widest, "p2": widest}))[0]) + room
    best = Planner(channels, dict.fromkeys(channels.groups, (2, 16)), fake).within([Limit("bytes", cost, most)])
    assert fake.size(best.plan) <= most


def test_narrow_products_may_take_less_as_they_are(channels: Channels) -> None:
    left = {r: np.array([[0.1, 0.0], [1.0, 0.0]]) for r in ("macs", "params", "bytes")}
    both = with_choices(channels, {k[0]: Choice(k, ("codes", ""), (0.1, 0.0), left) for k in channels.products})

    class Large(Mixed):
        def size(self, plan: Plan) -> int:
            return super().size(plan) + 500 * len(plan.forms)

    cost, fake = amounts(channels)["bytes"], Large(both, 1.0)
    least, most = (float(cost(row(channels, dict.fromkeys(channels.groups, w)))[0]) for w in (2, 16))
    steps = {key: range(1, g.units + 1) if key in both.choices else (2, 16) for key, g in both.groups.items()}
    limited = Limit("bytes", amounts(both)["bytes"], 1.01 * least, 1.01 * least / most)
    assert not Planner(both, steps, fake).within([limited]).plan.forms
    with pytest.raises(Unmet, match=f"at least {least / most:.3g} of it is left in a file"):
        Planner(both, steps, fake).within([replace(limited, most=0.9 * least, share=0.9 * least / most)])


@pytest.mark.parametrize(
    ("slow", "fixed", "jitter"), [(1.0, 0, 1), (1.3, 0, 1), (0.65, 0, 1), (1.0, 0.4, 1), (1.0, 0, 1.03)]
)
def test_time_is_met_as_measured_and_used(channels: Channels, slow: float, fixed: float, jitter: float) -> None:
    fake = Fake(channels, slow=slow, fixed=fixed, jitter=jitter)
    best = planner(channels, fake).within([limit(channels, 0.6, "latency")])
    assert best.made.latency is not None
    assert 0.9 * 0.6 < best.made.latency <= 0.6
    assert len(fake.made) <= 2  # plans are timed before they are compressed


def test_a_plan_that_was_predicted_to_be_too_slow_is_found(channels: Channels) -> None:
    cost = limit(channels, 0.6, "latency")
    gloomy = replace(cost, cost=replace(amounts(channels)["macs"], rest=2 * cost.most))
    best = planner(channels, Fake(channels)).within([gloomy])
    assert best.made.latency is not None
    assert 0.9 * 0.6 < best.made.latency <= 0.6


def test_a_clock_that_was_disturbed_does_not_say_alone_what_is_cut(channels: Channels) -> None:
    """What was timed says that only the group that loses most takes time."""
    last = list(channels.groups).index("p2")
    told = replace(limit(channels, 0.6, "latency"), cost=lambda plans: 1 + plans[:, last], most=0.6 * 17)
    best = planner(channels, Fake(channels)).within([told])
    assert best.made.latency is not None
    assert best.made.latency <= 0.6
    right = planner(channels, Fake(channels)).within([limit(channels, 0.6, "latency")])
    assert best.made.loss <= 1.05 * right.made.loss


def test_time_that_cannot_be_met_is_told(channels: Channels) -> None:
    with pytest.raises(Unmet, match=r"latency cannot be met"):
        planner(channels, Fake(channels, slow=30)).within([limit(channels, 0.5, "latency")])


@pytest.mark.parametrize("drop", [0.002, 0.01, 0.05])
def test_the_smallest_model_within_a_drop_is_found(channels: Channels, drop: float) -> None:
    fake = Fake(channels)
    best = planner(channels, fake).smallest(lambda s: [limit(channels, s)], {"accuracy": drop})
    before, after = best.made.metrics["accuracy"]
    assert before - after <= drop
    finer = np.linspace(0.05, 0.95, 31)
    possible = []
    for share in finer:
        try:
            found = planner(channels, Fake(channels)).within([limit(channels, float(share))], {"accuracy": drop})
        except Unmet:
            continue
        possible.append(macs(channels, found.plan.widths))
    assert macs(channels, best.plan.widths) <= min(possible) + 0.05 * macs(channels, {})
    assert len(fake.made) <= 20


def test_a_drop_that_nothing_smaller_keeps_is_told(channels: Channels) -> None:
    with pytest.raises(Unmet, match="no smaller model was found within the allowed drop") as caught:
        planner(channels, Fake(channels)).smallest(lambda s: [limit(channels, s)], {"accuracy": 0.0})
    assert caught.value.best is not None


class Mixed(Fake):
    """Products may be written in another way as well, which is worth more, or less, than is predicted."""

    def __init__(self, channels: Channels, worth: float) -> None:
        super().__init__(channels)
        self.worth = worth

    def losses(self) -> Mapping[str, LossCurve]:
        forms = {k: LossCurve.through(dict(enumerate(c.losses, 1))) for k, c in self.channels.choices.items()}
        return {**super().losses(), **forms}

    def truth(self, widths: Mapping[str, int]) -> float:
        cut = {k: w for k, w in widths.items() if k not in self.channels.choices}
        return sum((i + 1) * (1 - cut.get(k, 16) / 16) ** 2 for i, k in enumerate(self.channels.groups))

    def make(self, plan: Plan) -> Made:
        made = super().make(plan)
        lost = [
            loss
            for choice in self.channels.choices.values()
            for way, loss in zip(choice.ways, choice.losses, strict=True)
            if plan.forms.get(choice.product[0], "") == way
        ]
        return replace(made, loss=0.1 * (made.loss + self.worth * sum(lost)))


@pytest.mark.parametrize("worth", [0.02, 0.2, 1.0, 5.0, 50.0])
def test_cuts_and_forms_are_weighed_by_what_plans_measure(channels: Channels, worth: float) -> None:
    left = {r: np.array([[0.3, 0.0], [0.6, 0.0], [1.0, 0.0]]) for r in ("macs", "params", "bytes")}
    choices = {k[0]: Choice(k, ("worse", "bad", ""), (0.3, 0.1, 0.0), left) for k in channels.products}
    both = with_choices(channels, choices)
    workshop = Mixed(both, worth)
    steps = {key: range(1, g.units + 1) if key in both.choices else WIDTHS for key, g in both.groups.items()}
    made = Planner(both, steps, workshop)
    best = made.within([limit(both, 0.5)])
    alone = Planner(channels, dict.fromkeys(channels.groups, WIDTHS), Mixed(channels, worth)).within(
        [limit(channels, 0.5)]
    )
    first = made.tried[0]
    assert best.costs["macs"] <= (1 / 1.01 if best.plan.forms else 1)
    assert best.made.loss <= min(first.made.loss, alone.made.loss) + 1e-9
    if worth < 0.5:
        assert best.made.loss < 0.9 * first.made.loss  # it is told that forms cost less than was thought
    if worth > 2:
        assert len(best.plan.forms) < len(first.plan.forms)


def test_plans_are_plain_data_and_replayed_only_where_they_fit(channels: Channels) -> None:
    plan = Plan({"p1": 4, "p0": 8})
    assert Plan.of(plan.widths, {}, channels) == plan
    with pytest.raises(Verdict, match="the plan names the group 'p9', which this model does not have"):
        Plan.of({"p9": 4}, {}, channels)
    with pytest.raises(Verdict, match="the plan gives 'p0' 17 units; it has 1 to 16"):
        Plan.of({"p0": 17}, {}, channels)
    with pytest.raises(Verdict, match="the plan names the product 'p9', which this model does not have"):
        Plan.of({}, {"p9": "tucker"}, channels)
