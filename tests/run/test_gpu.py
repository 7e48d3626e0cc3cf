from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from graphopt.run import environment as module
from graphopt.run.cuda import cuda_works
from graphopt.run.environment import Environment, environment
from graphopt.run.gpu import Gpu, gpu, used_memory
from graphopt.run.placement import Node, Placement
from graphopt.run.runtime import CPU, CUDA
from graphopt.run.session import Session
from tests.run.test_session import ADD

WORKS, WHY = cuda_works()
H200 = Gpu("NVIDIA H200", "580.65.06", 150 << 30, (9, 0), (13, 0))
T4 = Gpu("Tesla T4", "580.65.06", 16 << 30, (7, 5), (13, 0))
DEVICES = {0: T4, 1: H200}
"""By NVML's number."""
BUS: dict[int | str, Gpu] = {"0000:3B:00.0": H200, "0000:AF:00.0": T4}


class Cudart:
    """CUDA's runtime, which sees the H200 alone, as number 0."""

    def __init__(self, name: str) -> None:
        assert name.startswith("libcudart.so.1")

    def cudaDeviceGetPCIBusId(self, address: Any, length: int, device: int) -> int:  # noqa: N802
        if device:
            return 101
        assert length == len(address)
        address.value = b"0000:3B:00.0"
        return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A driver with two GPUs and no CUDA runtime; tells when it is begun with and ended."""
    calls: list[str] = []
    for name, answer in {
        "nvmlInit": lambda: calls.append("init"),
        "nvmlShutdown": lambda: calls.append("shutdown"),
        "nvmlSystemGetDriverVersion": lambda: "580.65.06",
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 13000,
        "nvmlDeviceGetHandleByIndex": DEVICES.__getitem__,
        "nvmlDeviceGetHandleByPciBusId": BUS.__getitem__,
        "nvmlDeviceGetName": lambda device: device.name,
        "nvmlDeviceGetMemoryInfo": lambda device: SimpleNamespace(total=device.memory, used=device.memory // 2),
        "nvmlDeviceGetCudaComputeCapability": lambda device: list(device.capability),
    }.items():
        monkeypatch.setattr(pynvml, name, answer)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    return calls


def test_nvml_is_asked_for_its_own_number_where_cuda_tells_no_address(driver: list[str]) -> None:
    assert gpu(0) == (T4, "")
    assert used_memory(0) == T4.memory // 2
    assert driver == ["init", "shutdown"] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="the fake has its name on Linux")
def test_the_gpu_is_the_one_that_cuda_counts_so(driver: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.cuda_version", "13.0")
    monkeypatch.setattr(ctypes, "CDLL", Cudart)
    assert gpu(0) == (H200, "")
    assert used_memory(0) == H200.memory // 2
    assert gpu(1) == (H200, "")  # CUDA has no such device, NVML has
    assert driver[-1] == "shutdown"


def test_without_a_driver_the_reason_is_told(driver: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_: object) -> None:
        raise pynvml.NVMLError_GpuIsLost

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lost)
    assert gpu() == (None, "gpu is lost")
    assert used_memory() is None
    assert driver == ["init", "shutdown"] * 2

    def missing() -> None:
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert gpu() == (None, "nvml shared library not found")
    assert used_memory() is None


def ran(provider: str, placement: Placement, **options: str) -> Any:
    return SimpleNamespace(provider=provider, placement=placement, options=options)


def test_the_environment_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "gpu", lambda device: ({2: H200}[device], ""))
    monkeypatch.setattr("onnxruntime.__version__", "1.31.1")
    monkeypatch.setattr("onnxruntime.cuda_version", "13.0")
    found = environment(ran(CUDA, Placement(CUDA, 3), device_id="2", use_tf32="0"))
    assert found == Environment(CUDA, "1.31.1", "13.0", H200, tf32=False)
    assert str(found) == "CUDA: NVIDIA H200, driver 580.65.06, CUDA 13.0, onnxruntime 1.31.1, TF32 off"
    monkeypatch.setattr(module, "gpu", lambda _: (None, "lost"))
    found = environment(ran(CUDA, Placement(CUDA, 0), use_tf32="1"))
    assert str(found) == "CUDA: a GPU that the driver does not name, CUDA 13.0, onnxruntime 1.31.1, TF32 on"
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert environment(ran(CUDA, Placement(CUDA, 0), use_tf32="1")).tf32 is False


def test_nothing_ran_on_cuda_where_it_has_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.__version__", "1.31.1")
    alone = Placement(CUDA, 0, (Node("StringNormalizer", "", CPU),))
    assert environment(ran(CUDA, alone)) == environment(Session(ADD)) == Environment(CPU, "1.31.1")
    assert str(environment(Session(ADD))) == "the CPU: onnxruntime 1.31.1"


@pytest.mark.cuda
@pytest.mark.skipif(not WORKS, reason=WHY)
def test_the_facts_of_the_gpu_that_a_session_runs_on() -> None:
    session = Session(ADD, device="cuda")
    assert session.options["use_tf32"] == "0"
    found = environment(session)
    assert found.provider == CUDA
    assert found.tf32 is False
    device = found.gpu
    assert device is not None
    assert device.name
    assert device.driver in str(found)
    assert device.capability >= (5, 0)
    assert device.cuda[0] >= int(found.cuda.partition(".")[0])
    used = used_memory()
    assert used is not None
    assert 0 < used < device.memory
