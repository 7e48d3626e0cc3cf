"""Layout: what only moves elements is done once, or not at all.

With R any of Reshape, Flatten, Squeeze, Unsqueeze, or a Transpose that moves nothing but axes of extent 1:

    R(R(x))                             → Reshape(x), or Flatten(x)
    R(…R(x))                            → x                         of the same shape
    Transpose(Transpose(x))             → Transpose(x), or x
    R(Transpose(R(x)))                  → Transpose(x)              axes merged, moved as one, and split again
    Slice(Slice(x))                     → Slice(x)                  steps of 1
    Slice(x)[0:a], Slice(x)[a:n], …     → Split(x)                  together all of an axis
    Concat(…, Concat(a, b), …)          → Concat(…, a, b, …)        on one axis
    Concat(Split(x))                    → x                         all parts, in order
    Gather(Concat(…, x, …))             → Gather(x)                 see `pick`

A Reshape gets a constant target, in which 0 copies an extent and at most one -1 takes what is left; where 0 and -1
meet, a feed with an extent of zero fails, so they meet only where they did before.

BITWISE: elements keep their bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from graphopt.graph.dims import Dim
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.nodes import array, attr, graphs, input_at, key, rank
from graphopt.graph.record import Exactness, Refused
from graphopt.match.engine import Answer, No, Rule, described, rewrite, rule
from graphopt.match.pattern import one_of, op, var
from graphopt.protocol import Context, Miss, Pass
from graphopt.rewrite.ask import Extent, axis_of, dims, ints, made_by, perm_of, read_only_by, same_dims
from graphopt.rewrite.pick import gathered_part

__all__ = ["Layout"]

_FAR = 2**31 - 1
"""Exporters write INT32_MAX or INT64_MAX for "to the end"."""
_TARGET_IS_INPUT = 5
"""Opset from which Reshape reads its target."""
_SIZES_ARE_INPUT = 13
"""Opset from which Split reads its sizes."""
_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_IN_ORDER = (*_RESHAPES, "Transpose")


# -- one shape after another -----------------------------------------------------------------------------------------


def _keeps_order(node: ir.Node | None) -> bool:
    """Whether the elements stay in their order, so that only the shape changes."""
    if node is None or node.domain or node.op_type not in _IN_ORDER:
        return False
    if node.op_type != "Transpose":
        return True
    perm, extents = perm_of(node), dims(node.inputs[0])
    if perm is None or extents is None or len(perm) != len(extents):
        return False
    moved = [axis for axis in perm if extents[axis] != 1]
    return moved == sorted(moved)


@rule(one_of(*_IN_ORDER)(name="node"), exactness=Exactness.BITWISE)
def reshaped_back(_draft: Draft, _ctx: Context, node: ir.Node) -> Answer:
    """A chain of reshapes that ends in the shape it started from goes."""
    wanted = dims(node.outputs[0])
    behind = [v for v in _chain(node) if same_dims(dims(v), wanted)]
    return behind[-1] if behind else No("no value before it in the chain provably has its shape")


def _chain(node: ir.Node) -> Iterator[ir.Value]:
    """The values that hold the elements of the node's output in the same order, from near to far."""
    current: ir.Node | None = node
    while current is not None and _keeps_order(current):
        source = current.inputs[0]
        if source is None:
            return
        yield source
        current = source.producer()


_STEP = one_of(*_IN_ORDER)(var("x"), var("_first", optional=True), name="inner")


@rule(one_of(*_IN_ORDER)(_STEP, var("_second", optional=True), name="node"), exactness=Exactness.BITWISE)
def reshapes(
    draft: Draft,
    _ctx: Context,
    x: ir.Value,
    inner: ir.Node,
    node: ir.Node,
    _first: ir.Value | None,
    _second: ir.Value | None,
) -> Answer:
    """Two reshapes in a row become one."""
    if not (_keeps_order(inner) and _keeps_order(node)):
        return No("a Transpose moves elements")
    if "shape" in inner.attributes or "shape" in node.attributes:
        return No("its target is an attribute")
    before, after = dims(x), dims(node.outputs[0])
    if before and after and len(after) == 2 and before[0] == after[0] not in {None, 0}:  # noqa: PLR2004 - a matrix
        return draft.node("Flatten", [x], {"axis": 1})
    given = array(input_at(node, 1)) if node.op_type == "Reshape" else None
    if given is not None and not attr(node, "allowzero", 0) and np.all(given != 0):
        return draft.like(node, [x, node.inputs[1]])
    if before is None or after is None:
        return No("a shape is not known")
    target = _target(before, after, _fragile(inner) | _fragile(node))
    if target is None:
        return No("the target cannot be written with one open extent that is right for every feed")
    return draft.node("Reshape", [x, draft.const(np.asarray(target, np.int64), f"{node.outputs[0].name}/shape")])


