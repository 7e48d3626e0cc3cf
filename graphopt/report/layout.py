"""Where nodes are drawn: in rows, each below what it reads, and counterparts of two graphs in one row where that goes.

    rows        the longest way from above; what little feeds goes down to what it feeds
    lanes       a value that is read far below goes down beside the rows between, in one lane for all who read it
    order       each by the mean of its neighbours above, then below, a few times (Sugiyama et al. 1981)
    places      towards the neighbours, as far as the neighbours in the row leave room

All of it is linear in nodes and lanes, times a constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Drawn", "arrange"]

_ALIGNMENTS = 6
_SWEEPS = 6
_LANES = 12
"""Places in lanes for each node; values that would need more are drawn as straight lines."""
_NARROW = 0.3
"""Width of a lane, a node's being 1."""

Links = Sequence[Sequence[int]]
"""For each node, the nodes that it reads, all before it."""


@dataclass(frozen=True)
class Drawn:
    """Where the nodes of one graph are, and by what way each is reached from those it reads."""

    x: NDArray[np.float64]
    """The centre, in widths of a node; 0 is the left edge of the leftmost one."""
    row: NDArray[np.int64]
    edges: tuple[tuple[int, int, tuple[tuple[float, int], ...]], ...]
    """From, to, and the places (x, row) in between."""
    width: float


def arrange(before: Links, after: Links, pairs: Mapping[int, int]) -> tuple[Drawn, Drawn]:
    """Both graphs, their rows numbered alike.

    Args:
        before: the first graph.
        after: the second.
        pairs: for nodes of the second, the one of the first that it should stand beside.
    """
    rows = [_rows(before), _rows(after)]
    back = {a: b for b, a in pairs.items()}
    for _ in range(_ALIGNMENTS):
        old = [row.copy() for row in rows]
        _lower(rows[1], after, rows[0], pairs)
        _lower(rows[0], before, rows[1], back)
        if all(np.array_equal(a, b) for a, b in zip(old, rows, strict=True)):
            break
    used = np.unique(np.concatenate([*rows, np.zeros(0, np.int64)]))
    return _placed(before, np.searchsorted(used, rows[0])), _placed(after, np.searchsorted(used, rows[1]))


def _rows(links: Links) -> NDArray[np.int64]:
    """The longest way from above, then down as far as readers allow, where that makes no line longer."""
    row = np.zeros(len(links), np.int64)
    for node, reads in enumerate(links):
        row[node] = max((row[r] + 1 for r in reads), default=0)
    readers = _turned(links)
    for node in reversed(range(len(links))):
        shared = sum(len(readers[r]) > 1 for r in links[node])  # the others come along
        if readers[node] and shared <= len(readers[node]):
            row[node] = min(row[r] for r in readers[node]) - 1
    return row


def _lower(row: NDArray[np.int64], links: Links, others: NDArray[np.int64], pairs: Mapping[int, int]) -> None:
    """Each node down to its counterpart, and below what it reads."""
    for node, reads in enumerate(links):
        here = others[pairs[node]] if node in pairs else row[node]
        row[node] = max(row[node], here, max((row[r] + 1 for r in reads), default=0))


def _turned(links: Links) -> list[list[int]]:
    readers: list[list[int]] = [[] for _ in links]
    for node, reads in enumerate(links):
        for read in reads:
            readers[read].append(node)
    return readers


def _placed(links: Links, row: NDArray[np.int64]) -> Drawn:
    """The columns of one graph."""
    count, readers = len(links), _turned(links)
    lanes = _lanes(row, readers)
    rows = list(row) + [int(r) for source, last in lanes.items() for r in range(row[source] + 1, last)]
    first = dict[int, int]()  # place of each lane's beginning
    place = count
    for source, last in lanes.items():
        first[source] = place
        place += last - int(row[source]) - 1

    def above(read: int, node: int) -> int:
        """What stands for `read` in the row over `node`."""
        distance = int(row[node] - row[read]) - 1
        return read if not distance or read not in lanes else first[read] + distance - 1

    pairs = [(above(read, node), node) for node, reads in enumerate(links) for read in reads]
    pairs += [
        (p - 1 if p > first[s] else s, p)
        for s, last in lanes.items()
        for p in range(first[s], first[s] + last - int(row[s]) - 1)
    ]
    x = _columns(np.array(rows, np.int64), np.array(pairs, np.int64).reshape(-1, 2), count)
    edges = []
    for node, reads in enumerate(links):
        for read in reads:
            distance = int(row[node] - row[read]) - 1 if read in lanes else 0
            way = ((float(x[first[read] + i]), int(row[read]) + 1 + i) for i in range(distance))
            edges.append((read, node, _bends(tuple(way))))
    return Drawn(x[:count], row, tuple(edges), float(x.max(initial=0.0)) + 1)


def _lanes(row: NDArray[np.int64], readers: Sequence[Sequence[int]]) -> dict[int, int]:
    """Nodes whose values go past a row, and the row of the last one that reads each; not those that go too far."""
    last = {n: int(max(row[r] for r in rs)) for n, rs in enumerate(readers) if rs}
    far = sorted((end - int(row[n]) - 1, n) for n, end in last.items() if end - row[n] > 1)
    room, chosen = _LANES * len(readers), dict[int, int]()
    for length, node in far:
        room -= length
        if room < 0:
            break
        chosen[node] = last[node]
    return chosen


def _bends(way: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
    """Without the places on a straight line between their neighbours."""
    inner = zip(way, way[1:], way[2:], strict=False)
    return (*way[:1], *(b for a, b, c in inner if not a[0] == b[0] == c[0]), *way[1:][-1:])


def _columns(row: NDArray[np.int64], pairs: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Order within rows, then places."""
    size = len(row)
    width = np.where(np.arange(size) < count, 1.0, _NARROW)
    layers = [list[int]() for _ in range(int(row.max(initial=-1)) + 1)]
    for place in range(size):
        layers[row[place]].append(place)
    up, down = [list[int]() for _ in range(size)], [list[int]() for _ in range(size)]
    for top, bottom in pairs.tolist():
        up[bottom].append(top)
        down[top].append(bottom)
    x = np.zeros(size)
    for layer in layers:
        _spread(layer, np.arange(len(layer), dtype=float), width, x)
    for sweep in range(_SWEEPS):
        near = up if sweep % 2 == 0 else down
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wish = np.array([x[near[p]].mean() if near[p] else x[p] for p in layer])
            order = np.argsort(wish, kind="stable")
            layer[:] = [layer[i] for i in order]
            _spread(layer, wish[order], width, x)
    left: NDArray[np.float64] = x - min(float(x.min(initial=0.0)), 0.0)
    return left


def _spread(
    layer: Sequence[int], wish: NDArray[np.float64], width: NDArray[np.float64], x: NDArray[np.float64]
) -> None:
    """The places closest to those wished for, in their order and without overlap (pool adjacent violators)."""
    offset, blocks = 0.0, list[tuple[float, int]]()  # sum of wishes and length of each run that touches
    starts = list[float]()
    for i, place in enumerate(layer):
        starts.append(offset)
        half = width[place] / 2
        following = width[layer[i + 1]] / 2 if i + 1 < len(layer) else 0.0
        blocks.append((float(wish[i]) - offset, 1))
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            total, length = blocks.pop()
            blocks[-1] = blocks[-1][0] + total, blocks[-1][1] + length
        offset += float(half + following)
    i = 0
    for total, length in blocks:
        for _ in range(length):
            x[layer[i]] = total / length + starts[i]
            i += 1
