"""Large graphs of known make, to see how time grows with their size: `python -m tests.bench.graphs FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

__all__ = ["GRAPHS", "Builder"]


class Builder:
    """A graph under construction: every call adds a node and answers the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)

    def __call__(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def weight(self, *shape: int) -> str:
        return self.const(self.rng.normal(0, 0.3, shape).astype(np.float32))

    def const(self, value: Any) -> str:
        name = f"const_{len(self.weights)}"
        self.weights.append(ir.to_proto(ir.tensor(np.asarray(value), name=name)))
        return name

    def held(self, value: Any) -> str:
        """A constant as a node, as exporters write it."""
        return self("Constant", value=ir.to_proto(ir.tensor(np.asarray(value))))

    def model(
        self, inputs: Mapping[str, list[int | str]], output: str, kind: int = TensorProto.FLOAT
    ) -> onnx.ModelProto:
        """What was built, with `output` as the result and inputs of one type."""
        ports = [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()]
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, [None] * len(next(iter(inputs.values()))))
        graph = helper.make_graph(self.nodes, "main", ports, [result], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _deep(nodes: int) -> onnx.ModelProto:
    """MatMul, Add, Relu, Identity, one after another."""
    b, x = Builder(), "x"
    weight, bias = b.weight(16, 16), b.weight(16)
    for _ in range(nodes // 4):
        x = b("Identity", b("Relu", b("Add", b("MatMul", x, weight), bias)))
    return b.model({"x": ["batch", 16]}, x)


def _wide(nodes: int) -> onnx.ModelProto:
    """Many Muls and Adds of one input, and one Concat of them all."""
    b = Builder()
    scales = range(nodes // 2)
    ends = [b("Add", b("Mul", "x", b.const(np.float32(i))), b.const(np.float32(0.5))) for i in scales]
    return b.model({"x": ["batch", 4]}, b("Concat", *ends, axis=1))


def _concat(inputs: int) -> onnx.ModelProto:
    """One Concat of very many results, every other of which is a no-op."""
    b = Builder()
    ends = [b("Identity" if i % 2 else "Relu", "x") for i in range(inputs)]
    return b.model({"x": ["batch", 4]}, b("Concat", *ends, axis=1))


def _resnet(nodes: int) -> onnx.ModelProto:
    """Residual blocks of Conv, BatchNormalization, Relu."""
    b = Builder()

    def conv(x: str) -> str:
        x = b("Conv", x, b.weight(8, 8, 3, 3), pads=[1, 1, 1, 1])
        variance = b.const(np.full(8, 1.5, np.float32))
        return b("BatchNormalization", x, b.weight(8), b.weight(8), b.weight(8), variance)

    x = "x"
    for _ in range(nodes // 7):
        x = b("Relu", b("Add", conv(b("Relu", conv(x))), b("Identity", x)))
    return b.model({"x": ["batch", 8, 16, 16]}, x)


def _transformer(nodes: int) -> onnx.ModelProto:
    """Layers with spelled-out LayerNormalization, attention with computed shapes, and Gelu."""
    b, x, width, heads = Builder(), "x", 32, 4

    def norm(x: str) -> str:
        centred = b("Sub", x, b("ReduceMean", x, axes=[-1]))
        variance = b("ReduceMean", b("Pow", centred, b.held(np.float32(2))), axes=[-1])
        deviation = b("Sqrt", b("Add", variance, b.held(np.float32(1e-5))))
        return b("Add", b("Mul", b("Div", centred, deviation), b.weight(width)), b.weight(width))

    def linear(x: str, into: int, out: int) -> str:
        return b("Add", b("MatMul", x, b.weight(into, out)), b.weight(out))

    def extent(x: str, axis: int) -> str:
        return b("Unsqueeze", b("Gather", b("Shape", x), b.held(np.int64(axis))), b.held(np.array([0])))

    def split(x: str) -> str:
        target = b("Concat", extent(x, 0), extent(x, 1), b.held(np.array([heads])), b.held(np.array([8])), axis=0)
        return b("Transpose", b("Reshape", x, target), perm=[0, 2, 1, 3])

    while len(b.nodes) < nodes:
        y = norm(x)
        q, k, v = (split(linear(y, width, width)) for _ in range(3))
        scores = b("Div", b("MatMul", q, b("Transpose", k, perm=[0, 1, 3, 2])), b.held(np.float32(8**0.5)))
        mixed = b("Transpose", b("MatMul", b("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
        target = b("Concat", extent(mixed, 0), extent(mixed, 1), b.held(np.array([width])), axis=0)
        x = b("Add", x, linear(b("Reshape", mixed, target), width, width))
        y = linear(norm(x), width, 4 * width)
        erf = b("Add", b("Erf", b("Div", y, b.held(np.float32(2**0.5)))), b.held(np.float32(1)))
        y = b("Mul", b("Mul", y, erf), b.held(np.float32(0.5)))
        x = b("Add", x, linear(y, 4 * width, width))
    return b.model({"x": ["batch", "length", width]}, x)


GRAPHS: Mapping[str, Callable[[], onnx.ModelProto]] = MappingProxyType(
    {
        **{f"deep_{n}": partial(_deep, n) for n in (4_000, 10_000, 40_000)},
        **{f"wide_{n}": partial(_wide, n) for n in (4_000, 10_000, 40_000)},
        "concat_5000": partial(_concat, 5_000),
        "resnet_1400": partial(_resnet, 1_400),
        "transformer_2000": partial(_transformer, 2_000),
    }
)
"""By name, which ends in about the number of nodes."""

if __name__ == "__main__":
    for name, make in GRAPHS.items():
        onnx.save(make(), Path(sys.argv[1]) / f"{name}.onnx")
