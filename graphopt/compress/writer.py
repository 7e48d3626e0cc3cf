"""Puts nodes and constants into a graph, under names that are free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.names import Names
from graphopt.graph.nodes import KEY, input_at

__all__ = ["Writer"]


class Writer:
    """Changes a model in place."""

    def __init__(self, model: ir.Model) -> None:
        self.model, self.graph, self._names = model, model.graph, Names(model)
        self.aside = dict[ir.Value, Sequence[ir.Node]]()
        """By value, the nodes behind it the last of which stands for it until `tidy`."""

    def node(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        attributes: Mapping[str, int | Sequence[int]] | None = None,
        *,
        domain: str = "",
        outputs: int = 1,
    ) -> ir.Node:
        """A new node; it is not in the graph yet."""
        fresh = self._names.fresh(name)
        made = ir.node(kind, inputs, dict(attributes or {}), domain=domain, num_outputs=outputs, name=fresh)
        for number, value in enumerate(made.outputs):
            value.name = self._names.fresh(f"{name}d{number or ''}")
        if domain:
            self.graph.opset_imports.setdefault(domain, 1)
        return made

    def like(self, node: ir.Node, inputs: Sequence[ir.Value | None], name: str) -> ir.Node:
        """A node with one result that does the same with other inputs; it is not in the graph yet."""
        attributes = list(node.attributes.values())
        made = ir.Node(node.domain, node.op_type, inputs, attributes, name=self._names.fresh(name))
        made.outputs[0].name = self._names.fresh(f"{name}d")
        return made

    def constant(self, name: str, contents: NDArray[Any], kind: ir.DataType | None = None) -> ir.Value:
        """A constant; its type is that of the contents, unless another one is given that numpy lacks."""
        tensor = ir.tensor(contents) if kind is None else ir.Tensor(contents.astype(kind.numpy()), dtype=kind)
        value = ir.Value(
            name=self._names.fresh(name),
            const_value=tensor,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(contents.shape),
        )
        self.graph.register_initializer(value)
        return value

    def give(self, node: ir.Node, index: int, value: ir.Value) -> None:
        """Let an input be a value; a constant that nothing reads any more goes."""
        old = input_at(node, index)
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        node.replace_input_with(index, value)
        self._drop(old)

    def replace(self, node: ir.Node, others: Sequence[ir.Node]) -> None:
        """Let others stand for a node: the last of them takes its key and gives its result, under the same name."""
        last, old, new = others[-1], node.outputs[0], others[-1].outputs[0]
        self.graph.insert_before(node, others)
        new.type, new.shape = old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        read, name = list(node.inputs), old.name
        self.graph.remove(node, safe=True)
        old.name, new.name = None, name
        last.name = node.name
        if KEY in node.meta:
            last.meta[KEY] = node.meta[KEY]
        for value in read:
            self._drop(value)

    def tidy(self) -> None:
        """Take away what stands aside and nothing needs any more; what still reads it reads the value itself again."""
        for value, nodes in self.aside.items():
            nodes[-1].outputs[0].replace_all_uses_with(value)
            for node in reversed(nodes):
                if not any(v.uses() for v in node.outputs):
                    self.graph.remove(node, safe=True)

    def _drop(self, old: ir.Value | None) -> None:
        if old is not None and not old.uses() and not old.is_graph_output() and not old.is_graph_input():
            self.graph.initializers.pop(str(old.name), None)
