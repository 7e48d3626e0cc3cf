"""Images: resampling, regions, boxes."""

from __future__ import annotations

from graphopt.graph.domain import Domain
from graphopt.ops.spec import COUNT, OpSpec, admit, family, index_into

__all__ = ["SPECS"]

SPECS = (
    OpSpec(
        op="Resize",
        summary="resampled by scales or to sizes along axes",
        admits=admit({1: Domain(0, 1), 2: Domain(1, 3), 3: COUNT}),
    ),
    OpSpec(op="Upsample", summary="Resize before opset 10, by scales", admits=admit({1: Domain(1, 3)})),
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
