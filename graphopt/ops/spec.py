"""The form of an entry in the operator table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from graphopt.graph.values import Domain
from graphopt.ops.linear import Linear

__all__ = ["OpSpec", "ShapeOf"]

ShapeOf = Callable[[ir.Value | None], tuple[int, ...] | None]
"""Answers the concrete shape of a value under the binding of symbolic dimensions at hand; None if unknown or absent."""


def _no_linears(_node: ir.Node) -> tuple[Linear, ...]:
    return ()


def _no_macs(_node: ir.Node, _shape: ShapeOf) -> int | None:
    return 0


def _anything(_node: ir.Node, _index: int) -> Domain | None:
    return None


def _always(_node: ir.Node) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class OpSpec:
    """Everything graphopt knows about one operator. Every pass is a generic algorithm over these facts.

    A fact left at its default is the careful answer for an operator without weights; what may differ between two
    uses of one operator (an attribute, a missing input) is a function of the node.
    """

    op: str
    domain: str = ""
    summary: str
    """One line: what it computes, with the shapes where they matter."""

    pure: Callable[[ir.Node], bool] = _always
    """Same inputs, same outputs, every time. What is not pure is never folded, merged, moved or duplicated.
    Bodies of control flow are judged by `ops.is_pure`, not here."""

    foldable: bool = True
    """May be evaluated ahead of time on constants. False where the constant form is the point (quantized weights)."""

    commutes: bool = False
    """The order of its inputs does not matter."""

    linears: Callable[[ir.Node], tuple[Linear, ...]] = _no_linears
    """The products with constant weights inside the node, each as y = W·unfold(x) + b."""

    macs: Callable[[ir.Node, ShapeOf], int | None] = _no_macs
    """Multiply-accumulates of one run at concrete shapes; None if a needed shape is unknown. Elementwise work,
    normalization, pooling and data movement count zero, as is usual in the field."""

    admits: Callable[[ir.Node, int], Domain | None] = _anything
    """The values input `index` may take, where not every value makes sense (indices, lengths, masks)."""

    carries: tuple[int, ...] = ()
    """Inputs whose elements reappear unchanged in output 0, so that what its readers accept holds for these inputs."""
