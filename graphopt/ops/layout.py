"""Operators that move elements and compute nothing, by positions that do not depend on the data."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from graphopt.graph.domain import Domain
from graphopt.ops.spec import COUNT, OpSpec, admit, axis_of_data, carry, family

__all__ = ["SPECS"]


def _to_all(node: ir.Node) -> Iterable[tuple[ir.Value, ir.Value]]:
    source = node.inputs[0]
    return () if source is None else [(source, target) for target in node.outputs]


SPECS = (
    *family(
        {
            "Identity": "the input as it is",
            "Flatten": "a matrix: the axes before `axis` become the rows, the others the columns",
            "Transpose": "axes in the order of `perm`, reversed by default",
            "DepthToSpace": "blocks of channels become blocks of pixels; (N, C·b², H, W) to (N, C, H·b, W·b)",
            "SpaceToDepth": "blocks of pixels become blocks of channels; (N, C, H·b, W·b) to (N, C·b², H, W)",
        },
        carries=carry(0),
    ),
    OpSpec(
        op="Reshape",
        summary="the same elements in another shape; 0 keeps an extent, −1 is what remains",
        admits=admit({1: Domain(-1, 0)}),
        carries=carry(0),
    ),
    *family(
        {"Squeeze": "without the axes of extent 1", "Unsqueeze": "with further axes of extent 1"},
        admits=admit({1: Domain(0, 1)}),
        carries=carry(0),
    ),
    OpSpec(op="Concat", summary="the inputs one after another along `axis`", carries=carry()),
    OpSpec(op="Split", summary="consecutive parts along `axis`, one per output", carries=_to_all),
    OpSpec(
        op="Slice",
        summary="elements from starts to ends (exclusive) in steps, along axes",
        admits=admit({1: Domain(0, 1), 2: COUNT, 3: axis_of_data, 4: Domain(1, 3)}),
        carries=carry(0),
    ),
    OpSpec(op="Expand", summary="broadcast to the common shape", admits=admit({1: Domain(1, 2)}), carries=carry(0)),
    OpSpec(op="Tile", summary="the input repeated along each axis", admits=admit({1: COUNT}), carries=carry(0)),
    OpSpec(
        op="Pad",
        summary="a border of constants, or of elements by `mode`; pads hold all starts, then all ends",
        admits=admit({1: Domain(0, 2), 3: axis_of_data}),
        carries=carry(0, 2),
    ),
    OpSpec(op="Trilu", summary="the upper or lower triangle of matrices, zero elsewhere", carries=carry(0)),
    OpSpec(
        op="CenterCropPad",
        summary="cropped or padded with zeros around the centre to a given shape",
        admits=admit({1: COUNT}),
        carries=carry(0),
    ),
)
