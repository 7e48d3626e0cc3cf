"""Every fact of the operator table against the runtime: an operator is tested by being in the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt import ops
from graphopt.graph.domain import Domain

from .examples import WITHOUT, Draw, examples
from .single import Array, Const, Example, flat, run

EXAMPLES = tuple(examples())
REFUSALS = tuple(
    getattr(onnxruntime.capi.onnxruntime_pybind11_state, name)
    for name in ("Fail", "InvalidArgument", "RuntimeException")
)
every = pytest.mark.parametrize("example", EXAMPLES, ids=[f"{i}-{e}" for i, e in enumerate(EXAMPLES)])


def entry(example: Example) -> ops.OpSpec:
    return ops.TABLE[example.domain, example.op]


def only_node(model: ir.Model) -> ir.Node:
    return model.graph.node("node")


def same(left: list[Any], right: list[Any]) -> bool:
    """Bit for bit."""
    return all(bits(a) == bits(b) for a, b in zip(left, right, strict=True))


def bits(value: Any) -> Any:
    elements = flat(value)
    return elements.tolist() if elements.dtype == object else elements.tobytes()


def test_every_operator_has_an_example_or_a_reason() -> None:
    assert ops.known() - {(e.domain, e.op) for e in EXAMPLES} == WITHOUT.keys()


@every
def test_what_is_pure_gives_the_same_bits_again(example: Example) -> None:
    results = []
    for seed in (1, 2):
        onnxruntime.set_seed(seed)
        results.append(example.run())
    if ops.is_pure(only_node(example.model()), {}):
        assert same(*results)
    else:
        assert not same(*results)


@every
def test_what_commutes_gives_the_same_bits_in_the_other_order(example: Example) -> None:
    first, second = (*example.arrays, None, None)[:2]
    if np.shape(first) != np.shape(second) or getattr(first, "dtype", None) != getattr(second, "dtype", 0):
        return
    swapped = replace(example, inputs=(second, first, *example.inputs[2:]))
    assert same(example.run(), swapped.run()) == entry(example).commutes


@every
def test_what_is_carried_was_there_before(example: Example) -> None:
    node, outputs = only_node(example.model()), example.run()
    if any(a.type is ir.AttributeType.GRAPH for a in node.attributes.values()):
        return  # pairs of control flow lead through bodies, see tests/ops/test_domain.py
    sources: dict[ir.Value, list[Array]] = {}
    for source, target in entry(example).carries(node):
        content = example.arrays[node.inputs.index(source)]
        assert content is not None
        sources.setdefault(target, [np.zeros(int(entry(example).fills))]).append(flat(content))
    for target, found in sources.items():
        assert np.isin(flat(outputs[node.outputs.index(target)]), np.concatenate(found)).all()


@pytest.mark.parametrize("example", [e for e in EXAMPLES if entry(e).positive], ids=str)
def test_what_is_positive_is_never_below_zero(example: Example) -> None:
    feed = example.feed()
    if entry(example).positive == "kept":
        feed = {name: abs(v) if np.asarray(v).dtype.kind == "f" else v for name, v in feed.items()}
    for y in example.run(feed):
        assert flat(y).min() >= 0


# -- what feeds may hold --------------------------------------------------------------------------------------------


def admitted(example: Example) -> Iterator[tuple[int, Array, Domain]]:
    """The inputs of an example that only take some values."""
    node = only_node(example.model())
    for index, content in enumerate(example.inputs):
        domain = entry(example).admits(node, index)
        if domain is not None and isinstance(content, np.ndarray):
            yield index, content, domain


def draw(random: np.random.Generator, domain: Domain, like: Array) -> Array:
    high = domain.limit({})
    low = domain.low if domain.low is not None else (high or 0) - 5
    high = low + 5 if high is None else high
    pick = random.uniform if like.dtype.kind == "f" else random.integers
    drawn = np.asarray(pick(low, high, like.shape)).astype(like.dtype)
    return np.sort(drawn) if domain.ascending else drawn


@every
def test_what_is_admitted_runs(example: Example) -> None:
    random = np.random.default_rng(0)
    for index, content, domain in admitted(example):
        for _ in range(4):
            outputs = example.run(example.feed() | {f"in{index}": draw(random, domain, content)})
            assert not any(np.isnan(flat(y)).any() for y in outputs if flat(y).dtype.kind == "f")


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.strict], ids=str)
def test_what_is_not_admitted_is_refused(example: Example) -> None:
    bounds = {index: domain.limit({}) for index, _, domain in admitted(example)}
    for index in example.strict:
        content = example.inputs[index]
        assert isinstance(content, np.ndarray)
        with pytest.raises(REFUSALS):
            example.run(example.feed() | {f"in{index}": np.full_like(content, bounds[index])})


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_is_pulled_lands_inside(data: st.DataObject) -> None:
    op = data.draw(st.sampled_from(["Add", "Sub", "Mul", "Div", "Floor", "Cast"]))
    dtype: Any = data.draw(st.sampled_from([np.int64, np.float64]))
    low = data.draw(st.integers(-20, 20))
    wanted = Domain(low, low + data.draw(st.integers(20, 60)))
    constants = data.draw(st.lists(st.integers(-6, 6), min_size=1, max_size=3))
    index = data.draw(st.integers(0, 1)) if op in {"Add", "Mul"} else 0
    like = np.zeros(len(constants), dtype)
    if op == "Floor":
        like = like.astype(np.float64)
    inputs: tuple[Array | Const, ...] = (like,)
    if op in {"Add", "Sub", "Mul", "Div"}:
        constant = Const(np.array(constants, dtype))
        inputs = (like, constant) if index == 0 else (constant, like)
    example = Example(op, inputs, {"to": 7} if op == "Cast" else {})
    model = example.model()
    pulled = entry(example).pulls(only_node(model), index, wanted)
    if pulled is None:
        assert op in {"Mul", "Div"}
        assert min(constants) <= 0
        return
    x = draw(np.random.default_rng(data.draw(st.integers(0, 9))), pulled, like)
    (y,) = run(model, {f"in{index}": x})
    narrow = pulled.low is not None and pulled.high == pulled.low + 1  # nothing may fit: the least is tried
    assert narrow or bool(((y >= wanted.low) & (y < wanted.high)).all())


def scaled_and_added() -> Iterator[Example]:
    """Uses in which the result is linear in some inputs."""
    yield from EXAMPLES
    d = Draw()
    yield Example("Mul", (d.f(2, 3), Const(d.f(3))))
    yield Example("Mul", (Const(d.f(3)), d.f(2, 3)))
    yield Example("Gemm", (d.f(2, 3), d.f(3, 4), d.f(4)), {"beta": 0.5})


SUMS = [e for e in scaled_and_added() if entry(e).sums(only_node(e.model())) and flat(e.arrays[0]).dtype.kind == "f"]


@pytest.mark.parametrize("example", SUMS, ids=[f"{i}-{e}" for i, e in enumerate(SUMS)])
def test_sums(example: Example) -> None:
    """Linear in all of these inputs together, but for what there is without them."""
    random = np.random.default_rng(0)
    places = {f"in{i}" for i in entry(example).sums(only_node(example.model()))}
    feed = {
        f"in{i}": a for i, a in enumerate(example.arrays) if a is not None and not isinstance(example.inputs[i], Const)
    }
    some, other = (
        {n: random.standard_normal(a.shape).astype(a.dtype) for n, a in feed.items() if n in places} for _ in "ab"
    )
    none, both = {n: 0 * a for n, a in some.items()}, {n: 2 * a - 3 * other[n] for n, a in some.items()}
    zero, one, two, sums = (example.run(feed | given) for given in (none, some, other, both))
    for z, a, b, c in zip(zero, one, two, sums, strict=True):
        assert np.allclose(c - z, 2 * (a - z) - 3 * (b - z), atol=1e-4)
