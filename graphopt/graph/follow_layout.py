"""What operators that move, cut and join do to contents and shapes. Source: ONNX operator specification."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.graph.contents import (
    FAR,
    FOLLOWED,
    MOST,
    Rule,
    Values,
    as_contents,
    axes_of,
    broadcast,
    ints,
    objects,
    product,
    put,
)
from graphopt.graph.dims import Dim
from graphopt.graph.nodes import attr, input_at

__all__ = ["RULES", "exactly", "reshaped"]

ENDS = (2**31 - 1, 2**63 - 1)
"""Bounds of a Slice that mean the end of the axis."""


def _shape(node: ir.Node, values: Values) -> None:
    extents = values.shape(node.inputs[0])
    if extents is not None:
        chosen = extents[attr(node, "start", 0) : attr(node, "end", None)]
        found = np.empty(len(chosen), object)
        found[:] = chosen
        put(node, values, found)


def _size(node: ir.Node, values: Values) -> None:
    extents = values.shape(node.inputs[0])
    if extents is not None and all(e is not None for e in extents):
        put(node, values, np.asarray(product(extents), object))


def _same(node: ir.Node, values: Values) -> None:
    put(node, values, values.of(node.inputs[0]))


def _cast(node: ir.Node, values: Values) -> None:
    """Between integer types, which hold any extent; to and from bool contents change."""
    source, target = node.inputs[0], node.outputs[0]
    if source is not None and source.dtype in _INTEGERS and target.dtype in _INTEGERS:
        _same(node, values)


_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)


def _flatten(node: ir.Node, values: Values) -> None:
    extents = values.shape(node.inputs[0])
    if extents is not None:
        axis = attr(node, "axis", 1)
        axis += len(extents) if axis < 0 else 0
        values.learn(node.outputs[0], [product(extents[:axis]), product(extents[axis:])])


def _gather(node: ir.Node, values: Values) -> None:
    data, indices = values.of(node.inputs[0]), ints(values.of(node.inputs[1]))
    given = values.of(node.inputs[1])
    axis = attr(node, "axis", 0)
    if data is None or indices is None or given is None or not data.ndim:
        return
    if all(-data.shape[axis] <= i < data.shape[axis] for i in indices):
        put(node, values, np.take(data, np.asarray(indices, np.int64).reshape(given.shape), axis=axis))


def _slice(node: ir.Node, values: Values) -> None:
    bounds = _bounds(node, values)
    if bounds is None:
        return
    if any(
        step is not None and step < 0 and end is not None and end.number in ENDS for _, end, step in bounds.values()
    ):
        node.outputs[0].shape = None  # nothing lies behind the end by the standard, and everything by onnxruntime
        return
    data, extents = values.of(node.inputs[0]), values.shape(node.inputs[0])
    if extents is not None:
        for axis, (start, end, step) in bounds.items():
            extents[axis] = _sliced(extents[axis], start, end, step)
        values.learn(node.outputs[0], extents)
    if data is not None:
        window = [slice(None)] * data.ndim
        for axis, (start, end, step) in bounds.items():
            a, b = (None if x is None else x.number for x in (start, end))
            if a is None or b is None or step is None:
                return
            window[axis] = _window(a, b, step, data.shape[axis])
        put(node, values, data[tuple(window)])


def _window(start: int, end: int, step: int, extent: int) -> slice:
    """Slice holds what is outside at the first or last element, where numpy's negative bounds would count again."""
    start, end = (n + extent if n < 0 else n for n in (start, end))
    return slice(max(start, 0), None if step < 0 and end < 0 else max(end, 0), step)


def _sliced(extent: Dim | None, start: Dim | None, end: Dim | None, step: int | None) -> Dim | None:
    """The extent of a slice with step 1 whose bounds lie inside for every feed."""
    if extent is None or start is None or end is None or step != 1:
        return None
    if start.number is not None and start.number < 0:
        start = extent + start
    if end.number is not None and end.number >= FAR:
        end = extent
    elif end.number is not None and end.number < 0:
        end = extent + end
    if extent.number is not None and start.number == 0 and end.number is None:
        return end.least(extent.number)
    inside = (extent - end).is_extent and start.is_extent
    if extent.number is not None and start.number is not None and end.number is not None:
        return Dim.of(len(range(*slice(max(start.number, 0), max(end.number, 0)).indices(extent.number))))
    return end - start if inside and (end - start).is_extent else None


