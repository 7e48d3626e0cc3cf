"""A machine with a GPU that is none: the CPU computes, and rounds a little differently where CUDA is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.errors import InputError
from graphopt.graph.external import Runnable
from graphopt.run.machine import Machine
from graphopt.run.session import Feed, Session

__all__ = ["FakeCuda"]


class _OnCuda:
    """A session of the CPU that says that it runs on CUDA, and is off by a relative error."""

    provider = "CUDAExecutionProvider"

    def __init__(self, session: Session, error: float, options: Mapping[str, str]) -> None:
        self._session, self._error, self.options = session, error, {"device_id": "0", **options}

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
