"""How heads come apart and together again: (N, S, H·D) ↔ (N, H, S, D)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphopt.graph.draft import Draft
from graphopt.graph.nodes import array, attr, input_at
from graphopt.match.engine import No
from graphopt.rewrite.ask import Extent, axis_of, dims, ints, made_by, perm_of

__all__ = ["TURNED", "Packed", "expanded", "merges", "packed", "repeated", "unpacked", "within"]

TURNED = [0, 2, 1, 3]
"""From (N, S, H, D) to (N, H, S, D), and back."""
_OF_SEVERAL = [2, 0, 3, 1, 4]
"""From (N, S, 3, H, D) to (3, N, H, S, D)."""


@dataclass(frozen=True)
class Packed:
    """Part `index` of the `count` that lie side by side on the last axis of `source`, each of so many heads."""

    source: ir.Value
    heads: int
    size: int
    index: int = 0
    count: int = 1


def packed(value: ir.Value | None) -> Packed | None:
    """Where the heads (N, H, S, D) of a value lie as (N, S, H·D)."""
    taken, index = _taken(value)
    turn = made_by(value if taken is None else taken, "Transpose")
    split = made_by(None if turn is None else turn.inputs[0], "Reshape")
    if turn is None or split is None or perm_of(turn) != (TURNED if taken is None else _OF_SEVERAL):
        return None
    source, before, after = split.inputs[0], dims(split.inputs[0]), dims(split.outputs[0])
    if source is None or before is None or after is None or len(before) != 3 or not _keeps(split, before, after):  # noqa: PLR2004
        return None
    count, heads, size = (after if len(after) > len(TURNED) else [*after[:2], 1, *after[2:]])[2:]
    if not isinstance(count, int) or not isinstance(heads, int) or not isinstance(size, int):
        return None
    return Packed(source, heads, size, index % count, count) if before[2] == count * heads * size else None


def _taken(value: ir.Value | None) -> tuple[ir.Value | None, int]:
    """What a value is one slice along axis 0 of, and which."""
    gather, squeeze = made_by(value, "Gather"), made_by(value, "Squeeze")
    if gather is not None and attr(gather, "axis", 0) == 0:
        index = array(gather.inputs[1])
        return (gather.inputs[0], int(index)) if index is not None and not index.ndim else (None, 0)
    cut = None if squeeze is None or ints(squeeze, "axes", 1) != [0] else squeeze.inputs[0]
    split = made_by(cut, "Split")
    if cut is None or split is None or axis_of(split) != 0:
        return None, 0
    each = dims(cut)
    whole = dims(split.inputs[0])
    if not each or not whole or each[0] != 1 or whole[0] != len(split.outputs):
        return None, 0
    return split.inputs[0], split.outputs.index(cut)


def merges(node: ir.Node) -> bool:
    """Whether a Reshape makes (N, S, H·D) of (N, S, H, D)."""
    before, after = dims(node.inputs[0]), dims(node.outputs[0])
    if before is None or after is None or len(before) != 4 or len(after) != 3:  # noqa: PLR2004
        return False
    heads, size = before[2:]
    return isinstance(heads, int) and isinstance(size, int) and after[2] == heads * size and _keeps(node, before, after)


def _keeps(reshape: ir.Node, before: Sequence[Extent], after: Sequence[Extent]) -> bool:
    """Whether one of the first two extents is kept; with all further ones known, so is the other."""
    target = array(input_at(reshape, 1))
    copies = target is not None and not attr(reshape, "allowzero", 0)
    return any(
        (before[i] is not None and before[i] == after[i]) or (target is not None and copies and target[i] == 0)
        for i in (0, 1)
    )


def unpacked(draft: Draft, parts: Sequence[Packed]) -> list[ir.Value]:
    """The parts as values (N, S, H·D); what they lie in side by side is split once."""
    cut: dict[ir.Value, Sequence[ir.Value]] = {}
    for part in parts:
        if part.count == 1:
            cut[part.source] = [part.source]
        elif part.source not in cut:
            sizes = np.full(part.count, part.heads * part.size, np.int64)
            given = [part.source, draft.const(sizes, f"{part.source.name}/split")]
            draft.nodes.append(ir.node("Split", given, {"axis": 2}, num_outputs=part.count))
            cut[part.source] = draft.nodes[-1].outputs
    return [cut[part.source][part.index] for part in parts]


def repeated(value: ir.Value) -> ir.Value | None:
    """The heads (N, H, S, D) of which each stands several times in a row in `value`."""
    merge = made_by(value, "Reshape")
    expand = made_by(None if merge is None else merge.inputs[0], "Expand")
    open_ = made_by(None if expand is None else expand.inputs[0], "Unsqueeze")
    if merge is None or expand is None or open_ is None or ints(open_, "axes", 1) not in ([2], [-3]):
        return None
    source, few, wide, all_ = open_.inputs[0], dims(open_.inputs[0]), dims(expand.outputs[0]), dims(value)
    if source is None or few is None or wide is None or all_ is None or len(few) != 4 or len(all_) != 4:  # noqa: PLR2004
        return None
    target = array(expand.inputs[1])
    same = [few[0], few[1], wide[2], few[2], few[3]]
    for axis, (have, want) in enumerate(zip(wide, same, strict=True)):
        once = target is not None and len(target) == len(wide) and target[axis] == 1
        if axis != 2 and not once and (have is None or have != want):  # noqa: PLR2004 - the axis of the repeats
            return None
    heads, times = few[1], wide[2]
    if not isinstance(heads, int) or not isinstance(times, int) or all_[1] != heads * times or few[3] is None:
        return None
    return source if all_[3] == few[3] and _keeps(merge, [few[0], heads], all_) else None


def expanded(draft: Draft, value: ir.Value, extents: Sequence[Extent], *sources: ir.Value) -> ir.Value | None:
    """The value expanded to extents, 1 where it stays; None where none of the sources has one that is not a number."""
    name = draft.root.outputs[0].name
    if all(isinstance(extent, int) for extent in extents):
        return draft.node("Expand", [value, draft.const(np.asarray(extents, np.int64), f"{name}/shape")])
    parts = []
    for extent in extents:
        source = next((v for v in sources if extent is not None and extent in (dims(v) or ())), None)
        if isinstance(extent, int):
            parts.append(draft.const(np.asarray([extent], np.int64), f"{name}/extent"))
        elif source is not None:
            axis = (dims(source) or []).index(extent)
            parts.append(draft.node("Shape", [source], {"start": axis, "end": axis + 1}))
        else:
            return None
    return draft.node("Expand", [value, draft.node("Concat", parts, {"axis": 0})])


def within(draft: Draft, made: ir.Value) -> ir.Value | No:
    """What was made, if a body does not read more from around it than before: there a name may mean something else."""
    graph, fresh = draft.root.graph, {v for n in draft.nodes for v in n.outputs} | set(draft.constants)
    for value in {v for n in draft.nodes for v in n.inputs if v is not None} - fresh:
        if value.graph is not graph and all(user.graph is not graph for user in value.consumers()):
            return No("what it would read stands in another graph")
    return made
