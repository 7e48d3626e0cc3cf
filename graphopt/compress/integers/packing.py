"""Matrices whose weights become integers while data stays as it is, or becomes integers when the model runs.

    tables ─► one product after the other, in topological order ─► written as the target wants it

Products are rounded as when all is quantized (`round`): so that the result is off least, on what those before them
really give, and on data as it will be then. A table whose rows are looked up has a scale for each row, by which rows
are multiplied once they are read:

    Gather(table, i)  ─►  Gather(int8, i) ─ Cast ─┐
                          Gather(scales, i) ──────┴─ Mul
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Container
from dataclasses import dataclass, replace
from math import inf, log10
from typing import ClassVar, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.frontier import Frontier
from graphopt.analysis.segments import Samples
from graphopt.compress.integers.quantize import PART, ROWS
from graphopt.compress.integers.round import EIGHT, Rounded, rounded
from graphopt.compress.integers.steps import Steps
from graphopt.compress.refit import row_count
from graphopt.compress.writer import Writer
from graphopt.graph import values
from graphopt.graph.nodes import array, is_constant, key, readers
from graphopt.graph.record import Exactness
from graphopt.protocol import Named
from graphopt.run.machine import HERE, Machine
from graphopt.targets import Target

__all__ = ["Package", "Packed", "Packing", "packed", "table_bytes"]

_FEW: Final = 4096
"""Elements of a table that stays as it is."""
_ROWS: Final = 4096
"""Of a table that are rounded at once."""


@dataclass(frozen=True)
class Package:
    """What became of one product or table."""

    key: str
    """Of the product, or of the first node that looks rows up."""
    form: str
    """How it is written now; else why it stays as it is."""
    way: str
    """How it was rounded; empty where it was not."""
    weights: int
    before: int
    """Bytes of them."""
    after: int
    error: float
    """On samples held back, as a part of what the original's values vary; of a table, of its own values. 0 where it
    stays as it is."""

    @property
    def decibels(self) -> float:
        """Signal over error; inf where there is none."""
        return -10 * log10(self.error) if self.error > 0 else inf


@dataclass(frozen=True, eq=False)
class Packed:
    """A model with packed matrices, and how it came about."""

    model: ir.Model
    packages: tuple[Package, ...]
    seconds: float

    @property
    def count(self) -> int:
        """How many matrices are packed."""
        return sum(bool(p.way) for p in self.packages)


@dataclass(frozen=True)
class Packing(Named):
    """One form of integer weights."""

    exactness: ClassVar[Exactness] = Exactness.LOSSY
    kept: ClassVar[bool] = True
    """Whether passes may look at what is written once more; else it is emitted as it is, since runtimes look for it."""

    tables: bool = True
    """Whether tables whose rows are looked up (embeddings) become 8-bit integers as well."""

    @abstractmethod
    def opset(self, target: Target) -> int:
        """Of standard ONNX, from which on it can be written for a target."""

    @abstractmethod
    def steps(self, target: Target) -> Steps:
        """Which numbers weights may be."""

    def left(self, linear: ops.Linear) -> str:
        """Why a product stays as it is; empty where it does not."""
        if linear.kernel or linear.groups > 1:
            return "it is no product with a matrix"
        return "" if linear.weights.dtype == np.float32 else "its weights are not in single precision"

    @abstractmethod
    def form(self) -> str:
        """What a product is called that is written so."""

    @abstractmethod
    def bytes(self, out: int, columns: int) -> int:
        """What the weights of a product take that is written so."""

    def prepare(self, writer: Writer, linear: ops.Linear) -> None:
        """Let a product read data as it will, before weights are rounded by that."""

    @abstractmethod
    def write(self, writer: Writer, linear: ops.Linear, made: Rounded, target: Target) -> None:
        """Write a product so, in place."""


def table_bytes(rows: int, width: int) -> int:
    """What a table takes as 8-bit integers."""
    return rows * (width + 4)


def packed(
    model: ir.Model,
    form: Packing,
    samples: Samples,
    target: Target,
    machine: Machine = HERE,
    *,
    skip: Container[str] = (),
) -> Packed:
    """A copy of a model with packed matrices. A weight that several nodes read stays as it is.

    Args:
        model: canonical; it is not changed.
        form: how matrices are packed.
        samples: what weights are rounded by, in an order that does not depend on how it was given.
        target: where it is to run.
        machine: where to run, and what values between products, and the rows of one, may take.
        skip: keys of nodes that are left as they are.
    """
    begin, copy = time.perf_counter(), model.clone()
    tables = _tables(copy, skip) if form.tables else []
    told, made = [_rounded(t, machine) for t in tables], dict[str, Rounded]()
    writer = Writer(copy)
    for node in list(copy.graph):
        for linear in ops.linears(node):
            if key(node) not in skip and not form.left(linear):
                form.prepare(writer, linear)
    apart = replace(machine, integers=False, memory=machine.memory // PART)
    for site in Frontier(model, copy, samples, apart, pairs=False):
        linear = site.linear
        out, columns = linear.channels, linear.reduction
        reason = "it is skipped" if site.key in skip else form.left(linear)
        size = out * columns * linear.weights.dtype.itemsize
        if reason:
            told.append(Package(site.key, reason, "", out * columns, size, size, 0.0))
            continue
        site.tell("rounding")
        rows = site.sample(row_count(columns, ROWS, machine.memory))
        limits = (site.low, site.high)
        one = rounded(rows, site.matrix(), site.bias(), steps=form.steps(target), bounds=limits, biased=site.biased)
        site.put(one.matrix, one.bias)
        made[site.key] = one
        told.append(Package(site.key, form.form(), one.way, out * columns, size, form.bytes(out, columns), one.after))
    for node in list(copy.graph):
        if key(node) in made:
            (linear,) = ops.linears(node)
            form.write(writer, linear, made[key(node)], target)
    writer.tidy()
    for table in tables:
        table.write(writer)
    values.follow(copy)
    return Packed(copy, tuple(told), time.perf_counter() - begin)


@dataclass(eq=False)
class _Table:
    """A constant whose rows are looked up, and nothing else."""

    value: ir.Value
    users: list[ir.Node]
    codes: NDArray[np.int8]
    scale: NDArray[np.float32]

    def write(self, writer: Writer) -> None:
        """Let what reads it read integers."""
        name = str(self.value.name)
        codes, scale = writer.constant(f"{name}/integers", self.codes), writer.constant(f"{name}/scale", self.scale)
        for node in self.users:
            at, mine = node.inputs[1], key(node)
            picked = [
                writer.like(node, [what, at], f"{mine}/{kind}") for kind, what in (("row", codes), ("scale", scale))
            ]
            cast = writer.node("Cast", [picked[0].outputs[0]], f"{mine}/cast", {"to": int(ir.DataType.FLOAT)})
            factors = [cast.outputs[0], picked[1].outputs[0]]
            writer.replace(node, [*picked, cast, writer.node("Mul", factors, f"{mine}/scaled")])


def _tables(model: ir.Model, skip: Container[str]) -> list[_Table]:
    """Those that are worth it."""
    found = []
    for value in list(model.graph.initializers.values()):
        users = list(dict.fromkeys(readers(value)))
        if not users or not is_constant(value) or value.is_graph_output() or value.dtype != ir.DataType.FLOAT:
            continue
        mine = all(n.graph is model.graph and n.inputs[0] is value and key(n) not in skip for n in users)
        fits = mine and all(map(ops.looks_up, users))
        if fits and len(value.uses()) == len(users) and value.const_value is not None and value.const_value.size > _FEW:
            found.append(_Table(value, users, np.empty(0, np.int8), np.empty(0, np.float32)))
    return found


def _rounded(table: _Table, machine: Machine) -> Package:
    """Round a table row by row; from now on it holds what its integers stand for."""
    rows = array(table.value)
    if rows is None:
        raise TypeError(f"{table.value.name} is not a constant")
    machine.progress(f"rounding {table.value.name}")
    even = np.ones((1, rows.shape[1]))
    parts = [EIGHT.first(r[None].astype(np.float64), even) for r in np.split(rows, range(_ROWS, len(rows), _ROWS))]
    table.codes = np.concatenate([p.codes[0] for p in parts]).astype(np.int8)
    table.scale = np.concatenate([p.scale[0] for p in parts]).astype(np.float32)
    now = table.codes * table.scale
    table.value.const_value = ir.tensor(now)
    power = float(np.sum(np.square(rows, dtype=np.float64)))
    error = float(np.sum(np.square(rows.astype(np.float64) - now))) / max(power, np.finfo(np.float64).tiny)
    form = "8 bits, a scale for each row"
    return Package(key(table.users[0]), form, "nearest", rows.size, rows.nbytes, table_bytes(*rows.shape), error)
