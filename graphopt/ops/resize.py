"""What changes in a node when indices are taken out of the axes of its values: attributes, and constants that hold extents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.nodes import array, attr, input_at
from graphopt.ops.reshape import pad_widths, slice_range, slice_words

__all__ = [
    "Cut",
    "Resize",
    "expanded",
    "grouped",
    "hidden",
    "padded",
    "picked",
    "reshaped",
    "sliced",
    "splitted",
    "unchanged",
]

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


Resize = Callable[[ir.Node, Cut], None]


def unchanged(_node: ir.Node, _cut: Cut) -> None:
    """Of operators that take extents from their inputs."""


def _extents(cut: Cut, value: ir.Value) -> list[tuple[int, int]]:
    """Of each axis, before and after."""
    return [(len(s), int(s.sum())) for s in cut.stays(value)]


def _shape_input(node: ir.Node, cut: Cut, extents: Sequence[tuple[int, int]]) -> None:
    """A constant shape, in which 0 and −1 stay what they are."""
    given = array(input_at(node, 1))
    if given is None:
        return
    wanted = [
        n if n in {0, -1} or before == after else after
        for n, (before, after) in zip(given.tolist(), extents, strict=True)
    ]
    if wanted != given.tolist():
        cut.constant(node, 1, np.array(wanted, np.int64))


def reshaped(node: ir.Node, cut: Cut) -> None:
    """Of Reshape."""
    _shape_input(node, cut, _extents(cut, node.outputs[0]))


def expanded(node: ir.Node, cut: Cut) -> None:
    """Of Expand, whose shape may have fewer axes than the result, and ones where the input decides."""
    given = array(input_at(node, 1))
    if given is None:
        return
    extents = _extents(cut, node.outputs[0])[-len(given) :] if given.size else []
    wanted = [
        n if n == 1 or before == after else after for n, (before, after) in zip(given.tolist(), extents, strict=True)
    ]
    if wanted != given.tolist():
        cut.constant(node, 1, np.array(wanted, np.int64))


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
    if "split" in node.attributes or input_at(node, 1) is None and "num_outputs" not in node.attributes:
        if input_at(node, 1) is None and node.version is not None and node.version < 13:  # noqa: PLR2004 - an input from 13 on
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
    changed = False
    for i, axis in enumerate(axes):
        stay = stays[axis]
        if stay.all():
            continue
        taken = np.array(slice_range(starts[i], ends[i], steps[i], len(stay)), int)
        left = (np.cumsum(stay) - 1)[taken[stay[taken]]].tolist() or [0]
        starts[i], ends[i], changed = left[0], left[-1] + (1 if steps[i] > 0 else -1), True
        if ends[i] < 0:
            ends[i] = -(2**31)  # going backwards, beyond the first index
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
