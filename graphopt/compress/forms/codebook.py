"""Weights as entries of a table that all products share: vectors of some weights of a row, of 8 bits each.

    int8 table (256, n) ─► Cast ─► Gather ◄─ Cast ◄─ uint8 (out, columns/n)      n = 4: 2 bits for each weight
                        └─► Mul ◄─ scale ─► Reshape ─► Conv         folded by a runtime when it loads the model

This saves bytes, not time: what runs are the same floats as before. Entries are chosen product by product, by what the
coded products before it really give; before that, weights and biases are refit to what the original does. See
`vectors` for how.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Final, Self

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.frontier import Rows
from graphopt.compress.axis import damp
from graphopt.compress.forms.form import Form, Left
from graphopt.compress.forms.vectors import ENTRIES, Coded, blocks, coded, unit
from graphopt.compress.refit import Goal, fit, times
from graphopt.compress.writer import Writer
from graphopt.errors import UsageError
from graphopt.graph.nodes import key

__all__ = ["LENGTHS", "Codebook", "blank", "damped", "fitted", "write"]

Array = NDArray[Any]
LENGTHS: Final = (1, 2, 3, 4, 6, 8, 9, 12)
"""Weights of one vector that are offered: 8 bits for each and fewer, 9 as in most kernels."""
_DAMPING: Final = 1e-2
_FEW_ROWS: Final = 10
_SLICE_READS: Final = 10
"""The opset from which on Slice reads where to begin and end."""
_NODES: Final = 150
"""Bytes of the nodes and names of one product, about."""


@dataclass(frozen=True)
class Codebook(Form):
    """See the module's docstring.

    Measured: models/digits_resnet.onnx has 10 % of its bytes, and an accuracy of 99.4 % in place of 99.6 %; with all
    lossless passes before, digits_vit.onnx has 13 %.
    """

    name: ClassVar[str] = "codebook"
    summary: ClassVar[str] = "keep vectors of weights as numbers of entries of one table: a smaller file, as fast"
    pays: ClassVar[str] = "in bytes, on any target"

    length: int = 4
    """Weights of one vector."""

    def __post_init__(self) -> None:
        """Insist on a number.

        Raises:
            UsageError: it is none.
        """
        if not 0 < self.length <= ENTRIES:
            raise UsageError(f"codebook{{length={self.length}}} is no length: give a number from 1 to {ENTRIES}")

    @classmethod
    def offered(cls, linear: ops.Linear) -> Iterator[Sequence[Self]]:
        """See `Form`."""
        for length in LENGTHS:
            if cls(length).suits(linear):
                yield [cls(length)]

    def suits(self, linear: ops.Linear) -> bool:
        """Whether the rows of a product have at least one vector."""
        return linear.groups == 1 and linear.reduction >= self.length

    def left(self, linear: ops.Linear) -> Left:
        """What is left of a product."""
        size = linear.weights.dtype.itemsize * linear.channels * linear.reduction
        codes = linear.channels * -(-linear.reduction // self.length)
        return Left(1.0, 1.0, (codes + 4 * linear.channels + _NODES) / size)


def blank(linear: ops.Linear, length: int) -> Coded:
    """As large as what `coded` makes of a product, and no more."""
    out, columns = linear.channels, linear.reduction
    codes, scale = np.zeros((out, -(-columns // length)), np.uint8), np.ones((out, 1), np.float32)
    return Coded(codes, scale, np.broadcast_to(np.float64(0), (out, columns)), length)


def fitted(
    rows: Rows, matrix: Array, bias: Array, entries: Array, *, bounds: tuple[float, float] = (-inf, inf), biased: bool
) -> tuple[Coded, Array, float, float]:
    """A product as entries of a table, its bias, and its error on rows held back, before and after.

    Args:
        rows: what it reads and should give, finite.
        matrix: (1, out, columns): the weights that it has.
        bias: (1, out): the bias that it has.
        entries: (256, length).
        bounds: where what follows clips, once `rows.base` is added.
        biased: whether there is a place for a bias.
    """
    found, goal = fit(rows, matrix, bias, bounds=bounds, biased=biased), Goal(rows, bounds)
    learned = slice(rows.fitted or None)
    judged = slice(rows.fitted, None) if rows.fitted < rows.x.shape[-1] else learned
    x = rows.x[..., learned]
    damping = damped(x.shape[1], x.shape[2])
    grams = [_gram(x[:, at], damping) for at in blocks(x.shape[1], entries.shape[1])]
    made = coded(found.matrix[0], grams, entries)
    shift = (made.matrix @ rows.mean[0])[None]
    level = found.bias + (found.matrix @ rows.mean[..., None])[..., 0]
    levels = [level, *([goal.balanced(made.matrix[None], level, learned)] if biased else [])]
    after, best = min(((goal.error(made.matrix[None], each, judged), each) for each in levels), key=lambda e: e[0])
    return made, best - shift, found.before, after


def damped(columns: int, rows: int) -> float:
    """λ for what some rows say of so many columns: where rows are few, errors must not go where these do not look."""
    return _DAMPING * (1 + _FEW_ROWS * columns / max(1, rows))


def _gram(x: Array, damping: float) -> Array:
    gram: Array = times(x, x)[0] / max(1, x.shape[-1])
    return damp(gram, damping)


def write(model: ir.Model, made: Mapping[str, Coded], tables: Mapping[int, Array]) -> None:
    """Write weights as entries of tables, in place; a bias stays as it is.

    Args:
        model: in it, the weights of these products are `Coded.matrix`, to rounding.
        made: by key.
        tables: by length.
    """
    writer, known, lists = Writer(model), dict[int, ir.Value](), dict[tuple[int, ...], ir.Value]()

    def numbers(*some: int) -> ir.Value:
        if some not in lists:
            lists[some] = writer.constant("numbers", np.array(some, np.int64))
        return lists[some]

    for node in [n for n in model.graph if key(n) in made]:
        (linear,), one = ops.linears(node), made[key(node)]
        length, width = one.length, one.matrix.shape[1]
        if length not in known:
            whole = writer.constant(f"table{length}", np.rint(tables[length] / unit(tables[length])).astype(np.int8))
            cast = writer.node("Cast", [whole], "w", {"to": ir.DataType.FLOAT.value})
            model.graph.insert_before(node, cast)
            known[length] = cast.outputs[0]
        scale = writer.constant("scale", (one.scale * unit(tables[length]) / linear.alpha)[..., None])
        steps = [writer.node("Cast", [writer.constant("codes", one.codes)], "w", {"to": ir.DataType.INT32.value})]

        def then(kind: str, *inputs: ir.Value, steps: list[ir.Node] = steps, **attributes: int | Sequence[int]) -> None:
            steps.append(writer.node(kind, inputs, "w", attributes))

        then("Gather", known[length], steps[-1].outputs[0])
        then("Mul", steps[-1].outputs[0], scale)
        kind = linear.weights.dtype
        if kind != np.float32:
            then("Cast", steps[-1].outputs[0], to=ir.DataType.from_numpy(kind).value)
        if one.codes.shape[1] * length != width:
            then("Reshape", steps[-1].outputs[0], numbers(len(one.codes), -1))
            if model.graph.opset_imports[""] < _SLICE_READS:
                then("Slice", steps[-1].outputs[0], starts=[0], ends=[width], axes=[1])
            else:
                then("Slice", steps[-1].outputs[0], numbers(0), numbers(width), numbers(1))
        then("Reshape", steps[-1].outputs[0], numbers(len(one.codes), linear.in_channels, *linear.kernel))
        if linear.w_out:
            then("Transpose", steps[-1].outputs[0], perm=[1, 0, *range(2, linear.weights.ndim)])
        weight = steps[-1].outputs[0]
        weight.shape, weight.type = ir.Shape(linear.weights.shape), ir.TensorType(ir.DataType.from_numpy(kind))
        model.graph.insert_before(node, steps)
        writer.give(node, linear.weight, weight)
