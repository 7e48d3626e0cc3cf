"""Whether a model bears disturbed inputs less well than the one that it replaces.

    noise       Gaussian noise on floats, of a part of the deviation of the data
    bits        floats rounded to so many bits over the range of the data
    brightness  images shifted by a part of the deviation of the data
    contrast    images scaled about the mean of the data
    tokens      a share of integer ids replaced by the one that the data holds most often

What is disturbed stays within the range of the data, but for noise. Inputs of zeros and ones alone are masks, and stay;
so do integers that are the same in all samples, such as positions, and those with one number for each sample.

A sample is *lost* where the right answer becomes a wrong one (without labels: where the answer changes); of outputs
that are no scores, a sample loses as much as its output changes, as a part of the outputs' size. Both models are given
the same disturbed samples, so the losses are paired: what counts is how many more the candidate loses. Of samples that
only one of the two loses, half would be the candidate's by chance (McNemar, Note on the Sampling Error of the
Difference between Correlated Proportions or Percentages, 1947). Each disturbance is judged with 95 % confidence.

Random numbers are drawn from the seed and the sample alone: neither batches nor the order of samples change a result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from graphopt.analysis.metrics import Tally
from graphopt.analysis.robustness import LEVELS
from graphopt.analysis.samples import identity
from graphopt.graph.external import Runnable
from graphopt.run.data import Pair, rows_of
from graphopt.run.machine import HERE, Machine
from graphopt.run.noise import is_float
from graphopt.run.session import Feed

__all__ = ["Disturbed", "disturbed"]

_BITS: Final = (8, 4)
_SHIFTS: Final = (-0.5, 0.5)
"""Of brightness, as parts of the deviation; contrast is scaled by one more than these."""
_SHARES: Final = (0.05, 0.15)
"""Of tokens."""
_IMAGE: Final = 4
"""Axes."""
_COLOURS: Final = {1, 3}
_SEQUENCE: Final = 2
"""Axes of ids, at least."""
_SURE: Final = 1.96
"""Standard errors on each side of what 95 % of normal numbers are in."""

_Way: TypeAlias = Callable[[NDArray[Any], NDArray[np.float32]], NDArray[Any]]
"""From values, and random numbers for each of them, to disturbed values."""


@dataclass(frozen=True)
class Disturbed:
    """How both models bear one disturbance."""

    name: str
    samples: int
    accuracy: tuple[float, float] | None
    """Of the reference and of the candidate, where there are labels."""
    kept: tuple[float, float] | None
    """Share of samples to which each gives the answer that it gives undisturbed; None where outputs are no scores."""
    agreement: float | None
    """Share of samples to which both give the same answer."""
    lost: tuple[float, float]
    """Share of samples lost, or how much outputs change as a part of their size, of each."""
    extra: float
    """How much more the candidate loses."""
    low: float
    """With 95 % confidence it is at least this."""
    high: float
    """And at most this."""
    fragile: bool
    """Whether the candidate loses more, beyond doubt."""


def disturbed(
    reference: Runnable,
    candidate: Runnable,
    data: Callable[[], Iterable[Pair]],
    machine: Machine = HERE,
    *,
    rows: bool = True,
) -> tuple[Disturbed, ...]:
    """Give both models disturbed samples; none where no input can be disturbed.

    Args:
        reference: the model to compare with.
        candidate: its replacement.
        data: feeds and labels, from the beginning each time that it is called; it is read twice.
        machine: where and how to run, and the seed of what is random.
        rows: whether the rows of feeds are samples; else each feed is one.
    """
    seen: dict[str, _Seen] = {}
    for feed, _ in data():
        for name, value in feed.items():
            if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
                seen.setdefault(name, _Seen()).add(value, rows=rows)
    ways = {name: ways for name, one in seen.items() if (ways := one.ways())}
    counts = {word: _Count() for disturbances in ways.values() for word in disturbances}
    sessions = [machine.session(m) for m in (reference, candidate)]
    for feed, labels in data() if counts else ():
        clean = [session.run(feed) for session in sessions]
        drawn = _drawn(feed, ways, machine.seed, rows=rows)
        for word, count in counts.items():
            changed = {n: ways[n][word](feed[n], x) for n, x in drawn.items() if word in ways[n] and n in feed}
            found = [session.run(feed | changed) for session in sessions]
            count.add(feed, clean, found, labels)
    return tuple(count.told(word) for word, count in counts.items())


def _drawn(feed: Feed, names: Iterable[str], seed: int, *, rows: bool) -> dict[str, NDArray[np.float32]]:
    """For some inputs, normal numbers for floats and numbers from 0 to 1 for integers."""
    count = rows_of(feed) if rows else 1
    samples = [{n: v[i : i + 1] for n, v in feed.items()} if rows else feed for i in range(count)]
    seeds = [(seed, identity(sample)) for sample in samples]
    found = {}
    for name in (n for n in names if n in feed):
        parts = []
        for sample, numbers in zip(samples, seeds, strict=True):
            rng, x = np.random.default_rng((*numbers, *name.encode())), sample[name]
            parts.append((rng.standard_normal if x.dtype.kind == "f" else rng.random)(x.shape, np.float32))
        found[name] = np.concatenate(parts) if rows else parts[0]
    return found


class _Seen:
    """What the data holds for one input."""

    def __init__(self) -> None:
        self._low, self._high, self._sums = np.inf, -np.inf, np.zeros(3)  # of 1, x, x²
        self._ids: Counter[int] = Counter()
        self._first: NDArray[Any] | None = None
        self._mask, self._same = True, True

    def add(self, value: NDArray[Any], *, rows: bool) -> None:
        """Take in what one feed holds."""
        x = value[np.isfinite(value)].astype(np.float64)
        self._low, self._high = min(self._low, x.min(initial=np.inf)), max(self._high, x.max(initial=-np.inf))
        self._sums += x.size, x.sum(), x @ x
        self._mask = self._mask and bool(((value == 0) | (value == 1)).all())
        first = value[:1] if rows else value
        self._first = first if self._first is None else self._first
        self._same = self._same and self._first.shape == first.shape and bool((value == self._first).all())
        if value.dtype.kind != "f":
            ids, counts = np.unique(value, return_counts=True)
            self._ids.update(dict(zip(ids.tolist(), counts.tolist(), strict=True)))

    def ways(self) -> dict[str, _Way]:
        """How it can be disturbed, by name; nothing of masks, of what never changes, and of what is not finite."""
        if self._first is None or self._mask or self._same or not self._sums[0]:
            return {}
        return self._of_tokens() if self._first.dtype.kind != "f" else self._of_floats()

    def _of_tokens(self) -> dict[str, _Way]:
        if self._first is None or self._first.ndim < _SEQUENCE:
            return {}
        common = max(self._ids, key=lambda i: (self._ids[i], -i))

        def dropped(share: float) -> _Way:
            return lambda x, r: np.where(r < share, x.dtype.type(common), x)

        return {f"{share:.0%} of tokens": dropped(share) for share in _SHARES}

    def _of_floats(self) -> dict[str, _Way]:
        count, total, squares = self._sums
        mean = total / count
        deviation = float(np.sqrt(max(0.0, squares / count - mean**2)))
        low, high = self._low, self._high

        def noise(level: float) -> _Way:
            return lambda x, r: (x + level * deviation * r).astype(x.dtype)

        def rounded(bits: int) -> _Way:
            step = (high - low) / (2**bits - 1)
            return lambda x, _: (low + step * np.rint((x - low) / step)).astype(x.dtype)

        def brighter(shift: float) -> _Way:
            return lambda x, _: np.clip(x + shift * deviation, low, high).astype(x.dtype)

        def starker(scale: float) -> _Way:
            return lambda x, _: np.clip(mean + scale * (x - mean), low, high).astype(x.dtype)

        ways = {f"noise of {level:g}": noise(level) for level in LEVELS if level}
        ways |= {f"{bits} bits": rounded(bits) for bits in _BITS}
        if self._is_image:
            ways |= {f"brightness {shift:+g}": brighter(shift) for shift in _SHIFTS}
            ways |= {f"contrast {1 + shift:g}": starker(1 + shift) for shift in _SHIFTS}
        return ways

    @property
    def _is_image(self) -> bool:
        shape = () if self._first is None else self._first.shape
        return len(shape) == _IMAGE and bool({shape[1], shape[-1]} & _COLOURS)


class _Count:
    """What is counted under one disturbance."""

    def __init__(self) -> None:
        self._own = Tally(), Tally()
        """Of each model, disturbed against undisturbed."""
        self._both = Tally()
        self._errors: tuple[list[NDArray[np.float64]], ...] = ([], [])
        self._power = np.zeros(2)

    def add(
        self,
        feed: Feed,
        clean: Sequence[Mapping[str, Any]],
        found: Sequence[Mapping[str, Any]],
        labels: NDArray[Any] | None,
    ) -> None:
        """Take in one feed, and what each model makes of it and of the disturbed one."""
        held = [*feed.values(), *(v for outputs in clean for v in _floats(outputs).values())]
        count = {len(v) if isinstance(v, np.ndarray) and v.ndim else 0 for v in held}
        rows = max(count) if len(count) == 1 else 0
        for model, (tally, errors) in enumerate(zip(self._own, self._errors, strict=True)):
            tally.add(feed, clean[model], found[model], labels)
            power, error = _squares(clean[model], found[model], rows)
            self._power[model] += power
            errors.append(error)
        self._both.add(feed, found[0], found[1], labels)

    def told(self, name: str) -> Disturbed:
        """All of it."""
        own = [tally.metrics() for tally in self._own]
        answers = [tally.guesses() for tally in self._own]
        truth = self._own[0].truth
        if answers[0] is not None and answers[1] is not None:
            lost = [_lost(*answer, truth) for answer in answers if answer is not None]
        else:
            errors = [np.concatenate(e) for e in self._errors]
            lost = [np.sqrt(e * len(e) / p) if p else e for e, p in zip(errors, self._power, strict=True)]
        extra = lost[1] - lost[0]
        low, high = _paired(extra, shares=all(answer is not None for answer in answers))
        accuracy, kept = ([m[key][1] for m in own if key in m] for key in ("accuracy", "agreement"))
        return Disturbed(
            name,
            len(extra),
            (accuracy[0], accuracy[1]) if len(accuracy) == len(own) else None,
            (kept[0], kept[1]) if len(kept) == len(own) else None,
            self._both.metrics().get("agreement", (1.0, None))[1],
            (float(lost[0].mean()), float(lost[1].mean())),
            float(extra.mean()),
            low,
            high,
            low > 0,
        )


def _lost(clean: NDArray[Any], found: NDArray[Any], truth: NDArray[Any] | None) -> NDArray[np.float64]:
    """1 for each sample whose answer was right, or that of the model without labels, and is not any more."""
    right = clean if truth is None else truth
    lost: NDArray[np.bool_] = (clean == right) & (found != right)
    return lost.astype(np.float64)


def _paired(extra: NDArray[np.float64], *, shares: bool) -> tuple[float, float]:
    """Where the mean of paired differences lies with 95 % confidence; of shares they are −1, 0 and 1.

    For shares: Agresti and Min, Simple Improved Confidence Intervals for Comparing Matched Proportions, 2005.
    """
    count, mean = len(extra), float(extra.mean())
    error = float(extra.std(ddof=1)) / count**0.5 if count > 1 else np.inf
    if shares:
        count += 2
        mean = float(extra.sum()) / count
        error = ((np.abs(extra).sum() + 1) / count - mean**2) ** 0.5 / count**0.5
    return float(mean - _SURE * error), float(mean + _SURE * error)


def _floats(outputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    return {n: v for n, v in outputs.items() if isinstance(v, np.ndarray) and is_float(v.dtype)}


def _squares(clean: Mapping[str, Any], found: Mapping[str, Any], rows: int) -> tuple[float, NDArray[np.float64]]:
    """The squares of all float outputs, and those of their changes sample by sample; without rows there is one.

    An output that gets another shape has lost all that it was.
    """
    power, changes = 0.0, np.zeros(rows or 1)
    for name, value in _floats(clean).items():
        other = found[name] if found[name].shape == value.shape else np.zeros_like(value)
        before, after = (v.astype(np.float64).reshape(rows or 1, -1) for v in (value, other))
        known = np.isfinite(before) & np.isfinite(after)
        power += float(np.square(before, where=known, out=np.zeros_like(before)).sum())
        changes += np.square(after - before, where=known, out=np.zeros_like(before)).sum(axis=1)
    return power, changes
