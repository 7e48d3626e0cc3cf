from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from graphopt import ops
from graphopt.graph.carry import Carried
from graphopt.graph.nodes import array, input_at
from graphopt.graph.save import serialize
from graphopt.ops.gate import before
from graphopt.run.session import Session
from tests.support.recurrent import CELLS, Cell, layer

Array = NDArray[Any]


def run(model: ir.Model, feed: dict[str, Array]) -> Array:
    found: Array = Session(serialize(model, Carried())).run(feed)["y"]
    return found


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def stepped(cell: Cell, values: list[Array], begin: Array, c: Array, peephole: Array) -> tuple[Array, Array]:
    """What a step makes of its gates, as the standard says; all arrays are (units, samples)."""
    match cell.op:
        case "RNN":
            return np.tanh(values[0]), c
        case "GRU":
            z, r = np.split(sigmoid(values[0]), 2)
            h = np.tanh(values[1] + r * values[2] if len(values) > 2 else values[1])
            return (1 - z) * h + z * begin, c
    i, o, f, g = np.split(values[0], 4)
    pi, po, pf = np.split(peephole, 3)
    c = sigmoid(f + pf * c) * c + sigmoid(i + pi * c) * np.tanh(g)
    return sigmoid(o + po * c) * np.tanh(c), c


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_what_follows_from_the_gates_is_what_the_layer_gives(cell: Cell) -> None:
    model, feed = layer(cell, "y")
    node = next(n for n in model.graph if n.op_type == cell.op)
    y, x = run(model, feed), feed["x"]
    initial, memory, peepholes = (array(input_at(node, index)) for index in (5, 6, 7))
    lengths = feed.get("n")
    begin, there = before(node, y, initial, lengths)
    steps, directions, samples, units = y.shape
    gates = ops.gates(node) or ()
    assert gates
    peepholes = np.zeros((directions, 3 * units)) if peepholes is None else peepholes
    for d in range(directions):
        backwards = d == 1 or cell.direction == "reverse"
        c = np.zeros((units, samples)) if memory is None else memory[d].T
        for t in reversed(range(steps)) if backwards else range(steps):
            values = [g.values(x[t], begin[t])[d] for g in gates]
            end, after = stepped(cell, values, begin[t, d].T, c, peepholes[d][:, None])
            c = np.where(there[t], after, c)
            np.testing.assert_allclose(y[t, d].T[:, there[t]], end[:, there[t]], atol=1e-5)
    assert there.sum() == (steps * samples if lengths is None else lengths.sum())


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_what_is_written_is_what_is_read(cell: Cell) -> None:
    model, _ = layer(cell, "y")
    node = next(n for n in model.graph if n.op_type == cell.op)
    wanted = []
    for number, gates in enumerate(ops.gates(node) or ()):
        wanted.append((gates.matrix() + number + 1, gates.bias() - number - 1))
        for index, contents in gates.contents(*wanted[-1]).items():
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is None:
                made = ir.tensor(contents)
                value = ir.Value(name=f"made_{index}", const_value=made, type=ir.TensorType(made.dtype))
                model.graph.register_initializer(value)
                node.resize_inputs(max(index + 1, len(node.inputs)))
                node.replace_input_with(index, value)
            value.const_value = ir.tensor(contents)
    for gates, (matrix, bias) in zip(ops.gates(node) or (), wanted, strict=True):
        np.testing.assert_allclose(gates.matrix(), matrix, rtol=1e-6)
        np.testing.assert_allclose(gates.bias(), bias, rtol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        "y = GRU<hidden_size = 2, activations = ['HardSigmoid', 'Tanh']>(x, w, r)",
        "y = GRU<hidden_size = 2, clip = 1.0>(x, w, r)",
        "y = GRU<hidden_size = 2, layout = 1, linear_before_reset = 1>(x, w, r)",
        "y = GRU<hidden_size = 2>(x, v, r)",
        "y = GRU<hidden_size = 2>(x, w, r, b)",
        "z = GRU<hidden_size = 2>(x, w, r) y = GRU<hidden_size = 2>(x, w, r)",
    ],
)
def test_other_forms_have_no_gates(body: str) -> None:
    weights = "float[1,6,3] w = {" + ",".join(["1"] * 18) + "}, float[1,6,2] r = {" + ",".join(["1"] * 12) + "}"
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        g (float[4,5,3] x, float[1,6,3] v, float[1,12] b) => (y) <{weights}> {{ {body.replace("'", '"')} }}"""
    )
    assert ops.gates(model.graph[-1]) == ()


def test_what_is_no_recurrent_layer_has_none() -> None:
    assert ops.gates(ir.node("Relu", [])) is None
