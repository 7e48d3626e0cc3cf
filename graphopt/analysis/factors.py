"""Which channels may be multiplied by a positive number and divided by it again before anything else sees them.

    written by 1/s:  a product's rows, scale and shift of a normalization, a constant that is added or multiplied
    passed on:       Relu, sums, pools, what moves elements (`OpSpec.factors`)
    read by s:       a product's columns

Channels are followed as they are for cutting (`analysis.channels`), but all that is not known to pass a factor on holds
them: normalizations, clippings, most activations, the inputs and the outputs of the model.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.channels import Analysis
from graphopt.graph.names import Names
from graphopt.graph.nodes import is_constant, key, readers
from graphopt.graph.shapes import ShapeOf
from graphopt.ops.flow import Axis, aligned, opaque, pointwise

__all__ = ["Scalable", "scalable"]


@dataclass(frozen=True, eq=False)
class Scalable:
    """The channels of a model that may be scaled, numbered: its *units*; −1 stands for a channel that may not."""

    groups: tuple[Axis, ...]
    """Units that the same products read, directly or not."""
    sources: Mapping[str, Axis]
    """(in_channels,): the unit of each channel that a product reads, by its key."""
    results: Mapping[str, Axis]
    """(channels,): of each channel that it makes."""
    constants: Mapping[str, tuple[Axis, ...]]
    """By name of a constant that is divided, the units along each of its axes."""

    def scaled(self, model: ir.Model, factors: NDArray[np.float64]) -> ir.Model:
        """A copy of a model in which each unit is divided by its factor, and multiplied where it is read.

        Args:
            model: what this was found in; it is not changed.
            factors: (units,): positive. With powers of two, not a bit of what the model computes changes (but for
                numbers that are next to zero); with others, what rounding does.
        """
        copy, by = model.clone(), np.append(factors, 1.0)
        names = Names(copy)

        def give(node: ir.Node, index: int, contents: NDArray[Any]) -> None:
            old = node.inputs[index]
            if old is None or old.const_value is None or np.array_equal(contents, old.const_value.numpy()):
                return
            if len(old.uses()) == 1:
                old.const_value = ir.tensor(contents, name=old.name)
                return
            value = ir.Value(name=names.fresh(str(old.name)), type=old.type, shape=old.shape)
            value.const_value = ir.tensor(contents, name=value.name)
            copy.graph.register_initializer(value)
            node.replace_input_with(index, value)

        for node in copy.graph:
            if (name := key(node)) in self.sources:
                (linear,) = ops.linears(node)
                give(node, linear.weight, linear.after(by[self.sources[name]])[0])
                (linear,) = ops.linears(node)
                weight, bias = linear.scaled(1 / by[self.results[name]])
                give(node, linear.weight, weight)
                if linear.bias is not None and bias is not None:
                    give(node, linear.bias, bias.reshape(linear.bias_value.shape.numpy()))  # type: ignore[union-attr]
        for name, axes in self.constants.items():
            value = copy.graph.initializers[name]
            contents = value.const_value.numpy()  # type: ignore[union-attr]
            for place, axis in enumerate(axes):
                shape = [len(axis) if i == place else 1 for i in range(len(axes))]
                contents = (contents / by[axis].reshape(shape)).astype(contents.dtype)
            value.const_value = ir.tensor(contents, name=name)
        return copy


def scalable(model: ir.Model, shape: ShapeOf, skip: Container[str] = ()) -> Scalable:
    """Find all channels of a model that may be scaled, and that products read.

    Args:
        model: canonical; only its main graph is looked at.
        shape: the extents of its values in some run.
        skip: keys of nodes that stay as they are.
    """
    analysis = _Factors(model, shape, skip)
    analysis.walk()
    return analysis.told()


class _Factors(Analysis):
    """The walk, with what passes factors on in place of what passes absence on."""

    def __init__(self, model: ir.Model, shape: ShapeOf, skip: Container[str]) -> None:
        super().__init__(model, shape, inner=True)
        self._skip = skip
        self._linears: dict[str, tuple[Axis, Axis]] = {}
        self._divided: dict[ir.Value, list[Axis]] = {}

    def follow(self, node: ir.Node, spec: ops.OpSpec) -> None:
        linear, given = _linear(node), [v for i, v in enumerate(node.inputs) if i in spec.factors(node)]
        computed = [v for v in node.inputs if v is not None and not is_constant(v)]
        if key(node) in self._skip or not (linear or given):
            opaque(node, self)
        elif linear is not None:
            self._product(linear)
        elif all(v in given for v in computed):
            spec.flow(node, self)
            if spec.flow is pointwise:
                self._check_extents(node, given)
            self._divide(node, given)
        else:
            for value in computed:
                for axis in self.of(value):
                    self.hold(axis, f"{node.op_type} needs it as it is")
            self.put(node.outputs[0], aligned(node, self, given, self.shape(node.outputs[0])))
            self._divide(node, given)

    def _product(self, linear: ops.Linear) -> None:
        node, (y, *_) = linear.node, linear.node.outputs
        x = node.inputs[linear.x]
        axes = [] if x is None else self.of(x)
        place = linear.y_axis % max(len(self.shape(y)), 1)
        if len(axes) <= place or len(axes[place]) != linear.in_channels or self.shape(y)[place] != linear.channels:
            return opaque(node, self)
        for axis in (*axes[:place], *axes[place + 1 :]):
            self.hold(axis, f"{node.op_type} needs it as it is")
        made = [self.held(n, f"{node.op_type} makes it") for n in self.shape(y)]
        made[place] = self.fresh(linear.channels)
        self._linears[key(node)] = axes[place], made[place]
        return self.put(y, made)

    def _check_extents(self, node: ir.Node, given: list[ir.Value | None]) -> None:
        """What is repeated along an axis cannot be divided by several numbers."""
        for place, axis in enumerate(reversed(self.of(node.outputs[0])), 1):
            shapes = [self.shape(v)[::-1] for v in given if v is not None]
            if len(axis) > 1 and any(s[place - 1 : place] in ((), (1,)) for s in shapes):
                self.hold(axis, f"{node.op_type} broadcasts to it")

    def _divide(self, node: ir.Node, given: list[ir.Value | None]) -> None:
        """Constants are divided where they lie, so that nothing else may read them."""
        for value in given:
            if value is None or not is_constant(value):
                continue
            self._divided[value] = self.of(value)
            if len(list(readers(value))) > 1 or value.const_value is None:
                for axis in self.of(value):
                    self.hold(axis, f"others than {node.op_type} read it")

    def told(self) -> Scalable:
        ends = {name: (self._roots(a), self._roots(b)) for name, (a, b) in self._linears.items()}
        read = [r for source, _ in ends.values() if len(r := np.unique(source[source >= 0]))]
        groups = list[set[int]]()
        for roots in read:
            mine = set(roots.tolist())
            groups = [*(g for g in groups if not g & mine), mine.union(*(g for g in groups if g & mine))]
        units = {root: i for i, root in enumerate(r for g in groups for r in sorted(g))}

        def unit(axis: Axis) -> Axis:
            return np.array([units.get(r, -1) for r in axis.tolist()], np.int64)

        constants = {str(v.name): tuple(unit(self._roots(a)) for a in axes) for v, axes in self._divided.items()}
        return Scalable(
            tuple(unit(np.array(sorted(g), np.int64)) for g in groups),
            {name: unit(source) for name, (source, _) in ends.items()},
            {name: unit(result) for name, (_, result) in ends.items()},
            {name: axes for name, axes in constants.items() if any((a >= 0).any() for a in axes)},
        )

    def _roots(self, axis: Axis) -> Axis:
        """−1 for what is held."""
        roots = self._ids.roots(axis)
        held = np.array([r in self._ids.why for r in roots.tolist()], np.bool_)
        return np.where(held, -1, roots)


def _linear(node: ir.Node) -> ops.Linear | None:
    """The product of a node that has exactly one, with a weight that nothing else reads and a known bias."""
    found = ops.linears(node)
    if len(found) != 1 or not found[0].channels or found[0].alpha != 1 or found[0].beta != 1:
        return None
    linear, weight = found[0], node.inputs[found[0].weight]
    if weight is None or len(list(readers(weight))) > 1 or is_constant(node.inputs[linear.x]):
        return None
    return linear if linear.bias_value is None or is_constant(linear.bias_value) else None
