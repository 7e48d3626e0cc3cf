"""Weights as entries of a table that all products share: vectors of some weights of a row, of 8 bits each.

    int8 table (256, n) ─► Cast ─► Gather ◄─ Cast ◄─ uint8 (out, columns/n)      n = 4: 2 bits for each weight
                        └─► Mul ◄─ scale ─► Reshape ─► Conv         folded by a runtime when it loads the model

This saves bytes, not time: what runs are the same floats as before.

The table is that of k-means (Lloyd, 1982) over all vectors, each row of weights scaled to the same power. Entries are
then chosen product by product, on what coded products before it really give, with H = E[x·xᵀ] + λ·m·I:

    in turn     w_b ← the entry c with least (w_b − s·c)ᵀ·M_b·(w_b − s·c), M_b = ([H⁻¹]_bb)⁻¹, H of columns to come:
                what it missed is made up for by those (van Baalen et al., GPTVQ, 2024)
    descent     the same for each vector again while all others stay, which only ever lowers the error
    scale       s = ⟨W, Z·H⟩ / ⟨Z, Z·H⟩ for each row, Z the entries
    W, bias     first refit to the original; see `round`
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Final, Self

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from graphopt import ops
from graphopt.analysis.frontier import Rows
from graphopt.compress.axis import NOTHING
from graphopt.compress.form import Form, Left
from graphopt.compress.refit import Goal, fit, times
from graphopt.compress.writer import Writer
from graphopt.errors import UsageError
from graphopt.graph.nodes import key

__all__ = ["ENTRIES", "LENGTHS", "Codebook", "Coded", "blank", "coded", "fitted", "table", "write"]

Array = NDArray[Any]
LENGTHS: Final = (1, 2, 3, 4, 6, 8, 9, 12)
"""Weights of one vector that are offered: 8, 4, 2 and 1 bits for each."""
ENTRIES: Final = 256
_TRAINED: Final = 60_000
"""Vectors that the table is found from, at most."""
_ROUNDS: Final = 20
_SWEEPS: Final = 6
_DAMPING: Final = 1e-2
_HIGHEST: Final = 127
_TINY: Final = float(np.finfo(np.float32).tiny)
_NODES: Final = 150
"""Bytes of the nodes and names of one product, about."""


@dataclass(frozen=True)
class Codebook(Form):
    """See the module's docstring."""

    name: ClassVar[str] = "codebook"
    summary: ClassVar[str] = "keep vectors of weights as numbers of entries of one table: a smaller file, as fast"

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
        """Whether the rows of a product are made of whole vectors."""
        return linear.groups == 1 and linear.reduction % self.length == 0

    def left(self, linear: ops.Linear) -> Left:
        """What is left of a product."""
        size = 4 * linear.channels * linear.reduction
        return Left(1.0, 1.0, 0.25 / self.length + (4 * linear.channels + _NODES) / size)


@dataclass(frozen=True, eq=False)
class Coded:
    """The weights of one product as entries of a table."""

    codes: Array
    """(out, vectors): uint8."""
    scale: Array
    """(out, 1): float32."""
    matrix: Array
    """(out, columns): what the product multiplies with."""


