"""Names that are taken, and fresh ones."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from graphopt.graph.nodes import graphs

__all__ = ["Names"]


class Names:
    """The names of all values and nodes of some graphs.

    Args:
        where: a model, bodies included, or graphs as they are.
    """

    def __init__(self, where: ir.Model | Iterable[ir.Graph]) -> None:
        self._taken: set[str | None] = set()
        for graph in graphs(where) if isinstance(where, ir.Model) else where:
            self._taken.update(v.name for v in (*graph.inputs, *graph.initializers.values()))
            self._taken.update(name for node in graph for name in (node.name, *(v.name for v in node.outputs)))

    def fresh(self, wish: str) -> str:
        """The wish, with a number where it is taken; it is from now on."""
        name, count = wish, 0
        while name in self._taken:
            count += 1
            name = f"{wish}_{count}"
        self._taken.add(name)
        return name
