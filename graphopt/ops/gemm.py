"""Matrix products."""

from __future__ import annotations

from math import prod
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.nodes import attr, input_at, is_constant, rank, static_shape
from graphopt.ops.flow import Axes, Axis, opaque
from graphopt.ops.linear import Linear, Part, Positions, is_weight
from graphopt.ops.spec import OpSpec, ShapeOf

__all__ = ["SPECS"]

MATRIX = 2
"""The rank of one."""


def _unfold(_linear: Linear, x: NDArray[Any], positions: Positions) -> NDArray[Any]:
    """(…, K) to (1, K, rows)."""
    rows = x.reshape(-1, x.shape[-1])
    return (rows if positions is None else rows[positions]).T[None]


def _is_row(value: ir.Value | None, width: int) -> bool:
    """Whether `value` is a constant that is the same for every row of a matrix of this width, or is left out."""
    if value is None:
        return True
    shape = static_shape(value)
    if shape is None or not is_constant(value):
        return False
    return len(shape) <= MATRIX and prod(shape) == (shape or (1,))[-1] and prod(shape) in {1, width}


def _adjoint(
    linear: Linear, r: ir.Value, weight: ir.Value, _data: tuple[int, ...], _result: tuple[int, ...]
) -> list[ir.Node]:
    """The product with the transposed matrix."""
    if linear.w_out == 0:
        return [ir.node("MatMul", [r, weight])]
    turned = ir.node("Transpose", [weight], {"perm": [1, 0]})
    return [turned, ir.node("MatMul", [r, turned.outputs[0]])]


def _part(_linear: Linear, _axes: frozenset[int], _groups: int) -> Part:
    return Part({})


def _gemm(node: ir.Node) -> tuple[Linear, ...]:
    weight, transposed = input_at(node, 1), bool(attr(node, "transB", 0))
    shape = static_shape(weight)
    if attr(node, "transA", 0) or not is_weight(weight) or shape is None:
        return ()
    if not _is_row(input_at(node, 2), shape[0 if transposed else 1]):
        return ()
    return (
        Linear(
            node,
            weight=1,
            bias=2,
            w_out=0 if transposed else 1,
            w_in=1 if transposed else 0,
            y_axis=1,
            unfolder=_unfold,
            alpha=attr(node, "alpha", 1.0),
            beta=attr(node, "beta", 1.0),
            adjoint=_adjoint,
            parter=_part,
        ),
    )


def _matmul(node: ir.Node) -> tuple[Linear, ...]:
    if not is_weight(input_at(node, 1)) or rank(node.inputs[1]) != MATRIX:
        return ()
    return (
        Linear(
            node,
            weight=1,
            bias=None,
            w_out=1,
            w_in=0,
            y_axis=-1,
            unfolder=_unfold,
            adjoint=_adjoint,
            parter=_part,
        ),
    )


def _product(node: ir.Node, shape: ShapeOf) -> int | None:
    """Each output element sums over the last axis of the left operand."""
    a, y = shape(node.inputs[0]), shape(node.outputs[0])
    return None if not a or y is None else prod(y) * a[-1]


def _gemm_macs(node: ir.Node, shape: ShapeOf) -> int | None:
    a, y = shape(node.inputs[0]), shape(node.outputs[0])
    return None if not a or y is None else prod(y) * a[0 if attr(node, "transA", 0) else 1]


def _einsum_macs(node: ir.Node, shape: ShapeOf) -> int | None:
    """The product of the extents of all indices: what one loop over them multiplies and adds."""
    if len(node.inputs) < 2:  # noqa: PLR2004 - nothing is multiplied
        return 0
    extents: dict[str | int, int] = {}
    terms = attr(node, "equation", "").replace(" ", "").split("->")[0].split(",")
    for value, term in zip(node.inputs, terms, strict=False):
        found = shape(value)
        if found is None:
            return None
        head, dots, tail = term.partition("...")
        broadcast = range(len(head) + len(tail) - len(found), 0) if dots else ()  # axes under "...", from the right
        for index, size in zip((*head, *broadcast, *tail), found, strict=False):
            extents[index] = max(size, extents.get(index, 1)) if size else 0
    return prod(extents.values())


