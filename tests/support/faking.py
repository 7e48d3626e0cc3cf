"""Machines with a GPU that is none: the CPU computes, and says that it is CUDA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from graphopt.errors import InputError
from graphopt.graph.external import Runnable
from graphopt.run.cuda import OPTIONS
from graphopt.run.machine import Machine
from graphopt.run.runtime import CPU, CUDA, create
from graphopt.run.session import Feed, Session

__all__ = ["FakeCuda", "pretend"]


class _OnCuda:
    """A session of the CPU that says that it runs on CUDA, and is off by a relative error."""

    provider = "CUDAExecutionProvider"

    def __init__(self, session: Session, error: float, options: Mapping[str, str]) -> None:
        self._session, self._error, self.options = session, error, {"device_id": "0", **OPTIONS, **options}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, feed: Feed, outputs: list[str] | None = None) -> dict[str, Any]:
        """As the session does, but for floats."""
        return {name: self._off(value) for name, value in self._session.run(feed, outputs).items()}

    def _off(self, value: Any) -> Any:
        floats = isinstance(value, np.ndarray) and value.dtype.kind == "f"
        return value * value.dtype.type(1 + self._error) if floats else value


@dataclass(frozen=True)
class FakeCuda(Machine):
    """Where "auto" and "cuda" give a session that says it runs on CUDA."""

    error: float = 1e-5
    """Relative, of every output."""
    refused: bytes | None = None
    """A model that CUDA does not take."""
    uncaptured: str = ""
    """Why there are no CUDA graphs."""

    def session(
        self,
        model: Runnable | ir.Model,
        *,
        optimize: bool = True,
        lasting: bool = True,
        cuda: Mapping[str, str] | None = None,
    ) -> Any:
        """As `Machine.session`."""
        here = replace(self, device="cpu")
        session = Machine.session(here, model, optimize=optimize, lasting=lasting)
        if self.device == "cpu":
            return session
        if model == self.refused:
            if self.device == "auto":
                return session
            raise InputError("onnxruntime does not load the model: CUDA has no kernel")
        if self.uncaptured and cuda and "enable_cuda_graph" in cuda:
            raise InputError(f"onnxruntime does not load the model: {self.uncaptured}")
        return _OnCuda(session, self.error, cuda or {})


class _Binding:
    """Binds what should be on the device to the CPU."""

    def __init__(self, binding: Any) -> None:
        self.bound = binding

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bound, name)

    def bind_output(self, name: str, device: str, number: int) -> None:
        """As onnxruntime's."""
        assert (device, number) in {("cuda", 0), ("cpu", 0)}
        self.bound.bind_output(name, "cpu", 0)


class _Pretending:
    """onnxruntime's session on the CPU, which answers as one on CUDA does."""

    def __init__(self, session: ort.InferenceSession, options: Mapping[str, str]) -> None:
        self._session, self._options = session, options

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        """CUDA first."""
        return [CUDA, CPU]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """Of CUDA, as they were given."""
        return {CUDA: {"device_id": "0", "use_tf32": "0", **self._options}, CPU: {}}

    def get_provider_graph_assignment_info(self) -> list[Any]:
        """Every node on CUDA."""
        found = self._session.get_provider_graph_assignment_info()
        return [SimpleNamespace(ep_name=CUDA, get_nodes=part.get_nodes) for part in found]

    def io_binding(self) -> _Binding:
        """As onnxruntime's."""
        return _Binding(self._session.io_binding())

    def run_with_iobinding(self, binding: _Binding, options: Any = None) -> None:
        """As onnxruntime's."""
        self._session.run_with_iobinding(binding.bound, options)


def pretend(patch: pytest.MonkeyPatch) -> list[str]:
    """Make whatever asks for CUDA find it; the answer grows by a word for each session that is opened there."""
    opened: list[str] = []

    def on_cuda(content: bytes, options: ort.SessionOptions, cuda: Mapping[str, str], *, alone: bool) -> Any:
        opened.append("alone" if alone else "with the CPU")
        return _Pretending(create(content, options, [CPU]), cuda)

    patch.setattr("graphopt.run.session.cuda_works", lambda: (True, "it is said so"))
    patch.setattr("graphopt.run.session.on_cuda", on_cuda)
    return opened
