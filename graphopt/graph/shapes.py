"""Types and shapes by the official inference: over the whole graph at load, and of single nodes afterwards.

graphopt has no shape rules of its own. Inference is only ever a source of further knowledge: where it fails, values
stay without a shape and fewer rules apply.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import onnx
import onnx.shape_inference
import onnx_ir as ir

from graphopt.graph.nodes import graphs, static_shape

__all__ = ["SMALL", "ShapeOf", "bound", "infer", "infer_node", "skeleton"]

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


def infer(model: ir.Model) -> None:
    """Learn types and shapes of values from onnx's inference. Declared interfaces are left as they are.

    First without the values of integer tensors, then with them. Inference holds such values element by element, also
    of tensors that are no shapes: what reads a vector that is not known to be short is kept out of it.
    """
    bare = _bare(model)
    if not _infer(model, bare, values=False):
        return
    for _ in range(_MOST_ROUNDS):
        bare = _bare(model)
        left_out = [n for graph in bare.graphs() for n in graph if _tracks_values(n, bare) and _may_be_long(n)]
        for node in left_out:
            node.op_type = "LeftOut"
        if not _infer(model, bare, values=True) or not left_out:
            return


def _infer(model: ir.Model, bare: ir.Model, *, values: bool) -> bool:
    """Learn what inference finds out about `bare`. Whether it ran."""
    try:
        inferred = onnx.shape_inference.infer_shapes(ir.to_proto(bare), data_prop=values)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as problem:
        _log.debug("shape inference gave up: %s", problem)
        return False
    _learn(model.graph, inferred.graph)
    return True


def _tracks_values(node: ir.Node, model: ir.Model) -> bool:
    version = model.opset_imports.get(node.domain)
    if version is None or not onnx.defs.has(node.op_type, version, node.domain):
        return False
    return bool(onnx.defs.get_schema(node.op_type, version, node.domain).has_data_propagation_function)


def _may_be_long(node: ir.Node) -> bool:
    """Whether an input of the node is, for all that is known, a vector of more elements than a shape has."""
    for value in node.inputs:
        if value is not None and (value.shape is None or len(value.shape) == 1):
            length = static_shape(value)
            if length is None or length[0] > SMALL:
                return True
    return False


def _learn(graph: ir.Graph, proto: onnx.GraphProto) -> None:
    pending = [(graph, proto)]
    while pending:
        graph, proto = pending.pop()
        known = {info.name: info for info in (*proto.value_info, *proto.output)}
        nodes = {tuple(node.output): node for node in proto.node if any(a.g.node or a.graphs for a in node.attribute)}
        for node in graph:
            for value in node.outputs:
                info = known.get(value.name or "")
                if info is not None and (value.shape is None or not value.is_graph_output()):
                    learn(value, ir.serde.deserialize_value_info_proto(info, None))
            twin = nodes.get(tuple(v.name or "" for v in node.outputs))
            if twin is not None:
                bodies = {a.name: a for a in twin.attribute}
                pending.extend(
                    (a.as_graph(), bodies[a.name].g)
                    for a in node.attributes.values()
                    if a.type is ir.AttributeType.GRAPH and not a.is_ref() and a.name in bodies
                )


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


def bound(model: ir.Model, inputs: Mapping[str, tuple[int, ...]]) -> ShapeOf:
    """Concrete shapes of all values where the inputs have the given ones, as a function of the value.

    Values of bodies are answered by name as well; local functions are not entered.
    """
    fixed = model.clone()
    for value in (v for graph in graphs(fixed) for node in graph for v in node.outputs):
        value.shape = None
    for value in fixed.graph.inputs:
        if value.name is not None and value.name in inputs:
            value.shape = ir.Shape(inputs[value.name])
    infer(fixed)
    named = (
        v for g in graphs(fixed) for v in (*g.inputs, *g.initializers.values(), *(o for n in g for o in n.outputs))
    )
    known = {v.name: static_shape(v) for v in named}

    def shape(value: ir.Value | None) -> tuple[int, ...] | None:
        return None if value is None else known.get(value.name) or static_shape(value)

    return shape


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
        tensor = value.const_value
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
