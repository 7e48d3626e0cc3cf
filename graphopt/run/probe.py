"""What this machine and this installation can do: the facts behind `graphopt doctor`."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Final, Literal

from graphopt.run.finding import Finding

__all__ = ["probe"]

_LIBRARIES: Final = ("graphopt", "numpy", "nvidia-ml-py", "onnx", "onnx-ir", "onnxsim", "rich", "typer")
_RUNTIMES: Final = ("onnxruntime", "onnxruntime-gpu")


def probe() -> tuple[Finding, ...]:
    """All findings, the same order every time. Never raises: what does not work is a finding."""
    return (*_platform(), *_libraries(), *_runtime())


def _platform() -> Iterator[Finding]:
    yield Finding("ok", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    yield Finding("ok", f"{usable} of {os.cpu_count() or usable} CPU cores usable")
    if sys.platform == "win32":
        yield Finding(
            "warn",
            "Windows: models are evaluated in a child process without a bound on its memory",
            "Optimize models of unknown origin on Linux.",
        )
    if sys.platform == "darwin":
        yield Finding(
            "warn",
            "macOS does not bound the memory of a child process",
            "Optimize models of unknown origin on Linux.",
        )


def _libraries() -> Iterator[Finding]:
    for name in _LIBRARIES:
        version = _version(name)
        if version is not None:
            yield Finding("ok", f"{name} {version}")
        elif name == "graphopt":
            yield Finding("warn", "graphopt runs from a folder, it is not installed", "pip install .")
        else:
            yield Finding("error", f"{name} is not installed", f"pip install {name}")


def _runtime() -> Iterator[Finding]:
    installed = {name: version for name in _RUNTIMES if (version := _version(name)) is not None}
    if len(installed) > 1:
        yield Finding(
            "error",
            f"both {' and '.join(installed)} are installed; each overwrites files of the other",
            "pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them again.",
        )
    try:
        import onnxruntime  # noqa: PLC0415 - a broken installation is a finding

        version, providers = onnxruntime.__version__, onnxruntime.get_available_providers()
    except (ImportError, AttributeError, OSError) as error:
        broken = f"{' and '.join(installed)} is installed but broken" if installed else "onnxruntime is not installed"
        repair = f"pip install --force-reinstall --no-deps {next(iter(installed), 'onnxruntime-gpu')}"
        yield Finding("error", f"{broken} ({error})", repair)
        return
    for name, expected in installed.items():
        level: Literal["ok", "warn"] = "ok" if expected == version else "warn"
        note = "" if level == "ok" else f", but the module that loads is {version}"
        yield Finding(level, f"{name} {expected}{note}", note and f"pip install --force-reinstall --no-deps {name}")
    if not installed:
        yield Finding("ok", f"onnxruntime {version}, of a build that pip does not know")
    from graphopt.run.probe_cuda import probe_cuda  # noqa: PLC0415 - needs a runtime that loads

    yield Finding("ok", f"providers built in: {', '.join(providers)} (only a run shows which of them work)")
    yield from probe_cuda(providers)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
