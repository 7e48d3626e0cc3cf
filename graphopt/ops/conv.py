"""Convolutions. X: (N, C, spatial…), Y: (N, M, spatial…); https://onnx.ai/onnx/operators/onnx__Conv.html."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.nodes import attr, input_at, is_constant
from graphopt.ops.flow import Axes, opaque, tie_all
from graphopt.ops.linear import Linear, Part, Positions, Unfolder, is_weight
from graphopt.ops.resize import grouped
from graphopt.ops.spec import OpSpec, ShapeOf

__all__ = ["SPECS"]

SPATIAL = 2
"""The first spatial axis."""


def _linear(w_out: int, unfolder: Unfolder) -> Callable[[ir.Node], tuple[Linear, ...]]:
    """`linears` of a convolution whose weight has its output channels on axis `w_out`: 0, or 1 if it is transposed.

    A transposed one counts as padded: where strides leave gaps, and at borders, fewer products are summed.
    """

    def linears(node: ir.Node) -> tuple[Linear, ...]:
        bias = input_at(node, 2)
        if not is_weight(input_at(node, 1)) or not (bias is None or is_constant(bias)):
            return ()
        groups, axes = attr(node, "group", 1), {"w_out": w_out, "w_in": 1 - w_out, "y_axis": 1}
        spelled = attr(node, "auto_pad", "NOTSET") == "NOTSET" and attr(node, "output_shape") is None
        adjoint = _adjoint if spelled else None
        padded = bool(w_out) or _is_padded(node)
        parter = _part if groups == 1 and not w_out else None
        return (
            Linear(
                node,
                weight=1,
                bias=2,
                **axes,
                unfolder=unfolder,
                groups=groups,
                adjoint=adjoint,
                padded=padded,
                parter=parter,
            ),
        )

    return linears


def _adjoint(
    linear: Linear, r: ir.Value, weight: ir.Value, data: tuple[int, ...], result: tuple[int, ...]
) -> list[ir.Node]:
    """ConvTranspose of the same weight, and the other way round; what the padding cannot say fills up the end."""
    node = linear.node
    kept = {n: a.value for n, a in node.attributes.items() if n in {"strides", "dilations", "group", "kernel_shape"}}
    kernel, count = linear.weights.shape[SPATIAL:], len(data) - SPATIAL
    strides, dilations = _per_axis(node, "strides", count, 1), _per_axis(node, "dilations", count, 1)
    pads = list(_per_axis(node, "pads", 2 * count, 0))
    if node.op_type == "Conv":
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        least = [(n - 1) * s + w for n, s, w in zip(result[SPATIAL:], strides, spans, strict=True)]
        rest = [n - (m - pads[i] - pads[count + i]) for i, (n, m) in enumerate(zip(data[SPATIAL:], least, strict=True))]
        return [ir.node("ConvTranspose", [r, weight], kept | {"pads": pads, "output_padding": rest})]
    return [ir.node("Conv", [r, weight], kept | {"pads": pads})]


def _part(linear: Linear, axes: frozenset[int], groups: int) -> Part:
    """Strides, dilations and pads go with their axes: what one reads as padding would be zero in the other as well."""
    node, kernel = linear.node, linear.kernel
    count = len(kernel)

    def along(name: str, default: int) -> list[int]:
        given = _per_axis(node, name, count * (2 if name == "pads" else 1), default)
        return [value if i % count in axes else default for i, value in enumerate(given)]

    spanned, strides = [k if i in axes else 1 for i, k in enumerate(kernel)], along("strides", 1)
    pads = along("pads", 0) if attr(node, "auto_pad", "NOTSET") == "NOTSET" else None
    attributes = {"kernel_shape": spanned, "strides": strides, "dilations": along("dilations", 1), "pads": pads}
    return Part(attributes | {"group": groups if groups > 1 else None}, tuple(spanned), prod(strides))


def _per_axis(node: ir.Node, name: str, count: int, default: int) -> Sequence[int]:
    return attr(node, name) or [default] * count


def _is_padded(node: ir.Node) -> bool:
    """Whether a Conv may read beyond its input."""
    mode = attr(node, "auto_pad", "NOTSET")
    return mode.startswith("SAME") or (mode == "NOTSET" and any(attr(node, "pads") or ()))


def _reads(node: ir.Node, axis: int, count: int, size: int, kernel: int) -> NDArray[np.intp]:
    """Which input position each output position of a Conv reads: (kernel, output), `size` standing for padding."""
    stride = _per_axis(node, "strides", count, 1)[axis]
    offsets = np.arange(kernel) * _per_axis(node, "dilations", count, 1)[axis]
    span, mode = int(offsets[-1]) + 1, attr(node, "auto_pad", "NOTSET")
    if mode in {"SAME_UPPER", "SAME_LOWER"}:
        total = max((-(-size // stride) - 1) * stride + span - size, 0)
        begin = total - total // 2 if mode == "SAME_LOWER" else total // 2
    else:
        pads = [0] * 2 * count if mode == "VALID" else _per_axis(node, "pads", 2 * count, 0)
        begin, total = pads[axis], pads[axis] + pads[axis + count]
    starts = np.arange((size + total - span) // stride + 1) * stride - begin
    found = offsets[:, None] + starts
    return np.where((found >= 0) & (found < size), found, size)


def _reads_transposed(node: ir.Node, axis: int, count: int, size: int, kernel: int) -> NDArray[np.intp]:
    """As `_reads`, for a ConvTranspose: the input position that reaches an output position through a kernel offset."""
    stride = _per_axis(node, "strides", count, 1)[axis]
    offsets = np.arange(kernel) * _per_axis(node, "dilations", count, 1)[axis]
    mode, shape = attr(node, "auto_pad", "NOTSET"), attr(node, "output_shape")
    full = (size - 1) * stride + int(offsets[-1]) + 1 + _per_axis(node, "output_padding", count, 0)[axis]
    if shape or mode in {"SAME_UPPER", "SAME_LOWER"}:
        total = max(full - (shape[axis - count] if shape else size * stride), 0)
        begin = total // 2 if mode == "SAME_UPPER" else total - total // 2
    else:
        pads = [0] * 2 * count if mode == "VALID" else _per_axis(node, "pads", 2 * count, 0)
        begin, total = pads[axis], pads[axis] + pads[axis + count]
    found, rest = np.divmod(np.arange(full - total) + begin - offsets[:, None], stride)
    return np.where((rest == 0) & (found >= 0) & (found < size), found, size)


def _unfolder(reads: Callable[[ir.Node, int, int, int, int], NDArray[np.intp]]) -> Unfolder:
    def unfold(linear: Linear, x: NDArray[Any], positions: Positions) -> NDArray[Any]:
        """(N, C, spatial…) to (groups, C/groups·kernel, N·output positions)."""
        kernel = linear.weights.shape[SPATIAL:]
        count = len(kernel)
        found = [reads(linear.node, i, count, x.shape[SPATIAL + i], k) for i, k in enumerate(kernel)]
        columns = _everywhere(x, found) if positions is None else _gathered(x, found, positions)
        return columns.reshape(linear.groups, x.shape[1] * prod(kernel) // linear.groups, -1)

    return unfold


def _everywhere(x: NDArray[Any], reads: Sequence[NDArray[np.intp]]) -> NDArray[Any]:
    """(C, kernel…, N, output…): what each kernel offset reads at each output position."""
    for i, found in enumerate(reads):  # each spatial axis becomes two: offset in the kernel, position in the output
        axis = SPATIAL + 2 * i
        zero = np.zeros_like(x, shape=(*x.shape[:axis], 1, *x.shape[axis + 1 :]))
        x = np.take(np.concatenate([x, zero], axis), found, axis)
    return x.transpose(1, *range(SPATIAL, x.ndim, 2), 0, *range(SPATIAL + 1, x.ndim, 2))


def _gathered(x: NDArray[Any], reads: Sequence[NDArray[np.intp]], positions: NDArray[np.intp]) -> NDArray[Any]:
    """(C, kernel…, positions): the same for some of the output positions, numbered over all of N."""
    kernel, output = zip(*(found.shape for found in reads), strict=True)
    sample, *places = np.unravel_index(positions, (len(x), *output))
    columns = np.zeros((x.shape[1], *kernel, len(positions)), x.dtype)
    for offset in np.ndindex(*kernel) if x.size else ():
        at = [found[o][place] for found, o, place in zip(reads, offset, places, strict=True)]
        inside = np.all([a < size for a, size in zip(at, x.shape[SPATIAL:], strict=True)], axis=0)
        at = [np.where(inside, a, 0) for a in at]
        columns[(slice(None), *offset)] = np.where(inside, x[(sample, slice(None), *at)].T, 0)
    return columns


def _macs(weight: int) -> Callable[[ir.Node, ShapeOf], int | None]:
    """One product per output element and weight of its channel; products with padding count, as everywhere."""

    def macs(node: ir.Node, shape: ShapeOf) -> int | None:
        y, w = shape(node.outputs[0]), shape(input_at(node, weight))
        return None if y is None or w is None else prod(y) * prod(w[1:])

    return macs


def _macs_transposed(node: ir.Node, shape: ShapeOf) -> int | None:
    """One product per input element and weight of its channel, whether or not the result is cropped away."""
    x, w = shape(node.inputs[0]), shape(node.inputs[1])
    return None if x is None or w is None else prod(x) * prod(w[1:])


def _flow(node: ir.Node, axes: Axes) -> None:
    """Input channels belong to axis `w_in` of the weight, output channels to axis `w_out`, `w_out` of Conv being 0.

    With groups, blocks of input channels make blocks of output channels: of a depthwise one each channel its own; of
    others the channels at one place in all blocks live or die together, or else whole blocks do.
    """
    x, w, bias = node.inputs[0], node.inputs[1], input_at(node, 2)
    if x is None or w is None:
        return opaque(node, axes)
    given, weight, groups = axes.of(x), axes.of(w), attr(node, "group", 1)
    transposed = node.op_type == "ConvTranspose"
    for axis in given[SPATIAL:]:
        axes.hold(axis, f"{node.op_type} works along it")
    source, (outer, inside) = given[1], weight[:SPATIAL]
    blocks = not axes.inner or len(source) == groups  # whether they live or die as a whole
    if groups > 1 and blocks:
        ids = tie_all(axes, source.reshape(groups, -1))
        axes.hold(inside, "all blocks have the same number of channels")
        axes.tie(outer, np.repeat(ids, len(outer) // groups))
        result = np.repeat(ids, len(inside)) if transposed else outer
    elif transposed:
        axes.tie(outer, source)
        tie_all(axes, source.reshape(groups, -1).T)
        result = np.tile(inside, groups)
    else:
        axes.tie(inside, tie_all(axes, source.reshape(groups, -1).T))
        tie_all(axes, outer.reshape(groups, -1).T)
        result = outer
    if bias is not None:
        axes.tie(axes.of(bias)[0], result)
    spatial = axes.shape(node.outputs[0])[SPATIAL:]
    axes.put(node.outputs[0], [given[0], result, *(axes.held(n, f"{node.op_type} makes it") for n in spatial)])
    return axes.product(node, source, result, index=0, weight=1, diagonal=groups > 1 and blocks)


SPECS = (
    OpSpec(
        op="Conv",
        summary="Y = W ⋆ X + B; W: (M, C/group, kernel…), B: (M,)",
        linears=_linear(0, _unfolder(_reads)),
        macs=_macs(1),
        flow=_flow,
        resize=grouped("group"),
    ),
    OpSpec(
        op="ConvTranspose",
        summary="the transpose of Conv; W: (C, M/group, kernel…), B: (M,)",
        linears=_linear(1, _unfolder(_reads_transposed)),
        macs=_macs_transposed,
        flow=_flow,
        resize=grouped("group"),
    ),
    OpSpec(op="DeformConv", summary="Conv whose reading positions are moved by an input, offset", macs=_macs(1)),
    OpSpec(op="ConvInteger", summary="Conv of 8-bit integers, minus zero points, into int32", macs=_macs(1)),
    OpSpec(op="QLinearConv", summary="Conv of quantized tensors into a quantized tensor; w is input 3", macs=_macs(3)),
    OpSpec(
        op="CausalConvWithState",
        summary="depthwise causal Conv along time that keeps its last inputs; X: (N, C, L), W: (C, 1, K)",
        macs=_macs(1),
    ),
    OpSpec(op="Col2Im", summary="adds overlapping columns up into an image, the transpose of unfold"),
)
