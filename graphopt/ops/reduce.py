"""Reductions and running results along axes."""

from __future__ import annotations

import onnx_ir as ir

from graphopt.graph.domain import Domain
from graphopt.graph.nodes import attr
from graphopt.ops.flow import Axes, along, axes_of, drop, reduced
from graphopt.ops.spec import OpSpec, admit, axis_of_data, carry, family, length_up_to

__all__ = ["SPECS"]


def _arg(node: ir.Node, axes: Axes) -> None:
    x = node.inputs[0]
    axis = attr(node, "axis", 0) % len(axes.of(x)) if x is not None else 0
    drop(node, axes, [axis], keep=bool(attr(node, "keepdims", 1)))


SPECS = (
    *family(
        {"ReduceMax": "largest element over `axes`", "ReduceMin": "smallest element over `axes`"},
        admits=admit({1: axis_of_data}),
        carries=carry(0),
        flow=reduced,
    ),
    *family(
        {
            "ReduceL1": "sum of magnitudes over `axes`",
            "ReduceL2": "root of the sum of squares over `axes`",
            "ReduceMean": "mean over `axes`",
            "ReduceProd": "product over `axes`",
            "ReduceSum": "sum over `axes`",
            "ReduceSumSquare": "sum of squares over `axes`",
        },
        admits=admit({1: axis_of_data}),
        flow=reduced,
        positive="kept",
    ),
    OpSpec(
        op="ReduceLogSumExp",
        summary="log of the sum of exponentials over `axes`",
        admits=admit({1: axis_of_data}),
        flow=reduced,
    ),
    OpSpec(
        op="ReduceLogSum",
        summary="log of the sum over `axes`",
        admits=admit({0: Domain(0), 1: axis_of_data}),
        flow=reduced,
    ),
    *family(
        {"ArgMax": "index of the largest element along `axis`", "ArgMin": "index of the smallest element along `axis`"},
        flow=_arg,
        places=lambda node: (0, attr(node, "axis", 0)),
    ),
    *family(
        {"CumSum": "running sums along an axis", "CumProd": "running products along an axis"},
        admits=admit({1: axis_of_data}),
        flow=along(lambda node, rank: axes_of(node, rank) or range(rank)),
    ),
    OpSpec(
        op="TopK",
        summary="the K largest or smallest elements along `axis`, and where they were",
        admits=admit({1: lambda n: length_up_to(n.inputs[0], attr(n, "axis", -1))}),
        carries=carry(0),
        flow=along(lambda node, _: [attr(node, "axis", -1)]),
        places=lambda node: (1, attr(node, "axis", -1)),
    ),
)
