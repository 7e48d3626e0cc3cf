"""Feeds made up for a model, by search: shapes and values are tried until the original runs.

Every symbolic dimension takes two extents if it can, neither of them 1, which would hide errors of broadcasting. The
tries happen in a child process, since a wrong guess may crash an operator or never end.

Once the model runs, feeds that show more are added if it gives sensible results on them: large floats, negative
integers, floats of both signs where one was thought to be safe, and a single row.
"""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from graphopt.errors import NeedsData, UsageError
from graphopt.graph.domain import Domain
from graphopt.graph.external import Runnable, weight_of
from graphopt.run import trial
from graphopt.run.child import Child, ChildDied, ChildFailed, Limits
from graphopt.run.compare import similar
from graphopt.run.dims import Binding, Extents
from graphopt.run.noise import leaves
from graphopt.run.session import FAILS, Feed, Port
from graphopt.run.values import STYLES, Style, equal, value

__all__ = ["Binding", "Feeds", "generate"]

_ROWS: Final = 2
_COUNT: Final = 2
"""Feeds that must run at each binding; their values follow different laws."""
_EXTENTS: Final = (5, 8, 16, 32, 64, 128, 256, 512, 3, 2)
_SPATIAL: Final = (32, 64, 224, 128, 256, 320, 640, 96, 16, 8)
_LONG: Final = (1024, 4096, 16000)  # of sound, most often; slow to try elsewhere
_RANKS: Final = ((0, 2), (1, 1), (2, 2), (3, 3), (4, 4), (0, 1), (0, 3))
"""Numbers of axes to try for a tensor and for the items of a sequence, where the model does not tell."""

_SECONDS: Final = 10.0  # for the whole search
_TRY_SECONDS: Final = 12.0  # for one run of a small model
_BYTES_PER_SECOND: Final = 1 << 25  # what a slow machine loads and runs of a large one
_TRIES: Final = 400
_GROWTH: Final = 1 << 21  # of one input, by its symbolic dimensions together
_MEMORY: Final = (3 << 29, 4 << 30)
"""Bytes for a model without weights, to which 16 times its size comes, and where 4 times the size is enough."""
_SHARE: Final = 16  # of that memory, for one feed: several are held at a time, here and in the child
_DEATHS: Final = 3
"""Tries that kill the worker until it is taken to be the model's fault, not that of what it was fed."""
_ANY: Final = Domain()


@dataclass(frozen=True)
class Feeds:
    """Generated feeds on which the model ran, with the binding of symbolic dimensions that each of them has.

    `draw` makes feed number n at the first of the bindings, for any n; the model was not run on those beyond `feeds`.
    """

    feeds: tuple[Feed, ...]
    bindings: tuple[Binding, ...]
    draw: Callable[[int], Feed] = field(repr=False, compare=False)

    def __iter__(self) -> Iterator[Feed]:
        return iter(self.feeds)

    def __len__(self) -> int:
        return len(self.feeds)

    def __str__(self) -> str:
        return f"{len(self)} generated feeds ({' and '.join(dict.fromkeys(map(str, self.bindings)))})"


def generate(
    model: Runnable,
    *,
    domains: Mapping[str, Domain] = MappingProxyType({}),
    set_dims: Mapping[str, int] = MappingProxyType({}),
    seed: int = 0,
    child: Child | None = None,
) -> Feeds:
    """Feeds on which the model runs, at up to two bindings, and at one of single rows.

    Args:
        model: the original.
        domains: what values its inputs admit, as far as known.
        set_dims: extents that the user decided, by symbol (or `input[axis]` for an unnamed dimension).
        seed: the same seed gives the same feeds.
        child: where to run it, if there is one already.

    Raises:
        UsageError: `set_dims` names a symbol that no input has.
        NeedsData: nothing that was tried runs.
        InputError: the model does not load.
    """
    size = weight_of(model)
    limits = Limits(_TRY_SECONDS + size / _BYTES_PER_SECOND, min(_MEMORY[0] + 16 * size, _MEMORY[1] + 4 * size))
    with trial.within(limits, child) as limited:
        ports, optimize = trial.inputs(limited, model)
        found = _searched(limited, model, ports, domains, set_dims, seed, optimize=optimize)
        trial.endure(limited, model, found.feeds[:1], levels=(True,))
        return found


