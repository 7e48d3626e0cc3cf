"""What computations run on, and what they may take of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import onnx_ir as ir

from graphopt.graph.carry import Carried
from graphopt.graph.external import Runnable
from graphopt.graph.save import runnable
from graphopt.run.cuda import DEPLOYED
from graphopt.run.session import Device, Session

__all__ = ["HERE", "Machine", "Progress"]

Progress = Callable[[str], None]
"""Told what begins."""


@dataclass(frozen=True)
class Machine:
    """How models are run, as opposed to what is done with them."""

    device: Device = "cpu"
    threads: int = 0
    """Of one operator; 0 for all cores."""
    seed: int = 0
    """Of random operators whose node has none."""
    memory: int = 1 << 30
    """Bytes that values between products, and what is summed up over samples, may take; more is kept on disk, or less
    is learned."""
    progress: Progress = field(default=lambda _: None)

    integers: bool = True
    """See `Session`."""

    def session(
        self,
        model: Runnable | ir.Model,
        *,
        optimize: bool = True,
        lasting: bool = True,
        cuda: Mapping[str, str] | None = None,
    ) -> Session:
        """A model made ready to run here; arguments and errors are those of `Session`."""
        content = runnable(model, Carried()) if isinstance(model, ir.Model) else model
        return Session(
            content,
            device=self.device,
            optimize=optimize,
            threads=self.threads,
            seed=self.seed,
            lasting=lasting,
            integers=self.integers,
            cuda=cuda,
        )

    def timed(self, model: Runnable | ir.Model, cuda: Mapping[str, str] | None = None) -> Session:
        """A model as it is deployed, whose time is wanted and not its values: on CUDA with TF32, as `DEPLOYED` says."""
        return self.session(model, cuda={**DEPLOYED, **(cuda or {})})


HERE: Final = Machine()
"""All cores of the CPU, in silence."""