def table(matrices: Sequence[Array], length: int) -> Array:
    """(256, length): float32, the vectors that those of some products, (out, columns) each, are nearest to."""
    vectors = np.concatenate([(m / _power(m)).reshape(-1, length) for m in matrices])
    random = np.random.default_rng(0)
    some = vectors[np.sort(random.permutation(len(vectors))[:_TRAINED])]
    start = some[np.sort(random.permutation(len(some))[:ENTRIES])]
    start = np.concatenate([start, np.zeros((ENTRIES - len(start), length))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of entries that are nearest to nothing
        found, _ = kmeans2(some, start, iter=_ROUNDS, minit="matrix", missing="warn")
    return np.asarray(_unit(found) * np.rint(found / _unit(found)), np.float32)


def _unit(entries: Array) -> float:
    """What entries are multiples of; they are kept in 8 bits each."""
    return float(np.abs(entries).max()) / _HIGHEST or 1.0


def blank(linear: ops.Linear, length: int) -> Coded:
    """As large as what `coded` makes of a product, and no more."""
    out, columns = linear.channels, linear.reduction
    codes, scale = np.zeros((out, columns // length), np.uint8), np.ones((out, 1), np.float32)
    return Coded(codes, scale, np.broadcast_to(np.float64(0), (out, columns)))


def _power(matrix: Array) -> Array:
    """(out, 1): root mean squares of rows."""
    found: Array = np.sqrt(np.mean(np.square(matrix, dtype=np.float64), axis=1, keepdims=True)) + _TINY
    return found


def coded(matrix: Array, gram: Array, entries: Array, *, sweeps: int = _SWEEPS) -> Coded:
    """The entries of least error for a product.

    Args:
        matrix: (out, columns).
        gram: (columns, columns): H, positive definite.
        entries: (256, length).
        sweeps: of descent.
    """
    entries, scale, length = entries.astype(np.float64), _power(matrix), entries.shape[1]
    codes = _passed_on(matrix, gram, entries, scale)

    def made() -> Array:
        found: Array = (entries[codes] * scale[..., None]).reshape(matrix.shape)
        return found

    for _ in range(sweeps):
        plain = entries[codes].reshape(matrix.shape)
        image = plain @ gram
        above, below = (np.sum(image * m, axis=1, keepdims=True) for m in (matrix, plain))
        scale = np.where((above > 0) & (below > 0), above / np.maximum(below, _TINY), scale)
        now = made()
        slope, changed = (matrix - now) @ gram, False
        for vector, start in enumerate(range(0, matrix.shape[1], length)):
            at = slice(start, start + length)
            own = gram[at, at]
            wanted = now[:, at] + np.linalg.solve(own, slope[:, at].T).T
            new = _nearest(wanted, own, entries, scale)
            rows = np.flatnonzero(new != codes[:, vector])
            if rows.size:
                step = entries[new[rows]] * scale[rows] - now[rows, at]
                codes[rows, vector], changed = new[rows], True
                now[rows, at] += step
                slope[rows] -= step @ gram[at]
        if not changed:
            break
    return Coded(codes.astype(np.uint8), scale.astype(np.float32), made())


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
    gram = times(x, x)[0] / max(1, x.shape[-1])
    gram[np.diag_indices_from(gram)] += _DAMPING * np.trace(gram) / len(gram) + NOTHING
    made = coded(found.matrix[0], gram, entries)
    shift = (made.matrix @ rows.mean[0])[None]
    level = found.bias + (found.matrix @ rows.mean[..., None])[..., 0]
    levels = [level, *([goal.balanced(made.matrix[None], level, learned)] if biased else [])]
    after, best = min(((goal.error(made.matrix[None], each, judged), each) for each in levels), key=lambda e: e[0])
    return made, best - shift, found.before, after


def _nearest(vectors: Array, metric: Array, entries: Array, scale: Array) -> NDArray[np.intp]:
    """(out,): the entries c with least (v − s·c)ᵀ·M·(v − s·c)."""
    moved = entries @ metric
    size = np.sum(moved * entries, axis=1)
    return np.asarray(np.argmin(size * scale - 2 * (vectors @ moved.T), axis=1))


def _passed_on(matrix: Array, gram: Array, entries: Array, scale: Array) -> NDArray[np.intp]:
    """(out, vectors): entries in turn, those that matter most first; each makes up for what those before it missed."""
    length = entries.shape[1]
    count = matrix.shape[1] // length
    order = np.argsort(-np.diagonal(gram).reshape(count, length).sum(axis=1), kind="stable")
    columns = (order[:, None] * length + np.arange(length)).reshape(-1)
    inverse = np.linalg.inv(gram[np.ix_(columns, columns)])
    rest, codes = matrix[:, columns].astype(np.float64), np.empty((len(matrix), count), np.intp)
    for place, vector in enumerate(order):
        at, later = slice(place * length, (place + 1) * length), slice((place + 1) * length, None)
        metric = np.linalg.inv(inverse[at, at])
        codes[:, vector] = _nearest(rest[:, at], metric, entries, scale)
        share = metric @ inverse[at, later]
        rest[:, later] -= (rest[:, at] - entries[codes[:, vector]] * scale) @ share
        inverse[later, later] -= inverse[later, at] @ share
    return codes


def write(model: ir.Model, made: Mapping[str, Coded], tables: Mapping[int, Array]) -> None:
    """Write weights as entries of tables, in place; a bias stays as it is.

    Args:
        model: in it, the weights of these products are `Coded.matrix`, to rounding.
        made: by key.
        tables: by length.
    """
    writer, known = Writer(model), dict[Any, ir.Value]()
    for node in [n for n in model.graph if key(n) in made]:
        (linear,), one = ops.linears(node), made[key(node)]
        length = one.matrix.shape[1] // one.codes.shape[1]
        if length not in known:
            whole = writer.constant(f"table{length}", np.rint(tables[length] / _unit(tables[length])).astype(np.int8))
            cast = writer.node("Cast", [whole], "w", {"to": ir.DataType.FLOAT.value})
            model.graph.insert_before(node, cast)
            known[length] = cast.outputs[0]
        shape = (len(one.codes), linear.in_channels, *linear.kernel)
        if shape not in known:
            known[shape] = writer.constant("shape", np.array(shape, np.int64))
        scale = writer.constant("scale", (one.scale * _unit(tables[length]) / linear.alpha)[..., None])
        steps = [writer.node("Cast", [writer.constant("codes", one.codes)], "w", {"to": ir.DataType.INT32.value})]

        def then(kind: str, *inputs: ir.Value, steps: list[ir.Node] = steps, **attributes: Sequence[int]) -> None:
            steps.append(writer.node(kind, inputs, "w", attributes))

        then("Gather", known[length], steps[-1].outputs[0])
        then("Mul", steps[-1].outputs[0], scale)
        then("Reshape", steps[-1].outputs[0], known[shape])
        if linear.w_out:
            then("Transpose", steps[-1].outputs[0], perm=[1, 0, *range(2, len(shape))])
        weight = steps[-1].outputs[0]
        weight.shape, weight.type = ir.Shape(linear.weights.shape), ir.TensorType(ir.DataType.FLOAT)
        model.graph.insert_before(node, steps)
        writer.give(node, linear.weight, weight)
