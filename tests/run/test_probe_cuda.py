from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from graphopt.run import probe_cuda as module
from graphopt.run.finding import Finding
from graphopt.run.gpu import Gpu
from graphopt.run.probe_cuda import probe_cuda
from graphopt.run.runtime import CPU, CUDA
from tests.run.test_gpu import H200

LISTED = ["TensorrtExecutionProvider", CUDA, CPU]
OLD = replace(H200, driver="550.54", cuda=(12, 4))
Arrange = Callable[..., tuple[Finding, ...]]


@pytest.fixture
def arrange(monkeypatch: pytest.MonkeyPatch) -> Arrange:
    """What is found on a machine with these libraries, packages and devices."""

    def found(
        *,
        works: bool = False,
        device: Gpu | None = H200,
        missing: str = "",
        installed: tuple[str, ...] = ("nvidia-cudnn-cu13 9.1", "numpy 2.0"),
        available: list[str] = LISTED,
        **libraries: Any,
    ) -> tuple[Finding, ...]:
        monkeypatch.setattr("onnxruntime.cuda_version", "13.0")
        monkeypatch.setattr(module, "cuda_works", lambda: (works, "it runs" if works else "it does not"))
        monkeypatch.setattr(module, "gpu", lambda: (device, "" if device else "driver not loaded"))
        monkeypatch.setattr(module, "missing_library", lambda provider: libraries.get(provider, missing))
        packages = [SimpleNamespace(name=n, version=v) for n, v in map(str.split, installed)]
        monkeypatch.setattr("importlib.metadata.distributions", lambda: packages)
        if works:
            convolves = libraries.get("convolves", Finding("ok", "CUDA runs convolutions"))
            monkeypatch.setattr(module, "_convolution", lambda: iter([convolves]))
        return tuple(probe_cuda(available))

    return found


def test_where_cuda_works_its_gpu_is_told(arrange: Arrange) -> None:
    assert arrange(works=True) == (
        Finding(
            "ok",
            "NVIDIA H200 (compute capability 9.0, 150 GiB), driver 580.65.06, which supports CUDA up to 13.0",
        ),
        Finding("ok", "CUDA works: it runs"),
        Finding("ok", "CUDA runs convolutions"),
    )


def test_a_build_without_cuda_is_no_ailment(arrange: Arrange) -> None:
    assert arrange(available=[CPU]) == (Finding("ok", "CUDA does not run: it does not"),)


@pytest.mark.parametrize(
    ("machine", "level", "text", "advice"),
    [
        ({"device": None}, "warn", "no GPU answers (driver not loaded)", "install its driver, version 580 or later."),
        (
            {"device": OLD},
            "warn",
            "the driver 550.54 supports CUDA up to 12.4, this onnxruntime needs 13",
            "Update the driver: version 580 or later.",
        ),
        (
            {"device": replace(H200, name="V100", capability=(7, 0))},
            "warn",
            "V100 is older than all GPUs that this onnxruntime has kernels for (compute capability 7.0)",
            "pip install 'onnxruntime-gpu<1.27'",
        ),
        (
            {"missing": "libcublasLt.so.13: cannot open"},
            "warn",
            "a library is missing: libcublasLt.so.13: cannot open",
            "pip install 'graphopt[cuda]'; onnxruntime-gpu[cuda] alone brings no cuBLAS, which comes with [cudnn].",
        ),
        (
            {"installed": ("nvidia-cublas-cu12 12.1", "nvidia-cufft-cu12 11", "torch 2.8.0+cu126")},
            "warn",
            "onnxruntime is built for CUDA 13, but nvidia-cublas-cu12 and 2 more for CUDA 12",
            "pip install 'graphopt[cuda]', which brings the libraries of CUDA 13.",
        ),
        ({"installed": ("torch 2.8.0+cu126",)}, "warn", "is built for CUDA 13, but torch for CUDA 12", "'graphopt[cu"),
        (
            {"installed": ("nvidia-cudnn-cu12 9.1", "nvidia-cudnn-cu13 9.1")},
            "error",
            "both nvidia-cudnn-cu12 and nvidia-cudnn-cu13 are installed; each overwrites files of the other",
            "pip uninstall -y nvidia-cudnn-cu12, then pip install --force-reinstall --no-deps nvidia-cudnn-cu13.",
        ),
        (
            {"works": True, "tensorrt": "libnvinfer.so.10: cannot open"},
            "warn",
            "TensorrtExecutionProvider is listed, but does not load: libnvinfer.so.10: cannot open",
            "Install TensorRT",
        ),
    ],
    ids=["no gpu", "driver", "gpu", "library", "packages", "torch", "cudnn", "tensorrt"],
)
def test_each_ailment_has_a_cure(arrange: Arrange, machine: Any, level: str, text: str, advice: str) -> None:
    found = arrange(**machine)
    last = found[-1]
    assert last.level == level
    assert text in last.text
    assert advice in last.advice
    assert all(bool(f.advice) == (f.level != "ok") for f in found)
    if not machine.get("works"):
        assert Finding("warn", "CUDA does not run: it does not", "Use --device cpu, or mend what follows.") in found


def test_what_has_no_cause_that_is_known_has_an_advice_too(arrange: Arrange) -> None:
    found = arrange(installed=("torch 2.9.1+cpu", "nvidia-cudnn-cu13 9.1"))
    assert found[1:] == (
        Finding("warn", "CUDA does not run: it does not", "Use --device cpu, or pip install 'graphopt[cuda]'."),
    )


def test_a_convolution_without_cudnn_is_a_warning(monkeypatch: pytest.MonkeyPatch, arrange: Arrange) -> None:
    arrange(installed=("nvidia-cudnn-cu12 9.1",))
    monkeypatch.setattr("graphopt.run.session.cuda_works", lambda: (False, "no driver"))
    convolution, packages = module._convolution()
    assert convolution.text == "CUDA runs no convolution: CUDA does not run here: no driver"
    assert convolution.advice == "pip install 'graphopt[cuda]', which brings cuDNN."
    assert "nvidia-cudnn-cu12 for CUDA 12" in packages.text
