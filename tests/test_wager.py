"""What the clock decides, and where that is written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest

import graphopt
from graphopt.errors import InputError, UsageError
from graphopt.recipe import Recipe
from graphopt.run.bench import Timing
from graphopt.wager import Candidate, settle
from tests.support.models import parse

WITH, WITHOUT = b"with", b"without"


def timing(ratio: float) -> Timing:
    return Timing(1.0, ratio, ratio, ratio - 0.01, ratio + 0.01, 60, "CPUExecutionProvider")


def make(recipe: Recipe) -> Candidate:
    names = [p.name for p in recipe.passes]
    return Candidate(WITH if "fuse-parallel" in names else WITHOUT, [n == "fuse-parallel" for n in names])


@pytest.mark.parametrize(("ratio", "kept"), [(0.9, True), (0.995, False), (1.2, False)])
def test_a_wager_is_kept_where_it_is_faster_beyond_doubt(ratio: float, *, kept: bool) -> None:
    compared: list[Sequence[bytes]] = []

    def compare(original: bytes, candidate: bytes) -> Timing:
        compared.append((original, candidate))
        return timing(ratio)

    recipe, (told,) = settle(Recipe(), make, compare, lambda _: None)
    assert compared == [(WITHOUT, WITH)]
    assert ("fuse-parallel" in [p.name for p in recipe.passes]) == kept
    assert len(recipe.passes) == len(Recipe().passes) - (not kept)
    assert told.startswith(f"fuse-parallel was {'kept' if kept else 'left out'}: {ratio:.3f} [")


def test_what_made_no_edit_is_not_timed() -> None:
    def compare(_original: bytes, _candidate: bytes) -> Timing:
        raise AssertionError

    nothing = Candidate(WITH, [0] * len(Recipe().passes))
    assert settle(Recipe(), lambda _: nothing, compare, lambda _: None) == (Recipe(), ())


def test_what_cannot_be_timed_stays() -> None:
    def compare(_original: bytes, _candidate: bytes) -> Timing:
        raise InputError("it does not load")

    recipe, told = settle(Recipe(), make, compare, lambda _: None)
    assert (recipe, told) == (Recipe(), ("fuse-parallel was not timed: it does not load",))
    recipe, (said,) = settle(Recipe(), lambda r: Candidate(None, make(r).edits), compare, lambda _: None)
    assert recipe == Recipe()
    assert "too large" in said


def branches() -> onnx.ModelProto:
    weights = ", ".join(f"float[8,8] w{i} = {{{','.join(map(str, range(i, 64 + i)))}}}" for i in range(3))
    biases = ", ".join(f"float[8] b{i} = {{{','.join(map(str, range(i, 8 + i)))}}}" for i in range(3))
    nodes = " ".join(f"a{i} = MatMul(x, w{i}) c{i} = Add(a{i}, b{i}) y{i} = Softmax(c{i})" for i in range(3))
    outputs = ", ".join(f"float[N,4,8] y{i}" for i in range(3))
    return parse(f"g (float[N,4,8] x) => ({outputs}) <{weights}, {biases}> {{ {nodes} }}")


def test_the_decision_is_in_the_recipe_and_in_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphopt.pipeline.bench", lambda *_, **__: timing(1.1))
    found = graphopt.optimize(branches(), measure=True, device="cpu")
    (note,) = (n for n in found.report.notes if n.startswith("fuse-parallel"))
    assert "left out" in note
    assert "fuse-parallel" not in [p.name for p in found.recipe.passes]
    assert "fuse-parallel" not in found.recipe.text()
    again = graphopt.optimize(branches(), recipe=found.recipe, device="cpu")
    assert again.model.SerializeToString() == found.model.SerializeToString()


def test_the_clock_is_really_asked() -> None:
    found = graphopt.optimize(branches(), measure=True, device="cpu")
    (note,) = (n for n in found.report.notes if n.startswith("fuse-parallel"))
    assert "pairs" in note
    assert ("Split" in [n.op_type for n in found.model.graph.node]) == ("kept" in note)


def test_without_measuring_the_price_decides() -> None:
    assert "Split" in [n.op_type for n in graphopt.optimize(branches(), device="cpu").model.graph.node]


def test_a_recipe_has_decided_already() -> None:
    with pytest.raises(UsageError, match="measuring decides"):
        graphopt.optimize(branches(), measure=True, recipe=Recipe())
    with pytest.raises(UsageError, match="measuring decides"):
        graphopt.optimize(branches(), measure=True, unverified=True)


def test_numbers_of_a_merged_product_are_those_of_the_parts() -> None:
    found = graphopt.optimize(branches(), device="cpu", data=[{"x": np.ones((2, 4, 8), np.float32)}])
    assert found.report.verification
