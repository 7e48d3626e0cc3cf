"""Fragments of graphs that compute: elementwise, products, norms and reductions, as exporters spell them out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tests.support.growing import Graph

__all__ = ["FRAGMENTS"]

_UNARY = ("Relu", "Neg", "Abs", "Sigmoid", "Tanh", "Identity", "Exp", "Sqrt", "Reciprocal", "Erf", "Softplus", "Elu")
_UNARY_FROM_14 = (*_UNARY, "HardSwish")
_FUNCTIONS_OF_TWO = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow")


# -- fragments: elementwise ------------------------------------------------------------------------------------------


def unary(g: Graph) -> None:
    g.node(g.pick(_UNARY_FROM_14 if g.opset > 13 else _UNARY), g.float_value())


def binary(g: Graph) -> None:
    x = g.value()
    if x:
        g.node(g.pick(_FUNCTIONS_OF_TWO), x, g.value(lambda p: p.dtype == g.ports[x].dtype))


def scales(g: Graph) -> None:
    """Factors and shifts in a row, of every shape that may meet the value."""
    x = g.float_value()
    for _ in range(1 + g.chance(2) + g.chance(2)):
        if not x:
            return
        shape = [d if isinstance(d, int) else 1 for d in g.ports[x].shape]
        axis = g.pick(range(max(len(shape), 1)))
        along = tuple(d if i == axis else 1 for i, d in enumerate(shape))
        c = g.floats(x, *g.pick(((), (1,), along, along[1:], (1, *along))))
        op, pair = g.pick(("Mul", "Add", "Sub", "Div")), (x, c)
        x = g.node(op, *(pair[::-1] if g.chance(4) else pair))


def clips(g: Graph) -> None:
    x = g.float_value()
    for _ in range(1 + g.chance(2)):
        low, high = g.pick(((0.0, 6.0), (0.0, 1.0), (-1.0, 1.0), (0.0, None), (1.0, 0.0), (None, 3.0)))
        named = {n: v for n, v in (("min", low), ("max", high)) if v is not None}
        x = g.node("Relu", x) if g.chance(3) else g.node("Clip", x, **named) if x else ""


def casts(g: Graph) -> None:
    x = g.value()
    for _ in range(1 + g.chance(2)):
        to = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
        x = g.node("Cast", x, to=g.pick(to))
        if g.chance(4):
            x = g.node("Abs", x)


def gelu(g: Graph) -> None:
    x = g.float_value()
    if not x:
        return
    if g.chance(2):
        inner = g.node("Erf", g.node("Div", x, g.number(x, 2**0.5)))
    else:
        cube = g.node("Pow", x, g.number(x, 3.0))
        sum_ = g.node("Add", x, cube and g.node("Mul", cube, g.number(x, 0.044715)))
        inner = g.node("Tanh", sum_ and g.node("Mul", sum_, g.number(x, math.sqrt(2 / math.pi))))
    one = inner and g.node("Add", inner, g.number(x, 1.0))
    if g.chance(2):
        one and g.node("Mul", g.node("Mul", x, one), g.number(x, 0.5))
    else:
        one and g.node("Mul", g.node("Mul", x, g.number(x, 0.5)), one)


def gates(g: Graph) -> None:
    """Swish, HardSwish, Mish and their kin."""
    x = g.float_value()
    if not x:
        return
    kind = g.pick(("swish", "hard", "hard spelled out", "mish", "softplus"))
    if kind == "swish":
        gate = g.node("Sigmoid", x)
    elif kind == "hard":
        gate = g.node("HardSigmoid", x, alpha=g.pick((1 / 6, 0.2)), beta=0.5)
    elif kind == "mish":
        gate = g.node("Tanh", g.node("Softplus", x))
    elif kind == "softplus":
        gate = g.node("Log", g.node("Add", g.node("Exp", x), g.number(x, 1.0)))
    else:
        clipped = g.node("Clip", g.node("Add", x, g.number(x, 3.0)), min=0.0, max=g.pick((6.0, 6.0, 5.0)))
        gate = clipped and g.node("Div", clipped, g.number(x, 6.0))
    g.node("Mul", *((x, gate) if g.chance(2) else (gate, x)))


def select(g: Graph) -> None:
    x = g.float_value()
    if x:
        found = g.node(g.pick(("Greater", "Less", "Equal")), x, g.number(x, 0.0))
        if g.chance(3):
            found = g.node("Not", g.node("Not", found))
        g.node("Where", found, *((x, g.number(x, 0.0)) if g.chance(2) else (g.number(x, 1.0), x)))


def many(g: Graph) -> None:
    x = g.float_value()
    same = [n for n, p in g.ports.items() if x and p == g.ports[x]]
    g.node(g.pick(("Sum", "Max", "Min", "Mean")), *(g.pick(same) for _ in range(g.pick((1, 2, 3))) if same))


# -- fragments: products ---------------------------------------------------------------------------------------------


def _weight(g: Graph, like: str, *shape: int) -> str:
    """Random numbers, or a weight of this shape that is there already."""
    dtype = helper.tensor_dtype_to_np_dtype(g.ports[like].dtype)
    shared = [n for n, a in g.constants.items() if a.shape == shape and a.dtype == dtype]
    if shared and g.chance(2):
        return str(g.pick(shared))
    return g.const(0.5 * g.numbers(*shape), g.ports[like].dtype)


def conv(g: Graph) -> None:
    """A Conv or ConvTranspose, maybe behind a Pad, and what may be folded into it."""
    x = g.value(lambda p: p.is_float and p.rank in {3, 4} and all(p.static(a) for a in range(1, p.rank)))
    if x and g.chance(3):
        x = _padded(g, x) or x
    if not x or not g.ports[x].shape[1]:
        return  # without channels the runtime may never come back
    channels, spatial = int(g.ports[x].shape[1]), g.ports[x].rank - 2
    groups = g.pick([k for k in (1, 1, 2, 4) if channels % k == 0])
    kernel = [g.pick((1, 1, 2, 3)) for _ in range(spatial)]
    if g.chance(4):
        weight, op = _weight(g, x, channels, g.pick((1, 2)), *kernel), "ConvTranspose"
        out = g.constants[weight].shape[1] * groups
    else:
        out = groups * g.pick((1, 2, 4))
        weight, op = _weight(g, x, out, channels // groups, *kernel), "Conv"
    named: dict[str, Any] = {"group": groups}
    if g.chance(3):
        named["pads"] = [g.pick((0, 1)) for _ in range(2 * spatial)]
    if g.chance(4):
        named["strides"] = [g.pick((1, 2)) for _ in range(spatial)]
    y = g.node(op, x, weight, *([_weight(g, x, out)] if g.chance(2) else []), **named)
    if y and not g.chance(4):
        _behind(g, y)


def _behind(g: Graph, y: str) -> None:
    """What exporters put behind a product: BatchNormalization, a scale and a shift for each channel."""
    if g.ports[y].rank < 2 or not g.ports[y].static(1):
        return
    channels = int(g.ports[y].shape[1])
    if g.chance(2) and g.ports[y].rank > 2:
        variance = g.const(np.abs(g.numbers(channels)), g.ports[y].dtype)
        others = [_weight(g, y, channels) for _ in range(3)]
        y = g.node("BatchNormalization", y, *others, variance)
    else:
        along = (channels, *(1 for _ in range(g.ports[y].rank - 2)))
        for op in g.pick((("Mul", "Add"), ("Add",), ("Mul",), ("Div",), ("Sub", "Mul"))):
            c = g.floats(y, *g.pick((along, (1, *along), (), (1,)))) if y else ""
            y = g.node(op, *((c, y) if g.chance(4) and op != "Div" else (y, c)))
    if g.chance(2):
        g.node(g.pick(("Relu", "LeakyRelu", "Sigmoid")), y)


def _padded(g: Graph, x: str) -> str:
    rank = g.ports[x].rank
    pads = [g.pick((0, 0, 0, 1)) if a % rank < 2 else g.pick((0, 1, 2, -1)) for a in range(2 * rank)]
    if not g.chance(4):
        pads = [0 if a % rank < 2 else p for a, p in enumerate(pads)]
    mode = g.pick(("constant", "constant", "constant", "reflect", "edge"))
    if g.opset < 11:
        return g.node("Pad", x, pads=pads, mode=mode, value=g.pick((0.0, 0.0, 1.0)))
    value = [] if g.chance(2) else [g.const(np.array(g.pick((0.0, -0.0, 1.0))), g.ports[x].dtype)]
    return g.node("Pad", x, g.ints(*pads), *value, mode=mode)


def pool(g: Graph) -> None:
    x = g.value(lambda p: p.is_float and p.rank == 4)
    if x and g.chance(2):
        x = _padded(g, x) or x
    kind = g.pick(("MaxPool", "AveragePool", "GlobalAveragePool", "LpPool"))
    if kind.startswith("Global"):
        g.node(kind, x)
        return
    named: dict[str, Any] = {"kernel_shape": [g.pick((1, 2)), g.pick((1, 2))]}
    if g.chance(2):
        named["pads"] = [g.pick((0, 1)) for _ in range(4)] if named["kernel_shape"] == [2, 2] else [0] * 4
    if kind == "AveragePool":
        named["count_include_pad"] = g.pick((0, 1))
    g.node(kind, x, **named)


def matmul(g: Graph) -> None:
    x = g.value(lambda p: p.is_float and p.rank > 1 and p.static(-1))
    if not x:
        return
    inner = int(g.ports[x].shape[-1])
    width = g.pick((2, 3, 4))
    y = g.node("MatMul", x, _weight(g, x, inner, width))
    if y and g.chance(4):
        y = g.node(g.pick(("Transpose", "Relu")), y)
    for op in ("Add", "Mul"):
        if y and not g.chance(3):
            y = g.node(op, y, g.floats(y, *g.pick(((width,), (1, width), (), (1, 1, width)))))
    if y and g.chance(2):
        g.node("MatMul", y, _weight(g, y, int(g.ports[y].shape[-1] or 1) if g.ports[y].static(-1) else 1, 3))


def gemm(g: Graph) -> None:
    x = g.value(lambda p: p.is_float and p.rank == 2 and p.static(1))
    if not x:
        return
    inner, width, turned = int(g.ports[x].shape[1]), g.pick((2, 3, 4)), g.chance(2)
    inputs = [x, _weight(g, x, width, inner) if turned else _weight(g, x, inner, width)]
    if g.chance(2) or g.opset < 11:
        inputs.append(g.floats(x, *g.pick(((width,), (1, width), (1,), ()))))
    y = g.node("Gemm", *inputs, transB=int(turned), alpha=g.pick((1.0, 0.5)), beta=g.pick((1.0, 2.0)))
    if y:
        _behind(g, y)


def dots(g: Graph) -> None:
    """A product of two values, one of them maybe turned: attention's scores."""
    x = g.value(lambda p: p.is_float and p.rank > 1)
    if not x:
        return
    rank = g.ports[x].rank
    perm = [*range(rank - 2), rank - 1, rank - 2]
    y = g.node("MatMul", x, g.node("Transpose", x, perm=g.pick((perm, perm, list(range(rank))[::-1]))))
    y = y and g.node(g.pick(("Mul", "Div")), y, g.number(x, 2.0))
    y = y and g.node("Softmax", y, axis=g.pick((-1, -1, rank - 1, 0)))
    y and g.node("MatMul", y, x)


