"""Fuse products that read the same tensor into one wider product, whose result is split.

    MatMul(x, V), MatMul(x, W)                → Split(MatMul(x, [V W]))           as of query, key and value
    Add(MatMul(x, V), b), Add(MatMul(x, W), c) → Split(Add(MatMul(x, [V W]), [b c]))
    Relu(Conv(x, V)), Relu(Conv(x, W))        → Split(Relu(Conv(x, [V W])))       as in Inception

Conditions: the products differ in their weights and biases alone, with one group; what computes each element by itself
after every one of them (one sum with constants, then activations of one kind) comes before the Split, where nothing
else reads what is between.

Price: x is read once and some nodes are saved, but Split copies the result, and starts a copy for each part. Runtimes
fuse activations themselves, so these count nothing, and what is read again comes from a cache. So this pays where there
are few rows, or many channels and few results.

ROUNDING: the same function of the reals.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.fuse.affine import per_channel
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.nodes import array, graphs, rank, static_shape
from graphopt.graph.record import Exactness
from graphopt.match.engine import No
from graphopt.ops import Linear
from graphopt.protocol import Context, Pass
from graphopt.rewrite.ask import dims

__all__ = ["FuseParallel"]

_RULE = "side_by_side"
_SIZES_ARE_INPUT = 13
"""Opset from which Split takes the sizes of its parts as an input."""
_OPEN = 64
"""Taken for an extent that is not known, beyond the first axis, which counts 1."""
_CACHED = 4
"""How many times as fast a tensor is read again."""
_ACTIVATIONS = frozenset(
    "Abs Elu Erf Gelu HardSigmoid HardSwish LeakyRelu Mish Relu Sigmoid Softplus Tanh".split()  # noqa: SIM905 - shorter
)
"""What computes each element by itself from one input."""

Array = NDArray[Any]


@dataclass
class _Branch:
    """A product, and the nodes after it that go along."""

    lin: Linear
    place: int
    """In the order of the graph, of its last node."""
    nodes: list[ir.Node]
    term: Array | None = None

    @property
    def end(self) -> ir.Value:
        return self.nodes[-1].outputs[0]


@dataclass(frozen=True)
class FuseParallel(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "fuse-parallel"
    summary: ClassVar[str] = "products of one tensor into a wider one, where the target gains by it"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    stage: ClassVar[int] = 1
    wager: ClassVar[bool] = True
    rules: ClassVar[dict[str, str]] = {_RULE: "Products of one tensor become one, and a Split."}

    def run(self, edit: Editor, ctx: Context) -> None:
        """Graph by graph, over all tensors that several products read."""
        if edit.model.opset_imports.get("", 0) < _SIZES_ARE_INPUT:
            return
        for graph in list(graphs(edit.model)):
            places = {node: i for i, node in enumerate(graph)}
            for lins in _groups(graph):
                branches = _branches(lins, places)
                found = _priced(branches, ctx)
                if isinstance(found, No):
                    ctx.miss(_RULE, lins[0].node, found.reason)
                    continue
                draft = Draft(branches[0].nodes[-1])
                with ctx.noting(_RULE, lins[0].node):
                    replaced = _split(draft, branches)
                    gone = [n for b in branches for n in b.nodes]
                    edit.commit(_RULE, self.exactness, replaced, draft=draft, matched=gone)


def _groups(graph: ir.Graph) -> Iterator[list[Linear]]:
    """Products of one tensor that differ in weights and biases alone, in the order of the graph."""
    found: dict[Hashable, list[Linear]] = {}
    for node in graph:
        for lin in ops.linears(node):
            weight = node.inputs[lin.weight]
            shape = static_shape(weight)
            if lin.x != 0 or lin.groups != 1 or weight is None or shape is None:
                continue
            others = shape[: lin.w_out] + shape[lin.w_out + 1 :]
            attributes = tuple(sorted((a.name, str(a.value)) for a in node.attributes.values()))
            kind = (node.inputs[0], node.op_type, weight.dtype, others, attributes, _channel_axis(lin))
            found.setdefault(kind, []).append(lin)
    return (lins for lins in found.values() if len(lins) > 1)


def _channel_axis(lin: Linear) -> int | None:
    axes = rank(lin.node.outputs[0])
    return None if axes is None else lin.y_axis % axes


def _branches(lins: Sequence[Linear], places: dict[ir.Node, int]) -> list[_Branch]:
    """The products with what follows all of them, the one that ends first in front."""
    branches = [_Branch(lin, places[lin.node], [lin.node]) for lin in lins]
    steps = [_step(b) for b in branches]
    if all(s is not None and s.op_type == "Add" for s in steps):
        terms = [_term(b.lin, s) for b, s in zip(branches, steps, strict=True) if s is not None]
        if all(t is not None for t in terms):
            for branch, step, term in zip(branches, steps, terms, strict=True):
                branch.nodes += [step] if step is not None else []
                branch.term = term
            steps = [_step(b) for b in branches]
    while all(s is not None and s.op_type in _ACTIVATIONS and _same(s, steps[0]) for s in steps):
        for branch, step in zip(branches, steps, strict=True):
            branch.nodes += [step] if step is not None else []
        steps = [_step(b) for b in branches]
    for branch in branches:
        branch.place = places.get(branch.nodes[-1], branch.place)
    return sorted(branches, key=lambda b: b.place)


def _step(branch: _Branch) -> ir.Node | None:
    """The one node that reads the end of a branch."""
    end = branch.end
    if len(end.uses()) != 1 or end.is_graph_output():
        return None
    (node,) = end.consumers()
    return node if not node.domain and node.graph is branch.lin.node.graph else None


def _same(node: ir.Node, other: ir.Node | None) -> bool:
    return other is not None and node.op_type == other.op_type and node.attributes == other.attributes


def _term(lin: Linear, add: ir.Node) -> Array | None:
    """What an Add puts on each channel."""
    constants = [c for c in map(array, add.inputs) if c is not None]
    axes = rank(add.outputs[0])
    if len(constants) != 1 or axes is None or axes != rank(lin.node.outputs[0]):
        return None
    found = per_channel(constants[0], axes, _channel_axis(lin), lin.channels)
    return None if isinstance(found, No) else found.astype(constants[0].dtype)


def _elements(value: ir.Value | None) -> int | None:
    """About how many elements a tensor has."""
    extents = dims(value)
    if extents is None:
        return None
    return prod(e if isinstance(e, int) else _OPEN if i else 1 for i, e in enumerate(extents))


def _priced(branches: Sequence[_Branch], ctx: Context) -> No | None:
    """Why the products stay apart."""
    x = branches[0].lin.node.inputs[0]
    weights = [b.lin.node.inputs[b.lin.weight] for b in branches]
    read, made = _elements(x), [_elements(b.end) for b in branches]
    if x is None or x.dtype is None or read is None or None in made or _channel_axis(branches[0].lin) is None:
        return No("the shapes are not known")
    size, count = x.dtype.bitwidth // 8, len(branches)
    written = sum(m or 0 for m in made)
    shifts = int(branches[0].term is not None)
    apart = ctx.target.price(0, (count - 1) * read * size // _CACHED, count * (1 + shifts))
    together = ctx.target.price(0, 2 * written * size, 1 + shifts + count)
    if together >= apart:
        return No(f"copying the parts costs more than {count} nodes and reading the input {count} times")
    shared = sum(w.const_value.nbytes for w in weights if w is not None and w.const_value and len(w.uses()) > 1)
    if not ctx.ledger.spend(shared):
        return No("a weight is shared and the file may not grow")
    return None


def _split(draft: Draft, branches: Sequence[_Branch]) -> dict[ir.Value, ir.Value]:
    """The wider product, what follows it, and its parts."""
    first = branches[0]
    lin, axis = first.lin, _channel_axis(first.lin) or 0
    name = first.end.name
    weight = np.concatenate([b.lin.weights for b in branches], axis=lin.w_out)
    inputs: list[ir.Value | None] = [lin.node.inputs[0], draft.const(weight, f"{name}/weight")]
    if any(b.lin.bias_value is not None for b in branches):
        bias = np.concatenate([b.lin.bias_vector() for b in branches])
        inputs.append(draft.const(bias, f"{name}/bias"))
    result = draft.like(lin.node, inputs)
    for node in first.nodes[1:]:
        if node.op_type == "Add":
            terms = np.concatenate([b.term for b in branches if b.term is not None])
            shape = [1] * ((rank(node.outputs[0]) or 1) - axis)
            shape[0] = -1
            result = draft.node("Add", [result, draft.const(terms.reshape(shape), f"{name}/term")])
        else:
            result = draft.like(node, [result])
    sizes = draft.const(np.asarray([b.lin.channels for b in branches], np.int64), f"{name}/split")
    split = ir.node("Split", [result, sizes], {"axis": axis}, num_outputs=len(branches))
    draft.nodes.append(split)
    draft.reduction = lin.reduction
    return {b.end: part for b, part in zip(branches, split.outputs, strict=True)}
