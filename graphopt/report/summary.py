"""The report of an outcome: what is counted, timed and scored once the result stands."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

from graphopt import pipeline
from graphopt.analysis.evidence import Evidence
from graphopt.analysis.facts import facts
from graphopt.analysis.metrics import BATCH, RIGHT, scores
from graphopt.graph.save import weight_bytes
from graphopt.lossy import Lossy
from graphopt.report.data import (
    DataReport,
    LeftOutReport,
    ModelReport,
    Report,
    TimingReport,
    VerificationReport,
)
from graphopt.report.half import HalfReport
from graphopt.report.integers import IntegersReport
from graphopt.report.packages import PackagesReport
from graphopt.report.plan import PlanReport
from graphopt.run import bench
from graphopt.run.environment import host

__all__ = ["summary"]

_TIMING_SECONDS = 1.0


def summary(
    outcome: pipeline.Outcome,
    evidence: Evidence | None,
    settings: pipeline.Settings,
    found: Lossy | None = None,
    asked: str = "",
) -> Report:
    """Count both models, and run them side by side where anything was run at all."""
    source, content = outcome.source, outcome.content
    feed = evidence.feeds[0] if evidence else None
    before, after = (facts(m, source.carried, feed) for m in (source.model, outcome.model))
    size = weight_bytes(outcome.model) if content is None else len(content)
    digest = source.sha256 if outcome.unchanged or content is None else hashlib.sha256(content).hexdigest()
    return Report(
        version=version("graphopt"),
        source=ModelReport.of(source.name, before, source.size, source.sha256),
        output=ModelReport.of("result", after, size, digest),
        unchanged=outcome.unchanged,
        provider=outcome.judge.reference.provider if outcome.judge else None,
        steps=outcome.attempt.steps,
        edits=tuple(str(e) for e in outcome.attempt.edits),
        left_out=tuple(LeftOutReport(x.edit.rule, x.edit.root, x.reason) for x in outcome.left_out),
        verification=_verification(outcome, evidence, settings, found),
        data=DataReport.of(evidence) if evidence else None,
        timing=_timing(outcome, evidence, settings),
        notes=(*source.notes, *outcome.notes),
        plan=PlanReport.of(found) if found else None,
        integers=IntegersReport.of(found) if found else None,
        packages=PackagesReport.of(found) if found else None,
        half=HalfReport.of(found) if found else None,
        asked=asked,
        host=host(),
    )


def _verification(
    outcome: pipeline.Outcome, evidence: Evidence | None, settings: pipeline.Settings, found: Lossy | None
) -> VerificationReport | None:
    if outcome.verification is None or outcome.judge is None:
        return None
    metrics = {}
    if found is not None:
        metrics = dict(found.metrics)
    elif evidence and evidence.data and outcome.content is not None:
        scored = scores(
            outcome.source.runnable,
            outcome.content,
            evidence.data.batches(BATCH),
            settings,
        )
        metrics = {name: scored[name] for name in RIGHT if name in scored}
    noise = found.noise if found else ()
    return VerificationReport.of(outcome.verification, outcome.judge.reference, metrics, noise)


def _timing(outcome: pipeline.Outcome, evidence: Evidence | None, settings: pipeline.Settings) -> TimingReport | None:
    """Both models in turn, if they differ and were run."""
    if outcome.content is None or evidence is None or outcome.unchanged is not None:
        return None
    models, feed = (outcome.source.runnable, outcome.content), evidence.feeds[0]
    first, second = (settings.timed(m) for m in models)
    return TimingReport.of(bench.bench(first, second, feed, seconds=_TIMING_SECONDS), feed)