def recurrent(g: Graph) -> None:
    x = g.value(lambda p: p.dtype == TensorProto.FLOAT and p.rank == 3 and p.static(-1) and p.static(1))
    if not x or g.opset < 11:
        return
    if 0 in g.ports[x].shape:
        return  # an empty sequence or batch aborts the process of the runtime
    hidden, width = 2, int(g.ports[x].shape[2])
    op, gates = g.pick((("LSTM", 4), ("GRU", 3), ("RNN", 1)))
    states = 2 if op == "LSTM" else 1
    inputs: list[str | None] = [x, _weight(g, x, 1, gates * hidden, width), _weight(g, x, 1, gates * hidden, hidden)]
    inputs.append(_weight(g, x, 1, 2 * gates * hidden) if g.chance(2) else None)
    inputs.append(None)
    batch = int(g.ports[x].shape[1])
    inputs += [g.const(np.full((1, batch, hidden), g.pick((0.0, 0.0, -0.0, 1.0)), np.float32)) for _ in range(states)]
    y = g.node(op, *inputs, hidden_size=hidden)
    y and g.node("Squeeze", y, axes=[1])


# -- fragments: norms and reductions ---------------------------------------------------------------------------------


def norm(g: Graph) -> None:
    """LayerNormalization or its kin, spelled out."""
    x = g.value(lambda p: p.is_float and p.rank > 1 and p.static(-1))
    if not x:
        return
    axes = g.pick(([-1], [-1], [-1], [g.ports[x].rank - 1], [-2, -1], [1]))

    def mean(v: str) -> str:
        return g.node("ReduceMean", v, axes=axes, keepdims=1)

    rms = g.chance(3)
    centred = x if rms else g.node("Sub", x, mean(x))
    if not centred:
        return
    square = g.node("Mul", centred, centred) if g.chance(2) else g.node("Pow", centred, g.number(x, 2.0))
    variance = mean(square)
    shifted = variance and g.node("Add", variance, g.number(x, g.pick((1e-5, 1e-3, 0.0))))
    deviation = g.node("Sqrt", shifted)
    turned = g.chance(3)
    y = g.node("Mul" if turned else "Div", centred, g.node("Reciprocal", deviation) if turned else deviation)
    for op in ("Mul", "Add"):
        if y and not g.chance(4):
            y = g.node(
                op, y, g.floats(x, *g.pick((([int(g.ports[x].shape[-1])]), [1], [1, int(g.ports[x].shape[-1])])))
            )


