"""Whether a candidate still computes what the original computes, judged by the original's own noise.

Tolerance of a float value = 8 x the largest of

* |on - off|: the original with onnxruntime's optimizations against without them (which is the reference),
* |noisy - off|: its response to noise of one eps, in models that the caller prepared,
* |CPU - CUDA|: where it runs on CUDA, the same on the CPU,
* 4 eps of its type x the largest magnitude,

each over all feeds and all values of its population, as `noise` tells populations apart. Everything else must be equal,
and NaN and infinities must stand at the same positions. Positions (or whole outputs, where shapes differ) on which the
original's own runs disagree are undecided: they do not count. Nor does it count where a place along an axis was picked
(ArgMax, TopK) and another is given whose value, in the original, is within its tolerance of the one picked: a tie.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from graphopt.errors import InputError, UsageError
from graphopt.graph.collector import trimmed
from graphopt.graph.external import Runnable, weight_of
from graphopt.run.environment import Environment, environment
from graphopt.run.interface import changes
from graphopt.run.machine import HERE, Machine
from graphopt.run.noise import Noise, classes, gap, leaves, magnitude, misfit
from graphopt.run.runtime import CPU
from graphopt.run.session import Feed, Session

__all__ = ["Bound", "Comparison", "OutputError", "Pick", "Reference", "Way", "bound", "similar"]

Bound = tuple[float, float]
"""Absolute and relative tolerance."""
Pair = tuple[np.ndarray, np.ndarray]

_SIMILAR: Final = 0.01  # of the scale: far more than rounding, far less than another function
_EXCESS: Final = "the error exceeds the tolerance"


@dataclass(frozen=True)
class OutputError:
    """How far one output of the candidate is from the reference, over all feeds.

    `tolerance` is that of the largest values, `share` is |error| / tolerance where that is largest: above 1 the output
    fails. `max_rel` is relative to the largest magnitude of the reference; `sqnr_db` is the ratio of signal to error,
    None where there is no error or no signal. `undecided` counts positions that do not count. Without `evidence` (the
    reference is the same, or NaN, whatever the feed; or nothing is decided) a pass says nothing.
    """

    name: str
    max_abs: float
    max_rel: float
    sqnr_db: float | None
    tolerance: float
    share: float
    passed: bool
    undecided: int
    evidence: bool
    note: str

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        """What was found, as one sentence."""
        if self.note != _EXCESS:
            return f"output {self.name!r}: {self.note or 'within the tolerance'}"
        if math.isinf(self.share):
            return f"output {self.name!r} is off by {self.max_abs:.3g} where no error is allowed"
        return f"output {self.name!r} is off by {self.share:.3g} times its tolerance, at most by {self.max_abs:.3g}"


@dataclass(frozen=True)
class Comparison:
    """The verdict; true if every output passed and the interface is the same (`differences` says in words if not)."""

    outputs: tuple[OutputError, ...]
    feeds: int
    passed: bool
    differences: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.passed

    @property
    def evidence(self) -> bool:
        """Whether some output is decided and depends on the feeds; without it, a pass says nothing."""
        return any(o.evidence for o in self.outputs)


@dataclass(frozen=True)
class Way:
    """One of the ways in which every model is run that is compared."""

    words: str
    machine: Machine
    optimize: bool
    """Whether onnxruntime does."""

    def session(self, model: Runnable) -> Session:
        """A model made ready to run so; raises as `Session` does."""
        return self.machine.session(model, optimize=self.optimize, lasting=False)


class Reference:
    """The outputs of the original on some feeds, and how far its own runs differ from each other.

    Without optimizations is the reference; where onnxruntime cannot run that, with them. What runs on CUDA then runs on
    the CPU as well, original and candidates, and a candidate that CUDA does not take has failed. One session lives at a
    time, each made anew with the same seed and fed in the same order, so that random models repeat themselves.

    Args:
        model: the original.
        feeds: what to run it on; iterated again for each session.
        noisy: models that compute the same up to injected noise; gone through once.
        machine: where to run all of them.
        picks: by the names of outputs that hold places, what these were picked from.
        twice: whether what runs on CUDA runs on the CPU as well. Random numbers are others there.

    Raises:
        InputError: the original does not run on the feeds.
    """

    notes: tuple[str, ...]
    """What of the original did not run, in words."""
    ways: tuple[Way, ...]
    """Those in which the original runs; the first one is the reference."""
    environment: Environment
    """What the reference ran on."""

    def __init__(
        self,
        model: Runnable,
        feeds: Iterable[Feed],
        machine: Machine = HERE,
        *,
        noisy: Iterable[Runnable] = (),
        picks: Mapping[str, Pick] | None = None,
        twice: bool = True,
    ) -> None:
        self._picks = picks or {}
        self._feeds = tuple(feeds) if iter(feeds) is feeds else feeds
        ways = [
            Way("without optimizations", machine, optimize=False),
            Way("with optimizations", machine, optimize=True),
        ]
        notes: list[str] = []
        try:
            session = self._first(ways[0], model)
        except InputError as error:
            notes.append(f"{ways.pop(0).words}: {error}")
            session = self._first(ways[0], model)
        self.environment, self.inputs, self.outputs = environment(session), session.inputs, session.outputs
        self.overridable = session.overridable
        elsewhere = session.provider != CPU
        del session  # one at a time
        trimmed(weight_of(model))
        ways = [replace(way, machine=replace(machine, device="cuda" if elsewhere else "cpu")) for way in ways]
        others = ways[1:]
        if elsewhere and twice:
            others.append(Way("on the CPU", replace(machine, device="cpu"), optimize=False))
        self._noise = {p.name: Noise([run[p.name] for run in self._expected]) for p in self.outputs}
        heard = [self._heard(way, model, notes) for way in others]
        for other in noisy:
            self._heard(replace(ways[0], words="with injected noise", optimize=False), other, notes)
            del other  # before the next one is made
        self.ways = (ways[0], *(way for way, runs in zip(others, heard, strict=True) if runs))
        self.notes = tuple(notes)

    @property
    def provider(self) -> str:
        """The execution provider that the reference ran on."""
        return self.environment.provider

    @property
    def twice(self) -> bool:
        """Whether the CPU ran what another device ran."""
        return self.ways[0].machine.device != self.ways[-1].machine.device

    def compare(
        self, candidate: Runnable, way: Way | None = None, *, atol: float | None = None, rtol: float | None = None
    ) -> Comparison:
        """Runs the candidate on the same feeds, as the reference was by default, and judges what both models give.

        With `atol` or `rtol`, |candidate - reference| <= atol + rtol * |reference| replaces the derived tolerance.

        Raises:
            UsageError: `atol` or `rtol` is negative, infinite or not a number.
        """
        given = bound(atol, rtol)
        count = len(self._expected)
        differences: tuple[str, ...] = ()
        try:
            session = (way or self.ways[0]).session(candidate)
            differences = changes(self, session)
            names = [p.name for p in session.outputs if p.name in self._noise]
            runs = ((i, session.run(feed, names)) for i, feed in enumerate(self._feeds if names else ()))
            outputs = self.judged(names, runs, given)
        except InputError as error:
            differences = (*differences, f"the candidate does not run: {error}")
            return Comparison((), count, passed=False, differences=differences)
        return Comparison(outputs, count, all(outputs) and not differences, differences)

    def judged(
        self,
        names: Sequence[str],
        runs: Iterable[tuple[int, Mapping[str, Any]]],
        bound: Bound | None = None,
    ) -> tuple[OutputError, ...]:
        """The verdict on some outputs.

        Args:
            names: of outputs of the reference.
            runs: the number of a feed, and what these outputs are said to be on it.
            bound: atol and rtol, in place of the derived tolerance.
        """
        tallies = {name: self._tally(name, bound) for name in names}
        for index, found in runs:
            for name, tensors in leaves(dict(found)).items():
                tallies[name].add(index, self._expected[index][name], tensors)
        return tuple(tally.verdict() for tally in tallies.values())

    @property
    def expected(self) -> Sequence[Mapping[str, list[np.ndarray]]]:
        """For each feed, the tensors of each output."""
        return self._expected

    def _tally(self, name: str, bound: Bound | None) -> _Tally:
        noise = self._noise[name]
        evidence = noise.informative or not self.inputs  # constants are all there is
        return _Tally(name, noise, bound, self._picks.get(name), evidence=evidence)

    def tied(self, name: str, axis: int, feed: int, places: Pair, bound: Bound | None) -> np.ndarray:
        """Where two places along an axis of an output hold values that its tolerance does not tell apart.

        Args:
            name: the output.
            axis: along which the places are.
            feed: its number.
            places: the two, of one shape: that of the output with another extent along the axis, or without it.
            bound: instead of the derived tolerance.
        """
        (values,) = self._expected[feed][name]
        first, second = (p if p.ndim == values.ndim else np.expand_dims(p, axis) for p in places)
        axis %= values.ndim
        rest = tuple(n for i, n in enumerate(values.shape) if i != axis)
        others = tuple(n for i, n in enumerate(first.shape) if i != axis)
        if first.dtype.kind == "O" or first.ndim != values.ndim or others != rest:  # text of places is no place
            return np.zeros(places[0].shape, bool)
        known = (second >= 0) & (second < values.shape[axis])
        a, b = (np.take_along_axis(values, np.where(known, p, 0).astype(np.int64), axis) for p in (first, second))
        error, odd = gap(a, b)
        allowed = _allowed(self._noise[name].tolerances(), bound, magnitude(a))
        return np.asarray(known & ~odd & (error <= allowed)).reshape(places[0].shape)

    def _first(self, way: Way, model: Runnable) -> Session:
        session = way.session(model)
        self._expected = [leaves(session.run(feed)) for feed in self._feeds]
        return session

    def _heard(self, way: Way, model: Runnable, notes: list[str]) -> bool:
        """Listen to another run of the original, if it runs so."""
        try:
            other = way.session(model)
            for index, feed in enumerate(self._feeds):
                for name, found in leaves(other.run(feed, list(self._noise))).items():
                    self._noise[name].hear(index, self._expected[index][name], found)
        except InputError as error:
            notes.append(f"{way.words}: {error}")
            return False
        del other
        trimmed(weight_of(model))
        return True


@dataclass(frozen=True)
class Pick:
    """What the places in an output were picked from."""

    source: Reference
    """Of the original, with that value as an output."""
    name: str
    """Of the value."""
    axis: int


def bound(atol: float | None, rtol: float | None) -> Bound | None:
    """What replaces the derived tolerance, if one of both is given.

    Raises:
        UsageError: one is negative, infinite or not a number.
    """
    for name, given in (("atol", atol), ("rtol", rtol)):
        if given is not None and not 0 <= given < math.inf:
            raise UsageError(f"{name} is {given}: give a number that is 0 or more")
    return None if atol is None and rtol is None else (atol or 0.0, rtol or 0.0)


def _allowed(tolerances: np.ndarray, bound: Bound | None, signal: np.ndarray) -> np.ndarray:
    """The tolerance of values of these magnitudes."""
    return np.asarray(tolerances[classes(signal)] if bound is None else bound[0] + bound[1] * signal)


class _Tally:
    """What one candidate adds up to on one output."""

    def __init__(self, name: str, noise: Noise, bound: Bound | None, pick: Pick | None, *, evidence: bool) -> None:
        self.name, self.noise, self.bound, self.pick, self.evidence = name, noise, bound, pick, evidence
        self.tolerances = noise.tolerances()
        self.max_abs = self.share = self.error = self.signal = 0.0
        self.mismatches = self.undecided = self.total = 0
        self.misfit = ""

    def add(self, feed: int, expected: list[np.ndarray], actual: list[np.ndarray]) -> None:
        """Takes in one more feed."""
        sizes = sum(leaf.size for leaf in expected)
        self.total += sizes
        if feed in self.noise.unstable:
            self.undecided += sizes
            return
        if words := misfit(expected, actual):
            self.misfit = self.misfit or words
            return
        for index, (a, b) in enumerate(zip(expected, actual, strict=True)):
            error, odd = gap(a, b)
            if (mask := self.noise.undecided.get((feed, index))) is not None:
                self.undecided += int(mask.sum())
                error[mask] = odd[mask] = 0
            if self.pick and odd.any():
                ties = odd & self.pick.source.tied(self.pick.name, self.pick.axis, feed, (a, b), self.bound)
                self.undecided += int(ties.sum())
                error[ties] = odd[ties] = 0
            self.mismatches += int(odd.sum())
            self.max_abs = max(self.max_abs, float(error.max(initial=0.0)))
            if self.noise.eps:
                signal = magnitude(a)
                wrong = error > 0
                with np.errstate(divide="ignore", over="ignore"):
                    used = error[wrong] / self.allowed(signal[wrong])
                    self.error += float(np.sum(np.square(error)))
                    self.signal += float(np.sum(np.square(signal)))
                self.share = max(self.share, float(used.max(initial=0.0)))

    def allowed(self, signal: np.ndarray) -> np.ndarray:
        """The tolerance of values of these magnitudes."""
        return _allowed(self.tolerances, self.bound, signal)

    def verdict(self) -> OutputError:
        scale = self.noise.scale
        note = self._doubt()
        return OutputError(
            self.name,
            max_abs=self.max_abs,
            max_rel=self.max_abs / scale if scale else self.max_abs,
            sqnr_db=10 * math.log10(self.signal / self.error) if self.signal and self.error else None,
            tolerance=float(self.allowed(np.array(scale))) if self.noise.eps else 0.0,
            share=self.share,
            passed=not self.misfit and not self.mismatches and self.share <= 1,
            undecided=self.undecided,
            evidence=not note,
            note=self._failure() or note,
        )

    def _failure(self) -> str:
        if self.misfit:
            return self.misfit
        if self.mismatches:
            what = "are NaN or infinite in only one of the two" if self.noise.eps else "differ"
            return f"{self.mismatches:,} of {self.total:,} values {what}"
        return _EXCESS if self.share > 1 else ""

    def _doubt(self) -> str:
        """Why a pass would say nothing."""
        if self.total and self.undecided >= self.total:
            return "undecided: the original's own runs disagree"
        if self.bound is None and self.noise.drowned:
            return "no evidence: the original's own noise is as large as its values"
        return "" if self.evidence else "no evidence: the original gives the same whatever the feed"


def similar(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two results may be those of one function: float outputs alike to 1 % of their scales."""
    expected, actual = leaves(a), leaves(b)
    for name, tensors in expected.items():
        noise = Noise([tensors])
        noise.hear(0, tensors, actual[name])
        if noise.loudest > _SIMILAR:
            return False
    return True
