from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from graphopt.run import cuda as module
from graphopt.run.cuda import cuda_works, missing_library, on_cuda
from graphopt.run.runtime import CPU, CUDA, create, guarded
from graphopt.run.session import Session

REFUSAL = "fallback to CPU EP has been explicitly disabled by the user."


def printing(then: Any = None) -> Callable[..., Any]:
    """Something of a library that prints to standard output, through Python and through C, kept in a buffer."""

    def speak(*_: object, **__: object) -> Any:
        print("EP Error: falling back")  # noqa: T201
        ctypes.CDLL(None).puts(b"from C")
        if isinstance(then, Exception):
            raise then
        return then

    return speak


def test_the_probe_of_cuda_is_a_model_that_runs() -> None:
    assert Session(module._ADD).run({"x": np.ones(2, np.float32)})["y"].tolist() == [2, 2]


def test_a_build_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [CPU])
    assert cuda_works.__wrapped__() == (
        False,
        "this build of onnxruntime has no CUDA provider (install onnxruntime-gpu instead of onnxruntime)",
    )


def test_the_library_that_cuda_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["libcublasLt.so.13: cannot open shared object file", "undefined symbol: Provider_GetHost"]

    def refuse(_: str) -> None:
        raise OSError(said[0])

    monkeypatch.setattr("ctypes.CDLL", refuse)
    assert missing_library("cuda") == said.pop(0)
    assert not missing_library("cuda")


class Fake:
    """A session of onnxruntime on some provider, whose Add adds wrongly if told so."""

    def __init__(self, provider: str, total: float = 2) -> None:
        self.provider, self.total = provider, total

    def get_providers(self) -> list[str]:
        return [self.provider]

    def run(self, *_: object) -> list[np.ndarray]:
        return [np.full(2, self.total, np.float32)]


@pytest.mark.parametrize(
    ("session", "missing", "expected"),
    [
        (Fake(CUDA), "", (True, "a CUDA session runs")),
        (Fake(CUDA, 3), "", (False, "a CUDA session runs, but 1 + 1 is not 2 there")),
        (Fake(CPU), "libcublas.so.13: no", (False, "the CUDA or cuDNN libraries are not found (libcublas.so.13: no)")),
        (Fake(CPU), "", (False, "no CUDA device answers (onnxruntime fell back to the CPU without saying why)")),
        (ort.capi.onnxruntime_pybind11_state.Fail("driver"), "", (False, "no CUDA device answers (driver)")),
    ],
    ids=["works", "wrong", "library", "silent", "refused"],
)
def test_cuda_works_where_a_sum_is_right_and_nothing_is_printed(
    session: Any,
    missing: str,
    expected: tuple[bool, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr("onnxruntime.preload_dlls", printing())
    monkeypatch.setattr("onnxruntime.InferenceSession", printing(session))
    monkeypatch.setattr(module, "missing_library", lambda _: missing)
    works, reason = cuda_works.__wrapped__()
    assert works == expected[0]
    assert reason.startswith(expected[1])
    ctypes.CDLL(None).fflush(None)
    out, err = capfd.readouterr()
    assert out == ""
    assert "EP Error" in err
    assert "from C" in err


def test_standard_output_is_back_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(ValueError), guarded(), guarded():
        printing(ValueError("no"))()
    printing()()
    ctypes.CDLL(None).fflush(None)
    assert sorted(capfd.readouterr().out.split("\n")) == ["", "EP Error: falling back", "from C"]


@pytest.mark.parametrize("alone", [True, False])
def test_the_cpu_joins_where_a_node_has_to_run_there(alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    asked: list[tuple[str, list[Any]]] = []

    def session(_: bytes, options: ort.SessionOptions, providers: list[Any]) -> str:
        strict = options.get_session_config_entry(module._ALONE) if alone else "0"
        asked.append((strict, providers))
        if strict == "1":
            raise RuntimeError(REFUSAL)
        return "made"

    monkeypatch.setattr(module, "create", session)
    assert on_cuda(b"", ort.SessionOptions(), {"use_tf32": "1", "device_id": "2"}, alone=alone) == "made"
    provider = (CUDA, {"use_tf32": "1", "device_id": "2"})
    assert asked == [("1", [provider])] * alone + [("0", [provider, CPU])]


def test_what_cuda_refuses_for_another_reason_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def refuse(*arguments: Any) -> None:
        calls.append(arguments)
        raise RuntimeError("no opset 99")

    monkeypatch.setattr(module, "create", refuse)
    with pytest.raises(RuntimeError, match="opset 99"):
        on_cuda(b"", ort.SessionOptions(), {}, alone=True)
    assert len(calls) == 1


def test_onnxruntime_refuses_a_node_on_the_cpu_in_the_words_that_are_looked_for() -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry(module._ALONE, "1")
    ort.set_default_logger_severity(4)
    with pytest.raises(Exception, match=module._REFUSED):
        create(module._ADD, options, [])