def _searched(
    child: Child,
    model: Runnable,
    ports: tuple[Port, ...],
    domains: Mapping[str, Domain],
    set_dims: Mapping[str, int],
    seed: int,
    *,
    optimize: bool,
) -> Feeds:
    if odd := [p for p in ports if p.element is None]:
        raise NeedsData(f"no values can be made up for input {odd[0].name!r} of type {odd[0].type}: give --data")
    symbols = Extents(ports).symbols
    if unknown := [s for s in set_dims if s not in symbols]:
        raise UsageError(
            f"--set {unknown[0]}: the inputs have no such dimension; they have: {', '.join(symbols) or 'none'}"
        )
    clock, error = _Clock(), ""
    for ranked in _ranked(ports):
        search = _Search(child, model, optimize, ranked, domains, dict(set_dims), seed, clock)
        if found := search.run():
            return found
        error = error or search.error
    raise NeedsData(f"no generated feed runs on this model, so give --data (the first try failed: {error})")


class _Clock:
    """Bounds the search in time and in tries."""

    def __init__(self) -> None:
        self._end = time.monotonic() + _SECONDS
        self._tries = 0
        self.deaths = 0

    def tick(self) -> None:
        self._tries += 1

    @property
    def over(self) -> bool:
        return self._tries >= _TRIES or self.deaths >= _DEATHS or time.monotonic() > self._end


