"""What became of each node of a model, and where each node of another one came from.

    same        the same operator, attributes and constants, on the same values
    moved       the same, at another place
    resized     a weight has another shape
    requantized a weight has another type
    changed     attributes, constants or the operator
    fused       one node, or a few, in place of several
    split       several in place of one
    inserted    in place of nothing
    unknown     in the midst of too much that is new to be told

and of nodes that are not there any more:

    folded      a constant stands where its result was
    bypassed    what read its result reads something else that is there, which holds the same
    dead        nothing needed its result

Nodes are paired first (see `matching`); the rest is explained by the values around it: what computed a value in the one
model, back to values that are in both, became what computes it in the other one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from graphopt.graph.matching import Pairs, Side, constant, described, equal, settings

__all__ = ["GONE", "KINDS", "Change", "Diff", "diff"]

KINDS = ("same", "moved", "resized", "requantized", "changed", "fused", "split", "inserted", "unknown")
"""What a node of the second model may be."""
GONE = ("folded", "bypassed", "dead")
"""What further may become of one of the first."""
_REWRITTEN = frozenset({"resized", "changed", "requantized"})
_MOST = 24
"""Nodes on both sides of a region, beyond which it says nothing that it took the other one's place."""

Role = Callable[[ir.Node], str]
"""What a node is there for that can stand between any others, as "a quantizer"; empty where it is no such node."""


@dataclass(frozen=True)
class Change:
    """What is to be said of one node."""

    kind: str
    nodes: tuple[str, ...] = ()
    """Keys of the nodes on the other side that it came from, or became."""
    notes: tuple[str, ...] = ()
    """What is different."""


@dataclass(frozen=True)
class Diff:
    """All nodes of both models, with what is to be said of them."""

    before: Side
    after: Side
    came: dict[ir.Node, Change]
    """Of each node of the second model."""
    became: dict[ir.Node, Change]
    """Of each node of the first."""
    values: dict[ir.Value, ir.Value]
    """Values of the second model, and those of the first that they are."""


def diff(before: ir.Model, after: ir.Model, role: Role = lambda _: "") -> Diff:
    """Say of every node of both models where it came from, or what became of it. Nothing is changed or run."""
    return _Reader(Pairs(Side(before), Side(after)), role).read()


