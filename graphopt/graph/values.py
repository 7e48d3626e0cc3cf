"""Partly known integer tensors: what shape computations come to, without running them.

`follow` walks a graph once in its order. For each value it learns the shape, by the official inference of single nodes,
and for small integer and boolean tensors the contents, element by element: a `Dim`, a truth value, or None where
nothing is known. What it finds about contents feeds the shapes of what comes after (Reshape, Expand, Slice, …), whose
extents are then known as polynomials in the symbols of the inputs.

This is the only place that knows how shapes are computed; operators that are not here give unknown contents.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph import shapes
from graphopt.graph.dims import Dim
from graphopt.graph.nodes import array, attr, graphs, input_at, is_constant, static_shape, subgraphs

__all__ = ["Values", "bound", "follow"]

Contents = NDArray[Any]
"""An array of objects: `Dim`, bool, or None for what is not known."""

_log = logging.getLogger(__name__)

_MOST = 512
"""Elements up to which a tensor is followed: shapes, masks over axes, indices."""
_FAR = 2**31 - 1
_ENDS = (2**31 - 1, 2**63 - 1)
"""Bounds of a Slice that mean the end of the axis."""


@dataclass
class Values:
    """What is known about the values of a model."""

    contents: dict[ir.Value, Contents] = field(default_factory=dict)
    symbols: dict[str, Dim] = field(default_factory=dict)
    """The polynomial behind each name of a dimension."""

    def of(self, value: ir.Value | None) -> Contents | None:
        """The contents of an integer or boolean tensor, as far as they are known."""
        if value is None:
            return None
        found = self.contents.get(value)
        if found is None and is_constant(value) and value.shape is not None:
            tensor = value.const_value
            if tensor is not None and tensor.size <= _MOST and tensor.dtype in _FOLLOWED:
                given = array(value)
                if given is not None:
                    found = _objects(given)
                    self.contents[value] = found
        return found

    def dim(self, extent: int | ir.SymbolicDim) -> Dim | None:
        """One extent of a shape."""
        if isinstance(extent, int):
            return Dim.of(extent) if extent >= 0 else None
        return None if extent.value is None else self.symbols.get(extent.value, Dim.of(extent.value))

    def shape(self, value: ir.Value | None) -> list[Dim | None] | None:
        """The shape of a value; None for an unknown rank."""
        if value is None or value.shape is None:
            return None
        return [self.dim(d) for d in value.shape]

    def learn(self, value: ir.Value, extents: list[Dim | None] | None) -> None:
        """Add to the shape of a value what is known to be true of it."""
        if extents is None or (value.shape is not None and len(value.shape) != len(extents)):
            return
        have: list[int | ir.SymbolicDim | None] = [None] * len(extents) if value.shape is None else list(value.shape)
        value.shape = ir.Shape(
            old if isinstance(old, int) else self.name(new) or old for old, new in zip(have, extents, strict=True)
        )

    def name(self, extent: Dim | None) -> int | str | None:
        """An extent as shapes hold it: a number, or a name for the polynomial."""
        if extent is None or not (extent.is_extent or extent.symbol):
            return None
        if extent.number is not None:
            return extent.number
        name = str(extent)
        while self.symbols.setdefault(name, extent) != extent:  # a symbol may be named as a polynomial is written
            name += "'"
        return name

    def open(self, value: ir.Value) -> None:
        """Give every unnamed extent of a value a name, so that it equals itself wherever it is read."""
        if value.shape is None:
            return
        extents: list[int | str] = []
        for axis, given in enumerate(value.shape):
            name = given if isinstance(given, int) else given.value
            if name is None or (isinstance(name, int) and name < 0):
                name = f"{value.name}.{axis}"
                while name in self.symbols:  # bodies may have values of the same name
                    name += "'"
            if isinstance(name, str):
                self.symbols.setdefault(name, Dim.of(name))
            extents.append(name)
        value.shape = ir.Shape(extents)


_FOLLOWED = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)


def follow(model: ir.Model) -> Values:
    """Learn the shapes and contents of all values of a model, and put the shapes into it.

    Shapes that a file claims for computed values are forgotten first, unless nothing here could find them again:
    exporters write wrong ones, above all for outputs. Extents of inputs are taken as declared; one without a name
    gets one of its own. (The declared interface is put back when the model is emitted.)
    """
    values = Values()
    for value in model.graph.inputs:
        values.symbols.update(
            {d.value: Dim.of(d.value) for d in value.shape or () if isinstance(d, ir.SymbolicDim) and d.value}
        )
    pending: list[ir.Graph | ir.Node] = [model.graph]
    while pending:
        current = pending.pop()
        if isinstance(current, ir.Node):
            _follow_node(current, values, model)
            continue
        for value in current.inputs:
            if current is not model.graph:
                value.shape = None  # what a body is given may change from one time to the next, whatever it declares
            values.open(value)
        for node in reversed(current):
            pending.append(node)
            pending.extend(subgraphs(node))  # bodies are looked at before the node that runs them
    return values


def _follow_node(node: ir.Node, values: Values, model: ir.Model) -> None:
    if not node.domain:
        for value in node.outputs:
            value.shape = None
    shapes.infer_node(node, model)
    rule = None if node.domain else _RULES.get(node.op_type)
    if rule is not None:
        try:
            rule(node, values)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as problem:
            _log.debug("nothing is known of %s: %s", node.name, problem)  # it is not valid, as inference may have found
    for value in node.outputs:
        values.open(value)


def bound(model: ir.Model, inputs: Mapping[str, tuple[int, ...]]) -> shapes.ShapeOf:
    """Concrete shapes of all values where the inputs have the given ones, as a function of the value.

    Values of bodies are answered by name as well; local functions are not entered.
    """
    fixed = model.clone()
    for value in fixed.graph.inputs:
        if value.name is not None and value.name in inputs:
            value.shape = ir.Shape(inputs[value.name])
    follow(fixed)
    named = (
        v for g in graphs(fixed) for v in (*g.inputs, *g.initializers.values(), *(o for n in g for o in n.outputs))
    )
    known = {v.name: static_shape(v) for v in named}

    def shape(value: ir.Value | None) -> tuple[int, ...] | None:
        return None if value is None else known.get(value.name) or static_shape(value)

    return shape


# -- one rule for each operator of shape computations ----------------------------------------------------------------

Rule = Callable[[ir.Node, Values], None]


def _objects(given: NDArray[Any]) -> Contents:
    """A constant as an array of `Dim` or bool."""
    found = np.empty(given.shape, object)
    found.reshape(-1)[:] = [bool(x) if given.dtype == bool else Dim.of(int(x)) for x in given.reshape(-1)]
    return found


def _put(node: ir.Node, values: Values, contents: Contents | None) -> None:
    """Note the contents of the first output, and its shape with them."""
    if contents is None:
        return
    contents = np.asarray(contents, object)  # numpy answers an element where an array without axes is meant
    if contents.size > _MOST:
        return
    value = node.outputs[0]
    most = None if value.dtype is None else _RANGE.get(value.dtype)
    if most is not None and not all(_fits(x, most) for x in contents.reshape(-1)):
        return  # it wraps around
    values.contents[value] = contents
    values.learn(value, [Dim.of(n) for n in contents.shape])


_RANGE = MappingProxyType({ir.DataType.INT32: 1 << 31, ir.DataType.INT64: 1 << 63})


def _fits(item: Any, most: int) -> bool:
    return not isinstance(item, Dim) or item.number is None or -most <= item.number < most


def _ints(contents: Contents | None) -> list[int] | None:
    """Contents that are all numbers."""
    if contents is None:
        return None
    found = [x.number if isinstance(x, Dim) else None for x in contents.reshape(-1)]
    return None if any(n is None for n in found) else [n for n in found if n is not None]


def _axes(node: ir.Node, values: Values, index: int = 1) -> list[int] | None:
    """The attribute `axes`, or from opset 13 on the input; None where it is not known or not given."""
    given = attr(node, "axes")
    return list(given) if given is not None else _ints(values.of(input_at(node, index)))


def _shape(node: ir.Node, values: Values) -> None:
    extents = values.shape(node.inputs[0])
    if extents is not None:
        chosen = extents[attr(node, "start", 0) : attr(node, "end", None)]
        found = np.empty(len(chosen), object)
        found[:] = chosen
        _put(node, values, found)


def _size(node: ir.Node, values: Values) -> None:
    extents = values.shape(node.inputs[0])
    if extents is not None and all(e is not None for e in extents):
        _put(node, values, np.asarray(_product(extents), object))


def _product(extents: list[Dim | None]) -> Dim | None:
    total = Dim.of(1)
    for extent in extents:
        if extent is None:
            return None
        total = total * extent
    return total


def _same(node: ir.Node, values: Values) -> None:
    _put(node, values, values.of(node.inputs[0]))


def _cast(node: ir.Node, values: Values) -> None:
    """Between integer types, which hold any extent; to and from bool contents change."""
    source, target = node.inputs[0], node.outputs[0]
    if source is not None and source.dtype in _INTEGERS and target.dtype in _INTEGERS:
        _same(node, values)


_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)


def _gather(node: ir.Node, values: Values) -> None:
    data, indices = values.of(node.inputs[0]), _ints(values.of(node.inputs[1]))
    given = values.of(node.inputs[1])
    axis = attr(node, "axis", 0)
    if data is None or indices is None or given is None or not data.ndim:
        return
    if all(-data.shape[axis] <= i < data.shape[axis] for i in indices):
        _put(node, values, np.take(data, np.asarray(indices, np.int64).reshape(given.shape), axis=axis))


def _slice(node: ir.Node, values: Values) -> None:
    bounds = _bounds(node, values)
    if bounds is None:
        return
    if any(
        step is not None and step < 0 and end is not None and end.number in _ENDS for _, end, step in bounds.values()
    ):
        node.outputs[0].shape = None  # nothing lies behind the end by the standard, and everything by onnxruntime
        return
    data, extents = values.of(node.inputs[0]), values.shape(node.inputs[0])
    if data is not None:
        window = [slice(None)] * data.ndim
        for axis, (start, end, step) in bounds.items():
            a, b = (None if x is None else x.number for x in (start, end))
            if a is None or b is None or step is None:
                return
            window[axis] = _window(a, b, step, data.shape[axis])
        _put(node, values, data[tuple(window)])
    elif extents is not None:
        for axis, (start, end, step) in bounds.items():
            extents[axis] = _sliced(extents[axis], start, end, step)
        values.learn(node.outputs[0], extents)


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
    if end.number is not None and end.number >= _FAR:
        end = extent
    elif end.number is not None and end.number < 0:
        end = extent + end
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
        axes, steps = _ints(values.of(input_at(node, 3))), _ints(values.of(input_at(node, 4)))
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
        _put(node, values, np.concatenate([p for p in parts if p is not None], axis=axis))
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
    data, axes = values.of(node.inputs[0]), _axes(node, values)
    if axes == []:
        node.outputs[0].shape = None  # nothing is squeezed by the standard, and everything by onnxruntime
    elif data is not None and (axes is not None or input_at(node, 1) is None):
        drop = axes if axes is not None else [i for i, n in enumerate(data.shape) if n == 1]
        if all(-data.ndim <= a < data.ndim and data.shape[a] == 1 for a in drop):
            _put(node, values, np.squeeze(data, tuple(drop)))


def _unsqueeze(node: ir.Node, values: Values) -> None:
    data, axes = values.of(node.inputs[0]), _axes(node, values)
    if data is not None and axes is not None:
        _put(node, values, np.expand_dims(data, tuple(axes)))
    extents = values.shape(node.inputs[0])
    if axes is not None and extents is not None:
        rank = len(extents) + len(axes)
        placed = iter(extents)
        opened = {a % rank for a in axes}
        values.learn(node.outputs[0], [Dim.of(1) if i in opened else next(placed) for i in range(rank)])


def _reshape(node: ir.Node, values: Values) -> None:
    target = (
        values.of(node.inputs[1]) if len(node.inputs) > 1 else _objects(np.asarray(attr(node, "shape", []), np.int64))
    )
    extents = values.shape(node.inputs[0])
    if target is None:
        return
    wanted = reshaped(extents, list(target), zero_is_zero=bool(attr(node, "allowzero", 0)))
    values.learn(node.outputs[0], wanted)
    data = values.of(node.inputs[0])
    fixed = _ints(_array(wanted))
    if data is not None and fixed is not None and np.prod(fixed, dtype=object) == data.size:
        _put(node, values, data.reshape(fixed))


def reshaped(extents: list[Dim | None] | None, target: list[Any], *, zero_is_zero: bool) -> list[Dim | None]:
    """What Reshape makes of a tensor with `extents`: 0 copies an extent and -1 takes what is left."""
    wanted: list[Dim | None] = []
    for i, t in enumerate(target):
        old = extents[i] if extents is not None and i < len(extents) else None
        if not isinstance(t, Dim) or not t.is_extent:
            wanted.append(None)
        elif t.number == 0 and not zero_is_zero:
            wanted.append(old)
        else:
            beyond = extents is not None and i >= len(extents)  # where 0 is an error
            wanted.append(t if t.is_positive or zero_is_zero or beyond or _vanishes(old, t) else None)
    left = [i for i, t in enumerate(target) if isinstance(t, Dim) and t.number == -1]
    if len(left) == 1 and extents is not None:
        total = _product(extents)
        others = _product([w for i, w in enumerate(wanted) if i != left[0]])
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


def _array(items: list[Any]) -> Contents:
    found = np.empty(len(items), object)
    found[:] = items
    return found


def _expand(node: ir.Node, values: Values) -> None:
    data, target, extents = values.of(node.inputs[0]), values.of(node.inputs[1]), values.shape(node.inputs[0])
    if target is None or extents is None:
        return
    wide = _broadcast(extents, list(target))
    values.learn(node.outputs[0], wide)
    fixed = _ints(_array(wide))
    if data is not None and fixed is not None and np.prod(fixed, dtype=object) <= _MOST:
        _put(node, values, np.broadcast_to(data, fixed).copy())


def _broadcast(a: list[Any], b: list[Any]) -> list[Dim | None]:
    """Two shapes joined by numpy's rules; an extent that may be 1 or not stays open."""
    rank = max(len(a), len(b))
    a, b = [Dim.of(1)] * (rank - len(a)) + a, [Dim.of(1)] * (rank - len(b)) + b
    return [_wider(x, y) for x, y in zip(a, b, strict=True)]


