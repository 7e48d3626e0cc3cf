"""What happened, as one tree of dataclasses that JSON can hold. Every other report is a view of it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import onnx_ir as ir

from graphopt.analysis.evidence import Evidence
from graphopt.analysis.facts import Facts
from graphopt.analysis.groups import Channels
from graphopt.analysis.metrics import Distance
from graphopt.analysis.owners import Weight
from graphopt.analysis.perturb import Disturbed
from graphopt.analysis.robustness import Noisy
from graphopt.blame import Blame
from graphopt.gate.rules import Row
from graphopt.pipeline import Step
from graphopt.protocol import Miss
from graphopt.report.half import HalfReport
from graphopt.report.integers import IntegersReport
from graphopt.report.packages import PackagesReport
from graphopt.report.plan import Metric, NoiseReport, PlanReport
from graphopt.report.timing import RunReport, TimingReport
from graphopt.run.compare import Comparison, OutputError, Reference
from graphopt.run.environment import Environment, Host

__all__ = [
    "BenchReport",
    "CheckReport",
    "DataReport",
    "Document",
    "GroupReport",
    "Inspection",
    "LeftOutReport",
    "Metric",
    "ModelReport",
    "NoiseReport",
    "PassReport",
    "PortReport",
    "Report",
    "TimingReport",
    "VerificationReport",
    "to_json",
]

SCHEMA = 1
"""Raised when a key changes its meaning or goes."""


class Document:
    """A report that is a JSON document of its own."""

    schema: ClassVar[int] = SCHEMA

    def to_json(self) -> str:
        """All of it as JSON text."""
        return to_json(self)


@dataclass(frozen=True)
class ModelReport:
    """One side of the comparison."""

    name: str
    nodes: int
    params: int
    macs: int | None
    unknown_macs: int
    """Nodes that `macs` leaves out, since their shapes could not be told."""
    bytes: int
    """File and external data; of a result above 2 GB the weights alone."""
    sha256: str

    @classmethod
    def of(cls, name: str, facts: Facts, size: int, sha256: str) -> ModelReport:
        """From what was counted."""
        return cls(name, facts.nodes, facts.params, facts.macs, facts.unknown_macs, size, sha256)


@dataclass(frozen=True)
class LeftOutReport:
    """An edit that was made, found to change the result, and left out."""

    rule: str
    root: str
    reason: str


@dataclass(frozen=True)
class VerificationReport:
    """What "verified" means here: these feeds, this provider, this far from the original."""

    passed: bool
    evidence: bool
    """Whether any output depends on what is fed; if none does, a pass says nothing."""
    feeds: int
    provider: str
    environment: Environment
    """What the reference really ran on, and all that was compared with it."""
    twice: bool
    """Whether all ran on the CPU as well."""
    outputs: tuple[OutputError, ...]
    differences: tuple[str, ...]
    notes: tuple[str, ...]
    metrics: Mapping[str, Metric]
    """By name, on the data that was given."""
    noise: tuple[NoiseReport, ...] = ()
    """The same with noise on it, level by level, of what computes something else than the original."""

    def __bool__(self) -> bool:
        return self.passed

    @classmethod
    def of(
        cls,
        found: Comparison,
        reference: Reference,
        metrics: Mapping[str, tuple[float, float]],
        noise: Iterable[Noisy] = (),
    ) -> VerificationReport:
        """What a comparison found, with the reference's own troubles."""
        told = {name: Metric(*values) for name, values in metrics.items()}
        return cls(
            found.passed,
            found.evidence,
            found.feeds,
            reference.provider,
            reference.environment,
            reference.twice,
            found.outputs,
            found.differences,
            reference.notes,
            told,
            tuple(map(NoiseReport.of, noise)),
        )


@dataclass(frozen=True)
class DataReport:
    """What the models were run on."""

    description: str
    synthetic: bool
    sha256: str | None
    samples: int
    """How many there are; feeds that were made up count as one each."""
    compared: int
    """How many of them the outputs were compared on."""
    labels: str | None = None
    """What the label of a sample is, if there are any: its type, and its shape in brackets where it has one."""

    @classmethod
    def of(cls, evidence: Evidence) -> DataReport:
        """What of the evidence a report keeps."""
        return cls(**{f.name: getattr(evidence, f.name) for f in dataclasses.fields(cls)})


@dataclass(frozen=True)
class Report(Document):
    """What `optimize` did."""

    version: str
    source: ModelReport
    output: ModelReport
    """Its name is "result" until it is known where it was written."""
    unchanged: str | None
    """Why the source is the output, if it is."""
    provider: str | None
    steps: tuple[Step, ...]
    edits: tuple[str, ...]
    """Every edit in its order: the rule, and the key of the node at which it fired."""
    left_out: tuple[LeftOutReport, ...]
    verification: VerificationReport | None
    """None with `--unverified`."""
    data: DataReport | None
    timing: TimingReport | None
    """None where nothing was run or nothing was changed."""
    notes: tuple[str, ...]
    plan: PlanReport | None = None
    integers: IntegersReport | None = None
    packages: PackagesReport | None = None
    half: HalfReport | None = None
    """None where nothing was given up."""
    asked: str = ""
    """The command that asks for it again, without the name of the output."""
    host: Host | None = None
    """The machine it was made on."""

    @property
    def cut(self) -> bool:
        """Whether the output computes something else than the source."""
        return self.plan is not None and not self.plan.only

    def at(self, path: Path) -> Report:
        """The same report, with the name of the file that was written."""
        return replace(self, output=replace(self.output, name=str(path)))


