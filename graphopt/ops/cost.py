"""What a model costs to run and to store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod

import onnx_ir as ir

from graphopt.graph.nodes import subgraphs
from graphopt.ops.spec import ShapeOf
from graphopt.ops.table import macs

__all__ = ["Cost", "cost", "node_cost"]


@dataclass(frozen=True)
class Cost:
    """The cost of one run at concrete shapes. Costs add up."""

    macs: int = 0
    """Multiply-accumulates, as far as they are known."""
    params: int = 0
    """Elements of floating point constants."""
    bytes: int = 0
    """Read and written by nodes, as far as shapes are known: each input once, each output once."""
    unknown: int = 0
    """Number of nodes whose multiply-accumulates could not be determined."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.macs + other.macs,
            self.params + other.params,
            self.bytes + other.bytes,
            self.unknown + other.unknown,
        )


def node_cost(node: ir.Node, shape: ShapeOf) -> Cost:
    """The cost of the node itself, without its bodies; its params are those of the constants it reads or holds."""
    count = macs(node, shape)
    values = [v for v in (*node.inputs, *node.outputs) if v is not None]
    return Cost(
        macs=count or 0,
        params=_params(v.const_value for v in {*node.inputs} if v is not None) + _params(_held(node)),
        bytes=sum(_bytes(v, shape) for v in values),
        unknown=int(count is None),
    )


def cost(model: ir.Model, shape: ShapeOf) -> Cost:
    """The cost of a model: bodies of control flow count once, those of local functions once per call.

    Params are counted where they stand, so that what is shared counts once. Values in bodies of functions have no
    shape of their own, so products there count as unknown unless `shape` can answer for them.
    """
    functions: dict[ir.OperatorIdentifier, Cost] = {}

    def total(nodes: Iterable[ir.Node]) -> Cost:
        return sum((called(n) or node_cost(n, shape) + below(n) for n in nodes), Cost())

    def below(node: ir.Node) -> Cost:
        return sum((total(body) for body in subgraphs(node)), Cost())

    def called(node: ir.Node) -> Cost | None:
        identifier = node.op_identifier()
        if identifier in model.functions and identifier not in functions:
            functions[identifier] = Cost()  # in case it calls itself, against the rules
            functions[identifier] = total(model.functions[identifier])
        return functions.get(identifier)

    parts: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    stored = [v.const_value for graph in model.graphs() for v in graph.initializers.values()]
    held = [t for part in parts for n in part.all_nodes() for t in _held(n)]
    return replace(total(model.graph), params=_params(stored) + _params(held))


def _held(node: ir.Node) -> Iterable[ir.TensorProtocol]:
    """The tensors in the attributes of a node that reads nothing: a Constant."""
    if not node.inputs:
        yield from (a.as_tensor() for a in node.attributes.values() if a.type is ir.AttributeType.TENSOR)


def _params(tensors: Iterable[ir.TensorProtocol | None]) -> int:
    return sum(t.size for t in tensors if t is not None and (t.dtype.is_floating_point() or _is_narrow(t)))


def _is_narrow(tensor: ir.TensorProtocol) -> bool:
    """Whether it holds what stands for weights: integers of few bits, and more than one for each channel."""
    return tensor.dtype in _NARROW and len(tensor.shape) > 1


_NARROW = frozenset({ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4})


def _bytes(value: ir.Value, shape: ShapeOf) -> int:
    found = shape(value)
    if found is None or value.dtype is None or value.dtype.is_string():
        return 0
    return -(-prod(found) * value.dtype.bitwidth // 8)
