"""What a model computes on a GPU, summed up there, so that only small tensors come back.

Values stay where they were computed (`Tap.held`) and go through small graphs of their own, which depend neither on the
opset of the model nor on its shapes. Each of them is made for one element type, and fed shapes, positions and the sums
so far; these stay there as well, until somebody reads them.

Unfolding moves elements and treats all channels alike: a row of the unfolded data is a few whole positions of it, all
channels of each. A table of so many numbers is all that goes in (`patches`); it comes of the unfolder of the operator
itself, so that rows are the very same as on the CPU. Histograms take two steps: extremes settle how wide bins are.

Sums are those of the CPU but for the order in which they are made; histograms are the same, bit by bit: minima, maxima,
products with powers of two and what Cast cuts off are exact, and counts are whole numbers. They are added as doubles:
where it adds, CUDA's ScatterElements takes any four bytes for a float, and small integers are 0 then (onnxruntime,
issue 32061). NaN and infinities make the difference of a value with itself NaN; only then it is brought back whole.

All operators below have kernels in onnxruntime's CUDA provider for the types that they have here, as the list in its
docs/OperatorKernels.md says, and the names of kernels in the library of 1.31.1: Cast, Reshape, Transpose, Gather
and Concat for any; Pad, MatMul, ReduceSum, ReduceSumSquare, ReduceMin, ReduceMax, Sub, Mul and Equal for float
and double; Add and Where for int32 as well; and ScatterElements adds doubles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import ldexp, prod
from typing import Any, Final, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.graph.parts import part
from graphopt.ops.linear import Positions
from graphopt.run.machine import HERE, Machine
from graphopt.run.session import Feed, Held, Session, held

__all__ = ["Inside", "Tap", "extents", "patches"]

Array = NDArray[Any]

_TABLE: Final = """
    whole = Reshape <allowzero = 1> (x, dims)
    turned = Transpose <perm = [0, 2, 1]> (whole)
    table = Reshape <allowzero = 1> (turned, wide)
    known = Cast <to = {kind}> (table)
    padded = Pad (known, border)
    taken = Gather (padded, at)
