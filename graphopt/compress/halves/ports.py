"""Which inputs and outputs of a node may be of half precision: as its schema says at the model's opset.

An input or output may be half where its type is a variable that admits it, and the others of that variable go with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import onnx
import onnx_ir as ir

from graphopt.graph.nodes import bodies, is_constant, opset, subgraphs

__all__ = ["Ports", "constants", "is_float", "ports"]


@dataclass(frozen=True)
class Ports:
    """Which inputs and outputs of a node, floats as it stands, are half where it computes in half precision."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def ports(node: ir.Node, kind: ir.DataType) -> Ports | str:
    """What of a node becomes half, or why it stays as it is; empty where it has nothing to do with floats."""
    every = [v for v in (*node.inputs, *node.outputs) if v is not None and v.name]
    if not any(is_float(v) or not isinstance(v.type, ir.TensorType) for v in every) and not any(subgraphs(node)):
        return ""
    if any(not isinstance(v.type, ir.TensorType) for v in every):
        return "its types are not known, or none of tensors"
    version = opset(node) or 1
    if (schema := _schema(node, version)) is None:
        return "it is no operator of standard ONNX"
    able = _able(schema, kind)
    reads = [_formal(schema.inputs, i) for i in range(len(node.inputs))]
    inputs = tuple(i for i, v in enumerate(node.inputs) if v is not None and is_float(v) and reads[i] in able)
    bound = {reads[i] for i in inputs} | (able if any(subgraphs(node)) else set())
    outputs = tuple(
        i for i, v in enumerate(node.outputs) if v.name and is_float(v) and _formal(schema.outputs, i) in bound
    )
    if inputs or outputs:
        return Ports(inputs, outputs)
    if not any(is_float(v) for v in node.inputs if v is not None):
        return ""
    later = (v for v in range(version + 1, onnx.defs.onnx_opset_version() + 1) if _able(_schema(node, v), kind) - able)
    hint = "".join(f", opset {v} has" for v in islice(later, 1))
    return f"opset {version} has no {node.op_type} of {kind.name.lower()}{hint}"


def _schema(node: ir.Node, version: int) -> onnx.defs.OpSchema | None:
    """Of its operator, in an opset; None where that has none."""
    try:
        return onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return None


def _able(schema: onnx.defs.OpSchema | None, kind: ir.DataType) -> set[str]:
    """The variables that stand for a type and admit this one."""
    every = schema.type_constraints if schema is not None else ()
    return {c.type_param_str for c in every if f"tensor({kind.name.lower()})" in c.allowed_type_strs}


def _formal(formals: Any, index: int) -> str:
    """The type of a formal input or output, as a schema has it; the last one may stand for many."""
    return str(formals[min(index, len(formals) - 1)].type_str) if formals else ""


def is_float(value: ir.Value) -> bool:
    """Whether it is a tensor of floats."""
    return isinstance(value.type, ir.TensorType) and value.dtype is ir.DataType.FLOAT


def constants(node: ir.Node, kind: ir.DataType) -> Iterator[ir.Value]:
    """The constants that become half with a node, those that its bodies read included."""
    for each in (node, *(n for body in bodies(node) for n in body)):
        found = ports(each, kind)
        for index in found.inputs if isinstance(found, Ports) else ():
            if (value := each.inputs[index]) is not None and is_constant(value):
                yield value
