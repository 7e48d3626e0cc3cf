"""Clean: take out what changes nothing.

    no-op                  op(x) → x                            where the operator table proves it
    CastLike(x, like)      → Cast(x, to=type of like)           only the type of `like` matters
    twins                  two equal pure nodes → one           same operator, attributes and inputs, in one graph
    equal constants        two initializers → one               same type, shape and bits
    dead code              nodes and initializers that nothing reads
    exporter's traces      per-node metadata and doc strings, unless they are kept

All of it is BITWISE.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from graphopt import ops
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor, is_read
from graphopt.graph.nodes import graphs, is_constant, subgraphs
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, No, Rule, described, rewrite, rule
from graphopt.match.pattern import one_of, op, var
from graphopt.protocol import Context, Pass

__all__ = ["Clean", "Strip"]


@rule(one_of(*ops.NOOPS)(name="node"), exactness=Exactness.BITWISE)
def noop(_draft: Draft, _ctx: Context, node: ir.Node) -> Answer:
    """A node whose output is one of its inputs goes."""
    same = ops.noop(node)
    value = None if same is None else node.inputs[same]
    if value is None:
        return No("it is not known to leave its input as it is")
    if not ops.is_pure(node, {}):
        return No("it may be random or in training mode")
    return value


@rule(op.CastLike(var("x"), var("like"), name="node"), exactness=Exactness.BITWISE)
def castlike(draft: Draft, _ctx: Context, x: ir.Value, like: ir.Value, node: ir.Node) -> Answer:
    """CastLike(x, like) becomes Cast(x, to), since only the type of `like` matters."""
    if like.dtype is None:
        return No("the type is not known")
    attributes = {"to": int(like.dtype)} | {n: a.value for n, a in node.attributes.items()}
    return draft.node("Cast", [x], attributes)


RULES: tuple[Rule, ...] = (noop, castlike)


@dataclass(frozen=True)
class Clean(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "clean"
    summary: ClassVar[str] = "take out no-ops, duplicates and dead code"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    rules: ClassVar[Mapping[str, str]] = {
        **described(RULES),
        "twins": "Two equal pure nodes become one.",
        "equal-constants": "Two initializers with the same type, shape and bits become one.",
        "dead-node": "A node that nothing reads goes.",
        "unused-constant": "An initializer that nothing reads goes.",
    }

    def run(self, edit: Editor, ctx: Context) -> None:
        """Rules first, since they make more nodes equal or dead."""
        rewrite(edit, ctx, RULES)
        for graph in list(graphs(edit.model)):
            _remove_dead(edit, ctx, graph)
            _merge_constants(edit, ctx, graph)
            _merge_twins(edit, ctx, graph)


def _remove_dead(edit: Editor, ctx: Context, graph: ir.Graph) -> None:
    """From the last node to the first, so that whole chains go. What is not known may do more than compute."""
    for node in reversed(list(graph)):
        known = ops.spec_of(node) is not None or node.op_identifier() in edit.model.functions
        if known and node.graph is graph and not any(is_read(v) for v in node.outputs):
            with ctx.noting("dead-node", node):
                edit.remove("dead-node", node)
    for value in list(graph.initializers.values()):
        if not is_read(value) and not value.is_graph_input():
            with ctx.noting("unused-constant", value):
                edit.drop_constant("unused-constant", value)


def _merge_constants(edit: Editor, ctx: Context, graph: ir.Graph) -> None:
    """Compare contents only where type and shape are shared, so that large weights are rarely read."""
    alike: dict[Hashable, list[ir.Value]] = {}
    for value in graph.initializers.values():
        tensor = value.const_value
        if is_constant(value) and tensor is not None:
            alike.setdefault((tensor.dtype, tuple(tensor.shape.numpy())), []).append(value)
    for group in alike.values():
        if len(group) == 1:
            continue
        first: dict[Hashable, ir.Value] = {}
        for value in group:
            original = first.setdefault(_contents(value.const_value), value)
            if original is not value:
                size = value.const_value.nbytes if value.const_value is not None else 0
                with ctx.noting("equal-constants", value):
                    edit.merge_constants("equal-constants", value, original)
                    ctx.ledger.spend(-size)  # copies that were made for a fusion may turn out to be one


def _merge_twins(edit: Editor, ctx: Context, graph: ir.Graph) -> None:
    """One pass in topological order finds all: a node's inputs are merged before the node is looked at."""
    seen: dict[Hashable, ir.Node] = {}
    for node in list(graph):
        if node.graph is not graph or any(True for _ in subgraphs(node)) or not node.outputs:
            continue
        twin = seen.setdefault(_identity(node), node)
        if twin is node:
            continue
        replaced = {mine: its for mine, its in zip(node.outputs, twin.outputs, strict=True) if is_read(mine)}
        if not replaced or not ops.is_pure(node, edit.model.functions):
            continue
        with ctx.noting("twins", node):
            edit.commit("twins", Exactness.BITWISE, replaced)


_ORDERED_ZEROS = frozenset({"Max", "Min"})
"""The operators that commute but for the sign of a zero."""


def _identity(node: ir.Node) -> Hashable:
    """Equal for nodes that compute the same."""
    spec, inputs = ops.spec_of(node), [id(v) for v in node.inputs]
    if spec is not None and spec.commutes and node.op_type not in _ORDERED_ZEROS:
        inputs[:2] = sorted(inputs[:2])
    return (
        node.domain,
        node.op_type,
        node.overload,
        tuple(inputs),
        tuple(bool(v.name) for v in node.outputs),
        tuple(sorted(_attributes(node))),
    )


def _attributes(node: ir.Node) -> Iterator[tuple[str, str, str, bytes]]:
    for name, a in node.attributes.items():
        if a.is_ref():
            yield name, "ref", str(a.ref_attr_name), b""
        elif a.type is ir.AttributeType.TENSOR:
            tensor = a.as_tensor()
            yield name, f"{tensor.dtype} {tensor.shape}", "", bytes(repr(_contents(tensor)), "utf-8")
        else:
            yield name, str(a.type), repr(a.value), b""


def _contents(tensor: ir.TensorProtocol | None) -> Hashable:
    """Equal for tensors of one type and shape that hold the same bits."""
    if tensor is None:
        return None
    return tuple(tensor.numpy().reshape(-1)) if tensor.dtype is ir.DataType.STRING else tensor.tobytes()


@dataclass(frozen=True)
class Strip(Pass):
    """Take out what exporters note at each node: scopes, stack traces with paths of the exporting machine."""

    name: ClassVar[str] = "strip"
    summary: ClassVar[str] = "take out exporters' notes on nodes and values; the model's own metadata stays"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    rules: ClassVar[Mapping[str, str]] = {"strip": "Metadata and doc strings of nodes and their values go."}

    def run(self, edit: Editor, ctx: Context) -> None:
        """One edit for each node or value that had notes. Those of the model's outputs belong to its interface."""
        empty: dict[str, Any] = {"doc_string": None, "metadata_props": {}}
        for graph in graphs(edit.model):
            for node in graph:
                owners: list[ir.Node | ir.Value] = [node, *node.outputs]
                for owner in owners:
                    interface = isinstance(owner, ir.Value) and owner.is_graph_output()
                    if (owner.metadata_props or owner.doc_string) and not interface:
                        with ctx.noting(self.name, owner):
                            edit.annotate(self.name, owner, empty)
