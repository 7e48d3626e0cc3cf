"""What a model has run on, so that nobody takes it for something else."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnxruntime as ort

from graphopt.run.gpu import Gpu, gpu
from graphopt.run.runtime import CPU, CUDA
from graphopt.run.session import Session

__all__ = ["Environment", "Host", "environment", "host"]

_OVERRIDE: Final = "NVIDIA_TF32_OVERRIDE"
"""The variable by which CUDA's libraries are kept from TF32, whatever a program asks for."""


@dataclass(frozen=True)
class Environment:
    """Where the nodes of a model ran. What only CUDA has is empty elsewhere."""

    provider: str
    onnxruntime: str
    """Its version."""
    cuda: str = ""
    """The version of CUDA that onnxruntime is built for."""
    gpu: Gpu | None = None
    """None on CUDA too where the driver does not tell."""
    tf32: bool | None = None
    """Whether products of floats may be rounded to TensorFloat-32, with relative errors of 1e-3."""

    def __str__(self) -> str:
        """Such as "CUDA: NVIDIA H200, driver 580.65, CUDA 13.0, onnxruntime 1.31.1, TF32 off"."""
        if self.provider == CPU:
            return f"the CPU: onnxruntime {self.onnxruntime}"
        device = f"{self.gpu.name}, driver {self.gpu.driver}" if self.gpu else "a GPU that the driver does not name"
        precision = "on" if self.tf32 else "off"
        return f"CUDA: {device}, CUDA {self.cuda}, onnxruntime {self.onnxruntime}, TF32 {precision}"


def environment(session: Session) -> Environment:
    """What a session runs on: CUDA only if at least one node does, whatever was asked for."""
    placement = session.placement
    if session.provider != CUDA or (placement.elsewhere and not placement.here):
        return Environment(CPU, ort.__version__)
    return Environment(
        session.provider,
        ort.__version__,
        str(ort.cuda_version),
        gpu(int(session.options.get("device_id", 0)))[0],
        session.options.get("use_tf32") != "0" and os.environ.get(_OVERRIDE) != "0",
    )


@dataclass(frozen=True)
class Host:
    """A machine, as far as it decides what a measurement says."""

    system: str
    """Such as "Linux 6.1 on x86_64"."""
    processor: str
    """Its name; empty where the system does not tell."""
    cores: int
    """That may be used."""
    python: str
    """The version."""

    def __str__(self) -> str:
        return f"{self.processor or 'a processor'}, {self.cores} cores; {self.system}; Python {self.python}"


def host() -> Host:
    """The machine at hand."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    system = f"{platform.system()} {platform.release()} on {platform.machine()}"
    return Host(system, _processor(), cores, platform.python_version())


def _processor() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8", "replace"), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor()