def _bounds(node: ir.Node, values: Values) -> dict[int, tuple[Dim | None, Dim | None, int | None]] | None:
    """Start, end and step by axis, axes counted from the front."""
    extents = values.shape(node.inputs[0])
    if extents is None:
        return None
    if "starts" in node.attributes:
        starts, ends = ([Dim.of(int(i)) for i in attr(node, k)] for k in ("starts", "ends"))
        axes, steps = attr(node, "axes"), None
    else:
        first, second = (values.of(input_at(node, i)) for i in (1, 2))
        if first is None or second is None:
            return None
        starts, ends = list(first.reshape(-1)), list(second.reshape(-1))
        axes, steps = ints(values.of(input_at(node, 3))), ints(values.of(input_at(node, 4)))
        if (axes is None and input_at(node, 3) is not None) or (steps is None and input_at(node, 4) is not None):
            return None
    axes = list(range(len(starts))) if axes is None else [a % len(extents) for a in axes]
    return {
        axis: (start, end, steps[i] if steps else 1)
        for i, (axis, start, end) in enumerate(zip(axes, starts, ends, strict=True))
    }


def _loop(node: ir.Node, values: Values) -> None:  # noqa: ARG001 - a rule
    """Of what the rounds leave behind, onnxruntime takes open extents for 0 where there is no round."""
    for value in node.outputs[len(node.inputs) - 2 :]:
        if value.shape is not None:
            value.shape = ir.Shape(d if isinstance(d, int) else None for d in value.shape)


def _non_zero(node: ir.Node, values: Values) -> None:
    if not values.shape(node.inputs[0]):
        node.outputs[0].shape = None  # of a scalar: nothing by the standard, one row by onnxruntime


def _concat(node: ir.Node, values: Values) -> None:
    axis = attr(node, "axis", 1)
    parts = [values.of(v) for v in node.inputs]
    if all(p is not None and p.ndim for p in parts):
        put(node, values, np.concatenate([p for p in parts if p is not None], axis=axis))
        return
    every = [values.shape(v) for v in node.inputs]
    if any(e is None or len(e) != len(every[0] or ()) for e in every) or not every[0]:
        return
    extents = list(every[0])
    for e in every[1:]:
        for i in range(len(extents)):
            mine, its = extents[i], (e or extents)[i]
            if i == axis % len(extents):
                extents[i] = None if mine is None or its is None else mine + its
            elif mine is None or mine.number is None:
                extents[i] = its if its is not None and its.number is not None else mine
    values.learn(node.outputs[0], extents)


def _squeeze(node: ir.Node, values: Values) -> None:
    data, axes = values.of(node.inputs[0]), axes_of(node, values)
    if axes == []:
        node.outputs[0].shape = None  # nothing is squeezed by the standard, and everything by onnxruntime
    elif data is not None and (axes is not None or input_at(node, 1) is None):
        drop = axes if axes is not None else [i for i, n in enumerate(data.shape) if n == 1]
        if all(-data.ndim <= a < data.ndim and data.shape[a] == 1 for a in drop):
            put(node, values, np.squeeze(data, tuple(drop)))


def _unsqueeze(node: ir.Node, values: Values) -> None:
    data, axes = values.of(node.inputs[0]), axes_of(node, values)
    if data is not None and axes is not None:
        put(node, values, np.expand_dims(data, tuple(axes)))
    extents = values.shape(node.inputs[0])
    if axes is not None and extents is not None:
        rank = len(extents) + len(axes)
        placed = iter(extents)
        opened = {a % rank for a in axes if -rank <= a < rank}
        if len(opened) < len(axes):
            raise ValueError("an axis is out of range, or given twice")
        values.learn(node.outputs[0], [Dim.of(1) if i in opened else next(placed) for i in range(rank)])


def _reshape(node: ir.Node, values: Values) -> None:
    target = (
        values.of(node.inputs[1]) if len(node.inputs) > 1 else objects(np.asarray(attr(node, "shape", []), np.int64))
    )
    extents = values.shape(node.inputs[0])
    if target is None:
        return
    zero_is_zero = bool(attr(node, "allowzero", 0))
    wanted = reshaped(extents, list(target), values.positive, zero_is_zero=zero_is_zero)
    if extents is not None and not zero_is_zero and node.graph is values.main:
        copied_from_nowhere = target[len(extents) :]  # a runtime refuses a zero there
        values.positive.update(t.symbol for t in copied_from_nowhere if isinstance(t, Dim) and t.symbol)
    values.learn(node.outputs[0], wanted)
    data = values.of(node.inputs[0])
    fixed = ints(as_contents(wanted))
    if data is not None and fixed is not None and np.prod(fixed, dtype=object) == data.size:
        put(node, values, data.reshape(fixed))


