"""What a rule wants to put into a graph, while it touches nothing there yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.nodes import let_go

__all__ = ["Draft"]


class Draft:
    """The nodes and constants that a rule wants in place of what it matched. Nothing is in the graph yet."""

    def __init__(self, root: ir.Node) -> None:
        self.root = root
        self.nodes: list[ir.Node] = []
        self.constants: list[ir.Value] = []
        self.matched: list[ir.Node] = []
        """Further nodes that it makes superfluous, beyond those of the rule's pattern."""
        self.reduction = 1

    def const(self, array: NDArray[Any], hint: str) -> ir.Value:
        """A new constant, named after `hint` once it is in the graph."""
        contents = np.ascontiguousarray(array).reshape(array.shape)
        return self.tensor(ir.tensor(contents), hint)

    def tensor(self, tensor: ir.TensorProtocol, hint: str) -> ir.Value:
        """As `const`, for a tensor that exists already (it is shared, not copied)."""
        value = ir.Value(
            name=hint, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy())
        )
        self.constants.append(value)
        return value

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
    ) -> ir.Value:
        """A new node with one output, which is returned."""
        made = ir.node(op_type, list(inputs), dict(attributes or {}), domain=domain)
        self.nodes.append(made)
        return made.outputs[0]

    def like(self, node: ir.Node, inputs: Sequence[ir.Value | None], **changed: Any) -> ir.Value:
        """A copy of a one-output `node` with other inputs; an attribute set to None is left out."""
        kept = {name: a for name, a in node.attributes.items() if name not in changed}
        fresh = ir.convenience.convert_attributes({n: v for n, v in changed.items() if v is not None})
        made = ir.Node(node.domain, node.op_type, list(inputs), [*kept.values(), *fresh], overload=node.overload)
        made.metadata_props.update(node.metadata_props)
        self.nodes.append(made)
        return made.outputs[0]

    def discard(self) -> None:
        """Let go of the graph: a node that is not wanted must not count as a reader of its inputs."""
        for node in self.nodes:
            let_go(node)

    def prune(self, wanted: Iterable[ir.Value]) -> None:
        """Drop nodes that none of the `wanted` values needs."""
        needed, kept = set(wanted), list[ir.Node]()
        for node in reversed(self.nodes):
            if any(v.uses() or v in needed for v in node.outputs):
                kept.append(node)
            else:
                let_go(node)
        self.nodes[:] = reversed(kept)
