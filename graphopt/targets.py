"""What a deployment runtime runs, and what it costs there, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A runtime that models are made for."""

    name: str
    summary: str
    operators: frozenset[str] = frozenset()
    """Operators beyond standard ONNX that may be emitted, as `domain::operator`."""
    node_macs: int
    """Multiply-accumulates that take as long as starting one node."""
    byte_macs: float
    """Multiply-accumulates that take as long as reading or writing one byte."""

    def price(self, macs: int, bytes_moved: int, nodes: int) -> float:
        """What some work costs, in multiply-accumulates."""
        return macs + self.byte_macs * bytes_moved + self.node_macs * nodes


PORTABLE = Target(
    name="portable",
    summary="any runtime: standard ONNX only",
    node_macs=50_000,
    byte_macs=2.0,
)

_SHARED = frozenset(
    f"com.microsoft::{name}"
    for name in ("Attention", "BiasGelu", "FastGelu", "FusedConv", "FusedMatMul", "Gelu", "QuickGelu")
)

_ON_CPU_ONLY = frozenset(
    f"com.microsoft::{name}"
    for name in (
        *("FusedGemm", "QGemm", "QLinearAdd", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul"),
        "QLinearSigmoid",
    )
)

CPU = Target(
    name="cpu",
    summary="onnxruntime on a CPU",
    operators=_SHARED | _ON_CPU_ONLY,
    # One thread of a Xeon server: chains of 4-element Adds, of 768 × 768 products and of 4 MB Adds, divided by each other.
    node_macs=50_000,
    byte_macs=2.0,
)

CUDA = Target(
    name="cuda",
    summary="onnxruntime on an NVIDIA GPU",
    operators=_SHARED,
    node_macs=50_000,
    byte_macs=2.0,
)

TARGETS: Mapping[str, Target] = {t.name: t for t in (PORTABLE, CPU, CUDA)}
"""Every target by name."""
