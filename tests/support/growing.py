"""A graph that grows, for tests: what is added to it is checked by the official inference, or not taken up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.shape_inference
import onnx_ir as ir
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

__all__ = ["FLOATS", "Dim", "Graph", "Port", "info", "written"]

Array = NDArray[Any]
Dim = int | str

MOST_ELEMENTS = 1000
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
_EDGES = (np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, -1.0)


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
        extent = self.shape[axis] if -self.rank <= axis < self.rank else None
        return isinstance(extent, int) and extent >= 0  # inference answers less for a window that does not fit


class Graph:
    """A graph that grows. Every method that adds something answers None where it does not fit."""

    def __init__(self, draw: st.DrawFn, opset: int) -> None:
        self.draw = draw
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.ports: dict[str, Port] = {}
        self.inputs: dict[str, Port] = {}
        self.given: list[onnx.ValueInfoProto] = []
        """Outputs that are no tensors."""
        self.promised: list[str] = []
        """Values that are outputs in any case."""
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

    def claimed(self, op: str, inputs: Sequence[str], port: Port | None = None, **attributes: Any) -> str:
        """A node whose shape we know better than inference; without a port, its result is no tensor."""
        if not onnx.defs.has(op, self.opset):
            return ""
        name = self.fresh()
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        if port is not None:
            self.ports[name] = port
        return name

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
        formal = [schema.inputs[min(i, len(schema.inputs) - 1)].types for i in range(len(node.input))]
        if any(n and written(ports[n].dtype) not in types for n, types in zip(node.input, formal, strict=True)):
            return None
        types = {name: helper.make_tensor_type_proto(p.dtype, p.shape) for name, p in ports.items()}
        data = {n: ir.to_proto(ir.tensor(self.constants[n], name=n)) for n in ports if n in self.constants}
        try:
            found = onnx.shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10
            )
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError):
            return None
        return _ports(node.output, found)


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


def written(dtype: int) -> str:
    """The type of such a tensor as schemas write it."""
    return f"tensor({TensorProto.DataType.Name(dtype).lower()})"


def info(name: str, port: Port) -> onnx.ValueInfoProto:
    made: onnx.ValueInfoProto = helper.make_tensor_value_info(name, port.dtype, port.shape)
    return made
