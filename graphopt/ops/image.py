"""Images: resampling, regions, boxes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphopt.graph.domain import Domain
from graphopt.graph.nodes import attr, input_at
from graphopt.ops.conv import SPATIAL
from graphopt.ops.flow import Axes, along, opaque
from graphopt.ops.spec import COUNT, OpSpec, admit, contents, family, index_into

__all__ = ["SPECS"]


def _resampled(node: ir.Node, axes: Axes) -> None:
    """Channels and samples are left alone by scales of one; sizes in numbers would have to be written anew."""
    scales = contents(input_at(node, 1 if node.op_type == "Upsample" or len(node.inputs) == 2 else 2))  # noqa: PLR2004
    if scales is None or scales.size < SPATIAL or np.any(scales[:SPATIAL] != 1) or attr(node, "axes") is not None:
        return opaque(node, axes)
    return along(lambda _, rank: range(SPATIAL, rank))(node, axes)


SPECS = (
    OpSpec(
        op="Resize",
        summary="resampled by scales or to sizes along axes",
        admits=admit({1: Domain(0, 1), 2: Domain(1, 3), 3: COUNT}),
        flow=_resampled,
    ),
    OpSpec(
        op="Upsample", summary="Resize before opset 10, by scales", admits=admit({1: Domain(1, 3)}), flow=_resampled
    ),
    OpSpec(op="AffineGrid", summary="sampling positions of an affine map, for GridSample", admits=admit({1: COUNT})),
    OpSpec(op="GridSample", summary="X read at the positions of a grid in −1 … 1", admits=admit({1: Domain(-1, 1)})),
    OpSpec(
        op="RoiAlign",
        summary="mean or maximum of samples in each cell of each region; X: (N, C, H, W), rois: (regions, 4)",
        admits=admit({1: Domain(0, ascending=True), 2: lambda n: index_into(n.inputs[0], 0)}),
    ),
    OpSpec(
        op="MaxRoiPool",
        summary="largest element of each cell of each region; rois: (regions, 5), the first number the sample",
        admits=admit({1: Domain(0, 1, ascending=True)}),
    ),
    OpSpec(
        op="NonMaxSuppression",
        summary="the best boxes that do not overlap too much, as (sample, class, box)",
        admits=admit({2: COUNT, 3: Domain(0, 1), 4: Domain(0, 1)}),
    ),
    *family({"ImageDecoder": "pixels from an encoded byte stream"}),
)