def _wider(x: Dim | None, y: Dim | None) -> Dim | None:
    if x is not None and (x == y or (y is not None and y.number == 1)):
        return x
    if x is not None and x.number == 1:
        return y
    for one in (x, y):
        if one is not None and one.number is not None and one.number > 1:
            return one  # the other one must be 1 or the same
    return None


def _constant_of_shape(node: ir.Node, values: Values) -> None:
    target = values.of(node.inputs[0])
    if target is None:
        return
    values.learn(node.outputs[0], list(target))
    fixed, fill = _ints(target), attr(node, "value")
    dtype = node.outputs[0].dtype
    if fixed is not None and dtype in _FOLLOWED and fill is not None and np.prod(fixed, dtype=object) <= _MOST:
        _put(node, values, np.broadcast_to(_objects(fill.numpy().reshape(())), fixed).copy())


def _elementwise(compute: Callable[..., Any]) -> Rule:
    """Any function of elements, broadcast; unknown where it answers None or an operand is unknown."""

    def rule(node: ir.Node, values: Values) -> None:
        operands = [values.of(v) for v in node.inputs]
        known = [o for o in operands if o is not None]
        if len(known) != len(operands):
            return
        sides = np.broadcast_arrays(*known)
        found = np.empty(sides[0].shape, object)
        flat = found.reshape(-1)
        for i, items in enumerate(zip(*(s.reshape(-1) for s in sides), strict=True)):
            flat[i] = None if any(x is None for x in items) else compute(*items)
        _put(node, values, found)

    return rule


