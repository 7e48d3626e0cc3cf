"""What planning has others do with one model: measure losses of groups, compress to a plan, measure the result.

Statistics are taken and weights refit on most of the samples; what is told to the user is measured on others, that
nothing was learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.analysis.groups import Channels, Group
from graphopt.analysis.metrics import scores
from graphopt.analysis.moments import collect
from graphopt.analysis.samples import Split
from graphopt.analysis.segments import BATCH, batches
from graphopt.compress.axis import Curve
from graphopt.compress.compress import Compressed, compress, kept, orders
from graphopt.compress.cut import cut
from graphopt.graph.carry import Carried
from graphopt.graph.external import Runnable
from graphopt.graph.save import runnable
from graphopt.plan.levels import LossCurve, candidates, measure
from graphopt.plan.plan import Made
from graphopt.run.bench import bench
from graphopt.run.session import Device, Session

__all__ = ["Workshop"]

_LOSSES = 200
"""Samples that losses are measured on, about."""
_REPAIRED = 1.5
"""Of an error made at the very beginning, e^-1.5 is left at the end. Found on residual networks for CIFAR-10, where plans
for 0 and for 3 both do worse."""
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
    step: int = 8
    """Multiples of widths that the target likes."""
    device: Device = "cpu"
    threads: int = 0
    memory: int = 1 << 30
    timed: bool = False
    """Whether plans are timed."""
    progress: Callable[[str], None] = field(default=lambda _: None)

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """In which order units go, and the error of their readers, by group."""
        self.progress("ordering channels")
        return orders(
            self.model,
            self.channels,
            self.split.calibration,
            memory=self.memory,
            device=self.device,
            threads=self.threads,
        )

    @cached_property
    def _orders(self) -> dict[str, NDArray[np.int64]]:
        return {key: curve.order for key, curve in self.curves.items()}

    def losses(self) -> Mapping[str, LossCurve]:
        """See `plan.Workshop`.

        What all readers of a group lose by what it lacks is the same, so that their errors add up in step: n readers
        lose n times the sum of their errors. Part of it is made up for by what is refit behind them. Where not all of them are products with constant weights, the loss is
        measured at the outputs, in units that a few other groups give.
        """
        known, rest = dict[str, LossCurve](), list[str]()
        for key, curve in self.curves.items():
            group = self.channels.groups[key]
            many = [r for r in group.readers if not self.channels.products[r].diagonal]
            gain = len(many) * self._survives(group)
            known[key] = LossCurve.through({w: float(curve.error[w]) * gain for w in candidates(group, self.step)})
            if any(index < 0 for _, index in many):
                rest.append(key)
        if not rest:
            return known
        simple = [key for key in known if key not in rest]
        some = simple[:: max(1, len(simple) // _YARDSTICKS)]
        measured = self._measured([*some, *rest])
        ratios = [
            measured[key](width) / known[key](width)
            for key in some
            for width in (measured[key].widths[len(measured[key].widths) // 2],)
            if known[key](width) > 0
        ]
        unit = float(np.median(ratios)) if ratios else 1.0
        scaled = {
            key: LossCurve(measured[key].widths, tuple(loss / unit for loss in measured[key].losses)) for key in rest
        }
        return {key: scaled.get(key, known[key]) for key in known}

    def _survives(self, group: Group) -> float:
        """What is left at the outputs of an error of the readers of a group, about: the more, the later it is made."""
        places = [place for place, name in enumerate(self.channels.products) if name in group.readers]
        return float(np.exp(_REPAIRED * (np.mean(places) / len(self.channels.products) - 1)))

    def _measured(self, keys: Sequence[str]) -> dict[str, LossCurve]:
        """The loss of some groups, measured at the outputs."""
        self.progress("measuring losses")
        only = replace(self.channels, groups={key: self.channels.groups[key] for key in keys})
        wanted = dict.fromkeys(r for g in only.groups.values() for r in g.readers)
        moments = collect(
            self.model, wanted, self.split.calibration, memory=self.memory, device=self.device, threads=self.threads
        )
        feeds = batches(self.model, self.split.calibration)[0][: -(-_LOSSES // BATCH)]
        return measure(
            self.model,
            self.channels,
            {key: self._orders[key] for key in keys},
            moments,
            feeds,
            step=self.step,
            make=self._cut,
            memory=self.memory,
            device=self.device,
            threads=self.threads,
        )

    def make(self, widths: Mapping[str, int]) -> Made:
        """See `plan.Workshop`."""
        made = self.compressed(widths)
        result, latency = runnable(made.model, Carried()), None
        if self.timed:
            first, second = (Session(m, device=self.device, threads=self.threads) for m in (self.reference, result))
            latency = bench(first, second, self.split.judgement[0]).ratio
        metrics = self.scores(result)
        noise = 10 ** (-metrics["sqnr"][1] / 10) if "sqnr" in metrics else 0.0
        return Made(made, noise, metrics, latency)

    def compressed(self, widths: Mapping[str, int]) -> Compressed:
        """The model cut to a plan and refit."""
        keep = kept(self.channels, self._orders, widths)
        return compress(
            self.model,
            self.channels,
            keep,
            self.split.calibration,
            memory=self.memory,
            device=self.device,
            threads=self.threads,
            progress=self.progress,
        )

    def scores(self, result: Runnable) -> dict[str, tuple[float, float]]:
        """Metrics of a result on the samples that judge."""
        pairs = zip(self.split.judgement, self.split.labels, strict=True)
        return scores(self.reference, result, pairs, device=self.device, threads=self.threads)

    def _cut(self, widths: Mapping[str, int]) -> ir.Model:
        return cut(self.model, self.channels, kept(self.channels, self._orders, widths))
