"""Whether CUDA really runs here, and how a session gets onto it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from graphopt.run.runtime import CPU, CUDA, ERRORS, brief, create, guarded

__all__ = ["DEPLOYED", "OPTIONS", "cuda_works", "missing_library", "on_cuda"]

OPTIONS: Final[Mapping[str, str]] = {"use_tf32": "0"}  # else the hardware alone makes relative errors of 1e-3
DEPLOYED: Final[Mapping[str, str]] = {"use_tf32": "1"}
"""As the provider is on its own, for what is timed. TF32 cannot be left out there: without it, its convolutions avoid
the tensor cores whatever their type is, those of half precision included (core/providers/cuda/nn/conv.cc)."""
_ALONE: Final = "session.disable_cpu_ep_fallback"
_REFUSED: Final = "fallback to CPU EP has been explicitly disabled"
_ADD: Final = bytes.fromhex(
    "08083a350a0e0a01780a017812017922034164641201615a0f0a0178120a0a"
    "08080112040a020802620f0a0179120a0a08080112040a02080242040a00100d"
)
"""float[2] y = Add(x, x), serialized."""


@functools.cache
def cuda_works() -> tuple[bool, str]:
    """Whether a CUDA session really runs in this process, and why (not). Tried once, with one Add."""
    if CUDA not in ort.get_available_providers():
        return False, "this build of onnxruntime has no CUDA provider (install onnxruntime-gpu instead of onnxruntime)"
    ort.set_default_logger_severity(4)
    try:
        with guarded(), contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            ort.preload_dlls()  # the CUDA libraries of the nvidia-* wheels
        session = create(_ADD, ort.SessionOptions(), [(CUDA, OPTIONS), CPU])
        provider = session.get_providers()[0]
        (y,) = session.run(None, {"x": np.ones(2, np.float32)})
    except ERRORS as error:
        return False, f"no CUDA device answers ({brief(error)})"
    if provider != CUDA:
        if missing := missing_library("cuda"):
            return False, (
                f"the CUDA or cuDNN libraries are not found ({missing}); they come with onnxruntime-gpu[cuda,cudnn], "
                "and libcuda with the driver"
            )
        return False, "no CUDA device answers (onnxruntime fell back to the CPU without saying why)"
    if not np.array_equal(y, np.full(2, 2, np.float32)):
        return False, "a CUDA session runs, but 1 + 1 is not 2 there"
    return True, "a CUDA session runs"


def on_cuda(
    content: bytes, options: ort.SessionOptions, cuda: Mapping[str, str], *, alone: bool
) -> ort.InferenceSession:
    """A session on CUDA, with the CPU for what has no kernel there.

    Args:
        content: the serialized model.
        options: of the session; may be changed.
        cuda: options of the provider beyond `OPTIONS`.
        alone: whether CUDA is tried without the CPU first, which fails if only one node has to run there.
    """
    provider = (CUDA, {**OPTIONS, **cuda})
    if alone:
        options.add_session_config_entry(_ALONE, "1")
        try:
            return create(content, options, [provider])
        except ERRORS as error:
            if _REFUSED not in str(error):
                raise
            options.add_session_config_entry(_ALONE, "0")
    return create(content, options, [provider, CPU])


def missing_library(provider: str) -> str:
    """What keeps a provider ("cuda", "tensorrt") from loading, as the system's loader names it; "" if nothing does."""
    prefix, suffix = ("", "dll") if sys.platform == "win32" else ("lib", "so")
    path = Path(native.__file__).with_name(f"{prefix}onnxruntime_providers_{provider}.{suffix}")
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        # Only onnxruntime itself has all the symbols: all libraries are there once one of these is missed.
        return "" if "undefined symbol" in str(error) else str(error)
    return ""
