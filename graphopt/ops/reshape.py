"""How channels flow through operators that only move elements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from graphopt.graph.nodes import array, attr, input_at, static_shape
from graphopt.ops.flow import Axes, Axis, axes_of, is_open, opaque, tie_all

__all__ = [
    "concat",
    "depth_to_space",
    "expand",
    "extents",
    "follow",
    "gather",
    "merged",
    "pad",
    "pad_widths",
    "parted",
    "regrouped",
    "reshape",
    "slice_",
    "slice_range",
    "slice_words",
    "space_to_depth",
    "split",
    "tile",
    "transpose",
]


def regrouped(node: ir.Node, axes: Axes) -> None:
    """Of the same elements in another shape.

    Where one axis becomes several, the indices of one of them may be taken out (the inner or the outer one, as the
    analysis asks for), each of which is a row or a column of indices of the whole. Where several become one, likewise.
    """
    x, (y, *_) = node.inputs[0], node.outputs
    if x is None:
        return opaque(node, axes)
    axes.put(y, regroup(node, axes, axes.of(x), axes.shape(y)))
    return None


def reshape(node: ir.Node, axes: Axes) -> None:
    """As `regrouped`, as far as the shape can be written anew or follows another one."""
    x, y, wanted = node.inputs[0], node.outputs[0], extents(axes, input_at(node, 1))
    if x is None or wanted is None:
        return opaque(node, axes)
    result = regroup(node, axes, axes.of(x), axes.shape(y))
    follow(node, axes, result, wanted)
    return axes.put(y, result)


def extents(axes: Axes, shape: ir.Value | None) -> list[int | Axis | None] | None:
    """What a shape says: a number that can be written anew, the axis whose extent it is, or None: it is computed.

    As far as is told by constants, Shape, and a Concat of them; None where nothing is.
    """
    source = shape.producer() if shape is not None else None
    if source is not None and source.op_type == "Concat":
        parts = [_extents(axes, v) for v in source.inputs]
        return [n for part in parts for n in part or ()] if all(p is not None for p in parts) else None
    return _extents(axes, shape)


def _extents(axes: Axes, shape: ir.Value | None) -> list[int | Axis | None] | None:
    if shape is None:
        return None
    if (found := array(shape)) is not None:
        return [int(n) for n in found.reshape(-1)]
    source = shape.producer()
    if source is not None and source.op_type == "Shape" and source.inputs[0] is not None:
        return list(axes.of(source.inputs[0])[slice(attr(source, "start", 0), attr(source, "end"))])
    count = static_shape(shape)
    return None if count is None else [None] * prod(count)


def follow(node: ir.Node, axes: Axes, result: Sequence[Axis], wanted: Sequence[int | Axis | None]) -> None:
    """Let axes stay in step with the extents that are asked for."""
    for axis, extent in zip(result, wanted, strict=True):
        if extent is None:
            axes.hold(axis, f"{node.op_type} computes its extent")
        elif not isinstance(extent, int) and len(extent) == len(axis):
            axes.tie(axis, extent)
        elif not isinstance(extent, int):
            axes.hold(extent, f"{node.op_type} broadcasts to it")


def regroup(node: ir.Node, axes: Axes, given: Sequence[Axis], shape: Sequence[int]) -> list[Axis]:
    """The axes of what holds the elements of `given` in the order that they have, in another shape."""
    result: list[Axis] = []
    for few, extents in _parts([len(a) for a in given], shape):
        result += parted(node, axes, merged(node, axes, [given[i] for i in few]), extents)
    return result


def _parts(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Runs of axes (by number) that become runs of axes (by extent) with the same number of elements."""
    i = j = 0
    while i < len(before) or j < len(after):
        few, extents = [], []
        if i < len(before):
            few.append(i)
            i += 1
        if j < len(after):
            extents.append(after[j])
            j += 1
        while (m := prod(before[k] for k in few)) != (n := prod(extents)):
            if (m < n or j == len(after)) and i < len(before):
                few.append(i)
                i += 1
            elif j < len(after):
                extents.append(after[j])
                j += 1
            else:
                break
        yield few, extents


