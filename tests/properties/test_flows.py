"""What entries of the operator table say of channels: every example of an operator, between products.

One axis, counted from the end, is written by products in the inputs, and each axis of the outputs is read by one. Where
something can be taken out on the way, masked equals sliced.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from graphopt import ops
from graphopt.graph.load import load
from graphopt.ops.flow import opaque
from tests.support.masking import Case, violations

from .examples import Draw, examples, ints, one
from .single import Array, Const, Example, newest_opset

HIDDEN = 5
WITHOUT = {
    "Shape": "its result has no channels",
    "SwiGLU": "the runtime has no kernel",
    "Swish": "the runtime has no kernel",
}
"""Operators with a flow of whose outputs nothing can be taken out here, and why."""


def further(d: Draw) -> Iterator[Example]:
    """Uses that leave an axis alone, of operators whose examples do not."""
    reductions = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"
    yield from (Example(f"Reduce{how}", (d.f(2, 3, 4), Const(ints(1)))) for how in reductions.split())
    yield from (Example(f"Reduce{how}", (d.f(2, 3, 4), Const(ints(-1))), {"keepdims": 0}) for how in reductions.split())
    yield from (Example(op, (d.f(2, 3, 4),), {"axis": 1, "keepdims": 0}) for op in ("ArgMax", "ArgMin"))
    yield Example("MaxPool", (d.f(1, 4, 6, 6),), {"kernel_shape": [2, 2]})
    yield Example("Trilu", (d.f(3, 4, 4),))
    yield Example("Conv", (d.f(1, 6, 5), d.f(6, 1, 3), d.f(6)), {"group": 6})
    yield Example("ConvTranspose", (d.f(1, 6, 5), d.f(6, 1, 3), d.f(6)), {"group": 6})
    yield Example("Slice", (d.f(5, 6), Const(ints(4)), Const(ints(0)), Const(ints(1)), Const(ints(-1))))
    yield Example("Slice", (d.f(5, 6), Const(ints(1, -1)), Const(ints(9, -99)), Const(ints(0, 1)), Const(ints(1, -1))))
    yield Example("Gather", (d.f(5, 4), Const(ints(3, 0, 0, -1))), {"axis": 1})
    yield Example("Concat", (d.f(2, 3, 2), d.f(2, 3, 4)), {"axis": -1})
    yield Example("Split", (d.f(2, 7), Const(ints(3, 4))), {"axis": 1}, outputs=2)
    yield Example("Reshape", (d.f(2, 12), Const(ints(2, 3, 4))))
    yield Example("Reshape", (d.f(2, 3, 4), Const(ints(-1, 4))))
    yield Example("Reshape", (d.f(2, 2, 6), Const(ints(4, 0, 3))))
    yield Example("Flatten", (d.f(2, 3, 4),), {"axis": 2})
    yield Example("DepthToSpace", (d.f(1, 12, 2, 3),), {"blocksize": 2, "mode": "CRD"})
    yield Example("Expand", (d.f(2, 1, 4), Const(ints(3, 1))))
    yield Example("Tile", (d.f(1, 3), Const(ints(4, 2))))
    yield Example("Pad", (d.f(2, 5), Const(ints(0, 2, 0, 1)), one(7, np.float32)))
    yield Example("Pad", (d.f(2, 5), Const(ints(2, 1)), None, Const(ints(1))))
    yield Example("Pad", (d.f(2, 5, 4), Const(ints(1, 1)), None, Const(ints(2))), {"mode": "reflect"})
    yield Example("Softmax", (d.f(2, 3, 4),), {"axis": 1})
    yield Example("Softmax", (d.f(2, 3, 4),), {"axis": 1}, opset=11)
    yield Example("BatchNormalization", (d.f(2, 3, 4, 2), d.f(3), d.f(3), d.f(3), d.p(3)))
    yield Example("MeanVarianceNormalization", (d.f(2, 3, 4),), {"axes": [0, 2]})
    yield Example("QuantizeLinear", (d.f(2, 3), d.p(3), d.z(9, 3, dtype=np.uint8)), {"axis": -1})
    yield Example("DequantizeLinear", (d.z(9, 2, 3, dtype=np.int8), d.p(3), d.z(9, 3, dtype=np.int8)), {"axis": 1})
    yield Example("PRelu", (d.f(2, 3, 4), d.f(3, 1)))
    yield Example("Where", (d.b(2, 3), d.f(3), d.f(2, 3)))
    yield Example("Gemm", (d.f(3, 4), d.f(4, 5), d.f(3, 1)))
    yield Example("MatMul", (d.f(3, 2, 4), d.f(3, 4, 5)))
    yield Example("Einsum", (d.f(2, 3, 4), d.f(2, 5, 4)), {"equation": "bik,bjk->bji"})
    yield Example("Einsum", (d.f(2, 3), d.f(4, 3)), {"equation": "bi,ji->bij"})
    yield Example("Einsum", (d.f(2, 3), d.f(4, 3)), {"equation": "bi,ji->bj"})
    for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        weights = (d.f(1, gates * 3, 4), d.f(1, gates * 3, 3), d.f(1, gates * 6))
        yield Example(op, (d.f(5, 2, 4), *weights, None, d.f(1, 2, 3)), {"hidden_size": 3}, outputs=2)
    yield Example("Attention", (d.f(2, 4, 3, 5), d.f(2, 2, 6, 5), d.f(2, 2, 6, 7), d.f(3, 6)), {"scale": 0.5})
    packed = (d.f(2, 3, 8), d.f(2, 6, 4), d.f(2, 6, 6), d.f(1, 4, 3, 6))
    yield Example("Attention", packed, {"q_num_heads": 4, "kv_num_heads": 2})
    turned = (d.f(2, 3, 12), d.f(2, 3, 2), d.f(2, 3, 2))
    yield Example("RotaryEmbedding", turned, {"num_heads": 3})


FLOWING = [
    e
    for e in (*examples(), *further(Draw()))
    if ops.TABLE[e.domain, e.op].flow is not opaque
    and all(
        v is None or isinstance(v, Const) or (isinstance(v, np.ndarray) and v.dtype.kind in "fiub") for v in e.inputs
    )
]
PLACES = [
    (example, axis, every)
    for example in FLOWING
    for axis in range(1, max((np.ndim(a) for a in example.arrays if a is not None), default=0) + 1)
    for every in (False, True)[: len(example.inputs)]
]
"""An example, an axis counted from the end, and whether products write it in input 0 or in every input."""


@cache
def between(example: Example, axis: int, *, every: bool) -> Case | None:
    """The example between products that write an axis of input 0, or of every input; None where there is none."""
    return _Between(example, axis, every=every).case()


class _Between:
    def __init__(self, example: Example, axis: int, *, every: bool) -> None:
        self._example, self._axis = example, axis
        self._draw = np.random.default_rng(axis)
        self._nodes: list[ir.Node] = []
        self._inputs: list[ir.Value] = []
        self._constants: list[ir.Value] = []
        self._feed: dict[str, Array] = {}
        self._every = every

    def case(self) -> Case | None:
        example = self._example
        inputs = [self._input(i, v) for i, v in enumerate(example.inputs)]
        if not self._inputs:
            return None
        outputs = self._node(example.op, inputs, dict(example.attributes), example.outputs, example.domain)
        self._nodes[-1].name = "itself"
        results = replace(example, inputs=tuple(example.arrays)).run()
        read = [
            self._read(value, result)
            for value, result in zip(outputs, results, strict=True)
            if isinstance(result, np.ndarray) and result.dtype.kind in "fiub" and result.ndim
        ]
        if not read:
            return None
        imports = {"": example.opset or newest_opset(), **({example.domain: 1} if example.domain else {})}
        graph = ir.Graph(
            self._inputs, read, nodes=self._nodes, initializers=self._constants, opset_imports=imports, name="between"
        )
        return Case(load(ir.to_proto(ir.Model(graph, ir_version=10))), (self._feed,))

    def _input(self, index: int, content: Array | Const | Any | None) -> ir.Value | None:
        """What the example has there: numbers of the same kind that products made, or a constant."""
        if content is None:
            return None
        array = content.array if isinstance(content, Const) else content
        numbers = array.dtype.kind in "fb" or (array.dtype.kind in "iu" and not (index and _has_numbers(self._example)))
        if isinstance(content, Const) or not numbers or (index and not self._every):
            return self._constant(array)
        if array.ndim < self._axis or array.shape[-self._axis] == 1 or (array.ndim == 1 and self._example.opset):
            return self._constant(array)
        place = array.ndim - self._axis
        order = [i for i in range(array.ndim) if i != place] + [place]
        rows = [array.shape[i] for i in order[:-1]] or [1]
        name = f"in{index}"
        data = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([*rows, HIDDEN]))
        self._inputs.append(data)
        self._feed[name] = self._draw.standard_normal((*rows, HIDDEN)).astype(np.float32)
        weight = self._constant(self._draw.standard_normal((HIDDEN, array.shape[place])).astype(np.float32))
        (made,) = self._node("Sigmoid", self._node("MatMul", [data, weight]))
        if array.ndim > 1:
            (made,) = self._node("Transpose", [made], {"perm": [order.index(i) for i in range(array.ndim)]})
        else:
            (made,) = self._node("Squeeze", [made, self._constant(np.array([0]))])
        if array.dtype.kind == "b":
            return self._node("Greater", [made, self._constant(np.array(0.5, np.float32))])[0]
        if array.dtype.kind in "iu":
            (made,) = self._node("Mul", [made, self._constant(np.array(8, np.float32))])
            (made,) = self._node("Ceil", [made])
            return self._node("Cast", [made], {"to": ir.DataType.from_numpy(array.dtype).value})[0]
        low = np.floor(array.min()) if array.min() > 0 else 0.0  # some functions begin at one
        return self._node("Add", [made, self._constant(np.array(low, np.float32))])[0] if low else made

    def _read(self, value: ir.Value, result: Array) -> ir.Value:
        """A value that a product over each of its axes has read, so that none of them reaches an output."""
        (x,) = self._node("Cast", [value], {"to": 1}) if result.dtype != np.float32 else [value]
        if result.ndim == 1:
            (x,) = self._node("Unsqueeze", [x, self._constant(np.array([0]))])
        rank = max(result.ndim, 2)
        for extent in reversed(result.shape):  # the last axis is summed over, and two new indices come first
            weight = self._constant(self._draw.standard_normal((extent, 2)).astype(np.float32))
            (x,) = self._node("MatMul", [x, weight])
            (x,) = self._node("Transpose", [x], {"perm": [rank - 1, *range(rank - 1)]})
        x.type, x.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([2] * result.ndim + [1] * (rank - result.ndim))
        return x

    def _constant(self, array: Array) -> ir.Value:
        tensor = ir.tensor(array, name=f"c{len(self._constants)}")
        value = ir.Value(
            name=tensor.name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape)
        )
        self._constants.append(value)
        return value

    def _node(
        self, op: str, inputs: Any, attributes: dict[str, Any] | None = None, outputs: int = 1, domain: str = ""
    ) -> tuple[ir.Value, ...]:
        node = ir.node(op, inputs, attributes, num_outputs=outputs, domain=domain, name=f"{op}{len(self._nodes)}")
        for i, value in enumerate(node.outputs):
            value.name = f"{node.name}_{i}"
        self._nodes.append(node)
        return tuple(node.outputs)


def _has_numbers(example: Example) -> bool:
    return any(a is not None and a.dtype.kind in "fb" for a in example.arrays)


@pytest.mark.parametrize(("example", "axis", "every"), PLACES, ids=str)
def test_masked_equals_sliced(example: Example, axis: int, *, every: bool) -> None:
    given = between(example, axis, every=every)
    for inner in (True, False):
        if given is None:
            break
        assert not violations(given, given.find(inner=inner))


def test_every_operator_with_a_flow_lets_something_through() -> None:
    """A new entry with a flow needs an example of which something can be taken out, or a reason."""
    through = set()
    for example, axis, every in PLACES:
        if example.op in through or (given := between(example, axis, every=every)) is None:
            continue
        for inner in (True, False):
            values = given.find(inner=inner).values
            node = next(n for n in given.source.model.graph if n.name == "itself")
            if any(str(v.name) in values for v in node.outputs):
                through.add(example.op)
    flowing = {op for (_, op), spec in ops.TABLE.items() if spec.flow is not opaque}
    assert sorted(flowing - through) == sorted(WITHOUT)
