"""Sandwich: move Transposes out of the way until they meet and cancel.

    Transpose(q) ∘ f ∘ Transpose(p)   → f'                        q undoes p, f works in any layout
    f(Transpose(x), Transpose(y))     → Transpose(f'(x, y))

f is a region of nodes that compute each element by itself, or along named axes (Concat, Split, Pad, Slice, sums and
means); f' names the axes of the other layout, and constants inside are laid out anew. Tools that come from
channels-last frameworks put such a pair around every convolution.

A region is turned only where Transposes become fewer, counting those that have to be added at its border; it may be
any set of nodes that can be turned, so it is grown as far as it goes and then trimmed while that does not cost.

BITWISE where each element is one arithmetic operation, or moved; ROUNDING for functions and sums, whose last bit
depends on how the runtime vectorizes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from graphopt import ops
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.nodes import array, attr, graphs, input_at, is_constant, key, rank
from graphopt.graph.record import Exactness, Refused
from graphopt.match.engine import rewrite
from graphopt.ops.elementwise import SPECS
from graphopt.protocol import Context, Miss, Pass
from graphopt.rewrite.ask import axis_of, dims, ints, made_by, perm_of
from graphopt.rewrite.layout import transposed_back, transposes

__all__ = ["Sandwich"]

Perm = tuple[int, ...]
"""Axis i of a value is axis perm[i] of the value that takes its place."""

_MOST_NODES = 200
"""In one region: trimming looks at each node for each node."""
_OPEN = 1024
"""Taken for an extent that is not known, where the length of a sum is asked for."""
_SHARED_BYTES = 1024
"""Up to which a constant with other readers is copied."""

_POINTWISE = frozenset(spec.op for spec in SPECS)
_ROUNDED = frozenset({"ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare"})
# fmt: off
_EXACT = frozenset({
    "Abs", "Add", "And", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "Ceil", "Clip",
    "Concat", "Div", "Equal", "Floor", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "LeakyRelu", "Less",
    "LessOrEqual", "Mul", "Neg", "Not", "Or", "PRelu", "Pad", "Relu", "Round", "Sign", "Slice", "Split",
    "Sqrt", "Sub", "Where", "Xor",
})
# fmt: on


@dataclass(frozen=True)
class _Turn:
    """How one node is written in the other layout."""

    perm: Perm
    """The layout of its data."""
    turned: tuple[int, ...]
    """Inputs that are read in the other layout."""
    out: Perm
    """The layout of its results."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[int, Any] = field(default_factory=dict)
    """Inputs that are replaced by constants."""


def _turn(node: ir.Node, perm: Perm) -> _Turn | None:
    """How `node` is written if its data comes in the layout before `perm`; None if it cannot be."""
    if node.domain or any(a.is_ref() for a in node.attributes.values()) or not ops.is_pure(node, {}):
        return None
    if node.op_type in _POINTWISE:
        return _pointwise(node, perm)
    if node.op_type in _ROUNDED:
        return _reduce(node, perm)
    along = _ALONG.get(node.op_type)
    return None if along is None or rank(node.inputs[0]) != len(perm) else along(node, perm)


def _laid_out(contents: np.ndarray, perm: Perm) -> np.ndarray:
    """A constant in the other layout, without leading axes of extent 1 that it did not have."""
    full = contents.reshape((1,) * (len(perm) - contents.ndim) + contents.shape)
    turned = np.transpose(full, np.argsort(perm))
    while turned.ndim > contents.ndim and turned.shape[0] == 1:
        turned = turned[0]
    return turned


def _pointwise(node: ir.Node, perm: Perm) -> _Turn | None:
    turned, constants = [], {}
    for i, value in enumerate(node.inputs):
        if value is None or rank(value) == 0:
            continue
        axes = rank(value)
        if axes is None or axes > len(perm):
            return None
        contents = array(value) if is_constant(value) else None
        if contents is None and axes == len(perm):
            turned.append(i)
        elif contents is None or (len(value.uses()) > 1 and contents.nbytes > _SHARED_BYTES):
            return None
        elif contents.size != 1:
            constants[i] = _laid_out(contents, perm)
    return _Turn(perm, tuple(turned), perm, constants=constants) if turned else None


