"""Upgrade: bring the model to a newer opset of the standard domain, so that later rules may use newer operators.

    opset=23    every node takes the form that its operator has in opset 23, or the highest one that all nodes can take

What changes between two opsets is in two tables: `adapters`, a function for each operator and version that changed in
form or in meaning, and `opsets`, the versions that mean the same as the one before. A node that cannot be brought along
(its axes or types would have to be known and are not, it is in training mode, the standard or onnxruntime does not have
it, …) is noted with the reason, and the model stops below the opset that changes it: what can be gained is gained, and
`edit.model.opset_imports[""]` tells how far it came.

The graph, the bodies of control flow and local functions all come along, since one model has one opset; a model with
training information stays, since that is written in the same one. The IR version
is raised where the opset asks for it. It is one edit: half an upgrade is no valid model. Weights are not copied, and
constants that adapters make are shared within a graph.

BITWISE: only forms change. ROUNDING where onnxruntime has another kernel for the newer form (`opsets.ROUNDED`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph import shapes
from graphopt.graph.edit import Editor
from graphopt.graph.names import Names
from graphopt.graph.nodes import PROTECTED, TRAINED, attr, graphs, subgraphs
from graphopt.graph.record import Exactness, Refused
from graphopt.protocol import Context, Pass
from graphopt.upgrade.adapters import ADAPTERS
from graphopt.upgrade.opsets import HARMLESS, LACKING, REFUSED, ROUNDED

__all__ = ["Upgrade"]

OLDEST = 7
"""The first opset with today's broadcasting; what was before is not upgraded."""


@dataclass(frozen=True)
class Upgrade(Pass):
    """See the module's docstring.

    Measured: models/digits_vit.onnx has 56 nodes at opset 23 and takes 0.84 of the time, 101 and 0.96 at its own, 17.
    """

    opset: int = 0
    """Of the standard domain; 0 leaves the model at its own."""

    name: ClassVar[str] = "upgrade"
    summary: ClassVar[str] = "bring the model to a newer opset"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    rules: ClassVar[Mapping[str, str]] = {"upgrade": "All nodes take the form that a newer opset gives them."}

    def run(self, edit: Editor, ctx: Context) -> None:
        """Try the wanted opset first; what stands in the way says how far it can go instead."""
        target = min(self.opset, onnx.defs.onnx_opset_version())
        root = next(iter(edit.model.graph), None)
        if root is None or not _oldest(edit.model):
            return
        reason = _obstacle(edit.model)
        if reason and _oldest(edit.model) < target:
            ctx.miss(self.name, root, reason)
            return
        while target > _oldest(edit.model):
            upgrader, rounded = _Upgrader(target), _rounded(edit.model, target)
            exactness = Exactness.ROUNDING if rounded else Exactness.BITWISE
            longest = max((math.prod(attr(node, "kernel_shape", ())) for node in rounded), default=1)
            with ctx.noting(self.name, root):
                try:
                    values = [str(v.name) for node in rounded for v in node.outputs]
                    edit.replace_model(self.name, exactness, upgrader, values=values, reduction=longest)
                except _Blocked:
                    for node, reason in upgrader.blocked:
                        ctx.miss(self.name, node, reason)
                    target = upgrader.reached
                    continue
            return


class _Blocked(Exception):  # noqa: N818 - an answer, not a malfunction
    """Some node cannot take the form of the wanted opset."""


def _oldest(model: ir.Model) -> int:
    """The lowest opset of the standard domain that the graph or a function imports; 0 where none does."""
    imports = (model.opset_imports, *(f.opset_imports for f in model.functions.values()))
    return min((i[""] for i in imports if "" in i), default=0)


def _obstacle(model: ir.Model) -> str | None:
    """Why the model's opset stays what it is, whatever its nodes are."""
    if _oldest(model) < OLDEST:
        return f"opset {_oldest(model)} is too old"
    return "training information is written in the same opset" if TRAINED in model.graph.meta else None


def _rounded(model: ir.Model, target: int) -> list[ir.Node]:
    """The nodes that the runtime rounds differently at the wanted opset."""
    places = [(graph, model.opset_imports) for graph in graphs(model)]
    places += [(graph, f.opset_imports) for f in model.functions.values() for graph in _with_bodies(f.graph)]
    return [
        node
        for graph, imports in places
        for node in graph
        if not node.domain and imports.get("", target) < ROUNDED.get(node.op_type, 0) <= target
    ]


