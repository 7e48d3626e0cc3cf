"""Copies of a model for measuring it: with noise where something was edited, or with random nodes fixed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import onnx
import onnx_ir as ir

from graphopt.graph.nodes import graphs

__all__ = ["noisy", "seeded"]

_INT = onnx.defs.OpSchema.AttrType.INT
_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


def noisy(model: ir.Model, amplitudes: Mapping[str, float], seed: int) -> ir.Model | None:
    """`model` with each named value v replaced by v·(1 + r), r uniform in ±amplitude and drawn for each element.

    Args:
        model: is not changed.
        amplitudes: of relative noise, by name of a value of the main graph; others are passed over.
        seed: of the first value; each further one has its own.

    Returns:
        The noisy copy; None where none of the names is a float tensor in the main graph.
    """
    copy = model.clone()
    changed = False
    for node in list(copy.graph):
        for value in node.outputs:
            amplitude = amplitudes.get(value.name or "")
            if amplitude and value.dtype in _FLOATS and isinstance(value.type, ir.TensorType):
                seed += 1
                _shake(copy.graph, node, value, amplitude, seed)
                changed = True
    return copy if changed else None


def _shake(graph: ir.Graph, node: ir.Node, value: ir.Value, amplitude: float, seed: int) -> None:
    readers = list(value.uses())
    attributes = {"low": -amplitude, "high": amplitude, "seed": float(seed % 100_003)}
    draw = ir.node("RandomUniformLike", [value], attributes)
    scaled = ir.node("Mul", [value, draw.outputs[0]])
    total = ir.node("Add", [value, scaled.outputs[0]])
    graph.insert_after(node, [draw, scaled, total])
    shaken = total.outputs[0]
    shaken.type, shaken.shape = value.type, value.shape
    for user, index in readers:
        user.replace_input_with(index, shaken)
    name = value.name
    for position, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[position] = shaken
            value.name = f"{name}/exact"
            shaken.name = name


def seeded(model: ir.Model) -> ir.Model:
    """`model` with a seed at every random node that has none, derived from the name of what it computes.

    Without one, onnxruntime derives the seed from the node's position, which any rewriting changes. A model without
    such nodes is returned as it is.
    """
    if not any(_seed_type(node, model) for graph in graphs(model) for node in graph):
        return model
    copy = model.clone()
    for graph in graphs(copy):
        for node in graph:
            kind = _seed_type(node, copy)
            if kind is not None:
                digest = zlib.crc32(str(node.outputs[0].name).encode()) % 100_003
                node.attributes.add(ir.AttrInt64("seed", digest) if kind is _INT else ir.AttrFloat32("seed", digest))
    return copy


def _seed_type(node: ir.Node, model: ir.Model) -> onnx.defs.OpSchema.AttrType | None:
    """The type of the `seed` that the node's operator takes and the node does not give."""
    version = model.opset_imports.get(node.domain)
    if version is None or "seed" in node.attributes or not onnx.defs.has(node.op_type, version, node.domain):
        return None
    found = onnx.defs.get_schema(node.op_type, version, node.domain).attributes.get("seed")
    return None if found is None else found.type
