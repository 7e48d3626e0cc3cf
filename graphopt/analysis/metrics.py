"""How well a model and its replacement do on the user's data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, log10, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from graphopt.graph.external import Runnable
from graphopt.run.data import Pair
from graphopt.run.machine import HERE, Machine
from graphopt.run.noise import is_float, leaves
from graphopt.run.session import Feed, Session

__all__ = [
    "BATCH",
    "RIGHT",
    "Distance",
    "Scores",
    "Tally",
    "distance",
    "interval",
    "is_scores",
    "scored",
    "scores",
]

BATCH = 64
"""Rows of a feed on which models are scored, where there is a choice."""
RIGHT = ("accuracy", "agreement")
"""What is told of a result that computes the same: its distance is told output by output."""

_LENGTH = 1e-3
"""How far lengths of directions may be from 1, in half precision as well."""


@dataclass(frozen=True)
class Distance:
    """How far one output of floats is from the original's, over all samples.

    Where shapes differ, or one of both is not finite, nothing is near: the error is infinite.
    """

    name: str
    max_abs: float
    """The largest difference."""
    max_rel: float
    """The same, in parts of the original's largest magnitude."""
    sqnr_db: float
    """Signal over noise in decibels; infinite where nothing differs."""
    cosine: float
    """Of all values taken as one vector, with the original's."""


@dataclass(frozen=True)
class Scores:
    """What is found when an original and its result run on the same data."""

    metrics: Mapping[str, tuple[float, float]]
    """By name, of the original and of the result; see `Tally`."""
    distances: tuple[Distance, ...]
    samples: int
    """How many the shares are of; 0 where there are none."""


def scores(
    original: Runnable, result: Runnable, pairs: Iterable[Pair], machine: Machine = HERE
) -> dict[str, tuple[float, float]]:
    """Metrics by name, each of the original and of the result, on feeds and labels: see `Tally`."""
    return dict(scored(original, result, pairs, machine).metrics)


def scored(
    original: Runnable, result: Runnable, pairs: Iterable[Pair], machine: Machine = HERE, *, lasting: bool = True
) -> Scores:
    """Both models, run on feeds one by one; only sums and classes are kept. `Session` explains `lasting`."""
    first, second = (machine.session(m, lasting=lasting) for m in (original, result))
    tally = Tally()
    for feed, labels in pairs:
        tally.add(feed, first.run(feed), second.run(feed), labels)
    return Scores(tally.metrics(), tally.distances(), tally.samples)


def distance(expected: Iterable[tuple[Feed, Mapping[str, object]]], result: Session) -> float:
    """Signal over noise of all float outputs, in decibels; 0 where there is none or nothing differs.

    Args:
        expected: feeds, and what the original gives for each.
        result: what is judged.
    """
    tally = Tally()
    for feed, before in expected:
        tally.add(feed, before, result.run(feed), None)
    found = tally.metrics().get("sqnr", (0.0, 0.0))[1]
    return found if isfinite(found) else 0.0


def interval(share: float, count: int) -> tuple[float, float]:
    """Where a share of all samples lies with 95 % confidence, if so many were drawn and this share of them has it.

    Clopper and Pearson, The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial, 1934.
    """
    hits = round(share * count)
    low = float(betaincinv(hits, count - hits + 1, 0.025)) if hits else 0.0
    high = float(betaincinv(hits + 1, count - hits, 0.975)) if hits < count else 1.0
    return low, high


