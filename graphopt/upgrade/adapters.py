"""What changes from one opset of the standard domain to the next, operator by operator.

What changed in form or in meaning is here, with a function for each that brings a node from the version before into
this one, or says why it cannot. What did not is in `opsets`.

An adapter leaves the node where it is, with its name and its outputs; most make inputs of attributes. It checks first
and changes afterwards. Nothing is assumed of what a feed brings: where the meaning changed only for some values or
extents, they have to be known. All is BITWISE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.nodes import array, attr, input_at, static_shape
from graphopt.upgrade.site import Adapter, Site

__all__ = ["ADAPTERS"]


_HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, *_HALVES)
_NO_NEGATIVE_ZERO = (ir.DataType.FLOAT8E4M3FNUZ, ir.DataType.FLOAT8E5M2FNUZ)


def _set(node: ir.Node, name: str, value: Any) -> None:
    node.attributes.pop(name, None)
    for each in ir.convenience.convert_attributes({name: value}):
        node.attributes.add(each)


def _drop(node: ir.Node, *names: str) -> None:
    for name in names:
        node.attributes.pop(name, None)


def _read(node: ir.Node, inputs: Sequence[ir.Value | None]) -> None:
    """Let the node read `inputs`."""
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)


def _dtype(node: ir.Node, index: int = 0) -> ir.DataType | None:
    value = input_at(node, index)
    return None if value is None else value.dtype


def _ints(values: Sequence[int]) -> NDArray[np.int64]:
    return np.array(values, np.int64)


# -- attributes that became inputs -----------------------------------------------------------------------------------


def _axes(node: ir.Node, site: Site) -> str | None:
    """Squeeze and Unsqueeze 13: axes are an input."""
    axes = attr(node, "axes")
    if axes is not None and not len(axes):
        return "its list of axes is empty, which may mean all or none"
    if axes is not None:
        _drop(node, "axes")
        _read(node, [node.inputs[0], site.const(node, _ints(axes), "axes")])
    return None


def _reduced_axes(node: ir.Node, site: Site) -> str | None:
    """ReduceSum 13, other reductions 18: axes are an input. None of them is all of them, before and after."""
    axes = attr(node, "axes")
    _drop(node, "axes")
    if axes is not None and len(axes):
        _read(node, [node.inputs[0], site.const(node, _ints(axes), "axes")])
    return None


def _slice(node: ir.Node, site: Site) -> str | None:
    """Slice 10: starts, ends and axes are inputs."""
    names = ("starts", "ends", "axes") if attr(node, "axes") is not None else ("starts", "ends")
    bounds = [site.const(node, _ints(attr(node, name)), name) for name in names]
    _drop(node, *names)
    _read(node, [node.inputs[0], *bounds])
    return None


def _split(node: ir.Node, site: Site) -> str | None:
    """Split 13: extents are an input."""
    extents = attr(node, "split")
    if extents is not None:
        _drop(node, "split")
        _read(node, [node.inputs[0], site.const(node, _ints(extents), "split")])
    return None


def _split_evenly(node: ir.Node, _site: Site) -> str | None:
    """Split 18: without extents their number is said."""
    if input_at(node, 1) is None:
        _set(node, "num_outputs", len(node.outputs))
    return None


def _top(node: ir.Node, site: Site) -> str | None:
    """TopK 10: k is an input."""
    k = _ints([attr(node, "k")])
    _drop(node, "k")
    _read(node, [node.inputs[0], site.const(node, k, "k")])
    return None


def _clip(node: ir.Node, site: Site) -> str | None:
    """Clip 11: bounds are inputs. One that is left out is the end of the type's range, before and after."""
    dtype, given = _dtype(node), [attr(node, name) for name in ("min", "max")]
    if dtype not in _FLOATS:
        return "its type is not known"
    if dtype is ir.DataType.DOUBLE and None in given:
        return "a bound that is left out is that of single precision in the old form, and of double in the new one"
    bounds = [
        None if bound is None else site.const(node, np.array(bound, dtype.numpy()), name)
        for name, bound in zip(("min", "max"), given, strict=True)
    ]
    while bounds and bounds[-1] is None:
        bounds.pop()
    _drop(node, "min", "max")
    _read(node, [node.inputs[0], *bounds])
    return None


def _pad(node: ir.Node, site: Site) -> str | None:
    """Pad 11: widths and the value are inputs."""
    number, dtype = np.float32(attr(node, "value", 0.0)), _dtype(node)
    filled = attr(node, "mode", "constant") == "constant" and (number != 0 or np.signbit(number))
    if filled and dtype not in _FLOATS:
        return "its type is not known"
    inputs = [node.inputs[0], site.const(node, _ints(attr(node, "pads")), "pads")]
    if filled and dtype is not None:
        inputs.append(site.const(node, np.array(number, dtype.numpy()), "value"))
    _drop(node, "pads", "value")
    _read(node, inputs)
    return None


