"""What planning has others do with one model: measure losses of groups, compress to a plan, measure the result.

Statistics are taken and weights refit on most of the samples; what is told to the user is measured on others, that
nothing was learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.analysis.groups import Channels
from graphopt.analysis.metrics import scores
from graphopt.analysis.samples import Split
from graphopt.analysis.segments import batches
from graphopt.compress.axis import Curve
from graphopt.compress.compress import Compressed, compress, kept
from graphopt.compress.cut import cut
from graphopt.compress.order import gathered, orders
from graphopt.graph.carry import Carried
from graphopt.graph.external import Runnable
from graphopt.graph.save import runnable
from graphopt.plan.levels import LossCurve
from graphopt.plan.outputs import measure
from graphopt.plan.plan import Made
from graphopt.run.bench import bench
from graphopt.run.session import Device, Feed, Session

__all__ = ["Workshop"]

_LOSSES = 200
"""Samples that losses are measured on, about."""
_REPAIRED = 1.5
"""Of an error made at the very beginning, e^-1.5 is left at the end. Found on residual networks for CIFAR-10, where
plans made with 0 and with 3 both do worse."""
_SECONDS = 20.0
"""That timing a plan may take."""
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
    timed: Feed | None = None
    """What plans are timed on, where time is limited."""
    finish: Callable[[ir.Model], Runnable] = field(default=lambda model: runnable(model, Carried()))
    """Makes what is emitted of a model that was cut: that is what is timed."""
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
            progress=self.progress,
        )

    @cached_property
    def _orders(self) -> dict[str, NDArray[np.int64]]:
        return {key: curve.order for key, curve in self.curves.items()}

    def losses(self) -> Mapping[str, LossCurve]:
        """See `plan.Workshop`.

        What all readers of a group lose by what it lacks is the same, so that their errors add up in step: n readers
        lose n times the sum of their errors. Part of it is made up for by what is refit behind them. Where not all of
        them are products with constant weights, the loss is measured at the outputs, in units that a few other groups
        give.
        """
        known, rest = dict[str, LossCurve](), list[str]()
        for key, curve in self.curves.items():
            group, gain = self.channels.groups[key], self._gain(key)
            known[key] = LossCurve.through({w: loss * gain for w, loss in curve.held.items()})
            if any(index < 0 for _, index in group.readers):
                rest.append(key)
        return known | self._measured(rest, [key for key in known if key not in rest])

    def _measured(self, keys: Sequence[str], others: Sequence[str]) -> dict[str, LossCurve]:
        """The losses of some groups at the outputs, in units of what readers of others lose that are not refit."""
        if not keys:
            return {}
        run: dict[str, Any] = {"device": self.device, "threads": self.threads, "progress": self.progress}
        samples, some = self.split.calibration, others[:: max(1, len(others) // _YARDSTICKS)]
        feeds, counts = batches(self.model, samples)
        feeds = feeds[: int(np.searchsorted(np.cumsum(counts), _LOSSES)) + 1]
        found = measure(self.model, self.channels, self._orders, [*keys, *some], feeds, step=self.step, **run)
        ratios = list[float]()
        for group, readers in gathered(self.model, self.channels, some, samples, memory=self.memory, **run):
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
        places = [place for place, name in enumerate(self.channels.products) if name in readers]
        survives = np.exp(_REPAIRED * (np.mean(places) / len(self.channels.products) - 1))
        return float(survives * sum(not self.channels.products[r].diagonal for r in readers))

    def make(self, widths: Mapping[str, int]) -> Made:
        """See `plan.Workshop`."""
        made = self.compressed(widths)
        metrics = self.scores(runnable(made.model, Carried()))
        noise = 10 ** (-metrics["sqnr"][1] / 10) if "sqnr" in metrics else 0.0
        return Made(made, noise, metrics, None if self.timed is None else self._timed(made.model, self.timed))

    def time(self, widths: Mapping[str, int]) -> float:
        """See `plan.Workshop`."""
        if self.timed is None:
            raise ValueError("there is nothing to time plans on")
        return self._timed(cut(self.model, self.channels, kept(self.channels, self._orders, widths)), self.timed)

    def _timed(self, model: ir.Model, feed: Feed) -> float:
        both = (self.reference, self.finish(model))
        first, second = (Session(m, device=self.device, threads=self.threads) for m in both)
        return bench(first, second, feed, seconds=_SECONDS).high

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