def _gemm_flow(node: ir.Node, axes: Axes) -> None:
    """Rows of A', columns of B', and what both sum over."""
    a, b, c = node.inputs[0], node.inputs[1], input_at(node, 2)
    if a is None or b is None:
        return opaque(node, axes)
    row, source = axes.of(a)[:: -1 if attr(node, "transA", 0) else 1]
    other, column = axes.of(b)[:: -1 if attr(node, "transB", 0) else 1]
    axes.tie(source, other)
    result = [row, column]
    if c is not None:
        for place, axis in enumerate(reversed(axes.of(c)), 1):
            if len(axis) == len(result[-place]):
                axes.tie(result[-place], axis)
            else:
                axes.hold(axis, "Gemm broadcasts it")
    axes.put(node.outputs[0], result)
    return axes.product(node, source, column, index=0, weight=1)


def _matmul_flow(node: ir.Node, axes: Axes) -> None:
    """As Gemm, for each index of the axes before, which belong together."""
    a, b, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if a is None or b is None or min(len(axes.of(a)), len(axes.of(b))) < MATRIX:
        return opaque(node, axes)
    (*few, row, source), (*many, other, column) = axes.of(a), axes.of(b)
    axes.tie(source, other)
    batch: list[Axis] = []
    for place, extent in enumerate(reversed(axes.shape(y)[:-MATRIX]), 1):
        here = [rest[-place] for rest in (few, many) if place <= len(rest)]
        for axis in here:
            if len(axis) != extent:
                axes.hold(axis, "MatMul broadcasts it")
        full = [axis for axis in here if len(axis) == extent]
        for axis in full[1:]:
            axes.tie(full[0], axis)
        batch.insert(0, full[0])
    axes.put(y, [*batch, row, column])
    if is_constant(a) and not is_constant(b):
        return axes.product(node, source, row, weight=0, batch=batch[-1] if batch and few else None)
    return axes.product(node, source, column, index=0, weight=1, batch=batch[-1] if batch and many else None)


def _einsum_flow(node: ir.Node, axes: Axes) -> None:
    """Each letter is an axis of all that has it. Two operands may be summed over one letter that both have."""
    terms, arrow, out = attr(node, "equation", "").replace(" ", "").partition("->")
    (first, second), values = (*terms.split(","), "", "")[:2], [v for v in node.inputs if v is not None]
    summed = [letter for letter in first if letter not in out]
    strange = "." in terms or any(len(set(t)) < len(t) for t in (first, second, out)) or len(summed) > 1
    if not arrow or strange or set(summed) != set(second) - set(out) or terms != f"{first},{second}":
        return opaque(node, axes)
    ids: dict[str, Axis] = {}
    for value, term in zip(values, (first, second), strict=True):
        for letter, axis in zip(term, axes.of(value), strict=True):
            if len(axis) == len(ids.setdefault(letter, axis)):
                axes.tie(ids[letter], axis)
            else:
                return opaque(node, axes)
    axes.put(node.outputs[0], [ids[letter] for letter in out])
    own = [letter for letter in (first if is_constant(values[0]) else second) if letter in out]
    result = next((i for i in reversed(own) if (i in first) != (i in second)), "")
    batch = next((i for i in reversed(out) if i in first and i in second), "")
    if summed and result:
        weight = next((i for i, v in enumerate(values) if is_constant(v)), None)
        axes.product(node, ids[summed[0]], ids[result], weight=weight, batch=ids.get(batch))
    return None


SPECS = (
    OpSpec(
        op="Gemm",
        summary="Y = alpha·A'·B' + beta·C; A': (M, K), B': (K, N), C broadcasts to (M, N)",
        linears=_gemm,
        macs=_gemm_macs,
        sums=lambda node: (2,) if input_at(node, 2) is not None else (),
        flow=_gemm_flow,
    ),
    OpSpec(
        op="MatMul",
        summary="Y = A·B over the last two axes; (…, M, K)·(…, K, N)",
        linears=_matmul,
        macs=_product,
        flow=_matmul_flow,
    ),
    OpSpec(op="MatMulInteger", summary="MatMul of 8-bit integers, minus zero points, into int32", macs=_product),
    OpSpec(op="QLinearMatMul", summary="MatMul of quantized tensors into a quantized tensor", macs=_product),
    OpSpec(
        op="Einsum", summary="sums of products by an equation over named axes", macs=_einsum_macs, flow=_einsum_flow
    ),
    OpSpec(op="Det", summary="determinants of square matrices; (…, M, M) to (…)"),
)
