"""Masks that float16 can hold: what is added to scores so that they vanish need not reach −10³⁸.

    Softmax(s + m)            → Softmax(s + max(m, −10⁴))
    Softmax(Where(c, s, m))   → Softmax(Where(c, s, max(m, −10⁴)))
    Attention(q, k, v, m)     → Attention(q, k, v, max(m, −10⁴))

where m is known to be finite and may be below (`fuse.ranges`); so too for further sums and choices before the Softmax.
Beside any score that is not forbidden, e^−10⁴ is 0 in every type, so that such rows keep every bit. A row that forbids
all is told apart by the scores again, where they were too small beside −10³⁸: whoever asks for this has to look.
−∞ stays: it is a number of float16.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx_ir as ir

from graphopt.fuse.ranges import range_of
from graphopt.graph.names import Names
from graphopt.graph.nodes import array
from graphopt.rewrite.ask import made_by

__all__ = ["shallow"]

_LOW: Final = -1e4
_MASK: Final = 3
"""The input of Attention that is added to scores."""


def shallow(model: ir.Model) -> ir.Model:
    """A copy of a model whose masks are no lower than −10⁴; the model itself where none of them is."""
    copy = model.clone()
    names, made = Names(copy), dict[ir.Value, ir.Value]()
    for node, index in [place for each in copy.graph for place in _masks(each)]:
        mask = node.inputs[index]
        if mask is not None:
            if mask not in made:
                made[mask] = _cut_off(mask, names)
            node.replace_input_with(index, made[mask])
    return copy if made else model


def _masks(node: ir.Node) -> Iterator[tuple[ir.Node, int]]:
    """Inputs that are low masks of scores which a node normalizes, and the nodes that read them there."""
    (source, *_), mask = node.outputs, None
    if made_by(source, "Attention") is node and len(node.inputs) > _MASK:
        mask = node.inputs[_MASK]
        if _is_low(mask):
            yield node, _MASK
    pending = [node.inputs[0]] if made_by(source, "Softmax") is node else []
    while pending:
        joined = made_by(pending.pop(), "Add", "Where")
        for index in () if joined is None else range(len(joined.inputs) - 2, len(joined.inputs)):
            if joined is not None and _is_low(joined.inputs[index]):
                yield joined, index
            elif joined is not None:
                pending.append(joined.inputs[index])


def _is_low(value: ir.Value | None) -> bool:
    found = range_of(value)
    return found is not None and found[0] < _LOW


def _cut_off(mask: ir.Value, names: Names) -> ir.Value:
    """A mask that is no lower, computed right behind it or ahead of time."""
    contents, producer, graph = array(mask), mask.producer(), mask.graph
    name = names.fresh(f"{mask.name}/low")
    low = np.asarray(_LOW, np.float32)
    tensor = ir.tensor(low if contents is None else np.maximum(contents, low), name=name)
    value = ir.Value(name=name, const_value=tensor, type=mask.type, shape=ir.Shape(tensor.shape.numpy()))
    if not isinstance(graph, ir.Graph):
        raise TypeError(f"{mask.name} stands in no graph")
    graph.register_initializer(value)
    if contents is not None or producer is None:
        return value
    node = ir.node("Max", [mask, value], name=names.fresh(f"{mask.name}/Max"))
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = node.name, mask.type, mask.shape
    graph.insert_after(producer, node)
    return node.outputs[0]
