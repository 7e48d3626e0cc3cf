"""Local functions: who calls whom, and how many nodes it comes to. Nothing is expanded to find out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import onnx_ir as ir

from graphopt.graph.nodes import graphs

__all__ = ["called", "calls", "count", "expanded"]

Calls = Mapping[ir.OperatorIdentifier, int]


def calls(model: ir.Model, nodes: Iterable[ir.Node]) -> Calls:
    """How often each local function is called by `nodes` themselves."""
    return Counter(n.op_identifier() for n in nodes if n.op_identifier() in model.functions)


def called(model: ir.Model) -> Calls:
    """How many calls of each local function there are, in the graph and in functions that are called. Others: none."""
    found = Counter(calls(model, _nodes(model)))
    pending = list(found)
    while pending:
        inside = calls(model, model.functions[pending.pop()].all_nodes())
        pending.extend(inside.keys() - found.keys())
        found.update(inside)
    return found


def expanded(model: ir.Model) -> Calls:
    """How many nodes each function would be with all calls in it expanded; one that ends up in itself is missing."""
    inside = {f: calls(model, function.all_nodes()) for f, function in model.functions.items()}
    callers: dict[ir.OperatorIdentifier, list[ir.OperatorIdentifier]] = {}
    for caller, callees in inside.items():
        for callee in callees:
            callers.setdefault(callee, []).append(caller)
    waiting = {f: len(callees) for f, callees in inside.items()}
    ready = [f for f, missing in waiting.items() if not missing]
    size: dict[ir.OperatorIdentifier, int] = {}
    while ready:
        current = ready.pop()
        own = sum(1 for _ in model.functions[current].all_nodes())
        size[current] = own + sum(times * (size[f] - 1) for f, times in inside[current].items())
        for caller in callers.get(current, ()):
            waiting[caller] -= 1
            if not waiting[caller]:
                ready.append(caller)
    return size


def count(model: ir.Model) -> int:
    """Nodes of the model: those of the main graph, of all bodies, and of each local function, once."""
    return sum(1 for _ in _nodes(model)) + sum(1 for f in model.functions.values() for _ in f.all_nodes())


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    return (node for graph in graphs(model) for node in graph)
