"""Pooling. X: (N, C, spatial…)."""

from __future__ import annotations

import onnx_ir as ir

from graphopt.graph.domain import Domain
from graphopt.graph.nodes import is_used
from graphopt.ops.flow import Axes, windowed
from graphopt.ops.spec import OpSpec, admit, carry, family, first_input

__all__ = ["SPECS"]


def _flow(node: ir.Node, axes: Axes) -> None:
    """Where an element was counts those of all channels before."""
    x = node.inputs[0]
    if x is not None and any(v.name and (is_used(v) or v.is_graph_output()) for v in node.outputs[1:]):
        axes.hold(axes.of(x)[1], f"{node.op_type} counts along it")
    windowed(node, axes)


SPECS = (
    *family(
        {
            "MaxPool": "largest element of each window, and where it was",
            "GlobalMaxPool": "largest element of each channel",
        },
        flow=_flow,
        factors=first_input,
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
        factors=first_input,
        positive="kept",
    ),
    OpSpec(
        op="MaxUnpool",
        summary="elements back to where MaxPool found them, zero elsewhere",
        admits=admit({1: Domain(0, 1)}),
        carries=carry(0),
        fills=True,
    ),
)
