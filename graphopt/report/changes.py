"""How two models differ, as data: every node of both with where it came from or what became of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from graphopt.graph.carry import Carried
from graphopt.graph.diff import GONE, KINDS, Change, Diff
from graphopt.graph.load import Source
from graphopt.graph.matching import Side, constant, described, equal, settings
from graphopt.graph.nodes import is_overridable
from graphopt.provenance import Provenance
from graphopt.report.data import Document, PortReport
from graphopt.report.text import shown

__all__ = ["ConstantReport", "DiffReport", "NodeReport", "SideReport"]

_LONG = 200
"""Characters of an attribute that are kept."""


@dataclass(frozen=True)
class NodeReport:
    """One node, with where it came from, or what became of it."""

    key: str
    op: str
    kind: str
    """One of `graph.diff.KINDS`, or of `GONE` for a node of the first model that is not there any more."""
    nodes: tuple[str, ...]
    """Keys of the nodes of the other model that it came from or became."""
    notes: tuple[str, ...]
    """What is different; only of a node of the second model."""
    inputs: tuple[str, ...]
    """Names of values; of an input that is left out, an empty one."""
    outputs: tuple[str, ...]
    attributes: Mapping[str, str]
    """Those that are not the default; of tensors, the type, the shape and the beginning of a hash."""
    reads: tuple[str, ...]
    """Keys of the nodes that its inputs are computed by."""


@dataclass(frozen=True)
class SideReport:
    """One of the models."""

    name: str
    sha256: str
    bytes: int
    inputs: tuple[PortReport, ...]
    outputs: tuple[PortReport, ...]
    header: Mapping[str, str]
    """IR version, operator sets, producer and metadata."""
    values: Mapping[str, str]
    """Type and shape by the name of a value, as far as they are known."""
    nodes: tuple[NodeReport, ...]


@dataclass(frozen=True)
class ConstantReport:
    """An initializer that is not the same in both."""

    name: str
    kind: str
    """"added", "removed" or "changed"."""
    before: str
    """Type and shape; empty where it is not there."""
    after: str
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class DiffReport(Document):
    """How a second model differs from a first one."""

    before: SideReport
    after: SideReport
    equal: bool
    """Whether there is nothing to tell of nodes, constants, ports or the header."""
    derived: bool
    """Whether the second one says that graphopt made it from the first."""
    kinds: Mapping[str, int]
    """Number of nodes of the second model by what they are."""
    gone: Mapping[str, int]
    """Number of nodes of the first one by what became of those that are not there any more."""
    constants: tuple[ConstantReport, ...]
    ports: tuple[str, ...]
    """What is different about inputs and outputs."""
    header: Mapping[str, tuple[str, str]]
    """What is different in the header: before and after."""
    notes: tuple[str, ...]

    @classmethod
    def of(cls, before: Source, after: Source, found: Diff) -> DiffReport:
        """From what was found."""
        sides = _side(before, found.before, found.became), _side(after, found.after, found.came)
        kinds = Counter(n.kind for n in sides[1].nodes)
        gone = Counter(n.kind for n in sides[0].nodes if n.kind in GONE)
        constants = tuple(_constants(before.model, after.model))
        ports, header = tuple(_ports(*sides)), _header(*sides)
        derived = Provenance.of(after.model.metadata_props).source_sha256 == before.sha256
        notes = tuple(f"{s.name}: {note}" for s in (before, after) for note in s.notes)
        return cls(
            *sides,
            not (kinds.keys() - {"same"} or gone or constants or ports or header),
            derived,
            {k: kinds[k] for k in KINDS if k in kinds},
            {k: gone[k] for k in GONE if k in gone},
            constants,
            ports,
            header,
            notes,
        )


def _side(source: Source, side: Side, told: Mapping[ir.Node, Change]) -> SideReport:
    model = source.model
    values: dict[str, str] = {}
    for node in side.nodes:
        for value in (*node.inputs, *node.outputs):
            if value is not None and value.name and value.name not in values and (text := _described(value)):
                values[value.name] = text
    header = {"IR version": str(model.ir_version)}
    header |= {f"opset {domain or 'ai.onnx'}": str(v) for domain, v in model.opset_imports.items()}
    made_by = " ".join(filter(None, (model.producer_name, model.producer_version)))
    header |= {"producer": made_by} if made_by else {}
    header |= {f"metadata {name}": text for name, text in model.metadata_props.items()}
    return SideReport(
        source.name,
        source.sha256,
        source.size,
        _declared(source.carried, (v for v in model.graph.inputs if not is_overridable(v))),
        _declared(source.carried, iter(model.graph.outputs)),
        header,
        values,
        tuple(_node(node, side, told[node]) for node in side.nodes),
    )


def _node(node: ir.Node, side: Side, change: Change) -> NodeReport:
    makers = (v.producer() for v in side.reads(node))
    return NodeReport(
        side.keys[node],
        f"{node.domain}.{node.op_type}".lstrip("."),
        change.kind,
        change.nodes,
        change.notes,
        tuple("" if v is None else str(v.name) for v in node.inputs),
        tuple(str(v.name) for v in node.outputs),
        {name: shown(text, _LONG) for name, text in settings(node).items()},
        tuple(dict.fromkeys(side.keys[m] for m in makers if m is not None and m is not side.owner.get(node))),
    )


def _declared(carried: Carried, values: Iterator[ir.Value]) -> tuple[PortReport, ...]:
    return tuple(PortReport.of(carried.declared(v)) for v in values)


def _described(value: ir.Value) -> str:
    tensor = constant(value)
    if tensor is not None:
        return described(tensor)
    if value.type is None and value.shape is None:
        return ""
    port = PortReport.of(value)
    return str(port).removeprefix(f"{port.name}  ")


def _constants(before: ir.Model, after: ir.Model) -> Iterator[ConstantReport]:
    """Initializers of the main graphs that are not the same, by name; one that only has another name is the same.

    `w_1` is what became of `w` where only one of them is there: the name was not free while both were.
    """
    old, new = ({n: t for n, v in m.graph.initializers.items() if (t := v.const_value)} for m in (before, after))
    left: dict[str, list[str]] = {}
    for name in old.keys() - new.keys():
        left.setdefault(described(old[name]), []).append(name)
    renamed = set[str]()
    for name, tensor in new.items():
        told, base = described(tensor), name if name in old else re.sub(r"_\d+$", "", name)
        if base not in old or (base != name and (base in new or base in renamed)):
            alike = left.get(told, [])
            if twin := next((n for n in alike if n not in renamed and equal(old[n], tensor)), ""):
                alike.remove(twin)
                renamed.add(twin)
            else:
                yield ConstantReport(name, "added", "", told, 0, tensor.nbytes)
            continue
        renamed.add(base)
        if not equal(old[base], tensor):
            yield ConstantReport(name, "changed", described(old[base]), told, old[base].nbytes, tensor.nbytes)
    for name, tensor in old.items():
        if name not in new and name not in renamed:
            yield ConstantReport(name, "removed", described(tensor), "", tensor.nbytes, 0)


def _ports(before: SideReport, after: SideReport) -> Iterator[str]:
    for role, old, new in (("input", before.inputs, after.inputs), ("output", before.outputs, after.outputs)):
        names, others = {p.name: p for p in old}, {p.name: p for p in new}
        yield from (f"{role} removed: {p}" for p in old if p.name not in others)
        yield from (f"{role} added: {p}" for p in new if p.name not in names)
        pairs = ((names[p.name], p) for p in new if p.name in names)
        yield from (f"{role} changed: {a} → {b}" for a, b in pairs if a != b)


def _header(before: SideReport, after: SideReport) -> dict[str, tuple[str, str]]:
    every = dict.fromkeys([*before.header, *after.header])
    pairs = {name: (before.header.get(name, ""), after.header.get(name, "")) for name in every}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