"""
"""The data as (positions, channels) with zeros behind it, which −1 stands for, and of these the ones in question."""

_HEAD: Final = '<ir_version: 8, opset_import: ["" : 18]> inside'

_MOMENTS: Final = (
    _HEAD
    + """ ({given}[] x, int64[3] dims, int64[2] wide, int32[R, K] at, int64[4] blocks, int64[3] columns,
        double[G, D] mean, {sums}[] gram) => (double[G, D] mean_, {sums}[] gram_)
    <int64[4] border = {{0, 0, 1, 0}}, int64[1] last = {{2}}> {{"""
    + _TABLE
    + """
    grouped = Reshape <allowzero = 1> (taken, blocks)
    moved = Transpose <perm = [2, 3, 1, 0]> (grouped)
    rows = Reshape <allowzero = 1> (moved, columns)
    exact = Cast <to = 11> (rows)
    summed = ReduceSum <keepdims = 0> (exact, last)
    mean_ = Add (mean, summed)
    {gather}
    }}"""
)
_GATHER: Final = {
    "full": """
    left = Cast <to = {to}> (rows)
    right = Transpose <perm = [0, 2, 1]> (left)
    product = MatMul (left, right)
    gram_ = Add (gram, product)
    """,
    "rows": "gram_ = Cast <to = {to}> (rows)",
    "diagonal": """
    squares = ReduceSumSquare <keepdims = 0> (exact, last)
    gram_ = Add (gram, squares)
    """,
}
_SQUARES: Final = (
    _HEAD
    + """ ({given}[] x, int64[3] dims, int64[2] wide, int32[R] at, double[2, C] seen) => (double[2, C] seen_)
    <int64[4] border = {{0, 0, 1, 0}}, int64[1] first = {{0}}> {{"""
    + _TABLE
    + """
    exact = Cast <to = 11> (taken)
    once = ReduceSum (exact, first)
    twice = ReduceSumSquare (exact, first)
    both = Concat <axis = 0> (once, twice)
    seen_ = Add (seen, both)
    }}"""
)
_ENDS: Final = (
    _HEAD
    + """ ({given}[] x, int64[3] dims) => ({type}[S] low, {type}[S] high, {type} spoiled)
    <int64[2] others = {{0, 2}}> {{
    parts = Reshape (x, dims)
    known = Cast <to = {kind}> (parts)
    low = ReduceMin <keepdims = 0> (known, others)
    high = ReduceMax <keepdims = 0> (known, others)
    nothing = Sub (known, known)
    spoiled = ReduceSum <keepdims = 0> (nothing)
    }}"""
)
_COUNTS: Final = (
    _HEAD
    + """ ({given}[] x, {type} scale) => (int32[L] counts)
    <int64[1] flat = {{-1}}, {type} zero = {{0}}, int32 middle = {{{middle}}}, int32 end = {{{end}}},
        int64[1] length = {{{length}}}> {{
    line = Reshape (x, flat)
    known = Cast <to = {kind}> (line)
    scaled = Mul (known, scale)
    cut = Cast <to = 6> (scaled)
    moved = Add (cut, middle)
    none = Equal (known, zero)
    bin = Where (none, end, moved)
    same = Equal (known, known)
    ones = Cast <to = 11> (same)
    nothing = ConstantOfShape <value = double[1] {{0}}> (length)
    added = ScatterElements <axis = 0, reduction = "add"> (nothing, bin, ones)
    counts = Cast <to = 6> (added)
    }}"""
)

_READ: Final = _HEAD + " ({given}[] x) => ({type}[] y) {{ y = Cast <to = {kind}> (x) }}"


class Tap:
    """Runs what computes some values of the main graph.

    Args:
        model: is not changed.
        values: names; inputs may be among them.
        machine: where to run.
    """

    def __init__(self, model: ir.Model, values: Iterable[str], machine: Machine = HERE) -> None:
        inputs = [str(v.name) for v in model.graph.inputs]
        self._values = list(dict.fromkeys(values))
        self._inner = [n for n in self._values if n not in inputs]
        self._session = machine.session(part(model, inputs, self._inner)) if self._inner else None

    @property
    def remote(self) -> bool:
        """Whether the values are computed where they are better summed up than read."""
        session = self._session
        return session is not None and session.remote and all(p.kind == "tensor" for p in session.inputs)

    def __call__(self, feed: Feed) -> Mapping[str, Any]:
        """The values beside what was fed."""
        return feed if self._session is None else feed | self._session.run(self._needed(self._session, feed))

    def held(self, feed: Feed) -> dict[str, Held]:
        """The values alone, which stay where they are."""
        given = {n: held(feed[n]) for n in self._values if n not in self._inner}
        if self._session is None:
            return given
        return given | self._session.hold(self._needed(self._session, feed), self._inner)

    @staticmethod
    def _needed(session: Session, feed: Feed) -> Feed:
        names = {p.name for p in (*session.inputs, *session.overridable)}
        return {n: v for n, v in feed.items() if n in names}


def patches(linear: ops.Linear, shape: Iterable[int], positions: Positions) -> NDArray[np.int32]:
    """Which positions of its data a product reads for each row: (rows, kernel), −1 for padding.

    Positions are numbered over all axes of the data but that of the channels; each stands for all channels there.

    Args:
        linear: the product.
        shape: of its data.
        positions: the rows in question.
    """
    dims = list(shape)
    dims[linear.y_axis] = 1
    numbers = np.arange(1, prod(dims) + 1).reshape(dims)
    (found,) = replace(linear, groups=1).unfold(numbers, positions)
    return np.ascontiguousarray(found.T - 1, np.int32)


class Inside:
    """Sums up values where they are; the graphs for that are made once for each element type.

    Args:
        machine: where the values were computed.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._sessions: dict[str, Session] = {}

    def moments(
        self,
        kind: Literal["full", "rows", "diagonal"],
        linear: ops.Linear,
        x: Held,
        positions: Positions,
        sums: tuple[Held, Held],
    ) -> tuple[int, Held, Held]:
        """What `Linear.unfold` gives, summed over rows.

        Args:
            kind: see `Moment`.
            linear: what reads x.
            x: its data.
            positions: the rows in question.
            sums: of rows so far, (groups, d), and of their products, (groups, d, d), or squares, (groups, d); of the
                latter nothing but the type counts where the rows are wanted.

        Returns:
            How many rows there are, and both sums, or instead of the second one the rows: (groups, d, rows).
        """
        at = patches(linear, x.shape(), positions)
        (rows, kernel), groups = at.shape, linear.groups
        table, channels = _table(x, linear.y_axis)
        shapes = {
            "blocks": np.array([rows, kernel, groups, channels // groups]),
            "columns": np.array([groups, channels // groups * kernel, rows]),
        }
        mean, gram = sums
        gather = _GATHER[kind].format(to=1 if _type(gram) == "float" else 11)
        text = _text(_MOMENTS, x, gather=gather, sums=_type(gram))
        found = self._run(text, {"x": x, "at": at, "mean": mean, "gram": gram} | table | shapes, "mean_", "gram_")
        return rows, *found

    def squares(self, y: Held, axis: int, positions: Array, seen: Held) -> Held:
        """Sums over some positions of a value, and of its squares: (2, channels).

        Args:
            y: the value.
            axis: that of its channels.
            positions: their numbers over all other axes.
            seen: the sums so far.
        """
        table, _ = _table(y, axis)
        at = positions.astype(np.int32)
        (found,) = self._run(_text(_SQUARES, y), {"x": y, "at": at, "seen": seen} | table, "seen_")
        return found

    def ends(self, x: Held, dims: tuple[int, int, int]) -> tuple[list[float], list[float]] | None:
        """The least and the largest element of each sample; None where some are not finite.

        Args:
            x: it has elements.
            dims: its extents, where it is seen as (before, samples, behind).
        """
        found = self._run(_text(_ENDS, x), {"x": x, "dims": np.array(dims)}, "low", "high", "spoiled")
        low, high, spoiled = (v.numpy() for v in found)
        return (low.tolist(), high.tolist()) if np.isfinite(spoiled) else None

    def counts(self, x: Held, exponent: int, side: int) -> NDArray[np.int32]:
        """How many elements are in each bin of a histogram, and how many are zero, which are in none: (2·side,).

        Args:
            x: finite.
            exponent: bins are 2^exponent wide.
            side: bins on either side of 0.
        """
        text = _text(_COUNTS, x, middle=side - 1, end=2 * side - 1, length=2 * side)
        scale = np.array(ldexp(1.0, -exponent), _float(x))
        (found,) = self._run(text, {"x": x, "scale": scale}, "counts")
        return np.asarray(found.numpy())

    def read(self, x: Held) -> Array:
        """The whole of it, as floats."""
        (found,) = self._run(_text(_READ, x), {"x": x}, "y")
        return np.asarray(found.numpy())

    def _run(self, text: str, feed: Mapping[str, Any], *outputs: str) -> list[Held]:
        if text not in self._sessions:
            self._sessions[text] = self._machine.session(ir.from_onnx_text(text))
        return list(self._sessions[text].hold(feed, outputs).values())


def extents(value: Array | Held) -> tuple[int, ...]:
    """The shape of a value, wherever it is."""
    return value.shape if isinstance(value, np.ndarray) else tuple(value.shape())


def _table(x: Held, axis: int) -> tuple[dict[str, Array], int]:
    """The shapes that make a table of a value, and how many channels it has."""
    shape = x.shape()
    axis %= len(shape)
    before, channels, behind = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    return {"dims": np.array([before, channels, behind]), "wide": np.array([before * behind, channels])}, channels


def _text(graph: str, x: Held, **said: Any) -> str:
    """A graph for the element type of a value."""
    double = _float(x) == np.float64
    types = {"given": _type(x), "type": "double" if double else "float", "kind": 11 if double else 1}
    return graph.format(**types, **said)


def _type(x: Held) -> str:
    """Of the elements, as ONNX calls it."""
    return str(x.data_type()).removeprefix("tensor(").removesuffix(")")


def _float(x: Held) -> np.dtype[Any]:
    """What holds the elements exactly, as far as anything does."""
    return np.dtype(np.float32 if _type(x) in {"float", "float16", "bfloat16"} else np.float64)
