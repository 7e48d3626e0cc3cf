"""Parts of a graph as models of their own, to run only what is needed."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

__all__ = ["part"]


def part(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> ir.Model:
    """A copy of what computes these outputs from these inputs; weights are shared, not copied.

    Args:
        model: is not changed.
        inputs: names of values of the main graph that bound the part; none that bounds nothing is asked for.
        outputs: names of the values that the part ends with, its inputs not among them.
    """
    graph = ir.convenience.extract(model.graph, inputs, outputs)
    graph.opset_imports.update(model.opset_imports)
    functions = [function.clone() for function in model.functions.values()]
    return ir.Model(graph, ir_version=model.ir_version, functions=functions)
