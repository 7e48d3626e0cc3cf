"""The dense model with some units' columns zeroed and the others refit: what a cut model computes, without surgery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.groups import Channels, Widths
from graphopt.analysis.moments import Moment, products

__all__ = ["Variants"]

Array = NDArray[Any]
Key = tuple[str, int]


class Variants:
    """Weights of the readers of groups, at any widths near an operating point.

    Args:
        model: the dense model; it is not changed.
        channels: its groups.
        orders: by group, its units in the order in which they are cut.
        moments: of the groups' readers.
        base: widths of the operating point.
        weights: of products at the operating point, where given: matrix and bias.
    """

    base: ir.Model
    """The model at the operating point, at full width: what reads units that are cut multiplies them with zero."""

    def __init__(
        self,
        model: ir.Model,
        channels: Channels,
        orders: Mapping[str, NDArray[np.intp]],
        moments: Mapping[Key, Moment],
        base: Widths,
        weights: Mapping[Key, tuple[Array, Array]],
    ) -> None:
        self._channels, self._orders, self._moments = channels, orders, moments
        self._base, self._dense = base, products(model)
        self._given = weights
        wanted = {r for key in channels.groups for r in self.readers(key)} | weights.keys()
        self.base = model.clone()
        self._ports: dict[Key, tuple[ir.Value, ir.Value]] = {}
        for name, linear in products(self.base).items():
            if name in wanted:
                self._ports[name] = _own(self.base.graph, linear, name)
        for name, (weight, bias) in self._ports.items():
            self._put(weight, bias, *self._weights(name, {}))

    def readers(self, key: str) -> tuple[Key, ...]:
        """The products that a variant of this group gives other weights; none where one of them has no such weight."""
        mine = [r for r in self._channels.groups[key].readers if not self._is_diagonal(r)]
        known = all(r in self._moments and r in self._dense for r in mine)
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

    def masks(self, key: str, width: int) -> dict[str, NDArray[np.bool_]]:
        """Which units stay where the group has this width."""
        return {key: self._kept(key, width)}

    def _kept(self, key: str, width: int) -> NDArray[np.bool_]:
        kept = np.ones(self._channels.groups[key].units, np.bool_)
        kept[self._orders[key][: len(kept) - width]] = False
        return kept

    def _weights(self, name: Key, widths: Widths) -> tuple[Array, Array]:
        """Weight and final bias of a product, with these groups at other widths than those of the operating point."""
        linear, port = self._dense[name], self._channels.products[name].source
        mine = {g for g in port.groups if g in self._orders and name in self.readers(g)}
        if name in self._given and all(widths.get(g) is None for g in mine):
            matrix, bias = self._given[name]
            return linear.unmatrix(matrix), bias.astype(linear.weights.dtype)
        at = {g: widths.get(g, self._base.get(g, self._channels.groups[g].units)) for g in mine}
        keep = port.kept({g: self._kept(g, w) for g, w in at.items()})
        matrix, shift = self._moments[name].refit(linear.matrix(), keep)
        bias = linear.beta * linear.bias_vector() + linear.alpha * shift
        return linear.unmatrix(matrix), bias.astype(linear.weights.dtype)

    def _is_diagonal(self, reader: Key) -> bool:
        found = self._channels.products.get(reader)
        return found is not None and found.diagonal

    @staticmethod
    def _put(weight: ir.Value, bias: ir.Value, *contents: Array) -> None:
        for value, array in zip((weight, bias), contents, strict=True):
            value.const_value = ir.tensor(array, name=value.name)


def _own(graph: ir.Graph, linear: ops.Linear, name: Key) -> tuple[ir.Value, ir.Value]:
    """Give a product a weight and a final bias that nothing else reads."""
    node, key = linear.node, f"{name[0]}#{name[1]}"
    weight = ir.Value(name=f"{key}/weight", const_value=ir.tensor(linear.weights))
    final = (linear.beta * linear.bias_vector()).astype(linear.weights.dtype)
    bias = ir.Value(name=f"{key}/bias", const_value=ir.tensor(final))
    for value in (weight, bias):
        tensor = value.const_value
        assert tensor is not None  # noqa: S101 - just given
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        graph.register_initializer(value)
    node.replace_input_with(linear.weight, weight)
    if linear.bias is not None:
        node.resize_inputs(max(len(node.inputs), linear.bias + 1))
        node.replace_input_with(linear.bias, bias)
        if linear.beta != 1.0:
            node.attributes.add(ir.AttrFloat32("beta", 1.0))
        return weight, bias
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
