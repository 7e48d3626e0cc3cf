"""Fourier transforms."""

from __future__ import annotations

from graphopt.graph.domain import Domain
from graphopt.ops.spec import COUNT, OpSpec, admit

__all__ = ["SPECS"]

SPECS = (
    OpSpec(
        op="DFT",
        summary="discrete Fourier transform along an axis; the last axis holds real and imaginary parts",
        admits=admit({1: COUNT, 2: Domain(1, 2)}),
    ),
    OpSpec(
        op="STFT",
        summary="discrete Fourier transforms of windows that advance by frame_step",
        admits=admit({1: COUNT, 3: COUNT}),
    ),
)
