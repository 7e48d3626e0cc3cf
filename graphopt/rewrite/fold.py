"""Fold: compute ahead of time what no feed can change.

    Constant                          → initializer
    Shape(x), dims known              → initializer             also of a slice of the shape
    op(constants)                     → initializer             evaluated by the runtime itself, in a child process

A region of constant nodes is evaluated at once, and only what leaves the region is kept. Sizes are known before
anything is computed: a result without a known shape, of more than `max_bytes`, or for which the file may not grow any
more, is left to the runtime. What is random, in training mode or quantized on purpose is never folded.

BITWISE: the runtime computes the same bits ahead of time as it would later, with its optimizations off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.graph import shapes
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.nodes import attr, graphs, in_memory, is_constant, readers, static_shape, subgraphs
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, No, Rule, described, rewrite, rule
from graphopt.match.pattern import op, var
from graphopt.protocol import Context, NotEvaluated, Pass

__all__ = ["Fold"]

_NODE_BYTES = 60
"""About what a small node takes in the file, names included."""
_TENSOR_BYTES = 30
"""About what an initializer takes beside its contents."""


@rule(op.Constant(name="node"), exactness=Exactness.BITWISE)
def constant(draft: Draft, _ctx: Context, node: ir.Node) -> Answer:
    """A Constant node becomes an initializer."""
    tensor = _constant_tensor(node)
    return No("it holds no dense tensor") if tensor is None else draft.tensor(tensor, str(node.outputs[0].name))


def _constant_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    value = attr(node, "value")
    if value is not None:
        return ir.Tensor(value.numpy(), dtype=value.dtype) if value.dtype is not ir.DataType.STRING else None
    for name, dtype in (
        ("value_int", np.int64),
        ("value_ints", np.int64),
        ("value_float", np.float32),
        ("value_floats", np.float32),
    ):
        value = attr(node, name)
        if value is not None:
            return ir.tensor(np.asarray(value, dtype))
    return None


@rule(op.Shape(var("x"), name="node"), exactness=Exactness.BITWISE)
def shape_of_static(draft: Draft, _ctx: Context, x: ir.Value, node: ir.Node) -> Answer:
    """Shape(x) becomes a constant where every dim it asks for is known."""
    if x.shape is None:
        return No("the shape is not known")
    dims = list(x.shape)[attr(node, "start", 0) : attr(node, "end", None)]
    if not all(isinstance(d, int) for d in dims):
        return No("a dimension is open")
    return draft.const(np.asarray(dims, np.int64), str(node.outputs[0].name))


RULES: tuple[Rule, ...] = (constant, shape_of_static)


@dataclass(frozen=True)
class Fold(Pass):
    """See the module's docstring. `max_bytes` bounds a single folded tensor."""

    name: ClassVar[str] = "fold"
    summary: ClassVar[str] = "compute ahead of time what no feed can change"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    rules: ClassVar[Mapping[str, str]] = {
        **described(RULES),
        "fold": "What is computed from constants alone becomes an initializer.",
    }

    max_bytes: int = 16 << 20

    def run(self, edit: Editor, ctx: Context) -> None:
        """Constants first, then regions of constant nodes, graph by graph."""
        rewrite(edit, ctx, RULES)
        for graph in list(graphs(edit.model)):
            region = _Region(graph, edit.model, self.max_bytes)
            wanted: dict[ir.Value, int] = {}
            for value in region.leaving():
                growth = region.growth(value)
                if ctx.ledger.spend(growth, folding=True):
                    wanted[value] = growth
                else:
                    ctx.miss("fold", value, "the file would grow")
            for value, contents in _evaluate(list(wanted), region, ctx):
                if _commit(edit, ctx, value, contents):
                    del wanted[value]
            ctx.ledger.spend(-sum(wanted.values()))  # what was not folded after all


def _commit(edit: Editor, ctx: Context, value: ir.Value, contents: NDArray[Any]) -> bool:
    """Put a computed value in as a constant, if the editor has nothing against it."""
    node = value.producer()
    if node is None or node.graph is None:
        return False
    draft = Draft(node)
    before = len(edit.edits)
    with ctx.noting("fold", node):
        edit.commit("fold", Exactness.BITWISE, {value: draft.const(contents, str(value.name))}, draft=draft)
    return len(edit.edits) > before


