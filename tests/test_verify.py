"""Judging a rewritten graph, and finding the edit to blame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.errors import UsageError
from graphopt.graph.load import load
from graphopt.graph.record import Edit, Exactness
from graphopt.run.compare import Comparison, OutputError
from graphopt.run.machine import Machine
from graphopt.verify import Judge, explain, guilty, prepared, products, rounded
from tests.end_to_end.support import net
from tests.support.faking import FakeCuda
from tests.support.models import feed, source


def edit(name: str, exactness: Exactness = Exactness.BITWISE, reduction: int = 1, *values: str) -> Edit:
    return Edit(name, "root", 0, exactness, values, reduction)


# -- bisecting -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_the_guilty_edit_is_found_in_logarithmic_time(case: tuple[int, int]) -> None:
    count, wrong = case
    edits = [edit(str(i)) for i in range(count)]
    asked: list[int] = []

    def holds(limit: int) -> bool:
        asked.append(limit)
        return limit <= wrong

    assert guilty(edits, holds) is edits[wrong]
    assert len(asked) <= count.bit_length()
    assert all(0 < n < count for n in asked)


def test_of_several_guilty_edits_the_first_is_found() -> None:
    edits = [edit(str(i)) for i in range(40)]
    assert guilty(edits, lambda limit: limit <= 7) is edits[7]


def test_an_only_edit_is_guilty_without_asking() -> None:
    only = edit("only")
    assert guilty([only], lambda _: pytest.fail("it was asked")) is only


# -- where noise belongs ---------------------------------------------------------------------------------------------


def test_rounded_values_come_with_their_longest_sum() -> None:
    edits = [
        edit("a", Exactness.BITWISE, 9, "x"),
        edit("b", Exactness.ROUNDING, 9, "y", "z"),
        edit("c", Exactness.ROUNDING, 27, "y"),
        edit("d", Exactness.LOSSY, 3, "z"),
    ]
    assert rounded(edits) == {"y": 27, "z": 9}
    assert rounded([]) == {}


def test_products_are_named_with_the_length_of_their_sums() -> None:
    assert products(load(net(2)).model) == {"c0": 27, "c1": 27}
    assert products(source("g (float[N] x) => (float[N] y) { y = Neg(x) }").model) == {}


# -- in words --------------------------------------------------------------------------------------------------------


def test_explanations() -> None:
    def output(note: str, share: float = 0.0) -> OutputError:
        passed = not note
        return OutputError("y", 0.5, 0.1, 20.0, 0.25, share, passed, 0, evidence=passed, note=note)

    def explained(*outputs: OutputError, differences: tuple[str, ...] = ()) -> str:
        return explain(Comparison(outputs, 1, passed=False, differences=differences))

    assert explained(output("1 of 5 values differ"), differences=("it lost its inputs", "and more")) == (
        "it lost its inputs"
    )
    assert explain(Comparison((output(""),), 1, passed=True)) == "it passed"
    assert explained(output(""), output("1 of 5 values differ")) == "output 'y': 1 of 5 values differ"
    assert explained(output("the error exceeds the tolerance", 2.0)) == (
        "output 'y' is off by 2 times its tolerance, at most by 0.5"
    )


# -- judging ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge() -> Judge:
    given = load(net(2))
    return Judge(given, [feed(net(2), {"N": n}, seed=n) for n in (2, 3)], products(given.model), Machine(threads=1))


def changed(model: onnx.ModelProto, name: str, factor: float) -> ir.Model:
    copy = ir.from_proto(model)
    value = copy.graph.initializers[name]
    assert value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(factor))
    return copy


def test_the_original_passes(judge: Judge) -> None:
    assert judge(ir.from_proto(net(2)))


@pytest.mark.parametrize(("factor", "passes"), [(1 + 1e-7, True), (1.001, False), (float("nan"), False)])
def test_weights_may_differ_by_rounding_only(judge: Judge, factor: float, passes: bool) -> None:  # noqa: FBT001
    assert bool(judge(changed(net(2), "s1", factor))) is passes


def test_a_broken_graph_is_told_before_it_is_run(judge: Judge) -> None:
    broken = ir.from_proto(net(2))
    broken.graph.outputs[0] = ir.Value(name="elsewhere")
    found = judge(broken)
    assert not found
    assert "elsewhere" in explain(found)


def test_a_given_tolerance_replaces_the_derived_one(judge: Judge) -> None:
    other = load(ir.to_proto(changed(net(2), "s1", 1.01)))
    assert not judge.other(prepared(other))
    assert judge.other(prepared(other), rtol=0.05, atol=0.01)
    with pytest.raises(UsageError, match="atol is -1"):
        judge.other(prepared(load(net(2))), atol=-1.0)


def test_a_written_file_is_read_back(judge: Judge, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(net(2).SerializeToString())
    assert judge.written(path)
    path.write_bytes(ir.to_proto(changed(net(2), "w0", 2)).SerializeToString())
    assert not judge.written(path)


def test_noise_is_heard_where_sums_are_rounded_anew() -> None:
    """Without injected noise the tolerance would follow from the runtime's own optimizations alone."""
    given, feeds = load(net(2)), [feed(net(2), {"N": 2})]
    judges = [Judge(given, feeds, r, Machine(threads=1)) for r in ({}, products(given.model))]
    quiet, told = (judge.other(prepared(given)).outputs[0].tolerance for judge in judges)
    assert told >= quiet > 0


