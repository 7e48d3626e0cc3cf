"""Random graphs keep their meaning, whatever the lossless passes make of them.

`pytest tests/properties -m soak` tries 20,000 graphs; a plain run tries some hundred, always the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from types import MappingProxyType

import onnx
import onnx.checker
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, reject, settings

from graphopt.catalogue import LOSSLESS
from graphopt.errors import InputError
from graphopt.graph import functions, invariants
from graphopt.graph.load import Source, load
from graphopt.graph.nodes import graphs
from graphopt.graph.record import Exactness
from graphopt.protocol import Evaluator, Pass
from graphopt.run.machine import Machine
from graphopt.run.session import Feed
from graphopt.verify import Judge, explain, prepared, rounded
from tests.strategies import models
from tests.support.models import Rewritten, differences, feed, overrides, rewritten, run, show

BINDINGS: Sequence[Mapping[str, int]] = (MappingProxyType({"N": 2, "L": 3}), MappingProxyType({"N": 1, "L": 5}))
ROOM = 1000
"""Bytes by which files may grow."""
PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "GRU", "LSTM", "MatMul", "RNN"})
"""The runtime adds up in another order once a weight is an initializer, which it packs beforehand."""

WRITTEN_OUT = frozenset({"ConcatFromSequence", "SplitToSequence"})
"""Each tensor of such a sequence may need a node that cuts it out and one for its axis."""

usual = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)


def check(model: onnx.ModelProto, passes: Sequence[Pass], evaluate: Evaluator) -> None:
    """Rewrite the model, and insist that the result is valid, computes the same, and stays as it is from then on."""
    feeds = [
        each
        for seed, dims in enumerate(BINDINGS)
        for each in (feed(model, dims, seed=seed), feed(model, dims, seed=seed) | overrides(model, dims, seed=seed))
    ]
    runs(model, feeds)
    source = load(model)
    result = rewritten(source, passes, evaluate, growth=ROOM)
    told = f"{show(model)}\nbecame\n{show(result.model)}\nby {[str(e) for e in result.edits]}"
    valid(model, result, told)
    exact = all(e.exactness is Exactness.BITWISE for e in result.edits)
    if exact and PRODUCTS.isdisjoint(operators(model)) and not halves(model):
        same_bits(model, result.model, told)
    if result.edits:
        same_within_tolerance(source, result, feeds, told)
    again = rewritten(load(result.model), passes, evaluate, growth=0)
    assert not again.edits, f"{told}\nand then\n{show(again.model)}\nby {[str(e) for e in again.edits]}"


def runs(model: onnx.ModelProto, feeds: Sequence[Feed]) -> None:
    """Pass over what the runtime is not up to."""
    try:
        for each in feeds:
            run(model, each)
    except InputError:
        reject()


def valid(model: onnx.ModelProto, result: Rewritten, told: str) -> None:
    onnx.checker.check_model(result.model)
    assert not list(invariants.broken(ir.from_proto(result.model))), told
    assert result.model.graph.input == model.graph.input, told
    assert result.model.graph.output == model.graph.output, told
    if WRITTEN_OUT.isdisjoint(operators(model)):
        assert size(result.model) <= size(model), told


def operators(model: onnx.ModelProto) -> list[str]:
    """All that are there, those in local functions among them."""
    made = ir.from_proto(model)
    inside = chain.from_iterable(f.all_nodes() for f in made.functions.values())
    return [node.op_type for node in (*chain.from_iterable(graphs(made)), *inside)]


def size(model: onnx.ModelProto) -> int:
    """How many nodes it would be with all calls expanded."""
    made = ir.from_proto(model)
    expanded = functions.expanded(made)
    nodes = [n.op_identifier() for n in chain.from_iterable(graphs(made))]
    return sum(expanded.get(n, 1) for n in nodes)


def halves(model: onnx.ModelProto) -> bool:
    """Whether something is half precision: the runtime computes chains of it in single precision."""
    found = graphs(load(model).model)
    return any(v.dtype is ir.DataType.FLOAT16 for g in found for v in (*g.inputs, *(o for n in g for o in n.outputs)))


def same_bits(model: onnx.ModelProto, other: onnx.ModelProto, told: str) -> None:
    """Also where a feed holds what is no number, unless that is cast: no integer is right then."""
    edges = "Cast" not in operators(model)
    for seed, dims in enumerate(BINDINGS):
        special = feed(model, dims, seed=seed, edges=edges)
        found = differences(run(model, special), run(other, special))
        assert not found, f"{told}\n{found}"


def same_within_tolerance(source: Source, result: Rewritten, feeds: Sequence[Feed], told: str) -> None:
    """By the judgement of the product itself."""
    judge = Judge(source, feeds, rounded(result.edits), Machine(threads=1))
    found = judge.other(prepared(load(result.model)))
    assert found, f"{told}\n{explain(found)}"


@settings(usual, max_examples=200)
@given(model=models())
def test_random_graphs_keep_their_meaning(model: onnx.ModelProto, evaluate: Evaluator) -> None:
    check(model, [p() for p in LOSSLESS], evaluate)


@pytest.mark.parametrize("step", LOSSLESS, ids=lambda p: p.name)
@settings(usual, max_examples=15)
@given(model=models())
def test_random_graphs_keep_their_meaning_in_each_pass(
    step: type[Pass], model: onnx.ModelProto, evaluate: Evaluator
) -> None:
    check(model, [step()], evaluate)


@pytest.mark.soak
@settings(usual, max_examples=20_000)
@given(model=models())
def test_very_many_random_graphs_keep_their_meaning(model: onnx.ModelProto, evaluate: Evaluator) -> None:
    check(model, [p() for p in LOSSLESS], evaluate)
