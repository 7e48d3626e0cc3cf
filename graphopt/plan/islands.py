"""Which nodes compute in half precision, so that a graph has few casts: an exact minimum cut.

A Cast stands behind each value that is made on one side and read on the other; a node in half precision saves the bytes
of its constants, and half of those that it reads and makes. With the price of a Cast as the unit,

    minimize  Σ casts + Σ savings of nodes on floats        where some nodes have to stay on floats

is a minimum cut between "half" and "float": what is made in half and read as float costs 1 however many read it, and so
does what is made as float and read in half. (A hyperedge cut; Lawler, Cutsets and Partitions of Hypergraphs, 1973.)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

__all__ = ["NOTHING", "Unit", "islands"]

_CAST: Final = 1000
"""The price of a Cast: that of so many bytes in the file."""
_END: Final = 3000
"""The same behind what makes an output: rounded there, scores that are nearly equal become the same."""
_NODE: Final = 500
"""What a node in half precision saves when it runs: half of its traffic, where a Cast has three quarters of that."""
_MOST: Final = 50_000
"""Beyond that, more bytes make no difference."""
_FOREVER: Final = 1 << 30


@dataclass(frozen=True)
class Unit:
    """A node that may compute in half precision."""

    reads: Collection[str]
    """Names of values that it would read in half."""
    makes: Collection[str]
    """Names of values that it would make in half."""
    size: int
    """Bytes that its constants would save."""


NOTHING: Final = Unit((), (), 0)


def islands(
    units: Mapping[str, Unit],
    floats: Collection[str],
    fixed: Collection[str],
    outputs: Collection[str] = (),
    outside: Unit = NOTHING,
) -> set[str]:
    """The keys of units that compute in half precision.

    Args:
        units: by key, nodes that may.
        floats: keys of those that do not.
        fixed: names of values that something reads as floats, whatever these units do.
        outputs: names of outputs of the model that are floats.
        outside: outputs of the model that are read in half precision, and inputs that are made in it.
    """
    free = [key for key in units if key not in floats]
    if not free:
        return set()
    place = {key: i + 2 for i, key in enumerate(free)}
    every = [(0, outside), *((place.get(key, 1), unit) for key, unit in units.items())]
    maker = {name: at for at, unit in every for name in unit.makes}
    readers: dict[str, list[int]] = {}
    for at, unit in every:
        for name in dict.fromkeys(unit.reads):
            readers.setdefault(name, []).append(at)
    edges = list[tuple[int, int, int]]()
    for key in free:
        saved = units[key].size + (_NODE if units[key].makes else 0)
        edges.append((0, place[key], min(saved, _MOST)))
    count = len(free) + 2
    for name in dict.fromkeys((*maker, *readers)):
        made, read = maker.get(name, 1), readers.get(name, [])
        ends = [*read, 1] if name in fixed or name in outputs else read
        if made != 1:  # made in half and read as float: made → count → each reader
            edges.append((made, count, _END if name in outputs else _CAST))
            edges += [(count, end, _FOREVER) for end in dict.fromkeys(ends)]
            count += 1
        edges += [(end, count, _FOREVER) for end in dict.fromkeys(read) if end != 1]  # and the other way round
        edges.append((count, made, _CAST))
        count += 1
    return {key for key, side in zip(free, _half_side(edges, count)[2:], strict=False) if side}


def _half_side(edges: Collection[tuple[int, int, int]], count: int) -> np.ndarray:
    """(count,): what is on the side of vertex 0 of the least cut between it and vertex 1."""
    ends, capacity = np.array([e[:2] for e in edges], np.int32).T, np.array([e[2] for e in edges], np.int32)
    graph = coo_array((capacity, (ends[0], ends[1])), shape=(count, count)).tocsr()
    left = (graph - maximum_flow(graph, 0, 1).flow).tocsr()
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    side = np.zeros(count, bool)
    side[breadth_first_order(left, 0, return_predecessors=False)] = True
    return side