def _dropout(node: ir.Node, site: Site) -> str | None:
    """Dropout 12: the ratio is an input."""
    if _is_used(node, 1):
        return "its mask is used, and is ones only in the new form"
    ratio = attr(node, "ratio")
    if ratio is not None:
        _drop(node, "ratio")
        _read(node, [node.inputs[0], site.const(node, np.array(ratio, np.float32), "ratio")])
    return None


def _mask(node: ir.Node, _site: Site) -> str | None:
    """Dropout 10: the mask is boolean."""
    if _is_used(node, 1):
        return "its mask is used, and becomes boolean"
    for mask in node.outputs[1:]:
        mask.type = ir.TensorType(ir.DataType.BOOL)
    return None


def _is_used(node: ir.Node, index: int) -> bool:
    value = node.outputs[index] if index < len(node.outputs) else None
    return value is not None and (bool(value.uses()) or value.is_graph_output())


def _transform_axis(node: ir.Node, site: Site) -> str | None:
    """DFT 20: the axis is an input, and the last but one by default."""
    axis = np.array(attr(node, "axis", 1), np.int64)
    _drop(node, "axis")
    _read(node, [node.inputs[0], input_at(node, 1), site.const(node, axis, "axis")])
    return None


# -- other words for the same ----------------------------------------------------------------------------------------


def _scales(node: ir.Node, site: Site) -> str | None:
    """Upsample 9: scales are an input."""
    scales = np.array(attr(node, "scales"), np.float32)
    _drop(node, "scales")
    _read(node, [node.inputs[0], site.const(node, scales, "scales")])
    return None


def _upsample(node: ir.Node, site: Site) -> str | None:
    """Upsample 10: it is called Resize, and makes nothing smaller."""
    node.op_type = "Resize"
    site.enlarging.add(node)
    return None


def _resize(node: ir.Node, site: Site) -> str | None:
    """Resize 11: what it used to do has names. Which neighbour is the nearest was only clear where nothing shrinks."""
    scales, nearest = array(node.inputs[1]), attr(node, "mode", "nearest") == "nearest"
    enlarges = node in site.enlarging or (scales is not None and bool((scales >= 1).all()))
    if nearest and not enlarges:
        return "it may make something smaller, and which neighbour it takes then was not defined"
    _set(node, "coordinate_transformation_mode", "asymmetric")
    if nearest:
        _set(node, "nearest_mode", "floor")
    _read(node, [node.inputs[0], site.const(node, np.zeros(0, np.float32), "roi"), node.inputs[1]])
    return None


