"""Fragments of graphs that arrange: layouts, shapes, types, and control flow around other nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.support.growing import Graph, Port, info

__all__ = ["FRAGMENTS"]


# -- fragments: layout -----------------------------------------------------------------------------------------------


def transposes(g: Graph) -> None:
    """A Transpose, some work, and often the Transpose back."""
    x = g.value(lambda p: p.rank > 1)
    if not x:
        return
    rank = g.ports[x].rank
    channels_last = [0, *range(2, rank), 1]
    perm = channels_last if g.chance(2) else g.draw(st.permutations(range(rank)))
    y = g.node("Transpose", x, perm=perm)
    for _ in range(g.pick((0, 1, 2))):
        if y and g.ports[y].is_float:
            y = g.pick((_worked, _shifted, _joined))(g, y) or y
    if y and g.ports[y].rank == rank and not g.chance(4):
        g.node("Transpose", y, perm=[int(a) for a in np.argsort(perm)])


def _worked(g: Graph, y: str) -> str:
    return g.node(g.pick(("Relu", "Neg", "Abs", "Sigmoid", "Tanh", "Identity")), y)


def _shifted(g: Graph, y: str) -> str:
    last = g.ports[y].shape[-1]
    return g.node(g.pick(("Add", "Mul")), y, g.floats(y, *g.pick(((), (1,), (last,) if isinstance(last, int) else ()))))


def _joined(g: Graph, y: str) -> str:
    rank = g.ports[y].rank
    kind = g.pick(("concat", "reduce", "slice", "pad", "softmax", "add"))
    axis = g.pick(range(rank))
    if kind == "concat":
        return g.node("Concat", y, y, axis=axis)
    if kind == "reduce":
        return g.node("ReduceMean", y, axes=[axis], keepdims=g.pick((1, 1, 0)))
    if kind == "slice":
        return g.node("Slice", y, starts=[0], ends=[g.pick((1, 2, -1))], axes=[axis])
    if kind == "pad" and g.opset > 10:
        return g.node("Pad", y, g.ints(*(int(a % rank == axis) for a in range(2 * rank))))
    if kind == "softmax":
        return g.node("Softmax", y, axis=axis - rank)
    return g.node("Add", y, g.value(lambda p: p == g.ports[y]))


def reshapes(g: Graph) -> None:
    x = g.value(lambda p: p.rank > 0)
    for _ in range(1 + g.chance(2) + g.chance(3)):
        if x and g.ports[x].rank:
            x = _reshaped(g, x)


def _reshaped(g: Graph, x: str) -> str:
    shape = g.ports[x].shape
    numbers = [d if isinstance(d, int) else 0 for d in shape]
    kind = g.pick(("same", "own", "flat", "flatten", "squeeze", "unsqueeze", "split", "open"))
    if kind == "own":
        return g.node("Reshape", x, g.node("Shape", x))
    if kind == "flat":
        return g.node("Reshape", x, g.ints(-1) if g.chance(2) else g.ints(0, -1))
    if kind == "flatten":
        return g.node("Flatten", x, axis=g.pick((0, 1, len(shape))))
    if kind == "squeeze":
        ones = [i for i, d in enumerate(shape) if d == 1]
        return g.node("Squeeze", x, axes=[g.pick(ones)]) if ones else ""
    if kind == "unsqueeze":
        return g.node("Unsqueeze", x, axes=[g.pick(range(len(shape) + 1))])
    if kind == "split" and numbers[-1] % 2 == 0:
        return g.node("Reshape", x, g.ints(*([0] * (len(shape) - 1)), 2, numbers[-1] // 2))
    if kind == "open":
        return g.node("Reshape", x, g.ints(-1, *(0 if isinstance(d, str) else d for d in shape[1:])))
    return g.node("Reshape", x, g.ints(*numbers))


def extents(g: Graph) -> None:
    """Reshape, Expand or Slice to extents that are computed in one of the ways in which exporters do it."""
    x = g.value(lambda p: p.rank > 1 and all(p.static(a) for a in range(1, p.rank)))
    if not x:
        return
    way = g.pick(("slice", "gather", "scalar", "arithmetic"))
    shape = g.node("Shape", x)
    if way == "slice":
        first = g.node("Slice", shape, starts=[0], ends=[1], axes=[0])
    elif way == "scalar":
        first = g.node("Unsqueeze", g.node("Gather", shape, g.const(np.array(0))), axes=[0])
    else:
        first = g.node("Gather", shape, g.ints(0))
    if way == "arithmetic":
        first = g.node("Div", g.node("Mul", first, g.ints(2)), g.ints(2))
    rest = [int(d) for d in g.ports[x].shape[1:]]
    kind = g.pick(("reshape", "flat", "expand", "zeros"))
    target = first and g.node("Concat", first, g.ints(*([-1] if kind == "flat" else rest)), axis=0)
    if not target:
        return
    known = (g.ports[x].shape[0], math.prod(rest)) if kind == "flat" else g.ports[x].shape
    if kind == "zeros":
        zeros = g.claimed("ConstantOfShape", [target], Port(TensorProto.FLOAT, known))
        if g.ports[x].dtype == TensorProto.FLOAT:
            g.node("Add", x, zeros)
    elif g.opset > 7 or kind != "expand":
        g.claimed("Expand" if kind == "expand" else "Reshape", [x, target], Port(g.ports[x].dtype, known))


def slices(g: Graph) -> None:
    x = g.value(lambda p: p.rank > 0)
    for _ in range(1 + g.chance(2)):
        if not x:
            return
        axis = g.pick(range(g.ports[x].rank))
        start, end, step = g.pick(
            ((0, 2**63 - 1, 1), (0, -1, 1), (1, 3, 1), (-1, 2**63 - 1, 1), (0, 2, 1), (0, 9, 2), (-1, -9, -1))
        )
        named: dict[str, Any] = {"starts": [start], "ends": [end], "axes": [g.pick((axis, axis - g.ports[x].rank))]}
        if g.opset < 10 and (step != 1 or named["axes"][0] < 0):
            return
        steps: dict[str, Any] = {} if step == 1 else {"steps": [step]}
        x = g.node("Slice", x, **named, **steps)


def splits(g: Graph) -> None:
    """A Split, and a Concat of the parts, in their order or not."""
    x = g.value(lambda p: p.rank > 1 and p.static(-1))
    if not x:
        return
    axis, size = g.ports[x].rank - 1, int(g.ports[x].shape[-1])
    if size < 2:
        return
    first = g.node("Split", x, split=[1, size - 1], axis=axis, outputs=2)
    if first:
        parts = list(g.nodes[-1].output)
        if g.chance(2) and g.ports[x].is_float:
            parts[0] = g.node("Relu", parts[0])
        g.node("Concat", *(parts[::-1] if g.chance(2) else parts), axis=axis)


def concats(g: Graph) -> None:
    x = g.value(lambda p: p.rank > 0)
    if not x:
        return
    axis = g.pick(range(g.ports[x].rank))
    y = g.node("Concat", *[x] * g.pick((1, 2)), axis=axis)
    if y and g.chance(2):
        y = g.node("Concat", y, x, axis=g.pick((axis, axis, axis - g.ports[x].rank)))
    if y and g.chance(3):
        g.node("Slice", y, starts=[0], ends=[1], axes=[axis])


def gathers(g: Graph) -> None:
    x = g.value(lambda p: p.rank > 0)
    if x:
        axis = g.pick(range(g.ports[x].rank))
        g.node("Gather", x, g.const(np.array(g.pick((0, [0], [0, 0], [[0]]))), TensorProto.INT64), axis=axis)


def spread(g: Graph) -> None:
    x = g.value(lambda p: p.rank < 4)
    if not x:
        return
    rank = g.ports[x].rank
    if g.chance(2) and rank:
        g.node("Tile", x, g.ints(*(g.pick((1, 1, 2)) for _ in range(rank))))
    else:
        y = g.node("Expand", x, g.ints(*g.pick(([1] * max(rank, 1), [2, *[1] * rank]))))
        if y and g.ports[y].is_float:
            g.node("Mul", y, x)


def resize(g: Graph) -> None:
    x = g.value(lambda p: p.dtype == TensorProto.FLOAT and p.rank == 4 and p.static(2) and p.static(3))
    if x and g.opset > 12:
        factor = g.pick((1.0, 2.0))
        scales = g.const(np.array([1, 1, factor, factor], np.float32))
        g.node("Resize", x, None, scales, mode=g.pick(("nearest", "linear")))


# -- fragments: the rest ---------------------------------------------------------------------------------------------


def idle(g: Graph) -> None:
    """What leaves its input as it is, or may."""
    x = g.float_value()
    if not x:
        return
    kind = g.pick(("Identity", "Dropout", "twice", "add zero", "times one", "cast", "pad", "round trip"))
    if kind in {"Identity", "Dropout"}:
        y = g.node(kind, x)
        y and g.node("Relu", y)
    elif kind == "twice":
        g.node("Neg", g.node("Neg", x))
    elif kind == "cast":
        g.node("Cast", x, to=g.ports[x].dtype)
    elif kind == "pad" and g.opset > 10 and g.ports[x].rank:
        g.node("Pad", x, g.ints(*[0] * (2 * g.ports[x].rank)))
    elif kind == "round trip" and g.ports[x].dtype == TensorProto.FLOAT:
        g.node("Cast", g.node("Cast", x, to=TensorProto.DOUBLE), to=TensorProto.FLOAT)
    else:
        op, neutral = ("Add", g.pick((0.0, -0.0))) if kind == "add zero" else ("Mul", 1.0)
        g.node(op, x, g.const(np.full(g.pick(((), (1,), (1, 1))), neutral), g.ports[x].dtype))


def integers(g: Graph) -> None:
    x = g.value(lambda p: p.dtype in {TensorProto.INT64, TensorProto.INT32})
    if x and g.opset > 8:
        c = g.const(np.array(g.pick((0, 1, 2, -1, 2**31))), g.ports[x].dtype)
        g.node(g.pick(("Add", "Mul", "Sub", "Div", "Greater", "Equal")), x, c)


def truths(g: Graph) -> None:
    x = g.value(lambda p: p.dtype == TensorProto.BOOL)
    if x:
        y = g.node("Not", x)
        g.node(g.pick(("And", "Or", "Xor")), x, g.pick((x, y, g.const(np.array(g.pick((True, False)))))))
        y and g.node("Cast", g.node("Not", y), to=TensorProto.FLOAT)


def quantized(g: Graph) -> None:
    x = g.value(lambda p: p.dtype == TensorProto.FLOAT)
    if x and g.opset > 9:
        scale, zero = g.const(np.array(g.pick((0.1, 0.5)), np.float32)), g.const(np.array(g.pick((0, 3)), np.uint8))
        again = g.const(np.array(0.1, np.float32)) if g.chance(3) else scale
        g.node("DequantizeLinear", g.node("QuantizeLinear", x, scale, zero), again, zero)


def _body(g: Graph, x: str, op: str) -> onnx.GraphProto:
    """A body that reads a value from around it."""
    inner, out = g.fresh("i"), g.fresh("o")
    nodes = [helper.make_node("Identity", [x], [inner]), helper.make_node(op, [inner], [out])]
    return helper.make_graph(nodes, "body", [], [info(out, g.ports[x])])


def branch(g: Graph) -> None:
    x = g.float_value()
    if not x:
        return
    condition = g.value(lambda p: p.dtype == TensorProto.BOOL and not p.shape)
    if not condition or g.chance(3):
        condition = g.const(np.array(g.pick((True, False))))
    ops = g.pick((("Relu", "Abs"), ("Neg", "Neg"), ("Identity", "Tanh")))
    bodies = [_body(g, x, op) for op in ops]
    name = g.fresh()
    g.nodes.append(helper.make_node("If", [condition], [name], then_branch=bodies[0], else_branch=bodies[1]))
    g.ports[name] = g.ports[x]


def loop(g: Graph) -> None:
    """A Loop that carries one value and reads another from around it."""
    x = g.float_value()
    if not x or g.opset < 11:
        return
    other = g.value(lambda p: p == g.ports[x]) or x
    count, going, carried, on, out = (g.fresh("l") for _ in range(5))
    op = g.pick(("Add", "Mul", "Max"))
    nodes = [helper.make_node("Identity", [going], [on]), helper.make_node(op, [carried, other], [out])]
    inputs = [info(count, Port(TensorProto.INT64, ())), info(going, Port(TensorProto.BOOL, ()))]
    body = helper.make_graph(
        nodes,
        "body",
        [*inputs, info(carried, g.ports[x])],
        [info(on, Port(TensorProto.BOOL, ())), info(out, g.ports[x])],
    )
    times, first = g.const(np.array(g.pick((0, 1, 2)))), g.const(np.array(g.pick((True, True, False))))
    name = g.fresh()
    g.nodes.append(helper.make_node("Loop", [times, first, x], [name], body=body))
    g.ports[name] = g.ports[x]


FRAGMENTS: Mapping[str, Callable[[Graph], None]] = MappingProxyType(
    {
        f.__name__: f
        for f in (
            transposes,
            reshapes,
            extents,
            slices,
            splits,
            concats,
            gathers,
            spread,
            resize,
            idle,
            integers,
            truths,
            quantized,
            branch,
            loop,
        )
    }
)
"""By name."""
