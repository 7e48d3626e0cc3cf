from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import parser

from graphopt.run.child import Child, ChildFailed, Limits
from graphopt.run.session import Session
from graphopt.run.worker import send


def model(graph: str) -> bytes:
    return bytes(parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {graph}').SerializeToString())


ADD = model("g (float[n] x) => (float[n] y) { y = Add(x, x) }")
X = {"x": np.array([1, 2], np.float32)}
DIVIDES = model("""g () => (int64 y) <int64 a = {-9223372036854775808}, int64 b = {-1}> { y = Div(a, b) }""")
GROWS = model("""g () => (float[n] y) <int64[1] n = {1000000000000}> { y = ConstantOfShape(n) }""")
ENDLESS = model("""g () => (int64 y) <int64 n = {9223372036854775807}, bool go = {1}, int64 zero = {0}> {
  y = Loop(n, go, zero) <body = b (int64 i, bool c, int64 v) => (bool d, int64 w) { d = Identity(c) w = Add(v, i) }>
}""")


def runs(child: Child) -> bool:
    return np.array_equal(child.evaluate(ADD, X)["y"], X["x"] * 2)


def pid_of(child: Child) -> int:
    assert child._worker is not None
    return child._worker.process.pid


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with Child(Limits(seconds=20)) as child:
        yield child


def test_one_worker_serves_many_evaluations(child: Child) -> None:
    assert runs(child)
    pid = pid_of(child)
    assert runs(child)
    assert runs(child)
    assert pid_of(child) == pid


def test_the_model_is_sent_only_when_it_changes(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    other = model("g (float[n] x) => (float[n] y) { y = Neg(x) }")
    headers: list[Any] = []

    def spy(pipe: Any, header: Any, blobs: Any) -> None:
        headers.append(header)
        send(pipe, header, blobs)

    monkeypatch.setattr("graphopt.run.child.send", spy)
    child.evaluate(other, X)
    child.evaluate(other, X)
    child.evaluate(ADD, X)
    assert ["model" in h for h in headers] == [True, False, True]
    assert np.array_equal(child.evaluate(other, X)["y"], -X["x"])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [(DIVIDES, "killed by SIGFPE"), (GROWS, "out of memory"), (b"no model", "does not load the model")],
    ids=["division", "allocation", "garbage"],
)
def test_a_bad_model_is_a_reason_and_the_next_one_runs(child: Child, bad: bytes, reason: str) -> None:
    with pytest.raises(ChildFailed, match=reason):
        child.evaluate(bad)
    assert runs(child)


def test_an_endless_loop_is_cut_off() -> None:
    with Child(Limits(seconds=1)) as child:
        with pytest.raises(ChildFailed, match="longer than 1 s"):
            child.evaluate(ENDLESS)
        assert runs(child)


def test_a_feed_that_does_not_fit_leaves_the_worker_alive(child: Child) -> None:
    assert runs(child)
    pid = pid_of(child)
    with pytest.raises(ChildFailed, match="lacks the input 'x'"):
        child.evaluate(ADD)
    assert runs(child)
    assert pid_of(child) == pid


def test_outputs_larger_than_allowed_are_not_sent() -> None:
    with Child(Limits(result_bytes=4)) as child, pytest.raises(ChildFailed, match="8 bytes, more than the 4 allowed"):
        child.evaluate(ADD, X)


def test_without_fetch_only_the_fact_comes_back(child: Child) -> None:
    assert child.evaluate(ADD, X, fetch=False) == {}


def test_a_worker_says_what_a_model_takes(child: Child) -> None:
    assert child.inputs(ADD) == Session(ADD).inputs
    text = "g (seq(float[3]) s, optional(bool) o, float[n,?,2] x) => (seq(float[3]) y) { y = Identity(s) }"
    assert child.inputs(model(text)) == Session(model(text)).inputs
    with pytest.raises(ChildFailed, match="does not load"):
        child.inputs(b"no model")


IDENTITIES = [
    ("float", np.array([[1.5, np.nan]], np.float32)),
    ("float16", np.array([[1.5]], np.float16)),
    ("bfloat16", np.array([[1.5]], ml_dtypes.bfloat16)),
    ("float8e4m3fn", np.array([[1.5]], ml_dtypes.float8_e4m3fn)),
    ("int64", np.array([[-(2**63), 1]])),
    ("uint8", np.zeros((0, 3), np.uint8)),
    ("bool", np.array([[True, False]])),
    ("string", np.array([["a", "bé\n"]], object)),
]


@pytest.mark.parametrize(("dtype", "value"), IDENTITIES, ids=[name for name, _ in IDENTITIES])
def test_every_element_type_survives_the_journey(child: Child, dtype: str, value: np.ndarray) -> None:
    y = child.evaluate(model(f"g ({dtype}[a,b] x) => ({dtype}[a,b] y) {{ y = Identity(x) }}"), {"x": value})["y"]
    assert y.dtype == value.dtype
    np.testing.assert_array_equal(y, value)
    assert y.flags.writeable


def test_scalars_sequences_and_empty_optionals_survive_too(child: Child) -> None:
    scalar = child.evaluate(model("g (float x) => (float y) { y = Neg(x) }"), {"x": np.float32(3)})["y"]
    assert scalar.shape == ()
    assert scalar == -3
    sequence = model("g (seq(float[n]) x) => (seq(float[n]) y) { y = Identity(x) }")
    (item,) = child.evaluate(sequence, {"x": [X["x"]]})["y"]
    assert np.array_equal(item, X["x"])
    optional = model("g (optional(float[n]) x) => (bool y) { y = OptionalHasElement(x) }")
    assert not child.evaluate(optional, {"x": None})["y"]


def test_a_killed_worker_is_named_reaped_and_replaced() -> None:
    with Child() as child:
        assert runs(child)
        pid = pid_of(child)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ChildFailed, match="SIGKILL"):
            child.evaluate(ADD, X)
        assert runs(child)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_interrupt_leaves_no_process_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child()
    assert runs(child)
    pid = pid_of(child)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("graphopt.run.child.receive", interrupt)
    with pytest.raises(KeyboardInterrupt):
        child.evaluate(ADD, X)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
