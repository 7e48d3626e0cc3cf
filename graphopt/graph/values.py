"""Partly known integer tensors: what shape computations come to, without running them.

`follow` walks a graph once in its order. For each value it learns the shape, by the official inference of single nodes,
and for small integer and boolean tensors the contents, element by element: a `Dim`, a truth value, or None where
nothing is known. What it finds about contents feeds the shapes of what comes after (Reshape, Expand, Slice, …), whose
extents are then known as polynomials in the symbols of the inputs.

The rules are in `follow_layout.py` and `follow_arithmetic.py`, the only places that know how shapes are computed; what
operators without a rule give is not known.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from types import MappingProxyType

import onnx_ir as ir

from graphopt.graph import follow_arithmetic, follow_layout, shapes
from graphopt.graph.collector import resting
from graphopt.graph.contents import Rule, Values
from graphopt.graph.dims import Dim
from graphopt.graph.nodes import graphs, static_shape, subgraphs

__all__ = ["Values", "bound", "follow"]

POSITIVE = "graphopt.positive"
"""Where a graph keeps which symbols are above zero: a fact about the source, wherever it was found there."""

_log = logging.getLogger(__name__)

_RULES: Mapping[str, Rule] = MappingProxyType({**follow_arithmetic.RULES, **follow_layout.RULES})
"""One for each operator of shape computations."""


def follow(model: ir.Model) -> Values:
    """Learn the shapes and contents of all values of a model, and put the shapes into it.

    Shapes that a file claims for computed values are forgotten first, unless nothing here could find them again:
    exporters write wrong ones, above all for outputs. Extents of inputs are taken as declared; one without a name
    gets one of its own. (The declared interface is put back when the model is emitted.)
    """
    positive: frozenset[str] = model.graph.meta.get(POSITIVE, frozenset())
    values = _walk(model, positive)
    if values.positive > positive:  # what was learned late may tell more of what comes early
        model.graph.meta[POSITIVE] = frozenset(values.positive)  # a new one: copies of the model have theirs
        values = _walk(model, values.positive)
    return values


def _walk(model: ir.Model, positive: Collection[str]) -> Values:
    values = Values(main=model.graph, positive=set(positive))
    for value in model.graph.inputs:
        values.symbols.update(
            {d.value: Dim.of(d.value) for d in value.shape or () if isinstance(d, ir.SymbolicDim) and d.value}
        )
    known: shapes.Known = {}
    pending: list[ir.Graph | ir.Node] = [model.graph]
    while pending:
        current = pending.pop()
        if isinstance(current, ir.Node):
            _follow_node(current, values, model, known)
            continue
        for value in current.inputs:
            values.open(value)
        for node in reversed(current):
            pending.append(node)
            pending.extend(subgraphs(node))  # bodies are looked at before the node that runs them
            _forget(node)
    return values


def _forget(node: ir.Node) -> None:
    """What a body is given may change from one time to the next, whatever it declares: its inputs have no shape.

    Only the number of the iteration and the condition are what a Loop's body declares: a scalar or a vector of one.
    """
    for body in subgraphs(node):
        for index, value in enumerate(body.inputs):
            if index > 1 or node.op_type != "Loop" or static_shape(value) not in {(), (1,)}:
                value.shape = None


def _follow_node(node: ir.Node, values: Values, model: ir.Model, known: shapes.Known) -> None:
    if not node.domain:
        for value in node.outputs:
            value.shape = None
    shapes.infer_node(node, model, known)
    rule = None if node.domain else _RULES.get(node.op_type)
    if rule is not None:
        try:
            rule(node, values)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as problem:
            _log.debug("nothing is known of %s: %s", node.name, problem)  # it is not valid, as inference may have found
    for value in node.outputs:
        values.open(value)


@resting()
def bound(model: ir.Model, inputs: Mapping[str, tuple[int, ...]]) -> shapes.ShapeOf:
    """Concrete shapes of all values where the inputs have the given ones, as a function of the value.

    Values of bodies are answered by name as well; local functions are not entered.
    """
    fixed = model.clone()
    for value in fixed.graph.inputs:
        if value.name is not None and value.name in inputs:
            value.shape = ir.Shape(inputs[value.name])
    follow(fixed)
    named = (
        v for g in graphs(fixed) for v in (*g.inputs, *g.initializers.values(), *(o for n in g for o in n.outputs))
    )
    known = {v.name: static_shape(v) for v in named}

    def shape(value: ir.Value | None) -> tuple[int, ...] | None:
        return None if value is None else known.get(value.name) or static_shape(value)

    return shape
