"""A quantized model on floats again, and what its quantizers knew.

    x → QuantizeLinear → DequantizeLinear → y            y is x
    x → QuantizeLinear → moves → DequantizeLinear → y    y is what the moves make of x
    integers → DequantizeLinear → w                      w is a constant of floats

Where anything but moves reads the integers (`span`), they stay as they are, and so does all between them.

A clipping that a quantizer stands in for is put back (`signs`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, ClassVar, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.places import added
from graphopt.compress.integers.coding import BACK, BYTES, QUANTIZE, WIDE, Coding, held, on_grid, operator, still
from graphopt.compress.integers.round import Rounded
from graphopt.compress.integers.signs import Signs
from graphopt.compress.integers.span import Span, explored, source, spread
from graphopt.graph.names import Names
from graphopt.graph.nodes import graphs, key, readers
from graphopt.graph.record import Exactness
from graphopt.protocol import Named

__all__ = ["Unquantize", "Unquantized", "unquantized"]

Array = NDArray[Any]

_SUFFIXES: Final = ("/integers", "_quantized")
"""Of the names of integers, behind what they were made of."""
_BITS: Final = 8
_SMALL: Final = frozenset(ir.DataType[name] for name in ("INT4", "UINT4", "INT8", "UINT8", "INT16", "UINT16"))


@dataclass(frozen=True)
class Unquantize(Named):
    """Floats in place of quantizers and integers.

    Measured: models/digits_mobilenet.onnx, put on integers and back, gives the same class for all test images, in 1.8
    times the bytes and 1.2 times the time of integers.
    """

    name: ClassVar[str] = "unquantize"
    summary: ClassVar[str] = "compute on floats what stands between quantizers, whatever tool put them there"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    rules: ClassVar[Mapping[str, str]] = {}


@dataclass(frozen=True, eq=False)
class Unquantized:
    """A model without the quantizers of another one, and what these knew."""

    model: ir.Model
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """By name of a value, what its integers reached from and to."""
    scales: Mapping[str, Array] = field(default_factory=dict)
    """By key of a product, those of a weight of integers around 0: one, or one for each output channel."""
    products: frozenset[str] = frozenset()
    """Keys of those whose weights were integers."""
    readings: frozenset[tuple[object, ...]] = frozenset()
    """Which inputs of which nodes were quantized, and how."""
    left: Mapping[str, str] = field(default_factory=dict)
    """By key of a node, why it stays as it is."""
    undone: Mapping[str, int] = field(default_factory=dict)
    """How many quantizers behind values, and how many constants of integers."""

    def floats(self, model: ir.Model) -> tuple[str, ...]:
        """Keys of products in `model` whose weights were floats, where those of others were integers.

        Where something was folded into a product, it may go by another key: what are integers still, up to factors of
        rows, were some before. With a zero point, those of 8 bits have 9 around 0.
        """
        every = [n for n in model.graph if self.products and key(n) not in self.products]
        return tuple(key(n) for n in every if any(on_grid(x.matrix(), _BITS + 1) is None for x in ops.linears(n)))

    def weights(self, model: ir.Model, bits: int) -> dict[str, Rounded]:
        """The integers of so many bits that weights of `model` are, up to factors of rows, by key of the product.

        In the scales that there were, or in others where something was folded into a weight; around 0, for products
        that are their node's only one.
        """
        found = dict[str, Rounded]()
        for node in model.graph if self.products else ():
            linears = ops.linears(node)
            if len(linears) == 1 and linears[0].weights.dtype == np.float32:
                matrix, scale = linears[0].matrix(), self.scales.get(key(node), np.empty(0))
                made = still(matrix, scale, bits) or on_grid(matrix, bits)
                if made is not None:
                    found[key(node)] = Rounded(*made, added(linears[0]), "kept", 0.0, 0.0)
        return found


def unquantized(model: ir.Model) -> Unquantized:
    """Take quantizers out of a copy of a model, bodies included."""
    work = _Work(model.clone())
    for graph in graphs(work.model):
        nodes = list(graph)
        work.signs.learn(nodes)
        for node in nodes:
            if operator(node) == BACK and node.graph is graph and held(node.inputs[0]) is not None:
                work.constant(node)
            elif operator(node) == QUANTIZE and node.graph is graph:
                work.pair(node)
    return work.done()


class _Work:
    """One model whose quantizers are taken out."""

    def __init__(self, model: ir.Model) -> None:
        self.model, self._names = model, Names(model)
        self.signs = Signs(self._names)
        self._ranges = dict[ir.Value, tuple[float, float]]()
        self._scales, self._left, self._integer = dict[str, Array](), dict[str, str](), set[str]()
        self._readings, self._undone = set[tuple[object, ...]](), Counter[str]()

    def constant(self, node: ir.Node) -> None:
        """Integers that a DequantizeLinear makes floats of."""
        code = Coding.of(node, BYTES | WIDE)
        integers = held(node.inputs[0])
        if isinstance(code, Coding) and not (why := _objection(node.outputs[0], integers)):
            self._put(node, integers, code)
            self._sweep([node])
        else:
            self._left[key(node)] = code if isinstance(code, str) else why

    def pair(self, node: ir.Node) -> None:
        """What a QuantizeLinear makes integers of, up to where they become floats again."""
        code, span = Coding.of(node, BYTES), Span()
        why = code if isinstance(code, str) else explored(node, code, span)
        if isinstance(code, str) or why:
            self._left |= dict.fromkeys(map(key, span.first or [node]), why)
            return
        contents = held(node.inputs[0])
        if contents is None:
            self._dissolve(span, code)
        else:
            for back in span.last:
                self._put(back, code.integers(contents), code)
        self._sweep([*span.last, *span.first])

    def _put(self, back: ir.Node, integers: Array | None, code: Coding) -> None:
        """A constant of floats for what a DequantizeLinear makes."""
        made, graph = back.outputs[0], back.graph
        if integers is None or not isinstance(graph, ir.Graph):
            raise ValueError(f"{key(back)} makes floats of no constant")
        codes = source(back)
        maker = codes.producer()
        name = str((source(maker) if maker is not None and maker.inputs else codes).name)
        for suffix in _SUFFIXES:
            name = name.removesuffix(suffix)
        tensor = ir.tensor(code.floats(integers))
        value = ir.Value(name=self._names.fresh(name), const_value=tensor, shape=ir.Shape(integers.shape))
        value.type = ir.TensorType(tensor.dtype)
        graph.register_initializer(value)
        wide = integers.dtype in WIDE
        digest = b"" if wide else sha256(integers.tobytes()).digest()  # a bias is rounded again, wherever it goes
        self._readings |= {(key(use.node), use.idx, *code.told, digest) for use in made.uses()}
        if not wide:
            products = {key(n): code.scale.reshape(-1) for n in _products(made)}
            self._integer |= products.keys()
            self._scales |= products if integers.dtype == np.int8 and not code.zero.any() else {}
        made.replace_all_uses_with(value)
        self._undone["constants"] += 1

    def _dissolve(self, span: Span, code: Coding) -> None:
        """Let what stands between quantizers be floats."""
        if code.grid is None:
            raise ValueError("only integers with one scale can be those of a value")
        low, high = code.grid.range
        for value in (*span.values, *(n.outputs[0] for n in span.last)):
            others = [use for use in value.uses() if use.node not in span.last]
            self._readings |= {(key(use.node), use.idx, *code.told) for use in others}
        self._readings |= {("", n.outputs[0].name, *code.told) for n in span.last if n.outputs[0].is_graph_output()}
        for node in span.first:
            x = source(node)
            x = self.signs.clipped(node, x, high) if low == 0 else x
            known = self._ranges.get(x, (low, high))
            self._ranges[x] = (min(known[0], low), max(known[1], high))
            node.outputs[0].replace_all_uses_with(x)
        for value in span.values:
            value.type = ir.TensorType(ir.DataType.FLOAT)
        for node in span.last:
            made, value = node.outputs[0], source(node)
            if made.is_graph_output():
                name, made.name = made.name, self._names.fresh(f"{made.name}/quantized")
                value.name, value.shape, value.type = name, made.shape, made.type
            made.replace_all_uses_with(value, replace_graph_outputs=True)
        self._undone["quantizers"] += len(span.first)

    def _sweep(self, nodes: Iterable[ir.Node]) -> None:
        """Take out nodes, and the constants that only they read."""
        for node in nodes:
            sources = [v for v in node.inputs if v is not None]
            if node.graph is not None:
                node.graph.remove(node, safe=True)
            for value in sources:
                if value.uses() or value.is_graph_output() or value.is_graph_input():
                    continue
                maker = value.producer()
                if value.is_initializer() and isinstance(value.graph, ir.Graph):
                    value.graph.initializers.pop(str(value.name), None)
                elif maker is not None and not maker.inputs and maker.graph is not None:
                    maker.graph.remove(maker, safe=True)

    def done(self) -> Unquantized:
        """All that was found."""
        ranges = {str(v.name): r for v, r in spread(self.model, self._ranges).items()}
        self.signs.settle()
        for node in (n for graph in graphs(self.model) for n in graph):
            if operator(node) in {QUANTIZE, BACK}:
                self._left.setdefault(key(node), "its integers are not what one constant quantizer makes")
            elif any(v is not None and v.dtype in _SMALL and held(v) is not None for v in node.inputs):
                self._left.setdefault(key(node), "it computes on integers itself")
        products, readings = frozenset(self._integer), frozenset(self._readings)
        return Unquantized(self.model, ranges, self._scales, products, readings, self._left, dict(self._undone))


def _objection(made: ir.Value, integers: Array | None) -> str:
    """Why a constant stays integers; empty if it need not."""
    if made.is_graph_output():
        return "it is an output"
    for node in readers(made) if integers is not None and integers.size > 1 else ():
        spec = ops.spec_of(node)
        moved = spec is not None and any(a is made for a, _ in spec.carries(node))
        if moved and any(held(v) is None for v in node.inputs if v is not None and v is not made):
            return "of a table that elements are taken from, integers are smaller"
    return ""


def _products(value: ir.Value) -> Iterator[ir.Node]:
    """The products that read a constant, or what moves make of it."""
    for node in dict.fromkeys(readers(value)):
        spec = ops.spec_of(node)
        if spec is not None and spec.multiplies:
            yield node
        elif spec is not None:
            for target in (b for a, b in spec.carries(node) if a is value):
                yield from _products(target)
