"""How long plans take, as measured: each kind of product at a few widths, one by one, and the rest by the whole.

    time(plan) = Σ over products of their kind's table, interpolated + (time of the whole − Σ at full width)

Tables never fall with a width: what was measured so was noise. Alone, products may take longer than in the whole, where
layouts need not change around each: tables that add up to more than the whole are scaled to it. What this leaves out
is corrected by who measures the whole model cut to the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.groups import Channels
from graphopt.analysis.moments import products
from graphopt.graph.shapes import ShapeOf
from graphopt.plan.budget import lines, row
from graphopt.run.bench import medians
from graphopt.run.machine import HERE, Machine, Stage
from graphopt.run.session import Feed, Session

__all__ = ["SHARES", "Latency", "latency"]

Array = NDArray[Any]
SHARES: Final = (0.125, 0.25, 0.5, 0.75, 1.0)
"""Of a product's inputs and outputs: where it is timed."""
_SECONDS: Final = 0.5
"""That timing one kind of product may take."""
_ROUNDS: Final = 30


@dataclass(frozen=True, eq=False)
class Latency:
    """Milliseconds of plans. See `budget.Cost`."""

    tables: Array
    """(kinds, shares, shares): of inputs and outputs."""
    kinds: NDArray[np.intp]
    """(products,): which table is a product's."""
    lines: Array
    """(3, 1 + groups, products): as in `Multilinear`."""
    shares: Array
    rest: float = 0.0

    def __call__(self, plans: Array) -> Array:
        """See `Cost`."""
        k = np.concatenate([np.ones((len(plans), 1)), plans], axis=1)
        source, result, batch = k @ self.lines
        low, at = self._place(source)
        left, to = self._place(result)
        tables, kinds = self.tables, self.kinds
        first = tables[kinds, low, left] * (1 - at) + tables[kinds, low + 1, left] * at
        second = tables[kinds, low, left + 1] * (1 - at) + tables[kinds, low + 1, left + 1] * at
        return np.asarray(self.rest + np.sum((first * (1 - to) + second * to) * batch, axis=1))

    def _place(self, share: Array) -> tuple[Array, Array]:
        """The interval that a share lies in, and how far along."""
        low = np.clip(np.searchsorted(self.shares, share, side="right") - 1, 0, len(self.shares) - 2)
        start, end = self.shares[low], self.shares[low + 1]
        return low, np.clip((share - start) / (end - start), 0.0, 1.0)


def latency(
    model: ir.Model,
    channels: Channels,
    shape: ShapeOf,
    feed: Feed,
    machine: Machine = HERE,
    *,
    shares: Sequence[float] = SHARES,
    seconds: float = _SECONDS,
) -> tuple[Latency, float]:
    """What plans of a model take, and what the model takes as it is, in milliseconds.

    Args:
        model: what is to be cut.
        channels: its groups.
        shape: of its values, when it runs on `feed`.
        feed: what is timed.
        machine: where and how to run.
        shares: of inputs and outputs, where products are timed, rising to 1.
        seconds: that one kind of product may take.
    """
    linears, kinds = products(model), dict[Any, int]()
    tables, chosen = [np.zeros((len(shares), len(shares)))], []
    idle = _idle(machine)
    for done, (name, product) in enumerate(channels.products.items()):
        given = shape(linears[name].node.inputs[linears[name].x]) if name in linears else None
        if given is None:
            chosen.append(0)  # a part of the rest
            continue
        linear = linears[name]
        kind = (_kind(linear), given, product.diagonal)
        if kind not in kinds:
            text = f"timing {name[0]} at several widths"
            machine.progress(Stage(text, done, len(channels.products)))
            kinds[kind] = len(tables)
            trial = _Trial(linear, given, diagonal=product.diagonal)
            tables.append(_table(trial, shares, idle, seconds, machine))
        chosen.append(kinds[kind])
    (now,) = medians([(machine.timed(model), feed)], seconds=4 * seconds)
    found = Latency(np.stack(tables), np.array(chosen, np.intp), lines(channels), np.array(shares))
    full = float(found(row(channels, {}))[0])
    if full > now:
        return replace(found, tables=found.tables * (now / full)), now
    return replace(found, rest=now - full), now


