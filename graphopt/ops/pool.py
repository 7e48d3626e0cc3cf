"""Pooling. X: (N, C, spatial…)."""

from __future__ import annotations

from graphopt.graph.domain import Domain
from graphopt.ops.flow import windowed
from graphopt.ops.spec import OpSpec, admit, carry, family

__all__ = ["SPECS"]

SPECS = (
    *family(
        {
            "MaxPool": "largest element of each window, and where it was",
            "GlobalMaxPool": "largest element of each channel",
        },
        flow=windowed,
        carries=carry(0),
    ),
    *family(
        {
            "AveragePool": "mean of each window",
            "LpPool": "p-norm of each window",
            "GlobalAveragePool": "mean of each channel",
            "GlobalLpPool": "p-norm of each channel",
        },
        flow=windowed,
    ),
    OpSpec(
        op="MaxUnpool",
        summary="elements back to where MaxPool found them, zero elsewhere",
        admits=admit({1: Domain(0, 1)}),
        carries=carry(0),
    ),
)
