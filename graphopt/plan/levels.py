"""What it costs the outputs to keep only so many units of a group: measured, one group at a time.

No surgery is needed to measure. Cutting units is the same as zeroing the columns of the products that sum over them,
and the columns that stay are refit from the moments (`Moment.refit`), so a variant is the same graph with other
weights at a group's readers. These are made inputs of the part of the graph behind them, whose other inputs are values
of one run that is kept: a variant is one more run of this part with other feeds.

    dense ── values kept ──► [reader: W', b'] ── the rest ──► outputs ──► distance to the dense outputs
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import gcd, lcm
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.analysis.groups import Channels, Group, Widths
from graphopt.analysis.moments import Moment
from graphopt.graph.carry import Carried
from graphopt.graph.parts import behind, boundary, part
from graphopt.graph.save import runnable
from graphopt.plan.distance import Distance
from graphopt.plan.variants import Variants
from graphopt.run.session import Device, Feed, Session

__all__ = ["FRACTIONS", "LossCurve", "Make", "candidates", "measure"]

Array = NDArray[Any]
Make = Callable[[Widths], ir.Model]
"""Compresses the model to a plan."""

FRACTIONS: Final = (0.75, 0.5, 0.25, 0.125)
"""Of a group's units: where its loss is measured on the dense model."""
_FEWEST_LEVELS: Final = 8
_STEEPEST: Final = 4.0
_TINY: Final = 1e-12


@dataclass(frozen=True)
class LossCurve:
    """The loss of one group by its width."""

    widths: tuple[int, ...]
    """Where it was measured, falling; the first one is all units."""
    losses: tuple[float, ...]
    """Never falling: what was measured less at a smaller width was noise."""

    @classmethod
    def through(cls, measured: Mapping[int, float]) -> LossCurve:
        """The curve through these losses by width."""
        widths = sorted(measured, reverse=True)
        losses = np.maximum.accumulate([measured[w] for w in widths])
        return cls(tuple(widths), tuple(losses.tolist()))

    @property
    def least(self) -> int:
        """The smallest width of which anything is known."""
        return self.widths[-1]

    def __call__(self, width: float) -> float:
        """The loss at a width between those that were measured: a power of the number of units that are cut.

        Raises:
            ValueError: nothing is known of the width.
        """
        most = self.widths[0]
        if not self.least <= width <= most:
            raise ValueError(f"width {width} is outside of what was measured, {self.least} to {most}")
        cut = np.array([most - w for w in self.widths[1:]], np.float64)
        excess = np.maximum(np.array(self.losses[1:]) - self.losses[0], _TINY)
        if width == most or not cut.size:
            return self.losses[0]
        x, xs, ys = np.log(most - width), np.log(cut), np.log(excess)
        if x < xs[0]:
            slope = (ys[1] - ys[0]) / (xs[1] - xs[0]) if len(xs) > 1 else 1.0
            return self.losses[0] + float(np.exp(ys[0] + np.clip(slope, 1.0, _STEEPEST) * (x - xs[0])))
        return self.losses[0] + float(np.exp(np.interp(x, xs, ys)))


