"""The verbs of graphopt in Python; the command line has the same ones."""

from __future__ import annotations

import dataclasses

from graphopt.catalogue import PASSES
from graphopt.report.data import PassReport
from graphopt.result import Result
from graphopt.run import probe
from graphopt.run.finding import Finding
from graphopt.verbs.bench import bench
from graphopt.verbs.check import check
from graphopt.verbs.diff import diff
from graphopt.verbs.given import Model
from graphopt.verbs.inspect import inspect
from graphopt.verbs.optimize import optimize

__all__ = ["Model", "Result", "bench", "check", "diff", "doctor", "inspect", "optimize", "passes"]


def passes() -> tuple[PassReport, ...]:
    """All passes, with their fields and rules, where they pay, and what was measured of them."""
    return tuple(
        PassReport(
            p.name,
            p.exactness.name,
            p.summary,
            {f.name: f.default for f in dataclasses.fields(p)},
            dict(p.rules),
            p.pays,
            p.evidence(),
        )
        for p in PASSES.values()
    )


def doctor() -> tuple[Finding, ...]:
    """What this installation and this machine can do, and what is wrong with them."""
    return probe.probe()
