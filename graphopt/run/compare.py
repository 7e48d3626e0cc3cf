"""Whether a candidate still computes what the original computes, judged by the original's own noise.

Tolerance of a float output = 8 x the largest of

* |on - off|: the original with onnxruntime's optimizations against without them (which is the reference),
* |noisy - off|: its response to noise of one eps, in models that the caller prepared,
* 4 eps of its type x the largest magnitude of the output,

each over all feeds. Everything else must be equal, and NaN and infinities must stand at the same positions. Positions
(or whole outputs, where shapes differ) on which the original's own runs disagree are undecided: they do not count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ml_dtypes
import numpy as np

from graphopt.errors import InputError
from graphopt.run.session import Device, Feed, Port, Runnable, Session

__all__ = ["Comparison", "OutputError", "Reference", "interface_changes", "similar"]

_MARGIN: Final = 8.0
_EPS: Final = 4.0
_SIMILAR: Final = 0.01  # of the scale: far more than rounding, far less than another function


@dataclass(frozen=True)
class OutputError:
    """How far one output of the candidate is from the reference, over all feeds.

    `max_rel` is relative to the largest magnitude of the reference; `sqnr_db` is the ratio of signal to error, None
    where there is no error or no signal. `undecided` counts positions that do not count. Without `evidence` (the
    reference is the same, or NaN, whatever the feed) a pass says nothing.
    """

    name: str
    max_abs: float
    max_rel: float
    sqnr_db: float | None
    tolerance: float
    passed: bool
    undecided: int
    evidence: bool
    note: str

    def __bool__(self) -> bool:
        return self.passed


@dataclass(frozen=True)
class Comparison:
    """The verdict; true if every output passed and the interface is the same (`differences` says in words if not)."""

    outputs: tuple[OutputError, ...]
    feeds: int
    passed: bool
    differences: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.passed


class Reference:
    """The outputs of the original on some feeds, and how far its own runs differ from each other.

    Without optimizations is the reference; where onnxruntime cannot run that, with them. One session lives at a time,
    each made anew with the same seed and fed in the same order, so that random models repeat themselves.

    Args:
        model: The original.
        feeds: What to run it on; iterated again for each session.
        noisy: Models that compute the same up to injected noise.
        device: Where to run all of them, as in `Session`.
        threads: Threads inside one operator; 0 means all cores.
        seed: Seed of random operators.

    Raises:
        InputError: The original does not run on the feeds.
    """

    notes: tuple[str, ...]
    """What of the original did not run, in words."""
    levels: tuple[bool, ...]
    """Whether onnxruntime optimizes, for each way in which the original runs."""

    def __init__(
        self,
        model: Runnable,
        feeds: Iterable[Feed],
        *,
        noisy: Sequence[Runnable] = (),
        device: Device = "cpu",
        threads: int = 0,
        seed: int = 0,
    ) -> None:
        self._feeds = tuple(feeds) if iter(feeds) is feeds else feeds
        self._device, self._threads, self._seed = device, threads, seed
        others = [("with optimizations", model, True), *(("with injected noise", n, False) for n in noisy)]
        levels, notes = [False, True], []
        try:
            session = self._session(model, optimize=False)
            self._expected = [_leaves(session.run(feed)) for feed in self._feeds]
        except InputError as error:
            notes.append(f"without optimizations: {error}")
            levels = [True]
            session = self._session(*others.pop(0)[1:])
            self._expected = [_leaves(session.run(feed)) for feed in self._feeds]
        self.provider, self.inputs, self.outputs = session.provider, session.inputs, session.outputs
        del session  # one at a time
        self._noise = {p.name: _Noise([leaves[p.name] for leaves in self._expected]) for p in self.outputs}
        for words, other, optimize in others:
            try:
                self._listen(self._session(other, optimize=optimize))
            except InputError as error:
                notes.append(f"{words}: {error}")
                if optimize:
                    levels.remove(True)
        self.notes, self.levels = tuple(notes), tuple(levels)

    @property
    def tolerances(self) -> dict[str, float]:
        """Per output, the absolute difference that a candidate may show."""
        return {name: noise.tolerance for name, noise in self._noise.items()}

    def compare(
        self, candidate: Runnable, *, optimize: bool = False, atol: float | None = None, rtol: float | None = None
    ) -> Comparison:
        """Runs the candidate on the same feeds and judges every output that both models have.

        With `atol` or `rtol`, |candidate - reference| <= atol + rtol * |reference| replaces the derived tolerance.
        """
        bound = None if atol is None and rtol is None else (atol or 0.0, rtol or 0.0)
        count = len(self._expected)
        differences: tuple[str, ...] = ()
        try:
            session = self._session(candidate, optimize=optimize)
            differences = interface_changes(self, session)
            names = [p.name for p in session.outputs if p.name in self._noise]
            tallies = {n: _Tally(n, self._noise[n], bound) for n in names}
            for index, feed in enumerate(self._feeds if names else ()):
                for name, leaves in _leaves(session.run(feed, names)).items():
                    tallies[name].add(index, self._expected[index][name], leaves)
        except InputError as error:
            differences = (*differences, f"the candidate does not run: {error}")
            return Comparison((), count, passed=False, differences=differences)
        outputs = tuple(tally.verdict() for tally in tallies.values())
        return Comparison(outputs, count, all(outputs) and not differences, differences)

    def _listen(self, other: Session) -> None:
        for index, feed in enumerate(self._feeds):
            for name, leaves in _leaves(other.run(feed, list(self._noise))).items():
                self._noise[name].hear(index, self._expected[index][name], leaves)

    def _session(self, model: Runnable, optimize: bool) -> Session:  # noqa: FBT001 - always by name or from a table
        return Session(model, device=self._device, optimize=optimize, threads=self._threads, seed=self._seed)


class _Noise:
    """One output of the original: its type and scale, and what its own runs disagree about."""

    def __init__(self, runs: list[list[np.ndarray]]) -> None:
        leaves = [leaf for run in runs for leaf in run]
        self.eps = max((_eps(leaf.dtype) for leaf in leaves), default=0.0)
        self.scale = max((_largest(leaf) for leaf in leaves), default=0.0)
        self.evidence = _informative(runs)
        self.largest = 0.0
        self.undecided: dict[tuple[int, int], np.ndarray] = {}
        """(feed, leaf) -> mask of positions; a feed on which shapes differ is in `unstable` instead."""
        self.unstable: set[int] = set()

    @property
    def tolerance(self) -> float:
        return _MARGIN * max(self.largest, _EPS * self.eps * self.scale) if self.eps else 0.0

    def hear(self, feed: int, expected: list[np.ndarray], other: list[np.ndarray]) -> None:
        """Learns from another run of the original on a feed."""
        if _misfit(expected, other):
            self.unstable.add(feed)
            return
        for index, (a, b) in enumerate(zip(expected, other, strict=True)):
            gap, odd = _gap(a, b)
            self.largest = max(self.largest, float(gap.max(initial=0.0)))
            if odd.any():
                self.undecided[feed, index] = odd | self.undecided.get((feed, index), False)


class _Tally:
    """What one candidate adds up to on one output."""

    def __init__(self, name: str, noise: _Noise, bound: tuple[float, float] | None) -> None:
        self.name, self.noise = name, noise
        self.atol, self.rtol = bound or (noise.tolerance, 0.0)
        self.max_abs = self.excess = self.error = self.signal = 0.0
        self.mismatches = self.undecided = self.total = 0
        self.misfit = ""

    def add(self, feed: int, expected: list[np.ndarray], actual: list[np.ndarray]) -> None:
        """Takes in one more feed."""
        sizes = sum(leaf.size for leaf in expected)
        self.total += sizes
        if feed in self.noise.unstable:
            self.undecided += sizes
            return
        if misfit := _misfit(expected, actual):
            self.misfit = self.misfit or misfit
            return
        for index, (a, b) in enumerate(zip(expected, actual, strict=True)):
            gap, odd = _gap(a, b)
            if (mask := self.noise.undecided.get((feed, index))) is not None:
                self.undecided += int(mask.sum())
                gap[mask] = odd[mask] = 0
            self.mismatches += int(odd.sum())
            self.max_abs = max(self.max_abs, float(gap.max(initial=0.0)))
            if self.noise.eps:
                signal = _magnitude(a)
                self.excess = max(self.excess, float((gap - self.atol - self.rtol * signal).max(initial=0.0)))
                self.error += float(np.sum(np.square(gap)))
                self.signal += float(np.sum(np.square(signal)))

    def verdict(self) -> OutputError:
        scale = self.noise.scale
        decided = self.undecided < self.total or not self.total
        return OutputError(
            self.name,
            max_abs=self.max_abs,
            max_rel=self.max_abs / scale if scale else self.max_abs,
            sqnr_db=10 * math.log10(self.signal / self.error) if self.signal and self.error else None,
            tolerance=self.atol + self.rtol * scale,
            passed=not self.misfit and not self.mismatches and self.excess <= 0,
            undecided=self.undecided,
            evidence=self.noise.evidence and decided,
            note=self._note(decided=decided),
        )

    def _note(self, *, decided: bool) -> str:
        if self.misfit:
            return self.misfit
        if self.mismatches:
            what = "are NaN or infinite in only one of the two" if self.noise.eps else "differ"
            return f"{self.mismatches:,} of {self.total:,} values {what}"
        if self.excess > 0:
            return "the error exceeds the tolerance"
        if not decided:
            return "undecided: the original's own runs disagree"
        return "" if self.noise.evidence else "no evidence: the original gives the same whatever the feed"


def interface_changes(original: Session | Reference, candidate: Session) -> tuple[str, ...]:
    """What changed in the names, types and shapes of inputs and outputs, one phrase each."""
    return (
        *_changes("input", original.inputs, candidate.inputs),
        *_changes("output", original.outputs, candidate.outputs),
    )


def similar(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two results may be those of one function: float outputs alike to 1 % of their scale."""
    expected, actual = _leaves(a), _leaves(b)
    for name, leaves in expected.items():
        noise = _Noise([leaves])
        noise.hear(0, leaves, actual[name])
        if noise.eps and noise.largest > _SIMILAR * noise.scale:
            return False
    return True


