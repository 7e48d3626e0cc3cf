"""Which channels live or die together: every axis of every value is followed through the graph as an array of ids.

Weights issue ids, operators pass them on or tie them to one another (`OpSpec.flow`), and what nothing is known of holds
them. What is tied is one *unit*; units that the same products read and write in the same way make up a group.

Where one axis becomes several (attention heads, the shuffling of channels), either the inner or the outer indices can
be taken out, so that there are two analyses of such a graph. Where the preferred ones turn out to be held, others are
tried, in another walk.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.groups import Channels, Group, Port, Product
from graphopt.graph.nodes import bodies, is_constant, key, subgraphs
from graphopt.graph.shapes import ShapeOf
from graphopt.ops.flow import Axis, opaque

__all__ = ["Analysis", "channels"]


def channels(model: ir.Model, shape: ShapeOf, *, inner: bool = True, samples: int = 1) -> Channels:
    """Find every group of a model.

    Args:
        model: a canonical one; only its main graph is looked at.
        shape: the extents of its values in some run.
        inner: whether heads and the like lose indices inside each of them, or as a whole.
        samples: in that run; work is counted for one.
    """
    barred: frozenset[_Choice] = frozenset()
    for _ in range(_MOST_WALKS):
        analysis = Analysis(model, shape, inner=inner, barred=barred)
        analysis.walk()
        if not (failed := analysis.failed()):
            break
        barred |= failed
    return analysis.found(samples)


_MOST_WALKS = 5
"""As many as an axis that becomes several usually has to choose from, and one more."""
_Choice = tuple[ir.Node, int, int]
"""A node, which choice at it, and what was chosen."""


@dataclass
class _Seen:
    """One product, as it was found."""

    node: ir.Node
    index: int
    weight: ir.Value | None
    source: Axis
    result: Axis
    batch: Axis | None
    diagonal: bool
    part: float


@dataclass
class _Ids:
    """Union-find over ids, some of which are held."""

    parent: list[int] = field(default_factory=list)
    why: dict[int, str] = field(default_factory=dict)

    def fresh(self, count: int) -> Axis:
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        return np.arange(start, start + count, dtype=np.int64)

    def find(self, i: int) -> int:
        parent = self.parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def unite(self, a: int, b: int) -> None:
        first, second = self.find(a), self.find(b)
        if first == second:
            return
        first, second = min(first, second), max(first, second)
        self.parent[second] = first
        if second in self.why:
            why = self.why.pop(second)
            self.why.setdefault(first, why)

    def roots(self, axis: Axis) -> NDArray[np.int64]:
        return np.array([self.find(i) for i in axis.tolist()], np.int64)


class Analysis:
    """One walk through the main graph. It is what `ops.flow.Axes` asks for."""

    def __init__(
        self, model: ir.Model, shape: ShapeOf, *, inner: bool, barred: Collection[_Choice] = frozenset()
    ) -> None:
        self.model = model
        self.inner = inner
        self._barred = barred
        self._chosen: dict[_Choice, Axis] = {}
        self._count: Counter[ir.Node] = Counter()
        self._shape = shape
        self._ids = _Ids()
        self._axes: dict[ir.Value, list[Axis]] = {}
        self._products: list[_Seen] = []

    # -- what entries of the table ask for --------------------------------------------------------------------------

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """See `Axes`."""
        found = self._shape(value)
        return () if found is None else found

    def of(self, value: ir.Value) -> list[Axis]:
        """See `Axes`."""
        if value not in self._axes:
            issue = self.fresh if is_constant(value) else lambda n: self.held(n, f"it is an axis of {value.name}")
            self._axes[value] = [issue(n) for n in self.shape(value)]
        return self._axes[value]

    def tie(self, a: Axis, b: Axis) -> None:
        """See `Axes`."""
        if a is not b:
            for i, j in zip(a.tolist(), b.tolist(), strict=True):
                if i != j:
                    self._ids.unite(i, j)

    def hold(self, axis: Axis, why: str) -> None:
        """See `Axes`."""
        for i in dict.fromkeys(axis.tolist()):
            self._ids.why.setdefault(self._ids.find(i), why)

    def is_held(self, axis: Axis) -> bool:
        """See `Axes`."""
        return all(self._ids.find(i) in self._ids.why for i in dict.fromkeys(axis.tolist()))

    def held(self, extent: int, why: str) -> Axis:
        """See `Axes`."""
        axis = np.repeat(self.fresh(1), extent)
        self.hold(axis[:1], why)
        return axis

    def fresh(self, extent: int) -> Axis:
        """See `Axes`."""
        return self._ids.fresh(extent)

    def put(self, value: ir.Value, axes: Sequence[Axis]) -> None:
        """See `Axes`."""
        if not value.name:  # an output that is left out
            return
        if len(axes) != len(self.shape(value)) or any(
            len(a) != n for a, n in zip(axes, self.shape(value), strict=True)
        ):
            raise ValueError(f"the axes of {value.name!r} do not have its extents")
        self._axes[value] = list(axes)

    def choose(self, node: ir.Node, options: Mapping[int, Axis]) -> int:
        """See `Axes`."""
        self._count[node] += 1
        left = [i for i in options if (node, self._count[node], i) not in self._barred]
        chosen = (left or list(options))[0]
        if len(left) > 1:
            self._chosen[node, self._count[node], chosen] = options[chosen]
        return chosen

    def product(
        self,
        node: ir.Node,
        source: Axis,
        result: Axis,
        *,
        index: int = -1,
        weight: int | None = None,
        batch: Axis | None = None,
        diagonal: bool = False,
        part: float = 1.0,
    ) -> None:
        """See `Axes`."""
        constant = node.inputs[weight] if weight is not None and is_constant(node.inputs[weight]) else None
        if index >= 0 and not ops.linears(node):
            index = -1
        self._products.append(_Seen(node, index, constant, source, result, batch, diagonal, part))

    # -- the walk ---------------------------------------------------------------------------------------------------

    def walk(self) -> None:
        """Follow all axes from the inputs to the outputs."""
        for node in self.model.graph:
            self._flow(node)
        for value in self.model.graph.outputs:
            for axis in self.of(value):
                self.hold(axis, f"it is an axis of the output {value.name}")

    def failed(self) -> frozenset[_Choice]:
        """Choices of an axis that turned out to be held, where there is another one."""
        return frozenset(choice for choice, axis in self._chosen.items() if self.is_held(axis))

    def _flow(self, node: ir.Node) -> None:
        for body in bodies(node):
            read = (*body.outputs, *(v for inside in body for v in inside.inputs if v is not None))
            for value in (v for v in read if v.graph is not body):
                self._keep(value, f"a body of {node.op_type} reads it")
        values = [v for v in (*node.inputs, *node.outputs) if v is not None and v.name]
        spec = ops.spec_of(node)
        if any(self._shape(v) is None for v in values):
            for value in values:
                self._keep(value, f"the shape of a value at {node.op_type} is not known")
        elif (
            any(0 in self.shape(v) for v in values)
            or spec is None
            or not spec.pure(node)
            or next(subgraphs(node), None) is not None
        ):
            opaque(node, self)
        else:
            self.follow(node, spec)

    def follow(self, node: ir.Node, spec: ops.OpSpec) -> None:
        """Say how the axes of a node that something is known of hang together."""
        spec.flow(node, self)

    def _keep(self, value: ir.Value, why: str) -> None:
        for axis in self.of(value):
            self.hold(axis, why)

    # -- what was found ---------------------------------------------------------------------------------------------

    def found(self, samples: int) -> Channels:
        """What turned out to belong together, with work counted for one of so many samples."""
        sides = list(self._sides())
        touched: dict[int, Counter[tuple[int, str]]] = defaultdict(Counter)
        for number, side, roots in sides:
            for root in roots.tolist():
                if root not in self._ids.why:
                    touched[root][number, side] += 1
        members: dict[frozenset[tuple[tuple[int, str], int]], list[int]] = defaultdict(list)
        for root, counts in touched.items():
            if any(side == "source" for _, side in counts):
                members[frozenset(counts.items())].append(root)
        groups: dict[str, Group] = {}
        place: dict[int, tuple[str, int]] = {}
        for signature, units in sorted(members.items(), key=lambda item: _first(item[0])):
            if len(units) > 1:
                group = self._group(signature, len(units), groups)
                groups[group.key] = group
                place |= {root: (group.key, unit) for unit, root in enumerate(sorted(units))}
        products = self._described(sides, place, samples)
        frozen = {
            key(seen.node): reason
            for seen in self._products
            if (reason := self._ids.why.get(self._ids.find(int(seen.result[0])) if len(seen.result) else -1))
        }
        return Channels(groups, products, frozen, self._by_value(place))

    def _sides(self) -> Iterator[tuple[int, str, NDArray[np.int64]]]:
        for number, seen in enumerate(self._products):
            for side, axis in (("source", seen.source), ("result", seen.result), ("batch", seen.batch)):
                if axis is not None:
                    yield number, side, self._ids.roots(axis)

    def _group(
        self, signature: frozenset[tuple[tuple[int, str], int]], units: int, taken: Mapping[str, Group]
    ) -> Group:
        written = sorted({number for (number, side), _ in signature if side == "result"})
        read = sorted({number for (number, side), _ in signature if side == "source"})
        first = self._products[written[0] if written else read[0]]
        name = key(first.node)
        wish, count = name, 1
        while name in taken:
            count += 1
            name = f"{wish}#{count}"
        recurrent = any(self._products[n].index < -1 for n in written)
        return Group(
            name,
            units,
            "hidden unit" if recurrent else "channel" if self.inner else "block",
            tuple((key(self._products[n].node), self._products[n].index) for n in written),
            tuple((key(self._products[n].node), self._products[n].index) for n in read),
        )

    def _described(
        self, sides: Sequence[tuple[int, str, NDArray[np.int64]]], place: Mapping[int, tuple[str, int]], samples: int
    ) -> dict[tuple[str, int], Product]:
        ports: dict[int, dict[str, Port]] = defaultdict(dict)
        for number, side, roots in sides:
            ports[number][side] = _port(roots, place)
        counted: set[ir.Value] = set()
        found = {}
        for number, seen in enumerate(self._products):
            macs = ops.macs(seen.node, self._shape) or 0
            new = seen.weight is not None and seen.weight not in counted
            if seen.weight is not None:
                counted.add(seen.weight)
            size = int(np.prod(self.shape(seen.weight))) if new and seen.weight is not None else 0
            found[key(seen.node), seen.index] = Product(
                key(seen.node),
                seen.index,
                round(macs * seen.part / samples),
                size,
                ports[number]["source"],
                ports[number]["result"],
                seen.diagonal,
                ports[number].get("batch"),
                4 if seen.weight is None or seen.weight.dtype is None else int(seen.weight.dtype.itemsize),
            )
        return found

    def _by_value(self, place: Mapping[int, tuple[str, int]]) -> dict[str, tuple[Port | None, ...]]:
        """The ports of the axes of each value that something can be taken out of."""
        known: dict[int, Port | None] = {}

        def port(axis: Axis) -> Port | None:
            if id(axis) not in known:
                roots = self._ids.roots(axis) if len(axis) and not self._all_same(axis) else np.zeros(0, np.int64)
                known[id(axis)] = _port(roots, place) if any(r in place for r in roots.tolist()) else None
            return known[id(axis)]

        found = {str(v.name): tuple(port(a) for a in axes) for v, axes in self._axes.items() if v.name}
        return {name: ports for name, ports in found.items() if any(p is not None for p in ports)}

    def _all_same(self, axis: Axis) -> bool:
        return len(axis) > 1 and bool((axis == axis[0]).all())


def _first(signature: frozenset[tuple[tuple[int, str], int]]) -> tuple[int, list[tuple[tuple[int, str], int]]]:
    """Groups stand in the order in which they are first written."""
    written = [number for (number, side), _ in signature if side == "result"]
    return (min(written or [number for (number, _), _ in signature]), sorted(signature))


def _port(roots: NDArray[np.int64], place: Mapping[int, tuple[str, int]]) -> Port:
    found = [place.get(r) for r in roots.tolist()]
    keys = tuple(dict.fromkeys(p[0] for p in found if p is not None))
    number = {k: i for i, k in enumerate(keys)}
    group = np.array([-1 if p is None else number[p[0]] for p in found], np.int64)
    unit = np.array([-1 if p is None else p[1] for p in found], np.int64)
    return Port(keys, group, unit)
