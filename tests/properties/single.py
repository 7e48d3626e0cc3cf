"""Models of one node, and how they are run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Const:
    """An input that is an initializer of the model."""

    array: Array


@dataclass(frozen=True, eq=False)
class Example:
    """A model of one node. Lists of arrays are sequences, None an input left out."""

    op: str
    inputs: tuple[Array | list[Array] | Const | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = ""
    outputs: int = 1
    opset: int | None = None
    strict: tuple[int, ...] = ()
    """Inputs where the operator refuses what lies outside of the admitted domain."""

    def __str__(self) -> str:
        details = ",".join(f"{k}={v}" for k, v in self.attributes.items() if not isinstance(v, ir.Graph))
        return f"{self.op}({details})"

    @property
    def arrays(self) -> list[Any]:
        """The contents of all inputs."""
        return [v.array if isinstance(v, Const) else v for v in self.inputs]

    def feed(self) -> dict[str, Any]:
        return {f"in{i}": v for i, v in enumerate(self.inputs) if v is not None and not isinstance(v, Const)}

    def model(self) -> ir.Model:
        """The node alone in a graph; its inputs are named in0, in1, …, its outputs out0, out1 and so on."""
        values = [None if v is None else _value(f"in{i}", v) for i, v in enumerate(self.inputs)]
        node = ir.node(
            self.op, values, dict(self.attributes), domain=self.domain, num_outputs=self.outputs, name="node"
        )
        for i, output in enumerate(node.outputs):
            output.name = f"out{i}"
        given = [v for v in values if v is not None]
        graph = ir.Graph(
            [v for v in given if v.const_value is None],
            node.outputs,
            nodes=[node],
            initializers=[v for v in given if v.const_value is not None],
            opset_imports={"": self.opset or newest_opset(), **({self.domain: 1} if self.domain else {})},
            name=self.op,
        )
        return ir.Model(graph, ir_version=10)

    def run(self, feed: Mapping[str, Any] | None = None) -> list[Any]:
        return run(self.model(), self.feed() if feed is None else feed)


def _value(name: str, content: Array | list[Array] | Const) -> ir.Value:
    if isinstance(content, Const):
        tensor = ir.tensor(content.array, name=name)
        return ir.Value(
            name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(content.array.shape)
        )
    if isinstance(content, list):
        return ir.Value(name=name, type=ir.SequenceType(ir.TensorType(ir.DataType.from_numpy(content[0].dtype))))
    dtype = ir.DataType.STRING if content.dtype.kind in "UO" else ir.DataType.from_numpy(content.dtype)
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(content.shape))


@cache
def newest_opset() -> int:
    """The newest opset that the installed runtime accepts."""
    for opset in range(onnx.defs.onnx_opset_version(), 0, -1):
        try:
            Example("Identity", (np.zeros(1, np.float32),), opset=opset).run()
        except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
            continue
        return opset
    raise AssertionError("the runtime accepts no opset")


def session(model: ir.Model) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(model: ir.Model, feed: Mapping[str, Any]) -> list[Any]:
    """All outputs of one run, computed as the graph says."""
    return list(session(model).run(None, dict(feed)))


def flat(value: Any) -> Array:
    """All elements of a tensor, or of the tensors of a sequence."""
    parts = value if isinstance(value, list) else [value]
    parts = parts or [np.zeros(0)]
    return np.concatenate([np.asarray(p).reshape(-1) for p in parts])