def candidates(group: Group, step: int = 8, least: int = 1) -> tuple[int, ...]:
    """The widths to choose from, rising: all units, and multiples of what target and group like.

    Args:
        group: small ones take finer steps than the target likes, so that there is something to choose.
        step: multiples that the target likes.
        least: no width below it.
    """
    fine = max(1, min(step, group.units // _FEWEST_LEVELS))
    fine = 1 << (fine.bit_length() - 1) if step & (step - 1) == 0 else gcd(fine, step)
    fine = lcm(fine, group.multiple)
    return (*range(-(-max(least, 1) // fine) * fine, group.units, fine), group.units)


def measure(
    model: ir.Model,
    channels: Channels,
    orders: Mapping[str, NDArray[np.intp]],
    moments: Mapping[tuple[str, int], Moment],
    feeds: Sequence[Feed],
    *,
    step: int = 8,
    fractions: Sequence[float] = FRACTIONS,
    make: Make | None = None,
    memory: int = 1 << 30,
    device: Device = "cpu",
    threads: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, LossCurve]:
    """The loss of each group at some widths, the other groups at full width.

    Args:
        model: the dense model.
        channels: its groups.
        orders: by group, its units in the order in which they are cut.
        moments: of the groups' readers, at the operating point.
        feeds: samples that are not in the moments; their outputs are held in memory.
        step: multiples of widths that the target likes.
        fractions: of a group's units: where to measure.
        make: makes variants of groups whose readers have no constant weight; without it, these get no curve.
        memory: bytes of values that are kept at once.
        device: where to run.
        threads: as in `Session`.
        progress: told what begins.

    Returns:
        The curves by group; groups of which nothing could be measured have none.

    Raises:
        InputError: the model does not run on the feeds.
    """
    variants = Variants(model, channels, orders, moments)
    session = _session(model, device, threads)
    distance = Distance([session.run(feed) for feed in feeds])
    del session
    keeper = _Keeper(variants.base, feeds, memory, device, threads)
    known = {key: g for key, g in channels.groups.items() if key in orders}
    linear = [key for key in known if variants.readers(key)]
    curves: dict[str, LossCurve] = {}
    segments = {key: _Segment(variants, key) for key in linear}
    for batch in keeper.batched(segments):
        for key, kept in batch.items():
            progress(f"measuring the loss of {key}")
            runner = _session(segments[key].typed(kept[0]), device, threads)
            losses = {known[key].units: 0.0}
            for width in _widths(known[key], step, fractions):
                if width not in losses:
                    fed = variants.feed(key, width)
                    losses[width] = distance(runner.run(values | fed) for values in kept)
            curves[key] = LossCurve.through(losses)
    for key in known if make is not None else ():
        if key not in curves and make is not None:
            progress(f"measuring the loss of {key}")
            losses = {}
            for width in _widths(known[key], step, fractions):
                runner = _session(make({key: width}), device, threads)
                losses[width] = distance(map(runner.run, feeds))
            curves[key] = LossCurve.through(losses)
    return {key: curves[key] for key in known if key in curves}


def _widths(group: Group, step: int, fractions: Sequence[float]) -> tuple[int, ...]:
    """Where to measure: near these shares of the units; all of them are one."""
    allowed = np.array(candidates(group, step))
    near = {int(allowed[np.argmin(np.abs(allowed - f * group.units))]) for f in fractions}
    return tuple(sorted({group.units, *near}, reverse=True))


def _session(model: ir.Model, device: Device, threads: int) -> Session:
    return Session(runnable(model, Carried()), device=device, threads=threads)


class _Segment:
    """What is behind the readers of a group, their weights among its inputs."""

    def __init__(self, variants: Variants, key: str) -> None:
        base = variants.base
        nodes = behind(base, variants.nodes(key))
        made = {v for node in nodes for v in node.outputs}
        self.live = tuple(str(v.name) for v in boundary(nodes))
        self.model = part(base, self.live, [str(v.name) for v in base.graph.outputs if v in made])
        weights = set(variants.names(key))
        graph = self.model.graph
        graph.inputs.extend(v for name, v in graph.initializers.items() if name in weights)

    def typed(self, feed: Feed) -> ir.Model:
        """The model, its inputs declared as what they hold: what inference knows may be nothing."""
        for value in self.model.graph.inputs:
            if isinstance(held := feed.get(str(value.name)), np.ndarray):
                value.type = ir.TensorType(ir.DataType.from_numpy(held.dtype))
                value.shape = ir.Shape([None] * held.ndim)
        return self.model


class _Keeper:
    """Values of the model at hand, for as many groups at once as memory allows."""

    def __init__(self, model: ir.Model, feeds: Sequence[Feed], memory: int, device: Device, threads: int) -> None:
        self._model, self._feeds, self._memory = model, feeds, memory
        self._device, self._threads = device, threads

    def outputs(self) -> Iterator[Mapping[str, Any]]:
        """What the model gives on each feed."""
        return map(_session(self._model, self._device, self._threads).run, self._feeds)

    def batched(self, segments: Mapping[str, _Segment]) -> Iterator[dict[str, list[Feed]]]:
        """The values that the segments of some groups read, feed by feed, until each had its turn."""
        if not segments:
            return
        sizes = self._sizes({name for s in segments.values() for name in s.live})
        pending = list(segments)
        while pending:
            chosen, names = list[str](), set[str]()
            while pending:
                more = names.union(segments[pending[0]].live)
                if chosen and sum(sizes[n] for n in more) > self._memory:
                    break
                chosen.append(pending.pop(0))
                names = more
            kept = self._values(names, self._feeds)
            yield {key: [{n: values[n] for n in segments[key].live} for values in kept] for key in chosen}

    def _sizes(self, names: set[str]) -> dict[str, int]:
        """Bytes of these values over all feeds, judged by the first one."""
        first = self._values(names, self._feeds[:1])[0]
        samples = [np.size(next(iter(f.values()), 1)) for f in self._feeds]
        share = sum(samples) / max(1, samples[0])
        return {n: int(share * np.asarray(first[n]).nbytes) for n in names}

    def _values(self, names: set[str], feeds: Sequence[Feed]) -> list[Feed]:
        inputs = [str(v.name) for v in self._model.graph.inputs]
        inner = sorted(names.difference(inputs))
        if not inner:
            return list(feeds)
        session = _session(part(self._model, inputs, inner), self._device, self._threads)
        needed = {p.name for p in (*session.inputs, *session.overridable)}
        return [feed | session.run({n: v for n, v in feed.items() if n in needed}) for feed in feeds]