def merged(node: ir.Node, axes: Axes, given: Sequence[Axis]) -> Axis:
    """One axis with an index for each combination of indices, of which at most one axis is free."""
    free = {i: a for i, a in enumerate(given) if len(a) > 1 and not axes.is_held(a)}
    chosen = axes.choose(node, dict(sorted(free.items(), reverse=axes.inner))) if free else None
    for i, axis in enumerate(given):
        if i != chosen:
            axes.hold(axis, f"{node.op_type} makes one axis out of several")
    count = prod(len(a) for a in given)
    if chosen is None:
        return axes.held(count, f"{node.op_type} needs it as it is")
    after = prod(len(a) for a in given[chosen + 1 :])
    return np.tile(np.repeat(given[chosen], after), count // (after * len(given[chosen])))


def parted(node: ir.Node, axes: Axes, axis: Axis, extents: Sequence[int]) -> list[Axis]:
    """Several axes out of one, of which one is free: that along which alone ids differ, or as the analysis asks for."""
    real = [i for i, n in enumerate(extents) if n > 1]
    if not real:
        return [axis if i == 0 and len(axis) == n else axes.held(n, "it has one index") for i, n in enumerate(extents)]
    if len(real) > 1 and axes.is_held(axis):
        axes.hold(axis, f"{node.op_type} makes several axes out of one")
        return [axes.held(n, f"{node.op_type} needs it as it is") for n in extents]
    rows = {i: np.moveaxis(axis.reshape(tuple(extents)), i, 0).reshape(extents[i], -1) for i in reversed(real)}
    order = list(rows) if axes.inner or len(real) == 1 else [*real[-2::-1], real[-1]]
    order.sort(key=lambda i: bool(np.any(rows[i] != rows[i][:, :1])))
    chosen = axes.choose(node, dict.fromkeys(order, axis))
    ids = tie_all(axes, rows[chosen])
    why = f"{node.op_type} makes it with another axis out of one"
    return [ids if i == chosen else axes.held(n, why) for i, n in enumerate(extents)]


def transpose(node: ir.Node, axes: Axes) -> None:
    """Of axes in another order."""
    x, y = node.inputs[0], node.outputs[0]
    mine = axes.of(x) if x is not None else []
    axes.put(y, [mine[i] for i in attr(node, "perm") or range(len(mine) - 1, -1, -1)])


def depth_to_space(node: ir.Node, axes: Axes) -> None:
    """(N, b·b·C, H, W), or (N, C·b·b, H, W) in mode CRD, to (N, C, H·b, W·b): a channel is all its blocks."""
    x = node.inputs[0]
    if x is None:
        return opaque(node, axes)
    ids, blocks = axes.of(x)[1], attr(node, "blocksize") ** 2
    rows = ids.reshape(blocks, -1).T if attr(node, "mode", "DCR") == "DCR" else ids.reshape(-1, blocks)
    return _moves_blocks(node, axes, tie_all(axes, rows))


def space_to_depth(node: ir.Node, axes: Axes) -> None:
    """(N, C, H·b, W·b) to (N, b·b·C, H, W)."""
    x = node.inputs[0]
    if x is None:
        return opaque(node, axes)
    return _moves_blocks(node, axes, np.tile(axes.of(x)[1], attr(node, "blocksize") ** 2))


def _moves_blocks(node: ir.Node, axes: Axes, channels: Axis) -> None:
    x, y = node.inputs[0], node.outputs[0]
    given = axes.of(x) if x is not None else []
    why = f"{node.op_type} moves blocks"
    for axis in given[2:]:
        axes.hold(axis, why)
    axes.put(y, [given[0], channels, *(axes.held(n, why) for n in axes.shape(y)[2:])])


def concat(node: ir.Node, axes: Axes) -> None:
    """Of inputs one after another along an axis; along the others they belong together."""
    given = [axes.of(v) for v in node.inputs if v is not None]
    axis = attr(node, "axis", 1) % len(given[0])
    result = []
    for i, first in enumerate(given[0]):
        if i == axis:
            result.append(np.concatenate([a[i] for a in given]))
            continue
        for other in given[1:]:
            axes.tie(first, other[i])
        result.append(first)
    axes.put(node.outputs[0], result)


def split(node: ir.Node, axes: Axes) -> None:
    """Of consecutive parts along an axis."""
    x = node.inputs[0]
    if x is None:
        return opaque(node, axes)
    mine = axes.of(x)
    axis, start = attr(node, "axis", 0) % len(mine), 0
    if is_open(x, axis):
        axes.hold(mine[axis], "Split finds places in it")
    for value in node.outputs:
        stop = start + axes.shape(value)[axis]
        axes.put(value, [a[start:stop] if i == axis else a for i, a in enumerate(mine)])
        start = stop
    return None


def slice_(node: ir.Node, axes: Axes) -> None:
    """Of a range of indices along some axes; only ranges without steps can be made anew."""
    x, y, given = node.inputs[0], node.outputs[0], slice_words(node)
    if x is None or given is None:
        return opaque(node, axes)
    result = axes.of(x).copy()
    for start, end, axis, step in zip(*given, strict=True):
        taken = slice_range(start, end, step, len(result[axis]))
        if abs(step) > 1:
            axes.hold(result[axis], f"{node.op_type} does not take every index")
        elif len(taken) < len(result[axis]) and is_open(x, axis):
            axes.hold(result[axis], f"{node.op_type} finds places in it")
        result[axis] = result[axis][np.array(taken, int)]
    return axes.put(y, result)


def slice_words(node: ir.Node) -> tuple[list[int], list[int], list[int], list[int]] | None:
    """Starts, ends, axes and steps of a Slice, written out, if they are constants."""
    given: list[list[int] | None] = [attr(node, "starts"), attr(node, "ends"), attr(node, "axes"), None]
    for i in range(len(given)):
        if (value := input_at(node, i + 1)) is not None:
            found = array(value)
            if found is None:
                return None
            given[i] = found.reshape(-1).tolist()
    starts, ends, axes, steps = given
    if starts is None or ends is None:
        return None
    return list(starts), list(ends), list(axes or range(len(starts))), list(steps or [1] * len(starts))


def slice_range(start: int, end: int, step: int, extent: int) -> range:
    """The indices that are taken. Going backwards, what lies before the first one is a very negative number."""
    last = None if step < 0 and end < -extent else end
    return range(*slice(start, last, step).indices(extent))


def gather(node: ir.Node, axes: Axes) -> None:
    """Of slices by constant indices; where they are computed (an embedding), the axis stays as it is."""
    data, indices, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if data is None or indices is None:
        return opaque(node, axes)
    mine, chosen = axes.of(data), array(indices)
    axis = attr(node, "axis", 0) % len(mine)
    if chosen is not None and chosen.ndim == 1:
        middle = [mine[axis][chosen]]
        if is_open(data, axis):
            axes.hold(mine[axis], "Gather finds places in it")
    else:
        axes.hold(mine[axis], "Gather looks indices up in it")
        middle = [axes.held(n, "Gather needs it as it is") for n in axes.shape(indices)]
    axes.put(y, [*mine[:axis], *middle, *mine[axis + 1 :]])
    return None


def expand(node: ir.Node, axes: Axes) -> None:
    """Of axes of extent 1 that are repeated; a copy belongs to what the shape follows there."""
    x, y, wanted = node.inputs[0], node.outputs[0], extents(axes, input_at(node, 1))
    if x is None or wanted is None:
        return opaque(node, axes)
    mine, shape = axes.of(x), axes.shape(y)
    mine = [axes.held(1, "it has one index") for _ in range(len(shape) - len(mine))] + mine
    asked = [1] * (len(shape) - len(wanted)) + wanted
    result = [a if len(a) == n else axes.fresh(n) for a, n in zip(mine, shape, strict=True)]
    follow(node, axes, result, asked)
    return axes.put(y, result)


def tile(node: ir.Node, axes: Axes) -> None:
    """Of whole axes that are repeated. Copies of a single index belong to nothing, so that each may be taken out."""
    x, y, times = node.inputs[0], node.outputs[0], array(input_at(node, 1))
    mine = axes.of(x) if x is not None else []
    shapes = zip(mine, axes.shape(y), strict=True)
    axes.put(
        y, [axes.fresh(n) if len(a) == 1 < n and times is not None else np.tile(a, n // len(a)) for a, n in shapes]
    )


def pad(node: ir.Node, axes: Axes) -> None:
    """Of a border: along an axis whose indices are all alike it is like them, elsewhere it has ids of its own."""
    x, y = node.inputs[0], node.outputs[0]
    found = pad_widths(node, len(axes.shape(x))) if x is not None else None
    if x is None or found is None:
        return opaque(node, axes)
    result = []
    for axis, (begin, end) in zip(axes.of(x), found, strict=True):
        if begin == end == 0:
            result.append(axis)
        elif axes.is_held(axis) or begin < 0 or end < 0 or attr(node, "mode", "constant") != "constant":
            axes.hold(axis, f"{node.op_type} moves it")
            result.append(axes.held(begin + len(axis) + end, f"{node.op_type} makes it"))
        else:
            if is_open(x, len(result)):
                axes.hold(axis, f"{node.op_type} finds places in it")
            result.append(np.concatenate([axes.fresh(begin), axis, axes.fresh(end)]))
    axes.put(y, result)
    return None


def pad_widths(node: ir.Node, rank: int) -> list[tuple[int, int]] | None:
    """How many elements are put before and after each axis, if that is constant."""
    pads = attr(node, "pads")
    if (value := input_at(node, 1)) is not None:
        found = array(value)
        pads = None if found is None else found.reshape(-1).tolist()
    some = axes_of(node, rank, 3) if input_at(node, 3) is not None else range(rank)
    if pads is None or some is None:
        return None
    widths = [(0, 0)] * rank
    for i, axis in enumerate(some):
        widths[axis] = (int(pads[i]), int(pads[i + len(some)]))
    return widths
