"""Clippings that quantizers stand in for.

A quantizer whose integers begin at 0 is a Relu as well, and tools leave out the one before it. It is put back, unless
the value cannot be below 0 anyhow. It is a Clip where several of them end at the same number: calibrated ends differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from graphopt import ops
from graphopt.analysis.places import only_reader
from graphopt.compress.integers.coding import BACK, BYTES, QUANTIZE, Coding, held, operator
from graphopt.compress.integers.region import clipped
from graphopt.graph.names import Names

__all__ = ["Signs"]


class Signs:
    """Which values cannot be below 0, and where a clipping makes it so."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._positive = set[ir.Value]()
        self._ends = dict[ir.Node, float]()

    def learn(self, nodes: Iterable[ir.Node]) -> None:
        """Look at nodes in their order, quantizers among them."""
        for node in nodes:
            if self._is_positive(node):
                self._positive.update(node.outputs)

    def _is_positive(self, node: ir.Node) -> bool:
        spec, data = ops.spec_of(node), [v for v in node.inputs if v is not None]
        if operator(node) in {QUANTIZE, BACK}:
            code = Coding.of(node, BYTES)
            from_zero = isinstance(code, Coding) and code.grid is not None and code.grid.range[0] == 0
            return from_zero or self._is_known(data[0])
        if spec is None:
            return False
        carried = [a for a, _ in spec.carries(node)]
        read = carried or [v for v in data if v.dtype is ir.DataType.FLOAT]
        kept = (spec.positive == "kept" or bool(carried)) and bool(read) and all(map(self._is_known, read))
        return spec.positive == "always" or kept or clipped(node.outputs[0])[0] >= 0

    def _is_known(self, value: ir.Value) -> bool:
        contents = held(value)
        return value in self._positive or (contents is not None and bool(np.all(contents >= 0)))

    def clipped(self, quantize: ir.Node, x: ir.Value, high: float) -> ir.Value:
        """What a quantizer from 0 to `high` reads, not below 0; named as `x` is, if nothing else reads that."""
        maker = x.producer()
        if x in self._positive or maker is None or maker.graph is None:
            return x
        alone = only_reader(x) is quantize
        relu = ir.node("Relu", [x], name=self._names.fresh(f"{x.name}/relu"))
        made = relu.outputs[0]
        maker.graph.insert_after(maker, relu)
        made.type, made.shape, name = x.type, x.shape, self._names.fresh(f"{x.name}/clipped")
        x.name, made.name = (name, x.name) if alone else (x.name, name)
        self._ends[relu] = high
        return made

    def settle(self) -> None:
        """Make clips of those that end at the same number."""
        count = Counter(np.float32(high) for high in self._ends.values())
        for relu, high in self._ends.items():
            if count[np.float32(high)] > 1 and isinstance(relu.graph, ir.Graph):
                clip = ir.node("Clip", [relu.inputs[0]], name=relu.name)
                made, old = clip.outputs[0], relu.outputs[0]
                for end, number in (("min", 0.0), ("max", high)):
                    value = _number(self._names.fresh(f"{old.name}/{end}"), number)
                    relu.graph.register_initializer(value)
                    clip.resize_inputs(len(clip.inputs) + 1)
                    clip.replace_input_with(len(clip.inputs) - 1, value)
                made.type, made.shape = old.type, old.shape
                old.replace_all_uses_with(made, replace_graph_outputs=True)
                made.name, old.name = old.name, None
                relu.graph.insert_after(relu, clip)
                relu.graph.remove(relu, safe=True)


def _number(name: str, number: float) -> ir.Value:
    tensor = ir.tensor(np.array(number, np.float32))
    return ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(()))
