"""What planning has others do with one model: measure losses of groups, compress to a plan, measure the result.

Statistics are taken and weights refit on most of the samples; what is told to the user is measured on others, that
nothing was learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.analysis.facts import work_of
from graphopt.analysis.groups import Channels, Choice, Group
from graphopt.analysis.metrics import scores
from graphopt.analysis.moments import Key
from graphopt.analysis.robustness import LEVELS, Noisy, noisy
from graphopt.analysis.samples import UNLEARNED, Split, is_finite
from graphopt.analysis.segments import batches
from graphopt.compress.axis import Curve, ranked
from graphopt.compress.compress import Compressed, compress, kept, outlined
from graphopt.compress.cut import Keep, cut
from graphopt.compress.forms.form import Form
from graphopt.compress.forms.offers import Stored, form_of, offers, with_choices
from graphopt.compress.order import gathered, orders
from graphopt.compress.sparsify import Sparsify, sparsify
from graphopt.compress.turn import Turns, turns
from graphopt.errors import InputError
from graphopt.graph.carry import Carried
from graphopt.graph.external import Runnable, weight_of
from graphopt.graph.save import runnable
from graphopt.plan.budget import macs
from graphopt.plan.levels import LossCurve, candidates
from graphopt.plan.outputs import alone, measure
from graphopt.plan.plan import Made, Plan
from graphopt.run.bench import bench
from graphopt.run.data import Pair, rows_of
from graphopt.run.machine import HERE, Machine
from graphopt.run.session import Feed

__all__ = ["Workshop"]

_LOSSES = 200
"""Samples that losses are measured on, about."""
_ALONE = 1e12
"""Multiply-accumulates that measuring each unit of one group may take."""
_REPAIRED = 1.5
"""Of an error made at the very beginning, e^-1.5 is left at the end. Found on residual networks for CIFAR-10, where
plans made with 0 and with 3 both do worse."""
_NOISY = 200
"""Samples that noise is added to, at most."""
_FEWEST = 16
"""The same, at least."""
_WORK = 2e11
"""Multiply-accumulates of a few seconds."""
_SECONDS = 20.0
"""That timing a plan may take."""
_WIDE = 1.2
"""Ends of an interval that are further apart show that others used the machine: then it is timed again."""
_AGAIN = 2
"""How often."""
_YARDSTICKS = 4
"""Groups that are measured for nothing but the ratio of measured to computed losses, about."""


@dataclass(frozen=True, eq=False)
class Workshop:
    """One model, its groups, and its samples."""

    model: ir.Model
    channels: Channels
    split: Split
    reference: Runnable
    """The model as given, which results are timed and scored against."""
    widths: Callable[[Group], Sequence[int]] = candidates
    """Of a group, those to choose from."""
    machine: Machine = HERE
    limited: tuple[Stored, ...] = ()
    """What is to be saved, time apart."""
    timed: Feed | None = None
    """What plans are timed on, where time is limited."""
    finish: Callable[[ir.Model], Runnable] = field(default=lambda model: runnable(model, Carried()))
    """Makes what is emitted of a model that was cut: that is what is timed."""
    sized: Callable[[ir.Model, Plan], int] = field(default=lambda model, _: weight_of(runnable(model, Carried())))
    """Bytes of what is emitted of a model that was compressed to a plan."""
    form: Sparsify | None = None
    """Which weights become zero once channels are cut."""
    skip: Collection[str] = ()
    """Keys of nodes whose weights do not."""

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """In which order units go, and the error of their readers, by group."""
        self.machine.progress("ordering channels")
        found = orders(self._turned, self.channels, self.split.calibration, self.machine)
        samples = self.split.calibration
        finite = is_finite([samples] if isinstance(samples, Mapping) else samples)
        if not finite and not any(curve.error.any() for curve in found.values()):
            raise InputError(UNLEARNED)
        return found | {key: replace(found[key], order=order) for key, order in self._unread(found)}

    @cached_property
    def _turns(self) -> Turns:
        """Better bases of units that may be mixed. Groups that stay whole keep their own."""
        return turns(self.model, self.channels, self.split.calibration, self.machine)

    @cached_property
    def _turned(self) -> ir.Model:
        """The model with all groups in these bases: what is lost is lost of it."""
        return self._turns.turned(self.channels.groups)

    def _unread(self, found: Mapping[str, Curve]) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """The order of units where not all readers are products, by what the outputs lose with each, if it is fast.

        Units of a better basis have one already.
        """
        feeds, count = self._some
        for key in found:
            group = self.channels.groups[key]
            if found[key].partial and key in self._turns.by:
                yield key, np.arange(group.units)[::-1]
            elif found[key].partial:
                if group.units * count * macs(self.channels, {}) > _ALONE:
                    continue
                lost = alone(self._turned, self.channels, key, feeds, self.machine)
                yield key, ranked(lost)

    @cached_property
    def _some(self) -> tuple[list[Feed], int]:
        """Samples that losses are measured on, and how many they are."""
        feeds, counts = batches(self.model, self.split.calibration)
        most = int(np.searchsorted(np.cumsum(counts), _LOSSES)) + 1
        return feeds[:most], sum(counts[:most])

    @cached_property
    def sites(self) -> Channels:
        """Groups and choices, which plans are made of.

        Other ways to write a product were not timed, and the ranks that they leave are no multiples for N:M zeros.
        """
        plain = self.timed is not None or self.form is not None
        return self.channels if plain else with_choices(self.channels, self.choices)

    @cached_property
    def _orders(self) -> dict[str, NDArray[np.int64]]:
        return {key: curve.order for key, curve in self.curves.items()}

    @cached_property
    def choices(self) -> Mapping[str, Choice]:
        """In which other ways each product may be written, by key."""
        resources: tuple[Stored, ...] = self.limited or ("macs",)
        return offers(
            self.model, self.channels, self.split.calibration, self.machine, resources=resources, skip=self.skip
        )

    def losses(self) -> Mapping[str, LossCurve]:
        """See `plan.Workshop`.

        What all readers of a group lose by what it lacks is the same, so that their errors add up in step: n readers
        lose n times the sum of their errors. Part of it is made up for by what is refit behind them. Where not all of
        them are products with constant weights, the loss is measured at the outputs, in units that a few other groups
        give.
        """
        known, rest = dict[str, LossCurve](), list[str]()
        for key, curve in self.curves.items():
            gain = self._gain(key)
            known[key] = LossCurve.through({w: loss * gain for w, loss in curve.held.items()})
            if curve.partial:
                rest.append(key)
        known |= self._measured(rest, [key for key in known if key not in rest])
        for key, choice in self.sites.choices.items():
            gain = self._survives([choice.product])
            known[key] = LossCurve.through({n: loss * gain for n, loss in enumerate(choice.losses, 1)})
        return known

    def _measured(self, keys: Sequence[str], others: Sequence[str]) -> dict[str, LossCurve]:
        """The losses of some groups at the outputs, in units of what readers of others lose that are not refit."""
        if not keys:
            return {}
        samples, some = self.split.calibration, others[:: max(1, len(others) // _YARDSTICKS)]
        found = measure(
            self._turned, self.channels, self._orders, [*keys, *some], self._some[0], self.machine, widths=self.widths
        )
        ratios = list[float]()
        for group, readers in gathered(self._turned, self.channels, some, samples, self.machine):
            for width, loss in found[group.key].items():
                gone = self._orders[group.key][: group.units - width]
                error = self._gain(group.key) * sum(r.without(gone) for r in readers)
                ratios += [loss / error] if error > 0 and np.isfinite(loss) else []
        unit = float(np.median(ratios)) if ratios else 1.0
        units = self.channels.units
        return {k: LossCurve.through({units[k]: 0.0} | {w: x / unit for w, x in found[k].items()}) for k in keys}

    def _gain(self, key: str) -> float:
        """What an error of each reader of a group counts at the outputs, about; see `losses`."""
        readers = self.channels.groups[key].readers
        return self._survives(readers) * sum(not self.channels.products[r].diagonal for r in readers)

    def _survives(self, products: Collection[Key]) -> float:
        """What is left of errors of some products at the outputs."""
        places = [place for place, name in enumerate(self.channels.products) if name in products]
        return float(np.exp(_REPAIRED * (np.mean(places) / len(self.channels.products) - 1)))

    def make(self, plan: Plan) -> Made:
        """See `plan.Workshop`."""
        made = self.compressed(plan)
        metrics = self.scores(runnable(made.model, Carried()))
        noise = 10 ** (-metrics["sqnr"][1] / 10) if "sqnr" in metrics else 0.0
        return Made(made, noise, metrics, None if self.timed is None else self._timed(made.model, self.timed))

    def time(self, plan: Plan) -> float:
        """See `plan.Workshop`."""
        if self.timed is None:
            raise ValueError("there is nothing to time plans on")
        return self._timed(cut(self.model, self.channels, self._kept(plan)), self.timed)

    def work(self, plan: Plan) -> float:
        """See `plan.Workshop`."""
        written = outlined(self.model, self.channels, self._kept(plan), _forms(plan))
        return work_of(written, self.split.calibration) / max(1.0, work_of(self.model, self.split.calibration))

    def size(self, plan: Plan) -> int:
        """See `plan.Workshop`."""
        return self.sized(outlined(self.model, self.channels, self._kept(plan), _forms(plan)), plan)

    def _kept(self, plan: Plan) -> Keep:
        """Which units stay; where all do, nobody needs to know in which order they would go."""
        return kept(self.channels, self._orders, plan.widths) if plan.widths else {}

    def _timed(self, model: ir.Model, feed: Feed) -> float:
        both = (self.reference, self.finish(model))
        first, second = (self.machine.timed(m) for m in both)
        found = bench(first, second, feed, seconds=_SECONDS)
        for _ in range(_AGAIN):
            if found.high <= _WIDE * found.low:
                break
            again = bench(first, second, feed, seconds=_SECONDS)
            found = min(found, again, key=lambda t: t.high / t.low)
        return found.high

    def compressed(self, plan: Plan) -> Compressed:
        """The model cut to a plan and refit, and then made sparse if that is asked for."""
        found = Compressed(self.model, ())
        if plan.widths or plan.forms:
            keep = self._kept(plan)
            found = compress(
                self._turns.turned(keep) if keep else self.model,
                self.channels,
                keep,
                self.split.calibration,
                self.machine,
                forms=_forms(plan),
            )
        if self.form is None:
            return found
        sparse = sparsify(found.model, self.form, self.split.calibration, self.machine, skip=self.skip)
        return replace(sparse, refits=found.refits)

    def scores(self, result: Runnable) -> dict[str, tuple[float, float]]:
        """Metrics of a result on the samples that judge."""
        pairs = list(zip(self.split.judgement, self.split.labels, strict=True))
        return scores(self.reference, result, self.machine.track(pairs, "judging"), self.machine)

    def robustness(self, result: Runnable) -> tuple[Noisy, ...]:
        """How the original and a result do on noisy samples of those that judge, so many as take a few seconds."""
        rows = isinstance(self.split.calibration, Mapping)
        work = (1 + 2 * len(LEVELS)) * max(1.0, work_of(self.model, self.split.calibration))
        left = most = int(min(max(_WORK / work, _FEWEST), _NOISY))
        pairs: list[Pair] = []
        for feed, labels in zip(self.split.judgement, self.split.labels, strict=True):
            if left:
                pairs.append(_first(feed, labels, left) if rows else (feed, labels))
                left -= rows_of(pairs[-1][0]) if rows else 1
        try:
            return noisy(self.reference, result, pairs, most - left, self.machine)
        except InputError:  # what runs on samples need not run on what is near them
            return ()


def _forms(plan: Plan) -> dict[str, Form]:
    return {key: form_of(text) for key, text in plan.forms.items()}


def _first(feed: Feed, labels: NDArray[Any] | None, most: int) -> Pair:
    return {n: v[:most] for n, v in feed.items()}, None if labels is None else labels[:most]
