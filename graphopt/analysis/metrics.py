"""How well a model and its replacement do on the user's data."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from graphopt.graph.external import Runnable
from graphopt.run.data import Pair
from graphopt.run.session import Device, Session

__all__ = ["BATCH", "RIGHT", "is_scores", "scores"]

BATCH = 64
"""Rows of a feed on which models are scored, where there is a choice."""
RIGHT = ("accuracy", "agreement")
"""What is told of a result that computes the same: its distance is told output by output."""


def scores(
    original: Runnable, result: Runnable, pairs: Iterable[Pair], *, device: Device, threads: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Metrics by name, each of the original and of the result, on feeds and labels.

    accuracy: share of samples whose largest score is that of their label; only with integer labels.
    f1: mean over classes of the harmonic mean of precision and recall; only with integer labels.
    agreement: share of samples whose largest score is that of the original.
    sqnr: signal of all float outputs over their error, in decibels.
    cosine: of all float outputs taken as one vector, with the original's.

    The scores are the first output with one row of floats for each sample; without one there are no other metrics.
    """
    first, second = (Session(m, device=device, threads=threads, seed=seed) for m in (original, result))
    guesses: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    truth: list[np.ndarray] = []
    scored, labelled = True, True
    sums = np.zeros(4)  # of before², error², before·after, after²
    for feed, labels in pairs:
        before, after = first.run(feed), second.run(feed)
        sums += sum((_sums(before[n], after[n]) for n in before), np.zeros(4))
        name = next((n for n, v in before.items() if is_scores(v, feed)), None)
        scored = scored and name is not None
        if name is None or not scored:
            continue
        for found, outputs in zip(guesses, (before, after), strict=True):
            found.append(outputs[name].argmax(axis=1))
        labelled = (
            labelled and labels is not None and labels.dtype.kind in "iu" and labels.shape == guesses[0][-1].shape
        )
        if labelled and labels is not None:
            truth.append(labels)
    metrics: dict[str, tuple[float, float]] = {}
    if scored and guesses[0]:
        a, b = (np.concatenate(g) for g in guesses)
        if labelled:
            labels = np.concatenate(truth)
            metrics["accuracy"] = (float(np.mean(a == labels)), float(np.mean(b == labels)))
            metrics["f1"] = (_f1(a, labels), _f1(b, labels))
        metrics["agreement"] = (1.0, float(np.mean(a == b)))
    signal, error, across, other = sums
    if signal and error:
        metrics["sqnr"] = (np.inf, float(10 * np.log10(signal / error)))
        metrics["cosine"] = (1.0, float(across / np.sqrt(signal * other)) if other else 0.0)
    return metrics


def _f1(guesses: np.ndarray, labels: np.ndarray) -> float:
    """Over the classes that there are labels of."""
    classes = np.unique(labels)
    hits = np.array([np.sum((guesses == c) & (labels == c)) for c in classes])
    named = np.array([np.sum(guesses == c) + np.sum(labels == c) for c in classes])
    return float(np.mean(2 * hits / np.maximum(named, 1)))


def _sums(before: object, after: object) -> np.ndarray:
    if not isinstance(before, np.ndarray) or not isinstance(after, np.ndarray) or before.dtype.kind != "f":
        return np.zeros(4)
    a, b = before.astype(np.float64).ravel(), after.astype(np.float64).ravel()
    if a.shape != b.shape:
        return np.zeros(4)
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    return np.array([a @ a, (a - b) @ (a - b), a @ b, b @ b])


def is_scores(value: object, feed: dict[str, object]) -> bool:
    """One row of at least two floats for each sample."""
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.shape[1] < 2 or value.dtype.kind != "f":  # noqa: PLR2004
        return False
    return all(isinstance(v, np.ndarray) and v.ndim and len(v) == len(value) for v in feed.values())