def _kind(linear: ops.Linear) -> Any:
    """Products of one kind take as long."""
    node = linear.node
    said = tuple(sorted((n, str(a.value)) for n, a in node.attributes.items()))
    return node.domain, node.op_type, said, linear.weights.shape, linear.weights.dtype, linear.bias_value is None


def _idle(machine: Machine) -> tuple[Session, Feed]:
    """What a run takes that computes nothing."""
    x = ir.val("x", ir.DataType.FLOAT, [1])
    node = ir.node("Identity", [x])
    return _session([x], node, [], machine), {"x": np.zeros(1, np.float32)}


def _table(
    trial: _Trial, shares: Sequence[float], idle: tuple[Session, Feed], seconds: float, machine: Machine
) -> Array:
    """(shares, shares): milliseconds of one product, less what any run takes."""
    pairs = [(a, b) for a in shares for b in shares if a == b or not trial.diagonal]
    cases = [trial.case(a, b, machine) for a, b in pairs]
    nothing, *times = medians([idle, *cases], seconds=seconds, rounds=_ROUNDS)
    took = {pair: max(0.0, time - nothing) for pair, time in zip(pairs, times, strict=True)}
    # The lines of a depthwise product leave its inputs at full width.
    table = np.array([[took[b if trial.diagonal else a, b] for b in shares] for a in shares])
    return np.asarray(np.maximum.accumulate(np.maximum.accumulate(table, axis=0), axis=1))


@dataclass(frozen=True)
class _Trial:
    """One product on its own, with random weights."""

    linear: ops.Linear
    shape: tuple[int, ...]
    """Of its data."""
    diagonal: bool

    def case(self, source: float, result: float, machine: Machine) -> tuple[Session, Feed]:
        """A session with these shares of inputs and outputs, and a feed."""
        linear, random = self.linear, np.random.default_rng(0)
        kind = linear.weights.dtype
        inputs, outputs = (
            _some(linear.in_channels, source, linear.groups),
            _some(linear.channels, result, linear.groups),
        )
        groups = linear.groups
        if self.diagonal:
            inputs = max(1, round(linear.in_channels * result))
            groups, outputs = inputs, linear.channels // linear.in_channels * inputs
        dims = list(linear.weights.shape)
        dims[linear.w_out] = outputs // (groups if linear.w_out > linear.w_in else 1)
        dims[linear.w_in] = inputs // (groups if linear.w_in > linear.w_out else 1)
        given = list(self.shape)
        given[linear.y_axis if linear.y_axis < len(given) else -1] = inputs
        x = ir.val("x", ir.DataType.from_numpy(kind), given)
        weights = [_constant("w", random.standard_normal(dims).astype(kind))]
        if linear.bias_value is not None:
            weights.append(_constant("b", random.standard_normal(outputs).astype(kind)))
        node = ir.Node(linear.node.domain, linear.node.op_type, [x, *weights], linear.node.attributes.values())
        if "group" in node.attributes:
            node.attributes.add(ir.AttrInt64("group", groups))
        session = _session([x], node, weights, machine)
        return session, {"x": random.standard_normal(given).astype(kind)}


def _some(channels: int, share: float, groups: int) -> int:
    """A share of channels, the same number of each group."""
    return groups * max(1, round(channels // groups * share))


def _constant(name: str, contents: Array) -> ir.Value:
    tensor = ir.tensor(contents, name=name)
    return ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(contents.shape))


def _session(inputs: Sequence[ir.Value], node: ir.Node, weights: Sequence[ir.Value], machine: Machine) -> Session:
    (y,) = node.outputs
    y.name, y.type = "y", inputs[0].type
    opsets = {"": 17, node.domain: 1} if node.domain else {"": 17}
    graph = ir.Graph(list(inputs), [y], nodes=[node], initializers=list(weights), opset_imports=opsets, name="trial")
    return machine.timed(ir.Model(graph, ir_version=8))
