"""Reports as text for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from graphopt.report.data import CheckReport, Inspection, PassReport, Report, VerificationReport
from graphopt.report.text import shown
from graphopt.run.bench import Timing
from graphopt.run.probe import Finding

__all__ = ["bench", "check", "doctor", "inspect", "optimize", "passes"]


def optimize(report: Report, written: str) -> RenderableType:
    """Before and after, what was rewritten, and how it was verified."""
    before, after = report.source, report.output
    table = _table("", ">before", ">after", ">")
    for label, old, new in (
        ("nodes", before.nodes, after.nodes),
        ("parameters", before.params, after.params),
        ("MACs", before.macs, after.macs),
        ("bytes", before.bytes, after.bytes),
    ):
        if old is not None and new is not None:
            table.add_row(label, f"{old:,}", f"{new:,}", _change(old, new))
    if before.milliseconds is not None and after.milliseconds is not None:
        ratio = _change(before.milliseconds, after.milliseconds)
        table.add_row("ms per run", f"{before.milliseconds:.3f}", f"{after.milliseconds:.3f}", ratio)
    parts: list[RenderableType] = [table]
    made = Counter({(r, s.exactness): n for s in report.steps for r, n in s.edits.items()})
    if made and not report.unchanged:
        edits = _table("rewritten", ">times", "exactness")
        for (rule, exactness), count in made.most_common():
            edits.add_row(rule, f"{count:,}", exactness.lower())
        parts += [Text(), edits]
    parts.append(Text())
    parts += [_line(f"left out: {x.rule} at {x.root} changed the result ({x.reason})") for x in report.left_out]
    parts += [_line(f"note: {n}") for n in report.notes]
    if report.unchanged:
        parts.append(_line(f"unchanged: {report.unchanged}"))
    parts.append(_line("unverified: nothing was run") if report.verification is None else _proof(report.verification))
    if report.data is not None:
        parts.append(_line(f"data: {report.data.description}" + (", synthetic" if report.data.synthetic else "")))
    parts.append(_line(f"written: {written}"))
    return Group(*parts)


def check(report: CheckReport) -> RenderableType:
    """The verdict, and how far each output is off."""
    table = _table("output", ">max |error|", ">allowed", ">SQNR dB", "")
    for o in report.verification.outputs:
        sqnr = "∞" if o.sqnr_db is None else f"{o.sqnr_db:.1f}"
        verdict = "ok" if o.passed else "FAILED"
        table.add_row(
            shown(o.name), f"{o.max_abs:.3g}", f"{o.tolerance:.3g}", sqnr, verdict + (f" ({o.note})" if o.note else "")
        )
    lines = [_line(f"difference: {d}") for d in report.verification.differences]
    lines += [_line(f"note: {n}") for n in report.notes]
    data = _line(f"data: {report.data.description}" + (", synthetic" if report.data.synthetic else ""))
    return Group(table, *lines, _proof(report.verification), data)


def bench(timing: Timing, *, pair: bool) -> RenderableType:
    """The median time; of a pair both, and their ratio."""
    where = f"median of {timing.pairs} runs on {timing.provider}"
    if not pair:
        return _line(f"{timing.original_ms:.3f} ms per run, {where}")
    verdict = "faster" if timing.faster else "slower" if timing.slower else "no difference beyond doubt"
    return _line(
        f"{timing.original_ms:.3f} ms → {timing.candidate_ms:.3f} ms per run, {where}; "
        f"ratio {timing.ratio:.3f}, 95 % between {timing.low:.3f} and {timing.high:.3f}: {verdict}"
    )


def inspect(reports: Sequence[Inspection]) -> RenderableType:
    """What models are made of, one below the other."""
    parts: list[RenderableType] = []
    for report in reports:
        counts = report.facts
        macs = "unknown" if counts.macs is None else f"{counts.macs:,}"
        opsets = ", ".join(f"{d} {v}" for d, v in report.opsets.items())
        parts += [
            _line(report.name),
            _line(f"  {counts.nodes:,} nodes, {counts.params:,} parameters, {macs} MACs, {report.bytes:,} bytes"),
            _line(f"  opsets: {opsets}; sha256: {report.sha256}"),
            *(_line(f"  input   {v}") for v in report.inputs),
            *(_line(f"  output  {v}") for v in report.outputs),
            *(_line(f"  note: {n}") for n in report.notes),
            *(_line(f"  {m.rule} did not fire at {m.root}: {m.reason}") for m in report.misses),
        ]
        operators = _table("operator", ">nodes")
        for name, count in sorted(counts.operators.items(), key=lambda item: (-item[1], item[0])):
            operators.add_row(shown(name), f"{count:,}")
        parts += [operators, Text()]
    return Group(*parts)


def passes(reports: Sequence[PassReport]) -> RenderableType:
    """Passes with their fields, and their rules below them."""
    table = _table("pass", "exactness", "what it does")
    for report in reports:
        fields = ", ".join(f"{k}={v}" for k, v in report.fields.items())
        table.add_row(report.name + (f"{{{fields}}}" if fields else ""), report.exactness.lower(), report.summary)
        for name, summary in report.rules.items():
            table.add_row(f"  {name}", "", summary)
    return table


def doctor(findings: Sequence[Finding]) -> RenderableType:
    """Findings, worst last."""
    table = _table("", "finding", "what to do")
    for finding in findings:
        table.add_row(finding.level, shown(finding.text), shown(finding.advice))
    return table


def _proof(found: VerificationReport) -> Text:
    """What "verified" means here, in one line."""
    metrics = "".join(f"; {name} {before:.2%} → {after:.2%}" for name, (before, after) in found.metrics.items())
    worst = max((o.max_abs / o.tolerance for o in found.outputs if o.tolerance > 0), default=0.0)
    share = f"largest error {worst:.0%} of the tolerance"
    verdict = "verified" if found.passed else "NOT EQUAL"
    return _line(f"{verdict}: {found.feeds} feeds on {found.provider}, {share}{metrics}")


def _change(before: float, after: float) -> str:
    """The ratio, as a change in per cent."""
    return "" if not before or before == after else f"{(after - before) / before:+.1%}"


def _table(*columns: str) -> Table:
    """A plain table; a leading > aligns a column to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    return table


def _line(text: str) -> Text:
    return Text(shown(text))