def _equal(x: Any, y: Any) -> bool | None:
    if isinstance(x, bool) or isinstance(y, bool):
        return x == y if isinstance(x, bool) and isinstance(y, bool) else None
    difference = x - y
    if difference.number is not None:
        return bool(difference.number == 0)
    return False if difference.is_positive or (-difference).is_positive else None


def _less(x: Dim, y: Dim) -> bool | None:
    if (y - x).is_positive:
        return True
    return False if (x - y).is_extent else None


def _many(choose: Callable[[Dim, Dim], Dim | None]) -> Callable[..., Dim | None]:
    """A function of two, for any number of operands."""

    def compute(first: Dim, *others: Dim) -> Dim | None:
        found: Dim | None = first
        for other in others:
            found = None if found is None else choose(found, other)
        return found

    return compute


def _larger(x: Dim, y: Dim) -> Dim | None:
    return x if (x - y).is_extent else y if (y - x).is_extent else None


def _smaller(x: Dim, y: Dim) -> Dim | None:
    return y if (x - y).is_extent else x if (y - x).is_extent else None


def _quotient(x: Dim, y: Dim) -> Dim | None:
    """Integers are divided towards zero, which is downwards for extents only."""
    if x.number is not None and y.number:
        return Dim.of(int(x.number / y.number)) if abs(x.number) < _FAR else None
    return x // y if x.is_extent else None


