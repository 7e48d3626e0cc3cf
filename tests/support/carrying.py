"""Fragments of graphs that carry values about: sequences, optionals, and types that hardly anything computes with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.support.growing import Graph, Port, written

__all__ = ["FRAGMENTS", "odd"]

_ODD = (
    TensorProto.UINT8,
    TensorProto.STRING,
    TensorProto.BFLOAT16,
    TensorProto.INT8,
    TensorProto.FLOAT8E4M3FN,
    TensorProto.INT32,
    TensorProto.UINT16,
)
_STORED = (
    (TensorProto.INT8, np.int8),
    (TensorProto.UINT8, np.uint8),
    (TensorProto.INT4, ml_dtypes.int4),
    (TensorProto.UINT4, ml_dtypes.uint4),
    (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
)
_SPLITTABLE = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64})


def odd(g: Graph) -> list[int]:
    """Types that inputs may have and that most nodes only hand on, as far as this opset has them."""
    known = onnx.defs.get_schema("Identity", g.opset).inputs[0].types
    return [dtype for dtype in _ODD if written(dtype) in known]


def sequences(g: Graph) -> None:
    """Tensors one after another, of which some are read, counted or joined."""
    x = g.value()
    if not x or g.opset < 11:
        return
    port = g.ports[x]
    same = [n for n, p in g.ports.items() if p == port]
    count = g.pick((1, 2, 3))
    made = g.claimed("SequenceConstruct", [g.pick(same) for _ in range(count)])
    if g.chance(3):
        made = g.claimed("SequenceInsert", [made, g.pick(same), *([_position(g, count + 1)] if g.chance(2) else [])])
        count += 1
    if g.chance(4) and count > 1:
        made = g.claimed("SequenceErase", [made, *([_position(g, count)] if g.chance(2) else [])])
        count -= 1
    _read(g, made, port, count)


def _position(g: Graph, count: int) -> str:
    dtype = g.pick((TensorProto.INT64, TensorProto.INT32))
    return g.const(np.array(g.pick(range(-count, count))), dtype)


def _read(g: Graph, made: str, port: Port, count: int) -> None:
    kind = g.pick(("at", "at", "length", "stacked", "joined", "given"))
    if kind == "at":
        for _ in range(g.pick((1, 2))):
            y = g.claimed("SequenceAt", [made, _position(g, count)], port)
            if port.is_float and g.chance(2):
                g.node("Relu", y)
    elif kind == "length":
        length = g.claimed("SequenceLength", [made], Port(TensorProto.INT64, ()))
        g.node("Cast", length, to=TensorProto.FLOAT)
    elif kind == "stacked":
        axis = g.pick(range(-port.rank - 1, port.rank + 1))
        shape = list(port.shape)
        shape.insert(axis % (port.rank + 1), count)
        g.claimed("ConcatFromSequence", [made], Port(port.dtype, tuple(shape)), axis=axis, new_axis=1)
    elif kind == "joined" and port.rank and isinstance(port.shape[0], int):
        joined = Port(port.dtype, (count * port.shape[0], *port.shape[1:]))
        g.claimed("ConcatFromSequence", [made], joined, axis=0)
    elif kind == "given":
        g.given.append(helper.make_tensor_sequence_value_info(made, port.dtype, port.shape))


def parts(g: Graph) -> None:
    """A tensor cut into a sequence, and some of it read."""
    x = g.value(lambda p: p.rank > 0 and p.static(-1) and p.dtype in _SPLITTABLE)
    if not x or g.opset < 11:
        return
    port, size = g.ports[x], int(g.ports[x].shape[-1])
    if not size:
        return
    axis = g.pick((-1, port.rank - 1))
    kind = g.pick(("rows", "kept", "sizes", "equal"))
    if kind in {"rows", "kept"}:
        shape = port.shape[:-1] if kind == "rows" else (*port.shape[:-1], 1)
        made = g.claimed("SplitToSequence", [x], axis=axis, keepdims=int(kind == "kept"))
        _read(g, made, Port(port.dtype, shape), size)
        return
    if kind == "sizes":
        first = g.pick(range(1, size + 1))
        extents = [first, size - first] if first < size else [first]
        made = g.claimed("SplitToSequence", [x, g.ints(*extents)], axis=axis)
    else:
        each = g.pick(range(1, size + 1))
        extents = [each] * (size // each) + ([size % each] if size % each else [])
        made = g.claimed("SplitToSequence", [x, g.const(np.array(each))], axis=axis)
    index = g.pick(range(len(extents)))
    position = g.const(np.array(index - g.pick((0, len(extents)))))
    g.claimed("SequenceAt", [made, position], Port(port.dtype, (*port.shape[:-1], extents[index])))


def optionals(g: Graph) -> None:
    """A value that might not be there, and is."""
    x = g.value()
    if not x or g.opset < 15:
        return
    held = g.claimed("Optional", [x]) if g.opset < 18 or g.chance(2) else x
    if g.chance(2):
        there = g.claimed("OptionalHasElement", [held], Port(TensorProto.BOOL, ()))
        g.node("Not", there)
    g.claimed("OptionalGetElement", [held], g.ports[x])


def narrow(g: Graph) -> None:
    """An input in another type, moved about in it, and back; what was rounded before would be rounded apart."""
    x = g.value(lambda p: p.dtype == TensorProto.FLOAT)
    if not x or x not in g.inputs:
        return
    to = g.pick(
        (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.DOUBLE, TensorProto.UINT8)
    )
    if to == TensorProto.UINT8:
        x = g.node("Cast", g.node("Greater", x, g.number(x, 0.0)), to=TensorProto.INT32)
    y = g.node("Cast", x, to=to)
    for _ in range(g.pick((0, 1, 2))):
        kind = g.pick(("Identity", "Transpose", "Reshape", "Concat", "Unsqueeze"))
        attributes: dict[str, dict[str, Any]] = {"Concat": {"axis": 0}, "Unsqueeze": {"axes": [0]}}
        if y and (kind != "Concat" or g.ports[y].rank):
            y = (
                g.node(
                    kind,
                    y,
                    *([g.ints(-1)] if kind == "Reshape" else [y] if kind == "Concat" else []),
                    **attributes.get(kind, {}),
                )
                or y
            )
    y and not g.chance(3) and g.node("Cast", y, to=TensorProto.FLOAT)


def stored(g: Graph) -> None:
    """A constant that is kept in few bits.

    It is no weight of a MatMul: whether onnxruntime makes MatMulNBits of that, which rounds what it is given to 8 bits,
    depends on how many nodes come after it.
    """
    x = g.value(lambda p: p.dtype == TensorProto.FLOAT and p.rank > 0 and p.static(-1) and p.shape[-1])
    if not x or g.opset < 21:
        return
    width = int(g.ports[x].shape[-1])
    dtype, kind = g.pick(_STORED)
    weight = g.const(np.round(2 * np.abs(g.numbers(2, width))).astype(kind))
    extents = g.pick(((), (width,)))
    scale = g.const(np.abs(g.numbers(*extents)), TensorProto.FLOAT)
    zero = [g.const(np.full(extents, g.pick((0, 1))), dtype)] if g.chance(2) else []
    row = g.node("Gather", g.node("DequantizeLinear", weight, scale, *zero, axis=1), g.const(np.array(g.pick((0, 1)))))
    g.node(g.pick(("Add", "Mul")), x, row)


FRAGMENTS: Mapping[str, Callable[[Graph], None]] = MappingProxyType(
    {f.__name__: f for f in (sequences, parts, optionals, narrow, stored)}
)
"""By name."""
