"""Which units of a group may be mixed: any basis of them is as good as the one that the weights came with.

Two things that are multiplied and summed over the units of a head, a·b with b as rows, stay the same with (a·A)·(B·b),
A·B = 1. Where only products with constant weights make a and b, and what lies between passes sums on (it moves elements,
or multiplies all by one number), A and B can go into the weights: that is so of queries and keys, and of values and the
projection behind them, in each head on its own; not where positions turn them, or something is computed of each alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.groups import Channels, Port
from graphopt.graph.nodes import is_constant, key, readers

__all__ = ["Meeting", "Place", "meetings"]

_SIDES: Final = 2
Heads = tuple[tuple[str, int], ...]
"""Group and unit of each, where heads are what is cut."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where the units of a group are in a value, head by head."""

    value: str
    axes: tuple[int, ...]
    """Those of heads and of what is inside them; one where it holds both."""
    at: NDArray[np.int64]
    """(heads, copies, units): where along these axes, taken together; what has copies is mixed alike."""
    heads: Heads

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
    """Whether what is the same for all rows of the first one can be made up for."""


def meetings(model: ir.Model, channels: Channels, heads: Channels) -> dict[str, tuple[Meeting, ...]]:
    """By group, where its units are summed over, of all groups whose units may be mixed.

    Args:
        model: canonical.
        channels: its groups, heads losing what is inside them.
        heads: the same, heads lost as a whole.
    """
    held = {name for node in model.graph for name in _held(node, channels)}
    found = {}
    for name in channels.groups:
        if name not in held and (mine := _meetings(model, name, channels, heads)):
            found[name] = mine
    return found


def _groups(value: ir.Value | None, channels: Channels) -> set[str]:
    """The groups along the axes of a value."""
    ports = () if value is None else channels.values.get(str(value.name), ())
    return {g for port in ports if port is not None for g in port.groups}


def _held(node: ir.Node, channels: Channels) -> set[str]:
    """Groups that a node needs in the basis that they have."""
    touched = {g for v in (*node.inputs, *node.outputs) for g in _groups(v, channels)}
    if not touched:
        return touched
    mine = [p for (name, _), p in channels.products.items() if name == key(node)]
    spec = ops.spec_of(node)
    shared = {g for v in node.inputs if is_constant(v) and len(list(readers(v))) > 1 for g in _groups(v, channels)}
    if mine:
        grouped = any(p.diagonal for p in mine) or any(linear.groups > 1 for linear in ops.linears(node))
        return touched if grouped or spec is None or spec.gates is not None else shared
    passed = set() if spec is None else {node.inputs[i] for i in spec.sums(node)}
    return shared | {g for v in node.inputs if v not in passed for g in _groups(v, channels)}


def _meetings(model: ir.Model, name: str, channels: Channels, heads: Channels) -> tuple[Meeting, ...]:
    """All of one group; none where a constant is on several sides."""
    nodes = {key(node): node for node in model.graph}
    found, used = list[Meeting](), defaultdict[str, int](int)
    for reader, _ in channels.groups[name].readers:
        values = [v for v in nodes[reader].inputs if v is not None and name in _groups(v, channels)]
        if len(values) != _SIDES:
            return ()
        values.sort(key=is_constant)
        sides = [_place(v, name, channels, heads) for v in values]
        constants = [[_place(c, name, channels, heads) for c in _origins(v, name, channels)] for v in values]
        places = [p for p in (*sides, *constants[0], *constants[1]) if p is not None]
        if len(places) != _SIDES + len(constants[0]) + len(constants[1]) or len({p.heads for p in places}) > 1:
            return ()
        for place in places[_SIDES:]:
            used[place.value] += 1
        first, second = ([p for p in some if p is not None] for some in constants)
        found.append(Meeting((places[0], places[1]), (tuple(first), tuple(second)), is_constant(values[1])))
    whole = {v for v, value in model.graph.initializers.items() if name in _groups(value, channels)}
    return tuple(found) if used.keys() == whole and set(used.values()) == {1} else ()


def _origins(value: ir.Value, name: str, channels: Channels) -> Iterator[ir.Value]:
    """The constants with units of a group that a value is made of, itself if it is one."""
    if is_constant(value):
        yield value
        return
    node = value.producer()
    for source in dict.fromkeys(node.inputs if node is not None else ()):
        if source is not None and name in _groups(source, channels):
            yield from _origins(source, name, channels)


def _place(value: ir.Value, name: str, channels: Channels, heads: Channels) -> Place | None:
    """Where a group is in a value; None where not all units of each head are there."""
    inner, outer = (
        [(i, p) for i, p in enumerate(c.values.get(str(value.name), ())) if p is not None and p.groups]
        for c in (channels, heads)
    )
    mine = [(axis, port) for axis, port in inner if name in port.groups]
    if len(mine) != 1:
        return None
    (axis, port), = mine
    unit = port.owner(name)
    whose = [(i, p) for i, p in outer if len(p.groups)]
    same = next((p for i, p in whose if i == axis), None)
    if same is not None:
        axes, head = (axis,), _named(same)
    elif len(whose) == 1:
        (place, other), = whose
        axes = (place, axis)
        head = [h for h in _named(other) for _ in unit]
        unit = np.tile(unit, len(other.unit))
    else:
        return None
    at = defaultdict[tuple[str, int], dict[int, list[int]]](lambda: defaultdict(list))
    for position, (h, u) in enumerate(zip(head, unit.tolist(), strict=True)):
        if u >= 0:
            at[h][u].append(position)
    known = tuple(sorted(at))
    units = channels.groups[name].units
    counts = {len(p) for h in known for p in at[h].values()}
    if len(counts) != 1 or any(len(at[h]) != units for h in known) or ("", -1) in known:
        return None
    return Place(str(value.name), axes, np.array([[at[h][u] for u in range(units)] for h in known]).swapaxes(1, 2), known)


def _named(port: Port) -> list[tuple[str, int]]:
    return [(port.groups[g] if g >= 0 else "", u) for g, u in zip(port.group.tolist(), port.unit.tolist(), strict=True)]