class _Reader:
    """Explains what is not paired, and what differs in pairs."""

    def __init__(self, pairs: Pairs, role: Role) -> None:
        self.pairs, self.before, self.after, self.role = pairs, pairs.before, pairs.after, role
        self.moved: dict[ir.Node, ir.Node] = {}
        """Further pairs, inside of regions."""

    def read(self) -> Diff:
        regions, taken = self._regions, set[ir.Node]()
        for node, region in regions.items():
            same = next((n for n in region if n not in taken and _twins(n, node)), None)
            if same is not None:
                self.moved[node] = same
                taken.add(same)
        told = {node: self._paired(self.pairs.nodes[node], node) for node in self.pairs.nodes}
        crowd: dict[frozenset[ir.Node], list[ir.Node]] = {}
        for node, region in regions.items():
            if not (region and node in self.moved):
                crowd.setdefault(frozenset(region), []).append(node)
        told |= {node: self._explained(node, region, crowd) for node, region in regions.items()}
        return self._told(told)

    # -- the second model -------------------------------------------------------------------------------------------

    def _paired(self, old: ir.Node, new: ir.Node) -> tuple[str, list[ir.Node], list[str]]:
        """A node that is there on both sides."""
        notes, kinds, behind = [], set[str](), list[ir.Value]()
        before, after = settings(old), settings(new)
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                kinds.add("changed")
                notes.append(f"{name}: {before.get(name, 'not given')} → {after.get(name, 'not given')}")
        for index in range(max(len(old.inputs), len(new.inputs))):
            ours, theirs = (n.inputs[index] if index < len(n.inputs) else None for n in (new, old))
            kind, note = self._slot(index, theirs, ours)
            kinds |= {kind} - {""}
            notes += [note] if note else []
            if theirs is not None and kind != "folded":
                behind.append(theirs)
        if self.pairs.nodes.get(self.after.owner.get(new, new), old) is not self.before.owner.get(old, old):
            kinds.add("moved")
            notes.append("it stands in another body")
        absorbed = self._cone(behind) if kinds & {"changed", "resized"} else []
        plain = "fused" if absorbed and "changed" in kinds else "changed" if kinds else "same"
        kind = next((k for k in ("moved", "resized", "requantized") if k in kinds), plain)
        return kind, [old, *absorbed], notes

    def _slot(self, index: int, old: ir.Value | None, new: ir.Value | None) -> tuple[str, str]:
        """What is different about one input, and how it is called."""
        if old is None or new is None:
            if old is new:
                return "", ""
            return "changed", f"input {index} is {'left out' if new is None else f'{new.name}, and was left out'}"
        tensors = constant(old), constant(new)
        if tensors == (None, None):
            return self._wired(index, old, new)
        first, second = tensors[0] or self._payload(old), tensors[1] or self._payload(new)
        told = first is not None and second is not None and first.dtype != second.dtype
        if tensors[0] is None and not told:
            return "folded", f"input {index} was computed, and is a constant: {new.name}"
        if tensors[1] is None and not told:
            return "changed", f"input {index} was a constant, and is computed: {new.name}"
        if first is None or second is None:
            return "", ""
        name = old.name if tensors[1] is None else new.name
        if first.dtype != second.dtype:
            return "requantized", f"{name}: {described(first)} → {described(second)}"
        if tuple(first.shape.numpy()) != tuple(second.shape.numpy()):
            return "resized", f"{name}: {described(first)} → {described(second)}"
        return ("", "") if equal(first, second) else ("changed", f"{name} holds other numbers: {described(second)}")

    def _wired(self, index: int, old: ir.Value, new: ir.Value) -> tuple[str, str]:
        """A value that is computed on both sides: it is moved if what was read is there, but is not read."""
        there = old in self.pairs.stands_for or old.producer() in self.pairs.is_now
        if there and old not in self._sources(new):
            return "moved", f"input {index} is {new.name}, and was {old.name}"
        return "", ""

    def _image(self, value: ir.Value) -> ir.Value | None:
        """The value of the first model that one of the second is, or that the same node computes."""
        maker, index = value.producer(), value.index() or 0
        twin = None if maker is None else self.pairs.nodes.get(maker)
        made = twin.outputs[index] if twin is not None and index < len(twin.outputs) else None
        return self.pairs.values.get(value, made)

    def _sources(self, value: ir.Value) -> Iterable[ir.Value]:
        """The nearest values of the first model that one of the second is computed from."""
        pending, seen, found = [value], {value}, list[ir.Value]()
        while pending:
            current = pending.pop()
            if (image := self._image(current)) is not None:
                found.append(image)
                continue
            maker = current.producer()
            for read in self.after.reads(maker) if maker is not None else ():
                if read not in seen:
                    seen.add(read)
                    pending.append(read)
        return found

    def _payload(self, value: ir.Value) -> ir.TensorProtocol | None:
        """The largest constant that a value is computed from, if a quantizer or the like does so from constants."""
        maker = value.producer()
        if maker is None or maker in self.pairs.nodes or maker in self.pairs.is_now or not self.role(maker):
            return None
        tensors = [constant(v) for v in maker.inputs if v is not None]
        given = [t for t in tensors if t is not None]
        return max(given, key=lambda t: t.nbytes) if given and len(given) == len(tensors) else None

    @cached_property
    def _regions(self) -> dict[ir.Node, list[ir.Node]]:
        """For each node of the second model without a counterpart: the nodes of the first in whose place it is."""
        found: dict[ir.Node, list[ir.Node]] = {}
        for node in reversed(self.after.nodes):
            if node in self.pairs.nodes:
                continue
            ours = [v for v in node.outputs if v in self.pairs.values]
            region = self._cone([self.pairs.values[v] for v in ours], whole=True)
            if not ours:
                parts: dict[ir.Node, None] = {}
                for value in node.outputs:
                    for reader in self.after.readers(value):
                        twin = self.pairs.nodes.get(reader)
                        there = self._cone(_at(reader, value, twin)) if twin else found.get(reader, ())
                        parts |= dict.fromkeys(there)
                region = list(parts)
            found[node] = region
        return dict(reversed(found.items()))

    def _cone(self, values: Iterable[ir.Value], *, whole: bool = False) -> list[ir.Node]:
        """The nodes of the first model without a counterpart that compute these, back to values that both have.

        With `whole` it begins with values that both have, and if nothing else computes them, with what does.
        """
        start = list(values)
        found: dict[ir.Node, None] = {}
        pending = list(start)
        while pending:
            value = pending.pop()
            maker = value.producer()
            if maker is None or maker in found or (value in self.pairs.stands_for and not (whole and value in start)):
                continue
            if maker not in self.pairs.is_now:
                found[maker] = None
                pending.extend(self.before.reads(maker))
        if not found and whole:
            return [m for m in (v.producer() for v in start) if m is not None]
        return list(found)

    def _explained(
        self, node: ir.Node, region: Sequence[ir.Node], crowd: dict[frozenset[ir.Node], list[ir.Node]]
    ) -> tuple[str, list[ir.Node], list[str]]:
        """A node without a counterpart."""
        if (twin := self.moved.get(node)) is not None:
            return "moved", [twin], []
        role = self.role(node)
        readers = list(dict.fromkeys(r for v in node.outputs for r in self.after.readers(v)))
        kept = [n for n in region if n in self.pairs.is_now]
        if not role and kept == list(region):  # nothing that went is in its place
            near = [*readers, *(self.pairs.is_now[n] for n in kept)]
            twins = [(self.pairs.nodes[r], r) for r in near if r in self.pairs.nodes]
            if whole := [old for old, new in twins if self._paired(old, new)[0] in _REWRITTEN]:
                return "split", whole, []
            region = ()
        if not region or (role and not any(self.role(n) for n in region)):
            others = " and others" if len(readers) > 1 else ""
            before = f", before {self.after.keys[readers[0]]}{others}" if readers else ""
            return "inserted", [], [f"{role or 'new'}{before}"]
        beside = [n for n in crowd[frozenset(region)] if not self.role(n)] or [node]
        if len(region) == 1:
            if len(beside) == 1:
                return "changed", list(region), [f"operator: {region[0].op_type} → {node.op_type}"]
            return "split", list(region), []
        if len(region) > _MOST and len(beside) > _MOST:
            return "unknown", [], [f"among {len(beside):,} nodes that took the place of {len(region):,}"]
        like = [n for n in region if n.op_identifier() == node.op_identifier()]
        return "fused", list(region), self._constants(like[0], node) if len(like) == 1 else []

    def _constants(self, old: ir.Node, new: ir.Node) -> list[str]:
        """How the constants of a node differ in form from those of the one that it was fused around."""
        pairs = [(a, b) for a, b in zip(old.inputs, new.inputs, strict=False) if a is not None and b is not None]
        told = [self._slot(i, a, b) for i, (a, b) in enumerate(pairs)]
        return [note for kind, note in told if kind in {"resized", "requantized"}]

    # -- the first model --------------------------------------------------------------------------------------------

    def _told(self, came: dict[ir.Node, tuple[str, list[ir.Node], list[str]]]) -> Diff:
        """The same from the other side, and what became of the rest."""
        became: dict[ir.Node, tuple[str, list[ir.Node]]] = {}
        for node in reversed(self.before.nodes):
            if node not in self.pairs.is_now:
                kind, into = self._gone(node, became)
                maker = into.producer() if isinstance(into, ir.Value) else None
                became[node] = kind, [maker] if maker is not None else []
                if kind == "bypassed" and maker is not None and came[maker][0] in {"changed", "resized", "fused"}:
                    _, parts, notes = came[maker]  # what it did is in the weights of the node before it
                    if any("holds other numbers" in n or " was left out" in n for n in notes) and node not in parts:
                        came[maker] = "fused", [*parts, node], notes
        for node, (kind, parts, _) in came.items():
            for part in parts:
                have = became.get(part)
                if part in self.pairs.is_now and self.pairs.is_now[part] is not node:
                    continue
                more = [] if have is None or have[0] in GONE else have[1]
                became[part] = kind, [*more, node]
        ours, theirs = self.after.keys, self.before.keys
        return Diff(
            self.before,
            self.after,
            {n: Change(came[n][0], tuple(theirs[p] for p in came[n][1]), tuple(came[n][2])) for n in self.after.nodes},
            {n: Change(became[n][0], tuple(ours[p] for p in became[n][1])) for n in self.before.nodes},
            self.pairs.values,
        )

    def _gone(self, node: ir.Node, became: dict[ir.Node, tuple[str, list[ir.Node]]]) -> tuple[str, ir.Value | None]:
        """What stands where the result of a node was."""
        for value in node.outputs:
            now = self.pairs.stands_for.get(value)
            if now is not None:
                return ("folded", None) if constant(now) is not None else ("bypassed", now)
        fates = set[str]()
        for value in node.outputs:
            for reader in self.before.readers(value):
                twin = self.pairs.is_now.get(reader)
                if twin is None:
                    fates.add(became[reader][0] if reader in became else "dead")
                    continue
                for index, read in enumerate(reader.inputs):
                    now = twin.inputs[index] if read is value and index < len(twin.inputs) else None
                    if now is not None and now is not self.pairs.stands_for.get(value):
                        return ("folded", None) if constant(now) is not None else ("bypassed", now)
        return next((k for k in ("folded", "bypassed") if k in fates), "dead"), None


def _at(reader: ir.Node, value: ir.Value, twin: ir.Node) -> list[ir.Value]:
    """What the counterpart of a reader reads in the places where that one reads a value."""
    pairs = zip(reader.inputs, twin.inputs, strict=False)
    return [theirs for ours, theirs in pairs if ours is value and theirs is not None]


def _twins(old: ir.Node, new: ir.Node) -> bool:
    """Whether two nodes do the same; what they do it to may be another thing."""
    if old.op_identifier() != new.op_identifier() or len(old.inputs) != len(new.inputs):
        return False
    tensors = [(constant(a), constant(b)) for a, b in zip(old.inputs, new.inputs, strict=True)]
    same = all((a is None and b is None) or (a is not None and b is not None and equal(a, b)) for a, b in tensors)
    return same and settings(old) == settings(new)
