"""Quantizers and integers, written into a graph: QuantizeLinear and DequantizeLinear around standard operators.

Constants are integers with a DequantizeLinear behind them; a value has both behind it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.histogram import Histogram
from graphopt.analysis.places import only_reader, past_offset
from graphopt.analysis.ranges import Range
from graphopt.compress.integers.region import Grid, Layout, clipped
from graphopt.compress.integers.round import Rounded
from graphopt.compress.writer import Writer
from graphopt.graph.nodes import input_at, key, readers

__all__ = ["Quantizers", "Ranged", "assembled"]

Array = NDArray[Any]

_MOST: Final = 2**30
"""Of an integer bias: what it is added to needs room as well."""


@dataclass(frozen=True)
class Ranged:
    """The integers of a value, and why these."""

    grid: Grid
    range: Range | None = None
    histogram: Histogram | None = None
    """What was seen of it; None of both where the range was known."""


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
    writer = Quantizers(copy)
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


class Quantizers(Writer):
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
