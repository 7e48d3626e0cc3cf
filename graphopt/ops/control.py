"""Control flow. Whether a node is pure depends on its bodies too, see `ops.is_pure`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import onnx_ir as ir

from graphopt.graph.nodes import subgraphs
from graphopt.ops.spec import COUNT, OpSpec, admit

__all__ = ["SPECS"]

Pairs = Iterable[tuple[ir.Value, ir.Value]]


def _pairs(sources: Sequence[ir.Value | None], targets: Sequence[ir.Value | None]) -> Pairs:
    """Value by value, as far as both sides go."""
    return [(s, t) for s, t in zip(sources, targets, strict=False) if s is not None and t is not None]


def _if(node: ir.Node) -> Pairs:
    return chain.from_iterable(_pairs(body.outputs, node.outputs) for body in subgraphs(node))


def _loop(node: ir.Node) -> Pairs:
    """Inputs: trip count, condition, states. Body: (iteration, condition, states) to (condition, states, scans)."""
    for body in subgraphs(node):
        yield from _pairs(node.inputs[2:], body.inputs[2:])
        yield from _pairs(body.outputs[1:], node.outputs)
        yield from _pairs(node.inputs[2:], node.outputs)  # of no iteration


def _scan(node: ir.Node) -> Pairs:
    """Inputs: (sequence lengths before opset 9,) states, scans. Body: (states, slices) to (states, slices)."""
    for body in subgraphs(node):
        yield from _pairs(node.inputs[len(node.inputs) - len(body.inputs) :], body.inputs)
        yield from _pairs(body.outputs, node.outputs)


def _sequence_map(node: ir.Node) -> Pairs:
    for body in subgraphs(node):
        yield from _pairs(node.inputs, body.inputs)
        yield from _pairs(body.outputs, node.outputs)


SPECS = (
    OpSpec(op="If", summary="the outputs of one of two bodies", foldable=False, carries=_if),
    OpSpec(
        op="Loop",
        summary="states after a body ran M times or while a condition holds, and what it put out, stacked",
        foldable=False,
        admits=admit({0: COUNT}),
        carries=_loop,
    ),
    OpSpec(
        op="Scan",
        summary="states after a body ran over slices, and what it put out, stacked",
        foldable=False,
        carries=_scan,
    ),
    OpSpec(
        op="SequenceMap", summary="a body applied to each tensor of sequences", foldable=False, carries=_sequence_map
    ),
)
