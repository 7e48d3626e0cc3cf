"""Normalizations: over channels, groups or axes, with statistics given or taken from the data."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from graphopt.graph.domain import Domain
from graphopt.graph.nodes import attr, opset
from graphopt.ops.flow import Axes, along, opaque, tie_all
from graphopt.ops.resize import grouped
from graphopt.ops.spec import OpSpec, admit, family, is_off

__all__ = ["SPECS"]

PER_AXIS_OPSET = 13
"""From which Softmax works along one axis."""
FIRST_INFERENCE_OPSET = 7
"""Up to opset 6 BatchNormalization and Dropout train unless `is_test` is set."""


def infers(node: ir.Node) -> bool:
    """Whether a node of an early opset, if it is one, has its `is_test` flag set."""
    return bool(attr(node, "is_test", (opset(node) or FIRST_INFERENCE_OPSET) >= FIRST_INFERENCE_OPSET))


def _trains(node: ir.Node) -> bool:
    """Whether it may normalize by the batch: what says so changed with opsets 7 and 14."""
    return not is_off(node, "training_mode") or any(v.name for v in node.outputs[1:]) or not infers(node)


def _batchnorm_is_pure(node: ir.Node) -> bool:
    """From opset 14 on even in training, where the new statistics are outputs; before, they change in place."""
    return not _trains(node) or "training_mode" in node.attributes


def _soft_axes(node: ir.Node, rank: int) -> Iterable[int]:
    """One axis from opset 13 on; before, that one and all behind it."""
    if (opset(node) or PER_AXIS_OPSET) >= PER_AXIS_OPSET:
        return [attr(node, "axis", -1)]
    return range(attr(node, "axis", 1) % rank, rank)


def _per_channel(node: ir.Node, axes: Axes) -> None:
    """Axis 1 has a number for each channel in each further input."""
    (x, *rest) = node.inputs
    if x is None or len(axes.of(x)) == 1:
        return opaque(node, axes)
    given = axes.of(x)
    for value in rest:
        if value is not None:
            axes.tie(given[1], axes.of(value)[0])
    if node.op_type != "BatchNormalization" or _trains(node):
        for axis in (given[0], *given[2:]):
            axes.hold(axis, f"{node.op_type} works along it")
    for value in node.outputs:
        if len(axes.shape(value)) == len(given):
            axes.put(value, given)
        else:
            axes.put(value, [given[1]])
    return None


def _per_group(node: ir.Node, axes: Axes) -> None:
    """Whole groups of channels have statistics of their own."""
    x, scale, bias = node.inputs
    if x is None or scale is None or bias is None or axes.inner:
        return opaque(node, axes)
    given, groups = axes.of(x), attr(node, "num_groups", 1)
    ids = tie_all(axes, given[1].reshape(groups, -1))
    for value in (scale, bias):  # for each group up to opset 20, for each channel from 21 on
        (axis,) = axes.of(value)
        axes.tie(axis, np.repeat(ids, len(axis) // groups))
    for axis in given[2:]:
        axes.hold(axis, f"{node.op_type} works along it")
    return axes.put(node.outputs[0], given)


def _from_axis(node: ir.Node, rank: int) -> Iterable[int]:
    return range(attr(node, "axis", -1) % rank, rank)


SPECS = (
    OpSpec(
        op="BatchNormalization",
        summary="(X − mean) / sqrt(var + epsilon) · scale + B per channel; X: (N, C, …), the others (C,)",
        pure=_batchnorm_is_pure,
        admits=admit({4: Domain(0)}),
        flow=_per_channel,
    ),
    OpSpec(
        op="InstanceNormalization",
        summary="each channel of each sample to mean B and deviation scale; X: (N, C, …)",
        flow=_per_channel,
    ),
    OpSpec(
        op="GroupNormalization",
        summary="each group of channels of each sample normalized, then scale and bias; X: (N, C, …)",
        flow=_per_group,
        resize=grouped("num_groups"),
    ),
    *family(
        {
            "LayerNormalization": "all axes from `axis` on normalized, then Scale and B",
            "RMSNormalization": "all axes from `axis` on divided by their root mean square, then scale",
        },
        flow=along(_from_axis),
        factors=lambda node: range(1, len(node.inputs)),
    ),
    OpSpec(
        op="MeanVarianceNormalization",
        summary="(X − mean) / deviation over `axes`",
        flow=along(lambda node, rank: attr(node, "axes") or (0, *range(2, rank))),
    ),
    OpSpec(
        op="LpNormalization",
        summary="X divided by its p-norm along `axis`",
        flow=along(lambda node, _: [attr(node, "axis", -1)]),
    ),
    OpSpec(
        op="LRN",
        summary="X / (bias + alpha/size · sum of squares of neighbouring channels)^beta",
        flow=along(lambda _node, _rank: [1]),
    ),
    *family(
        {
            "Softmax": "exp(X) / sum of exp(X) along `axis` (all axes from `axis` on before opset 13)",
            "Hardmax": "one at the first maximum along `axis`, zero elsewhere",
        },
        flow=along(_soft_axes),
        positive="always",
    ),
    OpSpec(op="LogSoftmax", summary="log of Softmax", flow=along(_soft_axes)),
)
