"""Products one behind the other, as data and as models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from graphopt.analysis.groups import Channels, Group, Port, Product

__all__ = ["chain"]


def chain(widths: Sequence[int], work: Sequence[int] | None = None) -> Channels:
    """Products p0, p1, …: product i reads `widths[i]` channels and writes the next; what is between can be cut.

    Args:
        widths: of the input, of each result in turn.
        work: multiply-accumulates of each product per weight; default 1.
    """
    inner = range(1, len(widths) - 1)
    keys = {i: f"p{i - 1}" for i in inner}
    groups = {key: Group(key, widths[i], "channel", ((key, 0),), ((f"p{i}", 0),)) for i, key in keys.items()}
    products = {}
    for i, (source, result) in enumerate(pairwise(widths)):
        size = source * result
        products[f"p{i}", 0] = Product(
            f"p{i}", 0, size * (work[i] if work else 1), size, port(source, keys.get(i)), port(result, keys.get(i + 1))
        )
    return Channels(groups, products, {}, {})


def port(channels: int, group: str | None) -> Port:
    """All channels in one group, or none in any."""
    if group is None:
        return Port((), np.full(channels, -1), np.full(channels, -1))
    return Port((group,), np.zeros(channels, np.int64), np.arange(channels))