def reshaped(
    extents: list[Dim | None] | None, target: list[Any], positive: Collection[str] = (), *, zero_is_zero: bool
) -> list[Dim | None]:
    """What Reshape makes of a tensor with `extents`: 0 copies an extent and -1 takes what is left.

    Args:
        extents: of the tensor; None for an unknown rank.
        target: what is known of the target's contents.
        positive: symbols that are known to be above zero.
        zero_is_zero: whether 0 is an extent like any other.
    """
    wanted: list[Dim | None] = []
    for i, t in enumerate(target):
        old = extents[i] if extents is not None and i < len(extents) else None
        if not isinstance(t, Dim) or not t.is_extent:
            wanted.append(None)
        elif t.number == 0 and not zero_is_zero:
            wanted.append(old)
        else:
            beyond = extents is not None and i >= len(extents)  # where 0 is an error
            wanted.append(t if t.is_positive_for(positive) or zero_is_zero or beyond or _vanishes(old, t) else None)
    left = [i for i, t in enumerate(target) if isinstance(t, Dim) and t.number == -1]
    if len(left) == 1 and extents is not None:
        total = product(extents)
        others = product([w for i, w in enumerate(wanted) if i != left[0]])
        if total is not None and others is not None:
            wanted[left[0]] = exactly(total, others)
    return wanted


def _vanishes(old: Dim | None, new: Dim) -> bool:
    """Whether `old` is 0 wherever `new` is, so that a computed 0 copies a 0."""
    if old is None:
        return False
    times = exactly(new, old)
    return exactly(old, new) is not None or (times is not None and times.is_positive)


def exactly(total: Dim, others: Dim) -> Dim | None:
    """The quotient where it is exact, as a runtime insists for -1."""
    quotient = total // others
    return quotient if quotient is not None and (quotient * others - total).number == 0 else None


def _expand(node: ir.Node, values: Values) -> None:
    data, target, extents = values.of(node.inputs[0]), values.of(node.inputs[1]), values.shape(node.inputs[0])
    if target is None or extents is None:
        return
    wide = broadcast(extents, list(target))
    values.learn(node.outputs[0], wide)
    fixed = ints(as_contents(wide))
    if data is not None and fixed is not None and np.prod(fixed, dtype=object) <= MOST:
        put(node, values, np.broadcast_to(data, fixed).copy())


def _resize(node: ir.Node, values: Values) -> None:
    """To sizes of all axes, or of some."""
    sizes, extents = values.of(input_at(node, 3)), values.shape(node.inputs[0])
    if sizes is None or extents is None or attr(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return
    result = list(extents)
    for axis, size in zip(attr(node, "axes") or range(len(result)), sizes, strict=True):
        result[axis] = size
    values.learn(node.outputs[0], result)


def _alike(node: ir.Node, values: Values) -> None:
    """Where inference has no answer of its own: as input 0."""
    extents = values.shape(node.inputs[0])
    if extents is not None and node.inputs[0] is not None:
        node.outputs[0].type = node.outputs[0].type or node.inputs[0].type
        values.learn(node.outputs[0], list(extents))


def _constant_of_shape(node: ir.Node, values: Values) -> None:
    target = values.of(node.inputs[0])
    if target is None:
        return
    values.learn(node.outputs[0], list(target))
    fixed, fill = ints(target), attr(node, "value")
    dtype = node.outputs[0].dtype
    if fixed is not None and dtype in FOLLOWED and fill is not None and np.prod(fixed, dtype=object) <= MOST:
        put(node, values, np.broadcast_to(objects(fill.numpy().reshape(())), fixed).copy())


def _tile(node: ir.Node, values: Values) -> None:
    repeats, extents = values.of(node.inputs[1]), values.shape(node.inputs[0])
    if repeats is not None and extents is not None and len(repeats) == len(extents):
        values.learn(
            node.outputs[0],
            [None if e is None or r is None else e * r for e, r in zip(extents, repeats, strict=True)],
        )


def _transpose(node: ir.Node, values: Values) -> None:
    data = values.of(node.inputs[0])
    if data is not None:
        put(node, values, np.transpose(data, attr(node, "perm")))


def _split(node: ir.Node, values: Values) -> None:
    data, sizes = values.of(node.inputs[0]), attr(node, "split") or ints(values.of(input_at(node, 1)))
    if data is None or data.ndim != 1:
        return
    count = len(node.outputs)
    if sizes is None and input_at(node, 1) is None and data.size % count == 0:
        sizes = [data.size // count] * count
    if sizes is not None and sum(sizes) == data.size:
        for value, part in zip(node.outputs, np.split(data, np.cumsum(sizes)[:-1]), strict=True):
            values.contents[value] = part
            values.learn(value, [Dim.of(part.size)])


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Cast": _cast,
        "CastLike": _cast,
        "Concat": _concat,
        "ConstantOfShape": _constant_of_shape,
        "Expand": _expand,
        "Flatten": _flatten,
        "Gather": _gather,
        "GroupNormalization": _alike,
        "Identity": _same,
        "Loop": _loop,
        "MeanVarianceNormalization": _alike,
        "NonZero": _non_zero,
        "Reshape": _reshape,
        "Resize": _resize,
        "Shape": _shape,
        "Size": _size,
        "Slice": _slice,
        "Split": _split,
        "Squeeze": _squeeze,
        "Tile": _tile,
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
    }
)
