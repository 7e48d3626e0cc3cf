"""What the views of a report for people say in the same words."""

from __future__ import annotations

from collections import Counter

from graphopt.report.data import DataReport, Metric, Report, TimingReport, VerificationReport
from graphopt.report.plan import PlanReport
from graphopt.run.compare import OutputError

__all__ = ["SHARES", "change", "costs", "data", "doubt", "lost", "metric", "proof", "rules", "times", "zeros"]

SHARES = ("accuracy", "f1", "agreement")
"""Metrics that are parts of one."""
_MUCH = 0.01
"""Of a metric, what is worth a warning."""
_WIDE = 0.01
"""Share of an output's largest value above which a tolerance hides more than rounding."""


def costs(report: Report) -> list[tuple[str, int, int]]:
    """What is counted of both models, where it is known of both."""
    before, after = report.source, report.output
    counted = (
        ("nodes", before.nodes, after.nodes),
        ("parameters", before.params, after.params),
        ("MACs", before.macs, after.macs),
        ("bytes", before.bytes, after.bytes),
    )
    return [(label, old, new) for label, old, new in counted if old is not None and new is not None]


def change(before: float, after: float) -> str:
    """The ratio, as a change in per cent."""
    return "" if not before or before == after else f"{(after - before) / before:+.1%}"


def times(timing: TimingReport) -> tuple[str, str, str]:
    """Both medians, and their ratio where the difference is beyond doubt."""
    ratio = f"{timing.ratio - 1:+.1%}" if timing.faster or timing.slower else "≈"
    rows = "" if timing.rows is None else f" ({timing.rows:,} rows)"
    return f"{timing.original_ms:.3f}", f"{timing.candidate_ms:.3f}", ratio + rows


def rules(report: Report) -> list[tuple[str, int, str]]:
    """What was rewritten, how often and how exactly; the most frequent first."""
    made = Counter({(r, s.exactness): n for s in report.steps for r, n in s.edits.items()})
    return [(rule, count, exactness.lower()) for (rule, exactness), count in made.most_common() if not report.unchanged]


def lost(report: Report) -> list[str]:
    """What a compression costs, and whether that is much."""
    if report.plan is None or report.verification is None:
        return []
    told = {name: v.before - v.after for name, v in report.verification.metrics.items() if name in SHARES}
    lines = [f"{name} falls by {fall:.2%}" for name, fall in told.items()]
    if any(fall > _MUCH for fall in told.values()):
        lines.append("warning: that is more than one point; give --max-drop to say how much may be lost")
    return lines


def zeros(plan: PlanReport) -> str:
    """How many weights became zero, and what for."""
    count, every = plan.zeros
    if not count:
        return ""
    mine = sum(s.zeros > 0 for s in plan.sparse)
    dense = f", {len(plan.sparse) - mine:,} other products stay dense" if mine < len(plan.sparse) else ""
    where = f"in {mine:,} products{dense}; the file packs better, onnxruntime takes as long"
    return f"zeros: {count:,} of {every:,} weights ({count / every:.1%}), {where}"


def metric(name: str, values: Metric) -> str:
    """Before and after; what compares the two has no before."""
    match name:
        case "agreement":
            return f"{values.after:.2%}"
        case "sqnr":
            return f"{values.after:.1f} dB"
        case "cosine":
            return f"{values.after:.4f}"
        case _:
            return f"{values.before:.2%} → {values.after:.2%}"


def proof(found: VerificationReport) -> str:
    """What "verified" means here."""
    where = f"{found.feeds} feeds on {found.provider}"
    if not found:
        return f"NOT EQUAL: {where}"
    if not found.evidence:
        return f"no evidence: {where} ran, but no output decides anything; give other data"
    worst = max((o.share for o in found.outputs), default=0.0)
    return f"verified: {where}, largest error {worst:.0%} of the tolerance"


def doubt(output: OutputError) -> str:
    """Why that an output passed says little; the verdict on one that failed is not in doubt."""
    if not output or output.note:
        return output.note
    scale = output.max_abs / output.max_rel if output.max_rel else 0.0
    wide = scale and output.tolerance / scale > _WIDE
    return f"its tolerance is {output.tolerance / scale:.1%} of its largest value" if wide else ""


def data(found: DataReport) -> str:
    """Where the feeds come from; whether values are real, and all of them were used."""
    part = "" if found.compared == found.samples else f", compared on {found.compared:,} of {found.samples:,} samples"
    return f"data: {found.description}{part}" + (", synthetic" if found.synthetic else "")
