"""What it costs the outputs to keep only so many units of a group: measured, by cutting that group alone.

    Σ(a − b)² / Σ(a − mean a)²          summed over outputs of floats; a: of the dense model, b: of the one that is cut

Nothing is refit, so that this is no measure of what is lost in the end. It is for groups whose readers are no products
with constant weights (scores of attention), in units of what is known of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.analysis.groups import Channels, Group
from graphopt.compress.compress import kept
from graphopt.compress.cut import Keep, cut
from graphopt.plan.levels import candidates
from graphopt.run.machine import HERE, Machine
from graphopt.run.session import Feed

__all__ = ["alone", "measure"]

_FRACTIONS: Final = (0.75, 0.5, 0.25, 0.125)
"""Of a group's units: where it is measured."""


def measure(
    model: ir.Model,
    channels: Channels,
    orders: Mapping[str, NDArray[np.int64]],
    groups: Iterable[str],
    feeds: Sequence[Feed],
    machine: Machine = HERE,
    *,
    widths: Callable[[Group], Sequence[int]] = candidates,
) -> dict[str, dict[int, float]]:
    """By group and width, what the outputs lose.

    Args:
        model: the dense model.
        channels: its groups.
        orders: by group, its units in the order in which they are cut.
        groups: which to measure.
        feeds: samples; their outputs are held in memory.
        widths: of a group, those to choose from.
        machine: where and how to run.
    """
    loss, found = _compared(model, channels, feeds, machine), dict[str, dict[int, float]]()
    for name in machine.track(list(groups), "measuring the loss of {}".format):
        group = channels.groups[name]
        allowed = np.array(widths(group)[:-1])
        near = {int(allowed[np.argmin(np.abs(allowed - f * group.units))]) for f in _FRACTIONS if len(allowed)}
        found[name] = {w: loss(kept(channels, orders, {name: w})) for w in sorted(near, reverse=True)}
    return found


def alone(
    model: ir.Model, channels: Channels, group: str, feeds: Sequence[Feed], machine: Machine = HERE
) -> NDArray[np.float64]:
    """(units,): what the outputs lose with each unit of a group alone. Arguments as in `measure`."""
    loss, units = _compared(model, channels, feeds, machine), channels.groups[group].units
    each = machine.track(range(units), f"measuring the units of {group}")
    return np.array([loss({group: np.arange(units) != unit}) for unit in each])


def _compared(model: ir.Model, channels: Channels, feeds: Sequence[Feed], machine: Machine) -> Callable[[Keep], float]:
    """Tells what is lost with only some units."""

    def run(keep: Keep) -> list[Feed]:
        session = machine.session(cut(model, channels, keep))
        return [session.run(feed) for feed in feeds]

    dense = run({})
    return lambda keep: _distance(dense, run(keep))


def _distance(dense: Sequence[Feed], thin: Sequence[Feed]) -> float:
    """See above; what is not finite in the dense model does not count, and in the other one is an infinite loss."""
    total = 0.0
    for name in _outputs(dense[0]):
        a, b = (np.concatenate([feed[name].reshape(-1) for feed in feeds], dtype=np.float64) for feeds in (dense, thin))
        known = np.isfinite(a)
        a, b = a[known], b[known]
        if varied := float(np.sum((a - a.mean()) ** 2)) if a.size else 0.0:
            total += float(np.sum((a - b) ** 2)) / varied
    return total if np.isfinite(total) else float("inf")


def _outputs(feed: Feed) -> list[str]:
    """The outputs that count: floats, other numbers where there are none."""
    kinds = {name: v.dtype.kind for name, v in feed.items() if isinstance(v, np.ndarray)}
    return [n for n, kind in kinds.items() if kind == "f"] or [n for n, kind in kinds.items() if kind in "biu"]
