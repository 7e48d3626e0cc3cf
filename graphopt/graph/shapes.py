"""Types and shapes by the official inference: over the whole graph at load, and of single nodes afterwards.

graphopt has no shape rules of its own. Inference is only ever a source of further knowledge: where it fails, values
stay without a shape and fewer rules apply.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import onnx
import onnx.checker
import onnx.shape_inference
import onnx_ir as ir

from graphopt.graph.nodes import is_constant

__all__ = ["SMALL", "ShapeOf", "bytes_of", "infer_node", "skeleton"]

ShapeOf = Callable[[ir.Value | None], tuple[int, ...] | None]
"""Answers the concrete shape of a value under the binding of symbolic dimensions at hand; None if unknown or absent."""

SMALL = 1024
"""Bytes up to which a constant may be a shape or an axis, and so matters to inference."""

_SCALED = frozenset({"Range", "Resize", "Upsample"})
"""The standard operators with shapes that depend on floats."""

_COUNTED_FROM_THE_END = 11
"""Opset from which `axes` may be negative. Before, inference passes over such ones, and the runtime takes them."""

_NO_ANSWER = (
    IndexError,
    onnx.checker.ValidationError,  # types that the operator does not take
    onnx.defs.SchemaError,
    onnx.shape_inference.InferenceError,
    RuntimeError,
    ValueError,
)

_log = logging.getLogger(__name__)


def bytes_of(value: ir.Value, shape: ShapeOf) -> int:
    """Of a value in memory, 8 for each element of a size that is not known; 0 where its shape is not known."""
    found, dtype = shape(value), value.dtype
    each = 8 if dtype is None or dtype.is_string() else math.ceil(dtype.itemsize)
    return 0 if found is None else math.prod(found) * each


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
            if tensor is None or tensor.nbytes <= SMALL:
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


Known = dict[tuple[object, ...], Sequence[ir.Value | None]]
"""What inference answered, by all that it was asked with. Layers of one kind are asked about once."""

_Question = tuple[onnx.NodeProto, dict[str, onnx.TypeProto], dict[str, onnx.TensorProto]]
"""A node, the types of its inputs, and the contents of those that are constants."""


def infer_node(node: ir.Node, model: ir.Model, known: Known | None = None) -> None:
    """Learn the types and shapes of one node's outputs from those of its inputs.

    Args:
        node: where to look.
        model: gives the versions of operator sets.
        known: earlier answers, which are used and added to.
    """
    version = model.opset_imports.get(node.domain)
    if version is None or any(a.is_ref() for a in node.attributes.values()):
        return
    if any(value is not None and value.name and value.type is None for value in node.inputs):
        return
    proto, types, data = _asked(node)
    question = (version, *(m.SerializeToString() for m in (proto, *types.values(), *data.values())))
    found = None if known is None else known.get(question)
    if found is None:
        found = _infer(proto, version, types, data, model)
        if known is not None:
            known[question] = found
    for value, answer in zip(node.outputs, found, strict=True):
        if answer is not None:
            learn(value, answer)


def _asked(node: ir.Node) -> _Question:
    """Values are called by their positions: their names mean nothing to inference."""
    proto = onnx.NodeProto(op_type=node.op_type, domain=node.domain)
    types, data = {}, {}
    for index, value in enumerate(node.inputs):
        name = "" if value is None or not value.name else f"i{index}"
        proto.input.append(name)
        if value is not None and name:
            types[name] = _type_proto(value)
            tensor = _telling(value, node)
            if tensor is not None:
                data[name] = ir.serde.serialize_tensor(tensor)
                data[name].name = name
    proto.output.extend(f"o{index}" if value.name else "" for index, value in enumerate(node.outputs))
    for attribute in node.attributes.values():
        ir.serde.serialize_attribute_into(proto.attribute.add(), from_=attribute)
    return proto, types, data


def _infer(
    proto: onnx.NodeProto,
    version: int,
    types: dict[str, onnx.TypeProto],
    data: dict[str, onnx.TensorProto],
    model: ir.Model,
) -> Sequence[ir.Value | None]:
    """A value with the type and shape of each output; None where nothing is known."""
    try:
        found = onnx.shape_inference.infer_node_outputs(
            onnx.defs.get_schema(proto.op_type, version, proto.domain),
            proto,
            types,
            data,
            opset_imports=[onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items()],
            ir_version=model.ir_version,
        )
    except _NO_ANSWER as problem:
        _log.debug("no inference for a %s: %s", proto.op_type, problem)
        found = {}
    if version < _COUNTED_FROM_THE_END and any(i < 0 for a in proto.attribute if a.name == "axes" for i in a.ints):
        for answer in found.values():
            answer.tensor_type.ClearField("shape")
    return [_described(found[n], n) if n in found else None for n in proto.output]


def _described(answer: onnx.TypeProto, name: str) -> ir.Value | None:
    """A value of the type in an answer; None for what the graph in memory has no type for, as maps."""
    try:
        return ir.serde.deserialize_value_info_proto(onnx.ValueInfoProto(name=name, type=answer), None)
    except ir.serde.SerdeError as problem:
        _log.debug("no such type: %s", problem)
        return None


def _telling(value: ir.Value, node: ir.Node) -> ir.TensorProtocol | None:
    """The contents of a constant, where shapes may depend on them: extents, axes, scales."""
    tensor = value.const_value if is_constant(value) else None
    if tensor is None or len(tensor.shape) > 1 or tensor.nbytes > SMALL:
        return None
    if tensor.dtype.is_floating_point() and not node.domain and node.op_type not in _SCALED:
        return None
    return tensor


def _type_proto(value: ir.Value) -> onnx.TypeProto:
    """The type and shape of a value; written out for tensors, since inference asks for every one of them."""
    if type(value.type) is not ir.TensorType:
        return ir.serde.serialize_value(value).type
    proto = onnx.TypeProto()
    proto.tensor_type.elem_type = value.type.dtype
    if value.shape is not None:
        proto.tensor_type.shape.SetInParent()
        for extent in value.shape:
            dim = proto.tensor_type.shape.dim.add()
            if isinstance(extent, int):
                dim.dim_value = extent
            elif extent.value is not None:
                dim.dim_param = extent.value
    return proto
