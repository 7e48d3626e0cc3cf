"""Operators that move elements and compute nothing, by positions that do not depend on the data."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from graphopt.graph.domain import Domain
from graphopt.ops.flow import along, pointwise
from graphopt.ops.reshape import (
    concat,
    depth_to_space,
    expand,
    pad,
    regrouped,
    reshape,
    slice_,
    space_to_depth,
    split,
    tile,
    transpose,
)
from graphopt.ops.resize import expanded, padded, reshaped, sliced, splitted, tiled
from graphopt.ops.spec import COUNT, OpSpec, admit, axis_of_data, carry, every_input, family, first_input

__all__ = ["SPECS"]


def _to_all(node: ir.Node) -> Iterable[tuple[ir.Value, ir.Value]]:
    source = node.inputs[0]
    return () if source is None else [(source, target) for target in node.outputs]


SPECS = (
    OpSpec(
        op="Identity",
        summary="the input as it is",
        carries=carry(0),
        flow=pointwise,
        factors=first_input,
        sums=first_input,
    ),
    OpSpec(
        op="Flatten",
        summary="a matrix: the axes before `axis` become the rows, the others the columns",
        adapts="layout",
        carries=carry(0),
        flow=regrouped,
        factors=first_input,
        sums=first_input,
    ),
    OpSpec(
        op="Transpose",
        summary="axes in the order of `perm`, reversed by default",
        adapts="layout",
        carries=carry(0),
        flow=transpose,
        factors=first_input,
        sums=first_input,
    ),
    OpSpec(
        op="DepthToSpace",
        summary="blocks of channels become blocks of pixels; (N, C·b², H, W) to (N, C, H·b, W·b)",
        carries=carry(0),
        flow=depth_to_space,
    ),
    OpSpec(
        op="SpaceToDepth",
        summary="blocks of pixels become blocks of channels; (N, C, H·b, W·b) to (N, C·b², H, W)",
        carries=carry(0),
        flow=space_to_depth,
    ),
    OpSpec(
        op="Reshape",
        summary="the same elements in another shape; 0 keeps an extent, −1 is what remains",
        admits=admit({1: Domain(-1, 0)}),
        adapts="layout",
        carries=carry(0),
        flow=reshape,
        factors=first_input,
        sums=first_input,
        resize=reshaped,
    ),
    *family(
        {"Squeeze": "without the axes of extent 1", "Unsqueeze": "with further axes of extent 1"},
        admits=admit({1: Domain(0, 1)}),
        adapts="layout",
        carries=carry(0),
        flow=regrouped,
        factors=first_input,
        sums=first_input,
    ),
    OpSpec(
        op="Concat",
        summary="the inputs one after another along `axis`",
        carries=carry(),
        flow=concat,
        factors=every_input,
        sums=every_input,
    ),
    OpSpec(
        op="Split",
        summary="consecutive parts along `axis`, one per output",
        carries=_to_all,
        flow=split,
        factors=first_input,
        sums=first_input,
        resize=splitted,
    ),
    OpSpec(
        op="Slice",
        summary="elements from starts to ends (exclusive) in steps, along axes",
        admits=admit({1: Domain(0, 1), 2: COUNT, 3: axis_of_data, 4: Domain(1, 3)}),
        carries=carry(0),
        flow=slice_,
        factors=first_input,
        sums=first_input,
        resize=sliced,
    ),
    OpSpec(
        op="Expand",
        summary="broadcast to the common shape",
        admits=admit({1: Domain(1, 2)}),
        carries=carry(0),
        sums=first_input,
        flow=expand,
        resize=expanded,
    ),
    OpSpec(
        op="Tile",
        summary="the input repeated along each axis",
        admits=admit({1: COUNT}),
        carries=carry(0),
        flow=tile,
        resize=tiled,
    ),
    OpSpec(
        op="Pad",
        summary="a border of constants, or of elements by `mode`; pads hold all starts, then all ends",
        admits=admit({1: Domain(0, 2), 3: axis_of_data}),
        carries=carry(0, 2),
        fills=True,
        flow=pad,
        resize=padded,
    ),
    OpSpec(
        op="Trilu",
        summary="the upper or lower triangle of matrices, zero elsewhere",
        carries=carry(0),
        fills=True,
        flow=along(lambda _, rank: range(rank - 2, rank)),
    ),
    OpSpec(
        op="CenterCropPad",
        summary="cropped or padded with zeros around the centre to a given shape",
        admits=admit({1: COUNT}),
        carries=carry(0),
        fills=True,
    ),
)
