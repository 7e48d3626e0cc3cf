"""Takes channels out of a graph: constants are sliced, and nodes that hold extents get others (`OpSpec.resize`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.groups import Channels, Port
from graphopt.graph import values
from graphopt.graph.names import Names
from graphopt.graph.nodes import is_constant

__all__ = ["Keep", "cut"]

Keep = Mapping[str, NDArray[np.bool_]]
"""Which units of a group stay, by its key: (units,). Groups that are not named keep all."""


def cut(model: ir.Model, channels: Channels, keep: Keep) -> ir.Model:
    """A copy of a model with only some units of each group. Names of nodes and values stay.

    Args:
        model: what `channels` was found in. It is not changed.
        channels: its groups.
        keep: which units stay, at least one of each group.
    """
    thin = model.clone()
    work = _Cut(thin, channels, keep)
    for node in thin.graph:
        spec = ops.spec_of(node)
        if spec is not None and any(str(v.name) in channels.values for v in (*node.inputs, *node.outputs) if v):
            spec.resize(node, work)
    for value in list(thin.graph.initializers.values()):
        work.slice(value)
    work.finish()
    return thin


class _Cut:
    """One cut. It is what `ops.resize.Cut` asks for."""

    def __init__(self, model: ir.Model, channels: Channels, keep: Keep) -> None:
        self._model = model
        self._channels = channels
        self._keep = keep
        self._extents = {str(v.name): _extents(v) for node in model.graph for v in (*node.inputs, *node.outputs) if v}
        self._names = Names(model)

    def stays(self, value: ir.Value) -> Sequence[NDArray[np.bool_]]:
        ports = self._channels.values.get(str(value.name))
        extents = self._extents[str(value.name)]
        if ports is None:
            return [np.ones(n, np.bool_) for n in extents]
        return [
            np.ones(n, np.bool_) if port is None else port.kept(self._keep)
            for n, port in zip(extents, ports, strict=True)
        ]

    def attribute(self, node: ir.Node, name: str, value: Any) -> None:
        if value is None:
            node.attributes.pop(name, None)
            return
        kind = (
            ir.AttrInt64s if isinstance(value, list) else ir.AttrFloat32 if isinstance(value, float) else ir.AttrInt64
        )
        node.attributes[name] = kind(name, value)

    def constant(self, node: ir.Node, index: int, value: NDArray[Any]) -> None:
        name = self._names.fresh(f"{node.name}/cut_{index}")
        made = ir.Value(name=name, const_value=ir.Tensor(value, name=name))
        made.type, made.shape = ir.TensorType(ir.DataType.from_numpy(value.dtype)), ir.Shape(value.shape)
        self._model.graph.register_initializer(made)
        while len(node.inputs) <= index:
            node.resize_inputs(index + 1)
        node.replace_input_with(index, made)

    def own(self, node: ir.Node, index: int) -> ir.Node:
        shared = node.inputs[index]
        source = shared.producer() if shared is not None else None
        if source is None:
            raise ValueError(f"no node computes input {index} of {node.name!r}")
        made = ir.node(source.op_type, list(source.inputs), source.attributes, domain=source.domain)
        made.name = made.outputs[0].name = self._names.fresh(f"{node.name}/cut_{index}")
        self._model.graph.insert_before(node, made)
        node.replace_input_with(index, made.outputs[0])
        if not source.outputs[0].uses() and not source.outputs[0].is_graph_output():
            self._model.graph.remove(source, safe=True)
        return made

    def slice(self, value: ir.Value) -> None:
        ports: Sequence[Port | None] = self._channels.values.get(str(value.name), ())
        if not is_constant(value) or value.const_value is None:
            return
        found = value.const_value.numpy()
        for axis, port in enumerate(ports):
            if port is not None:
                found = np.compress(port.kept(self._keep), found, axis)
        if found.shape != tuple(value.const_value.shape.numpy()):
            value.const_value = ir.Tensor(np.ascontiguousarray(found), dtype=value.const_value.dtype, name=value.name)
            value.shape = ir.Shape(found.shape)

    def finish(self) -> None:
        """Constants that are not read any more go; shapes are learned anew."""
        graph = self._model.graph
        for name in [n for n, v in graph.initializers.items() if not v.uses() and not v.is_graph_output()]:
            if not graph.initializers[name].is_graph_input():
                del graph.initializers[name]
        values.follow(self._model)


def _extents(value: ir.Value) -> list[int]:
    """0 stands for what is not a number: nothing is taken out there."""
    return [d if isinstance(d, int) else 0 for d in value.shape or ()]
