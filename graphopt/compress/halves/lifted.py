"""Half precision as it is on any machine: on floats, each rounded where a model in half precision holds it.

    half node ─► half        float node ─ Cast to half ─ Cast to float ─►

Where a runtime has no kernels of half precision, it computes on floats and rounds less, or does not run the model: this
shows what half precision costs all the same. Casts between floats are what no runtime takes out.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphopt.compress.halves.half import cast
from graphopt.graph.names import Names
from graphopt.graph.nodes import graphs, subgraphs

__all__ = ["lifted"]


def lifted(model: ir.Model, kind: ir.DataType) -> ir.Model:
    """A copy of a model on floats that are rounded wherever it has half precision; its interface is the same."""
    copy = model.clone()
    names, single = Names(copy), ir.TensorType(ir.DataType.FLOAT)
    every = [node for graph in graphs(copy) for node in graph]
    reads = {n for n in every if any(v is not None and v.dtype is kind for v in n.inputs) or any(subgraphs(n))}
    made = [v for v in (*copy.graph.inputs, *(v for n in every for v in n.outputs)) if v.dtype is kind and v.name]
    for graph in graphs(copy):
        for value in (*graph.inputs, *graph.initializers.values()):
            if value.dtype is kind and (value.const_value is not None or graph is not copy.graph):
                value.type = single
                if value.const_value is not None:
                    value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
    for value in made:
        readers, low = value.uses(), value
        if value.producer() in reads:  # else its type is told by an attribute, as that of a Cast
            value.type = single
            low = cast(value, kind, names.fresh(f"{value.name}/low"))
        back = cast(low, ir.DataType.FLOAT, names.fresh(f"{value.name}/back"))
        for use in readers:
            use.node.replace_input_with(use.idx, back)
        home = value.graph
        end = low if home is copy.graph else back
        if isinstance(home, ir.Graph) and end is not value and value in home.outputs:
            home.outputs[:] = [end if v is value else v for v in home.outputs]
            value.name, end.name = end.name, value.name
    return copy