class _Region:
    """The nodes of one graph whose results are fixed, and what is known about their size."""

    def __init__(self, graph: ir.Graph, model: ir.Model, max_bytes: int) -> None:
        self.model = model
        self.max_bytes = max_bytes
        self.nodes: dict[ir.Node, int] = {}
        for position, node in enumerate(graph):
            if self._is_fixed(node):
                self.nodes[node] = position

    def _is_fixed(self, node: ir.Node) -> bool:
        if not ops.is_foldable(node) or not ops.is_pure(node, {}) or any(True for _ in subgraphs(node)):
            return False
        if not all(v is None or is_constant(v) or v.producer() in self.nodes for v in node.inputs):
            return False
        if any(v.name and _bytes(v) is None for v in node.outputs):
            shapes.infer_node(node, self.model)
        sizes = [_bytes(v) for v in node.outputs if v.name]
        return all(size is not None and size <= self.max_bytes for size in sizes)

    def leaving(self) -> list[ir.Value]:
        """The results that are read outside of the region, or by a node that stays, since it computes an output."""
        return [
            v
            for node in self.nodes
            for v in node.outputs
            if not v.is_graph_output() and any(self._stays(user) for user in readers(v))
        ]

    def _stays(self, node: ir.Node) -> bool:
        return node not in self.nodes or any(v.is_graph_output() for v in node.outputs)

    def behind(self, values: Sequence[ir.Value]) -> list[ir.Node]:
        """The nodes needed for `values`, in order."""
        found: set[ir.Node] = set()
        pending = [v.producer() for v in values]
        while pending:
            node = pending.pop()
            if node is not None and node not in found and node in self.nodes:
                found.add(node)
                pending.extend(v.producer() for v in node.inputs if v is not None)
        return sorted(found, key=self.nodes.__getitem__)

    def growth(self, value: ir.Value) -> int:
        """By how many bytes the file grows when `value` is kept as an initializer: less than zero if it shrinks."""
        size = (_bytes(value) or 0) + _TENSOR_BYTES
        if size <= _NODE_BYTES:
            return size - _NODE_BYTES  # its own node alone pays for it
        gone: set[ir.Node] = set()
        freed: dict[ir.Value, int] = {}
        for node in reversed(self.behind([value])):
            if all(v is value or all(user in gone for user in readers(v)) for v in node.outputs):
                gone.add(node)
        for node in gone:
            for v in node.inputs:
                if v is not None and v.const_value is not None and all(user in gone for user in readers(v)):
                    freed[v] = v.const_value.nbytes + _TENSOR_BYTES
        return size - sum(freed.values()) - _NODE_BYTES * len(gone)


def _bytes(value: ir.Value) -> int | None:
    """Size of a dense tensor of known shape and fixed-size elements."""
    dims, dtype = static_shape(value), value.dtype
    if dims is None or dtype is None or dtype is ir.DataType.STRING or not isinstance(value.type, ir.TensorType):
        return None
    return int(np.ceil(np.prod(dims, dtype=object) * dtype.itemsize))


def _evaluate(values: Sequence[ir.Value], region: _Region, ctx: Context) -> Iterator[tuple[ir.Value, NDArray[Any]]]:
    """Compute `values` together; where that fails, find out by halving which of them cannot be computed."""
    pending = [list(values)] if values else []
    while pending:
        batch = pending.pop(0)
        try:
            found = ctx.evaluate(_model_of(batch, region))
        except NotEvaluated as problem:
            if len(batch) == 1:
                ctx.miss("fold", batch[0], str(problem))
            else:
                middle = len(batch) // 2
                pending[:0] = [batch[:middle], batch[middle:]]
            continue
        yield from _as_declared(batch, found, ctx)


def _as_declared(
    batch: Sequence[ir.Value], found: Mapping[str, NDArray[Any]], ctx: Context
) -> Iterator[tuple[ir.Value, NDArray[Any]]]:
    for value in batch:
        contents = found[str(value.name)]
        if contents.shape != static_shape(value):
            ctx.miss("fold", value, f"its shape is {contents.shape}, not {value.shape}")
        else:
            yield value, contents


def _model_of(values: Sequence[ir.Value], region: _Region) -> bytes:
    """A model without inputs that computes `values`."""
    nodes = region.behind(values)
    constants = {
        v.name: v.const_value for node in nodes for v in node.inputs if v is not None and v.const_value is not None
    }
    graph = onnx.GraphProto(name="constants")
    graph.node.extend(ir.to_proto(node) for node in nodes)
    for name, tensor in constants.items():
        graph.initializer.append(ir.to_proto(in_memory(tensor)))
        graph.initializer[-1].name = str(name)
    graph.output.extend(ir.to_proto(v) for v in values)
    model = onnx.ModelProto(ir_version=region.model.ir_version, graph=graph)
    for domain, version in region.model.opset_imports.items():
        model.opset_import.add(domain=domain, version=version)
    return bytes(model.SerializeToString())
