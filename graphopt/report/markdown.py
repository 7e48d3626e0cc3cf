"""The report of `optimize` as Markdown, for a pull request."""

from __future__ import annotations

from collections.abc import Iterator

from graphopt.report import words
from graphopt.report.data import Report
from graphopt.report.text import cell, shown

__all__ = ["markdown"]


def markdown(report: Report) -> str:
    """A table of before and after, how well it does, and what else a reviewer must know."""
    found, only = report.verification, report.plan is not None and report.plan.only
    good = found is not None and bool(found) and found.evidence
    verdict = words.proof(found, cut=report.cut) if found else "unverified: nothing was run"
    after = "a plan" if only else cell(report.output.name)
    lines = [f"### graphopt optimize: {cell(report.source.name)} → {after}", ""]
    lines += [f"{'✅' if good else '❌'} {cell(verdict)}", "", "| | before | after | change |", "|---|--:|--:|--:|"]
    lines += [f"| {' | '.join(map(cell, row))} |" for row in _rows(report)]
    told = [*words.remarks(report), *([words.data(report.data)] if report.data else [])]
    lines += ["", *(f"- {cell(line)}" for line in told)]
    if report.asked:
        lines += ["", "To do it again:", "", f"    {shown(words.again(report))}"]  # code, wherever its one line ends
    return "\n".join(lines) + "\n"


def _rows(report: Report) -> Iterator[tuple[str, ...]]:
    for label, old, new in words.costs(report):
        yield label, f"{old:,}", f"{new:,}", words.change(old, new)
    if report.timing is not None:
        yield "ms per run", *words.times(report.timing)
    for name, values in report.verification.metrics.items() if report.verification else ():
        alone = words.metric(name, values) == words.value(name, values.after)
        yield name, "" if alone else words.value(name, values.before), words.value(name, values.after), ""
