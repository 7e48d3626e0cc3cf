"""How a model and its replacement do once their inputs are noisy.

What is fitted to clean samples may lean on details that the original does not need, which clean samples cannot show.
After Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
(ICLR 2019): the same metrics, for growing strengths of one disturbance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.analysis.metrics import Tally
from graphopt.graph.external import Runnable
from graphopt.run.data import Pair
from graphopt.run.machine import HERE, Machine
from graphopt.run.session import Feed

__all__ = ["LEVELS", "Noisy", "noisy"]

LEVELS = (0.0, 0.05, 0.1, 0.2, 0.4)
"""Standard deviations of the noise, each as a part of that of the input."""

_TOLD = ("accuracy", "agreement", "sqnr")


@dataclass(frozen=True)
class Noisy:
    """How both models do at one level of noise."""

    level: float
    """Standard deviation of the noise, as a part of that of each input."""
    samples: int
    metrics: Mapping[str, tuple[float, float]]
    """By name, of the original and of the result, both against what the original makes of the samples without noise."""


def noisy(
    original: Runnable, result: Runnable, pairs: Sequence[Pair], samples: int, machine: Machine = HERE
) -> tuple[Noisy, ...]:
    """Metrics with Gaussian noise on all float inputs, level by level; none where no float input varies.

    The noise is the same at all levels but for its size, and for both models. It is drawn in the order of the samples,
    so that it is the same again wherever they stand in the same order.

    Args:
        original: the model that decides what is right.
        result: its replacement.
        pairs: feeds and labels, of which all count for the deviations of inputs.
        samples: how many there are in `pairs`.
        machine: where and how to run.
    """
    deviations = _deviations([feed for feed, _ in pairs])
    if not any(deviations.values()):
        return ()
    sessions = [machine.session(m) for m in (original, result)]
    tallies = {level: (Tally(), Tally()) for level in LEVELS}
    rng = np.random.default_rng(0)
    for feed, labels in machine.track(pairs, "judging with noise"):
        clean = sessions[0].run(feed)
        noise = {n: s * rng.standard_normal(np.shape(feed[n]), np.float32) for n, s in sorted(deviations.items())}
        for level, both in tallies.items():
            disturbed = feed | {n: (feed[n] + level * e).astype(feed[n].dtype) for n, e in noise.items()}
            for session, tally in zip(sessions, both, strict=True):
                tally.add(feed, clean, session.run(disturbed), labels)
    return tuple(Noisy(level, samples, _side_by_side(*both)) for level, both in tallies.items())


def _side_by_side(first: Tally, second: Tally) -> dict[str, tuple[float, float]]:
    """What two tallies against the same outputs say of what they compared them with."""
    one, other = first.metrics(), second.metrics()
    return {name: (one[name][1], other[name][1]) for name in _TOLD if name in one and name in other}


def _deviations(feeds: Sequence[Feed]) -> dict[str, float]:
    """The standard deviation of all finite values of each float input that there is in every feed."""
    names = [n for n in feeds[0] if all(isinstance(f.get(n), np.ndarray) and f[n].dtype.kind == "f" for f in feeds)]
    return {name: _deviation([feed[name] for feed in feeds]) for name in names}


def _deviation(values: Sequence[np.ndarray]) -> float:
    count, total, squares = 0, 0.0, 0.0
    for value in values:
        x = value[np.isfinite(value)].astype(np.float64)
        count, total, squares = count + x.size, total + x.sum(), squares + x @ x
    return float(np.sqrt(max(0.0, squares / count - (total / count) ** 2))) if count else 0.0
