"""Operators that read or write where their data says: indices, masks, searches."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from graphopt.graph.domain import Domain
from graphopt.graph.nodes import attr, input_at, rank
from graphopt.ops.reshape import gather
from graphopt.ops.resize import picked
from graphopt.ops.spec import (
    COUNT,
    OpSpec,
    admit,
    carry,
    contents,
    extent,
    family,
    first_input,
    index_into,
    length_up_to,
)

__all__ = ["SPECS"]


def _along_axis(node: ir.Node) -> Domain:
    return index_into(node.inputs[0], attr(node, "axis", 0))


def _picks_rows(node: ir.Node) -> bool:
    return attr(node, "axis", 0) == 0 and rank(node.inputs[0]) == 2  # noqa: PLR2004 - a matrix


def _tuples(node: ir.Node) -> Domain:
    """Index tuples: one interval for all components, so that of the shortest indexed axis."""
    first, width = attr(node, "batch_dims", 0), extent(input_at(node, 1), -1)
    if not isinstance(width, int):
        return Domain(0, 1)
    found = [index_into(node.inputs[0], axis) for axis in range(first, first + width)]
    symbols = {d.high for d in found if isinstance(d.high, str)}
    numbers = [d.high for d in found if isinstance(d.high, int)]
    if not symbols:
        return Domain(0, min(numbers, default=1))
    return Domain(0, symbols.pop() if len(symbols) == 1 and not numbers else 1)


def _classes(node: ir.Node) -> Domain:
    depth = contents(input_at(node, 1))
    return Domain(0, 1 if depth is None else int(depth.item()))


def _scattered(node: ir.Node) -> Iterable[tuple[ir.Value, ir.Value]]:
    return carry(0, 2)(node) if attr(node, "reduction", "none") == "none" else ()


def _write_start(node: ir.Node) -> Domain:
    """Where in the cache the update starts, so that all of it fits."""
    axis = attr(node, "axis", -2)
    cache, update = extent(node.inputs[0], axis), extent(node.inputs[1], axis)
    return Domain(0, cache - update + 1 if isinstance(cache, int) and isinstance(update, int) else 1)


SPECS = (
    OpSpec(
        op="Gather",
        summary="slices of the data along `axis`, by indices of any shape",
        admits=admit({1: _along_axis}),
        looks_up=_picks_rows,
        carries=carry(0),
        sums=first_input,
        flow=gather,
        resize=picked,
    ),
    OpSpec(
        op="GatherElements",
        summary="one element along `axis` per element of the indices",
        admits=admit({1: _along_axis}),
        carries=carry(0),
    ),
    OpSpec(
        op="GatherND",
        summary="elements or slices by tuples of indices on the last axis of input 1",
        admits=admit({1: _tuples}),
        carries=carry(0),
    ),
    *family(
        {
            "Scatter": "ScatterElements before opset 11",
            "ScatterElements": "the data with elements replaced (or reduced into) by updates along `axis`",
        },
        admits=admit({1: _along_axis}),
        carries=_scattered,
    ),
    OpSpec(
        op="ScatterND",
        summary="the data with slices replaced (or reduced into) by updates at tuples of indices",
        admits=admit({1: _tuples}),
        carries=_scattered,
    ),
    OpSpec(
        op="TensorScatter",
        summary="a cache with an update written at one index per sample along `axis`",
        admits=admit({2: _write_start}),
        carries=carry(0, 1),
    ),
    OpSpec(
        op="OneHot",
        summary="on-value at the index along a new axis of extent depth, off-value elsewhere",
        admits=admit({0: _classes, 1: COUNT}),
        carries=carry(2),
    ),
    OpSpec(
        op="ReverseSequence",
        summary="the first sequence_lens elements along the time axis in reverse, per sample",
        admits=admit({1: lambda n: length_up_to(n.inputs[0], attr(n, "time_axis", 0))}),
        carries=carry(0),
    ),
    *family(
        {
            "Compress": "the slices along `axis` for which the condition holds",
            "Unique": "the different elements, where they are first, the way back, and how often",
        },
        carries=carry(0),
    ),
    OpSpec(op="NonZero", summary="indices of elements that are not zero; (rank, count)"),
)