def _target(before: Sequence[Extent], after: Sequence[Extent], fragile: set[str]) -> list[int] | None:
    """What a Reshape is told; None where no constant does for every feed."""
    if 0 in after:
        return None
    target = [
        extent if isinstance(extent, int) else 0 if extent and i < len(before) and before[i] == extent else -1
        for i, extent in enumerate(after)
    ]
    copied = {str(extent) for extent, number in zip(after, target, strict=True) if number == 0}
    left = target.count(-1)
    return target if left == 0 or (left == 1 and copied <= fragile) else None


def _fragile(node: ir.Node) -> set[str]:
    """The extents that may not be zero for any feed, since this Reshape copies them next to a -1."""
    target, extents = array(input_at(node, 1)) if node.op_type == "Reshape" else None, dims(node.outputs[0])
    if target is None or extents is None or attr(node, "allowzero", 0) or -1 not in target:
        return set()
    return {str(extent) for extent, number in zip(extents, target, strict=True) if number == 0}


@rule(op.Transpose(op.Transpose(var("x"), name="inner"), name="node"), exactness=Exactness.BITWISE)
def transposes(draft: Draft, _ctx: Context, x: ir.Value, inner: ir.Node, node: ir.Node) -> Answer:
    """Two Transposes in a row become one."""
    first, second = perm_of(inner), perm_of(node)
    if first is None or second is None or len(first) != len(second):
        return No("the permutation is not known")
    perm = [first[axis] for axis in second]
    return x if perm == sorted(perm) else draft.node("Transpose", [x], {"perm": perm})


@rule(op.Transpose(name="node"), exactness=Exactness.BITWISE)
def transposed_back(_draft: Draft, _ctx: Context, node: ir.Node) -> Answer:
    """A Transpose that undoes the one before it goes, whoever else reads that one."""
    inner = made_by(node.inputs[0], "Transpose")
    first, second = (None if inner is None else perm_of(inner)), perm_of(node)
    x = None if inner is None else inner.inputs[0]
    if x is None or first is None or second is None or len(first) != len(second):
        return No("it does not follow a Transpose that is known")
    return x if [first[axis] for axis in second] == sorted(first) else No("axes stay moved")


# -- parts of axes ---------------------------------------------------------------------------------------------------

Bounds = dict[int, tuple[int, int]]


def _bounds(node: ir.Node) -> Bounds | None:
    """Start and end by axis, as written; None where they are not known, or where a step is not 1."""
    starts, ends, axes = (ints(node, name, i) for i, name in enumerate(("starts", "ends", "axes"), 1))
    steps = ints(node, "", 4)
    if starts is None or ends is None or (axes is None and input_at(node, 3) is not None):
        return None
    if (steps is None and input_at(node, 4) is not None) or any(s != 1 for s in steps or ()):
        return None
    axes = list(range(len(starts))) if axes is None else axes
    extents = rank(node.inputs[0])
    if extents is None and any(a < 0 for a in axes):
        return None
    axes = [a + (extents or 0) if a < 0 else a for a in axes]
    return dict(zip(axes, zip(starts, ends, strict=True), strict=True))