class _Upgrader:
    """Brings one model to an opset, in place. A `Site` for adapters."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.reached = target
        """The highest opset that all nodes can take."""
        self.blocked: list[tuple[ir.Node, str]] = []
        self.enlarging: set[ir.Node] = set()
        self._versions = _versions()
        self._made: list[ir.Node] = []
        self._names = Names(())
        self._shared: dict[tuple[int, str, tuple[int, ...], bytes], ir.Value] = {}
        self._without_initializers: set[ir.Graph] = set()

    def __call__(self, model: ir.Model) -> ir.Model:
        """Upgrade the graph and the functions.

        Raises:
            _Blocked: they cannot all get there; `reached` and `blocked` say how far, and what is in the way.
        """
        places = [(graph, model.opset_imports) for graph in graphs(model)]
        for function in model.functions.values():
            inside = list(_with_bodies(function.graph))
            self._without_initializers.update(inside)
            places += [(graph, function.opset_imports) for graph in inside]
        self._names = Names(graph for graph, _ in places)
        for graph, imports in places:
            if imports.get("", self.target) < self.target:
                self._upgrade(graph, imports[""], model)
        if self.blocked:
            raise _Blocked
        for imports in (model.opset_imports, *(f.opset_imports for f in model.functions.values())):
            imports.update({"": max(imports[""], self.target)} if "" in imports else {})
        needed: int = onnx.helper.OP_SET_ID_VERSION_MAP["ai.onnx", self.target]
        model.ir_version = max(model.ir_version, needed)
        for node in self._made:
            shapes.infer_node(node, model)
        return model

    def _upgrade(self, graph: ir.Graph, opset: int, model: ir.Model) -> None:
        pending = [(node, opset) for node in graph if not node.domain and node.op_identifier() not in model.functions]
        for node, start in pending:
            version, known = start, len(self._made)
            while (step := self._next(node, version)) is not None:
                reason = self._take(node, version, step)
                if reason is not None:
                    self.blocked.append((node, f"opset {step} changes {node.op_type}: {reason}"))
                    self.reached = min(self.reached, step - 1)
                    break
                version = step
                pending += [(each, step) for each in self._made[known:]]  # the loop comes to them as well
                known = len(self._made)

    def _next(self, node: ir.Node, version: int) -> int | None:
        """The next opset up to the wanted one that has another version of the node's operator."""
        versions = self._versions.get(node.op_type, ())
        if not versions or versions[0] > version:
            return version + 1 if version < self.target else None
        return next((v for v in versions if version < v <= self.target), None)

    def _take(self, node: ir.Node, old: int, version: int) -> str | None:
        """Bring a node from the form of an old version into that of the next one, or answer why not."""
        if old < min(self._versions.get(node.op_type, (version,))):
            return f"opset {old} has no such operator"
        if node.op_type in LACKING.get(version, ()):
            return "onnxruntime has no kernel for the new version"
        if node.op_type in HARMLESS.get(version, ()):
            return None
        adapter = ADAPTERS.get((node.op_type, version))
        if adapter is None:
            return REFUSED.get((node.op_type, version), "this version is too new to be known")
        if any(a.is_ref() for a in node.attributes.values()):
            return "an attribute is that of the function around it"
        return adapter(node, self)

    # -- what an adapter calls --------------------------------------------------------------------------------------

    def const(self, node: ir.Node, contents: NDArray[Any], hint: str) -> ir.Value:
        """A constant that `node` can read. A function has no initializers, so that a node makes it there."""
        graph = _graph(node)
        if graph in self._without_initializers:
            return self.before(node, "Constant", [], {"value": ir.tensor(contents)})
        same = (id(graph), contents.dtype.str, contents.shape, contents.tobytes())
        if same not in self._shared:
            tensor, shape = ir.tensor(contents), ir.Shape(contents.shape)
            value = ir.Value(
                name=self._names.fresh(hint), const_value=tensor, type=ir.TensorType(tensor.dtype), shape=shape
            )
            graph.register_initializer(value)
            self._shared[same] = value
        return self._shared[same]

    def before(
        self, node: ir.Node, op_type: str, inputs: Sequence[ir.Value], attributes: Mapping[str, Any] | None = None
    ) -> ir.Value:
        """The result of a new node before `node`."""
        made = self._node(node, op_type, inputs, attributes)
        _graph(node).insert_before(node, made)
        return made.outputs[0]

    def after(
        self, node: ir.Node, op_type: str, inputs: Sequence[ir.Value], attributes: Mapping[str, Any] | None = None
    ) -> None:
        """Let a new node, which reads the first output of `node` and then `inputs`, take that output's place."""
        made, old = self._node(node, op_type, [None, *inputs], attributes), node.outputs[0]
        new, name = made.outputs[0], old.name
        _graph(node).insert_after(node, made)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        made.replace_input_with(0, old)
        old.name, new.name = self._names.fresh(f"{name or 'value'}/{node.op_type}"), name
        new.type, new.shape, old.shape = old.type, old.shape, None
        if PROTECTED in old.meta:
            new.meta[PROTECTED] = old.meta.pop(PROTECTED)
        new.doc_string, old.doc_string = old.doc_string, None
        new.metadata_props.update(old.metadata_props)
        old.metadata_props.clear()

    def _node(
        self, near: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any] | None
    ) -> ir.Node:
        base = next((o.name for o in near.outputs if o.name), "value")
        made = ir.node(
            op_type, list(inputs), dict(attributes or {}), name=self._names.fresh(f"{near.name or base}/{op_type}")
        )
        made.outputs[0].name = self._names.fresh(f"{base}/{op_type}")
        self._made.append(made)
        return made


def _graph(node: ir.Node) -> ir.Graph:
    graph = node.graph
    if not isinstance(graph, ir.Graph):
        raise Refused("the node stands in no graph")
    return graph


def _with_bodies(graph: ir.Graph) -> Iterator[ir.Graph]:
    pending = [graph]
    while pending:
        current = pending.pop()
        yield current
        for node in current:
            pending.extend(subgraphs(node))


def _versions() -> dict[str, list[int]]:
    """For each operator of the standard domain, the opsets in which it has a new version."""
    found: dict[str, list[int]] = defaultdict(list)
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain:
            found[schema.name].append(schema.since_version)
    return {name: sorted(versions) for name, versions in found.items()}