def _reduce(node: ir.Node, perm: Perm) -> _Turn | None:
    given, kept = ints(node, "axes", 1), bool(attr(node, "keepdims", 1))
    if not given or rank(node.inputs[0]) != len(perm):
        return None
    axes = {a % len(perm) for a in given}
    moved = sorted(perm[a] for a in axes)
    left = [a for i, a in enumerate(perm) if i not in axes]
    out = perm if kept else tuple(sorted(left).index(a) for a in left)
    if "axes" in node.attributes:
        return _Turn(perm, (0,), out, attributes={"axes": moved})
    return _Turn(perm, (0,), out, constants={1: np.asarray(moved, np.int64)})


def _along_axis(node: ir.Node, perm: Perm) -> _Turn | None:
    """Concat and Split."""
    axis = axis_of(node)
    inputs = range(len(node.inputs)) if node.op_type == "Concat" else range(1)
    if axis is None or any(rank(node.inputs[i]) != len(perm) for i in inputs):
        return None
    contents = {i: array(node.inputs[i]) for i in inputs}
    constants = {i: _laid_out(c, perm) for i, c in contents.items() if c is not None}
    turned = tuple(i for i in inputs if i not in constants)
    return _Turn(perm, turned, perm, {"axis": perm[axis]}, constants)


def _pad(node: ir.Node, perm: Perm) -> _Turn | None:
    pads = ints(node, "pads", 1)
    if pads is None or len(pads) != 2 * len(perm) or input_at(node, 3) is not None:
        return None
    order = [int(a) for a in np.argsort(perm)]
    moved = [pads[half + a] for half in (0, len(perm)) for a in order]
    if "pads" in node.attributes:
        return _Turn(perm, (0,), perm, {"pads": moved})
    return _Turn(perm, (0,), perm, constants={1: np.asarray(moved, np.int64)})


def _slice(node: ir.Node, perm: Perm) -> _Turn | None:
    starts, axes = ints(node, "starts", 1), ints(node, "axes", 3)
    if starts is None or (axes is None and input_at(node, 3) is not None):
        return None
    moved = [perm[a % len(perm)] for a in (range(len(starts)) if axes is None else axes)]
    if "starts" in node.attributes:
        return _Turn(perm, (0,), perm, {"axes": moved})
    return _Turn(perm, (0,), perm, constants={3: np.asarray(moved, np.int64)})


_ALONG = MappingProxyType({"Concat": _along_axis, "Split": _along_axis, "Pad": _pad, "Slice": _slice})


# -- regions ---------------------------------------------------------------------------------------------------------

_Region = dict[ir.Node, _Turn]


def _grown(start: ir.Node, perm: Perm) -> _Region:
    """All nodes around a Transpose that can be turned."""
    region: _Region = {}
    pending = [(node, perm) for node in start.outputs[0].consumers()]
    while pending and len(region) < _MOST_NODES:
        node, wanted = pending.pop(0)
        turn = None if node in region or node.graph is not start.graph else _turn(node, wanted)
        if turn is None:
            continue
        region[node] = turn
        pending.extend((user, turn.out) for value in node.outputs for user in value.consumers())
        for value in _read(node, turn):
            producer = value.producer()
            above = None if producer is None else _turn(producer, wanted)
            if producer is not None and above is not None and above.out == wanted:
                pending.append((producer, wanted))
    return region


def _read(node: ir.Node, turn: _Turn) -> list[ir.Value]:
    """The values that a node reads in the other layout."""
    return [value for i in turn.turned if (value := node.inputs[i]) is not None]


def _cost(region: _Region) -> int:
    """By how many the Transposes become more when the region is turned; less than zero if they become fewer."""
    total = 0
    for value, perm in {(v, turn.perm) for node, turn in region.items() for v in _read(node, turn)}:
        producer = value.producer()
        inner = None if producer is None else region.get(producer)
        if inner is not None:
            if inner.out != perm:
                return 1
            continue
        before = made_by(value, "Transpose")
        if before is not None and _inside(before, region):
            continue
        goes = before is not None and not value.is_graph_output() and all(u in region for u in value.consumers())
        fits = before is not None and perm_of(before) == list(perm)
        total += (not fits) - goes
    for node, turn in region.items():
        if list(turn.out) != sorted(turn.out):
            total += sum(_border(value, turn.out, region) for value in node.outputs)
    return total


