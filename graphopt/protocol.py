"""The protocol between the pipeline and its passes: what a pass is, and what it is given."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.edit import Editor
from graphopt.graph.nodes import key
from graphopt.graph.record import Exactness, Refused
from graphopt.targets import TARGETS, Target

__all__ = ["Context", "Evaluator", "Exactness", "Ledger", "Miss", "Named", "NotEvaluated", "Pass", "Proposer"]


_MEASURED: Final = "Measured:"


class NotEvaluated(Exception):  # noqa: N818 - an answer, not a malfunction
    """A constant expression could not be computed ahead of time. Its text is the reason."""


Evaluator = Callable[[bytes], dict[str, NDArray[Any]]]
"""Runs a serialized model without inputs and answers its outputs by name, or raises `NotEvaluated`."""


Proposer = Callable[[bytes], bytes]
"""Lets somebody else's optimizer work on a serialized model that holds its weights, or raises `NotEvaluated`."""


def nobody(_model: bytes) -> bytes:
    """Proposes nothing."""
    raise NotEvaluated("nobody is there to propose anything")


@dataclass
class Ledger:
    """How many bytes the file may still grow. What an edit saves may be spent by a later one."""

    left: int
    folding: int
    """How many of them may go to constants that a runtime computes by itself when it loads the model."""

    def spend(self, growth: int, *, folding: bool = False) -> bool:
        """Account for an edit that makes the file `growth` bytes larger (or smaller, below zero), if there is room."""
        room = min(self.left, self.folding) if folding else self.left
        if growth > max(room, 0):
            return False
        self.left -= growth
        self.folding -= growth
        return True

    def lend(self, growth: int) -> None:
        """Account for growth that later edits give back for certain, whether there is room for it or not."""
        self.left -= growth
        self.folding -= growth


@dataclass(frozen=True)
class Miss:
    """A place where a rule looked and did nothing, and why."""

    rule: str
    root: str
    reason: str


@dataclass
class Context:
    """What all passes of one run share."""

    evaluate: Evaluator
    ledger: Ledger
    target: Target = TARGETS["portable"]
    fast_math: bool = False
    """Whether float algebra is allowed that does not hold for not-a-number, infinities and −0."""
    propose: Proposer = nobody
    misses: list[Miss] = field(default_factory=list)

    def miss(self, rule: str, root: ir.Node | ir.Value | str, reason: str) -> None:
        """Note that a rule looked at a node, at what one computes, at a constant or at the whole, and did nothing."""
        if isinstance(root, str):
            self.misses.append(Miss(rule, root, reason))
            return
        node = root if isinstance(root, ir.Node) else root.producer()
        self.misses.append(Miss(rule, key(node) if node is not None else str(root.name), reason))

    @contextmanager
    def noting(self, rule: str, root: ir.Node | ir.Value | str) -> Iterator[None]:
        """Note it as a miss where the editor refuses what is done inside."""
        try:
            yield
        except Refused as refusal:
            self.miss(rule, root, str(refusal))


@dataclass(frozen=True)
class Named:
    """What recipes and `--pass` name: a frozen dataclass whose fields are the options there.

    What was measured of it stands in its docstring, in a paragraph that begins with "Measured:".
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    exactness: ClassVar[Exactness]
    rules: ClassVar[Mapping[str, str]]
    """Name and one line for each rule, for people."""
    pays: ClassVar[str] = "on any target"
    """Where it is of use, for people."""

    @classmethod
    def evidence(cls) -> str:
        """What was measured of it, on one line; empty where nothing was."""
        lines = [" ".join(paragraph.split()) for paragraph in inspect.cleandoc(cls.__doc__ or "").split("\n\n")]
        return " ".join(line.removeprefix(_MEASURED).strip() for line in lines if line.startswith(_MEASURED))


@dataclass(frozen=True)
class Pass(Named, ABC):
    """One step of the story that rewrites a graph."""

    stage: ClassVar[int] = 0
    """0 for the canonical standard form; 1 for the target, once nothing of stage 0 finds anything any more."""
    wager: ClassVar[bool] = False
    """Whether a model may be slower with it somewhere, so that it is worth asking the clock."""

    @abstractmethod
    def run(self, edit: Editor, ctx: Context) -> None:
        """Change the graph through `edit`, and through nothing else."""
