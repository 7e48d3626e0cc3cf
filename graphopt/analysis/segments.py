"""A graph run piece by piece over many samples, each node once, with everything in between at hand.

A *segment* is a node with a product or a recurrent layer (the first one has none) and all nodes behind it that need no
later one. Nodes are sorted so that these come as late as they can: when one is reached, all that does not depend on it
is known.
"""

from __future__ import annotations

import mmap
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from graphopt import ops
from graphopt.errors import InputError
from graphopt.graph.nodes import bodies, input_at, key
from graphopt.run.machine import HERE, Machine
from graphopt.run.session import Feed, Session

__all__ = [
    "BATCH",
    "FOLD",
    "Pieces",
    "Samples",
    "Store",
    "Walk",
    "batches",
    "differs",
    "first",
    "folded",
    "mapped",
    "on_disk",
    "rest",
]

Samples = Feed | Sequence[Feed]
"""Input name → (samples, …); or feeds that are run as they are, where rows are no samples."""

Pieces = list[Any]
"""What a value holds, batch by batch."""

BATCH: Final = 50
FOLD: Final = 4
"""One sample in so many is held back from a fit, to choose between fits: the last one of each so many."""


def batches(model: ir.Model, samples: Samples, size: int = BATCH) -> tuple[list[Feed], list[int]]:
    """Feeds of equal size, the last one smaller unless the model fixes the size, and how many samples each holds.

    Raises:
        InputError: there are fewer samples than the model takes at once.
    """
    if not isinstance(samples, Mapping):
        return list(samples), [1] * len(samples)
    count = min((len(v) for v in samples.values()), default=0)
    firsts = {v.shape[0] for v in model.graph.inputs if v.name in samples and v.shape is not None and len(v.shape)}
    fixed = next((int(d) for d in firsts if isinstance(d, int)), None)
    size = fixed or size
    ends = range(size, count + 1, size) if fixed else [*range(size, count, size), count]
    if not count or not ends:
        raise InputError(f"{count} samples are too few: the model takes {size} at once, so give as many")
    starts = [0, *ends][:-1]
    feeds = [{n: v[a:b] for n, v in samples.items()} for a, b in zip(starts, ends, strict=True)]
    return feeds, [b - a for a, b in zip(starts, ends, strict=True)]


def first(model: ir.Model, samples: Samples, feed: Feed, count: int) -> tuple[Feed, int]:
    """A feed that shapes can be told from, and how many samples it holds: one, if it can be cut out.

    Args:
        model: what is fed.
        samples: all of them.
        feed: some of them, as `batches` has them.
        count: how many these are.
    """
    free = all(v.shape is None or not isinstance(v.shape[0], int) for v in model.graph.inputs if v.shape != ())
    return ({n: v[:1] for n, v in feed.items()}, 1) if isinstance(samples, Mapping) and free else (feed, count)


def folded(samples: Samples) -> tuple[Samples, Samples]:
    """The samples to fit to and those held back; all of them for both where there are too few."""
    count = len(next(iter(samples.values()), ())) if isinstance(samples, Mapping) else len(samples)
    held = np.arange(count) % FOLD == FOLD - 1
    if not held.any():
        return samples, samples
    if isinstance(samples, Mapping):
        return {n: v[~held] for n, v in samples.items()}, {n: v[held] for n, v in samples.items()}
    return [f for f, h in zip(samples, held, strict=True) if not h], [
        f for f, h in zip(samples, held, strict=True) if h
    ]


