"""Tensors made from a shape, a range or nothing."""

from __future__ import annotations

from graphopt.graph.domain import Domain
from graphopt.ops.spec import COUNT, OpSpec, admit, family

__all__ = ["SPECS"]

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
            "Shape": "the extents of the input, from axis `start` to `end`",
            "Size": "the number of elements",
        }
    ),
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
