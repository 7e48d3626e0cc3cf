"""What models are compared on: the user's data, or feeds that are made up."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt import ops
from graphopt.analysis.facts import extents
from graphopt.errors import InputError, UsageError
from graphopt.graph.external import Runnable
from graphopt.graph.load import Source
from graphopt.graph.nodes import graphs
from graphopt.graph.shapes import bytes_of
from graphopt.run import data as datasets
from graphopt.run import feeds as generated
from graphopt.run import trial
from graphopt.run.child import Child
from graphopt.run.session import Feed
from graphopt.run.values import equal

__all__ = ["Evidence", "gather", "survives"]

_BATCHES = (32, 7)
"""Rows of the feeds that the user's data is cut into: two, so that a baked-in batch size shows."""
_LARGEST = 1 << 24
"""Bytes that a value of a run may have: where one of a row has many, there are fewer rows in a feed."""
_MOST_FEEDS = 4
"""Feeds of each size; twice as many where rows are no samples."""


@dataclass(frozen=True)
class Evidence:
    """Feeds, and where they come from."""

    feeds: tuple[Feed, ...]
    description: str
    synthetic: bool
    sha256: str | None
    samples: int
    """How many there are; feeds that were made up count as one each."""
    compared: int
    """How many of them are in the feeds, spread evenly over all."""
    data: datasets.Data | None = None
    """All of the user's data."""
    labels: str | None = None
    """What the label of a sample is, if there are any."""


def gather(
    source: Source,
    data: Any,
    set_dims: Mapping[str, int] | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
    child: Child | None = None,
) -> Evidence:
    """Feeds on which `source` can be run.

    Args:
        source: the original.
        data: what `run.data.open_data` takes; None to make feeds up.
        set_dims: extents of symbolic dimensions in feeds that are made up.
        seed: of the values that are made up.
        progress: told when a search begins.
        child: where to run it, if there is one already.

    Raises:
        NeedsData: none of the feeds that were made up runs.
        InputError: the data cannot be read or does not fit.
        UsageError: extents were given for data that has its own.
    """

    @functools.cache
    def found() -> generated.Feeds:
        progress("looking for feeds on which the model runs")
        domains = ops.domains(source.model)
        return generated.generate(source.runnable, domains=domains, set_dims=set_dims or {}, seed=seed, child=child)

    if data is None:
        made, count = found(), len(found())
        return Evidence(made.feeds, str(made), synthetic=True, sha256=None, samples=count, compared=count)
    with trial.within(trial.patient(), child) as limited:
        inputs, _ = trial.inputs(limited, source.runnable)
    opened = datasets.open_data(data, inputs, draw=lambda number: found().draw(number))
    if set_dims and not opened.synthetic:
        raise UsageError("the data says what the dimensions are: give either --data or --set")
    most: Callable[[Feed], int] = lambda row: _MOST_FEEDS * sum(_sizes(source.model, row))  # noqa: E731 - of rows
    survey = opened.survey(most if opened.rows else _MOST_FEEDS * len(_BATCHES))
    if not survey.kept:
        raise InputError(f"{opened.name} holds no feeds: give data with at least one sample")
    kept, compared = survey.kept, len(survey.kept)
    if opened.rows:
        kept, compared = _stacked(kept, *_sizes(source.model, kept[0]))
    feeds = tuple(f for i, f in enumerate(kept) if not any(equal(f, earlier) for earlier in kept[:i]))
    progress("trying the model on the data")
    survives(source.runnable, feeds, child)
    told = (survey.sha256, survey.samples, compared, opened, survey.labels)
    return Evidence(feeds, opened.name, opened.synthetic, *told)


def _sizes(model: ir.Model, row: Feed) -> tuple[int, int]:
    """Rows of larger and of smaller feeds: as many as `_BATCHES` says, or as let no value be too large."""
    one, two = (extents(model, {n: np.repeat(v, k, axis=0) for n, v in row.items()}) for k in (1, 2))
    values = [v for graph in graphs(model) for node in graph for v in node.outputs]
    largest = max((bytes_of(v, two) - bytes_of(v, one) for v in values), default=0)
    large = min(max(_LARGEST // max(largest, 1), 2), _BATCHES[0])
    return large, min(_BATCHES[1], large - 1)


def _stacked(rows: Sequence[Feed], large: int, small: int) -> tuple[tuple[Feed, ...], int]:
    """Feeds of two sizes, the second one smaller than the number of rows, and how many different rows they hold.

    Only rows of the same shape are stacked; of shorter feeds than asked for, the longest are taken.
    """
    small = min(small, len(rows) - 1)
    numbers = range(len(rows))
    parts: list[list[int]] = []
    for size, some in ((large, numbers[: _MOST_FEEDS * large]), (small, numbers[-_MOST_FEEDS * small :])):
        alike: dict[Any, list[int]] = {}
        for i in some if size else ():
            alike.setdefault(tuple(rows[i][n].shape for n in rows[0]), []).append(i)
        cuts = [same[i : i + size] for same in alike.values() for i in range(0, len(same), size)]
        parts += sorted(cuts, key=len, reverse=True)[:_MOST_FEEDS]
    feeds = tuple({n: np.concatenate([rows[i][n] for i in part]) for n in rows[0]} for part in parts)
    return feeds, len({i for part in parts for i in part})


def survives(model: Runnable, feeds: Sequence[Feed], child: Child | None = None) -> None:
    """Insist that a model can be run on feeds without harm to the process that runs it.

    Raises:
        InputError: it cannot.
    """
    with trial.within(trial.patient(), child) as limited:
        trial.endure(limited, model, feeds)
