"""Reports as text for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from graphopt.counted import counted
from graphopt.report import closer, words
from graphopt.report.data import (
    BenchReport,
    CheckReport,
    Inspection,
    PassReport,
    Report,
    VerificationReport,
)
from graphopt.report.lines import grid as _table
from graphopt.report.lines import plain as _line
from graphopt.report.plan import PlanReport
from graphopt.report.text import shown
from graphopt.run.finding import Finding

__all__ = ["bench", "check", "doctor", "inspect", "optimize", "passes"]


_LARGEST = 5
"""Weights that are listed at most."""
_FEW = 3
"""Nodes that are named of those that stay for one reason; JSON has them all."""
_USUAL = frozenset({"interface", "equal"})
"""Lines that the outputs say all about."""
_SMALL = 0.01
"""Share of the file below which a weight is not listed."""


def optimize(report: Report, *, edits: bool = False) -> RenderableType:
    """Before and after, what was rewritten (each edit, if `edits`), and how it was verified."""
    table = _table("", ">before", ">after", ">")
    for label, old, new in words.costs(report):
        table.add_row(label, f"{old:,}", f"{new:,}", words.change(old, new))
    if report.timing is not None:
        table.add_row("ms per run", *words.times(report.timing))
    parts: list[RenderableType] = [
        *_lost(report),
        table,
        *_widths(report.plan),
        *_zeros(report.plan),
        *([Text(), *map(_line, words.integers(report.integers))] if report.integers else ()),
        *([Text(), *map(_line, report.packages.lines)] if report.packages else ()),
        *([Text(), *map(_line, words.half(report.half))] if report.half else ()),
        *_rules(report),
        Text(),
    ]
    if edits:
        parts += [_line(f"edit: {e}") for e in report.edits]
    parts += [_line(f"left out: {x.rule} at {x.root} changed the result ({x.reason})") for x in report.left_out]
    parts += [_line(f"note: {n}") for n in report.notes]
    if report.unchanged:
        parts.append(_line(f"unchanged: {report.unchanged}"))
    if report.verification is None:
        parts.append(_line("unverified: nothing was run"))
    else:
        outputs = report.verification.outputs
        parts += [_line(f"output {o.name!r}: {doubt}") for o in outputs if (doubt := words.doubt(o))]
        parts += _proof(report, report.verification)
    if report.data is not None:
        parts.append(_line(words.data(report.data)))
    only = report.plan is not None and report.plan.only
    parts.append(_line("a plan alone: nothing was cut or written" if only else f"written: {report.output.name}"))
    return Group(*parts)


def _rules(report: Report) -> list[RenderableType]:
    """What was rewritten."""
    rules = _table("rewritten", ">times", "exactness")
    for rule, count, exactness in words.rules(report):
        rules.add_row(rule, f"{count:,}", exactness)
    return [Text(), rules] if rules.row_count else []


def _lost(report: Report) -> list[RenderableType]:
    """What a compression costs, before anything else."""
    lines = words.lost(report)
    return [*map(_line, lines), Text()] if lines else []


def _widths(plan: PlanReport | None) -> list[RenderableType]:
    """What was cut from each group."""
    cut = [g for g in plan.groups if g.after < g.before] if plan else []
    if plan is None or not (cut or plan.forms):
        return []
    parts = list[RenderableType]()
    table = _table("to be cut" if plan.only else "cut", "of", ">before", ">after", ">MACs alone")
    for group in cut:
        table.add_row(shown(group.key), group.kind, str(group.before), str(group.after), f"-{group.macs:.1%}")
    parts += [Text(), table] if cut else []
    parts += [Text(), _line(words.forms(plan))] if plan.forms else []
    return parts if plan.sparse else [*parts, _line(words.learned(plan))]


def _zeros(plan: PlanReport | None) -> list[RenderableType]:
    """How many weights became zero."""
    return [Text(), _line(words.zeros(plan)), _line(words.learned(plan))] if plan and plan.sparse else []


def check(report: CheckReport) -> RenderableType:
    """The verdict on each line, and how far each output is off."""
    table = _table("output", ">max |error|", *([">allowed"] if report.equal else []), ">SQNR dB", "")
    for o in report.verification.outputs:
        sqnr = "∞" if o.sqnr_db is None else f"{o.sqnr_db:.1f}"
        verdict = (words.doubt(o) or "ok") if o else f"FAILED ({o.note})" if report.equal else ""
        allowed = [f"{o.tolerance:.3g}"] if report.equal else []
        table.add_row(shown(o.name), f"{o.max_abs:.3g}", *allowed, sqnr, shown(verdict))
    lines = [_line(f"difference: {d}") for d in report.verification.differences]
    lines += [_line(f"note: {n}") for n in report.notes]
    lines += map(_line, closer.perturbed(report.perturbed) if report.perturbed is not None else ())
    lines += map(_line, closer.blamed(report.blame) if report.blame else ())
    return Group(table, *_lines_of(report), *lines, *_verdict(report), _line(words.data(report.data)))


def _lines_of(report: CheckReport) -> list[RenderableType]:
    """One row for each line, where there are others than those that everybody gets."""
    if all(row.key in _USUAL for row in report.rows):
        return []
    table = _table("", "line", "")
    for row in report.rows:
        table.add_row("ok" if row else "FAILED", shown(row.key), shown(row.text))
    return [table, Text()]


def _verdict(report: CheckReport) -> list[Text]:
    """What was found, in a line or two."""
    found = _proof(report, report.verification) if report.equal else [*map(_line, words.unused(report))]
    if report.equal and all(row.key in _USUAL for row in report.rows):
        return found
    failed = [row.key for row in report.rows if not row]
    told = f"NOT PASSED: {', '.join(failed)}" if failed else f"passed: {counted(len(report.rows), 'line')}"
    return [*found, _line(told)]


def bench(report: BenchReport) -> RenderableType:
    """The median time; of a pair both, and their ratio; for each number of rows."""
    lines = [line for run in report.sweep or (report,) for line in words.run(run, pair=report.other is not None)]
    return Group(*map(_line, lines))


def inspect(reports: Sequence[Inspection], *, groups: bool = False, why: str | None = None) -> RenderableType:
    """What models are made of, one below the other; or only their groups, or why the rule `why` did nothing in them."""
    if groups or why is not None:
        found = [part for report in reports for part in _groups(report)] if groups else []
        return Group(*found, *(line for report in reports for line in (_why(report, why) if why else ())))
    parts: list[RenderableType] = []
    for report in reports:
        counts = report.facts
        macs = "unknown" if counts.macs is None else f"{counts.macs:,}"
        opsets = ", ".join(f"{d} {v}" for d, v in report.opsets.items())
        parts += [
            _line(report.name),
            _line(
                f"  {counted(counts.nodes, 'node')}, {counted(counts.params, 'parameter')}, {macs} MACs, "
                f"{counted(report.bytes, 'byte')}"
            ),
            _line(f"  opsets: {opsets}; sha256: {report.sha256}"),
            *(_line(f"  input   {v}") for v in report.inputs),
            *(_line(f"  output  {v}") for v in report.outputs),
            *(_line(f"  note: {n}") for n in report.notes),
        ]
        operators = _table("operator", ">nodes")
        for name, count in sorted(counts.operators.items(), key=lambda item: (-item[1], item[0])):
            operators.add_row(shown(name), f"{count:,}")
        parts += [operators, *_weights(report), Text()]
    return Group(*parts)


def _weights(report: Inspection) -> list[RenderableType]:
    """The largest weights; small ones are of no interest."""
    table = _table("largest weights", "of", ">shape", ">bytes")
    for weight in report.weights[:_LARGEST]:
        if weight.bytes >= _SMALL * report.bytes:
            shape = " × ".join(map(str, weight.shape))
            table.add_row(shown(weight.name), shown(weight.owner or ""), shape, f"{weight.bytes:,}")
    return [Text(), table] if table.row_count else []


def _groups(report: Inspection) -> list[RenderableType]:
    """What can be cut, and why the rest cannot."""
    table = _table("group", ">units", "of", ">written by", ">read by", ">MACs")
    for group in report.groups:
        writers, readers = (str(len(nodes)) for nodes in (group.writers, group.readers))
        table.add_row(shown(group.key), str(group.units), group.kind, writers, readers, f"{group.macs:,}")
    parts: list[RenderableType] = [_line(report.name), *([table] if report.groups else [])]
    if not report.groups:
        parts.append(_line("  no channels can be cut"))
    return [*parts, *_held(report.held), Text()]


def _held(held: Mapping[str, str]) -> list[RenderableType]:
    """Why the rest stays: each reason once, with a few of its nodes."""
    nodes: dict[str, list[str]] = {}
    for node, reason in held.items():
        nodes.setdefault(reason, []).append(node)
    table = _table("stays, since", ">nodes", "they are")
    for reason, keys in sorted(nodes.items(), key=lambda item: -len(item[1])):
        some = ", ".join(keys[:_FEW]) + (", …" if len(keys) > _FEW else "")
        table.add_row(shown(reason), f"{len(keys):,}", shown(some))
    return [Text(), table] if held else []


def _why(report: Inspection, rule: str) -> list[Text]:
    """One line for each place where a rule looked and did nothing."""
    if not report.misses:
        return [_line(f"{report.name}: there is no place where {rule} looked and did nothing")]
    return [_line(f"{report.name}: {m.rule} did nothing at {m.root}: {m.reason}") for m in report.misses]


def passes(reports: Sequence[PassReport]) -> RenderableType:
    """Passes with their fields, where they pay, and below them what was measured and their rules."""
    table = _table("pass", "exactness", "pays", "what it does")
    for report in reports:
        fields = ",\n  ".join(f"{k}={json.dumps(v)}" for k, v in report.fields.items())
        table.add_row(
            report.name + (f"{{{fields}}}" if fields else ""), report.exactness.lower(), report.pays, report.summary
        )
        if report.evidence:
            table.add_row("  measured", "", "", report.evidence)
        for name, summary in report.rules.items():
            table.add_row(f"  {name}", "", "", summary)
    return table


def doctor(findings: Sequence[Finding]) -> RenderableType:
    """Findings in their order, and what to do about them."""
    table = _table("", "finding", "what to do")
    for finding in findings:
        table.add_row(finding.level, shown(finding.text), shown(finding.advice))
    return table


def _proof(report: Report | CheckReport, found: VerificationReport) -> list[Text]:
    """What weakens the proof, what "verified" means here, in one line, and how well a result does that was cut."""
    notes = [f"note: the original does not run {n}" for n in found.notes] + words.unused(report)
    metrics = [f"{name} {words.metric(name, values)}" for name, values in found.metrics.items()]
    told = ["; ".join((words.proof(found), *metrics))]
    if isinstance(report, Report) and report.cut:
        judged = "; ".join(metrics) or "there are none, as no output is of floats"
        told = [words.proof(found, cut=True), f"judged by the metrics alone: {judged}", *words.noise(found)]
    return [_line(text) for text in (*notes, *told)]
