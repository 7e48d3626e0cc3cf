"""What happened, as one tree of dataclasses that JSON can hold. Every other report is a view of it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphopt.analysis.evidence import Evidence
from graphopt.analysis.facts import Facts
from graphopt.pipeline import Step
from graphopt.protocol import Miss
from graphopt.run.compare import Comparison, OutputError, Reference

__all__ = [
    "CheckReport",
    "DataReport",
    "Inspection",
    "LeftOutReport",
    "ModelReport",
    "PassReport",
    "Report",
    "VerificationReport",
    "to_json",
]

SCHEMA = 1
"""Raised when a key changes its meaning or goes."""


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
    milliseconds: float | None = None
    """Median time of one run on the first feed, both models measured in turn."""

    @classmethod
    def of(cls, name: str, facts: Facts, size: int, sha256: str, milliseconds: float | None) -> ModelReport:
        """From what was counted and measured."""
        return cls(name, facts.nodes, facts.params, facts.macs, facts.unknown_macs, size, sha256, milliseconds)


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
    feeds: int
    provider: str
    outputs: tuple[OutputError, ...]
    differences: tuple[str, ...]
    notes: tuple[str, ...]
    metrics: Mapping[str, tuple[float, float]]
    """By name: the original's and the result's, on the data that was given."""

    @classmethod
    def of(
        cls, found: Comparison, reference: Reference, metrics: Mapping[str, tuple[float, float]]
    ) -> VerificationReport:
        """What a comparison found, with the reference's own troubles."""
        return cls(
            found.passed, found.feeds, reference.provider, found.outputs, found.differences, reference.notes, metrics
        )


@dataclass(frozen=True)
class DataReport:
    """What the models were run on."""

    description: str
    synthetic: bool
    sha256: str | None
    samples: int

    @classmethod
    def of(cls, evidence: Evidence) -> DataReport:
        """What of the evidence a report keeps."""
        return cls(evidence.description, evidence.synthetic, evidence.sha256, evidence.samples)


@dataclass(frozen=True)
class Report:
    """What `optimize` did."""

    version: str
    source: ModelReport
    output: ModelReport
    unchanged: str | None
    """Why the source is the output, if it is."""
    provider: str | None
    steps: tuple[Step, ...]
    left_out: tuple[LeftOutReport, ...]
    verification: VerificationReport | None
    """None with `--unverified`."""
    data: DataReport | None
    notes: tuple[str, ...]
    schema: int = SCHEMA


@dataclass(frozen=True)
class CheckReport:
    """Whether a candidate does the reference's job."""

    reference: str
    candidate: str
    passed: bool
    verification: VerificationReport
    data: DataReport
    notes: tuple[str, ...]
    schema: int = SCHEMA


@dataclass(frozen=True)
class Inspection:
    """What a model is made of."""

    name: str
    facts: Facts
    bytes: int
    sha256: str
    opsets: Mapping[str, int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...]
    misses: tuple[Miss, ...]
    """Where the rule that was asked for looked and did nothing."""


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


def to_json(tree: Any) -> str:
    """A dataclass, or a sequence of them, as JSON text; what is not finite becomes null, as JSON has no word for it."""
    return json.dumps(_plain(tree), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