def _remainder(x: Dim, y: Dim) -> Dim | None:
    quotient = x // y if x.is_extent and y.is_positive else None
    return None if quotient is None else _plain(x - quotient * y)


def _plain(extent: Dim) -> Dim | None:
    """Extents only: a difference that may be negative is better not followed."""
    return extent if extent.is_extent or extent.number is not None else None


def _where(node: ir.Node, values: Values) -> None:
    condition, yes, no = (values.of(v) for v in node.inputs)
    if condition is None or yes is None or no is None:
        return
    c, y, n = np.broadcast_arrays(condition, yes, no)
    found = np.empty(c.shape, object)
    for i, (a, b, d) in enumerate(zip(c.reshape(-1), y.reshape(-1), n.reshape(-1), strict=True)):
        found.reshape(-1)[i] = b if a is True or (b is not None and b == d) else d if a is False else None
    _put(node, values, found)


def _range(node: ir.Node, values: Values) -> None:
    start, limit, step = (values.of(v) for v in node.inputs)
    if start is None or limit is None or step is None:
        return
    a, b, s = start.item(), limit.item(), step.item()
    if a is None or b is None or s is None or s.number != 1:
        return
    if (b - a).is_extent:
        values.learn(node.outputs[0], [b - a])
    if a.number is not None and b.number is not None and 0 <= b.number - a.number <= _MOST:
        _put(node, values, _objects(np.arange(a.number, b.number)))


