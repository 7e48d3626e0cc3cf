"""What lines are judged by: two models, compared in every way that a policy may ask for, when it asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from graphopt.analysis.evidence import Evidence
from graphopt.analysis.facts import Facts, facts
from graphopt.analysis.metrics import BATCH, Distance, Scores, interval, scored
from graphopt.errors import UsageError
from graphopt.gate.metric import OwnMetric
from graphopt.gate.releases import oldest
from graphopt.gate.untold import Untold
from graphopt.graph.external import Runnable
from graphopt.graph.load import Source
from graphopt.plan.budget import LABELLED
from graphopt.provenance import Provenance
from graphopt.recipe import Recipe
from graphopt.run.bench import Timing
from graphopt.run.benchmark import benchmark
from graphopt.run.compare import Comparison
from graphopt.run.data import Pair, rows_of
from graphopt.run.environment import environment
from graphopt.run.machine import Machine
from graphopt.run.placement import Placement
from graphopt.run.session import Feed
from graphopt.run.usercode import user_code

__all__ = ["Measured", "Side"]

_STANDARD: Final = "ai.onnx"
_DISTANCES: Final = frozenset({"sqnr", "cosine"})


@dataclass(frozen=True)
class Side:
    """What is known of one of the two models without its graph, which takes as much memory as the file."""

    name: str
    size: int
    sha256: str
    runnable: Runnable
    ir_version: int
    opsets: Mapping[str, int]
    provenance: Provenance
    facts: Facts

    @classmethod
    def of(cls, source: Source, feed: Feed | None) -> Side:
        """From a model; multiply-accumulates are those of one run on the feed."""
        model, counts = source.model, facts(source.model, source.carried, feed)
        opsets = {d or _STANDARD: v for d, v in model.opset_imports.items()}
        versions = (model.ir_version, opsets, Provenance.of(model.metadata_props))
        return cls(source.name, source.size, source.sha256, source.runnable, *versions, counts)


@dataclass(frozen=True)
class Measured:
    """A reference and a candidate. Whatever takes time is done once, and only when it is asked for."""

    reference: Side
    candidate: Side
    evidence: Evidence
    machine: Machine
    comparison: Comparison
    own: OwnMetric | None = None
    """The user's metric."""

    @property
    def synthetic(self) -> bool:
        """Whether what both were run on is made up."""
        return self.evidence.synthetic

    @property
    def reference_sha256(self) -> str:
        """Of the file and its external data."""
        return self.reference.sha256

    # -- how well it does --------------------------------------------------------------------------------------------

    @cached_property
    def scores(self) -> Scores:
        """All that is found when both run on all data, as they will be run.

        Raises:
            Untold: the interface is not the same, so that there is nothing to run both on.
        """
        self._comparable()
        self.machine.progress("scoring")
        models = (self.reference.runnable, self.candidate.runnable)
        return scored(*models, self._pairs(), self.machine, lasting=False)

    @property
    def distances(self) -> tuple[Distance, ...]:
        """Of every output of floats.

        Raises:
            Untold: there is none.
        """
        found = self.scores.distances
        if not found:
            raise Untold("no output is of floats")
        return found

    @property
    def distances_found(self) -> tuple[Distance, ...]:
        """The same, where it was asked for by a line or all data was run."""
        return self.scores.distances if "scores" in vars(self) else ()

    def metric(self, name: str) -> tuple[float, float]:
        """Of the reference and of the candidate.

        Raises:
            Untold: it cannot be measured on these models and this data.
        """
        if self.own is not None and name == self.own.name:
            return self._own
        found = self.scores.metrics
        if name not in found:
            needs = "an output of floats" if name in _DISTANCES else "an output of scores"
            needs += " and `labels` in the data" if name in LABELLED else ""
            needs += "" if self.evidence.data or name not in LABELLED else " (give --data)"
            raise Untold(f"it needs {needs}; there is: {', '.join(found) or 'none'}")
        return found[name]

    @property
    def agreement(self) -> tuple[float, float, float, int]:
        """The share of samples, its 95 % interval, and how many samples there are; raises as `metric`."""
        share, count = self.metric("agreement")[1], self.scores.samples
        return share, *interval(share, count), count

    @cached_property
    def _own(self) -> tuple[float, float]:
        self._comparable()
        assert self.own is not None  # noqa: S101 - it has been asked for by its name
        self.machine.progress(f"measuring {self.own.name}")
        return self._measure(self.own, self.reference), self._measure(self.own, self.candidate)

    def _measure(self, metric: OwnMetric, side: Side) -> float:
        session = self.machine.session(side.runnable, lasting=False)
        with user_code(f"the metric {metric.name!r} failed", UsageError):
            value = float(metric.function((session.run(feed), labels) for feed, labels in self._pairs()))
        if not np.isfinite(value):
            raise Untold(f"the metric is {value}")
        return value

    def _pairs(self) -> Iterator[Pair]:
        """All data, a few samples at a time."""
        data = self.evidence.data
        return ((f, None) for f in self.evidence.feeds) if data is None else data.batches(self._rows)

    @property
    def _rows(self) -> int:
        """As many as were compared at once, of which no value was too large."""
        data = self.evidence.data
        return min(BATCH, max(map(rows_of, self.evidence.feeds))) if data is not None and data.rows else BATCH

    def _comparable(self) -> None:
        if self.comparison.differences:
            raise Untold(self.comparison.differences[0])

    # -- what it costs -----------------------------------------------------------------------------------------------

    def ratio(self, name: str) -> float:
        """Of bytes, params or macs: the candidate's by the reference's.

        Raises:
            Untold: it is not known of both, or the reference has none.
        """
        if name == "bytes":
            before, after = self.reference.size, self.candidate.size
        else:
            counts = (self.reference.facts, self.candidate.facts)
            before, after = (getattr(f, name) for f in counts)
            if name == "macs" and (None in (before, after) or any(f.unknown_macs for f in counts)):
                raise Untold("the shapes of some products are not known")
        if not before:
            raise Untold("the reference has none")
        return float(after / before)

    @cached_property
    def timing(self) -> Timing:
        """Both in turn, on the first feed; raises as `scores`."""
        self._comparable()
        self.machine.progress("timing")
        models = (self.reference.runnable, self.candidate.runnable)
        return benchmark(models, self.evidence.feeds[0], self.machine).timing

    # -- what it needs -----------------------------------------------------------------------------------------------

    @property
    def operators(self) -> Mapping[str, int]:
        """How many nodes there are of each, as `inspect` names them."""
        return self.candidate.facts.operators

    @property
    def opset(self) -> int:
        """Of standard ONNX."""
        return self.candidate.opsets.get(_STANDARD, 0)

    @property
    def domains(self) -> Mapping[str, int]:
        """How many operators there are of each."""
        return Counter(name.rpartition(".")[0] or _STANDARD for name in self.operators)

    @property
    def oldest_runtime(self) -> str:
        """The oldest onnxruntime that loads it.

        Raises:
            Untold: it is not known of a domain or an operator.
        """
        opsets = {d: self.candidate.opsets.get(d, 1) for d in (_STANDARD, *self.domains)}
        return oldest(self.candidate.ir_version, opsets, self.operators)

    @cached_property
    def placed(self) -> tuple[str, Placement, str]:
        """The provider that it really runs on, where its nodes are, and why there."""
        session = self.machine.session(self.candidate.runnable)
        return environment(session).provider, session.placement, session.reason

    # -- where it is from --------------------------------------------------------------------------------------------

    def provenance(self, name: str) -> str:
        """What the candidate's metadata says of how it was made; nothing proves that it is true.

        Raises:
            Untold: it says nothing.
        """
        text: str = getattr(self.candidate.provenance, name)
        if not text:
            raise Untold("the candidate does not say how it was made")
        return text

    def recipe(self, path: str) -> str:
        """The recipe in a file, as models hold it; raises `InputError` where it is none."""
        return Recipe.read(Path(path)).text()
