"""The user's data as samples: some to calibrate on, others to judge by.

Each sample is known by its hash: it decides on which side the sample falls, in which order samples stand, and which are
taken where there are more than needed. So nothing depends on how the data was cut into feeds, or on its order.

From a sample with nan or infinities nothing is learned, unless so many have them that they are meant, as in masks.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphopt.analysis.segments import Samples, mapped, on_disk, rest
from graphopt.errors import InputError
from graphopt.run.data import Data, add_digest, rows_of
from graphopt.run.session import Feed

__all__ = ["MADE_UP", "UNLEARNED", "Split", "identity", "is_finite", "split"]

MADE_UP = "random:256"
"""What is learned from where there is no data: noise through the network, marked as synthetic."""
UNLEARNED = "nothing can be learned from the data: leave out samples with nan, infinities or huge values"
"""What is told where that is so."""
CALIBRATION = 1000
"""Samples that are calibrated on at most."""
JUDGEMENT = 2000
"""Samples that are judged by at most."""
_LARGE = 1 << 26
"""Bytes of samples above which they lie in a file."""
_ALIGNED = 64
"""Bytes at whose multiples they begin there."""
_FEED = 1 << 22
"""Bytes of a feed to judge by, about."""
_JUDGES = 0.1
"""Share of the samples that judge."""


@dataclass(frozen=True)
class Split:
    """Samples in the order of their hashes."""

    calibration: Samples
    judgement: tuple[Feed, ...]
    """Feeds of several samples each where rows are samples."""
    labels: tuple[np.ndarray | None, ...]
    """Of `judgement`, feed by feed."""
    calibrated: int
    judged: int
    left_out: int = 0
    """Samples that are not finite, of those that would have been calibrated on."""


@dataclass(order=True)
class _Kept:
    """A sample in a heap of which the one with the largest hash is first."""

    rank: int
    feed: Feed = field(compare=False)
    label: np.ndarray | None = field(compare=False)


def split(data: Data, batch: int = 50, most: int = CALIBRATION) -> Split:
    """Read all data once, and keep what is needed of it.

    Args:
        data: of the user, or generated.
        batch: samples in a feed to judge by, at most; fewer of large ones.
        most: samples to calibrate on.

    Raises:
        InputError: there are too few samples for both.
    """
    sides: tuple[list[_Kept], list[_Kept]] = ([], [])
    shelf = _Shelf()
    for feed, labels in data.pairs():
        for sample, label in _samples(feed, labels, rows=data.rows):
            number = identity(sample)
            side = 1 if number < _JUDGES * 2**256 else 0
            heap, limit = sides[side], (most, JUDGEMENT)[side]
            if len(heap) < limit:
                heapq.heappush(heap, _Kept(-number, shelf.put(sample), label))
            elif -number > heap[0].rank:
                heapq.heapreplace(heap, _Kept(-number, shelf.put(sample), label))
    calibrating, judging = (sorted(heap, reverse=True) for heap in sides)
    finite = [k for k in calibrating if is_finite([k.feed])]
    if 2 * len(finite) <= len(calibrating):
        finite = calibrating
    left_out = len(calibrating) - len(finite)
    calibrating = finite
    if not judging and len(calibrating) > 1:  # so few samples that none fell on the other side
        judging = [calibrating.pop()]
    if not calibrating or not judging:
        raise InputError(f"{data.name} has too few samples: some are calibrated on, others are judged by")
    if not data.rows:
        feeds, labels_of = [k.feed for k in judging], [k.label for k in judging]
        return Split(
            [k.feed for k in calibrating], tuple(feeds), tuple(labels_of), len(calibrating), len(judging), left_out
        )
    if len({tuple(np.shape(v) for v in k.feed.values()) for k in calibrating}) > 1:
        samples: Samples = [k.feed for k in calibrating]
    else:
        samples = _stacked([k.feed for k in calibrating])
    size = sum(np.asarray(v).nbytes for v in judging[0].feed.values())
    batch = max(1, min(batch, _FEED // max(size, 1)))
    parts = (
        [judging[i : i + batch] for i in range(0, len(judging), batch)]
        if isinstance(samples, dict)
        else [[k] for k in judging]
    )
    return Split(
        samples,
        tuple(_stacked([k.feed for k in part]) for part in parts),
        tuple(_labels([k.label for k in part]) for part in parts),
        len(calibrating),
        len(judging),
        left_out,
    )


def is_finite(feeds: Iterable[Feed]) -> bool:
    """Whether all floats in feeds are numbers."""
    floats = (v for feed in feeds for v in feed.values() if isinstance(v, np.ndarray) and v.dtype.kind == "f")
    return all(np.isfinite(v).all() for v in floats)


def _samples(feed: Feed, labels: np.ndarray | None, *, rows: bool) -> Sequence[tuple[Feed, np.ndarray | None]]:
    if not rows:
        return [(feed, labels)]
    return [
        ({n: v[i : i + 1] for n, v in feed.items()}, None if labels is None else labels[i : i + 1])
        for i in range(rows_of(feed))
    ]


def identity(sample: Feed) -> int:
    """What a sample is known by, of 256 bits."""
    digest = hashlib.sha256()
    for name in sorted(sample):
        add_digest(digest, name, sample[name])
    return int.from_bytes(digest.digest(), "big")


class _Shelf:
    """Copies of samples, as rows would keep the whole feed that they are views of; in files, once there are many."""

    def __init__(self) -> None:
        self._held = 0
        self._room = np.empty(0, np.uint8)

    def put(self, sample: Feed) -> Feed:
        """The same sample, wherever it lies."""
        return {n: self._put(v) if isinstance(v, np.ndarray) else v for n, v in sample.items()}

    def _put(self, value: np.ndarray) -> np.ndarray:
        self._held += value.nbytes
        if self._held <= _LARGE or value.dtype == object or not value.nbytes:
            return np.array(value)
        size = -(-value.nbytes // _ALIGNED) * _ALIGNED
        if size > len(self._room):
            rest(self._room)
            self._room = mapped(np.dtype(np.uint8), (max(size, _LARGE),))
        copy: np.ndarray = self._room[: value.nbytes].view(value.dtype).reshape(value.shape)
        copy[...] = value
        self._room = self._room[size:]
        return copy


def _stacked(feeds: Sequence[Feed]) -> Feed:
    return {name: _joined([f[name] for f in feeds]) for name in feeds[0]}


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One behind the other; in a file, where they are large."""
    large = sum(p.nbytes for p in parts) > _LARGE and parts[0].dtype != object
    return on_disk(parts) if large else np.concatenate(parts)


def _labels(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [p for p in parts if p is not None]
    return np.concatenate(known) if len(known) == len(parts) else None