@dataclass
class _Search:
    """The search over bindings and styles, for inputs whose ranks are given."""

    child: Child
    model: Runnable
    optimize: bool
    ports: tuple[Port, ...]
    domains: Mapping[str, Domain]
    fixed: dict[str, int]
    seed: int
    clock: _Clock
    error: str = ""

    def __post_init__(self) -> None:
        self.extents = Extents(self.ports)
        free = [s for s in self.extents.symbols if s not in self.fixed]
        self.free = sorted(free, key=self.extents.leading.__contains__)  # the batch last: it is seldom what is wrong
        self.sizes = {p.name: math.prod(d for d in p.shape or () if isinstance(d, int)) for p in self.ports}
        self.hints: dict[int, None] = {}  # numbers that error messages mention
        self.mentioned: tuple[int, ...] = ()  # those of the last one

    def run(self) -> Feeds | None:
        """Feeds at two bindings, or at one if nothing can vary; those of single rows come last."""
        for dims, style in self._candidates():
            if feeds := self._try(dims, style):
                style, feeds = self._steadier(dims, style, feeds)  # noqa: PLW2901 - the loop ends here
                more = self._more(dims, style, feeds[0])
                found = [(dims, feed) for feed in feeds] + [m for m in more if m[0] == dims]
                if other := self._vary(dims, style):
                    found += [(other[0], feed) for feed in other[1]]
                found += [m for m in more if m[0] != dims]
                bindings = tuple(Binding(bound) for bound, _ in found)
                return Feeds(tuple(feed for _, feed in found), bindings, partial(self._draw, dims, style))
            if self.clock.over or "Invalid rank for input" in self.error:
                return None
        return None

    def _candidates(self) -> Iterator[tuple[dict[str, int], Style]]:
        """Bindings and styles, likely ones first."""
        uniform = list(self._uniform())
        for base in uniform[:3]:
            yield base, STYLES[0]
            for number in self.mentioned:  # why it failed
                yield from (({**base, s: number}, STYLES[0]) for s in self.free)
        yield from itertools.product(uniform[:4], STYLES[1:])
        yield from itertools.product(uniform[3:], STYLES[:1])
        for base, symbol in itertools.product(uniform[:2], self.free):
            yield from (({**base, symbol: n}, STYLES[0]) for n in self._extents())
        yield from (({**uniform[0], s: n}, STYLES[0]) for s in self.free for n in _LONG)
        yield from itertools.product(uniform[4:], STYLES[1:])
        yield from itertools.product(self._single_rows(), STYLES)
        rng = np.random.default_rng(self.seed)
        while self.free:
            choice = rng.choice(self._extents(), len(self.free)).tolist()
            yield self._bind(dict(zip(self.free, choice, strict=True))), STYLES[int(rng.integers(len(STYLES)))]

    def _uniform(self) -> Iterator[dict[str, int]]:
        """Bindings that give all symbols of a kind the same extent."""
        leading, spatial = self.extents.leading, self.extents.spatial
        if not set(self.free) - leading:
            yield self._bind(dict.fromkeys(self.free, _ROWS))
        else:
            for extent, side in zip(_EXTENTS, _SPATIAL, strict=True):
                yield self._bind({s: _ROWS if s in leading else side if s in spatial else extent for s in self.free})
        if self.free:
            yield from (self._bind(dict.fromkeys(self.free, n)) for n in _EXTENTS[:5])

    def _single_rows(self) -> Iterator[dict[str, int]]:
        """Rather one row than nothing."""
        for extent in (*_EXTENTS, 1) if self.free else ():
            yield self._bind({s: 1 if s in self.extents.leading else extent for s in self.free})

    def _extents(self) -> list[int]:
        return list(dict.fromkeys((*self.hints, *_EXTENTS, *_SPATIAL, 1)))  # 1 hides errors, so it comes last

    def _bind(self, dims: Mapping[str, int]) -> dict[str, int]:
        bound = {**dims, **self.fixed}
        return {s: bound[s] for s in self.extents.symbols}

    def _steadier(self, dims: dict[str, int], style: Style, feeds: list[Feed]) -> tuple[Style, list[Feed]]:
        """The first style on whose feeds onnxruntime's optimizations keep the outputs, if integers are guessed.

        Its attention, for one, takes every mask to be 0 or 1: with other numbers it computes something else, and a
        comparison would take that for noise of the model.
        """
        if not any(p.element is not None and p.element.kind in "iu" and p.name not in self.domains for p in self.ports):
            return style, feeds
        for other in STYLES[STYLES.index(style) :]:
            tried = feeds if other is style else self._try(dims, other)
            if tried and self._is_steady(tried[0]):
                return other, tried
        return style, feeds

    def _is_steady(self, feed: Feed) -> bool:
        off, on = (self._outputs(feed, optimize=optimize) for optimize in (False, True))
        return off is not None and on is not None and similar(off, on)

    def _outputs(self, feed: Feed, *, optimize: bool) -> dict[str, Any] | None:
        try:
            return self.child.evaluate(self.model, feed, optimize=optimize)
        except ChildFailed:
            return None

    def _more(self, dims: dict[str, int], style: Style, plain: Feed) -> list[tuple[dict[str, int], Feed]]:
        """Feeds that are bolder than those of `style`: at once if the model takes that, else one way at a time."""
        base = dims, style
        ways = [replace(style, laws=("spread",)), replace(style, low=-style.high), replace(style, beyond=True)]
        bold = dims, replace(style, laws=("spread",), low=-style.high, beyond=True)
        single = dims | {s: 1 for s in self.free if s in self.extents.leading}
        outputs = self._outputs(plain, optimize=self.optimize) or {}
        taken = partial(self._taken, base=base, finite=_is_finite(outputs), steady=self._is_steady(plain))
        found = taken([bold] + [(single, style)] * (single != dims))
        if not any(bound == dims for bound, _ in found):
            found += taken([(dims, way) for way in ways])
        return found

    @property
    def _turns(self) -> range:
        """Numbers of bold feeds: two of each kind where a lone truth value picks a branch, so that both see it."""
        lone = any(p.element is not None and p.element.kind == "b" and self.sizes[p.name] == 1 for p in self.ports)
        return range(_COUNT, _COUNT + 1 + lone)

    def _taken(
        self,
        tries: list[tuple[dict[str, int], Style]],
        *,
        base: tuple[dict[str, int], Style],
        finite: bool,
        steady: bool,
    ) -> list[tuple[dict[str, int], Feed]]:
        """The feeds of those tries that differ from those of `base` and give finite, steady results if demanded."""
        found = []
        for (dims, style), index in itertools.product(tries, self._turns):
            try:
                feed = self._draw(dims, style, index)
            except ValueError:
                continue
            outputs = None if equal(feed, self._draw(*base, index)) else self._outputs(feed, optimize=self.optimize)
            if outputs is not None and (not finite or _is_finite(outputs)):
                found.append((dims, feed, outputs))
        kept = []
        for dims, feed, outputs in found:
            optimized = self._outputs(feed, optimize=True) if steady else None
            if not steady or (optimized is not None and similar(outputs, optimized)):
                kept.append((dims, feed))
        return kept

    def _vary(self, dims: dict[str, int], style: Style) -> tuple[dict[str, int], list[Feed]] | None:
        """Another binding that runs, with as many other extents as possible."""
        ways = {s: self._alternatives(s, dims[s]) for s in self.free}
        kinds = [
            [s for s in self.free if (s in self.extents.leading, s in self.extents.spatial) == kind]
            for kind in ((True, False), (False, True), (False, False))
        ]
        distinct = {s: ways[s][i % len(ways[s])] for kind in kinds for i, s in enumerate(kind)}
        for change in (distinct, {s: w[0] for s, w in ways.items()}) if self.free else ():
            if feeds := self._try(other := dims | change, style):
                return other, feeds
        best: tuple[dict[str, int], list[Feed]] | None = None
        equal = [[s for s in self.free if dims[s] == n] for n in dict.fromkeys(dims[s] for s in self.free)]
        for group in [*([s] for s in self.free), *(g for g in equal if len(g) > 1)]:
            current = best[0] if best else dims
            if any(current[s] != dims[s] for s in group):
                continue
            partners = [s for s in self.free if s not in group and current[s] == dims[s]]
            for change in self._changes(group, ways[group[0]], partners):
                if self.clock.over:
                    return best
                if feeds := self._try(other := current | change, style):
                    best = other, feeds
                    break
        return best

    def _changes(self, group: list[str], ways: list[int], partners: list[str]) -> Iterator[dict[str, int]]:
        """Other extents for a group of symbols, alone or with a partner at a number that the error mentions."""
        refused = []
        for way in ways:
            yield dict.fromkeys(group, way)
            refused.append((way, self.mentioned))
        for way, numbers in refused:
            yield from ({**dict.fromkeys(group, way), s: number} for number in numbers for s in partners)

    def _alternatives(self, symbol: str, extent: int) -> list[int]:
        if symbol in self.extents.spatial:
            return [2 * extent, 3 * extent, extent + 32, extent + 1]
        return [extent + 1, extent + 2, 2 * extent] if extent < _EXTENTS[0] else [extent + 2, extent + 1, 2 * extent]

    def _bytes(self, dims: dict[str, int]) -> int:
        """What one feed takes."""
        sizes = (1 if p.dtype is None else p.dtype.itemsize for p in self.ports)
        return sum(
            math.prod(self.extents.shape(p.name, dims)) * size for p, size in zip(self.ports, sizes, strict=True)
        )

    def _draw(self, dims: dict[str, int], style: Style, index: int) -> Feed:
        feed = {}
        for p in self.ports:
            shape, domain = self.extents.shape(p.name, dims), self.domains.get(p.name, _ANY)
            feed[p.name] = value(p, shape, dims, domain, style, seed=self.seed, index=index)
        return feed

    def _try(self, dims: dict[str, int], style: Style) -> list[Feed] | None:
        """The feeds of this binding and style, if the model runs on all of them."""
        self.clock.tick()
        feeds = []
        try:
            if any(math.prod(self.extents.shape(n, dims)) > _GROWTH * size for n, size in self.sizes.items()):
                self.error = self.error or "its inputs would be too large"
                return None
            if (size := self._bytes(dims)) > (self.child.limits.memory or _MEMORY[0]) // _SHARE:
                self.error = self.error or f"its inputs would take {size:,} bytes"
                return None
            for index in range(_COUNT):
                feed = self._draw(dims, style, index)
                self.child.evaluate(self.model, feed, optimize=self.optimize, fetch=False)
                feeds.append(feed)
        except (ChildFailed, ValueError) as error:
            self.clock.deaths += isinstance(error, ChildDied)
            self.error = self.error or str(error).removeprefix(FAILS)
            self.mentioned = tuple({n: None for n in map(int, re.findall(r"\b\d{1,5}\b", str(error))) if n > 1})
            self.hints |= dict.fromkeys(self.mentioned)
            return None
        return feeds


def _is_finite(outputs: dict[str, Any]) -> bool:
    """Whether no float is NaN or infinite."""
    floats = (leaf for found in leaves(outputs).values() for leaf in found if leaf.dtype.kind in "fcV")
    return all(bool(np.isfinite(leaf).all()) for leaf in floats)


def _ranked(ports: Iterable[Port]) -> Iterator[tuple[Port, ...]]:
    """The inputs with every shape given a rank: once if all are known, else guess by guess."""
    ports = tuple(ports)
    open_ended = any(not p.shape for p in ports)
    for tensor, item in _RANKS if open_ended else _RANKS[:1]:
        yield tuple(
            p if p.shape else replace(p, shape=(None,) * (item if p.kind == "sequence" else tensor)) for p in ports
        )
