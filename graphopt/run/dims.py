"""The symbolic dimensions of a model's inputs: which there are, and what shapes they give."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from graphopt.run.session import Port

__all__ = ["Binding", "Extents"]

_OPERATORS: Final[Mapping[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Mult: operator.mul,
    ast.Sub: operator.sub,
    ast.Div: Fraction,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "floor": math.floor,
    "ceiling": math.ceil,
    "max": max,
    "min": min,
}
_UNMISTAKABLE: Final = (ast.Add, ast.Mult)
"""Operators that no exporter puts into plain names; "batch-size" and "batch/beam" are names."""


@dataclass(frozen=True)
class Binding:
    """An extent for every symbolic dimension."""

    dims: Mapping[str, int]

    def __str__(self) -> str:
        return ", ".join(f"{name}={extent}" for name, extent in self.dims.items()) or "shapes as declared"


class Extents:
    """The symbols in the shapes of `ports`.

    A dimension such as "past + seq" stands for a value, not for a symbol of its own. An unnamed dimension is a symbol
    called after its place, `input[axis]`. A symbol that several inputs share is one.
    """

    symbols: tuple[str, ...]
    """All of them, in order of appearance."""
    leading: frozenset[str]
    """Those that are the first axis of an input: the rows of a batch, most often."""
    spatial: frozenset[str]
    """Those inside an input of four axes or more: height and width, most often."""

    def __init__(self, ports: Iterable[Port]) -> None:
        shapes = {p.name: p.shape or () for p in ports}
        texts = {d for shape in shapes.values() for d in shape if isinstance(d, str)}
        plain = {t for t in texts if not isinstance(_parse(t), ast.BinOp | ast.Call)}
        self._shapes = {
            name: tuple(_extent(f"{name}[{axis}]" if d is None else d, plain) for axis, d in enumerate(shape))
            for name, shape in shapes.items()
        }
        places = [(d, axis, len(shape)) for shape in self._shapes.values() for axis, d in enumerate(shape)]
        self.symbols = tuple(dict.fromkeys(s for d, _, _ in places for s in _symbols(d)))
        self.leading = frozenset(d for d, axis, _ in places if axis == 0 and isinstance(d, str))
        inner = (s for d, axis, rank in places if axis > 0 and rank >= 4 for s in _symbols(d))  # noqa: PLR2004 - NCHW
        self.spatial = frozenset(inner) - self.leading

    def shape(self, name: str, dims: Mapping[str, int]) -> tuple[int, ...]:
        """The shape of an input under a binding; ValueError if an extent would be negative or undefined."""
        try:
            shape = tuple(math.floor(_number(d, dims)) for d in self._shapes[name])
        except ZeroDivisionError as error:
            raise ValueError(f"input {name!r} has an undefined extent") from error
        if any(d < 0 for d in shape):
            raise ValueError(f"input {name!r} has a negative extent")
        return shape


_Extent = int | str | ast.expr


def _parse(text: str) -> ast.expr | None:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # what ast documents for hostile text
        return None


def _extent(dim: int | str, plain: set[str]) -> _Extent:
    """The dimension as a number, a symbol, or an expression of symbols."""
    if isinstance(dim, int):
        return dim
    tree = _parse(dim)
    if tree is None or not isinstance(tree, ast.BinOp | ast.Call):
        return dim
    try:
        names = set(_symbols(tree))
    except ValueError:
        return dim
    clear = all(isinstance(n.op, _UNMISTAKABLE) for n in ast.walk(tree) if isinstance(n, ast.BinOp))
    return tree if names and (clear or names <= plain) else dim


def _symbols(extent: _Extent) -> Iterator[str]:
    """The symbols in it; ValueError if it is an expression that is not understood."""
    match extent:
        case int() | ast.Constant(value=int()):
            return
        case str(name) | ast.Name(id=name):
            yield name
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            yield from _symbols(left)
            yield from _symbols(right)
        case ast.Call(func=ast.Name(id=function), args=[_, *_] as args, keywords=[]) if function.lower() in _FUNCTIONS:
            for argument in args:
                yield from _symbols(argument)
        case _:
            raise ValueError("not an expression of dimensions")


def _number(extent: _Extent, dims: Mapping[str, int]) -> Any:
    """The extent under a binding: an int, or a Fraction that the caller rounds."""
    match extent:
        case int(number) | ast.Constant(value=int(number)):
            return number
        case str(name) | ast.Name(id=name):
            return dims[name]
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_number(left, dims), _number(right, dims))
        case ast.Call(func=ast.Name(id=function), args=args):
            return _FUNCTIONS[function.lower()](*(_number(a, dims) for a in args))
    raise AssertionError(extent)
