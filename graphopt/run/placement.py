"""Where the nodes of a model run, and how often values change places between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import onnx_ir as ir

from graphopt.run.runtime import CPU, CUDA

__all__ = ["RECORD", "Node", "Placement", "copies", "placed"]

RECORD: Final = "session.record_ep_graph_assignment_info"
"""The entry of a session's configuration without which onnxruntime forgets what it assigned."""
_COPIES: Final = frozenset({"MemcpyToHost", "MemcpyFromHost"})
_NAMES: Final = {CPU: "the CPU", CUDA: "CUDA"}
_SHOWN: Final = 4


class Assigned(Protocol):
    """A node, as onnxruntime tells it."""

    @property
    def op_type(self) -> str: ...
    @property
    def name(self) -> str: ...


class Subgraph(Protocol):
    """Nodes that one provider has taken, as onnxruntime tells them."""

    @property
    def ep_name(self) -> str: ...
    def get_nodes(self) -> Sequence[Assigned]: ...


@dataclass(frozen=True)
class Node:
    """A node that runs elsewhere."""

    op_type: str
    name: str
    provider: str


@dataclass(frozen=True)
class Placement:
    """Which provider runs which nodes, counted before onnxruntime fuses those that one provider has taken."""

    provider: str
    """The one that the session is on."""
    here: int
    """Nodes that it runs."""
    elsewhere: tuple[Node, ...] = ()
    """The others."""
    copies: int | None = None
    """Values that are copied from one device to another in every run; None where it was not looked at."""

    @property
    def nodes(self) -> dict[str, int]:
        """Provider -> how many nodes it runs."""
        return {self.provider: self.here, **Counter(n.provider for n in self.elsewhere)}

    @property
    def operators(self) -> dict[str, int]:
        """Operator -> how many nodes of it run elsewhere, most first."""
        return dict(Counter(n.op_type for n in self.elsewhere).most_common())

    def __str__(self) -> str:
        """One sentence: "118 of 120 nodes run on CUDA, 2 on the CPU (NonZero, Unique), 3 copies between them"."""
        total = self.here + len(self.elsewhere)
        if not self.elsewhere:
            return f"all {total} nodes run on {_named(self.provider)}" if total else "there is no node to run"
        parts = [f"{self.here} of {total} nodes run on {_named(self.provider)}"]
        others = list(self.nodes.items())[1:]
        parts += [f"{count} on {_named(provider)}" for provider, count in others]
        parts[-1] += f" ({_listed(self.operators)})"
        if self.copies is not None:
            parts.append(f"{self.copies or 'no'} {'copy' if self.copies == 1 else 'copies'} between them")
        return ", ".join(parts)


def placed(provider: str, subgraphs: Iterable[Subgraph], copied: int | None = None) -> Placement:
    """What onnxruntime's list of assigned subgraphs says of a session on `provider`."""
    nodes = [Node(n.op_type, n.name, s.ep_name) for s in subgraphs for n in s.get_nodes()]
    elsewhere = tuple(n for n in nodes if n.provider != provider)
    return Placement(provider, len(nodes) - len(elsewhere), elsewhere, copied)


def copies(graph: ir.Graph) -> int:
    """How many nodes of an optimized graph copy a value between devices."""
    return sum(node.op_type in _COPIES for node in ir.traversal.RecursiveGraphIterator(graph))


def _named(provider: str) -> str:
    return _NAMES.get(provider, provider.removesuffix("ExecutionProvider"))


def _listed(operators: dict[str, int]) -> str:
    words = [f"{name} ×{count}" if count > 1 else name for name, count in operators.items()]
    more = len(words) - _SHOWN
    return ", ".join(words if more <= 1 else [*words[:_SHOWN], f"and {more} more"])
