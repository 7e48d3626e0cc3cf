"""The facts of a GPU, as its driver tells them."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import onnxruntime as ort
import pynvml

__all__ = ["Gpu", "cuda_major", "cudart", "gpu", "used_memory"]

_BUS_ID: Final = 32
"""Characters that hold the address of a device on the PCI bus, with the zero behind it."""


@dataclass(frozen=True)
class Gpu:
    """A GPU and its driver."""

    name: str
    """For example "NVIDIA H200"."""
    driver: str
    memory: int
    """Bytes, whoever has them."""
    capability: tuple[int, int]
    """The compute capability, such as (9, 0), which decides what kernels run."""
    cuda: tuple[int, int]
    """The newest CUDA that the driver supports."""

    def __str__(self) -> str:
        """The name and the rest."""
        return (
            f"{self.name} (compute capability {_dotted(self.capability)}, {self.memory / 2**30:.0f} GiB), "
            f"driver {self.driver}, which supports CUDA up to {_dotted(self.cuda)}"
        )


def gpu(device: int = 0) -> tuple[Gpu | None, str]:
    """The facts of a device by CUDA's number, or None and why."""
    try:
        with _nvml():
            handle = _handle(device)
            version = pynvml.nvmlSystemGetCudaDriverVersion_v2()
            found = Gpu(
                name=pynvml.nvmlDeviceGetName(handle),
                driver=pynvml.nvmlSystemGetDriverVersion(),
                memory=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
                capability=tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
                cuda=(version // 1000, version % 1000 // 10),
            )
    except pynvml.NVMLError as error:
        return None, str(error).lower()
    return found, ""


def used_memory(device: int = 0) -> int | None:
    """Bytes in use on a device by CUDA's number, by all processes together; None where the driver does not tell."""
    try:
        with _nvml():
            return int(pynvml.nvmlDeviceGetMemoryInfo(_handle(device)).used)
    except pynvml.NVMLError:
        return None


def cuda_major() -> int:
    """The CUDA that onnxruntime is built for, such as 13; 0 if for none."""
    return int(str(ort.cuda_version or 0).partition(".")[0])


def cudart() -> Any:
    """CUDA's runtime library, the one that onnxruntime has loaded; None where there is none."""
    name = f"cudart64_{cuda_major()}.dll" if sys.platform == "win32" else f"libcudart.so.{cuda_major()}"
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


@contextlib.contextmanager
def _nvml() -> Iterator[None]:
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _handle(device: int) -> Any:
    """NVML's handle of CUDA's device. CUDA counts only the devices that it may see, and in another order."""
    if address := _bus_id(device):
        return pynvml.nvmlDeviceGetHandleByPciBusId(address)
    return pynvml.nvmlDeviceGetHandleByIndex(device)


def _bus_id(device: int) -> str:
    """Where CUDA's device is on the PCI bus; "" if CUDA does not tell."""
    ask, address = getattr(cudart(), "cudaDeviceGetPCIBusId", None), ctypes.create_string_buffer(_BUS_ID)
    failed = ask is None or ask(address, _BUS_ID, device)
    return "" if failed else address.value.decode()


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