@rule(
    op.Slice(
        op.Slice(
            var("x"),
            *(var(f"_{name}", optional=True) for name in ("starts", "ends", "axes", "steps")),
            name="inner",
        ),
        *(var(f"_more_{name}", optional=True) for name in ("starts", "ends", "axes", "steps")),
        name="node",
    ),
    exactness=Exactness.BITWISE,
)
def slices(draft: Draft, _ctx: Context, x: ir.Value, inner: ir.Node, node: ir.Node, **_given: object) -> Answer:
    """Two Slices in a row become one."""
    first, second, extents = _bounds(inner), _bounds(node), dims(x)
    if first is None or second is None:
        return No("bounds are not known, or a step is not 1")
    both = dict(first)
    for axis, bounds in second.items():
        found = bounds if axis not in first else _sliced(first[axis], bounds, extents[axis] if extents else None)
        if found is None:
            return No("where the slices meet depends on the feed")
        both[axis] = found
    axes = sorted(both)
    starts, ends = [both[a][0] for a in axes], [both[a][1] for a in axes]
    if "starts" in node.attributes:
        return draft.like(node, [x], starts=starts, ends=ends, axes=axes)
    name = node.outputs[0].name
    numbers = {"starts": starts, "ends": ends, "axes": axes}
    return draft.node("Slice", [x, *(draft.const(np.asarray(v, np.int64), f"{name}/{k}") for k, v in numbers.items())])


def _sliced(first: tuple[int, int], second: tuple[int, int], extent: Extent) -> tuple[int, int] | None:
    """The bounds of a slice of a slice. Without the extent, only what is counted from the front can be told."""
    if isinstance(extent, int):
        start, end, _ = slice(*first).indices(extent)
        inner = range(start, end)[slice(*second)]
        return inner.start, max(inner.stop, inner.start)
    (a, b), (c, d) = first, second
    if a < 0 or c < 0:
        return None
    if d >= _FAR:
        return a + c, b
    if d < 0:
        return (a + c, d) if b >= _FAR else None
    return (a + c, min(a + d, b)) if b >= 0 else None


def _split_slices(edit: Editor, ctx: Context) -> None:
    """Slices that together are all of an axis become one Split."""
    for graph in list(graphs(edit.model)):
        earlier: set[ir.Node] = set()
        for node in list(graph):
            if node.graph is not graph or node.op_type != "Slice" or node.domain:
                continue
            found = _parts(node, earlier)
            earlier.add(node)
            if isinstance(found, No):
                ctx.misses.append(Miss("slices_to_split", key(node), found.reason))
                continue
            axis, parts = found
            draft = Draft(node)
            sizes = draft.const(np.asarray([size for size, _ in parts], np.int64), f"{node.outputs[0].name}/split")
            split = ir.node("Split", [node.inputs[0], sizes], {"axis": axis}, num_outputs=len(parts))
            draft.nodes.append(split)
            cut = {each: part for (_, same), part in zip(parts, split.outputs, strict=True) for each in same}
            replaced = {each.outputs[0]: cut[each] for each in (node, *cut)}
            try:
                edit.commit("slices_to_split", Exactness.BITWISE, replaced, draft=draft, matched=cut)
            except Refused as refusal:
                ctx.misses.append(Miss("slices_to_split", key(node), str(refusal)))


def _parts(node: ir.Node, earlier: set[ir.Node]) -> tuple[int, list[tuple[int, list[ir.Node]]]] | No:
    """The axis, and from its start to its end the sizes of parts and their slices, none of them an `earlier` one."""
    x, bounds = node.inputs[0], _bounds(node)
    extents = dims(x)
    if x is None or bounds is None or extents is None or len(bounds) != 1:
        return No("it does not cut one axis at known places")
    ((axis, _),) = bounds.items()
    extent = extents[axis]
    if not isinstance(extent, int):
        return No("the extent of the axis is not known")
    starts: dict[int, tuple[int, list[ir.Node]]] = {}
    for each in x.consumers():
        its = _bounds(each) if each.op_type == "Slice" and not each.domain and each.graph is node.graph else None
        if its is not None and its.keys() == {axis} and each.inputs[0] is x:
            start, end, _ = slice(*its[axis]).indices(extent)
            to, same = starts.setdefault(start, (end, [])) if start < end else (start, [])
            if to == end and (not same or not each.outputs[0].is_graph_output()):
                same.append(each)
    parts: list[tuple[int, list[ir.Node]]] = []
    position = 0
    while position in starts:
        end, same = starts[position]
        parts.append((end - position, same))
        position = end
    if position != extent or len(parts) == 1 or all(node not in same for _, same in parts):
        return No("no other slices make up the rest of the axis")
    if any(each in earlier for _, same in parts for each in same):
        return No("another slice of the axis comes first")
    return axis, parts