def softmax(g: Graph) -> None:
    x = g.float_value(1)
    if not x:
        return
    axis = g.pick((-1, 0, g.ports[x].rank - 1))
    if g.chance(2):
        y = g.node("Softmax", x, axis=axis)
        if g.chance(3):
            g.node("Log", y)
        return
    top = g.node("ReduceMax", x, axes=[axis], keepdims=1)
    raised = g.node("Exp", g.node("Sub", x, top))
    g.node("Div", raised, raised and g.node("ReduceSum", raised, axes=[axis], keepdims=1))


def reduce(g: Graph) -> None:
    x = g.float_value(1)
    for _ in range(1 + g.chance(2)):
        if not x or not g.ports[x].rank:
            return
        rank = g.ports[x].rank
        op = g.pick(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd"))
        keep = g.pick((0, 1))
        axis = g.pick((-1, 0, rank - 1, rank // 2))
        x = g.node(op, x, axes=[axis], keepdims=keep)
        if x and keep and g.chance(2):
            x = g.node("Squeeze", x, axes=[axis])


FRAGMENTS: Mapping[str, Callable[[Graph], None]] = MappingProxyType(
    {
        f.__name__: f
        for f in (
            unary,
            binary,
            scales,
            clips,
            casts,
            gelu,
            gates,
            select,
            many,
            conv,
            pool,
            matmul,
            gemm,
            dots,
            recurrent,
            norm,
            softmax,
            reduce,
        )
    }
)
"""By name."""
