"""Static quantization: ranges → quantizers → weights rounded, one product after the other.

What is written is standard ONNX, QuantizeLinear and DequantizeLinear (QDQ); the runtime makes integer kernels of it:

    x ─ Q ─ DQ ─┐
    int8 ── DQ ─┼─ Conv ─ Relu ─ Q ─ DQ ─ …          weights: one scale per output channel, around 0
    int32 ─ DQ ─┘                                    bias: in steps of the data's times the weight's

While weights are rounded, in topological order, quantizers stand already but weights are floats still: each product
sees the data that quantized ones before it give, and is fitted to the original's values (`round`).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from types import MappingProxyType
from typing import Any, ClassVar, Final, get_args

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.frontier import Frontier
from graphopt.analysis.histogram import Histogram
from graphopt.analysis.places import only_reader, past_offset
from graphopt.analysis.ranges import Method, Range, chosen
from graphopt.analysis.segments import Samples
from graphopt.compress.refit import row_count
from graphopt.compress.region import Grid, Layout, clipped
from graphopt.compress.round import Rounded, rounded
from graphopt.compress.steps import BITS, Steps
from graphopt.compress.writer import Writer
from graphopt.errors import UsageError
from graphopt.graph.nodes import input_at, key, readers
from graphopt.graph.record import Exactness
from graphopt.protocol import Named
from graphopt.run.machine import HERE, Machine

__all__ = ["Quantize", "Ranged", "assembled", "grids", "weights"]

Array = NDArray[Any]

ROWS: Final = 20
"""Rows per column that weights are rounded by."""
PART: Final = 8
"""Of the memory, what values between products may take: the rows of one product take as much, several times."""
_BATCH: Final = 16
"""Samples of one run."""
_MOST: Final = 2**30
"""Of an integer bias: what it is added to needs room as well."""
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True)
class Quantize(Named):
    """8-bit activations, and weights of 8 bits or fewer.

    Measured: models/digits_resnet.onnx for cpu has 32 % of its bytes, takes 0.51 of the time and has the same accuracy;
    digits_mobilenet.onnx 25 % of its bytes and the same accuracy.
    """

    name: ClassVar[str] = "quantize"
    summary: ClassVar[str] = "compute on 8-bit integers where the target does (`--int8`)"
    pays: ClassVar[str] = "on cpu, tensorrt and openvino"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    rules: ClassVar[Mapping[str, str]] = {}

    weight_bits: int = 8
    """Of each weight: 8, or with coarser grids that 8-bit kernels still compute with, 4 or 3."""
    ranges: str = "mse"
    """How the range of an activation is chosen: one of `analysis.ranges`."""
    equalize: bool = True
    """Whether ranges of channels are evened out before, where the outputs gain by it (`equalize`)."""
    always: bool = False
    """Whether the clock is not asked: all that can be is on integers, and emitted even if floats are faster."""

    def __post_init__(self) -> None:
        """Insist on what there is.

        Raises:
            UsageError: a value is out of range.
        """
        if self.weight_bits not in BITS:
            raise UsageError(
                f"weights have {', '.join(map(str, BITS))} bits, not {self.weight_bits}: give one of these"
            )
        if self.ranges not in get_args(Method):
            raise UsageError(f"ranges are chosen by {', '.join(get_args(Method))}, not by {self.ranges!r}")

    @property
    def method(self) -> Method:
        """How ranges are chosen."""
        return next(m for m in get_args(Method) if m == self.ranges)


def grids(
    plan: Layout,
    observed: Mapping[str, Histogram],
    method: Method,
    *,
    unsigned: bool,
    known: Mapping[str, tuple[float, float]] = NOTHING,
    memory: dict[Any, Ranged] | None = None,
) -> dict[int, Ranged]:
    """The integers of each grid of a layout.

    Args:
        plan: where quantizers stand.
        observed: by name, what was seen of each quantized value that is not known.
        method: how ranges are chosen.
        unsigned: whether integers are unsigned; otherwise they lie around 0.
        known: by name, ranges that are kept.
        memory: what was found for other layouts by the same arguments, and is from now on.
    """
    memory = {} if memory is None else memory
    classes: dict[int, list[str]] = {}
    for name, number in plan.values.items():
        classes.setdefault(number, []).append(name)
    found = {}
    for number, names in classes.items():
        limits = plan.bounds[number]
        settled = (*names, limits)
        if settled not in memory:
            seen = [observed[name] for name in names if name not in known]
            ends = [known[name] for name in names if name in known]
            memory[settled] = _ranged(reduce(add, seen) if seen else None, ends, limits, method, unsigned=unsigned)
        found[number] = memory[settled]
    return found


def _ranged(
    seen: Histogram | None,
    ends: Sequence[tuple[float, float]],
    limits: tuple[float, float],
    method: Method,
    *,
    unsigned: bool,
) -> Ranged:
    """The integers that reach as far as all of these, inside of the limits."""
    best = None if seen is None else chosen(seen, method, symmetric=not unsigned)
    every = [*ends] if best is None else [*ends, (best.low, best.high)]
    least, most = max(min(e[0] for e in every), limits[0]), min(max(e[1] for e in every), limits[1])
    return Ranged(Grid.over(least, most, unsigned=unsigned), best, seen)


@dataclass(frozen=True)
class Ranged:
    """The integers of a value, and why these."""

    grid: Grid
    range: Range | None = None
    histogram: Histogram | None = None
    """What was seen of it; None of both where the range was known."""


def weights(
    model: ir.Model,
    plan: Layout,
    found: Mapping[int, Ranged],
    samples: Samples,
    machine: Machine = HERE,
    *,
    bits: int = 8,
    kept: Mapping[str, Rounded] = NOTHING,
) -> dict[str, Rounded]:
    """Integer weights of each product, by its key.

    Args:
        model: canonical; it is not changed.
        plan: where quantizers stand.
        found: the integers of each grid, by its number.
        samples: what weights are rounded by, in an order that does not depend on how it was given.
        machine: where to run, and what values between products, and the rows of one, may take.
        bits: of a weight.
        kept: weights that are integers already, by key of the product.
    """
    made = {name: one for name, one in kept.items() if name in plan.products}
    if len(made) == len(plan.products):
        return made
    copy = model.clone()
    _Writer(copy).place(plan, found)
    apart = replace(machine, integers=False, memory=machine.memory // PART)
    for site in Frontier(model, copy, samples, apart, pairs=False, batch=_BATCH):
        if site.key in plan.products and site.key not in made:
            machine.progress(f"rounding {site.key}")
            rows = site.sample(row_count(site.linear.reduction, ROWS, machine.memory, site.linear.groups))
            limits = (site.low, site.high)
            one = rounded(rows, site.matrix(), site.bias(), steps=Steps(bits), bounds=limits, biased=site.biased)
            site.put(one.matrix, one.bias)
            made[site.key] = one
    return made


def assembled(
    model: ir.Model,
    plan: Layout,
    found: Mapping[int, Ranged],
    made: Mapping[str, Rounded],
    *,
    integer_bias: bool,
    passed: Container[str] = (),
) -> ir.Model:
    """A copy of a model with quantizers and integer weights.

    Args:
        model: canonical; it is not changed.
        plan: where quantizers stand.
        found: the integers of each grid, by its number.
        made: integer weights by key of the product; those that are not in the plan are left out.
        integer_bias: whether biases become integers.
        passed: operators that a clipping before them goes behind, where they compute on floats.
    """
    copy = model.clone()
    writer = _Writer(copy)
    writer.clip_behind(plan, passed)
    writer.place(plan, found)
    sources = {key(n): n.inputs[linear.x] for n in model.graph for linear in ops.linears(n)}
    for node in list(copy.graph):
        name = key(node)
        if name in made and name in plan.products:
            source = sources[name]
            number = plan.values.get(str(source.name)) if source is not None else None
            writer.settle(node, made[name], found[number].grid.scale if integer_bias and number is not None else None)
    return copy


class _Writer(Writer):
    """Puts quantizers and integers into a model."""

    def clip_behind(self, plan: Layout, passed: Container[str]) -> None:
        """Swap a clipping and what gives the largest of elements: clip(max(x)) = max(clip(x)).

        Where the result is quantized; by name, that is the same value still.
        """
        for pool in list(self.graph):
            first, result = pool.inputs[0] if pool.inputs else None, pool.outputs[0]
            alone = len(pool.outputs) == 1 and key(pool) not in plan.nodes and str(result.name) in plan.values
            clip = first.producer() if first is not None and alone and pool.op_type in passed else None
            if clip is None or first is None or clip.inputs[0] is None or clipped(first) == (-np.inf, np.inf):
                continue
            if only_reader(first) is not pool or {first.name, clip.inputs[0].name} & plan.values.keys():
                continue
            pool.replace_input_with(0, clip.inputs[0])
            result.replace_all_uses_with(first, replace_graph_outputs=True)
            clip.replace_input_with(0, result)
            first.name, result.name, first.shape = result.name, first.name, result.shape
            self.graph.remove(clip)
            self.graph.insert_after(pool, clip)

    def place(self, plan: Layout, found: Mapping[int, Ranged]) -> None:
        """Put quantizers behind values."""
        graph = self.graph
        values = {str(v.name): v for v in (*graph.inputs, *(v for n in graph for v in n.outputs))}
        for name, number in plan.values.items():
            value, grid = values[name], found[number].grid
            scale = self.constant(f"{name}/scale", np.array(grid.scale, np.float32))
            zero = self.constant(f"{name}/zero", np.array(grid.zero, grid.dtype))
            quantize = self.node("QuantizeLinear", [value, scale, zero], f"{name}/quantize")
            back = self.node("DequantizeLinear", [quantize.outputs[0], scale, zero], f"{name}/dequantize")
            quantize.outputs[0].type, quantize.outputs[0].shape = zero.type, value.shape
            made, producer = back.outputs[0], value.producer()
            made.type, made.shape = value.type, value.shape
            for reader in dict.fromkeys(readers(value)):
                if reader is not quantize and (name in plan.closed or key(reader) in plan.nodes):
                    _redirect(reader, value, made)
            if producer is None:
                graph.insert_before(graph[0], [quantize, back])
            else:
                graph.insert_after(producer, [quantize, back])
            if name in plan.closed and value.is_graph_output():
                graph.outputs[list(graph.outputs).index(value)] = made
                value.name, made.name = self._names.fresh(f"{name}/exact"), name

    def settle(self, node: ir.Node, made: Rounded, step: float | None) -> None:
        """Let a product read integers; its bias as well, where the step of its data is given."""
        (linear,) = ops.linears(node)
        _, offset = past_offset(linear)
        if step is not None:
            made = _with_room(made, step)
        codes, scale = linear.unmatrix(made.codes, np.int8), made.scale.reshape(-1)
        if linear.bias is not None and linear.beta:
            bias = made.bias.reshape(-1)
            if step is None:
                self.give(node, linear.bias, self.constant(f"{key(node)}/bias", bias.astype(np.float32)))
            else:
                steps = np.float32(step) * scale
                wide = np.rint(bias / steps.astype(np.float64)).astype(np.int32)
                self._integer(node, linear.bias, wide, steps, 0)
        elif offset is not None and offset.const_value is not None:
            (reader,) = offset.consumers()
            row = made.bias.reshape(offset.const_value.shape.numpy()).astype(np.float32)
            self.give(reader, list(reader.inputs).index(offset), self.constant(f"{key(node)}/bias", row))
        self._integer(node, linear.weight, codes, scale, linear.w_out)

    def _integer(self, node: ir.Node, index: int, codes: Array, scale: Array, axis: int) -> None:
        """Let an input be what a DequantizeLinear makes of integers, one scale for each index of an axis."""
        old = input_at(node, index)
        name = str(old.name) if old is not None else f"{key(node)}/{index}"
        contents = {"integers": codes, "scale": scale, "zero": np.zeros(scale.shape, codes.dtype)}
        constants = [self.constant(f"{name}/{kind}", c) for kind, c in contents.items()]
        back = self.node("DequantizeLinear", constants, f"{name}/dequantize", {"axis": axis})
        back.outputs[0].type, back.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(codes.shape)
        self.graph.insert_before(node, back)
        self.give(node, index, back.outputs[0])


def _with_room(made: Rounded, step: float) -> Rounded:
    """With coarser weights where a bias would not fit into an integer, or its steps be no normal numbers.

    Such a channel is all bias: weights that are nearly 0.
    """
    least = np.maximum(np.abs(made.bias) / _MOST, np.finfo(np.float32).tiny) / step * (1 + 1e-6)
    scale = np.maximum(made.scale, least.astype(np.float32))
    factor = (made.scale / scale.astype(np.float64))[..., None]
    return replace(made, codes=np.rint(made.codes * factor).astype(np.int8), scale=scale)


def _redirect(node: ir.Node, old: ir.Value, new: ir.Value) -> None:
    for index, read in enumerate(node.inputs):
        if read is old:
            node.replace_input_with(index, new)
