"""What planning has others do with one model: measure losses of groups, compress to a plan, measure the result.

Samples are used for one purpose each. Statistics are taken and weights refit on most of them; losses, and which of the
plans tried is best, are measured on others; what is told to the user is measured on samples that no step has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.analysis.groups import Channels
from graphopt.analysis.metrics import scores
from graphopt.analysis.moments import Moment, collect
from graphopt.analysis.samples import Samples, Split
from graphopt.analysis.segments import batches
from graphopt.compress.compress import Compressed, compress, kept
from graphopt.compress.cut import cut
from graphopt.graph.carry import Carried
from graphopt.graph.external import Runnable
from graphopt.graph.save import runnable
from graphopt.plan.distance import Distance
from graphopt.plan.levels import LossCurve, measure
from graphopt.plan.orders import orders
from graphopt.plan.plan import Made
from graphopt.plan.point import around
from graphopt.run.bench import bench
from graphopt.run.session import Device, Feed, Session

__all__ = ["Workshop"]

_LOSSES = 256
"""Samples that losses are measured on at most."""
_SHARE = 4
"""At most one sample in so many."""


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
    def _parts(self) -> tuple[Samples, list[Feed]]:
        """Samples for statistics, and feeds for losses."""
        samples = self.split.calibration
        count = self.split.calibrated
        few = max(1, min(_LOSSES, count // _SHARE)) if count > 1 else 0
        if isinstance(samples, Mapping):
            held = {n: v[count - few :] for n, v in samples.items()} if few else samples
            rest = {n: v[: count - few] for n, v in samples.items()}
            return rest, batches(self.model, held)[0]
        return list(samples[: count - few]), list(samples[count - few :] or samples)

    @cached_property
    def moments(self) -> dict[tuple[str, int], Moment]:
        """Of all products that read units of a group."""
        self.progress("gathering statistics")
        wanted = dict.fromkeys(r for g in self.channels.groups.values() for r in g.readers)
        return collect(self.model, wanted, self._parts[0], memory=self.memory, device=self.device, threads=self.threads)

    @cached_property
    def orders(self) -> dict[str, NDArray[np.int64]]:
        """In which order units go, by group."""
        self.progress("ordering channels")
        return orders(self.model, self.channels, self.moments)

    @cached_property
    def _distance(self) -> Distance:
        return Distance(list(self._outputs(self.model)))

    def losses(self, base: Mapping[str, int] | None) -> Mapping[str, LossCurve]:
        """See `plan.Workshop`."""
        moments = self.moments
        if base is not None:
            moments = around(
                self.model,
                self.channels,
                self.orders,
                moments,
                base,
                self._parts[0],
                memory=self.memory,
                threads=self.threads,
            )
        return measure(
            self.model,
            self.channels,
            self.orders,
            moments,
            self._parts[1],
            base=base,
            step=self.step,
            make=self._cut,
            memory=self.memory,
            device=self.device,
            threads=self.threads,
        )

    def make(self, widths: Mapping[str, int]) -> Made:
        """See `plan.Workshop`."""
        made = self.compressed(widths, self._parts[0])
        loss = self._distance(self._outputs(made.model))
        metrics, latency = self.scores(runnable(made.model, Carried())), None
        if self.timed:
            pair = (self.reference, runnable(made.model, Carried()))
            first, second = (Session(m, device=self.device, threads=self.threads) for m in pair)
            latency = bench(first, second, self._parts[1][0]).ratio
        return Made(made.model, loss, metrics, latency)

    def compressed(self, widths: Mapping[str, int], samples: Samples | None = None) -> Compressed:
        """The model cut to a plan and refit, on all samples that may be learned from unless others are given."""
        keep = kept(self.channels, self.orders, widths)
        samples = self.split.calibration if samples is None else samples
        return compress(
            self.model, self.channels, keep, samples, memory=self.memory, threads=self.threads, progress=self.progress
        )

    def scores(self, result: Runnable) -> dict[str, tuple[float, float]]:
        """Metrics of a result on the samples that judge."""
        pairs = zip(self.split.judgement, self.split.labels, strict=True)
        return scores(self.reference, result, pairs, device=self.device, threads=self.threads)

    def _cut(self, widths: Mapping[str, int]) -> ir.Model:
        return cut(self.model, self.channels, kept(self.channels, self.orders, widths))

    def _outputs(self, model: ir.Model) -> Iterable[Feed]:
        session = Session(runnable(model, Carried()), device=self.device, threads=self.threads)
        feeds: Sequence[Feed] = self._parts[1]
        return [session.run(feed) for feed in feeds]