class Store:
    """Holds arrays in memory, and above a limit in unnamed files that are mapped.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0

    def hold(self, value: Any) -> Any:
        """The same array, wherever it lies from now on. What is no array is passed on."""
        if not isinstance(value, np.ndarray) or not value.nbytes:
            return value
        if self._used + value.nbytes > self._limit and value.dtype != object:
            return on_disk([np.atleast_1d(value)]).reshape(value.shape)
        self._used += value.nbytes
        weakref.finalize(value, self._release, value.nbytes)
        return value

    def _release(self, count: int) -> None:
        self._used -= count


def on_disk(parts: Sequence[Any]) -> Any:
    """Arrays of one shape but for the first axis, one behind the other in an unnamed file that is mapped."""
    shape = (sum(len(p) for p in parts), *parts[0].shape[1:])
    made, start = mapped(parts[0].dtype, shape), 0
    for rows in parts:
        made[start : start + len(rows)] = rows
        start += len(rows)
    rest(made)
    return made


def mapped(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    """Zeros in an unnamed file, which is gone as soon as nothing maps it any more."""
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def rest(value: Any) -> None:
    """Let what lies in a file take no memory until it is read again."""
    held = getattr(value, "_mmap", None) if isinstance(value, np.memmap) else None
    if held is not None and hasattr(mmap, "MADV_DONTNEED"):
        held.madvise(mmap.MADV_DONTNEED)


class Walk:
    """One graph, advanced segment by segment.

    Args:
        model: its weights may change ahead of the walk.
        feeds: what goes in, batch by batch.
        store: where values are held.
        machine: where to run.
    """

    def __init__(
        self,
        model: ir.Model,
        feeds: Sequence[Feed],
        store: Store,
        machine: Machine = HERE,
    ) -> None:
        self.model = model
        self.segments = _segments(model.graph)
        self.done = 0
        """How many segments were run."""
        self.cache: dict[str, Pieces] = {n: [f[n] for f in feeds] for n in (feeds[0] if feeds else ())}
        """The values that a later segment reads."""
        self.changed: set[str | None] = set()
        """The values that differ from those of the walk that is followed."""
        self.nodes = {key(n): n for n in model.graph}
        self._where = {key(nodes[0]): i for i, nodes in enumerate(self.segments) if i}
        self._made: dict[str, ir.Value] = {}
        self.late: set[str] = set()
        """Names of values that are held until they are taken off this set."""
        self._store, self._machine, self._count = store, machine, len(feeds)
        self._last = {name: i for i, nodes in enumerate(self.segments) for n in nodes for name in _reads(n)}

    def place(self, product: str) -> int | None:
        """The segment that begins with the product of this key."""
        return self._where.get(product)

    def value(self, name: str) -> ir.Value:
        """The value of this name that a node makes."""
        if not self._made:
            self._made = {str(v.name): v for n in self.model.graph for v in n.outputs if v.name}
        return self._made[name]

    def advance(self, stop: int, tap: Mapping[str, Callable[[int, Any], None]] | None = None) -> None:
        """Run the segments before number `stop`.

        Args:
            stop: at most the number of segments.
            tap: names of values of the last of them to what is told them, with the number of the batch.
        """
        while self.done < stop:
            nodes = self.segments[self.done]
            made = {str(v.name) for n in nodes for v in n.outputs}
            self._run(nodes, {n for n in made if self._is_read_later(n)}, tap if self.done == stop - 1 else None)
            self._leave()

    def follow(self, leader: Walk) -> None:
        """Run the next segment, but take over from `leader`, who was there, what is the same."""
        nodes = self.segments[self.done]
        for node in nodes:
            twin = leader.nodes.get(key(node))
            if twin is None or not self.changed.isdisjoint(_reads(node)) or differs(node, twin):
                self.changed.update(str(v.name) for v in node.outputs)
        made = {str(v.name): node for node in nodes for v in node.outputs if v.name}
        own: set[str] = set()
        pending = [n for n in made if self._is_read_later(n)]
        live = set(pending)
        while pending:
            name = pending.pop()
            if name in self.changed or name not in leader.cache:
                if name not in own:
                    own.add(name)
                    pending.extend(n for n in _reads(made[name]) if n in made)
            else:
                self.cache[name] = leader.cache[name]
        self._run([n for n in nodes if not own.isdisjoint(str(v.name) for v in n.outputs)], live & own)
        self._leave()

    def again(self, nodes: Sequence[ir.Node]) -> None:
        """Run nodes once more that have other weights now and whose inputs are held; the last one's result is kept."""
        self._run(nodes, {str(v.name) for v in nodes[-1].outputs if v.name})

    def first_output(self, node: ir.Node) -> Pieces:
        """What a node whose inputs are at hand gives first, read or not. Nothing is kept."""
        value, found = node.outputs[0], list[Any]()
        name = value.name
        value.name = name or f"{key(node)}/0"
        try:
            session, inputs = self._session([node], [value.name])
        finally:
            value.name = name
        for index in range(self._count):
            found += session.run({n: self.cache[n][index] for n in inputs}).values()
        return found

    def given(self, node: ir.Node, index: int) -> Pieces:
        """What an input of a node holds that is at hand; None where there is none."""
        value = input_at(node, index)
        if value is not None and value.name in self.cache:
            return self.cache[value.name]
        constant = None if value is None or value.const_value is None else value.const_value.numpy()
        return [constant] * self._count

    def _is_read_later(self, name: str) -> bool:
        return self._last.get(name, -1) > self.done or name in self.late

    def _leave(self) -> None:
        """Let go of what nothing reads any more."""
        self.cache = {n: v for n, v in self.cache.items() if self._is_read_later(n)}
        self.done += 1

    def _run(
        self, nodes: Sequence[ir.Node], live: set[str], tap: Mapping[str, Callable[[int, Any], None]] | None = None
    ) -> None:
        tap = tap or {}
        wanted = sorted(live | tap.keys())
        if not nodes or not wanted:
            return
        session, inputs = self._session(nodes, wanted)
        found: dict[str, Pieces] = {n: [] for n in live}
        for index in range(self._count):
            results = session.run({n: self.cache[n][index] for n in inputs}, wanted)
            for name in inputs:
                rest(self.cache[name][index])
            for name, told in tap.items():
                told(index, results[name])
            for name in live:
                found[name].append(self._store.hold(results[name]))
        self.cache |= found

    def _session(self, nodes: Sequence[ir.Node], outputs: Sequence[str]) -> tuple[Session, list[str]]:
        """A session of some nodes, and which of the values at hand it takes."""
        model, inputs = _part(self.model, nodes, self.cache, outputs)
        return self._machine.session(model, lasting=False), inputs


