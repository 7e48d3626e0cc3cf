"""From a budget to a plan: allocate, compress, measure, look again from there.

    losses of groups on the dense model ─► allocate ─► compress and measure

Where a limit is one of time, plans are timed, and the prediction that they are allocated by is corrected until the
limit is met as measured, and nearly used. (Losses measured once more around a plan led to no better plans: what lies
behind is fitted to that plan.)

Where products may be written in other ways as well, plans that cut, that do not, and that do both are measured; where
bytes are limited, the file that a plan leads to is counted, with all that is in it.

With an allowed drop instead of a budget, the share of a resource is sought at which the drop that is *measured* comes
closest to what is allowed, by false position between a share that passes and one that does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf, isfinite, log
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from graphopt.analysis.groups import Channels
from graphopt.plan.allocate import Unreachable, allocate
from graphopt.plan.budget import Limit, amounts, excess, row
from graphopt.plan.levels import LossCurve
from graphopt.plan.plan import Made, Plan, Tried, Unmet, Workshop

__all__ = ["Planner"]

_AIMS: Final = (1.0, 0.96, 0.92)
"""Shares of a limit of time: the next one is aimed at where a plan misses the limit once it was compressed."""
_NEAR: Final = 0.97
"""The part of it that is sought."""
_TINY: Final = 1e-9
_PROBES: Final = 8
_CLOSE: Final = 0.01
"""Shares that differ by less are one."""
_LEAST_SHARE: Final = 0.02
_KINDS: Final = 2
"""Cutting, and other forms: what plans are told apart by."""
_LEAST_FACTOR: Final = 0.1
"""Between their losses, about; so that what seems to cost nothing is not all that is done."""
_OTHER: Final = 0.2
"""What losses of one kind are taken for, of what was predicted, where no plan can do without the other."""
_ALIKE: Final = 1.5
"""Factors of losses that are no further apart lead to about the same plan."""
_DOUBT: Final = 0.1
"""Of what was predicted: parts that are smaller tell nothing."""
_SLACK: Final = 1e-3
"""Of a limit of bytes: what is aimed at below it once a file was too large."""
_FARTHER: Final = 4
"""What is aimed at next lies so many times as far below, as long as files are too large."""


class Planner:
    """Plans for one model.

    Args:
        channels: its groups, and choices.
        widths: by group, the widths to choose from, rising.
        workshop: measures and compresses.
        progress: told what begins.
    """

    def __init__(
        self,
        channels: Channels,
        widths: Mapping[str, Sequence[int]],
        workshop: Workshop,
        *,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._channels, self._widths, self._workshop = channels, widths, workshop
        self._progress = progress
        self._dense: Mapping[str, LossCurve] | None = None
        self._times: dict[tuple[tuple[str, int], ...], float] = {}
        self.tried: list[Tried] = []
        """Every plan that was compressed, in order."""

    @property
    def curves(self) -> Mapping[str, LossCurve]:
        """The loss of each group on the dense model, once that was measured."""
        return self._dense or {}

    def proposed(self, limits: Sequence[Limit]) -> Plan:
        """What would be tried first: nothing is compressed.

        Raises:
            Unmet: no plan meets the limits.
        """
        return Plan.chosen(self._allocated(self._curves(), limits), self._channels)

    def within(self, limits: Sequence[Limit], allowed: Mapping[str, float] | None = None) -> Tried:
        """The best plan under a budget, and if a drop is allowed, within that.

        Raises:
            Unmet: there is none.
        """
        best = self._settled(limits)
        if allowed and (used := excess(best.made.metrics, allowed)) > 1:
            raise Unmet(
                f"the budget cannot be met within the allowed drop: the best plan found uses {used:.3g} times of it; "
                "raise the budget, or what may be lost",
                best,
                self.tried,
            )
        return best

    def smallest(self, limits: Callable[[float], Sequence[Limit]], allowed: Mapping[str, float]) -> Tried:
        """The plan with the least share of a resource whose measured drop is allowed.

        Args:
            limits: by share of what the model costs as given.
            allowed: as `drops` has it.

        Raises:
            Unmet: every plan tried drops more.
        """
        best: Tried | None = None
        worst: Tried | None = None
        low, high = (_LEAST_SHARE, inf), (1.0, -inf)  # share, and log of the part of the allowed drop that is used
        share = 0.5
        for _ in range(_PROBES):
            try:
                found = self._settled(limits(share))
            except Unmet:
                low = (share, inf)
            else:
                used = excess(found.made.metrics, allowed)
                at = (share, log(max(used, 1e-6)) if isfinite(used) else inf)
                if used <= 1:
                    best, high = found, at
                else:
                    worst, low = found, at
            if high[0] - low[0] < _CLOSE:
                break
            share = _between(low, high)
        if best is None:
            raise Unmet(
                "no smaller model was found within the allowed drop: allow more, or give more data to learn from",
                worst,
                self.tried,
            )
        return best

    def _settled(self, limits: Sequence[Limit]) -> Tried:
        """The best plan under these limits; time is met as measured."""
        curves = self._curves()
        pace = next((limit for limit in limits if limit.resource == "latency"), None)
        if pace is None:
            return self._better(curves, limits)
        found = list[Tried]()
        for aim in _AIMS:
            found.append(self._tried(self._timely(curves, limits, pace, aim), curves, limits))
            if found[-1].met:
                return found[-1]
        best = min(found, key=lambda t: t.made.latency or inf)
        raise self._slow(best.made.latency or inf, best)

    def _better(self, curves: Mapping[str, LossCurve], limits: Sequence[Limit]) -> Tried:
        """The best plan, as measured.

        How losses of cutting compare with those of forms differs from network to network. So a plan that has only one
        of them is measured as well: forms where bytes are limited, else cuts; and if that tells that they compare in
        another way than was predicted, a third one.
        """
        cuts, forms = self._factors(curves)
        found = [self._tried(self._allocated(self._weighed(curves, cuts, forms), limits), curves, limits)]
        if len(self.tried) == 1 and self._channels.choices:
            of_forms = any(limit.resource == "bytes" for limit in limits)
            alone = {k: curve for k, curve in curves.items() if (k in self._channels.choices) == of_forms}
            others = self._weighed(curves, *((1, _OTHER) if of_forms else (_OTHER, 1)))
            for way in (alone, others):
                with suppress(Unmet):
                    found.append(self._tried(self._allocated(way, limits), curves, limits))
                    break
            cuts, forms = self._factors(curves)
            if max(cuts, forms) > _ALIKE * min(cuts, forms):
                with suppress(Unmet):
                    widths = self._allocated(self._weighed(curves, cuts, forms), limits)
                    found.append(self._tried(widths, curves, limits))
        return min(found, key=lambda t: t.made.loss)

    def _factors(self, curves: Mapping[str, LossCurve]) -> tuple[float, float]:
        """What losses of cuts, and of forms, were measured to be of what was predicted; alike until plans tell more."""
        parts, choices = list[NDArray[np.float64]](), self._channels.choices
        for tried in self.tried:
            if isfinite(tried.made.loss) and tried.made.loss > 0:
                lost = np.array([(curves[k](w), k in choices) for k, w in tried.widths.items() if k in curves])
                parts.append(np.array([lost[lost[:, 1] == kind, 0].sum() for kind in (0, 1)]) / tried.made.loss)
        if len(parts) < _KINDS:
            return 1.0, 1.0
        doubt = _DOUBT * np.mean(np.sum(parts, axis=1))
        found, _ = nnls(np.array([*parts, (doubt, -doubt)]), np.array([*np.ones(len(parts)), 0]))
        cuts, forms = np.maximum(found, _LEAST_FACTOR * found.max()).tolist()
        return cuts, forms

    def _weighed(self, curves: Mapping[str, LossCurve], cuts: float, forms: float) -> dict[str, LossCurve]:
        return {k: curve.times(forms if k in self._channels.choices else cuts) for k, curve in curves.items()}

    def _timely(
        self, curves: Mapping[str, LossCurve], limits: Sequence[Limit], pace: Limit, aim: float
    ) -> dict[str, int]:
        """The best plan whose measured time is at most a share of its limit.

        Two are sought: what is cut is chosen by the time that products took alone, and by their work. Where other
        programs disturb the clock, or products take longer alone than together, the second one loses less.
        """
        work = amounts(self._channels)["macs"]
        guides = pace, replace(pace, cost=work, most=pace.share * float(work(row(self._channels, {}))[0]))
        others, found = [x for x in limits if x is not pace], list[dict[str, int]]()
        for guide in guides:
            try:
                found.append(self._paced(curves, others, guide, aim))
            except Unmet:
                if guide is guides[-1] and not found:
                    raise
        return min(found, key=lambda widths: sum(curves[k](w) for k, w in widths.items()))

    def _paced(
        self, curves: Mapping[str, LossCurve], others: Sequence[Limit], pace: Limit, aim: float
    ) -> dict[str, int]:
        """The best plan whose measured time is at most a share of its limit, by one prediction.

        Which prediction that takes is sought by false position, on models that are cut but not refit: weights take as
        long whatever they are.
        """
        narrowest = {k: next(w for w in sorted(self._widths[k]) if w >= c.least) for k, c in curves.items()}
        least, full = (float(pace.cost(row(self._channels, w))[0]) * (1 + _TINY) for w in (narrowest, {}))
        low, high = (least, -inf), (full, 1 / pace.share - _NEAR * aim)
        most, met = min(max(pace.most, least), full), None
        for _ in range(_PROBES):
            widths = self._allocated(curves, [*others, replace(pace, most=most)])
            time = self._time(widths)
            beyond = time / pace.share - _NEAR * aim
            if time <= aim * pace.share:
                met, low = widths, (most, beyond)
            elif most <= least:
                raise self._slow(time, None)
            else:
                high = (float(pace.cost(row(self._channels, widths))[0]), beyond)
            if (met and abs(beyond) < _CLOSE) or high[0] - low[0] < _CLOSE * full:
                break
            most = _between(low, high) if met else least
        return met or narrowest

    def _time(self, widths: Mapping[str, int]) -> float:
        key = tuple(widths.items())
        if key not in self._times:
            self._progress("timing a plan")
            self._times[key] = self._workshop.time(Plan.chosen(widths, self._channels))
        return self._times[key]

    def _slow(self, time: float, best: Tried | None) -> Unmet:
        return Unmet(
            f"the budget latency cannot be met as measured: {time:.3g} of the original's time is the least that was "
            "reached",
            best,
            self.tried,
        )

    def _curves(self) -> Mapping[str, LossCurve]:
        if self._dense is None:
            self._progress("measuring losses")
            self._dense = self._workshop.losses()
        return self._dense

    def _allocated(self, curves: Mapping[str, LossCurve], limits: Sequence[Limit]) -> dict[str, int]:
        """The best plan; where bytes are limited, the best whose file is no larger, all that comes with it included.

        What that is, depends on the plan: so the limit on what the plan itself counts is sought.

        Raises:
            Unmet: there is none.
        """
        index = next((i for i, limit in enumerate(limits) if limit.resource == "bytes"), None)
        if index is None:
            return self._counted(curves, limits)
        limit, counted, found = limits[index], [*limits], dict[float, dict[str, int]]()
        low, high, most, least, step = -inf, inf, limit.most, inf, 0.0
        for _ in range(_PROBES):
            counted[index] = replace(limit, most=most)
            try:
                widths = allocate(self._channels, curves, self._widths, counted)
            except Unreachable as problem:
                widths = problem.least
                if _beyond(self._channels, widths, [x for x in limits if x is not limit]):
                    raise Unmet(str(problem), None, self.tried) from problem
                plain = {k: w for k, w in widths.items() if k not in self._channels.choices}
                widths = min(widths, plain, key=lambda w: self._workshop.size(Plan.chosen(w, self._channels)))
            size = self._workshop.size(Plan.chosen(widths, self._channels))
            beyond, least = size - limit.most, min(least, size)
            if beyond <= 0:
                low, found[most] = most, widths
            else:
                high = most
            if min(high - low, -beyond if beyond <= 0 else inf) < _SLACK * limit.most:
                break
            step = max(beyond + _SLACK * limit.most, _FARTHER * step) if beyond > 0 else beyond
            most = (low + high) / 2 if isfinite(high - low) else most - step
        if not found:
            left = (
                f"at least {limit.share * least / limit.most:.3g} of it is left in a file, {limit.share:.3g} may remain"
            )
            raise Unmet(
                f"the budget bytes cannot be met: {left}: raise it",
                None,
                self.tried,
            )
        return found[max(found)]

    def _counted(self, curves: Mapping[str, LossCurve], limits: Sequence[Limit]) -> dict[str, int]:
        """The best plan under limits on what it counts; ranks are whole numbers, so that forms may be a little more."""
        counted = [*limits]
        for _ in range(_PROBES):
            try:
                widths = allocate(self._channels, curves, self._widths, counted)
            except Unreachable as problem:
                raise Unmet(str(problem), None, self.tried) from problem
            plan = Plan.chosen(widths, self._channels)
            index = next((i for i, limit in enumerate(limits) if limit.resource == "macs"), None)
            if index is None or not plan.forms:
                return widths
            limit, whole = limits[index], float(limits[index].cost(row(self._channels, {}))[0])
            beyond = self._workshop.work(plan) * whole - limit.most
            if beyond <= 0:
                return widths
            counted[index] = replace(limit, most=counted[index].most - beyond - _SLACK * limit.most)
        raise Unmet(
            "the budget macs cannot be met: what is counted and what is written differ; ask for a little more",
            None,
            self.tried,
        )

    def _tried(self, widths: dict[str, int], curves: Mapping[str, LossCurve], limits: Sequence[Limit]) -> Tried:
        """Compress to a plan, unless that was done before."""
        plan = Plan.chosen(widths, self._channels)
        known = next((t for t in self.tried if t.plan == plan), None)
        if known is None:
            self._progress("compressing to a plan")
        entry = self._entry(widths, known.made if known else self._workshop.make(plan), curves, limits)
        if known is None:
            self.tried.append(entry)
        return entry

    def _entry(
        self,
        widths: dict[str, int],
        made: Made,
        curves: Mapping[str, LossCurve],
        limits: Sequence[Limit],
    ) -> Tried:
        """What is remembered of a plan."""
        rows = row(self._channels, widths)
        predicted = sum(curves[k](w) for k, w in widths.items())
        used = {limit.resource: float(limit.cost(rows)[0]) for limit in limits}
        if "bytes" in used:
            used["bytes"] = self._workshop.size(Plan.chosen(widths, self._channels))
        costs = {limit.resource: used[limit.resource] / max(limit.most, 1e-300) for limit in limits}
        return Tried(Plan.chosen(widths, self._channels), widths, made, predicted, costs, _late(made, limits) <= 1)


def _beyond(channels: Channels, widths: Mapping[str, int], limits: Sequence[Limit]) -> bool:
    """Whether a plan misses one of some limits."""
    return any(float(limit.cost(row(channels, widths))[0]) > limit.most for limit in limits)


def _late(made: Made, limits: Sequence[Limit]) -> float:
    """Measured time over what it may be; 0 where nothing was measured or is asked."""
    share = next((limit.share for limit in limits if limit.resource == "latency"), None)
    return 0.0 if share is None or made.latency is None else made.latency / share


def _between(low: tuple[float, float], high: tuple[float, float]) -> float:
    """Where the line through two ends crosses zero, well inside of them; their middle where an end is unknown."""
    (a, fa), (b, fb) = low, high
    if not (isfinite(fa) and isfinite(fb)) or fa == fb:
        return (a + b) / 2
    cross = a + (b - a) * fa / (fa - fb)
    return min(max(cross, a + 0.15 * (b - a)), b - 0.15 * (b - a))
