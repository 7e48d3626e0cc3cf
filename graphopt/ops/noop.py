"""When a node's first output is one of its inputs, bit for bit, for every feed.

Conditions hold for NaN, infinities and negative zero: x + 0.0 is not x for x = -0.0, but x - 0.0 and x + (-0.0) are.
A broadcasting operator is a no-op only where the other operand provably does not widen the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from graphopt.graph.nodes import array, attr, input_at, rank, static_shape

__all__ = ["NOOPS", "adds_zeros", "noop", "same_shape"]

_FAR = 2**31 - 1
"""Exporters write INT32_MAX or INT64_MAX for "to the end"."""

Noop = Callable[[ir.Node], int | None]
"""Answers the index of the input that output 0 equals, or None."""


def same_shape(a: ir.Value | None, b: ir.Value | None) -> bool:
    """Whether two tensors provably have equal shapes: axis by axis the same number or the same symbol."""
    if a is None or b is None or a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return False
    return all(_same_dim(x, y) for x, y in zip(a.shape, b.shape, strict=True))


def _same_dim(x: int | ir.SymbolicDim, y: int | ir.SymbolicDim) -> bool:
    if isinstance(x, ir.SymbolicDim):
        return isinstance(y, ir.SymbolicDim) and x.value is not None and x.value == y.value
    return x == y


def _always(_node: ir.Node) -> int | None:
    return 0


def _single(node: ir.Node) -> int | None:
    return 0 if len(node.inputs) == 1 else None


def _neutral(left: float | None, right: float | None) -> Noop:
    """A binary operator with a neutral element on its left, right or either side (None: that side has none)."""

    def holds(node: ir.Node) -> int | None:
        for kept, other, neutral in ((0, 1, right), (1, 0, left)):
            if neutral is None:
                continue
            x, c = node.inputs[kept], node.inputs[other]
            contents = array(c)
            if contents is None or x is None or c is None or contents.dtype.kind not in "fiub":
                continue
            if _is(contents, neutral) and _within(c, x):
                return kept
        return None

    return holds


def adds_zeros(node: ir.Node) -> int | None:
    """The input of an Add or Sub of floats that the output equals but for the sign of zeros: the other is all zeros."""
    for kept, other in ((0, 1), (1, 0))[: 2 if node.op_type == "Add" else 1]:
        x, c = node.inputs[kept], node.inputs[other]
        contents = array(c)
        floats = contents is not None and contents.dtype.kind == "f" and contents.size
        if x is not None and c is not None and floats and not np.any(contents) and _within(c, x):
            return kept
    return None


def _is(contents: np.ndarray, neutral: float) -> bool:
    """All elements equal, and of equal sign where the neutral element is a zero of floats."""
    if not np.all(contents == neutral):
        return False
    signed = contents.dtype.kind == "f" and neutral == 0
    return not signed or bool(np.all(np.signbit(contents) == np.signbit(neutral)))


def _within(c: ir.Value, x: ir.Value) -> bool:
    """Broadcasting `c` against `x` leaves the shape of `x` as it is."""
    if x.shape is None or c.shape is None or len(c.shape) > len(x.shape):
        return False
    aligned = list(x.shape)[len(x.shape) - len(c.shape) :]
    return all(d == 1 or (isinstance(e, int) and d == e) for d, e in zip(c.shape, aligned, strict=True))


def _cast(node: ir.Node) -> int | None:
    x = node.inputs[0]
    return 0 if x is not None and x.dtype is not None and x.dtype.value == attr(node, "to") else None


def _cast_like(node: ir.Node) -> int | None:
    x, like = node.inputs
    return 0 if x is not None and like is not None and x.dtype is not None and x.dtype == like.dtype else None


def _dropout(node: ir.Node) -> int | None:
    """In inference mode, which is what being pure means for it; the mask must not be read."""
    masked = len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output())
    return None if masked else 0


def _transpose(node: ir.Node) -> int | None:
    x = node.inputs[0]
    axes = rank(x)
    perm = attr(node, "perm")
    if perm is None:
        return 0 if axes is not None and axes <= 1 else None
    return 0 if list(perm) == list(range(len(perm))) else None


def _reshape(node: ir.Node) -> int | None:
    """Elements keep their order, so equal shapes mean equal tensors. One open axis is settled by the element count."""
    x, y = node.inputs[0], node.outputs[0]
    if x is None or x.shape is None or y.shape is None or len(x.shape) != len(y.shape):
        return None
    pairs = list(zip(x.shape, y.shape, strict=True))
    differing = [pair for pair in pairs if not _same_dim(*pair)]
    if not differing:
        return 0
    open_axis = len(differing) == 1 and not all(isinstance(d, int) for d in differing[0])
    others = all(isinstance(d, int) and d > 0 for d, e in pairs if _same_dim(d, e))
    return 0 if open_axis and others else None


def _flatten(node: ir.Node) -> int | None:
    return 0 if rank(node.inputs[0]) == 2 and attr(node, "axis", 1) in {1, -1} else None  # noqa: PLR2004


def _expand(node: ir.Node) -> int | None:
    x, target = node.inputs[0], array(node.inputs[1])
    if same_shape(x, node.outputs[0]):
        return 0
    axes = rank(x)
    return 0 if target is not None and axes is not None and target.size <= axes and np.all(target == 1) else None


def _tile(node: ir.Node) -> int | None:
    repeats = array(node.inputs[1])
    return 0 if repeats is not None and repeats.ndim == 1 and np.all(repeats == 1) else None


def _pad(node: ir.Node) -> int | None:
    given = attr(node, "pads") or attr(node, "paddings")
    pads = np.asarray(given) if given is not None else array(input_at(node, 1))
    return 0 if pads is not None and not np.any(pads) else None


def _slice(node: ir.Node) -> int | None:
    x = node.inputs[0]
    if "starts" in node.attributes:
        starts, ends, axes = attr(node, "starts"), attr(node, "ends"), attr(node, "axes")
        steps = None
    else:
        found = [array(input_at(node, i)) for i in range(1, 5)]
        if found[0] is None or found[1] is None or any(found[i] is None and input_at(node, i + 1) for i in (2, 3)):
            return None
        starts, ends, axes, steps = (None if a is None else a.reshape(-1).tolist() for a in found)
    if starts is None or ends is None or len(starts) != len(ends) or len(ends) != len(ends if axes is None else axes):
        return None
    if any(starts) or (steps is not None and any(s != 1 for s in steps)):
        return None
    dims = x.shape if x is not None else None
    for position, end in enumerate(ends):
        axis = axes[position] if axes is not None else position
        dim = dims[axis] if dims is not None and -len(dims) <= axis < len(dims) else None
        if end < _FAR and not (isinstance(dim, int) and end >= dim):
            return None
    return 0


def _clip(node: ir.Node) -> int | None:
    """Integers without bounds. Without bounds, floats are clipped to the largest ones, which infinities exceed."""
    x, bounds = node.inputs[0], [v for v in node.inputs[1:] if v is not None]
    return 0 if x is not None and x.dtype is not None and x.dtype.is_integer() and not bounds else None


def _where(node: ir.Node) -> int | None:
    """A side that is always taken. Not of floats: onnxruntime's Where turns -0.0 into 0.0."""
    x = node.inputs[1]
    if x is None or x.dtype is None or x.dtype.is_floating_point():
        return None
    condition = array(node.inputs[0])
    if condition is None or not condition.size:
        return None
    chosen = 1 if condition.all() else 2 if not condition.any() else None
    return chosen if chosen and same_shape(node.inputs[chosen], node.outputs[0]) else None


