"""Copies of a model for measuring it: with noise where it was edited, with random nodes fixed, with shapes told."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.nodes import graphs

__all__ = ["noisy", "seeded", "showing", "telling_shapes"]

_INT = onnx.defs.OpSchema.AttrType.INT
_EPS = MappingProxyType({t: float(np.finfo(t.numpy()).eps) for t in (ir.DataType.FLOAT, ir.DataType.DOUBLE)})
_UNDRAWN = 22
"""The opset from which on the runtime has no operator that draws uniformly."""
_HALF_EPS = MappingProxyType({ir.DataType.FLOAT16: 2.0**-10, ir.DataType.BFLOAT16: 2.0**-7})


def noisy(model: ir.Model, reductions: Mapping[str, int], seed: int) -> ir.Model | None:
    """`model` with each named value v replaced by v·(1 + r), r uniform in ±eps·√n and drawn for each element.

    A sum of n products that is rounded differently differs by about that much; in half precision n counts 1, since
    products are summed up in single precision and rounded once.

    Args:
        model: is not changed.
        reductions: n by name of a value of the main graph; others are passed over.
        seed: of the first value; each further one has its own.

    Returns:
        The noisy copy; None where none of the names is a float tensor in the main graph.
    """
    if not any(_amplitude(value, reductions) for node in model.graph for value in node.outputs):
        return None
    copy = model.clone()
    for node in list(copy.graph):
        for value in node.outputs:
            if amplitude := _amplitude(value, reductions):
                seed += 1
                _shake(copy.graph, node, value, amplitude, seed)
    return copy


def _amplitude(value: ir.Value, reductions: Mapping[str, int]) -> float:
    """How far the noise on a value reaches; 0 where there is to be none."""
    if not isinstance(value.type, ir.TensorType) or value.dtype is None:
        return 0.0
    reduction = reductions.get(value.name or "", 0)
    return _HALF_EPS.get(value.dtype, 0.0) * (reduction > 0) or _EPS.get(value.dtype, 0.0) * math.sqrt(reduction)


def _shake(graph: ir.Graph, node: ir.Node, value: ir.Value, amplitude: float, seed: int) -> None:
    readers = list(value.uses())
    half = value.dtype if value.dtype in _HALF_EPS else None  # of which the runtime draws no numbers
    wide = [] if half is None else [ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT)})]
    source = wide[0].outputs[0] if wide else value
    spread = np.asarray(amplitude, np.float64 if value.dtype is ir.DataType.DOUBLE else np.float32)
    noise = _noise(source, spread, seed % 100_003, opset=graph.opset_imports.get("", 1))
    total = ir.node("Add", [source, noise[-1].outputs[0]])
    back = [] if half is None else [ir.node("Cast", [total.outputs[0]], {"to": int(half)})]
    graph.insert_after(node, [*wide, *noise, total, *back])
    shaken = [total, *back][-1].outputs[0]
    shaken.type, shaken.shape = value.type, value.shape
    for user, index in readers:
        user.replace_input_with(index, shaken)
    name = value.name
    for position, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[position] = shaken
            value.name = f"{name}/exact"
            shaken.name = name


def _noise(source: ir.Value, amplitude: NDArray[Any], seed: int, *, opset: int) -> list[ir.Node]:
    """What computes source · r, from some opset on by Dropout: r is as far from 0 in the mean, and 0 in no place."""
    if opset < _UNDRAWN:
        low, high = -float(amplitude), float(amplitude)
        draw = ir.node("RandomUniformLike", [source], {"low": low, "high": high, "seed": float(seed)})
        return [draw, ir.node("Mul", [source, draw.outputs[0]])]
    contents = (np.asarray(0.5, np.float32), np.asarray(True), (amplitude / math.sqrt(3)).astype(amplitude.dtype))
    given = [ir.node("Constant", [], {"value": ir.tensor(c)}) for c in contents]
    ratio, training, spread = (n.outputs[0] for n in given)
    drop = ir.node("Dropout", [source, ratio, training], {"seed": seed})  # 0 or twice the source
    sign = ir.node("Sub", [drop.outputs[0], source])
    return [*given, drop, sign, ir.node("Mul", [sign.outputs[0], spread])]


def telling_shapes(model: ir.Model, values: Iterable[str]) -> tuple[ir.Model, dict[str, str]]:
    """`model` with the shapes of these values of the main graph as its only outputs.

    Returns:
        The copy, and the name of the value by the name of the output that holds its shape.
    """
    copy = model.clone()
    wanted, told = set(values), {}
    del copy.graph.outputs[:]
    for node in list(copy.graph):
        for value in node.outputs:
            if value.name in wanted:
                shape = ir.node("Shape", [value])
                copy.graph.insert_after(node, shape)
                output = shape.outputs[0]
                output.name = f"{value.name}/shape of"
                output.type, output.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([None])
                copy.graph.outputs.append(output)
                told[output.name] = value.name
    return copy, told


def showing(model: ir.Model, values: Iterable[str]) -> ir.Model:
    """`model` with these values of the main graph, each of whose types is known, as its only outputs."""
    copy = model.clone()
    wanted = dict.fromkeys(values)
    made = {str(v.name): v for v in (*copy.graph.inputs, *(o for node in copy.graph for o in node.outputs))}
    copy.graph.outputs[:] = [made[name] for name in wanted]
    return copy


def seeded(model: ir.Model) -> ir.Model:
    """`model` with a seed at every random node that has none, derived from its name, else from that of its output.

    Without one, onnxruntime derives the seed from the node's position, which any rewriting changes. A model without
    such nodes is returned as it is.
    """
    if not any(_seed_type(node, model) for graph in graphs(model) for node in graph):
        return model
    copy = model.clone()
    unseeded = [(n, kind) for graph in graphs(copy) for n in graph if (kind := _seed_type(n, copy)) is not None]
    names = Counter(node.name for node, _ in unseeded)
    for node, kind in unseeded:
        name = node.name if node.name and names[node.name] == 1 else node.outputs[0].name
        digest = zlib.crc32(str(name).encode()) % 100_003
        node.attributes.add(ir.AttrInt64("seed", digest) if kind is _INT else ir.AttrFloat32("seed", digest))
    return copy


def _seed_type(node: ir.Node, model: ir.Model) -> onnx.defs.OpSchema.AttrType | None:
    """The type of the `seed` that the node's operator takes and the node does not give."""
    version = model.opset_imports.get(node.domain)
    if version is None or "seed" in node.attributes or not onnx.defs.has(node.op_type, version, node.domain):
        return None
    found = onnx.defs.get_schema(node.op_type, version, node.domain).attributes.get("seed")
    return None if found is None else found.type
