"""Tensors made from a shape, a range or nothing."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from graphopt.graph.domain import Domain
from graphopt.graph.nodes import array, attr, input_at, readers
from graphopt.ops.flow import Axes, opaque
from graphopt.ops.reshape import slice_range, slice_words
from graphopt.ops.spec import COUNT, OpSpec, admit, family

__all__ = ["SPECS"]


def _picked(reader: ir.Node, count: int) -> Iterable[int]:
    """Which of `count` numbers a node looks at, other than to shape a value that stays in step (`reshape.follow`)."""
    if reader.op_type == "Gather" and (index := array(input_at(reader, 1))) is not None:
        return [int(i) for i in index.reshape(-1)]
    if reader.op_type == "Slice" and (words := slice_words(reader)) is not None:
        return [i for start, end, _, step in zip(*words, strict=True) for i in slice_range(start, end, step, count)]
    return range(count)


def _follows(reader: ir.Node, shape: ir.Value) -> bool:
    """Whether a node, or all that read its Concat, shapes something as a value has it."""
    if reader.op_type == "Concat" and not reader.outputs[0].is_graph_output():
        return all(_shapes(n, reader.outputs[0]) for n in readers(reader.outputs[0]))
    return _shapes(reader, shape)


def _shapes(node: ir.Node, shape: ir.Value) -> bool:
    place = {"Reshape": 1, "Expand": 1, "Resize": 3}.get(node.op_type, 0)
    return place > 0 and not node.domain and [i for i, v in enumerate(node.inputs) if v is shape] == [place]


def _shape(node: ir.Node, axes: Axes) -> None:
    """Only the extents that are looked at have to stay."""
    x, y = node.inputs[0], node.outputs[0]
    if x is None:
        return opaque(node, axes)
    given = axes.of(x)
    seen = range(len(given))[slice(attr(node, "start", 0), attr(node, "end"))]
    looked: set[int] = set()
    for reader in readers(y):
        if not _follows(reader, y):
            looked.update(seen[i] for i in _picked(reader, len(seen)))
    for i in seen if y.is_graph_output() else looked:
        axes.hold(given[i], "its extent is computed with")
    return axes.put(y, [axes.held(len(seen), "it holds extents")])


SPECS = (
    OpSpec(op="ConstantOfShape", summary="one value in a given shape", admits=admit({0: COUNT})),
    OpSpec(
        op="Range",
        summary="start, start + delta, … while below limit",
        admits=admit({0: Domain(0, 1), 1: COUNT, 2: Domain(1, 2)}),
    ),
    *family(
        {
            "Constant": "the tensor in its attribute",
            "EyeLike": "ones on a diagonal, in the shape of the input",
            "Size": "the number of elements",
        }
    ),
    OpSpec(op="Shape", summary="the extents of the input, from axis `start` to `end`", flow=_shape),
    *family(
        {
            "BlackmanWindow": "a window of given size",
            "HammingWindow": "a window of given size",
            "HannWindow": "a window of given size",
        },
        admits=admit({0: COUNT}),
    ),
    OpSpec(
        op="MelWeightMatrix",
        summary="the weights from frequencies to mel bins; (dft_length // 2 + 1, num_mel_bins)",
        admits=admit({0: COUNT, 1: Domain(16, 33), 2: Domain(8000, 16001), 3: Domain(0, 100), 4: Domain(2000, 3001)}),
    ),
)
