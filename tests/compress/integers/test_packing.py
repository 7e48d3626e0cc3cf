"""Packed weights: what is written computes what was rounded, on every target, and costs little."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graphopt import ops
from graphopt.compress.integers.blocks import Blocks
from graphopt.compress.integers.dynamic import Dynamic
from graphopt.compress.integers.packing import Packing, packed, table_bytes
from graphopt.compress.integers.steps import Codes, Steps
from graphopt.graph.carry import Carried
from graphopt.graph.nodes import key
from graphopt.graph.save import serialize
from graphopt.run.session import Session
from graphopt.targets import TARGETS
from tests.support.integers import filled

Array = NDArray[Any]
TEXT = """<ir_version: 10, opset_import: ["" : 21]> g (int64[N,4] i) => (float[M,24] y)
    <float[300,32] mt, float[32,96] ma, float[96] b, float[24,96] w, float[24] c, int64[2] s = {-1, 96}> {
        [look] e = Gather(mt, i)
        [first] h = MatMul(e, ma)
        [add] a = Add(h, b)
        [gate] g1 = Tanh(a)
        [flat] f = Reshape(g1, s)
        [last] y = Gemm<transB=1, alpha=0.5>(f, w, c)
    }"""


def net() -> ir.Model:
    return filled(TEXT)


def feed(count: int = 60, seed: int = 1) -> dict[str, Array]:
    return {"i": np.random.default_rng(seed).integers(0, 300, (count, 4))}


def run(model: ir.Model) -> Array:
    found: Array = Session(serialize(model, Carried())).run(feed(seed=2))["y"]
    return found


def decibels(exact: Array, found: Array) -> float:
    return float(10 * np.log10(np.mean(exact**2) / np.mean((exact - found) ** 2)))


@settings(max_examples=40, deadline=None)
@given(
    bits=st.sampled_from([8, 4, 3]),
    blocks=st.integers(1, 4),
    size=st.sampled_from([1, 4, 16]),
    free=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_solved_scales_are_never_worse_and_codes_stay_in_range(
    bits: int, blocks: int, size: int, *, free: bool, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    columns, steps = blocks * size, Steps(bits, size, free)
    matrix = draw.standard_normal((2, 5, columns)) * 10.0 ** draw.integers(-3, 3, (2, 5, 1)) + draw.integers(-1, 2)
    factor = draw.standard_normal((2, columns, columns))
    system = factor @ factor.transpose(0, 2, 1) + np.eye(columns)
    found = steps.first(matrix, np.diagonal(system, axis1=1, axis2=2))
    solved = steps.solved(matrix, system, found)

    def error(made: Codes) -> Array:
        gap = matrix - made.matrix
        found: Array = np.einsum("goi,gij,goj->go", gap, system, gap)
        return found

    assert np.all(error(solved) <= error(found) * (1 + 1e-4) + 1e-12)
    _, low, high = steps.limits(found)
    assert np.all((low <= found.codes) & (found.codes <= high))
    assert np.all(high - low == (2**bits - 1 if free else 2**bits - 2))
    assert np.all(solved.scale == solved.scale.astype(np.float32))


def test_a_free_zero_pays_where_weights_of_a_block_lie_on_one_side() -> None:
    matrix = np.random.default_rng(0).uniform(0, 1, (1, 8, 64))
    even = np.ones((1, 64))
    errors = [np.mean((Steps(4, 16, f).first(matrix, even).matrix - matrix) ** 2) for f in (False, True)]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("target", ["portable", "cpu", "tensorrt"])
@pytest.mark.parametrize(("bits", "least"), [(4, 18), (8, 35)])
def test_blocks_compute_what_was_rounded(target: str, bits: int, least: float) -> None:
    form, model = Blocks(bits=bits, size=32, tables=False), net()
    found = packed(model, form, feed(), TARGETS[target])
    assert [p.key for p in found.packages if p.way] == ["first", "last"]
    assert decibels(run(model), run(found.model)) > least
    content = onnx.load_from_string(serialize(found.model, Carried()))
    onnx.checker.check_model(content)
    kinds = {n.op_type for n in content.graph.node}
    assert ("MatMulNBits" in kinds) == (target == "cpu")
    assert ("DequantizeLinear" in kinds) == (target != "cpu")
    zeros = [t for t in content.graph.initializer if t.name.endswith("/zero")]
    assert bool(zeros) == (target != "tensorrt")


def test_both_ways_to_write_blocks_agree() -> None:
    standard, own = (packed(net(), Blocks(), feed(), TARGETS[t]).model for t in ("portable", "cpu"))
    assert decibels(run(standard), run(own)) > 35  # the operator may round data to 8 bits


def test_a_product_becomes_dynamic_integers_and_others_read_its_data_too() -> None:
    model = net()
    found = packed(model, Dynamic(tables=False), feed(), TARGETS["portable"])
    assert decibels(run(model), run(found.model)) > 35
    assert {key(n) for n in model.graph} <= {key(n) for n in found.model.graph}
    assert not any(ops.linears(n) for n in found.model.graph)
    twice = filled(
        """<ir_version: 8, opset_import: ["" : 13]> g (float[N,32] x) => (float[N,8] y)
        <float[32,8] ma, float[32,8] mb> { a = MatMul(x, ma)
            b = MatMul(x, mb)
            y = Mul(a, b) }"""
    )
    data = {"x": np.random.default_rng(0).standard_normal((50, 32)).astype(np.float32)}
    made = packed(twice, Dynamic(), data, TARGETS["cpu"]).model
    assert sum(n.op_type == "DynamicQuantizeLinear" for n in made.graph) == 1
    first, second = (Session(serialize(m, Carried())).run(data)["y"] for m in (twice, made))
    assert decibels(first, second) > 30


def test_a_table_has_a_scale_for_each_row() -> None:
    model = net()
    table = model.graph.initializers["mt"]
    rows = table.const_value.numpy() * np.logspace(-3, 3, 300)[:, None]  # type: ignore[union-attr]
    table.const_value = ir.tensor(rows.astype(np.float32))
    found = packed(model, Dynamic(), feed(), TARGETS["portable"], skip=("first", "last"))
    told = next(p for p in found.packages if p.key == "look")
    assert told.after == table_bytes(300, 32) == 300 * 36
    assert "mt" not in found.model.graph.initializers
    constants = found.model.graph.initializers.items()
    each = [v.const_value.numpy() for n, v in constants if v.const_value is not None and n.startswith("mt/")]
    assert sorted(a.dtype.name for a in each) == ["float32", "int8"]
    codes, scale = sorted(each, key=lambda a: a.dtype.itemsize)
    gap = np.sqrt(np.mean(np.square(codes * scale - rows), axis=1))
    assert np.all(gap <= 0.35 * np.abs(rows).max(axis=1) / 127)
    assert decibels(run(model), run(found.model)) > 30


@pytest.mark.parametrize("form", [Blocks(), Blocks(bits=8, size=16), Dynamic()])
def test_bytes_are_those_that_are_told(form: Packing) -> None:
    found = packed(net(), form, feed(), TARGETS["cpu"])
    for package in found.packages:
        size = sum(
            v.const_value.nbytes
            for n, v in found.model.graph.initializers.items()
            if v.const_value is not None and n.startswith({"look": "mt/", "first": "ma/", "last": "w/"}[package.key])
        )
        assert size == package.after < package.before


def test_what_cannot_be_packed_stays_with_a_reason() -> None:
    found = packed(net(), replace(Blocks(size=64), tables=False), feed(), TARGETS["cpu"], skip=("last",))
    assert {p.key: p.form for p in found.packages} == {
        "first": "its 32 input channels are no multiple of 64",
        "last": "it is skipped",
    }
    assert not found.count
    np.testing.assert_array_equal(run(net()), run(found.model))
