"""What is known of small integer and boolean tensors: element by element a `Dim`, a truth value, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.dims import Dim
from graphopt.graph.nodes import array, attr, input_at, is_constant

__all__ = [
    "FAR",
    "FOLLOWED",
    "MOST",
    "Contents",
    "Rule",
    "Values",
    "as_contents",
    "axes_of",
    "broadcast",
    "ints",
    "objects",
    "product",
    "put",
]

Contents = NDArray[Any]
"""An array of objects: `Dim`, bool, or None for what is not known."""


MOST = 512
"""Elements up to which a tensor is followed: shapes, masks over axes, indices."""


FAR = 2**31 - 1


@dataclass
class Values:
    """What is known about the values of a model."""

    contents: dict[ir.Value, Contents] = field(default_factory=dict)
    symbols: dict[str, Dim] = field(default_factory=dict)
    """The polynomial behind each name of a dimension."""
    main: ir.Graph | None = None
    """The graph that always runs, as bodies do not."""
    positive: set[str] = field(default_factory=set)
    """Names of dimensions that are above zero wherever the model runs at all."""

    def of(self, value: ir.Value | None) -> Contents | None:
        """The contents of an integer or boolean tensor, as far as they are known."""
        if value is None:
            return None
        found = self.contents.get(value)
        if found is None and is_constant(value) and value.shape is not None:
            tensor = value.const_value
            if tensor is not None and tensor.size <= MOST and tensor.dtype in FOLLOWED:
                given = array(value)
                if given is not None:
                    found = objects(given)
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
        unnamed = False
        for axis, given in enumerate(value.shape):
            name = given if isinstance(given, int) else given.value
            if name is None or (isinstance(name, int) and name < 0):
                unnamed = True
                name = f"{value.name}.{axis}"
                while name in self.symbols:  # bodies may have values of the same name
                    name += "'"
            if isinstance(name, str):
                self.symbols.setdefault(name, Dim.of(name))
            extents.append(name)
        if unnamed:
            value.shape = ir.Shape(extents)


FOLLOWED = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)


Rule = Callable[[ir.Node, Values], None]


def objects(given: NDArray[Any]) -> Contents:
    """A constant as an array of `Dim` or bool."""
    found = np.empty(given.shape, object)
    found.reshape(-1)[:] = [bool(x) if given.dtype == bool else Dim.of(int(x)) for x in given.reshape(-1)]
    return found


def put(node: ir.Node, values: Values, contents: Contents | None) -> None:
    """Note the contents of the first output, and its shape with them."""
    if contents is None:
        return
    contents = np.asarray(contents, object)  # numpy answers an element where an array without axes is meant
    if contents.size > MOST:
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


def ints(contents: Contents | None) -> list[int] | None:
    """Contents that are all numbers."""
    if contents is None:
        return None
    found = [x.number if isinstance(x, Dim) else None for x in contents.reshape(-1)]
    return None if any(n is None for n in found) else [n for n in found if n is not None]


def axes_of(node: ir.Node, values: Values, index: int = 1) -> list[int] | None:
    """The attribute `axes`, or from opset 13 on the input; None where it is not known or not given."""
    given = attr(node, "axes")
    return list(given) if given is not None else ints(values.of(input_at(node, index)))


def product(extents: list[Dim | None]) -> Dim | None:
    """All extents multiplied; None where one is not known."""
    total = Dim.of(1)
    for extent in extents:
        if extent is None:
            return None
        total = total * extent
    return total


def as_contents(items: list[Any]) -> Contents:
    """A vector of these elements."""
    found = np.empty(len(items), object)
    found[:] = items
    return found


def broadcast(a: list[Any], b: list[Any]) -> list[Dim | None]:
    """Two shapes joined by numpy's rules; an extent that may be 1 or not stays open."""
    rank = max(len(a), len(b))
    a, b = [Dim.of(1)] * (rank - len(a)) + a, [Dim.of(1)] * (rank - len(b)) + b
    return [_wider(x, y) for x, y in zip(a, b, strict=True)]


def _wider(x: Dim | None, y: Dim | None) -> Dim | None:
    if x is not None and (x == y or (y is not None and y.number == 1)):
        return x
    if x is not None and x.number == 1:
        return y
    for one, other in ((x, y), (y, x)):
        if one is not None and other is not None and one.limited == other:
            return other  # min(x, n) meets x only where it is x, or 1 and stretched to it
    for one in (x, y):
        if one is not None and one.number is not None and one.number > 1:
            return one  # the other one must be 1 or the same
    return None
