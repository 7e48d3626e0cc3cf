"""What computations run on, and what they may take of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Self, TypeVar

import onnx_ir as ir

from graphopt.graph.carry import Carried
from graphopt.graph.external import Runnable
from graphopt.graph.save import runnable
from graphopt.run.cuda import DEPLOYED
from graphopt.run.session import Device, Session

__all__ = ["HERE", "Machine", "Progress", "Stage", "news"]

Progress = Callable[[str], None]
"""Told what begins; of what has parts, again with each of them, by a `Stage`."""

T = TypeVar("T")


class Stage(str):
    """What is being done, and how far that is."""

    __slots__ = ("done", "total")

    done: float
    total: float
    """What `done` will be at the end."""

    def __new__(cls, text: str, done: float, total: float) -> Self:  # noqa: D102 - as the class says
        stage = super().__new__(cls, text)
        stage.done, stage.total = done, total
        return stage


def news(say: Progress) -> Progress:
    """Passes on what is said, but not the same time and again."""
    last = ""

    def heard(text: str) -> None:
        nonlocal last
        if text != last:
            last = text
            say(text)

    return heard


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

    def track(self, items: Collection[T], text: str | Callable[[T], str]) -> Iterator[T]:
        """The same items, each told of when its turn comes.

        Args:
            items: what takes long.
            text: what is done, to all of them or to one.
        """
        for done, item in enumerate(items):
            self.progress(Stage(text if isinstance(text, str) else text(item), done, len(items)))
            yield item

    def share(self, text: str) -> Callable[[float], None]:
        """What can be told, time and again, which share of something is done."""
        return lambda done: self.progress(Stage(text, done, 1.0))

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
