"""Which units of a group may be mixed: any basis of them is as good as the one that the weights came with.

What is summed over the units of a head, a·bᵀ, stays the same as (a·A)·(b·B)ᵀ with A·Bᵀ = 1. Where only products with
constant weights make a and b, and all in between is linear in them and the same for each unit (it moves elements, or
multiplies all by one number), A and B can go into the weights. That is so of queries and keys, and of values and the
projection behind them, in each head on its own; not where positions turn them, or something is computed of each alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.facts import extents
from graphopt.analysis.groups import Channels, Port
from graphopt.graph.nodes import is_constant, key, readers
from graphopt.graph.parts import part
from graphopt.graph.shapes import ShapeOf
from graphopt.run.machine import HERE, Machine
from graphopt.run.session import Feed

__all__ = ["Meeting", "Place", "meetings"]

_SIDES: Final = 2
_SURE: Final = 0.1
"""How far from a whole number a number of a channel may be."""
_Head = tuple[str, int]
"""Group and unit, where heads are what is cut."""
_NOBODY: Final = ("", -1)
_ALL: Final = ("", 0)


@dataclass(frozen=True, eq=False)
class Place:
    """Where the units of a group are in a value, head by head."""

    value: str
    axes: tuple[int, ...]
    """Those of heads and of what is inside them; one where it holds both."""
    at: NDArray[np.int64]
    """(heads, copies, units): where along these axes, taken together. Copies are mixed alike: queries that share their
    keys, or all heads where they cannot be told apart."""
    heads: tuple[_Head, ...]

    def laid(self, array: NDArray[Any]) -> NDArray[Any]:
        """(positions along `axes`, all the rest)."""
        moved = np.moveaxis(array, self.axes, range(len(self.axes)))
        return moved.reshape(int(np.prod(moved.shape[: len(self.axes)])), -1)

    def mixed(self, array: NDArray[Any], by: NDArray[np.float64]) -> NDArray[Any]:
        """An array with the units of each head in another basis, (heads, units, units): x becomes xᵀ·by."""
        flat = self.laid(array).astype(np.float64)
        flat[self.at] = np.einsum("hcur,huv->hcvr", flat[self.at], by)
        shape = np.moveaxis(array, self.axes, range(len(self.axes))).shape
        return np.moveaxis(flat.reshape(shape), range(len(self.axes)), self.axes).astype(array.dtype)


@dataclass(frozen=True, eq=False)
class Meeting:
    """Where the units of a group are summed over."""

    sides: tuple[Place, Place]
    """The two values that are multiplied; the second one is a constant where the product has one weight."""
    constants: tuple[tuple[Place, ...], tuple[Place, ...]]
    """Of each side, what A or B goes into."""
    biased: bool
    """Whether the second one is a constant: what is the same for all rows of the first is then left to a bias."""


def meetings(
    model: ir.Model, channels: Channels, heads: Channels, feed: Feed, machine: Machine = HERE
) -> dict[str, tuple[Meeting, ...]]:
    """By group, where its units are summed over, of all groups whose units may be mixed.

    Only of those that some product of two computed values has to do with, as in attention: elsewhere (a bottleneck
    without activation) another basis was found to lose less in one place and more in another.

    Args:
        model: canonical.
        channels: its groups, heads losing what is inside them.
        heads: the same, heads lost as a whole.
        feed: what it runs on, to see where the channels of one product go that several of these sums read.
        machine: where to run.
    """
    held = {name for node in model.graph for name in _held(node, channels)}
    search = _Search(model, channels, heads, feed, extents(model, feed), machine)
    free = [k for k, g in channels.groups.items() if k not in held and any(i < 0 for _, i in (*g.writers, *g.readers))]
    found = {name: search.meetings(name, alike=False) or search.meetings(name, alike=True) for name in free}
    return {name: mine for name, mine in found.items() if mine}


def _groups(value: ir.Value | None, channels: Channels) -> set[str]:
    """The groups along the axes of a value."""
    ports = () if value is None else channels.values.get(str(value.name), ())
    return {g for port in ports if port is not None for g in port.groups}


def _held(node: ir.Node, channels: Channels) -> set[str]:
    """Groups that a node needs in the basis that they have."""
    touched = {g for v in (*node.inputs, *node.outputs) for g in _groups(v, channels)}
    if not touched:
        return touched
    spec = ops.spec_of(node)
    mine = [p for (name, _), p in channels.products.items() if name == key(node)]
    grouped = any(p.diagonal for p in mine) or any(linear.groups > 1 for linear in ops.linears(node))
    if spec is None or spec.gates is not None or grouped:
        return touched
    sums = {node.inputs[i] for i in spec.sums(node)}
    shared = (v for v in node.inputs if v is not None and is_constant(v) and len(list(readers(v))) > 1)
    found = {g for v in shared for g in _groups(v, channels)}
    found |= {g for v in node.outputs for g in _groups(v, channels) if any(g not in _groups(x, channels) for x in sums)}
    return found if mine else found | {g for v in node.inputs if v not in sums for g in _groups(v, channels)}


@dataclass(frozen=True, eq=False)
class _Search:
    """One model, and the places of groups in it."""

    model: ir.Model
    channels: Channels
    heads: Channels
    feed: Feed
    shape: ShapeOf
    machine: Machine

    def meetings(self, name: str, *, alike: bool) -> tuple[Meeting, ...]:
        """All of one group; none unless each of its constants is on one side of one of them.

        Args:
            name: its key.
            alike: whether all heads are mixed alike.
        """
        ends = self._ends(name)
        origins = {end: list(dict.fromkeys(self._origins(end, name))) for both in ends for end in both}
        uses = defaultdict[tuple[ir.Value, ir.Node], list[ir.Value]](list)
        for end, mine in origins.items():
            for origin in mine:
                uses[origin].append(end)
        every = {v for v in self.model.graph.initializers.values() if name in _groups(v, self.channels)}
        many = any(len(mine) > self._copies(value, name) for (value, _), mine in uses.items())
        if many or {value for value, _ in uses} != every or len(uses) != len(every):
            return ()
        only = {o: self._reached(o[1].outputs[0], name, mine) for o, mine in uses.items() if len(mine) > 1}

        def place(value: ir.Value, indices: Collection[int] | None = None) -> Place | None:
            return self._place(value, name, indices, alike=alike)

        found = list[Meeting]()
        for both in ends:
            sides = [place(end) for end in both]
            places = [[place(o[0], only.get(o, {}).get(end)) for o in origins[end]] for end in both]
            known = [[p for p in some if p is not None] for some in (sides, *places)]
            whose = {p.heads for some in known for p in some}
            if [len(k) for k in known] != [_SIDES, *map(len, places)] or len(whose) > 1:
                return ()
            found.append(Meeting((known[0][0], known[0][1]), (tuple(known[1]), tuple(known[2])), is_constant(both[1])))
        taken = [p for m in found for some in m.constants for p in some]
        whole = [place(value) for value in every]
        count = sum(p.at.size for p in whole if p is not None)
        different = {(p.value, at) for p in taken for at in p.at.ravel().tolist()}
        return tuple(found) if sum(p.at.size for p in taken) == count == len(different) else ()

    def _ends(self, name: str) -> list[tuple[ir.Value, ir.Value]]:
        """What is multiplied where a group is summed over, constants last; nothing where that is not always two."""
        nodes, found = {key(node): node for node in self.model.graph}, list[tuple[ir.Value, ir.Value]]()
        for reader, _ in self.channels.groups[name].readers:
            values = [v for v in nodes[reader].inputs if v is not None and name in _groups(v, self.channels)]
            if len(values) != _SIDES:
                return []
            first, second = sorted(values, key=is_constant)
            found.append((first, second))
        return found

    def _copies(self, value: ir.Value, name: str) -> int:
        """How often each unit of a group is in a value."""
        ports = [p for p in self.channels.values[str(value.name)] if p is not None and name in p.groups]
        return min(int(np.sum(port.owner(name) == 0)) for port in ports)

    def _origins(self, value: ir.Value, name: str) -> Iterator[tuple[ir.Value, ir.Node]]:
        """The constants with units of a group that a value is made of, itself if it is one, and who reads them."""
        if is_constant(value):
            yield value, next(iter(readers(value)))
            return
        node = value.producer()
        for source in dict.fromkeys(node.inputs if node is not None else ()):
            if source is not None and name in _groups(source, self.channels):
                yield from self._origins(source, name)

    def _reached(self, value: ir.Value, name: str, ends: Sequence[ir.Value]) -> dict[ir.Value, set[int]]:
        """Which indices of a value, along the axis with a group, each of some others is made of.

        They are fed in place of what the value holds. Sums of one of them by numbers are multiples of it, which the
        same with ones in place of them tells; constants that are added are what there is with zeros.
        """
        ports = self.channels.values.get(str(value.name), ())
        axis = next(i for i, port in enumerate(ports) if port is not None and name in port.groups)
        given, kind = self.shape(value) or (), np.float32 if value.dtype is None else value.dtype.numpy()
        inputs = [str(v.name) for v in self.model.graph.inputs]
        outputs = [str(end.name) for end in ends]
        session = self.machine.session(part(self.model, [*inputs, str(value.name)], outputs), lasting=False)
        needed = {p.name for p in (*session.inputs, *session.overridable)}
        rest = {n: v for n, v in self.feed.items() if n in needed}

        def run(row: NDArray[Any]) -> list[NDArray[Any]]:
            turned = row.reshape([-1 if i == axis else 1 for i in range(len(given))])
            told = session.run(rest | {str(value.name): np.array(np.broadcast_to(turned, given), kind)})
            return [np.asarray(told[n], np.float64) for n in outputs]

        numbers = np.arange(given[axis])
        zero, one, both = (run(row) for row in (0 * numbers, 0 * numbers + 1, numbers + 1))
        found = dict[ir.Value, set[int]]()
        for end, a, b, c in zip(ends, zero, one, both, strict=True):
            with np.errstate(invalid="ignore", divide="ignore"):
                place = (c - a) / (b - a) - 1
            sure = np.isfinite(place).all() and np.abs(place - np.rint(place)).max() < _SURE
            found[end] = set(np.rint(place).astype(int).ravel().tolist()) if sure else set()
        return found

    def _place(self, value: ir.Value, name: str, only: Collection[int] | None, *, alike: bool) -> Place | None:
        """Where a group is in a value; None where not all units of each head are there.

        Args:
            value: the value.
            name: the group's key.
            only: indices that count, along the axis with the units.
            alike: whether all heads count as one.
        """
        inner, outer = (
            [(i, p) for i, p in enumerate(c.values.get(str(value.name), ())) if p is not None and p.groups]
            for c in (self.channels, self.heads)
        )
        mine = [(axis, port.owner(name)) for axis, port in inner if name in port.groups]
        if len(mine) != 1:
            return None
        axis, unit = mine[0]
        if only is not None:
            unit = np.where(np.isin(np.arange(len(unit)), list(only)), unit, -1)
        axes: tuple[int, ...] = (axis,)
        head = [_ALL] * len(unit) if alike else next((_named(port) for i, port in outer if i == axis), None)
        if head is None:
            if len(outer) != 1:
                return None
            axes, head = (outer[0][0], axis), [h for h in _named(outer[0][1]) for _ in unit]
            unit = np.tile(unit, len(head) // len(unit))
        at = defaultdict[_Head, dict[int, list[int]]](lambda: defaultdict(list))
        for position, (h, u) in enumerate(zip(head, unit.tolist(), strict=True)):
            if u >= 0:
                at[h][u].append(position)
        whose, units = tuple(sorted(at)), range(self.channels.groups[name].units)
        counts = {len(at[h][u]) for h in whose for u in units}
        if len(counts) != 1 or 0 in counts or _NOBODY in at:
            return None
        return Place(str(value.name), axes, np.array([[at[h][u] for u in units] for h in whose]).swapaxes(1, 2), whose)


def _named(port: Port) -> list[_Head]:
    return [
        (port.groups[g], u) if g >= 0 else _NOBODY for g, u in zip(port.group.tolist(), port.unit.tolist(), strict=True)
    ]
