"""Random graphs: valid ones of all kinds, most of them nearly what some rule looks for.

A graph grows by *fragments*: a single operator, or what exporters make of one (a spelled-out Gelu, a BatchNormalization
behind a Conv, a chain of Reshapes). Each is drawn with its variations, of which many are no match: another constant,
another axis, one reader more. Types and shapes come from the official inference, and what it has no shape for is not
taken up, so that a fragment needs no rule for what it results in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.shape_inference
import onnx_ir as ir
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

__all__ = ["models"]

Array = NDArray[Any]
Dim = int | str

OPSETS = (7, 9, 11, 12, 13, 14, 17, 18, 20, 21)
MOST_ELEMENTS = 1000
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
_EDGES = (np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, -1.0)
_UNARY = ("Relu", "Neg", "Abs", "Sigmoid", "Tanh", "Identity", "Exp", "Sqrt", "Reciprocal", "Erf", "Softplus", "Elu")
_UNARY_FROM_14 = (*_UNARY, "HardSwish")
_FUNCTIONS_OF_TWO = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow")


@dataclass(frozen=True)
class Port:
    """What is known of a value."""

    dtype: int
    shape: tuple[Dim, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    def static(self, axis: int) -> bool:
        return -self.rank <= axis < self.rank and isinstance(self.shape[axis], int)


class Graph:
    """A graph that grows. Every method that adds something answers None where it does not fit."""

    def __init__(self, draw: st.DrawFn, opset: int) -> None:
        self.draw = draw
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.ports: dict[str, Port] = {}
        self.inputs: dict[str, Port] = {}
        self.count = 0

    # -- drawing -----------------------------------------------------------------------------------------------------

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.draw(st.integers(0, len(options) - 1))]

    def chance(self, one_in: int) -> bool:
        """True with the probability 1 / `one_in`; shrinks to False."""
        return self.draw(st.integers(0, one_in - 1)) == one_in - 1

    def numbers(self, *shape: int) -> Array:
        """Random numbers away from 0: a quotient by them is harmless."""
        made = np.random.default_rng(self.draw(st.integers(0, 63)))
        return np.asarray(made.uniform(0.5, 2, shape) * made.choice([-1, 1], shape))

    def value(self, fits: Callable[[Port], object] = lambda _: True) -> str:
        """One of the values that fit, rather a late one; "" if none does."""
        found = [name for name, port in self.ports.items() if fits(port)]
        return str(self.pick(found[-5:][::-1])) if found else ""

    def float_value(self, least_rank: int = 0) -> str:
        return self.value(lambda p: p.is_float and p.rank >= least_rank)

    # -- adding ------------------------------------------------------------------------------------------------------

    def fresh(self, prefix: str = "v") -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def const(self, array: Array, dtype: int | None = None) -> str:
        """A constant: shared where there is an equal one, an initializer or a Constant node."""
        if dtype is not None:
            array = array.astype(helper.tensor_dtype_to_np_dtype(dtype))
        for name, other in self.constants.items():
            if other.dtype == array.dtype and other.shape == array.shape and other.tobytes() == array.tobytes():
                if self.chance(2):
                    break
                return name
        name = self.fresh("c")
        self.constants[name] = array
        if self.chance(5):
            self.nodes.append(helper.make_node("Constant", [], [name], value=ir.to_proto(ir.tensor(array))))
        return name

    def ints(self, *numbers: int) -> str:
        return self.const(np.array(numbers, np.int64))

    def floats(self, like: str, *shape: int) -> str:
        """A constant of the type of `like`: random, neutral, or with what is no number."""
        kind = self.pick(("random", "random", "random", "ones", "zeros", "negative zeros", "edges"))
        filled = {"ones": 1.0, "zeros": 0.0, "negative zeros": -0.0}
        array = np.full(shape, filled[kind]) if kind in filled else self.numbers(*shape)
        if kind == "edges" and array.size:
            array.reshape(-1)[0] = self.pick(_EDGES)
        return self.const(array, self.ports[like].dtype)

    def number(self, like: str, value: float) -> str:
        """A constant of one element, now and then another one than was asked for, as a scalar or a vector."""
        if self.chance(12):
            value = self.pick((0.0, 1.0, 2.0, -1.0, value * 1.01))
        return self.const(np.full(self.pick(((), (), (1,))), value), self.ports[like].dtype)

    def node(self, op: str, *inputs: str | None, outputs: int = 1, **named: Any) -> str:
        """A node, and its first output; "" where an input is missing or inference has no shape for the result.

        What stands in `named` is an attribute, or an input where this opset has it as one.
        """
        if any(name == "" for name in inputs) or not onnx.defs.has(op, self.opset):
            return ""
        schema = onnx.defs.get_schema(op, self.opset)
        given = [name or "" for name in inputs]
        attributes = {}
        positions = {p.name: i for i, p in enumerate(schema.inputs)}
        for name, value in named.items():
            if name in schema.attributes:
                attributes[name] = value
            elif name in positions:
                given += [""] * (positions[name] + 1 - len(given))
                given[positions[name]] = value if isinstance(value, str) else self._parameter(value, given[0])
            elif value is not None:
                return ""
        names = [self.fresh() for _ in range(outputs)]
        made = helper.make_node(op, given, names, **attributes)
        found = self._infer(made, schema)
        if found is None:
            return ""
        self.nodes.append(made)
        self.ports.update(zip(names, found, strict=True))
        return names[0]

    def _parameter(self, value: Any, like: str) -> str:
        if isinstance(value, float):
            return self.const(np.array(value), self.port(like).dtype)
        return self.const(np.array(value, np.int64))

    def port(self, name: str) -> Port:
        if name in self.ports:
            return self.ports[name]
        array = self.constants[name]
        return Port(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)

    def _infer(self, node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> list[Port] | None:
        """Type and shape of each output; None where the node is wrong, too large or not understood."""
        ports = {name: self.port(name) for name in node.input if name}
        types = {name: helper.make_tensor_type_proto(p.dtype, p.shape) for name, p in ports.items()}
        data = {n: ir.to_proto(ir.tensor(self.constants[n], name=n)) for n in ports if n in self.constants}
        try:
            found = onnx.shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10
            )
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError):
            return None
        return _ports(node.output, found)

    # -- the model ---------------------------------------------------------------------------------------------------

    def model(self) -> onnx.ModelProto:
        for _ in range(1 + self.chance(2)):
            self._input()
        for _ in range(self.draw(st.integers(1, 8))):
            FRAGMENTS[self.pick(_NAMES)](self)
            if self.chance(6):
                _again(self)
        made = [n for n in self.ports if n not in self.inputs and n not in self.constants]
        if not made:
            made = [self.node("Identity", next(iter(self.inputs)))]
        outputs = {made[-1], *(n for n in made[-8:] if self.chance(6))}
        held = {node.output[0] for node in self.nodes if node.op_type == "Constant"}
        kept = {n: a for n, a in self.constants.items() if n not in held}
        overridable = {n: self.port(n) for n, a in kept.items() if a.dtype.kind == "f" and self.chance(10)}
        graph = helper.make_graph(
            self.nodes,
            "random",
            [_info(n, p) for n, p in (self.inputs | overridable).items()],
            [_info(n, self.ports[n]) for n in made if n in outputs],
            [ir.to_proto(ir.tensor(a, name=n)) for n, a in kept.items()],
        )
        imports = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, ir_version=10 if self.opset > 20 else 8, opset_imports=imports)

    def _input(self) -> None:
        kind = self.pick(("image", "sequence", "rows", "image", "sequence", "any"))
        size = lambda: self.pick((1, 2, 3, 4, 4, 0) if kind == "any" else (1, 2, 3, 4))  # noqa: E731
        shape: tuple[Dim, ...] = {
            "image": lambda: (self.pick(("N", 1)), self.pick((4, 2, 3)), 4 + size(), 4 + size()),
            "sequence": lambda: (self.pick(("N", 1, 2)), self.pick(("L", 3)), self.pick((4, 8))),
            "rows": lambda: ("N", size()),
            "any": lambda: tuple(size() for _ in range(self.pick((0, 1, 2, 3)))),
        }[kind]()
        name, dtype = self.fresh("x"), TensorProto.FLOAT
        if self.chance(6):
            dtype = self.pick((TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.BOOL))
        self.inputs[name] = self.ports[name] = Port(dtype, shape)


def _ports(names: Sequence[str], types: Mapping[str, onnx.TypeProto]) -> list[Port] | None:
    ports = []
    for name in names:
        if name not in types or not types[name].HasField("tensor_type"):
            return None
        tensor = types[name].tensor_type
        if not tensor.HasField("shape"):
            return None
        shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim)
        if len(shape) > 5 or any(d == "" or str(d).startswith("unk__") for d in shape):
            return None
        if math.prod(3 if isinstance(d, str) else d for d in shape) > MOST_ELEMENTS:
            return None
        ports.append(Port(tensor.elem_type, shape))
    return ports


def _info(name: str, port: Port) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, port.dtype, port.shape)


def _again(g: Graph) -> None:
    """A node that is there already."""
    once = [n for n in g.nodes if n.op_type not in {"If", "Loop", "Constant"} and n.output[0] in g.ports]
    if once:
        copy = onnx.NodeProto.FromString(g.pick(once[-6:]).SerializeToString())
        ports = [g.ports[n] for n in copy.output]
        copy.output[:] = [g.fresh() for _ in copy.output]
        g.nodes.append(copy)
        g.ports.update(zip(copy.output, ports, strict=True))


# -- fragments: elementwise ------------------------------------------------------------------------------------------


def _unary(g: Graph) -> None:
    g.node(g.pick(_UNARY_FROM_14 if g.opset > 13 else _UNARY), g.float_value())


def _binary(g: Graph) -> None:
    x = g.value()
    if x:
        g.node(g.pick(_FUNCTIONS_OF_TWO), x, g.value(lambda p: p.dtype == g.ports[x].dtype))


def _scales(g: Graph) -> None:
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


def _clips(g: Graph) -> None:
    x = g.float_value()
    for _ in range(1 + g.chance(2)):
        low, high = g.pick(((0.0, 6.0), (0.0, 1.0), (-1.0, 1.0), (0.0, None), (1.0, 0.0), (None, 3.0)))
        named = {n: v for n, v in (("min", low), ("max", high)) if v is not None}
        x = g.node("Relu", x) if g.chance(3) else g.node("Clip", x, **named) if x else ""


def _casts(g: Graph) -> None:
    x = g.value()
    for _ in range(1 + g.chance(2)):
        to = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
        x = g.node("Cast", x, to=g.pick(to))
        if g.chance(4):
            x = g.node("Abs", x)


def _gelu(g: Graph) -> None:
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


def _gates(g: Graph) -> None:
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


def _select(g: Graph) -> None:
    x = g.float_value()
    if x:
        found = g.node(g.pick(("Greater", "Less", "Equal")), x, g.number(x, 0.0))
        if g.chance(3):
            found = g.node("Not", g.node("Not", found))
        g.node("Where", found, *((x, g.number(x, 0.0)) if g.chance(2) else (g.number(x, 1.0), x)))


def _many(g: Graph) -> None:
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


def _conv(g: Graph) -> None:
    """A Conv or ConvTranspose, maybe behind a Pad, and what may be folded into it."""
    x = g.value(lambda p: p.is_float and p.rank in {3, 4} and all(p.static(a) for a in range(1, p.rank)))
    if x and g.chance(3):
        x = _padded(g, x) or x
    if not x:
        return
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


def _pool(g: Graph) -> None:
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


def _matmul(g: Graph) -> None:
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


def _gemm(g: Graph) -> None:
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


def _dots(g: Graph) -> None:
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


def _recurrent(g: Graph) -> None:
    x = g.value(lambda p: p.dtype == TensorProto.FLOAT and p.rank == 3 and p.static(-1) and p.static(1))
    if not x or g.opset < 11:
        return
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


def _norm(g: Graph) -> None:
    """LayerNormalization or its kin, spelled out."""
    x = g.value(lambda p: p.is_float and p.rank > 1 and p.static(-1))
    if not x:
        return
    axes = g.pick(([-1], [-1], [-1], [g.ports[x].rank - 1], [-2, -1], [1]))
    mean = lambda v: g.node("ReduceMean", v, axes=axes, keepdims=1)  # noqa: E731
    rms = g.chance(3)
    centred = x if rms else g.node("Sub", x, mean(x))
    if not centred:
        return
    square = g.node("Mul", centred, centred) if g.chance(2) else g.node("Pow", centred, g.number(x, 2.0))
    variance = mean(square)
    shifted = variance and g.node("Add", variance, g.number(x, g.pick((1e-5, 1e-3, 0.0))))
    deviation = g.node("Sqrt", shifted)
    if g.chance(3):
        y = g.node("Mul", centred, g.node("Reciprocal", deviation))
    else:
        y = g.node("Div", centred, deviation)
    for op in ("Mul", "Add"):
        if y and not g.chance(4):
            y = g.node(
                op, y, g.floats(x, *g.pick((([int(g.ports[x].shape[-1])]), [1], [1, int(g.ports[x].shape[-1])])))
            )


def _softmax(g: Graph) -> None:
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


def _reduce(g: Graph) -> None:
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


# -- fragments: layout -----------------------------------------------------------------------------------------------


def _transposes(g: Graph) -> None:
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
    return g.node(g.pick(_UNARY[:6]), y)


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


def _reshapes(g: Graph) -> None:
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


def _extents(g: Graph) -> None:
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
        zeros = _claimed(g, "ConstantOfShape", [target], Port(TensorProto.FLOAT, known))
        if g.ports[x].dtype == TensorProto.FLOAT:
            g.node("Add", x, zeros)
    elif g.opset > 7 or kind != "expand":
        _claimed(g, "Expand" if kind == "expand" else "Reshape", [x, target], Port(g.ports[x].dtype, known))


def _claimed(g: Graph, op: str, inputs: Sequence[str], port: Port) -> str:
    """A node whose shape we know better than inference."""
    if not onnx.defs.has(op, g.opset):
        return ""
    name = g.fresh()
    g.nodes.append(helper.make_node(op, inputs, [name]))
    g.ports[name] = port
    return name


def _slices(g: Graph) -> None:
    x = g.value(lambda p: p.rank > 0)
    for _ in range(1 + g.chance(2)):
        if not x:
            return
        axis = g.pick(range(g.ports[x].rank))
        start, end, step = g.pick(
            ((0, 2**63 - 1, 1), (0, -1, 1), (1, 3, 1), (-1, 2**63 - 1, 1), (0, 2, 1), (0, 9, 2), (-1, -9, -1))
        )
        named = {"starts": [start], "ends": [end], "axes": [g.pick((axis, axis - g.ports[x].rank))]}
        if g.opset < 10 and (step != 1 or named["axes"][0] < 0):
            return
        x = g.node("Slice", x, **named, **({} if step == 1 else {"steps": [step]}))


def _splits(g: Graph) -> None:
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


def _concats(g: Graph) -> None:
    x = g.value(lambda p: p.rank > 0)
    if not x:
        return
    axis = g.pick(range(g.ports[x].rank))
    y = g.node("Concat", *[x] * g.pick((1, 2)), axis=axis)
    if y and g.chance(2):
        y = g.node("Concat", y, x, axis=g.pick((axis, axis, axis - g.ports[x].rank)))
    if y and g.chance(3):
        g.node("Slice", y, starts=[0], ends=[1], axes=[axis])


def _gathers(g: Graph) -> None:
    x = g.value(lambda p: p.rank > 0)
    if x:
        axis = g.pick(range(g.ports[x].rank))
        g.node("Gather", x, g.const(np.array(g.pick((0, [0], [0, 0], [[0]]))), TensorProto.INT64), axis=axis)


def _spread(g: Graph) -> None:
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


def _resize(g: Graph) -> None:
    x = g.value(lambda p: p.dtype == TensorProto.FLOAT and p.rank == 4 and p.static(2) and p.static(3))
    if x and g.opset > 12:
        factor = g.pick((1.0, 2.0))
        scales = g.const(np.array([1, 1, factor, factor], np.float32))
        g.node("Resize", x, None, scales, mode=g.pick(("nearest", "linear")))


# -- fragments: the rest ---------------------------------------------------------------------------------------------


def _idle(g: Graph) -> None:
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


def _integers(g: Graph) -> None:
    x = g.value(lambda p: p.dtype in {TensorProto.INT64, TensorProto.INT32})
    if x and g.opset > 8:
        c = g.const(np.array(g.pick((0, 1, 2, -1, 2**31))), g.ports[x].dtype)
        g.node(g.pick(("Add", "Mul", "Sub", "Div", "Greater", "Equal")), x, c)


def _truths(g: Graph) -> None:
    x = g.value(lambda p: p.dtype == TensorProto.BOOL)
    if x:
        y = g.node("Not", x)
        g.node(g.pick(("And", "Or", "Xor")), x, g.pick((x, y, g.const(np.array(g.pick((True, False)))))))
        y and g.node("Cast", g.node("Not", y), to=TensorProto.FLOAT)


def _quantized(g: Graph) -> None:
    x = g.value(lambda p: p.dtype == TensorProto.FLOAT)
    if x and g.opset > 9:
        scale, zero = g.const(np.array(g.pick((0.1, 0.5)), np.float32)), g.const(np.array(g.pick((0, 3)), np.uint8))
        again = g.const(np.array(0.1, np.float32)) if g.chance(3) else scale
        g.node("DequantizeLinear", g.node("QuantizeLinear", x, scale, zero), again, zero)


def _body(g: Graph, x: str, op: str) -> onnx.GraphProto:
    """A body that reads a value from around it."""
    inner, out = g.fresh("i"), g.fresh("o")
    nodes = [helper.make_node("Identity", [x], [inner]), helper.make_node(op, [inner], [out])]
    return helper.make_graph(nodes, "body", [], [_info(out, g.ports[x])])


def _branch(g: Graph) -> None:
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


def _loop(g: Graph) -> None:
    """A Loop that carries one value and reads another from around it."""
    x = g.float_value()
    if not x or g.opset < 11:
        return
    other = g.value(lambda p: p == g.ports[x]) or x
    count, going, carried, on, out = (g.fresh("l") for _ in range(5))
    op = g.pick(("Add", "Mul", "Max"))
    nodes = [helper.make_node("Identity", [going], [on]), helper.make_node(op, [carried, other], [out])]
    inputs = [_info(count, Port(TensorProto.INT64, ())), _info(going, Port(TensorProto.BOOL, ()))]
    body = helper.make_graph(
        nodes,
        "body",
        [*inputs, _info(carried, g.ports[x])],
        [_info(on, Port(TensorProto.BOOL, ())), _info(out, g.ports[x])],
    )
    times, first = g.const(np.array(g.pick((0, 1, 2)))), g.const(np.array(g.pick((True, True, False))))
    name = g.fresh()
    g.nodes.append(helper.make_node("Loop", [times, first, x], [name], body=body))
    g.ports[name] = g.ports[x]


FRAGMENTS: Mapping[str, Callable[[Graph], None]] = MappingProxyType(
    {
        f.__name__.strip("_"): f
        for f in (
            _unary,
            _binary,
            _scales,
            _clips,
            _casts,
            _gelu,
            _gates,
            _select,
            _many,
            _conv,
            _pool,
            _matmul,
            _gemm,
            _dots,
            _recurrent,
            _norm,
            _softmax,
            _reduce,
            _transposes,
            _reshapes,
            _extents,
            _slices,
            _splits,
            _concats,
            _gathers,
            _spread,
            _resize,
            _idle,
            _integers,
            _truths,
            _quantized,
            _branch,
            _loop,
        )
    }
)
"""By name. Those that products and layouts are made of come up more often."""

_NAMES = (*FRAGMENTS, "conv", "matmul", "transposes", "scales", "reshapes", "norm")


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """A valid model of up to some thirty nodes."""
    return Graph(draw, OPSETS[-1 - draw(st.integers(0, len(OPSETS) - 1))]).model()
