"""A model meets the official checker and inference in a child process first."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from graphopt.errors import InputError, MachineError
from graphopt.graph.load import Source, load
from graphopt.run import trial
from graphopt.run.child import Child, Limits
from graphopt.run.worker import send
from tests.support.models import parse

FINE = "g (float[N,4] x) => (float[N,4] y) { y = Neg(x) }"
UNKNOWN = "g (float[N,4] x) => (float[N,4] y) { y = Neg <axis = 1>(x) }"


@pytest.fixture
def child() -> Iterator[Child]:
    with Child(Limits(20)) as made:
        yield made


def loaded(text: str, child: Child, **more: Any) -> Source:
    return load(parse(text), guard=trial.guard(child), **more)


def pid_of(child: Child) -> int:
    assert child._worker is not None
    return child._worker.process.pid


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """What is asked of the worker."""
    asked: list[Mapping[str, Any]] = []

    def spy(pipe: Any, header: Any, blobs: Any) -> None:
        asked.append(header)
        send(pipe, header, blobs)

    monkeypatch.setattr("graphopt.run.child.send", spy)
    return asked


def at_the_look(do: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something to the worker as it is asked to look at a model."""

    def spy(pipe: Any, header: Any, blobs: Any) -> None:
        if "examine" in header:
            do()
        send(pipe, header, blobs)

    monkeypatch.setattr("graphopt.run.child.send", spy)


def test_what_was_looked_at_is_run_by_the_same_worker_and_sent_once(
    child: Child, requests: list[Mapping[str, Any]]
) -> None:
    source = loaded(FINE, child)
    pid = pid_of(child)
    (port,), _ = trial.inputs(child, source.runnable)
    assert port.name == "x"
    with child.within(Limits(10)):
        y = child.evaluate(source.runnable, {"x": np.ones((2, 4), np.float32)})["y"]
    assert (y == -1).all()
    assert pid_of(child) == pid
    assert ["model" in r for r in requests] == [False, True, False, False]


def test_a_model_that_does_not_load_is_sent_again(child: Child) -> None:
    custom = """<ir_version: 10, opset_import: ["" : 21, "some.where" : 1]>
    g (float[2] x) => (float[2] y) { y = some.where.Magic(x) }"""
    source = loaded(custom, child)
    for _ in range(2):
        with pytest.raises(InputError, match=r"some\.where"):
            trial.inputs(child, source.runnable)


def test_limits_are_told_when_they_change(child: Child, requests: list[Mapping[str, Any]]) -> None:
    source = loaded(FINE, child)
    trial.inputs(child, source.runnable)
    trial.inputs(child, source.runnable)
    with child.within(Limits(10, result_bytes=7)):
        trial.inputs(child, source.runnable)
    assert [r["limits"]["seconds"] if "limits" in r else None for r in requests] == [10.0, None, 20, None, 10]
    assert requests[-1]["limits"]["result_bytes"] == 7


def test_a_worker_looks_with_the_options_of_load(child: Child, requests: list[Mapping[str, Any]]) -> None:
    loaded(FINE, child, freeze=True)
    assert requests[-1]["examine"] == {"name": "model", "freeze": True}


def test_an_invalid_model_is_refused_with_the_same_words(child: Child) -> None:
    with pytest.raises(InputError) as alone:
        load(parse(UNKNOWN))
    with pytest.raises(InputError) as guarded:
        loaded(UNKNOWN, child)
    assert str(guarded.value) == str(alone.value)


def test_what_needs_no_native_code_starts_no_worker(child: Child) -> None:
    with pytest.raises(InputError, match="cycle"):
        loaded("g (float[2] x) => (float[2] y) { y = Add(x, z) z = Neg(y) }", child)
    assert child._worker is None


def test_a_worker_that_is_killed(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    at_the_look(lambda: os.kill(pid_of(child), signal.SIGSEGV), monkeypatch)
    with pytest.raises(InputError, match=r"^model is not safe: onnx does not survive the model: .* SIGSEGV"):
        loaded(FINE, child)


def test_a_worker_that_takes_too_long(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_LOOK_SECONDS", 0.2)
    at_the_look(lambda: os.kill(pid_of(child), signal.SIGSTOP), monkeypatch)
    with pytest.raises(InputError, match=r"does not survive the model: it took longer than 0\.2 s"):
        loaded(FINE, child)
    monkeypatch.undo()
    loaded(FINE, child)


@pytest.mark.parametrize("program", ["/no/such/python", "/bin/false"])
def test_a_worker_that_does_not_start(program: str, child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(MachineError, match="no process can be started in which a model may fail: "):
        loaded(FINE, child)


def test_a_large_model_is_not_kept(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphopt.run.child._LARGE", 10)
    loaded(FINE, child)
    assert child._worker is None
