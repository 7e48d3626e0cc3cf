"""What changes in a node when indices are taken out of its values: attributes, and constants that hold extents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.nodes import array, attr, input_at, opset, static_shape
from graphopt.ops.reshape import pad_widths, slice_range, slice_words

__all__ = [
    "Cut",
    "Resize",
    "expanded",
    "grouped",
    "hidden",
    "padded",
    "picked",
    "resampled",
    "reshaped",
    "sliced",
    "splitted",
    "tiled",
    "unchanged",
]

SIZES = 3
"""Which input of Resize has them."""
SIZES_ARE_INPUT = 13
"""Opset from which the sizes of Split are an input."""

Stays = NDArray[np.bool_]
"""(extent,): which indices of an axis stay."""


class Cut(Protocol):
    """What a cut offers to the entries of the table."""

    def stays(self, value: ir.Value) -> Sequence[Stays]:
        """For each axis of a value, which of its indices stay."""

    def attribute(self, node: ir.Node, name: str, value: Any) -> None:
        """Give an attribute another value."""

    def constant(self, node: ir.Node, index: int, value: NDArray[Any]) -> None:
        """Let the node read another constant at an input."""

    def own(self, node: ir.Node, index: int) -> ir.Node:
        """A copy of the node that computes an input, which this node alone reads from now on."""


Resize = Callable[[ir.Node, Cut], None]


def unchanged(_node: ir.Node, _cut: Cut) -> None:
    """Of operators that take extents from their inputs."""


def _extents(cut: Cut, value: ir.Value) -> list[tuple[int, int]]:
    """Of each axis, before and after."""
    return [(len(s), int(s.sum())) for s in cut.stays(value)]


def _parts(node: ir.Node, index: int) -> Sequence[ir.Value | None]:
    """What a shape is made of: itself, or what it concatenates."""
    shape = input_at(node, index)
    source = shape.producer() if shape is not None else None
    return source.inputs if source is not None and source.op_type == "Concat" else [shape]


def _said(node: ir.Node, index: int) -> list[int | None]:
    """The numbers of a shape, None where they are computed."""
    found: list[int | None] = []
    for part in _parts(node, index):
        given = array(part)
        found += [None] * (static_shape(part) or (0,))[0] if given is None else given.reshape(-1).tolist()
    return found


def _say(node: ir.Node, cut: Cut, index: int, wanted: Sequence[int | None]) -> None:
    """Write the numbers of a shape anew, for this node alone."""
    start, reader = 0, None
    for number, part in enumerate(_parts(node, index)):
        given = array(part)
        stop = start + (static_shape(part) or (0,))[0]
        if given is not None and given.reshape(-1).tolist() != (numbers := wanted[start:stop]):
            if part is not input_at(node, index):
                reader = reader or cut.own(node, index)
            cut.constant(reader or node, number if reader else index, np.array(numbers, np.int64))
        start = stop


def reshaped(node: ir.Node, cut: Cut) -> None:
    """Of Reshape. A shape holds −1 where the rest follows, and 0 where the extent is that of the input."""
    x, given, found = node.inputs[0], _said(node, 1), _extents(cut, node.outputs[0])
    before = [] if x is None else _extents(cut, x)
    wanted = [n if n == -1 else _new(n, f) for n, f in zip(given, found, strict=True)]
    for i, number in enumerate(given):
        if number == 0 and found[i] != before[i]:
            wanted[i] = found[i][1]
    _say(node, cut, 1, wanted)


def expanded(node: ir.Node, cut: Cut) -> None:
    """Of Expand, whose shape may have fewer axes than the result, and ones where the input decides."""
    given = _said(node, 1)
    found = _extents(cut, node.outputs[0])[-len(given) :] if given else []
    _say(node, cut, 1, [n if n == 1 else _new(n, f) for n, f in zip(given, found, strict=True)])


def resampled(node: ir.Node, cut: Cut) -> None:
    """Of Resize to sizes of all axes."""
    if input_at(node, SIZES) is not None and attr(node, "axes") is None:
        found = _extents(cut, node.outputs[0])
        _say(node, cut, SIZES, [_new(n, f) for n, f in zip(_said(node, SIZES), found, strict=True)])


def tiled(node: ir.Node, cut: Cut) -> None:
    """Of Tile: how many copies of a single index are left."""
    x, given = node.inputs[0], _said(node, 1)
    before = [] if x is None else _extents(cut, x)
    found = _extents(cut, node.outputs[0])
    _say(node, cut, 1, [_new(n, f) if b == (1, 1) else n for n, f, b in zip(given, found, before, strict=True)])


def _new(number: int | None, extent: tuple[int, int]) -> int | None:
    """A number of a shape, once the axis has another extent."""
    before, after = extent
    return number if number is None or before == after else after


def splitted(node: ir.Node, cut: Cut) -> None:
    """Of Split: the sizes of its parts, which are written out where they are equal no more."""
    x = node.inputs[0]
    if x is None:
        return
    axis = attr(node, "axis", 0) % len(cut.stays(x))
    found = [_extents(cut, v)[axis] for v in node.outputs]
    if all(before == after for before, after in found):
        return
    sizes = [after for _, after in found]
    if (opset(node) or SIZES_ARE_INPUT) < SIZES_ARE_INPUT:
        cut.attribute(node, "split", sizes)
        return
    cut.attribute(node, "num_outputs", None)
    cut.constant(node, 1, np.array(sizes, np.int64))


def sliced(node: ir.Node, cut: Cut) -> None:
    """Of Slice: where ranges begin and end among what is left."""
    x, given = node.inputs[0], slice_words(node)
    if x is None or given is None:
        return
    stays, (starts, ends, axes, steps) = cut.stays(x), given
    changed = [i for i, axis in enumerate(axes) if not stays[axis].all()]
    for i in changed:
        starts[i], ends[i] = _range(starts[i], ends[i], steps[i], stays[axes[i]])
    if not changed:
        return
    if "starts" in node.attributes:
        cut.attribute(node, "starts", starts)
        cut.attribute(node, "ends", ends)
        return
    cut.constant(node, 1, np.array(starts, np.int64))
    cut.constant(node, 2, np.array(ends, np.int64))
    for index, values in ((3, axes), (4, steps)):
        if (found := array(input_at(node, index))) is not None and found.dtype != np.int64:
            cut.constant(node, index, np.array(values, np.int64))


def _range(start: int, end: int, step: int, stay: Stays) -> tuple[int, int]:
    """Where a range without gaps begins and ends among what is left."""
    taken = np.array(slice_range(start, end, step, len(stay)), int)
    left = (np.cumsum(stay) - 1)[taken[stay[taken]]].tolist()
    if not left:
        return 0, 0
    if len(taken) == len(stay):
        return start, end
    stop = left[-1] + (1 if step > 0 else -1)
    return left[0], stop if stop >= 0 else -(2**31)  # going backwards, beyond the first index


def picked(node: ir.Node, cut: Cut) -> None:
    """Of Gather: the indices of what is left, among what is left."""
    data, indices = node.inputs[0], array(input_at(node, 1))
    if data is None or indices is None or indices.ndim != 1:
        return
    stays = cut.stays(data)
    axis = attr(node, "axis", 0) % len(stays)
    stay = stays[axis]
    if not stay.all():
        positive = indices % len(stay)
        cut.constant(node, 1, (np.cumsum(stay) - 1)[positive[stay[positive]]].astype(indices.dtype))


def padded(node: ir.Node, cut: Cut) -> None:
    """Of Pad: how much of a border of channels is left."""
    x, y = node.inputs[0], node.outputs[0]
    before = cut.stays(x) if x is not None else []
    widths = pad_widths(node, len(before))
    if widths is None or all(s.all() for s in cut.stays(y)):
        return
    left = [
        (begin, end) if stay.all() else (int(stay[:begin].sum()), int(stay[len(stay) - end :].sum()))
        for stay, (begin, end) in zip(cut.stays(y), widths, strict=True)
    ]
    pads = [begin for begin, _ in left] + [end for _, end in left]
    if "pads" in node.attributes:
        cut.attribute(node, "pads", pads)
        return
    cut.constant(node, 1, np.array(pads, np.int64))
    if input_at(node, 3) is not None:
        cut.constant(node, 3, np.arange(len(before)))


def grouped(name: str) -> Resize:
    """Of operators with groups of channels on axis 1, whose number stands in an attribute."""

    def resize(node: ir.Node, cut: Cut) -> None:
        x, groups = node.inputs[0], attr(node, name, 1)
        stay = cut.stays(x)[1] if x is not None else np.ones(1, np.bool_)
        if groups > 1 and not stay.all():
            cut.attribute(node, name, int(stay.reshape(groups, -1).any(axis=1).sum()))

    return resize


def hidden(node: ir.Node, cut: Cut) -> None:
    """Of recurrent layers."""
    recurrence = node.inputs[2]
    stay = cut.stays(recurrence)[2] if recurrence is not None else np.ones(1, np.bool_)
    if not stay.all():
        cut.attribute(node, "hidden_size", int(stay.sum()))
