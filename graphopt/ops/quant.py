"""Quantizers. A constant behind DequantizeLinear stays small only as long as nobody computes it."""

from __future__ import annotations

from graphopt.graph.domain import Domain
from graphopt.ops.spec import OpSpec, admit, family

__all__ = ["SPECS"]

SPECS = (
    *family(
        {
            "QuantizeLinear": "saturate(round(x / y_scale) + y_zero_point), per tensor, axis or block",
            "DequantizeLinear": "(x − x_zero_point) · x_scale, per tensor, axis or block",
        },
        foldable=False,
        admits=admit({1: Domain(1, 2)}),
    ),
    OpSpec(
        op="DynamicQuantizeLinear",
        summary="x quantized to uint8 by its own range, with scale and zero point",
        foldable=False,
    ),
)