@dataclass(frozen=True)
class CheckReport(Document):
    """Whether a candidate does the reference's job; true if it does."""

    reference: str
    candidate: str
    passed: bool
    rows: tuple[Row, ...]
    """What was asked for, line by line, and what was found."""
    verification: VerificationReport
    """Value by value, on the samples that were compared."""
    data: DataReport
    notes: tuple[str, ...]
    distances: tuple[Distance, ...] = ()
    """Of outputs of floats, over all samples, as both are run in earnest; empty where nobody asked for them."""
    equal: bool = True
    """Whether values had to be the same, within the tolerance."""
    perturbed: tuple[Disturbed, ...] | None = None
    """How both models bear disturbed samples, where that was asked for."""
    blame: Blame | None = None
    """Where the difference begins, where that was asked for and outputs differ."""

    def __bool__(self) -> bool:
        return self.passed


@dataclass(frozen=True, kw_only=True)
class BenchReport(RunReport, Document):
    """How long a model takes, or two of them: `original_ms` is the first one's time, `candidate_ms` the other's."""

    model: str
    other: str | None
    """None where one model was timed against itself."""
    sweep: tuple[RunReport, ...] = ()
    """All runs, where there are several: of other numbers of rows. The document itself tells of the first one."""


@dataclass(frozen=True)
class PortReport:
    """One input or output."""

    name: str
    type: str
    """That of its elements, as numpy calls it; of what is no tensor, e.g. "sequence(float32)"."""
    shape: tuple[int | str | None, ...] | None
    """An extent, the name of one, or None for each axis; None where the number of axes is unknown."""

    @classmethod
    def of(cls, value: ir.Value) -> PortReport:
        """From a value that holds what the model declares."""
        shape = None if value.shape is None else tuple(d if isinstance(d, int) else d.value for d in value.shape)
        return cls(str(value.name), _type(value.type), shape)

    def __str__(self) -> str:
        shape = "…" if self.shape is None else ", ".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name}  {self.type} [{shape}]"


def _type(declared: ir.TypeProtocol | None) -> str:
    match declared:
        case None:
            return "unknown"
        case ir.SequenceType():
            return f"sequence({_type(declared.elem_type)})"
        case ir.OptionalType():
            return f"optional({_type(declared.elem_type)})"
        case ir.SparseTensorType():
            return f"sparse({_element(declared.dtype)})"
        case _:
            return _element(declared.dtype)


def _element(dtype: ir.DataType) -> str:
    return "string" if dtype == ir.DataType.STRING else str(dtype.numpy())


@dataclass(frozen=True)
class GroupReport:
    """Channels that are cut together, once the graph is rewritten."""

    key: str
    units: int
    kind: str
    """"channel", "hidden unit", or "block" (a head, a group of a convolution)."""
    writers: tuple[str, ...]
    """Keys of the nodes whose results hold them."""
    readers: tuple[str, ...]
    """Keys of the nodes that sum over them."""
    macs: int
    """Multiply-accumulates in all of these nodes, in the run that those of the model are counted in."""

    @classmethod
    def all(cls, channels: Channels) -> tuple[GroupReport, ...]:
        """One for each group."""
        products = channels.products
        return tuple(
            cls(
                g.key,
                g.units,
                g.kind,
                tuple(k for k, _ in g.writers),
                tuple(k for k, _ in g.readers),
                sum(products[p].macs for p in {*g.writers, *g.readers}),
            )
            for g in channels.groups.values()
        )


@dataclass(frozen=True)
class Inspection(Document):
    """What a model is made of."""

    name: str
    facts: Facts
    bytes: int
    sha256: str
    opsets: Mapping[str, int]
    inputs: tuple[PortReport, ...]
    """Those that must be fed."""
    outputs: tuple[PortReport, ...]
    weights: tuple[Weight, ...]
    """The largest constants, and what part of the program they belong to."""
    notes: tuple[str, ...]
    misses: tuple[Miss, ...]
    """Where the rule that was asked for looked and did nothing."""
    groups: tuple[GroupReport, ...] = ()
    """What can be cut, where that was asked for."""
    held: Mapping[str, str] = field(default_factory=dict)
    """Why the channels of other products stay, by the key of the node."""


@dataclass(frozen=True)
class PassReport:
    """One pass, for people who write recipes."""

    name: str
    exactness: str
    summary: str
    fields: Mapping[str, Any]
    """With their defaults."""
    rules: Mapping[str, str]
    """Name and summary."""
    pays: str
    """Where it is of use."""
    evidence: str
    """What was measured of it; empty where nothing was."""


def to_json(tree: Any, name: str = "") -> str:
    """A report as JSON text, in plain ASCII; what is not finite becomes null, as JSON has no word for it.

    Args:
        tree: a dataclass, or what is made of them.
        name: where given, the key in a document around `tree`; a sequence has no room for the schema.
    """
    plain = _plain({name: tree, "schema": SCHEMA} if name else tree)
    return json.dumps(plain, indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return plain | ({"schema": value.schema} if isinstance(value, Document) else {})
    if isinstance(value, Metric):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
