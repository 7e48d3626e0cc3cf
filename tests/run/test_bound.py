from __future__ import annotations

import gc
import weakref
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphopt.errors import InputError, UsageError
from graphopt.graph import save
from graphopt.graph.load import load
from graphopt.run.cuda import cuda_works
from graphopt.run.machine import HERE
from graphopt.run.session import Device, Session
from tests.run.test_session import ADD, model
from tests.support.models import parse

CUDA, WHY = cuda_works()
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not CUDA, reason=WHY)])]
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return all(np.array_equal(first[n], second[n]) and first[n].dtype == second[n].dtype for n in first | second)


@pytest.mark.parametrize("device", DEVICES)
def test_a_bound_run_equals_a_plain_one(device: Device) -> None:
    session = Session(
        model("""g (float[n,3] x, bfloat16[n,3] z)
          => (float[n,3] y, bfloat16[n,3] v, string[2] t, int64[2,m] i, int64[2] d, float[n,3] same)
          { y = Neg(x) v = Identity(z) i = NonZero(x) d = Shape(x) same = Identity(x) t = Cast <to = 8>(d) }"""),
        device=device,
    )
    feed = {"x": X, "z": X.astype(ml_dtypes.bfloat16)}
    bound = session.bound(feed)
    for _ in range(3):
        bound.run()
        assert same(bound.outputs(), session.run(feed))


def test_what_is_computed_anew_is_seen_and_stays_where_it_was() -> None:
    session = Session(ADD)
    x = X.copy()
    bound = session.bound({"x": x, "z": X})
    first, where = bound.outputs(), [v.data_ptr() for v in bound._binding.get_outputs()]
    x += 1  # the memory that the model reads
    bound.run()
    assert np.array_equal(bound.outputs()["y"], first["y"] + 1)
    assert [v.data_ptr() for v in bound._binding.get_outputs()] == where


@pytest.mark.parametrize(
    ("graph", "feed", "sentence"),
    [
        (
            "g (seq(float[2]) s) => (float[k] y) { y = ConcatFromSequence <axis=0>(s) }",
            {"s": [X[0]]},
            "input 's' cannot",
        ),
        ("g (string[n] s) => (string[n] y) { y = Identity(s) }", {"s": ["a"]}, "input 's' cannot stay where the model"),
        ("g (float[n,3] x) => (float[n,3] y) { y = Neg(x) }", {"x": X[:, :2]}, "the model fails on this feed: "),
        ("g (float[n,3] x) => (float[n,3] y) { y = Neg(x) }", {}, "lacks the input 'x'"),
    ],
)
def test_a_feed_that_cannot_be_bound_is_one_sentence(graph: str, feed: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Session(model(graph)).bound(feed)


def test_a_result_that_is_no_tensor_runs_but_is_not_read() -> None:
    bound = Session(model("g (float[2] x) => (seq(float[2]) y) { y = SequenceConstruct(x, x) }")).bound({"x": X[0, :2]})
    bound.run()
    with pytest.raises(InputError, match=r"an output is a seq\(tensor\(float\)\)"):
        bound.outputs()


def test_a_bound_model_keeps_the_weights_that_its_session_was_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save, "EXTERNAL_ABOVE", 1)
    numbers = np.arange(1200, dtype=np.float32)
    weight = f"float[1200] w = {{{', '.join(map(str, numbers))}}}"
    given = load(parse(f"g (float[1200] x) => (float[1200] y) <{weight}> {{ y = Mul(x, w) }}")).model
    session = HERE.session(given, optimize=False)
    weights, bound = weakref.ref(session._weights["w"]), session.bound({"x": numbers})
    del session
    gc.collect()
    assert weights() is not None
    bound.run()
    assert np.array_equal(bound.outputs()["y"], numbers**2)


def test_a_session_with_a_cuda_graph_is_bound_once() -> None:
    session, feed = Session(ADD), {"x": X, "z": X}
    session.bound(feed)
    session.bound(feed)
    session.options = {"enable_cuda_graph": "1"}
    with pytest.raises(UsageError, match="only once: make another session"):
        session.bound(feed)


@pytest.mark.cuda
@pytest.mark.skipif(not CUDA, reason=WHY)
def test_a_cuda_graph_replays_what_plain_runs_compute() -> None:
    session = Session(ADD, device="cuda", cuda={"enable_cuda_graph": "1"})
    feed = {"x": X, "z": -2 * X}
    bound = session.bound(feed)
    for _ in range(3):
        bound.run()
        assert same(bound.outputs(), session.run(feed))
        session.run({"x": X[:1], "z": X[:1]})
