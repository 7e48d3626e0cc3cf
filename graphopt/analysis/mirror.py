"""More samples out of those that there are: mirror images, where the model itself takes them for the same.

What a compressed model is fitted to is what the original makes of a sample, whatever that is, so that any input will do
that looks like those to come. An image and its mirror image are two such inputs, as most networks were trained to see;
whether this one was is asked of the model: it has to give most samples and their mirror images the same class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from graphopt.analysis.metrics import is_scores
from graphopt.analysis.segments import BATCH, FOLD, Samples
from graphopt.graph.external import Runnable
from graphopt.run.machine import HERE, Machine
from graphopt.run.session import Feed, Session

__all__ = ["mirrored"]

_SAMPLES: Final = 200
"""That the model is asked about."""
_ALIKE: Final = 0.85
"""Share of them that it has to give the same class."""
_COLORS: Final = (1, 3, 4)
_SMALLEST: Final = 8
"""Rows and columns of an image, at least."""


def mirrored(samples: Samples, model: Runnable, machine: Machine = HERE) -> Samples | None:
    """The samples and, behind them, their mirror images; None where there are none, or the model tells them apart.

    Args:
        samples: input name → (samples, …); a few of the last ones may be left out.
        model: the original.
        machine: where and how to run.
    """
    if not isinstance(samples, Mapping) or len(samples) != 1:
        return None
    ((name, images),) = samples.items()
    axis = _columns(images)
    count = len(images) - len(images) % FOLD  # so that a sample and its mirror image are held back together
    if axis is None or not count:
        return None
    images = images[:count]
    turned = np.flip(images, axis)
    session, same = machine.session(model), list[np.ndarray]()
    for start in range(0, min(count, _SAMPLES), BATCH):
        first, second = (_classes(session, {name: x[start : start + BATCH]}) for x in (images, turned))
        if first is None or second is None:
            return None
        same.append(first == second)
    return {name: np.concatenate([images, turned])} if np.mean(np.concatenate(same)) >= _ALIKE else None


def _columns(images: np.ndarray) -> int | None:
    """The axis along which a row of an image runs."""
    if images.ndim != 4 or images.dtype.kind != "f":  # noqa: PLR2004 - samples of images
        return None
    for colors, rows in ((1, 2), (3, 1)):
        if images.shape[colors] in _COLORS and min(images.shape[rows : rows + 2]) >= _SMALLEST:
            return rows + 1
    return None


def _classes(session: Session, feed: Feed) -> np.ndarray | None:
    """The class of each sample, where an output has scores."""
    feed = {n: np.ascontiguousarray(v) for n, v in feed.items()}
    found = next((v for v in session.run(feed).values() if is_scores(v, feed)), None)
    return None if found is None else found.argmax(axis=1)