def _resize_to_sizes(node: ir.Node, _site: Site) -> str | None:
    """Resize 13: scales are left out where there are sizes; they were empty."""
    if attr(node, "coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        return "tf_half_pixel_for_nn does not exist any more"
    if input_at(node, 3) is not None:
        _read(node, [node.inputs[0], node.inputs[1], None, node.inputs[3]])
    return None


def _scatter(node: ir.Node, _site: Site) -> str | None:
    """Scatter 11: it is called ScatterElements."""
    node.op_type = "ScatterElements"
    return None


def _sample(node: ir.Node, _site: Site) -> str | None:
    """GridSample 20: modes have other names."""
    names = {"bilinear": "linear", "bicubic": "cubic"}
    mode = attr(node, "mode", "bilinear")
    _set(node, "mode", names.get(mode, mode))
    return None


def _regions(node: ir.Node, _site: Site) -> str | None:
    """RoiAlign 16: what it used to do is not the default any more."""
    _set(node, "coordinate_transformation_mode", "output_half_pixel")
    return None


def _spatial(node: ir.Node, _site: Site) -> str | None:
    """BatchNormalization 9: statistics are those of channels."""
    if not attr(node, "spatial", 1):
        return "it has statistics for each element, not for each channel"
    _drop(node, "spatial")
    return None


def _inference(node: ir.Node, _site: Site) -> str | None:
    """BatchNormalization 14: training is an attribute. It used to be told by further outputs."""
    if any(v.name for v in node.outputs[1:]):
        return "it is in training mode"
    node.resize_outputs(1)
    return None


def _flattened(node: ir.Node, site: Site) -> str | None:
    """Softmax, LogSoftmax and Hardmax 13: along one axis; used to be along all from this one on, as if they were one.

    The same where the axes behind have extent 1; else they are laid out as one, and put back.
    """
    x, axis = node.inputs[0], attr(node, "axis", 1)
    dims = list(x.shape) if x is not None and x.shape is not None else None
    if dims is not None and axis < 0:
        axis += len(dims)
    if axis == -1 or (dims is not None and axis == len(dims) - 1):
        _drop(node, "axis")
        return None
    if dims is not None and all(d == 1 for d in dims[axis + 1 :]):
        _set(node, "axis", axis)
        return None
    late = site.target >= _RESHAPE_ALLOWS_ZERO
    known = dims is not None and all(isinstance(d, int) and d for d in dims[min(axis, 1) :])
    if x is None or not (late or known):
        return "an extent may be 0, which Reshape cannot put back before opset 14"
    fixed = static_shape(x)
    back = site.before(node, "Shape", [x]) if fixed is None else site.const(node, _ints(fixed), "shape")
    _drop(node, "axis")
    _read(node, [site.before(node, "Flatten", [x], {"axis": axis})])
    site.after(node, "Reshape", [back], {"allowzero": 1} if late and not known else None)
    return None


# -- meanings that changed for some ----------------------------------------------------------------------------------


def _transposed_pads(node: ir.Node, _site: Site) -> str | None:
    """ConvTranspose 11: which side gets the larger half of an odd padding was said the other way round."""
    if attr(node, "auto_pad", "NOTSET") not in {"NOTSET", "VALID"} or attr(node, "output_shape"):
        return "its padding follows from the shape of its output, and is split otherwise in the new form"
    return None


def _last_window(node: ir.Node, _site: Site) -> str | None:
    """AveragePool and MaxPool 22: a window that would start in the padding at the end is left out.

    There is none where stride + padding at the end ≤ extent of the window, along every axis.
    """
    if not attr(node, "ceil_mode", 0):
        return None
    kernel = attr(node, "kernel_shape")
    steps, holes = attr(node, "strides") or [1] * len(kernel), attr(node, "dilations") or [1] * len(kernel)
    ends = (attr(node, "pads") or [0] * (2 * len(kernel)))[len(kernel) :]
    fits = all(s + p <= d * (k - 1) + 1 for s, p, d, k in zip(steps, ends, holes, kernel, strict=True))
    if attr(node, "auto_pad", "NOTSET") in {"NOTSET", "VALID"} and fits:
        return None
    return "a window may start in the padding at the end, and is left out in the new form"


def _indices(node: ir.Node, _site: Site) -> str | None:
    """OneHot 11: negative indices count from the end; they used to be nowhere."""
    indices, known = node.inputs[0], array(node.inputs[0])
    producer = None if indices is None else indices.producer()
    never = producer is not None and producer.op_identifier() in {("", "ArgMax", ""), ("", "ArgMin", "")}
    unsigned = indices is not None and indices.dtype is not None and indices.dtype.name.startswith("UINT")
    if never or unsigned or (known is not None and bool((known >= 0).all())):
        return None
    return "an index may be negative, and means another element in the new form"


def _floating(node: ir.Node, _site: Site) -> str | None:
    """Erf 13, ReduceLogSum and ReduceLogSumExp 28: not for integers any more."""
    return None if _dtype(node) in _FLOATS else "its type is not known to be a float, and the new form takes no other"


def _same_scale(node: ir.Node, _site: Site) -> str | None:
    """QuantizeLinear 19: value and scale have one type."""
    known = _dtype(node) is not None and _dtype(node) is _dtype(node, 1)
    return None if known else "its scale is not known to have the type of the value"


def _infinite(node: ir.Node, _site: Site) -> str | None:
    """Cast and CastLike 24: what infinity becomes in 8-bit floats that have none."""
    to = attr(node, "to") if node.op_type == "Cast" else _dtype(node, 1)
    known = to is not None and ir.DataType(to) not in _NO_NEGATIVE_ZERO
    return None if known else "infinity may become another number in the new form"


def _precise(node: ir.Node, _site: Site) -> str | None:
    """Range 27: half precision is counted in single precision."""
    known = _dtype(node) is not None and _dtype(node) not in _HALVES
    return None if known else "half precision is counted in single precision in the new form"


_RESHAPE_ALLOWS_ZERO = 14
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

ADAPTERS: Mapping[tuple[str, int], Adapter] = MappingProxyType(
    {
        ("AveragePool", 22): _last_window,
        ("BatchNormalization", 9): _spatial,
        ("BatchNormalization", 14): _inference,
        ("Cast", 24): _infinite,
        ("CastLike", 24): _infinite,
        ("Clip", 11): _clip,
        ("ConvTranspose", 11): _transposed_pads,
        ("DFT", 20): _transform_axis,
        ("Dropout", 10): _mask,
        ("Dropout", 12): _dropout,
        ("Erf", 13): _floating,
        ("GridSample", 20): _sample,
        ("Hardmax", 13): _flattened,
        ("LogSoftmax", 13): _flattened,
        ("MaxPool", 22): _last_window,
        ("OneHot", 11): _indices,
        ("Pad", 11): _pad,
        ("QuantizeLinear", 19): _same_scale,
        ("Range", 27): _precise,
        ("ReduceLogSum", 28): _floating,
        ("ReduceLogSumExp", 28): _floating,
        ("ReduceSum", 13): _reduced_axes,
        **{(f"Reduce{name}", 18): _reduced_axes for name in _REDUCTIONS},
        ("Resize", 11): _resize,
        ("Resize", 13): _resize_to_sizes,
        ("RoiAlign", 16): _regions,
        ("Scatter", 11): _scatter,
        ("Slice", 10): _slice,
        ("Softmax", 13): _flattened,
        ("Split", 13): _split,
        ("Split", 18): _split_evenly,
        ("Squeeze", 13): _axes,
        ("TopK", 10): _top,
        ("Unsqueeze", 13): _axes,
        ("Upsample", 9): _scales,
        ("Upsample", 10): _upsample,
    }
)