class Tally:
    """What is counted of two sets of outputs for the same samples, feed by feed.

    accuracy: share of samples whose largest score is that of their label.
    f1: mean over classes of the harmonic mean of precision and recall, as above.
    agreement: share of samples whose largest score is that of the original.
    sqnr: signal of all float outputs over their error, in decibels.
    cosine: of all float outputs taken as one vector, with the original's.

    The scores are the first output with one row of at least two floats for each sample. Where there is none, but one
    float for each sample and labels 0 and 1, that is the score of class 1, above a half if the original keeps to
    probabilities, else above 0. Rows that all have length 1, with negative numbers, are directions (embeddings) and no
    scores, unless there are labels. Without scores there are no shares of samples. A label is the number of a class, or
    a row with a one in its place; with others there is neither accuracy nor f1.
    """

    def __init__(self) -> None:
        self._sums: dict[str, _Sums] = {}
        self._found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        self._truth: list[NDArray[np.int64]] = []
        self._scored = self._labelled = self._directed = True

    def add(
        self, feed: Feed, before: Mapping[str, object], after: Mapping[str, object], labels: np.ndarray | None
    ) -> None:
        """Count the outputs for one feed."""
        theirs = leaves(dict(after))
        for output, mine in leaves(dict(before)).items():
            self._sums.setdefault(output, _Sums()).add(mine, theirs[output])
        usable = {n: found for n, v in before.items() if (found := _rows(v, feed)) is not None}
        name = next((n for n in usable if is_scores(before[n], feed)), next(iter(usable), None))
        a, b = (None, None) if name is None else (usable[name], _rows(after[name], feed))
        self._scored = self._scored and a is not None and b is not None and a.shape == b.shape
        if a is None or b is None or not self._scored:
            return
        self._directed = self._directed and _directions(a)
        for guesses, value in zip(self._found, (a, b), strict=True):
            guesses.append(value if value.shape[1] == 1 else value.argmax(axis=1))
        truth = None if labels is None else _classes(labels, *a.shape)
        self._labelled = self._labelled and truth is not None
        if truth is not None:
            self._truth.append(truth)

    def metrics(self) -> dict[str, tuple[float, float]]:
        """By name, of the original and of the result."""
        metrics: dict[str, tuple[float, float]] = {}
        if (guesses := self.guesses()) is not None:
            a, b = guesses
            if (truth := self.truth) is not None:
                metrics["accuracy"] = (float(np.mean(a == truth)), float(np.mean(b == truth)))
                metrics["f1"] = (_f1(a, truth), _f1(b, truth))
            metrics["agreement"] = (1.0, float(np.mean(a == b)))
        signal, error, across, other = sum((s.sums for s in self._sums.values()), np.zeros(4))
        if signal:
            metrics["sqnr"] = (np.inf, float(10 * np.log10(signal / error)) if error else np.inf)
            metrics["cosine"] = (1.0, float(across / np.sqrt(signal * other)) if other else 0.0)
        return metrics

    def distances(self) -> tuple[Distance, ...]:
        """Of every output of floats."""
        return tuple(sums.distance(name) for name, sums in self._sums.items() if sums.floats)

    @property
    def samples(self) -> int:
        """How many were counted that have scores."""
        return sum(len(found) for found in self._found[0]) if self._scored else 0

    @property
    def truth(self) -> NDArray[np.int64] | None:
        """The class of each sample by its label, if all have one."""
        return np.concatenate(self._truth) if self._labelled and self._truth else None

    def guesses(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The classes that the original and the result give each sample; None without scores."""
        if not self._scored or not self._found[0] or (self._directed and not self._labelled):
            return None
        a, b = (np.concatenate(found) for found in self._found)
        if a.ndim == 1:
            return a, b
        if not self._labelled:
            return None
        limit = 0.5 if np.all((a >= 0) & (a <= 1)) else 0.0
        return (a[:, 0] > limit).astype(np.int64), (b[:, 0] > limit).astype(np.int64)


def _classes(labels: np.ndarray, rows: int, columns: int) -> NDArray[np.int64] | None:
    """(rows,): the class of each sample; None where labels are none for so many columns of scores."""
    if labels.dtype.kind not in "biuf" or not np.isfinite(labels).all():
        return None
    if labels.shape == (rows, columns) and columns > 1:
        one_hot = ((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all()
        return labels.argmax(axis=1) if one_hot else None
    if labels.size != rows:
        return None
    found = labels.reshape(rows).astype(np.int64)
    known = (found == labels.reshape(rows)) & (found >= 0) & (found < max(2, columns))
    return found if known.all() else None


def _f1(guesses: np.ndarray, labels: np.ndarray) -> float:
    """Over the classes that there are labels of."""
    classes = np.unique(labels)
    hits = np.array([np.sum((guesses == c) & (labels == c)) for c in classes])
    named = np.array([np.sum(guesses == c) + np.sum(labels == c) for c in classes])
    return float(np.mean(2 * hits / np.maximum(named, 1)))


class _Sums:
    """What one output adds up to."""

    def __init__(self) -> None:
        self.sums = np.zeros(4)  # of before², error², before·after, after²
        self.floats = self._apart = False
        self._largest = self._scale = 0.0

    def add(self, before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> None:
        """The tensors of one more pair of values; those that are not of floats do not count."""
        self.floats = self.floats or any(is_float(x.dtype) for x in before)
        if [x.shape for x in before] != [x.shape for x in after]:
            self._apart = True
            return
        for x, y in zip(before, after, strict=True):
            if is_float(x.dtype):
                self._add(x.astype(np.float64).ravel(), y.astype(np.float64).ravel())

    def _add(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
        known = np.isfinite(a) & np.isfinite(b)
        self._apart = self._apart or not bool((known | (a == b) | (np.isnan(a) & np.isnan(b))).all())
        a, b = a[known], b[known]
        error = a - b
        self.sums += (a @ a, error @ error, a @ b, b @ b)
        self._largest = max(self._largest, float(np.abs(error).max(initial=0.0)))
        self._scale = max(self._scale, float(np.abs(a).max(initial=0.0)))

    def distance(self, name: str) -> Distance:
        """What it all comes to."""
        signal, error, across, other = (float(v) for v in self.sums)
        if self._apart:
            return Distance(name, inf, inf, -inf, -1.0)
        if not error:
            return Distance(name, 0.0, 0.0, inf, 1.0)
        relative = self._largest / self._scale if self._scale else inf
        decibels = 10 * log10(signal / error) if signal else -inf
        cosine = across / sqrt(signal) / sqrt(other) if signal and other else 0.0
        return Distance(name, self._largest, relative, decibels, cosine)


def is_scores(value: object, feed: Feed) -> bool:
    """One row of at least two floats for each sample."""
    rows = _rows(value, feed)
    return rows is not None and rows.shape[1] > 1


def _directions(rows: NDArray[np.floating]) -> bool:
    """Whether all rows have the length 1, which probabilities have as well where one of them is 1."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    return rows.shape[1] > 1 and bool((rows < 0).any() and np.allclose(lengths, 1, rtol=0, atol=_LENGTH))


def _rows(value: object, feed: Feed) -> NDArray[np.floating] | None:
    """(samples, columns): an output with one float, or one row of them, for each sample of the feed."""
    if not isinstance(value, np.ndarray) or not is_float(value.dtype) or value.ndim not in {1, 2} or not value.size:
        return None
    same = all(isinstance(v, np.ndarray) and v.ndim and len(v) == len(value) for v in feed.values())
    return value.reshape(len(value), -1) if same else None
