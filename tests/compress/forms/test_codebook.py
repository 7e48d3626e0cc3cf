"""Weights as entries of a table: near in the metric of the data, and written so that a runtime folds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.channels import channels
from graphopt.compress.compress import compress, outlined
from graphopt.compress.forms import codebook
from graphopt.compress.forms.codebook import Codebook
from graphopt.compress.forms.offers import everywhere, offers
from graphopt.compress.forms.vectors import Coded, blocks, coded, table
from graphopt.errors import UsageError
from graphopt.graph import values
from graphopt.graph.carry import Carried
from graphopt.graph.nodes import key
from graphopt.graph.save import serialize
from graphopt.run.optimized import optimized
from tests.compress.forms.test_factor import model_of
from tests.compress.test_compress import data, error, residual, run
from tests.support.models import source

Array = NDArray[Any]
_NORMAL = np.random.default_rng(0).standard_normal


def lost(matrix: Array, made: Array, gram: Array) -> float:
    gap = matrix - made
    return float(np.sum((gap @ gram) * gap))


@pytest.mark.parametrize("length", codebook.LENGTHS)
def test_entries_are_chosen_by_what_the_data_says(length: int) -> None:
    matrix, x = _NORMAL((400, 72)), _NORMAL((72, 45)) @ _NORMAL((45, 300))
    gram = x @ x.T / 300 + 0.1 * np.eye(72)
    entries = table([matrix], length)
    assert entries.shape == (256, length)
    plain = coded(matrix, [np.eye(72)], entries, sweeps=0)
    turns = coded(matrix, [gram], entries, sweeps=0)
    found = coded(matrix, [gram], entries)
    assert lost(matrix, found.matrix, gram) <= lost(matrix, turns.matrix, gram)
    assert lost(matrix, turns.matrix, gram) < lost(matrix, plain.matrix, gram)
    assert lost(matrix, found.matrix, gram) < 0.65 * lost(matrix, plain.matrix, gram)
    written = entries[found.codes].astype(np.float64) * found.scale[..., None]
    np.testing.assert_allclose(written.reshape(matrix.shape), found.matrix, rtol=1e-5, atol=1e-6)


def test_weights_that_are_entries_already_stay_what_they_are() -> None:
    entries = _NORMAL((256, 4)).astype(np.float32)
    codes, scale = np.random.default_rng(1).integers(256, size=(16, 8)), 1 + np.abs(_NORMAL((16, 1)))
    matrix = (entries[codes] * scale[..., None]).reshape(16, 32)
    made = coded(matrix, [np.eye(32)], (entries / np.sqrt(np.mean(entries**2))))
    assert lost(matrix, made.matrix, np.eye(32)) < 0.1 * np.sum(matrix**2)


@pytest.mark.parametrize(
    "node",
    [
        "y = MatMul(x, w)",
        "y = Gemm<alpha=0.5, beta=2.0>(x, w, b)",
        "y = Gemm<transB=1>(x, t, b)",
    ],
)
def test_what_is_written_computes_what_was_coded(node: str) -> None:
    w = _NORMAL((8, 6))
    model = model_of(node, "float[N,8]", "float[N,6]", w=w, t=w.T, b=_NORMAL(6))
    (linear,) = ops.linears(model.graph[0])
    entries = table([linear.matrix()[0]], 2)
    made = coded(linear.alpha * linear.matrix()[0], [np.eye(8)], entries)
    feed = {"x": _NORMAL((5, 8)).astype(np.float32)}
    bias = 0 if node.startswith("y = MatMul") else linear.beta * linear.bias_vector()
    codebook.write(model, {key(model.graph[0]): made}, {2: entries})
    values.follow(model)
    np.testing.assert_allclose(run(model, feed), feed["x"] @ made.matrix.T + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "opset"), [("float", 9), ("float16", 13), ("double", 17)])
def test_every_type_and_opset_that_has_such_weights_has_tables(kind: str, opset: int) -> None:
    model = source(
        f'<ir_version: 8, opset_import: ["" : {opset}]> g ({kind}[N,8] x, {kind}[8,6] w) => ({kind}[N,6] y) '
        "{ y = MatMul(x, w) }"
    ).model
    w = model.graph.inputs.pop()
    w.const_value = ir.tensor(_NORMAL((8, 6)).astype({"float": "f4", "float16": "f2", "double": "f8"}[kind]))
    model.graph.register_initializer(w)
    (linear,) = ops.linears(model.graph[0])
    entries = table([linear.matrix()[0]], 3)
    made = coded(linear.matrix()[0], [np.eye(8)], entries)
    feed = {"x": _NORMAL((5, 8)).astype(linear.weights.dtype)}
    codebook.write(model, {key(model.graph[0]): made}, {3: entries})
    values.follow(model)
    found = run(model, feed)
    assert found.dtype == feed["x"].dtype
    np.testing.assert_allclose(found, feed["x"] @ made.matrix.T, rtol=0.02, atol=0.02)


def test_few_samples_that_judge_do_not_hinder_other_forms() -> None:
    w = 0.1 * _NORMAL((32, 40))
    model = model_of("h = MatMul(x, w)  y = MatMul(h, v)", "float[N,32]", "float[N,6]", w=w, v=_NORMAL((40, 6)))
    feed = {"x": _NORMAL((60, 32)).astype(np.float32)}
    found = offers(model, channels(model, values.bound(model, {"x": (60, 32)}), samples=60), feed, resources=("bytes",))
    assert "codebook{length=12}" in found[key(model.graph[0])].ways


def test_a_runtime_folds_it_and_the_file_is_small() -> None:
    model, found = residual()
    forms = {k: Codebook(2) for k, _ in found.products}
    made = compress(model, found, {}, data(), forms=forms)
    assert made.coded
    assert error(model, made.model) < 0.02
    kinds = {n.op_type for n in made.model.graph}
    assert {"Gather", "Cast"} <= kinds
    assert not {"Gather", "Cast"} & {n.op_type for n in optimized(made.model).graph}
    coded = [v for v in made.model.graph.initializers.values() if v.dtype == ir.DataType.UINT8]
    dense = sum(linear.weights.size for n in model.graph for linear in ops.linears(n) if linear.groups == 1)
    assert sum(v.const_value.size for v in coded if v.const_value is not None) * 2 == dense


def test_an_outline_is_as_large_as_the_real_thing() -> None:
    model, found = residual()
    (first, _), (second, _), *_ = found.products
    keep = {next(k for k, g in found.groups.items() if (second, 0) in g.readers): np.arange(12) < 8}
    forms = {first: Codebook(4), second: Codebook(1)}
    real = compress(model, found, keep, data(60), forms=forms).model
    rough = outlined(model, found, keep, forms)
    assert abs(len(serialize(real, Carried())) - len(serialize(rough, Carried()))) < 100


def test_what_does_not_fit_stays_as_it_is() -> None:
    model, found = residual()
    depthwise = next(k for k, p in found.products.items() if p.diagonal)[0]
    made = compress(model, found, {}, data(60), forms={depthwise: Codebook(3)})
    assert "Gather" not in {n.op_type for n in made.model.graph}
    with pytest.raises(UsageError, match="is no length"):
        Codebook(0)


def test_blanks_are_of_the_right_extents() -> None:
    model = model_of("y = MatMul(x, w)", "float[N,8]", "float[N,6]", w=_NORMAL((8, 6)))
    (linear,) = ops.linears(model.graph[0])
    blank: Coded = codebook.blank(linear, 4)
    real = coded(linear.matrix()[0], [np.eye(8)], table([linear.matrix()[0]], 4))
    assert (blank.codes.shape, blank.scale.shape) == (real.codes.shape, real.scale.shape)
    assert Codebook(4).left(linear).bytes > 1 / 16


@pytest.mark.parametrize("length", [3, 5, 6])
def test_rows_need_not_be_made_of_whole_vectors(length: int) -> None:
    model, found = residual()
    forms = {k: Codebook(length) for k, _ in found.products}
    made = compress(model, found, {}, data(), forms=forms)
    assert {"Gather", "Slice"} <= {n.op_type for n in made.model.graph}
    assert not {"Gather", "Slice"} & {n.op_type for n in optimized(made.model).graph}
    assert error(model, made.model) < 0.3
    rough = outlined(model, found, {}, forms)
    assert abs(len(serialize(made.model, Carried())) - len(serialize(rough, Carried()))) < 100


def test_many_columns_are_looked_at_in_blocks() -> None:
    matrix, x = _NORMAL((4, 2400)), _NORMAL((2400, 300))
    whole = x @ x.T / 300 + 0.1 * np.eye(2400)
    parts = blocks(2400, 4)
    assert [p.stop - p.start for p in parts] == [1152, 1152, 96]
    entries = table([matrix], 4)
    plain = coded(matrix, [np.eye(p.stop - p.start) for p in parts], entries)
    found = coded(matrix, [whole[p, p] for p in parts], entries)
    assert lost(matrix, found.matrix, whole) < 0.9 * lost(matrix, plain.matrix, whole)


def test_what_is_wrong_inside_of_a_block_counts_for_what_the_block_adds() -> None:
    """The second product of the block is made smaller: what the first one does wrong matters less by as much."""
    model, found = residual()
    lost = list[float]()
    for factor in (1.0, 0.25):
        second = next(n for n in model.graph if key(n) == list(found.products)[1][0])
        weight = second.inputs[1]
        assert weight is not None
        assert weight.const_value is not None
        weight.const_value = ir.tensor(factor * weight.const_value.numpy())
        choices = offers(model, found, data(), resources=("bytes",))
        first = choices[next(iter(found.products))[0]]
        assert first.ways[0] == 'lowrank{share=0.2,first="w"}'
        lost.append(first.losses[0])
    assert 0.02 < lost[1] / lost[0] < 0.12  # a sixteenth, were the stream not a little smaller as well


def test_weights_that_are_results_stay_what_they_are() -> None:
    model = model_of("y = MatMul(x, w)", "float[N,80]", "float[N,60]", w=_NORMAL((80, 60)))
    assert everywhere(model, Codebook(4))
    model.graph.outputs.append(model.graph.initializers["w"])
    with pytest.raises(UsageError, match="no product of the model"):
        everywhere(model, Codebook(4))
