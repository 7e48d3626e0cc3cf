"""How the channels of values hang together: the words with which entries of the operator table say it.

Every axis of every value is an array of ids, one for each of its indices. Two indices with the same id live or die
together; an id that is *held* stays. An entry's `flow` is given a node whose shapes are all known, ties ids of its
inputs, and says which ids the axes of its outputs have. What it says must be such that, once the indices of some ids
are taken out everywhere, the node computes the rest as before. Sums over an axis are no obstacle: what is taken out
counts as zero there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.nodes import array, attr, input_at, rank

__all__ = [
    "Axes",
    "Axis",
    "Flow",
    "aligned",
    "along",
    "axes_of",
    "drop",
    "first_only",
    "is_open",
    "opaque",
    "pointwise",
    "reduced",
    "tie_all",
    "windowed",
]

Axis = NDArray[np.int64]
"""One id for each index of an axis."""


class Axes(Protocol):
    """What an analysis of channels offers to the entries of the table."""

    inner: bool
    """Where an axis is split in two, whether it is the inner one whose indices may be taken out, or the outer one."""

    def of(self, value: ir.Value) -> list[Axis]:
        """The axes of a value."""

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """Its extents."""

    def tie(self, a: Axis, b: Axis) -> None:
        """Let each id of `a` live and die with that of `b` at the same place."""

    def hold(self, axis: Axis, why: str) -> None:
        """Let nothing of an axis be taken out."""

    def is_held(self, axis: Axis) -> bool:
        """Whether nothing of it can be taken out, as far as is known by now."""

    def held(self, extent: int, why: str) -> Axis:
        """A new axis of which nothing can be taken out."""

    def fresh(self, extent: int) -> Axis:
        """A new axis, each index of which may be taken out."""

    def put(self, value: ir.Value, axes: Sequence[Axis]) -> None:
        """Say what the axes of an output are."""

    def choose(self, node: ir.Node, options: Mapping[int, Axis]) -> int:
        """Which of several axes may lose indices, the better ones first; once it is held, the next one is chosen."""

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
        """Note that a node sums products over `source`, and that `result` is made of those sums.

        Args:
            node: the node.
            source: the channels that are summed over.
            result: the channels of the sums.
            index: of `Linear` in `linears(node)`, if it has that form.
            weight: index of the input that is the constant weight.
            batch: a further axis along which there are more products.
            diagonal: whether source and result are the same units.
            part: which part of the node's multiply-accumulates it has.
        """


Flow = Callable[[ir.Node, Axes], None]


def tie_all(axes: Axes, rows: NDArray[np.int64]) -> Axis:
    """Tie the ids of each row to one another; answers one id for each row."""
    for column in rows.T[1:]:
        axes.tie(rows[:, 0], column)
    return rows[:, 0].copy()


def is_open(value: ir.Value, axis: int) -> bool:
    """Whether the extent of an axis differs from run to run, so that no place in it can be written down."""
    return value.shape is None or not isinstance(value.shape[axis], int)


def opaque(node: ir.Node, axes: Axes) -> None:
    """Of an operator of which nothing is known."""
    for value in node.inputs:
        if value is not None:
            for axis in axes.of(value):
                axes.hold(axis, f"{node.op_type} needs it as it is")
    for value in node.outputs:
        axes.put(value, [axes.held(n, f"{node.op_type} makes it as it is") for n in axes.shape(value)])


def aligned(node: ir.Node, axes: Axes, inputs: Iterable[ir.Value | None], out: tuple[int, ...]) -> list[Axis]:
    """The axes of what broadcasts inputs to the shape `out`."""
    given = [axes.of(v) for v in inputs if v is not None]
    result: list[Axis] = []
    for place, extent in enumerate(reversed(out), 1):
        here = [a[-place] for a in given if place <= len(a)]
        for axis in here:
            if len(axis) != extent:
                axes.hold(axis, f"{node.op_type} broadcasts it")
        full = [axis for axis in here if len(axis) == extent]
        for axis in full[1:]:
            axes.tie(full[0], axis)
        result.append(full[0] if full else axes.held(extent, f"{node.op_type} makes it"))
    return result[::-1]


def pointwise(node: ir.Node, axes: Axes) -> None:
    """Of element by element, with broadcasting of all inputs."""
    for value in node.outputs:
        axes.put(value, aligned(node, axes, node.inputs, axes.shape(value)))


def first_only(node: ir.Node, axes: Axes) -> None:
    """Of element by element in input 0; the other inputs are settings."""
    (x, *_) = node.inputs
    for value in node.outputs:
        axes.put(value, aligned(node, axes, [x], axes.shape(value)))


def along(which: Callable[[ir.Node, int], Iterable[int]]) -> Flow:
    """Of what works along some axes, which are held, and for each index of the others alone.

    Args:
        which: for a node and the rank of its input 0 (and outputs), the axes it works along.
    """

    def flow(node: ir.Node, axes: Axes) -> None:
        (x, *rest) = node.inputs
        if x is None:
            return opaque(node, axes)
        mine = axes.of(x)
        worked = {a % len(mine) for a in which(node, len(mine))} if mine else set()
        for number in worked:
            axes.hold(mine[number], f"{node.op_type} works along it")
        for value in rest:
            for axis in axes.of(value) if value is not None else ():
                axes.hold(axis, f"{node.op_type} needs it as it is")
        for value in node.outputs:
            shape = axes.shape(value)
            kept = [
                mine[i] if i not in worked and n == len(mine[i]) else axes.held(n, f"{node.op_type} makes it")
                for i, n in enumerate(shape)
            ]
            axes.put(value, kept)
        return None

    return flow


_over_space = along(lambda _, rank: range(2, rank))


def windowed(node: ir.Node, axes: Axes) -> None:
    """Of pooling and the like: (N, C, spatial…), each channel of each sample on its own."""
    _over_space(node, axes)


def axes_of(node: ir.Node, rank: int, index: int = 1) -> Sequence[int] | None:
    """The axes in attribute `axes` or in a constant input; all if there are none, None if they are computed."""
    given: Any = attr(node, "axes")
    value = input_at(node, index)
    if given is None and value is not None:
        found = array(value)
        if found is None:
            return None
        given = found.reshape(-1).tolist()
    if not given:
        return () if attr(node, "noop_with_empty_axes", 0) else range(rank)
    return [int(a) % rank for a in given]


def reduced(node: ir.Node, axes: Axes) -> None:
    """Of what makes one element out of all along some axes."""
    x = node.inputs[0]
    if x is None or (gone := axes_of(node, rank(x) or len(axes.shape(x)))) is None:
        return opaque(node, axes)
    return drop(node, axes, gone, keep=bool(attr(node, "keepdims", 1)))


def drop(node: ir.Node, axes: Axes, gone: Iterable[int], *, keep: bool) -> None:
    """The axes `gone` of input 0 are reduced to one element each, which is kept as an axis or not."""
    x = node.inputs[0]
    mine, taken = axes.of(x) if x is not None else [], set(gone)
    for number in taken:
        axes.hold(mine[number], f"{node.op_type} reduces it")
    left = [axes.held(1, "it has one index") if i in taken else a for i, a in enumerate(mine) if keep or i not in taken]
    for value in node.outputs:
        axes.put(value, left)
