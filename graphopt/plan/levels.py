"""What it costs to keep only so many units of a group, and how many can be kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import Final

import numpy as np

from graphopt.analysis.groups import Group

__all__ = ["LossCurve", "candidates"]

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

    def times(self, factor: float) -> LossCurve:
        """The same with losses that are larger by a factor."""
        return LossCurve(self.widths, tuple(factor * loss for loss in self.losses))

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


def candidates(group: Group, step: int = 8, least: int = 1, *, strict: bool = False) -> tuple[int, ...]:
    """The widths to choose from, rising: all units, and multiples of what the target likes.

    Args:
        group: small ones take finer steps than the target likes, so that there is something to choose.
        step: multiples that the target likes.
        least: no width below it.
        strict: whether other widths are no use at all. Channels then go in whole multiples, and a group of fewer than
            two of them stays; whole heads are as wide as they were, so any number of them will do.
    """
    rigid = strict and group.kind != "block"
    fine = step if rigid else max(1, min(step, group.units // _FEWEST_LEVELS))
    fine = 1 << (fine.bit_length() - 1) if step & (step - 1) == 0 else gcd(fine, step)
    return (*range(-(-max(least, 1) // fine) * fine, group.units, fine), group.units)
