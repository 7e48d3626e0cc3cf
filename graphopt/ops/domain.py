"""Which values make sense at the inputs of a graph, from what their readers accept."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from graphopt.graph.domain import Domain
from graphopt.graph.nodes import is_overridable, subgraphs
from graphopt.ops.spec import OpSpec
from graphopt.ops.table import Functions, spec_of

__all__ = ["domains"]


def domains(model: ir.Model) -> dict[str, Domain]:
    """The domain of each graph input that has one, by name; any value of its type will do for the others.

    Inputs with a default (overridable initializers) are left out: nothing needs to be fed there.

    One sweep from the outputs to the inputs, into the bodies of control flow and of local functions. What a reader
    accepts goes back through operators that carry elements (`OpSpec.carries`) or compute simply on them
    (`OpSpec.pulls`). What differs between two calls of a function is met, and the rounds of a loop are not followed.
    """
    sweep = _Sweep(model.functions)
    sweep.run(model.graph)
    return {str(v.name): sweep.wanted[v] for v in model.graph.inputs if v in sweep.wanted and not is_overridable(v)}


class _Sweep:
    def __init__(self, functions: Functions) -> None:
        self.functions = functions
        self.wanted: dict[ir.Value, Domain] = {}
        self.entered: dict[ir.Function, list[Domain | None]] = {}

    def run(self, nodes: ir.Graph | ir.Function) -> None:
        for node in reversed(nodes):
            function = self.functions.get(node.op_identifier())
            if function is not None:
                self.call(node, function)
                continue
            spec = spec_of(node)
            if spec is None:
                continue
            pairs = list(spec.carries(node))
            self.meet(pairs)
            bodies = list(subgraphs(node))
            for body in bodies:
                self.run(body)
            if bodies:
                self.meet(pairs)  # what the bodies ask of what is passed in
            self.ask(node, spec)

    def call(self, node: ir.Node, function: ir.Function) -> None:
        self.meet(zip(function.outputs, node.outputs, strict=False))
        asked = [self.wanted.get(v) for v in function.outputs]
        if self.entered.get(function) != asked:  # a body is not swept twice for the same answer
            self.entered[function] = asked
            self.run(function)
        self.meet((v, p) for v, p in zip(node.inputs, function.inputs, strict=False) if v is not None)

    def meet(self, pairs: Iterable[tuple[ir.Value, ir.Value]]) -> None:
        for source, target in pairs:
            if target in self.wanted:
                self.narrow(source, self.wanted[target])

    def ask(self, node: ir.Node, spec: OpSpec) -> None:
        """Narrow the inputs by what the node accepts, and by what it makes of them."""
        result = self.wanted.get(node.outputs[0]) if node.outputs else None
        for index, value in enumerate(node.inputs):
            if value is None:
                continue
            for domain in (spec.admits(node, index), None if result is None else spec.pulls(node, index, result)):
                if domain is not None:
                    self.narrow(value, domain)

    def narrow(self, value: ir.Value, domain: Domain) -> None:
        self.wanted[value] = domain.meet(self.wanted[value]) if value in self.wanted else domain