def _inside(transpose: ir.Node, region: _Region) -> bool:
    """Whether a Transpose leads from the region back into it: turned as well, it stays one."""
    source = transpose.inputs[0]
    back = any(user in region for user in transpose.outputs[0].consumers())
    return back and source is not None and source.producer() in region


def _border(value: ir.Value, perm: Perm, region: _Region) -> int:
    """What becomes of the Transposes behind one result of the region."""
    outside = [
        user
        for user in value.consumers()
        if user not in region and not (user.op_type == "Transpose" and _inside(user, region))
    ]
    undone, moved = 0, 0
    for user in outside:
        after = perm_of(user) if user.op_type == "Transpose" and not user.domain else None
        if after is not None and [perm[a] for a in after] == sorted(perm):
            undone += 1
        elif after is not None:
            moved += 1
    others = value.is_graph_output() or len(outside) > undone + moved
    return int(others or moved > 1) - undone


def _best(start: ir.Node) -> _Region:
    """The region around a Transpose that is best turned, in the graph's order; empty if none is."""
    perm = perm_of(start)
    region = {} if perm is None else _grown(start, tuple(perm))
    if not region:
        return region
    order = {node: i for i, node in enumerate(start.graph or ()) if node in region}
    least = _cost(region)
    shrinking = True
    while shrinking:
        shrinking = False
        for node in sorted(region, key=order.__getitem__, reverse=True):
            rest = {n: turn for n, turn in region.items() if n is not node}
            if _cost(rest) <= least:
                region, least, shrinking = rest, _cost(rest), True
    return {node: region[node] for node in sorted(region, key=order.__getitem__)} if least < 0 else {}


def _commit(edit: Editor, node: ir.Node, turn: _Turn) -> None:
    """Write one node in the other layout, with Transposes around it.

    Raises:
        Refused: the node stays as it is.
    """
    draft = Draft(node)
    inputs = list(node.inputs)
    inputs += [None] * (1 + max(turn.constants, default=0) - len(inputs))
    for i, contents in turn.constants.items():
        old = inputs[i]
        inputs[i] = draft.const(contents, f"{node.outputs[0].name}/axes" if old is None else str(old.name))
    for i in turn.turned:
        before = made_by(inputs[i], "Transpose")
        if before is not None and before.graph is node.graph and perm_of(before) == list(turn.perm):
            inputs[i] = before.inputs[0]
        else:
            inputs[i] = draft.node("Transpose", [inputs[i]], {"perm": [int(a) for a in np.argsort(turn.perm)]})
    draft.like(node, inputs, **turn.attributes)
    made = draft.nodes[-1]
    made.resize_outputs(len(node.outputs))
    straight = list(turn.out) == sorted(turn.out)
    replaced = {
        old: new if straight else draft.node("Transpose", [new], {"perm": list(turn.out)})
        for old, new in zip(node.outputs, made.outputs, strict=True)
        if old.name
    }
    draft.reduction = _terms(node) if node.op_type in _ROUNDED else 1
    exactness = Exactness.BITWISE if node.op_type in _EXACT else Exactness.ROUNDING
    edit.commit("sandwich", exactness, replaced, draft=draft)


def _terms(node: ir.Node) -> int:
    """About how many numbers a sum adds up."""
    extents = dims(node.inputs[0]) or []
    axes = ints(node, "axes", 1) or []
    found = [extents[a] for a in axes]
    return prod(e if isinstance(e, int) else _OPEN for e in found)


@dataclass(frozen=True)
class Sandwich(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "sandwich"
    summary: ClassVar[str] = "move Transposes until they cancel"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    rules: ClassVar[Mapping[str, str]] = {"sandwich": "Nodes between Transposes work in the other layout."}

    def run(self, edit: Editor, ctx: Context) -> None:
        """Regions one after another; Transposes that meet are merged at once, so that the next count is right."""
        for graph in list(graphs(edit.model)):
            for start in list(graph):
                if start.graph is not graph or start.op_type != "Transpose" or start.domain:
                    continue
                region = _best(start)
                if not region:
                    ctx.misses.append(Miss(self.name, key(start), "the Transposes around it would not become fewer"))
                    continue
                try:
                    for node, turn in region.items():
                        _commit(edit, node, turn)
                except Refused as refusal:
                    ctx.misses.append(Miss(self.name, key(start), str(refusal)))
                rewrite(edit, ctx, (transposed_back, transposes))