def _changes(role: str, before: Sequence[Port], after: Sequence[Port]) -> Iterator[str]:
    old, new = {p.name: p for p in before}, {p.name: p for p in after}
    lost, gained = [n for n in old if n not in new], [n for n in new if n not in old]
    if len(lost) == len(gained):
        yield from (f"{role} {a!r} is now called {b!r}" for a, b in zip(lost, gained, strict=True))
    else:
        yield from (f"{role} {n!r} is missing" for n in lost)
        yield from (f"{role} {n!r} is new" for n in gained)
    if not lost and not gained and list(old) != list(new):
        yield f"the {role}s stand in another order"
    for a, b in ((old[n], new[n]) for n in old if n in new):
        if a.type != b.type:
            yield f"{role} {a.name!r} was a {a.type}, is a {b.type}"
        elif a.shape and b.shape and len(a.shape) != len(b.shape):  # () may be an unknown rank
            yield f"{role} {a.name!r} had {len(a.shape)} axes, has {len(b.shape)}"
        elif a.shape and b.shape and any(_fixed(role, x, y) for x, y in zip(a.shape, b.shape, strict=True)):
            yield f"{role} {a.name!r} had the shape {_shown(a.shape)}, has {_shown(b.shape)}"


def _fixed(role: str, before: int | str | None, after: int | str | None) -> bool:
    """Whether a dimension no longer takes, or gives, what it did. Knowing more about an output is no change."""
    return isinstance(after, int) and after != before and (role == "input" or isinstance(before, int))