def _one_output(node: ir.Node) -> int | None:
    return (
        0
        if len(node.outputs) == 1
        and static_shape(node.outputs[0]) is not None
        and same_shape(node.inputs[0], node.outputs[0])
        else None
    )


def _block_of_one(node: ir.Node) -> int | None:
    return 0 if attr(node, "blocksize") == 1 else None


NOOPS: Mapping[str, Noop] = MappingProxyType(
    {
        "Add": _neutral(-0.0, -0.0),
        "And": _neutral(1, 1),
        "Cast": _cast,
        "CastLike": _cast_like,
        "Clip": _clip,
        "Concat": _single,
        "DepthToSpace": _block_of_one,
        "Div": _neutral(None, 1),
        "Dropout": _dropout,
        "Expand": _expand,
        "Flatten": _flatten,
        "Identity": _always,
        "Max": _single,
        "Mean": _single,
        "Min": _single,
        "Mul": _neutral(1, 1),
        "Or": _neutral(0, 0),
        "Pad": _pad,
        "Pow": _neutral(None, 1),
        "Reshape": _reshape,
        "Slice": _slice,
        "SpaceToDepth": _block_of_one,
        "Split": _one_output,
        "Squeeze": _reshape,
        "Sub": _neutral(None, 0.0),
        "Sum": _single,
        "Tile": _tile,
        "Transpose": _transpose,
        "Unsqueeze": _reshape,
        "Where": _where,
        "Xor": _neutral(0, 0),
    }
)


def noop(node: ir.Node) -> int | None:
    """The index of the input that the node's first output equals, if there is one. It need not be pure."""
    found = None if node.domain else NOOPS.get(node.op_type)
    return None if found is None else found(node)
