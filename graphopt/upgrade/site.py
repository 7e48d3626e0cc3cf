"""What an adapter is, and what it can do around the node it stands at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["Adapter", "Site"]


class Site(Protocol):
    """What an adapter can do around the node it stands at."""

    target: int
    """The opset that is reached in the end."""
    enlarging: set[ir.Node]
    """Resizes that make nothing smaller, since they were Upsample."""

    def const(self, node: ir.Node, contents: NDArray[Any], hint: str) -> ir.Value:
        """A constant that `node` can read."""

    def before(
        self, node: ir.Node, op_type: str, inputs: Sequence[ir.Value], attributes: Mapping[str, Any] | None = None
    ) -> ir.Value:
        """The result of a new node before `node`."""

    def after(
        self, node: ir.Node, op_type: str, inputs: Sequence[ir.Value], attributes: Mapping[str, Any] | None = None
    ) -> None:
        """Let a new node, which reads the first output of `node` and then `inputs`, take that output's place."""


Adapter = Callable[[ir.Node, Site], str | None]
"""Brings a node into the next form, or answers why it cannot."""
