"""What models are compared on: the user's data, or feeds that are made up."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graphopt import ops
from graphopt.errors import InputError, UsageError
from graphopt.graph.io import Source
from graphopt.run import data as datasets
from graphopt.run import feeds as generated
from graphopt.run.session import Feed, Port, Session

__all__ = ["Evidence", "gather"]

_BATCHES = (32, 7)
"""Rows of the feeds that the user's data is cut into: two, so that a baked-in batch size shows."""
_MOST_FEEDS = 4
"""Feeds of each size."""


@dataclass(frozen=True)
class Evidence:
    """Feeds, and where they come from."""

    feeds: tuple[Feed, ...]
    description: str
    synthetic: bool
    sha256: str | None
    samples: int
    data: datasets.Data | None = None
    """All of the user's data, of which the feeds are the beginning."""


def gather(
    source: Source,
    data: Any,
    set_dims: Mapping[str, int] | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Evidence:
    """Feeds on which `source` can be run.

    Args:
        source: the original.
        data: what `run.data.open_data` takes; None to make feeds up.
        set_dims: extents of symbolic dimensions in feeds that are made up.
        seed: of the values that are made up.
        progress: told when a search begins.

    Raises:
        NeedsData: none of the feeds that were made up runs.
        InputError: the data cannot be read or does not fit.
        UsageError: extents were given for data that has its own.
    """

    @functools.cache
    def found() -> generated.Feeds:
        progress("looking for feeds on which the model runs")
        domains = ops.domains(source.model)
        return generated.generate(source.runnable, domains=domains, set_dims=set_dims or {}, seed=seed)

    if data is None:
        feeds = found()
        return Evidence(feeds.feeds, str(feeds), synthetic=True, sha256=None, samples=len(feeds))
    opened = datasets.open_data(data, _inputs(source), draw=lambda number: found().draw(number))
    if set_dims and not opened.synthetic:
        raise UsageError("the data says what the dimensions are: give either --data or --set")
    sizes = _BATCHES if opened.rows else _BATCHES[:1]
    cut = tuple(feed for size in sizes for feed, _ in itertools.islice(opened.batches(size), _MOST_FEEDS))
    if not cut:
        raise InputError(f"{opened.name} holds no feeds: give data with at least one sample")
    return Evidence(cut, opened.name, opened.synthetic, opened.sha256, opened.count, opened)


def _inputs(source: Source) -> tuple[Port, ...]:
    """What the model takes; some models load only after the runtime's own rewriting."""
    try:
        return Session(source.runnable, optimize=False).inputs
    except InputError:
        return Session(source.runnable).inputs
