"""A recurrent layer in a dense graph and in a compressed copy: what its gates read at each step, on both sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.places import sampled
from graphopt.analysis.segments import FOLD, Walk, differs
from graphopt.ops.gate import DATA, LENGTHS, STATE, before

__all__ = ["Layer", "Steps"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Steps:
    """One side of a recurrent layer at some steps of all samples, those of samples held back last."""

    x: Array
    """(rows, inputs)."""
    begin: Array
    """(directions, rows, units): the states that the steps begin with."""
    end: Array
    """(directions, rows, units): those that they end with."""
    fitted: int
    """So many rows come before those held back."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A recurrent layer of the compressed graph, when the frontier stands before it."""

    key: str
    node: ir.Node
    """In the compressed graph."""
    dense: ir.Node
    drifted: bool
    """Whether what it reads differs from what it is on the dense side."""
    sides: tuple[Walk, Walk] = field(repr=False)
    """The compressed one, and the dense one."""
    sizes: Sequence[int]
    """How many samples each batch holds."""
    hold: Callable[[ir.Node, int, Array], None] = field(repr=False)

    @property
    def intact(self) -> bool:
        """Whether nothing has changed here yet: the same weights, and the same data."""
        return not self.drifted and not differs(self.node, self.dense)

    def put(self, gates: ops.Gates, matrix: Array, bias: Array) -> None:
        """Give gates of the compressed layer other weights."""
        for index, contents in gates.contents(matrix, bias).items():
            self.hold(self.node, index, contents)

    def steps(self, rows: int, *, dense: bool = False) -> Steps:
        """What happens at about `rows` steps, the same number of each sample, the same ones on both sides."""
        node, walk = (self.dense if dense else self.node), self.sides[dense]
        share, first = -(-rows // sum(self.sizes)), 0
        found: list[list[Array]] = [[], [], [], []]
        given = [walk.given(node, index) for index in (DATA, STATE, LENGTHS)]
        for x, initial, lengths, y, count in zip(*given, walk.first_output(node), self.sizes, strict=True):
            begin, there = before(node, y, initial, lengths)
            at = sampled(first, count, there.size, share)
            at = np.arange(there.size) if at is None else at
            at = at[there.T.reshape(-1)[at]]
            sample, step = np.divmod(at, len(there))
            held = (first + at * count // there.size) % FOLD == FOLD - 1
            pieces = x[step, sample], begin[step, :, sample], y[step, :, sample], held
            for into, piece in zip(found, pieces, strict=True):
                into.append(piece)
            first += count
        held = np.concatenate(found.pop())
        order = np.argsort(held, kind="stable")
        x, begin, end = (np.concatenate(pieces)[order].astype(np.float32) for pieces in found)
        return Steps(x, begin.swapaxes(0, 1), end.swapaxes(0, 1), int(np.sum(~held)))
