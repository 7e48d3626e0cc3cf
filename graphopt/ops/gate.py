"""What a recurrent layer multiplies at each step, seen as matrices that sum over its data and its own state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.nodes import array, attr, input_at
from graphopt.ops.linear import is_weight

__all__ = ["DATA", "LENGTHS", "OF_DATA", "OF_STATE", "RECURRENCE", "STATE", "WEIGHT", "Gates", "before", "is_plain"]

DATA, WEIGHT, RECURRENCE, BIAS, LENGTHS, STATE = range(6)
"""Inputs of recurrent layers."""
OF_DATA, OF_STATE = -1, -2
"""Numbers of their products, W·x and R·h, among those that channels are cut from (`Axes.product`)."""
Array = NDArray[Any]


@dataclass(frozen=True)
class Gates:
    """`g = W·x + R·(r ∘ h) + b` for some gates, in all directions; h is the state that a step begins with.

    W: (directions, gates·units, inputs), R: (directions, gates·units, units), both constants. What peepholes add, and
    the functions behind, are no part of it.
    """

    node: ir.Node
    first: int
    """Number of the first of its gates."""
    count: int
    weights: tuple[int, ...] = (WEIGHT, RECURRENCE)
    """Which of W and R are there, each with its half of the bias."""
    reset: Gates | None = None
    """The gate whose sigmoid is r; without one, r is 1."""

    def matrix(self) -> NDArray[np.float64]:
        """(directions, count·units, columns): W and R side by side, as far as they are there."""
        found = [self._given(index)[:, self._rows] for index in self.weights]
        return np.concatenate(found, axis=2, dtype=np.float64)

    def bias(self) -> NDArray[np.float64]:
        """(directions, count·units)."""
        return np.asarray(self._biases()[:, self._halves, self._rows].sum(axis=1, dtype=np.float64))

    def columns(self, x: Array, h: Array) -> Array:
        """What the matrix is multiplied with: (directions, columns, rows).

        Args:
            x: (rows, inputs).
            h: (directions, rows, units).
        """
        if self.reset is not None:
            h = (1 + np.tanh(self.reset.values(x, h).transpose(0, 2, 1) / 2)) / 2 * h
        sides = {WEIGHT: np.broadcast_to(x, (len(h), *x.shape)), RECURRENCE: h}
        return np.concatenate([sides[index] for index in self.weights], axis=2).transpose(0, 2, 1)

    def values(self, x: Array, h: Array) -> Array:
        """g, (directions, count·units, rows), for the arguments of `columns`."""
        return np.asarray(self.matrix().astype(x.dtype) @ self.columns(x, h) + self.bias()[..., None].astype(x.dtype))

    def contents(self, matrix: Array, bias: Array) -> dict[int, Array]:
        """The inputs of the node that hold another matrix and bias, by index; shaped as the methods answer."""
        found = {index: self._given(index).copy() for index in self.weights}
        ends = np.cumsum([held.shape[2] for held in found.values()])[:-1]
        for held, part in zip(found.values(), np.split(matrix, ends, axis=2), strict=True):
            held[:, self._rows] = part
        halves = self._biases().copy()
        halves[:, self._halves, self._rows] = 0
        halves[:, self._halves.start, self._rows] = bias
        return found | {BIAS: halves.reshape(len(halves), -1)}

    @property
    def _halves(self) -> slice:
        return slice(self.weights[0] - WEIGHT, self.weights[-1] - WEIGHT + 1)

    @property
    def _rows(self) -> slice:
        units = self._given(RECURRENCE).shape[2]
        return slice(self.first * units, (self.first + self.count) * units)

    def _given(self, index: int) -> Array:
        found = array(self.node.inputs[index])
        if found is None:
            raise TypeError(f"input {index} of {self.node.name!r} is not a constant")
        return found

    def _biases(self) -> Array:
        """(directions, 2, gates·units)."""
        recurrence, found = self._given(RECURRENCE), array(input_at(self.node, BIAS))
        zeros = np.zeros((len(recurrence), 2, recurrence.shape[1]), recurrence.dtype)
        return zeros if found is None else found.reshape(zeros.shape)


def is_plain(node: ir.Node) -> bool:
    """Whether its weights are constants that nothing else reads, and steps are the first axis of its data."""
    weights, bias = node.inputs[WEIGHT : RECURRENCE + 1], input_at(node, BIAS)
    own = all(is_weight(value) and len(value.uses()) == 1 for value in weights if value is not None)
    return own and (bias is None or is_weight(bias)) and not attr(node, "layout", 0)


def before(node: ir.Node, y: Array, initial: Array | None, lengths: Array | None) -> tuple[Array, NDArray[np.bool_]]:
    """The states that steps begin with, like y, and which steps there are: (steps, samples).

    Args:
        node: a recurrent layer.
        y: (steps, directions, samples, units): the states that steps end with.
        initial: (directions, samples, units); zeros where it is None.
        lengths: (samples,): of the sequences; all steps where it is None.
    """
    steps, directions, samples, _ = y.shape
    ends = np.full(samples, steps) if lengths is None else lengths
    found, start = np.roll(y, 1, axis=0), np.zeros_like(y[0]) if initial is None else initial
    found[0] = start
    for d in range(attr(node, "direction", "forward") != "reverse", directions):  # these go backwards
        found[:-1, d] = y[1:, d]
        found[ends - 1, d, np.arange(samples)] = start[d]
    return found, np.arange(steps)[:, None] < ends
