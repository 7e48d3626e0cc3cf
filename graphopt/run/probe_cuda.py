"""What CUDA can do here, and why not: the part of `graphopt doctor` that needs an onnxruntime which loads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Final

import numpy as np
import onnx_ir as ir

from graphopt.errors import GraphoptError
from graphopt.run.cuda import cuda_works, missing_library
from graphopt.run.finding import Finding
from graphopt.run.gpu import Gpu, cuda_major, gpu
from graphopt.run.runtime import CUDA
from graphopt.run.session import Session

__all__ = ["probe_cuda"]

_TENSORRT: Final = "TensorrtExecutionProvider"
_DRIVERS: Final = {12: 525, 13: 580}
"""CUDA -> the first driver that supports it."""
_OLDEST: Final = {13: (7, 5)}
"""CUDA -> the compute capability of the oldest GPUs that it still knows."""
_INSTALL: Final = "pip install 'graphopt[cuda]'"
_TRAP: Final = "onnxruntime-gpu[cuda] alone brings no cuBLAS, which comes with [cudnn]"
_CONV: Final = """<ir_version: 8, opset_import: ["" : 13]>
conv (float[1,1,3,3] x, float[1,1,3,3] w) => (float[1,1,1,1] y) { y = Conv(x, w) }"""


def probe_cuda(available: Sequence[str]) -> Iterator[Finding]:
    """What comes of CUDA, by a run and not by what onnxruntime lists, and what may keep it from running."""
    works, reason = cuda_works()
    if CUDA not in available:
        yield Finding("ok", f"CUDA does not run: {reason}")
        return
    device, silence = gpu()
    if device is not None:
        yield Finding("ok", str(device))
    if works:
        yield Finding("ok", f"CUDA works: {reason}")
        yield from _convolution()
        if _TENSORRT in available:
            yield from _tensorrt()
        return
    causes = tuple(_causes(device, silence))
    advice = "mend what follows" if causes else _INSTALL
    yield Finding("warn", f"CUDA does not run: {reason}", f"Use --device cpu, or {advice}.")
    yield from causes


def _causes(device: Gpu | None, silence: str) -> Iterator[Finding]:
    """What may keep CUDA from running."""
    major = cuda_major()
    driver = f"version {_DRIVERS[major]} or later" if major in _DRIVERS else "the newest version"
    if device is None:
        yield Finding("warn", f"no GPU answers ({silence})", f"With an NVIDIA GPU, install its driver, {driver}.")
        return
    if device.cuda[0] < major:
        supported = ".".join(map(str, device.cuda))
        yield Finding(
            "warn",
            f"the driver {device.driver} supports CUDA up to {supported}, this onnxruntime needs {major}",
            f"Update the driver: {driver}.",
        )
    if device.capability < _OLDEST.get(major, (0, 0)):
        yield Finding(
            "warn",
            f"{device.name} is older than all GPUs that this onnxruntime has kernels for "
            f"(compute capability {'.'.join(map(str, device.capability))})",
            "Use --device cpu, or an onnxruntime for CUDA 12: pip install 'onnxruntime-gpu<1.27'.",
        )
    if missing := missing_library("cuda"):
        yield Finding("warn", f"a library is missing: {missing}", f"{_INSTALL}; {_TRAP}.")
    yield from _mixed(major)


def _mixed(major: int) -> Iterator[Finding]:
    """Packages for another CUDA than onnxruntime's."""
    versions = {d.name: d.version for d in metadata.distributions()}
    built = {n: int(m[1]) for n in versions if (m := re.fullmatch(r"nvidia-.+-cu(\d+)", n))}
    if m := re.search(r"\+cu(\d\d)", versions.get("torch", "")):
        built["torch"] = int(m[1])
    others = sorted(n for n, other in built.items() if other != major)
    if others:
        more = f" and {len(others) - 1} more" if others[1:] else ""
        yield Finding(
            "warn",
            f"onnxruntime is built for CUDA {major}, but {others[0]}{more} for CUDA {built[others[0]]}",
            f"{_INSTALL}, which brings the libraries of CUDA {major}.",
        )
    mine = f"nvidia-cudnn-cu{major}"
    if mine in built and (doubles := [n for n in others if n.startswith("nvidia-cudnn-")]):
        yield Finding(
            "error",
            f"both {doubles[0]} and {mine} are installed; each overwrites files of the other",
            f"pip uninstall -y {doubles[0]}, then pip install --force-reinstall --no-deps {mine}.",
        )


def _convolution() -> Iterator[Finding]:
    """Whether cuDNN is there, which is loaded only when an operator needs it."""
    image = np.ones((1, 1, 3, 3), np.float32)
    try:
        Session(ir.to_proto(ir.from_onnx_text(_CONV)).SerializeToString(), device="cuda").run({"x": image, "w": image})
    except GraphoptError as error:
        yield Finding("warn", f"CUDA runs no convolution: {error}", f"{_INSTALL}, which brings cuDNN.")
        yield from _mixed(cuda_major())
    else:
        yield Finding("ok", "CUDA runs convolutions (cuDNN is there)")


def _tensorrt() -> Iterator[Finding]:
    """Whether the provider loads that every build for CUDA lists."""
    if missing := missing_library("tensorrt"):
        yield Finding(
            "warn",
            f"{_TENSORRT} is listed, but does not load: {missing}",
            "Install TensorRT (https://developer.nvidia.com/tensorrt) if models are to run on it, else leave it.",
        )