def _reduce(combine: Callable[[list[Any]], Dim | None]) -> Rule:
    """Of a vector to one number."""

    def rule(node: ir.Node, values: Values) -> None:
        data = values.of(node.inputs[0])
        if data is not None and data.ndim == 1 and not attr(node, "noop_with_empty_axes", 0):
            shape = (1,) if attr(node, "keepdims", 1) else ()
            found = np.empty(shape, object)
            found[...] = combine(list(data))
            _put(node, values, found)

    return rule


def _total(items: list[Any]) -> Dim | None:
    total = Dim.of(0)
    for item in items:
        if item is None:
            return None
        total = total + item
    return total


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
        _put(node, values, np.transpose(data, attr(node, "perm")))


def _split(node: ir.Node, values: Values) -> None:
    data, sizes = values.of(node.inputs[0]), attr(node, "split") or _ints(values.of(input_at(node, 1)))
    if data is None or data.ndim != 1:
        return
    count = len(node.outputs)
    if sizes is None and input_at(node, 1) is None and data.size % count == 0:
        sizes = [data.size // count] * count
    if sizes is not None and sum(sizes) == data.size:
        for value, part in zip(node.outputs, np.split(data, np.cumsum(sizes)[:-1]), strict=True):
            values.contents[value] = part
            values.learn(value, [Dim.of(part.size)])


_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Add": _elementwise(lambda x, y: x + y),
        "And": _elementwise(lambda x, y: x and y),
        "Cast": _cast,
        "CastLike": _cast,
        "Concat": _concat,
        "ConstantOfShape": _constant_of_shape,
        "Div": _elementwise(_quotient),
        "Equal": _elementwise(_equal),
        "Expand": _expand,
        "Gather": _gather,
        "Greater": _elementwise(lambda x, y: _less(y, x)),
        "Identity": _same,
        "Less": _elementwise(_less),
        "Loop": _loop,
        "Max": _elementwise(_many(_larger)),
        "Min": _elementwise(_many(_smaller)),
        "Mod": _elementwise(_remainder),
        "Mul": _elementwise(lambda x, y: x * y),
        "Neg": _elementwise(lambda x: -x),
        "NonZero": _non_zero,
        "Not": _elementwise(lambda x: not x),
        "Or": _elementwise(lambda x, y: x or y),
        "Range": _range,
        "ReduceProd": _reduce(_product),
        "ReduceSum": _reduce(_total),
        "Reshape": _reshape,
        "Shape": _shape,
        "Size": _size,
        "Slice": _slice,
        "Split": _split,
        "Squeeze": _squeeze,
        "Sub": _elementwise(lambda x, y: x - y),
        "Tile": _tile,
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
        "Where": _where,
    }
)
