"""Where a model holds integers of its values: from the quantizers that make them to those that make floats of them.

Between both, moves give elements of what they read (`OpSpec.carries`). All quantizers around them must be one: 8 bits,
one constant scale and zero point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from graphopt import ops
from graphopt.analysis.places import only_reader
from graphopt.compress.integers.coding import BACK, BYTES, QUANTIZE, Coding, held, operator
from graphopt.graph.nodes import key, readers

__all__ = ["Span", "explored", "source", "spread"]


@dataclass(eq=False)
class Span:
    """Integers from the quantizers that make them to those that make floats of them."""

    first: dict[ir.Node, None] = field(default_factory=dict)
    last: dict[ir.Node, None] = field(default_factory=dict)
    values: dict[ir.Value, None] = field(default_factory=dict)


def explored(node: ir.Node, code: Coding, span: Span) -> str:
    """Find all that hangs together with a quantizer; why it stays as it is, or nothing."""
    why, pending = "", [node.outputs[0]]
    while pending:
        value = pending.pop()
        maker = value.producer()
        if value in span.values:
            continue
        span.values[value] = None
        if value.is_graph_output() or maker is None:
            why = why or "its integers are an input or output"
            continue
        for each in (maker, *readers(value)):
            end = {(QUANTIZE, True): span.first, (BACK, False): span.last}.get((operator(each), each is maker))
            if end is not None:
                end[each] = None
                why = why or ("" if Coding.of(each, BYTES) == code else f"{key(each)} has another scale or zero point")
                continue
            spec = ops.spec_of(each)
            pairs = [p for p in spec.carries(each) if value in p] if spec is not None else []
            pending += [v for p in pairs for v in p]
            if not pairs:
                why = why or f"{key(each)} computes on its integers"
            elif spec is not None and spec.fills and code.zero.any():
                why = why or f"{key(each)} fills up with integers of 0, which are not the number 0 here"
    return why or _objection(span, code)


def _objection(span: Span, code: Coding) -> str:
    """Why integers that nothing but moves reads stay integers; empty if they need not."""
    fixed = [held(n.inputs[0]) is not None for n in span.first]
    ends = [n for n in span.last if n.outputs[0].is_graph_output()]
    if not span.last:
        return "nothing makes floats of its integers"
    if fixed == [True] and len(span.values) == 1:
        return "it is an output" if ends else ""
    if any(fixed) or code.grid is None:
        return "it has one scale for each channel, or is of a constant"
    graph = next(iter(span.first)).graph
    if any(v.graph is not graph for v in (*span.values, *map(source, span.first))):
        return "its integers are read in a body"
    sources = [
        source(m) if m is not None and m in span.first else s for s in map(source, ends) for m in (s.producer(),)
    ]
    taken = any(s.is_graph_output() or s.producer() is None for s in sources)
    return "it alone makes the difference between outputs, or inputs" if taken or len(set(sources)) < len(ends) else ""


def source(node: ir.Node) -> ir.Value:
    """What a quantizer reads."""
    (value, *_) = node.inputs
    if value is None:
        raise ValueError(f"{key(node)} reads nothing")
    return value


def spread(model: ir.Model, known: Mapping[ir.Value, tuple[float, float]]) -> dict[ir.Value, tuple[float, float]]:
    """What is known of values, told of those that hold the same elements."""
    found, moves = dict(known), [(n, list(s.carries(n))) for n in model.graph if (s := ops.spec_of(n)) is not None]
    for _, pairs in moves:
        for target in dict.fromkeys(b for _, b in pairs):
            ends = [found.get(a) for a, b in pairs if b is target]
            told = [e for e in ends if e is not None]
            if target not in found and len(told) == len(ends):
                found[target] = (min(e[0] for e in told), max(e[1] for e in told))
    for node, pairs in reversed(moves):
        for read, target in pairs:
            if target in found and only_reader(read) is node:
                found.setdefault(read, found[target])
    return found
