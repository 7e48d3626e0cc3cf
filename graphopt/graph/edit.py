"""The only way to change a graph.

A rule builds its replacement in a `Draft`, which touches nothing; `Editor.commit` checks it and puts it in, or raises
`Refused` with the reason. Every change is recorded as an `Edit`, so that what was done cannot be misreported, and so
that a second run can be told to stop after the k-th edit or to leave single ones out: that is all that roll-back and
bisecting need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from graphopt.graph import functions, shapes, wholesale
from graphopt.graph.draft import Draft
from graphopt.graph.names import Names
from graphopt.graph.nodes import bodies, graphs, is_protected, is_used, key, let_go
from graphopt.graph.record import WHOLE, Edit, Exactness, Refused

__all__ = ["Editor", "is_read"]


class Editor:
    """Changes one model, and keeps the record of it.

    Args:
        model: changed in place.
        skip: edits that must not be made.
        limit: number of edits after which every further one is refused.
        keep: keys of nodes that stay as they are.
    """

    def __init__(
        self,
        model: ir.Model,
        *,
        skip: Collection[Edit] = (),
        limit: int | None = None,
        keep: Collection[str] = (),
    ) -> None:
        self.model = model
        self.edits: list[Edit] = []
        self._skip = frozenset(skip)
        self._limit = limit
        self._keep = frozenset(keep)
        self._made: Counter[tuple[str, str]] = Counter()
        self._known: shapes.Known = {}
        self._learn_names()

    # -- what a pass calls ------------------------------------------------------------------------------------------

    def commit(
        self,
        rule: str,
        exactness: Exactness,
        replaced: Mapping[ir.Value, ir.Value],
        *,
        draft: Draft | None = None,
        matched: Iterable[ir.Node] = (),
    ) -> None:
        """Let every reader of each old value read the new one, then sweep what nothing reads any more.

        A new value that the draft made takes over the name of the old one.

        Args:
            rule: name for the record.
            exactness: of this edit.
            replaced: old value (an output of one node, the root) to the value that takes its place.
            draft: where the new nodes and constants were made.
            matched: further nodes that this edit makes superfluous.

        Raises:
            Refused: the edit is not wanted or not safe; the graph is as it was.
        """
        root = next(iter(replaced)).producer()
        made = {v for n in draft.nodes for v in n.outputs} | set(draft.constants) if draft else set()
        if root is None or root.graph is None:
            raise Refused("the value is not computed by a node of this graph")
        try:
            self._check_outputs(replaced)
            for old, new in replaced.items():
                self._check(old, new, fresh=new in made)
            for node in {root, *matched}:
                self._check_node(node, replaced)
            edit = self._admit(rule, root, exactness, [o.name or "" for o in replaced], draft.reduction if draft else 1)
        except Refused:
            if draft:
                draft.discard()
            raise
        if draft:
            self._place(draft, root, replaced)
        for old, new in replaced.items():
            self._substitute(old, new, fresh=new in made)
        self._sweep([root, *matched])
        self.edits.append(edit)

    def remove(self, rule: str, node: ir.Node) -> None:
        """Take out a node whose outputs nothing reads, and whatever only it read.

        Raises:
            Refused: something reads it, or the edit is not wanted.
        """
        if any(is_read(v) for v in node.outputs):
            raise Refused("its result is used")
        self._check_node(node, {})
        edit = self._admit(rule, node, Exactness.BITWISE)
        self._sweep([node])
        self.edits.append(edit)

    def merge_constants(self, rule: str, duplicate: ir.Value, original: ir.Value) -> None:
        """Let every reader of one initializer read another one that holds the same.

        Raises:
            Refused: a feed, an output or an annotation refers to it by name, or the edit is not wanted.
        """
        if duplicate.is_graph_output() or duplicate.is_graph_input() or is_protected(duplicate):
            raise Refused("it is referred to by name")
        edit = self._admit(rule, duplicate, Exactness.BITWISE)
        duplicate.replace_all_uses_with(original)
        _drop_initializer(duplicate)
        self.edits.append(edit)

    def drop_constant(self, rule: str, value: ir.Value) -> None:
        """Take out an initializer that nothing reads.

        Raises:
            Refused: it is read or referred to by name, or the edit is not wanted.
        """
        if is_read(value) or value.is_graph_input():
            raise Refused("it is used")
        edit = self._admit(rule, value, Exactness.BITWISE)
        _drop_initializer(value)
        self.edits.append(edit)

    def drop_functions(self, rule: str) -> None:
        """Take out each local function that nothing calls, as an edit of its own, where that is wanted."""
        used = functions.called(self.model)
        for name in [f for f in self.model.functions if f not in used]:
            with suppress(Refused):
                edit = self._admit(rule, "::".join(filter(None, name)), Exactness.BITWISE)
                del self.model.functions[name]
                self.edits.append(edit)

    def annotate(self, rule: str, owner: ir.Node | ir.Value, change: Mapping[str, Any]) -> None:
        """Set attributes of a node or value that do not take part in the computation (`doc_string`, …).

        Raises:
            Refused: the edit is not wanted.
        """
        edit = self._admit(rule, owner, Exactness.BITWISE)
        for name, value in change.items():
            if name == "metadata_props":
                owner.metadata_props.clear()
                owner.metadata_props.update(value)
            else:
                setattr(owner, name, value)
        self.edits.append(edit)

    def replace_model(
        self,
        rule: str,
        exactness: Exactness,
        change: Callable[[ir.Model], ir.Model],
        *,
        values: Sequence[str] | None = None,
        reduction: int = 1,
    ) -> None:
        """Let another graph, with its functions, operator sets and IR version, take the place of the whole one.

        It is one edit, at `WHOLE`, that is made or left out as a whole. `self.model` stays the same object, but no
        graph, node or value that was reached through it before is part of it any more.

        Args:
            rule: name for the record.
            exactness: of this edit.
            change: is given a copy, which shares all tensors, and answers it changed, or another model. Values and
                nodes keep their names as far as they can: inputs and outputs must, nodes find their keys by them.
            values: names of the values that are rounded differently; those that other nodes or weights compute, if it
                is not said and the edit is not bitwise.
            reduction: length of the longest sum that is rounded differently.

        Raises:
            Refused: the edit is not wanted, `change` raised it, or the model would not be the same to others: its
                inputs, outputs, overridable weights, what annotations refer to, or what was asked to stay.
        """
        edit = Edit(rule, WHOLE, self._made[rule, WHOLE], exactness)
        self._allow(edit)
        made = change(self.model.clone())
        wholesale.inherit_keys(self.model, made)
        problem = wholesale.objection(self.model, made, self._keep)
        if problem is not None:
            raise Refused(problem)
        if values is None:
            values = wholesale.changed(self.model, made) if exactness >= Exactness.ROUNDING else ()
        wholesale.take_over(self.model, made)
        self._learn_names()
        self._made[rule, WHOLE] += 1
        self.edits.append(replace(edit, values=tuple(values), reduction=reduction))

    # -- what keeps it safe -----------------------------------------------------------------------------------------

    def _admit(
        self,
        rule: str,
        root: ir.Node | ir.Value | str,
        exactness: Exactness,
        values: Sequence[str] = (),
        reduction: int = 1,
    ) -> Edit:
        name = root if isinstance(root, str) else key(root) if isinstance(root, ir.Node) else str(root.name)
        if name in self._keep:
            raise Refused("it was asked to stay")
        edit = Edit(rule, name, self._made[rule, name], exactness, tuple(values), reduction)
        self._allow(edit)
        self._made[rule, name] += 1
        return edit

    def _allow(self, edit: Edit) -> None:
        if edit in self._skip:  # it keeps its number, so that it stays left out when the rule comes by again
            raise Refused("it was found to change the result")
        if self._limit is not None and len(self.edits) >= self._limit:
            raise Refused("enough edits were made")

    def _check_node(self, node: ir.Node, replaced: Mapping[ir.Value, ir.Value]) -> None:
        if key(node) in self._keep:
            raise Refused(f"{key(node)} was asked to stay")
        if any(is_protected(v) for v in node.outputs if v not in replaced):
            raise Refused("an annotation refers to a value inside")

    def _check(self, old: ir.Value, new: ir.Value, *, fresh: bool) -> None:
        if new is old:
            raise Refused("nothing would change")
        if old.type is not None and new.type is not None and old.type != new.type:
            raise Refused(f"the type would change from {old.type} to {new.type}")
        _check_shape(old, new)
        if is_protected(old) and not fresh:
            raise Refused("an annotation refers to the value")
        if old.is_graph_output():
            if new.const_value is not None and new.producer() is None:
                raise Refused("a graph output stays computed by a node")
            if not fresh and (new.is_graph_output() or new.is_graph_input() or new.graph is not old.graph):
                raise Refused("the graph needs this output under its own name")
            if not fresh and is_protected(new):
                raise Refused("an annotation refers to the value that would be renamed")
        if not fresh:
            self._check_scopes(old, new)

    def _check_outputs(self, replaced: Mapping[ir.Value, ir.Value]) -> None:
        outputs = [new for old, new in replaced.items() if old.is_graph_output()]
        if len(set(outputs)) < len(outputs):
            raise Refused("the graph needs each of its outputs under its own name")

    def _check_scopes(self, old: ir.Value, new: ir.Value) -> None:
        """A body that has a value of its own by this name would read that one instead."""
        renamed = old.is_graph_output()
        name = old.name if renamed else new.name
        readers = [*old.consumers(), *(new.consumers() if renamed else ())]
        if name in self._inner_names and any(reader.graph is not new.graph for reader in readers):
            raise Refused(f"a body has another value named {name!r}")

    # -- how it is done ---------------------------------------------------------------------------------------------

    def _learn_names(self) -> None:
        self._names = Names(self.model)
        self._inner_names = frozenset(
            v.name
            for graph in graphs(self.model)
            if graph is not self.model.graph
            for v in (*graph.inputs, *graph.initializers.values(), *(o for node in graph for o in node.outputs))
        )

    def _place(self, draft: Draft, root: ir.Node, replaced: Mapping[ir.Value, ir.Value]) -> None:
        """Insert the draft before the root, unless what it computes turns out to have another shape."""
        domains = set(self.model.opset_imports)
        self._insert(draft, root, replaced)
        try:
            for old, new in replaced.items():
                _check_shape(old, new)
        except Refused:
            _take_back(draft, root)
            for domain in self.model.opset_imports.keys() - domains:
                del self.model.opset_imports[domain]
            raise

    def _insert(self, draft: Draft, root: ir.Node, replaced: Mapping[ir.Value, ir.Value]) -> None:
        """Put the draft before the root. What stands for an old value is named in `_substitute`."""
        graph = root.graph
        if graph is None:
            raise Refused("the node was removed")
        final = set(replaced.values())
        for value in draft.constants:
            if value in final or is_used(value):
                value.name = self._names.fresh(str(value.name))
                graph.register_initializer(value)
        base = next((o.name for o in root.outputs if o.name), "value")
        for node in draft.nodes:
            node.name = self._names.fresh(f"{root.name or base}/{node.op_type}")
            for value in node.outputs:
                if value.name != "":  # an output that is left out
                    value.name = self._names.fresh(f"{base}/{node.op_type}")
            self._rename_inside(node)
        graph.insert_before(root, draft.nodes)
        for node in draft.nodes:
            self.model.opset_imports.setdefault(node.domain, 1)  # other domains than the standard one have no history
            shapes.infer_node(node, self.model, self._known)

    def _rename_inside(self, node: ir.Node) -> None:
        """Names in the bodies of a new node must not be those of other values, which they would hide."""
        for body in bodies(node):
            for value in (*body.inputs, *body.initializers.values(), *(o for n in body for o in n.outputs)):
                if value.name:
                    value.name = self._names.fresh(value.name)

    def _substitute(self, old: ir.Value, new: ir.Value, *, fresh: bool) -> None:
        new.type = new.type or old.type
        told = old.shape is None and new.shape is not None
        if old.shape is not None and new.shape is not None and not wholesale.agree(old.shape, new.shape):
            new.shape = old.shape  # the file contradicts itself, and inference has told now: what was known counts
        elif old.shape is not None:
            new.merge_shapes(old.shape)
        name, was_output = old.name, old.is_graph_output()
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        if fresh or was_output:
            old.name = self._names.fresh(
                f"{name}/replaced"
            )  # a node with further outputs stays, and this one needs a name
            new.name = name
        if told:
            self._tell(new)

    def _tell(self, value: ir.Value) -> None:
        """What is computed from a value that has got a shape may get one as well, and what is computed from that."""
        pending = [value]
        while pending:
            for node in pending.pop().consumers():
                unknown = [v for v in node.outputs if v.shape is None]
                if unknown:
                    shapes.infer_node(node, self.model, self._known)
                    pending.extend(v for v in unknown if v.shape is not None)

    def _sweep(self, doomed: list[ir.Node]) -> None:
        """Remove each node that nothing reads, then what became superfluous by that."""
        pending = list(doomed)
        while pending:
            node = pending.pop()
            graph = node.graph
            if graph is None or any(is_read(v) for v in node.outputs) or key(node) in self._keep:
                continue
            sources = let_go(node)
            graph.remove(node, safe=True)
            for value in sources:
                producer = value.producer()
                if producer is not None:
                    pending.append(producer)
                elif value.is_initializer() and not is_read(value) and not value.is_graph_input():
                    _drop_initializer(value)


def is_read(value: ir.Value) -> bool:
    """Whether a node, an output or an annotation refers to `value`."""
    return is_used(value) or value.is_graph_output() or is_protected(value)


def _check_shape(old: ir.Value, new: ir.Value) -> None:
    if old.shape is not None and new.shape is not None and not wholesale.agree(old.shape, new.shape):
        raise Refused(f"the shape would change from {old.shape} to {new.shape}")


def _take_back(draft: Draft, root: ir.Node) -> None:
    """What was placed goes again."""
    if root.graph is not None:
        root.graph.remove(draft.nodes)
    draft.discard()
    for value in draft.constants:
        _drop_initializer(value)


def _drop_initializer(value: ir.Value) -> None:
    graph = value.graph
    if graph is not None and value.name is not None and value.name in graph.initializers:
        del graph.initializers[value.name]
