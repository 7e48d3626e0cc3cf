"""A model in fewer bytes that computes the same: short names inside, and nothing said that holds unless it is said.

Where weights are a few bits each, what a graph is made of is a good part of the file: of a ResNet-20 at a thirteenth of
its size, a sixth. Names of inputs and outputs stay; keys of nodes, which recipes use, are those of the model as given.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, product
from string import ascii_letters, digits

import onnx
import onnx_ir as ir

from graphopt.graph.nodes import TRAINED, graphs, input_at, static_shape

__all__ = ["shorten"]

_NEUTRAL = {"strides": 1, "dilations": 1, "pads": 0}
"""What lists with a number for each axis are full of where they are left out (Conv, pooling and others)."""


def shorten(model: ir.Model) -> None:
    """Write a model in fewer bytes, in place. What trains it refers to names: then all stay."""
    inside = list(graphs(model))
    if TRAINED in model.graph.meta:
        return
    kept = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    values = [v for g in inside for v in (*g.inputs, *g.initializers.values(), *(v for n in g for v in n.outputs))]
    loose = [v for v in dict.fromkeys(values) if v.name and id(v) not in kept]
    fresh, taken = _names(), {v.name for v in (*model.graph.inputs, *model.graph.outputs)}
    constants = [(g, list(g.initializers.values())) for g in inside]
    for graph, _ in constants:
        graph.initializers.clear()
    for value in sorted(loose, key=lambda v: -len(v.uses())):  # the shortest names for those that are named most
        value.name = next(name for name in fresh if name not in taken)
    for graph, contents in constants:
        for value in contents:
            graph.initializers.add(value)
    for graph in inside:
        for node in graph:
            node.name = ""
            for name in list(node.attributes):
                if _is_implied(node, name):
                    node.attributes.pop(name)


def _names() -> Iterator[str]:
    for length in count(1):
        for first, *rest in product(ascii_letters, *[ascii_letters + digits] * (length - 1)):
            yield "".join((first, *rest))


def _is_implied(node: ir.Node, name: str) -> bool:
    """Whether leaving an attribute out says the same."""
    held = node.attributes[name]
    if held.is_ref() or node.domain:
        return False
    version = node.version or (node.graph.opset_imports.get("", 0) if isinstance(node.graph, ir.Graph) else 0)
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return False
    if name not in schema.attributes or schema.attributes[name].required:
        return False
    default = schema.attributes[name].default_value
    if default.name:
        return bool(onnx.helper.get_attribute_value(default) == held.value)
    if name == "kernel_shape":
        weights = input_at(node, 1)
        return weights is not None and list(held.as_ints()) == list(static_shape(weights) or ())[2:]
    return name in _NEUTRAL and set(held.as_ints()) == {_NEUTRAL[name]}
