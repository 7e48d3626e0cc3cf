"""What is picked out of several tensors put together is picked out of the one that holds it.

    Gather(Concat(…, x, …), i)      → Gather(x, i − what stands before x)       on one axis, all of i within x

Exporters write the last state of a recurrent network so: all states are put together, and one is taken. What else was
put together is then read by nobody.

BITWISE: elements keep their bits.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import onnx_ir as ir

from graphopt.graph.draft import Draft
from graphopt.graph.nodes import array, attr
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, No, rule
from graphopt.match.pattern import op, var
from graphopt.protocol import Context
from graphopt.rewrite.ask import axis_of, dims, made_by

__all__ = ["gathered_part"]


@rule(
    op.Gather(var("x"), var("index"), name="node"),
    exactness=Exactness.BITWISE,
)
def gathered_part(draft: Draft, _ctx: Context, x: ir.Value, index: ir.Value, node: ir.Node) -> Answer:
    """A Gather from a Concat reads the one tensor that holds what it picks."""
    concat = made_by(x, "Concat")
    if concat is None:
        return No("it picks from no Concat")
    axis, joined, wanted = axis_of(concat), dims(x), array(index)
    if axis is None or joined is None or wanted is None or not wanted.size:
        return No("what it picks is not known")
    if attr(node, "axis", 0) % len(joined) != axis % len(joined):
        return No("it picks along another axis")
    shapes = [dims(v) for v in concat.inputs]
    extents = [None if shape is None else shape[axis] for shape in shapes]
    if not all(isinstance(extent, int) for extent in extents):
        return No("how long its parts are is not known")
    ends = list(accumulate(int(str(extent)) for extent in extents))
    if np.any(wanted < -ends[-1]) or np.any(wanted >= ends[-1]):
        return No("it picks what is not there")
    places = np.where(wanted < 0, wanted + ends[-1], wanted)
    part = int(np.searchsorted(ends, places.min(), side="right"))
    if places.max() >= ends[part]:
        return No("it picks from several of them")
    start = ends[part - 1] if part else 0
    inner = draft.const((places - start).astype(wanted.dtype), f"{node.outputs[0].name}/index")
    return draft.like(node, [concat.inputs[part], inner])
