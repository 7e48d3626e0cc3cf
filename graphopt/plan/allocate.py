"""Which width for each group: the least loss under all limits.

A multiple-choice knapsack, were it not that costs multiply. Costs are linearized around a plan, the knapsack is solved
by dynamic programming, and so on from what it found:

    cost(plan with group g at w) − cost(plan)          of each group, alone
    several limits                                     their weighted sum; weights grow where a limit is missed
    each plan found → costs are exact from here on: narrowed until it meets all limits, then improved by exchanges
    the best one is the answer

Costs and losses never fall with a width, so the plan of least widths is the cheapest in every respect: if it does not
meet a limit, none does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from graphopt.analysis.groups import Channels
from graphopt.errors import Verdict
from graphopt.plan.budget import Limit, row
from graphopt.plan.levels import LossCurve

__all__ = ["Unreachable", "allocate"]

Array = NDArray[Any]
_BUCKETS: Final = 2000
_ROUNDS: Final = 12
_WEIGHTINGS: Final = 8
_EXCHANGES: Final = 400
_PROMISING: Final = 6
"""Plans that are improved by exchanges."""
_FARTHEST: Final = 3
"""Steps that a group is moved in one exchange."""
_PARTS: Final = (0.75, 0.5, 0.25, 0.0)
"""How far up the ways of products are where a search begins."""
_CHUNK: Final = 512
_GAIN: Final = 1e-9
_LEAST: Final = 1e-300


class Unreachable(Verdict):
    """No plan meets a limit; it carries the plan of least widths."""

    def __init__(self, message: str, least: Mapping[str, int]) -> None:
        super().__init__(message)
        self.least = dict(least)


def allocate(
    channels: Channels,
    curves: Mapping[str, LossCurve],
    widths: Mapping[str, Sequence[int]],
    limits: Sequence[Limit],
) -> dict[str, int]:
    """The width of each group with a curve, so that the sum of losses is least and every limit is met.

    Args:
        channels: the groups; those without a curve keep all units.
        curves: the loss of a group by its width.
        widths: by group, the widths to choose from, rising. What a curve does not reach is left out.
        limits: what plans may cost.

    Raises:
        Unreachable: the least widths cost too much.
    """
    choice = _Choice(channels, curves, widths, limits)
    least = choice.start(0)
    if not choice.fits(least):
        raise Unreachable(choice.least_words(least), choice.named(least))
    best = choice.best(least)
    return choice.named(best)


class _Choice:
    """A plan is an array of positions in each group's list of widths."""

    def __init__(
        self,
        channels: Channels,
        curves: Mapping[str, LossCurve],
        widths: Mapping[str, Sequence[int]],
        limits: Sequence[Limit],
    ) -> None:
        self._keys = [k for k in channels.groups if k in curves]
        self._places = [list(channels.groups).index(k) for k in self._keys]
        self._forms = np.array([k in channels.choices for k in self._keys], np.bool_)
        self._full = row(channels, {})
        self._widths = []
        for key in self._keys:
            curve, units = curves[key], channels.groups[key].units
            allowed = {w for w in widths[key] if curve.least <= w <= units} | {units}
            self._widths.append(np.array(sorted(allowed), np.float64))
        self._losses = [np.array([curves[k](w) for w in ws]) for k, ws in zip(self._keys, self._widths, strict=True)]
        self._limits = limits
        self._caps = np.array([max(limit.most, _LEAST) for limit in limits])

    def start(self, position: int) -> Array:
        """The plan with every group at its least (0) or all (-1) units."""
        return np.array([range(len(w))[position] for w in self._widths], np.intp)

    def named(self, plan: Array) -> dict[str, int]:
        """The widths of a plan."""
        return {k: int(w[i]) for k, w, i in zip(self._keys, self._widths, plan, strict=True)}

    def use(self, plans: Array) -> Array:
        """(plans, limits): what each costs, as a share of what it may."""
        rows = np.repeat(self._full, len(plans), axis=0)
        for place, widths, chosen in zip(self._places, self._widths, plans.T, strict=True):
            rows[:, place] = widths[chosen]
        return np.asarray(np.stack([limit.cost(rows) for limit in self._limits], axis=1) / self._caps)

    def fits(self, plan: Array) -> bool:
        """Whether every limit is met."""
        return bool(np.all(self.use(plan[None]) <= 1))

    def loss(self, plan: Array) -> float:
        """The sum of losses."""
        return float(sum(losses[i] for losses, i in zip(self._losses, plan, strict=True)))

    def least_words(self, least: Array) -> str:
        """Why no plan fits."""
        use = self.use(least[None])[0]
        worst = int(np.argmax(use))
        limit = self._limits[worst]
        return (
            f"the budget {limit.resource} cannot be met: at least {use[worst] * limit.share:.3g} of it is left when "
            f"every group is cut as far as its loss is known, {limit.share:.3g} may remain"
        )

    def best(self, least: Array) -> Array:
        """The best plan found."""
        most = self.start(-1)
        if self.fits(most):
            return most
        found = {least.tobytes(): least}
        for start in self._starts(most):
            plan, repaired, weights = start, self._narrowed(start), np.ones(len(self._limits)) / len(self._limits)
            found[repaired.tobytes()] = repaired
            for _ in range(_WEIGHTINGS if len(self._limits) > 1 else 1):
                for _ in range(_ROUNDS):
                    proposed = self._solved(plan, weights)
                    if np.array_equal(proposed, plan):
                        break
                    plan = proposed
                    repaired = self._narrowed(plan)
                    found[repaired.tobytes()] = repaired
                weights *= np.clip(self.use(plan[None])[0], 0.25, 4) ** 2
                weights /= weights.sum()
        promising = sorted(found.values(), key=self.loss)[:_PROMISING]
        return min((self._exchanged(p) for p in promising), key=self.loss)

    def _starts(self, most: Array) -> list[Array]:
        """Where to begin: all there is, and the same in cheaper forms.

        Much of what takes few bits, and little of what takes many, are plans far from each other.
        """
        found = [most]
        if self._forms.any():
            found += [np.where(self._forms, (most * part).astype(np.intp), most) for part in _PARTS]
        return found

    def _alone(self, plan: Array) -> list[Array]:
        """For each group, (widths, limits): the use of the plan with this group alone at another width."""
        sizes = [len(w) for w in self._widths]
        plans = np.repeat(plan[None], sum(sizes), axis=0)
        start = 0
        for group, size in enumerate(sizes):
            plans[start : start + size, group] = np.arange(size)
            start += size
        return np.split(self.use(plans), np.cumsum(sizes)[:-1])

    def _solved(self, plan: Array, weights: Array) -> Array:
        """The knapsack with costs linearized around a plan, by dynamic programming over its use in buckets."""
        at = float(self.use(plan[None])[0] @ weights)
        costs = [(use @ weights) for use in self._alone(plan)]
        floor = sum(float(c.min()) - at for c in costs)
        room = 1.0 - at - floor  # beyond every group at its cheapest
        if room <= 0:
            return self.start(0)
        steps = [np.ceil((c - c.min()) / room * _BUCKETS - 1e-9).astype(np.int64) for c in costs]
        best = np.zeros(_BUCKETS + 1)
        picks = []
        for step, losses in zip(steps, self._losses, strict=True):
            options = np.full((len(step), _BUCKETS + 1), np.inf)
            for i, (cost, loss) in enumerate(zip(step, losses, strict=True)):
                if cost <= _BUCKETS:
                    options[i, cost:] = best[: _BUCKETS + 1 - cost] + loss
            picks.append(options.argmin(axis=0))
            best = options.min(axis=0)
        left, chosen = _BUCKETS, list[int]()
        for pick, step in zip(reversed(picks), reversed(steps), strict=True):
            chosen.append(int(pick[left]))
            left -= int(step[chosen[-1]])
        return np.array(chosen[::-1], np.intp)

    def _narrowed(self, plan: Array) -> Array:
        """The plan with groups narrowed, one step at a time where that costs least, until every limit is met."""
        plan = plan.copy()
        while np.any((use := self.use(plan[None])[0]) > 1):
            groups = np.flatnonzero(plan > 0)
            steps = np.repeat(plan[None], len(groups), axis=0)
            steps[range(len(groups)), groups] -= 1
            gain = np.sum(np.maximum(use - 1, 0) - np.maximum(self.use(steps) - 1, 0), axis=1)
            price = np.array([self._losses[g][plan[g] - 1] - self._losses[g][plan[g]] for g in groups])
            with np.errstate(divide="ignore", invalid="ignore"):
                rate = np.where(gain > 0, price / gain, np.inf)
            # A step that gains nothing may lead to one that does; all groups at their least meet every limit.
            plan = steps[int(np.argmin(rate))] if np.isfinite(rate).any() else steps[int(np.argmin(price))]
        return plan

    def _exchanged(self, plan: Array) -> Array:
        """A plan that meets all limits, improved by exact exchanges: one group wider, at most one other narrower."""
        for _ in range(_EXCHANGES):
            moves = self._moves(plan)
            for chunk in np.array_split(moves, max(1, -(-len(moves) // _CHUNK))):
                plans = np.repeat(plan[None], len(chunk), axis=0)
                for group, by in ((0, 1), (2, 3)):
                    plans[range(len(chunk)), chunk[:, group]] += chunk[:, by]
                fit = np.flatnonzero(np.all(self.use(plans) <= 1, axis=1)) if len(chunk) else chunk
                if fit.size:
                    plan = plans[fit[0]]
                    break
            else:
                return plan
        return plan

    def _moves(self, plan: Array) -> Array:
        """Every exchange that lowers the loss, best first: (moves, (wider group, steps, narrower group, steps))."""
        ways: dict[int, list[tuple[int, int, float]]] = {1: [], -1: [(0, 0, 0.0)]}
        for group, (place, losses) in enumerate(zip(plan, self._losses, strict=True)):
            for sign, by in product((-1, 1), range(1, _FARTHEST + 1)):
                if 0 <= place + sign * by < len(losses):
                    ways[sign].append((group, sign * by, float(losses[place + sign * by] - losses[place])))
        wider, narrower = (np.array(ways[sign]).reshape(-1, 3) for sign in (1, -1))
        change = wider[:, 2, None] + narrower[:, 2]
        alike = (wider[:, 0, None] == narrower[:, 0]) & (narrower[:, 1] != 0)
        better = np.flatnonzero((change < -_GAIN * self.loss(plan)) & ~alike)
        better = better[np.argsort(change.reshape(-1)[better], kind="stable")]
        first, second = np.unravel_index(better, change.shape)
        return np.concatenate([wider[first, :2], narrower[second, :2]], axis=1).astype(np.intp)
