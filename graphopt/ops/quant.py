"""Quantizers. A constant behind DequantizeLinear stays small only as long as nobody computes it."""

from __future__ import annotations

import onnx_ir as ir

from graphopt.graph.domain import Domain
from graphopt.graph.nodes import attr
from graphopt.ops.flow import Axes, opaque
from graphopt.ops.spec import OpSpec, admit, family

__all__ = ["SPECS"]


def _flow(node: ir.Node, axes: Axes) -> None:
    """Scale and zero point are one number, or one for each index of `axis`; blocks stay as they are."""
    (x, *rest) = node.inputs
    if x is None or attr(node, "block_size", 0):
        return opaque(node, axes)
    given = axes.of(x)
    for value in rest:
        mine = axes.of(value) if value is not None else []
        if len(mine) == 1 and len(mine[0]) > 1:
            axes.tie(mine[0], given[attr(node, "axis", 1)])
    return axes.put(node.outputs[0], given)


SPECS = (
    *family(
        {
            "QuantizeLinear": "saturate(round(x / y_scale) + y_zero_point), per tensor, axis or block",
            "DequantizeLinear": "(x − x_zero_point) · x_scale, per tensor, axis or block",
        },
        foldable=False,
        adapts="quantizer",
        admits=admit({1: Domain(1, 2)}),
        flow=_flow,
    ),
    OpSpec(
        op="DynamicQuantizeLinear",
        summary="x quantized to uint8 by its own range, with scale and zero point",
        foldable=False,
        adapts="quantizer",
    ),
)
