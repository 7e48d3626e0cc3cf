"""Images: resampling, regions, boxes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphopt.graph.domain import Domain
from graphopt.graph.nodes import attr, input_at
from graphopt.ops.conv import SPATIAL
from graphopt.ops.flow import Axes, along, opaque
from graphopt.ops.reshape import extents, follow
from graphopt.ops.resize import SIZES, resampled
from graphopt.ops.spec import COUNT, OpSpec, admit, contents, family, index_into

__all__ = ["SPECS"]


def _resampled(node: ir.Node, axes: Axes) -> None:
    """Channels and samples are left alone by scales of one, and by sizes that can be written anew."""
    x, sizes, some = node.inputs[0], input_at(node, SIZES), attr(node, "axes")
    plain = attr(node, "keep_aspect_ratio_policy", "stretch") == "stretch"
    if x is None or not plain or attr(node, "coordinate_transformation_mode") == "tf_crop_and_resize":
        return opaque(node, axes)
    spatial = along(lambda _, rank: range(SPATIAL, rank))
    if some is not None:
        beyond = all(a % len(axes.of(x)) >= SPATIAL for a in some)
        return (spatial if beyond else opaque)(node, axes)
    if sizes is not None:
        wanted = extents(axes, sizes)
        if wanted is None:
            return opaque(node, axes)
        spatial(node, axes)
        return follow(node, axes, axes.of(node.outputs[0]), wanted)
    scales = contents(input_at(node, 1 if node.op_type == "Upsample" or len(node.inputs) == 2 else 2))  # noqa: PLR2004
    if scales is None or scales.size < SPATIAL or np.any(scales[:SPATIAL] != 1):
        return opaque(node, axes)
    return spatial(node, axes)


SPECS = (
    OpSpec(
        op="Resize",
        summary="resampled by scales or to sizes along axes",
        admits=admit({1: Domain(0, 1), 2: Domain(1, 3), 3: COUNT}),
        flow=_resampled,
        resize=resampled,
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