def _shown(shape: Sequence[int | str | None]) -> str:
    return f"[{', '.join('?' if d is None else str(d) for d in shape)}]"


def _leaves(outputs: dict[str, Any]) -> dict[str, list[np.ndarray]]:
    """Every output as the list of its tensors: sequences and maps flattened, an empty optional none at all."""
    return {name: list(_flat(value)) for name, value in outputs.items()}


def _flat(value: Any) -> Iterator[np.ndarray]:
    match value:
        case None:
            return
        case dict():
            yield from (np.asarray(list(value)), np.asarray(list(value.values())))
        case list():
            for item in value:
                yield from _flat(item)
        case _:
            yield np.asarray(value)


def _misfit(expected: list[np.ndarray], actual: list[np.ndarray]) -> str:
    """How types or shapes differ, in words; empty if they do not."""
    if len(expected) != len(actual):
        return f"{len(expected)} tensors became {len(actual)}"
    for a, b in zip(expected, actual, strict=True):
        if a.dtype != b.dtype:
            return f"{a.dtype} became {b.dtype}"
        if a.shape != b.shape:
            return f"the shape {_shown(a.shape)} became {_shown(b.shape)}"
    return ""


def _gap(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|a - b| where both can be subtracted (else 0), and where they differ in a way that no tolerance covers."""
    if a.dtype == object:
        return np.zeros(a.shape), np.asarray(a != b)
    x, y = _wide(a), _wide(b)
    with np.errstate(all="ignore"):
        gap = np.asarray(np.abs(x - y))
        finite = np.isfinite(x) & np.isfinite(y)
        gap[~finite] = 0.0
        if not _eps(a.dtype):
            return gap, np.asarray(a != b)
        return gap, np.asarray(~(finite | (x == y) | (np.isnan(x) & np.isnan(y))))


def _wide(a: np.ndarray) -> np.ndarray:
    return a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)


def _magnitude(a: np.ndarray) -> np.ndarray:
    """|a| in float64, 0 where it is not finite."""
    with np.errstate(all="ignore"):
        size = np.asarray(np.abs(_wide(a)))
    size[~np.isfinite(size)] = 0.0
    return size


def _largest(a: np.ndarray) -> float:
    return 0.0 if a.dtype == object else float(_magnitude(a).max(initial=0.0))


def _eps(dtype: np.dtype[Any]) -> float:
    """Distance from 1 to the next number; 0 for types whose values must be equal."""
    return float(ml_dtypes.finfo(dtype).eps) if dtype.kind in "fcV" else 0.0  # type: ignore[no-untyped-call]


def _informative(runs: list[list[np.ndarray]]) -> bool:
    """Whether the values depend on the feed; of a single feed, whether they vary at all.

    Feeds may differ in shape: only the region that they share is compared, so that a row repeated along the batch is
    still the same output.
    """
    first = runs[0]
    if len(runs) == 1:
        return any(leaf.size == 1 or (leaf != leaf.ravel()[:1]).any() for leaf in first if leaf.size)
    return any(
        len(run) != len(first) or any(not _same(a, b) for a, b in zip(first, run, strict=True)) for run in runs[1:]
    )


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    if a.ndim != b.ndim:
        return False
    shared = tuple(slice(min(m, n)) for m, n in zip(a.shape, b.shape, strict=True))
    a, b = a[shared], b[shared]
    return bool(np.all((a == b) | ((a != a) & (b != b))))  # noqa: PLR0124 - NaN
