"""The dense model with some units' columns zeroed and the others refit: what a cut model computes, without surgery."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.groups import Channels, Widths
from graphopt.analysis.moments import Moment, products
from graphopt.compress.compress import kept

__all__ = ["Variants"]

Array = NDArray[Any]
Key = tuple[str, int]


class Variants:
    """Weights of the readers of groups, at any widths.

    Args:
        model: the dense model; it is not changed.
        channels: its groups.
        orders: by group, its units in the order in which they are cut.
        moments: of the groups' readers.
        widths: of `base`, where groups are not to be at full width there.
    """

    base: ir.Model
    """The model without surgery: what reads units that are cut multiplies them with zero."""

    def __init__(
        self,
        model: ir.Model,
        channels: Channels,
        orders: Mapping[str, NDArray[np.intp]],
        moments: Mapping[Key, Moment],
        widths: Widths = MappingProxyType({}),
    ) -> None:
        self._channels, self._orders, self._moments = channels, orders, moments
        self._widths, self._dense = widths, products(model)
        self._model = model
        self.weighted = frozenset(r for key in orders for r in self.readers(key))
        """The products whose weights depend on widths."""
        self.base = model.clone()
        self._ports: dict[Key, tuple[ir.Value, ir.Value]] = {}
        for name, linear in products(self.base).items():
            if name in self.weighted:
                self._ports[name] = _own(self.base.graph, linear, name)
        for name, ports in self._ports.items():
            for value, contents in zip(ports, self._weights(name, {}), strict=True):
                value.const_value = ir.tensor(contents, name=value.name)

    def readers(self, key: str) -> tuple[Key, ...]:
        """The products that a variant of this group gives other weights; none where one of them has no such weight."""
        mine = [r for r in self._channels.groups[key].readers if not self._is_diagonal(r)]
        known = all(r in self._moments and r in self._dense and self._dense[r].alpha for r in mine)
        return tuple(mine) if known else ()

    def nodes(self, key: str) -> list[ir.Node]:
        """The nodes of `base` whose weights differ in a variant of this group."""
        return [next(iter(w.uses())).node for w in (self._ports[r][0] for r in self.readers(key))]

    def names(self, key: str) -> list[str]:
        """Of the initializers of `base` that a variant of this group replaces."""
        return [str(v.name) for r in self.readers(key) for v in self._ports[r]]

    def feed(self, key: str, width: int) -> dict[str, Array]:
        """Their contents where the group has this width."""
        fed: dict[str, Array] = {}
        for reader in self.readers(key):
            for value, contents in zip(self._ports[reader], self._weights(reader, {key: width}), strict=True):
                fed[str(value.name)] = contents
        return fed

    def refit(self, name: Key, moment: Moment, widths: Widths = MappingProxyType({})) -> tuple[Array, Array]:
        """What a product multiplies with, and adds, at the operating point, with these groups at other widths."""
        linear, port = self._dense[name], self._channels.products[name].source
        mine = [g for g in port.groups if g in self._orders and name in self.readers(g)]
        at = {g: widths.get(g, self._widths.get(g, self._channels.groups[g].units)) for g in mine}
        keep = port.kept(kept(self._channels, self._orders, at))
        matrix = linear.alpha * linear.matrix().astype(np.float64)
        return moment.refit(matrix, linear.beta * linear.bias_vector(), keep)

    def _weights(self, name: Key, widths: Widths) -> tuple[Array, Array]:
        """The weight as the node reads it, and the final bias."""
        linear = self._dense[name]
        matrix, bias = self.refit(name, self._moments[name], widths)
        return linear.unmatrix(matrix / linear.alpha), bias.astype(linear.weights.dtype)

    def _is_diagonal(self, reader: Key) -> bool:
        found = self._channels.products.get(reader)
        return found is not None and found.diagonal


def _own(graph: ir.Graph, linear: ops.Linear, name: Key) -> tuple[ir.Value, ir.Value]:
    """Give a product a weight and a final bias that nothing else reads."""
    node, key = linear.node, f"{name[0]}#{name[1]}"
    weight = _take(graph, linear, linear.weight, linear.weights, f"{key}/weight")
    final = (linear.beta * linear.bias_vector()).astype(linear.weights.dtype)
    if linear.bias is not None:
        return weight, _take(graph, linear, linear.bias, final, f"{key}/bias")
    bias = _constant(graph, final, f"{key}/bias")
    result = node.outputs[0]
    uses = list(result.uses())
    total = ir.node("Add", [result, bias])
    graph.insert_after(node, total)
    shifted = total.outputs[0]
    shifted.type, shifted.shape, shifted.name = result.type, result.shape, f"{key}/shifted"
    for user, index in uses:
        user.replace_input_with(index, shifted)
    for position, output in enumerate(graph.outputs):
        if output is result:
            graph.outputs[position] = shifted
            result.name, shifted.name = shifted.name, result.name
    return weight, bias


def _take(graph: ir.Graph, linear: ops.Linear, index: int, contents: Array, name: str) -> ir.Value:
    """Let an input of a product be a constant of its own; a bias counts once."""
    value, node = _constant(graph, contents, name), linear.node
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)
    if index == linear.bias and linear.beta != 1.0:
        node.attributes.add(ir.AttrFloat32("beta", 1.0))
    return value


def _constant(graph: ir.Graph, contents: Array, name: str) -> ir.Value:
    tensor = ir.tensor(contents)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(contents.shape))
    graph.register_initializer(value)
    return value
