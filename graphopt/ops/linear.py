"""A product with a constant weight, seen as a matrix whatever the operator is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.nodes import array, input_at

__all__ = ["Linear"]


@dataclass(frozen=True)
class Linear:
    """One `y = alpha·W·unfold(x) + beta·b` inside a node, W constant.

    The weight tensor has its output channels on axis `w_out` and its input channels on axis `w_in` (per group);
    the result has its channels on `y_axis` (negative counts from the end). Where `groups` > 1, axis `w_in` of Conv
    holds in/groups channels and axis `w_out` of ConvTranspose holds out/groups channels.
    """

    node: ir.Node
    weight: int
    """Index of the node's weight input."""
    bias: int | None
    """Index where the operator takes a bias, given or not; None where it has no such input."""
    w_out: int
    w_in: int
    y_axis: int
    unfolder: Callable[[Linear, NDArray[Any]], NDArray[Any]]
    x: int = 0
    """Index of the node's data input."""
    groups: int = 1
    alpha: float = 1.0
    beta: float = 1.0

    @property
    def weights(self) -> NDArray[Any]:
        """The weight tensor as the node reads it."""
        found = array(self.node.inputs[self.weight])
        if found is None:
            raise TypeError(f"the weight of {self.node.name!r} is not a constant")
        return found

    @property
    def bias_value(self) -> ir.Value | None:
        """The bias as a graph value; None where there is none."""
        return None if self.bias is None else input_at(self.node, self.bias)

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return self.weights.shape[self.w_out] * (self.groups if self.w_out > self.w_in else 1)
