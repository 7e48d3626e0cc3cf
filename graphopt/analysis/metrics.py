"""How well a model and its replacement do on the user's data."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from graphopt.graph.external import Runnable
from graphopt.run.data import Pair
from graphopt.run.session import Device, Session

__all__ = ["BATCH", "scores"]

BATCH = 64
"""Rows of a feed on which models are scored, where there is a choice."""


def scores(
    original: Runnable, result: Runnable, pairs: Iterable[Pair], *, device: Device, threads: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Metrics by name, each of the original and of the result, on feeds and labels.

    accuracy: share of samples whose largest score is that of their label; only with integer labels.
    agreement: share of samples whose largest score is that of the original.

    The scores are the first output with one row of floats for each sample; without one there are no metrics.
    """
    first, second = (Session(m, device=device, threads=threads, seed=seed) for m in (original, result))
    rows = 0
    right = np.zeros(2)
    same = 0
    labelled = True
    for feed, labels in pairs:
        before, after = first.run(feed), second.run(feed)
        name = next((n for n, v in before.items() if _is_scores(v, feed)), None)
        if name is None:
            return {}
        guesses = [outputs[name].argmax(axis=1) for outputs in (before, after)]
        rows += len(guesses[0])
        same += int(np.sum(guesses[0] == guesses[1]))
        labelled = labelled and labels is not None and labels.dtype.kind in "iu" and labels.shape == guesses[0].shape
        if labelled:
            right += [np.sum(g == labels) for g in guesses]
    found = {"accuracy": (float(right[0] / rows), float(right[1] / rows))} if labelled and rows else {}
    return found | ({"agreement": (1.0, same / rows)} if rows else {})


def _is_scores(value: object, feed: dict[str, object]) -> bool:
    """One row of at least two floats for each sample."""
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.shape[1] < 2 or value.dtype.kind != "f":  # noqa: PLR2004
        return False
    return all(isinstance(v, np.ndarray) and v.ndim and len(v) == len(value) for v in feed.values())