@pytest.mark.parametrize(
    ("text", "ways"),
    [
        ("g (float[2] x) => (float[2] y) { y = Neg(x) }", 3),
        ("g (float[2] x) => (float[2] y) { r = RandomNormalLike(x) y = Add(x, r) }", 2),
    ],
)
def test_random_numbers_of_cuda_are_not_held_against_those_of_the_cpu(text: str, ways: int) -> None:
    judge = Judge(source(text), [{"x": np.ones(2, np.float32)}], {}, FakeCuda(device="cuda"))
    assert len(judge.reference.ways) == ways


# -- ties ------------------------------------------------------------------------------------------------------------

PICKS = """g (float[N,4] x) => (%s) <float[4] d = {0.0, %r, 0.0, 0.0}, int64[1] two = {2}> {
    s = Add(x, d) %s }"""
ROWS = np.array([[1, 1, 0, 0], [3, 2, 1, 0], [0, 0, 5, 5], [9, 8, 7, 6]], np.float32)
"""In rows 0 and 2 two are the largest."""


@pytest.mark.parametrize(
    ("output", "body"),
    [
        ("int64[N] k", "k = ArgMax<axis = 1, keepdims = 0>(s)"),
        ("int64[N,1] k", "k = ArgMax<axis = -1>(s)"),
        ("int64[N] k", "m = Neg(s) k = ArgMin<axis = 1, keepdims = 0>(m)"),
        ("int32[N] k", "i = ArgMax<axis = 1, keepdims = 0>(s) j = Identity(i) k = Cast<to = 6>(j)"),
        ("int64[N,2] k", "v, k = TopK(s, two)"),
    ],
)
def test_a_tie_in_the_original_is_no_error(output: str, body: str) -> None:
    given = source(PICKS % (output, 0.0, body))
    judge = Judge(given, [{"x": ROWS}], {}, Machine(threads=1))
    near, far = (judge.other(prepared(source(PICKS % (output, d, body)))) for d in (1e-3, 4.5))
    assert near
    assert near.outputs[0].undecided >= 1
    assert not far, "row 1 is decided"


def test_no_more_is_excused_than_the_tolerance() -> None:
    body, output = "k = ArgMax<axis = 1, keepdims = 0>(s)", "int64[N] k"
    judge = Judge(source(PICKS % (output, 0.0, body)), [{"x": ROWS}], {}, Machine(threads=1))
    other = prepared(source(PICKS % (output, 1.5, body)))
    assert not judge.other(other), "in row 1 the second largest is 1 below the largest"
    assert judge.other(other, atol=1.0)
    assert not judge.other(other, atol=0.9)


def test_places_that_are_none_are_errors() -> None:
    judge = Judge(source("g (float[N,4] x) => (int64[N] k) { k = ArgMax<axis = 1, keepdims = 0>(x) }"),
                  [{"x": ROWS}], {}, Machine(threads=1))  # fmt: skip
    shifted = """g (float[N,4] x) => (int64[N] k) <int64 n = {%d}> {
        i = ArgMax<axis = 1, keepdims = 0>(x) k = Add(i, n) }"""
    assert judge.other(prepared(source(shifted % 0)))
    for off in (4, -9):
        assert not judge.other(prepared(source(shifted % off)), atol=100)