@rule(op.Concat(name="node"), exactness=Exactness.BITWISE)
def concats(draft: Draft, _ctx: Context, node: ir.Node) -> Answer:
    """A Concat of Concats on the same axis becomes one."""
    axis = axis_of(node)
    parts: list[ir.Value | None] = []
    for value in node.inputs:
        inner = made_by(value, "Concat")
        once = inner is not None and value is not None and len(value.uses()) == 1 and read_only_by(value, node)
        if inner is not None and once and axis_of(inner) == axis is not None:
            parts.extend(inner.inputs)
        else:
            parts.append(value)
    return No("no input is a Concat on this axis") if len(parts) == len(node.inputs) else draft.like(node, parts)


@rule(op.Concat(name="node"), exactness=Exactness.BITWISE)
def concat_of_split(draft: Draft, _ctx: Context, node: ir.Node) -> Answer:
    """All parts of a Split in their order are the tensor itself."""
    inputs, axis = list(node.inputs), axis_of(node)
    for i, value in enumerate(inputs):
        split = made_by(value, "Split")
        if split is None or value is not split.outputs[0] or axis is None or axis_of(split) != axis:
            continue
        count = len(split.outputs)
        if inputs[i : i + count] != list(split.outputs):
            continue
        if count == len(inputs) and split.inputs[0] is not None:
            return split.inputs[0]
        if all(read_only_by(part, node) for part in split.outputs):
            return draft.like(node, [*inputs[:i], split.inputs[0], *inputs[i + count :]])
    return No("it does not hold all parts of a Split in their order")


_BETWEEN = op.Transpose(one_of(*_RESHAPES)(var("x"), var("_first", optional=True), name="inner"), name="move")


@rule(one_of(*_RESHAPES)(_BETWEEN, var("_second", optional=True), name="node"), exactness=Exactness.BITWISE)
def merged_axes(
    draft: Draft,
    _ctx: Context,
    x: ir.Value,
    inner: ir.Node,
    move: ir.Node,
    node: ir.Node,
    _first: ir.Value | None,
    _second: ir.Value | None,
) -> Answer:
    """Axes that are merged, moved as one and split again are moved."""
    before, merged, after, perm = dims(x), dims(inner.outputs[0]), dims(node.outputs[0]), perm_of(move)
    if before is None or merged is None or after is None or perm is None or None in after:
        return No("a shape is not known")
    groups = _groups(before, merged)
    if groups is None:
        return No("axes are not just merged")
    axes = [axis for place in perm for axis in groups[place]]
    if [before[axis] for axis in axes] != after:
        return No("the merged axes are not split as they were")
    return draft.node("Transpose", [x], {"perm": axes})


def _groups(before: Sequence[Extent], merged: Sequence[Extent]) -> list[list[int]] | None:
    """Which axes make up each merged one; None where that cannot be told from the extents."""
    groups: list[list[int]] = []
    axis = 0
    for wanted in merged:
        group: list[int] = []
        product = Dim.of(1)
        while wanted is None or str(product) != str(wanted):  # a polynomial's name is how it is written
            extent = before[axis] if axis < len(before) else None
            if extent is None:
                return None
            product = product * Dim.of(extent)
            group.append(axis)
            axis += 1
        groups.append(group)
    rest = list(range(axis, len(before)))
    if any(before[axis] != 1 for axis in rest) or not groups:
        return None
    groups[-1].extend(rest)
    return groups


RULES: tuple[Rule, ...] = (
    merged_axes,
    reshaped_back,
    transposed_back,
    transposes,
    reshapes,
    slices,
    concats,
    concat_of_split,
    gathered_part,
)


@dataclass(frozen=True)
class Layout(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "layout"
    summary: ClassVar[str] = "do once, or not at all, what only moves elements"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    rules: ClassVar[Mapping[str, str]] = {
        **described(RULES),
        "slices_to_split": "Slices that together are all of an axis become one Split.",
    }

    def run(self, edit: Editor, ctx: Context) -> None:
        """Slices last, since they may become fewer before."""
        opset = edit.model.opset_imports.get("", 0)
        if opset >= _TARGET_IS_INPUT:
            rewrite(edit, ctx, RULES)
        if opset >= _SIZES_ARE_INPUT:
            _split_slices(edit, ctx)
