"""Types and shapes by the official inference: over the whole graph at load, and of single nodes afterwards.

graphopt has no shape rules of its own. Inference is only ever a source of further knowledge: where it fails, values
stay without a shape and fewer rules apply.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import onnx
import onnx.shape_inference
import onnx_ir as ir

from graphopt.graph.nodes import is_constant

__all__ = ["SMALL", "ShapeOf", "infer_node", "skeleton"]

ShapeOf = Callable[[ir.Value | None], tuple[int, ...] | None]
"""Answers the concrete shape of a value under the binding of symbolic dimensions at hand; None if unknown or absent."""

SMALL = 1024
"""Bytes up to which a constant may be a shape or an axis, and so matters to inference."""

_MOST_ROUNDS = 3
"""Each may show that further vectors are short."""

_log = logging.getLogger(__name__)


def skeleton(model: ir.Model) -> onnx.ModelProto:
    """The graph without its large weights: each becomes an input of the same type.

    What inference and the checker need is all there, and nothing is copied or read from external files.
    """
    return ir.to_proto(_bare(model))


def _bare(model: ir.Model) -> ir.Model:
    bare = model.clone()
    for graph in bare.graphs():
        for value in list(graph.initializers.values()):
            tensor = value.const_value
            if tensor is None or (tensor.nbytes <= SMALL and not isinstance(tensor, ir.ExternalTensor)):
                continue
            if graph is bare.graph:
                del graph.initializers[str(value.name)]
                if not value.is_graph_input():
                    graph.inputs.append(value)
    return bare


def learn(value: ir.Value, found: ir.Value) -> None:
    """Add to `value` what inference found; never contradict what is known."""
    if value.type is None:
        value.type = found.type
    if found.shape is None or (value.type is not None and found.type is not None and value.type != found.type):
        return
    # Inference invents names for unknown dimensions, anew in each run: no two of them may be taken for equal.
    known = ir.Shape(
        None if isinstance(d, ir.SymbolicDim) and str(d.value).startswith("unk__") else d for d in found.shape
    )
    if value.shape is None:
        value.shape = known
        return
    if len(value.shape) != len(known):
        return
    value.shape = ir.Shape(_better(have, new) for have, new in zip(value.shape, known, strict=True))


def _better(have: int | ir.SymbolicDim, new: int | ir.SymbolicDim) -> int | ir.SymbolicDim:
    """The more telling of two descriptions of one dimension."""
    if isinstance(have, int) or (have.value is not None and not isinstance(new, int)):
        return have
    return new


def infer_node(node: ir.Node, model: ir.Model) -> None:
    """Learn the types and shapes of one node's outputs from those of its inputs."""
    version = model.opset_imports.get(node.domain)
    if version is None or any(a.is_ref() for a in node.attributes.values()):
        return
    types, data = {}, {}
    for value in node.inputs:
        if value is None or not value.name:
            continue
        if value.type is None:
            return
        types[value.name] = ir.serde.serialize_value(value).type
        tensor = value.const_value if is_constant(value) else None
        if tensor is not None and tensor.nbytes <= SMALL and not isinstance(tensor, ir.ExternalTensor):
            data[value.name] = ir.serde.serialize_tensor(tensor)
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        found = onnx.shape_inference.infer_node_outputs(
            schema,
            ir.serde.serialize_node(node),
            types,
            data,
            opset_imports=[onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items()],
            ir_version=model.ir_version,
        )
    except (onnx.defs.SchemaError, onnx.shape_inference.InferenceError, RuntimeError, ValueError) as problem:
        _log.debug("no inference for %s: %s", node.name, problem)
        return
    for value in node.outputs:
        if value.name in found:
            info = onnx.ValueInfoProto(name=value.name, type=found[value.name])
            learn(value, ir.serde.deserialize_value_info_proto(info, None))
