"""The proof of every cut: masked where products read equals sliced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphopt import pipeline
from graphopt.analysis.evidence import gather
from graphopt.catalogue import LOSSLESS
from graphopt.graph.load import load
from graphopt.recipe import Recipe
from tests.analysis.kinds import KINDS, Kind
from tests.end_to_end.support import SHARED
from tests.support.masking import Case, case, keeps, sliced, violations
from tests.support.models import differences, rewritten, run
from tests.support.sampling import one_in

both = pytest.mark.parametrize("inner", [True, False], ids=["inner", "outer"])
_SAMPLED = 5
ZOO = sorted((SHARED / "zoo").glob("*.onnx"))


@both
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_masked_equals_sliced(kind: Kind, *, inner: bool) -> None:
    given = case(kind.text, tolerance=kind.tolerance)
    found = given.find(inner=inner)
    assert not violations(given, found)
    assert not violations(given, found, alone=False, seed=1)


@both
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_is_cut_can_be_rewritten_again(kind: Kind, *, inner: bool) -> None:
    given = case(kind.text, tolerance=kind.tolerance)
    found = given.find(inner=inner)
    for name, keep in keeps(found, alone=False):
        thin = sliced(given.source, found, keep)
        again = rewritten(load(onnx.ModelProto.FromString(thin)), [p() for p in LOSSLESS], growth=10_000)
        onnx.checker.check_model(again.model, full_check=not any(n.domain for n in again.model.graph.node))
        for feed in given.feeds:
            assert not differences(run(thin, feed), run(again.model, feed), relative=1e-4), name


@both
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_names_stay_and_the_model_is_left_alone(kind: Kind, *, inner: bool) -> None:
    given = case(kind.text)
    before = {n: v.const_value.numpy().shape for n, v in given.source.model.graph.initializers.items() if v.const_value}
    names = [(n.name, n.op_type, [v.name for v in n.outputs]) for n in given.source.model.graph]
    found = given.find(inner=inner)
    for _, keep in keeps(found, alone=False):
        made = onnx.ModelProto.FromString(sliced(given.source, found, keep)).graph.node
        kept = {(n.name, n.op_type, *n.output) for n in made}
        assert {(n, op, *(str(v) for v in out)) for n, op, out in names if op != "Concat"} <= kept
    after = {n: v.const_value.numpy().shape for n, v in given.source.model.graph.initializers.items() if v.const_value}
    assert before == after


@pytest.mark.skipif(not ZOO, reason="there is no ../shared with models here")
@pytest.mark.parametrize("path", one_in(_SAMPLED, ZOO, (p.stem for p in ZOO)))
def test_every_group_of_a_larger_model(path: Path) -> None:
    given = load(path)
    feed = gather(given, None, None, 0).feeds[0]
    result = pipeline.optimize(given, Recipe.of(None, None), None, pipeline.Settings(threads=1)).attempt
    ready = Case(replace(given, model=result.model), (feed,), 1e-4)
    for inner in (True, False):
        assert not violations(ready, ready.find(inner=inner), alone=False)


def test_an_index_that_is_taken_out_of_a_slice_backwards() -> None:
    given = case("""g (float[N,3,6,6] x) => (float[N,5,6,6] y)
    <float[6,3,1,1] w1, int64[1] one = {1}, int64[1] minus = {-1}, int64[1] low = {-9223372036854775807},
     float[5,6,1,1] w2>
    { [one] a = Conv(x, w1) b = Slice(a, minus, low, one, minus) [last] y = Conv(b, w2) }""")
    found = given.find(inner=True)
    for unit in range(6):
        thin = sliced(given.source, found, {"one": np.arange(6) != unit})
        assert run(thin, given.feeds[0])["y"].shape == (2, 5, 6, 6)