def differs(node: ir.Node, twin: ir.Node) -> bool:
    """Whether two nodes may compute different things from the same data."""
    if (node.op_type, node.domain, node.overload) != (twin.op_type, twin.domain, twin.overload):
        return True
    if len(node.inputs) != len(twin.inputs) or set(node.attributes) != set(twin.attributes):
        return True
    if any(a.type is ir.AttributeType.GRAPH or a.value != twin.attributes[n].value for n, a in node.attributes.items()):
        return True
    for mine, other in zip(node.inputs, twin.inputs, strict=True):
        a, b = (None if v is None else v.const_value for v in (mine, other))
        if (mine is None) != (other is None) or (a is None) != (b is None):
            return True
        if a is not b and a is not None and b is not None and not np.array_equal(a.numpy(), b.numpy()):
            return True
    return False


def _segments(graph: ir.Graph) -> list[list[ir.Node]]:
    """All nodes, sorted topologically, products as late as possible."""
    nodes = list(graph)
    made = {v.name: i for i, n in enumerate(nodes) for v in n.outputs if v.name}
    sources = [{made[name] for name in _reads(n) if name in made} for n in nodes]
    readers: list[list[int]] = [[] for _ in nodes]
    for i, found in enumerate(sources):
        for j in found:
            readers[j].append(i)
    missing = [len(found) for found in sources]
    product = [bool(ops.linears(n)) or ops.gates(n) is not None for n in nodes]
    ready: list[tuple[bool, int]] = []
    segments: list[list[ir.Node]] = [[]]
    for i, count in enumerate(missing):
        if not count:
            heappush(ready, (product[i], i))
    while ready:
        is_product, i = heappop(ready)
        if is_product:
            segments.append([])
        segments[-1].append(nodes[i])
        for j in readers[i]:
            missing[j] -= 1
            if not missing[j]:
                heappush(ready, (product[j], j))
    return segments


def _reads(node: ir.Node) -> set[str]:
    """Names of all values that the node reads, its bodies included."""
    names = {str(v.name) for v in node.inputs if v is not None}
    for body in bodies(node):
        names.update(str(v.name) for n in body for v in n.inputs if v is not None)
        names.update(str(v.name) for v in body.outputs)
    return names


def _part(
    model: ir.Model, nodes: Sequence[ir.Node], cache: Mapping[str, Pieces], outputs: Sequence[str]
) -> tuple[ir.Model, list[str]]:
    """Some nodes as a model, and which values of `cache` it takes."""
    made = {str(v.name): v for n in nodes for v in n.outputs}
    inner = [n for node in nodes for body in bodies(node) for n in body]
    read = {str(v.name): v for n in (*nodes, *inner) for v in n.inputs if v is not None and v.graph is model.graph}
    read |= {str(v.name): v for node in nodes for b in bodies(node) for v in b.outputs if v.graph is model.graph}
    inputs = [n for n in read if n in cache and n not in made]
    constants = [v for n, v in read.items() if n not in made and n not in cache and v.const_value is not None]
    view = ir.GraphView(
        [read[n] for n in inputs],
        [made[n] for n in outputs],
        nodes=nodes,
        initializers=constants,
        opset_imports=model.graph.opset_imports,
        name=model.graph.name,
    )
    graph = view.clone()
    for value in graph.inputs:
        _describe(value, cache[str(value.name)])
    for node in graph:
        for value in node.outputs:
            value.shape = None  # what the graph says may be wrong where widths have changed
    return ir.Model(graph, ir_version=model.ir_version, functions=list(model.functions.values())), inputs


def _describe(value: ir.Value, pieces: Pieces) -> None:
    """Declare a value as what it holds: an extent is a symbol where it differs from batch to batch."""
    if not all(isinstance(p, np.ndarray) for p in pieces):
        return
    shapes: list[tuple[int, ...]] = [p.shape for p in pieces]
    value.type = ir.TensorType(ir.DataType.from_numpy(pieces[0].dtype))
    dims = [d[0] if len(set(d)) == 1 else None for d in zip(*shapes, strict=True)]
    value.shape = ir.Shape(dims) if len({len(s) for s in shapes}) == 1 else None
