"""The report as one page for a browser: what was asked, what came out, how, and where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from graphopt.counted import counted
from graphopt.report import words
from graphopt.report.data import Report, VerificationReport
from graphopt.report.document import document
from graphopt.report.losses import losses
from graphopt.report.markup import Html, bar, bullets, code, element, fold, lines, table
from graphopt.report.text import file_name

__all__ = ["page"]

_MANY: Final = 500
"""Edits that are listed."""


def page(report: Report, recipe: str = "") -> str:
    """All that is worth seeing of a report.

    Args:
        report: what `optimize` did.
        recipe: the text of the recipe that repeats it, if that is to be shown.
    """
    only = report.plan is not None and report.plan.only
    after = "a plan" if only else file_name(report.output.name)
    title = f"{file_name(report.source.name)} → {after}"
    main = element(
        "main",
        element("h1", title),
        element("p", f"graphopt {report.version}", class_="soft"),
        *_told(report),
        *_came_out(report),
        *losses(report),
        *(_verification(report.verification) if report.verification else ()),
        *(_noise(report.verification) if report.verification else ()),
        *_steps(report),
        *_where(report),
        *_again(report, "" if only else recipe),
    )
    return document("report", title, main)


def _told(report: Report) -> list[Html]:
    """What was asked, the verdict, and all that a reader must not miss."""
    plan, found, data = report.plan, report.verification, report.data
    asked = ["the same function, smaller and faster"]
    if plan:
        asked = [f"at most {share:.1%} of {name}" for name, share in plan.budget.items()]
        asked += [_allowed(name, most) for name, most in plan.max_drop.items()]
        asked += [plan.sparsify] if plan.sparsify else []
        asked += [report.packages.form] if report.packages else []
        asked += [f"{report.half.type}"] if report.half else []
        asked += [f"8-bit integers, weights of {report.integers.bits} bits"] if report.integers else []
    verdict = words.proof(found, cut=report.cut) if found else "unverified: nothing was run"
    parts = [
        element("p", verdict, class_="good" if found and found.evidence else "bad"),
        _figures(report),
        element("p", "asked for: ", "; ".join(asked) or "a model cut to a given plan"),
    ]
    parts += [element("p", words.data(data))] if data else []
    return [*parts, bullets(told)] if (told := words.remarks(report)) else parts


def _figures(report: Report) -> Html:
    """What most people look for, at a glance."""
    told = [(label, f"{new:,}", words.change(old, new) or "as before") for label, old, new in words.costs(report)]
    if (timing := report.timing) is not None:
        change = f"{timing.ratio - 1:+.1%}" if timing.faster or timing.slower else "no difference beyond doubt"
        told.append(("ms per run", f"{timing.candidate_ms:.3f}", change))
    metrics = report.verification.metrics if report.verification else {}
    if (name := words.first(metrics)) is not None:
        told.append(
            (name, words.value(name, metrics[name].after), f"before: {words.value(name, metrics[name].before)}")
        )
    figures = (
        element("div", element("dt", label), element("dd", value), element("dd", change, class_="soft"))
        for label, value, change in told
    )
    return element("dl", *figures, class_="figures")


def _allowed(name: str, most: float) -> str:
    """What may be lost, as the option has it."""
    if name == "sqnr":
        return f"sqnr of at least {most:.4g} dB"
    return f"{name} may fall by {f'{most:.2%}' if name in words.SHARES else f'{most:.4g}'}"


def _came_out(report: Report) -> list[Html]:
    """Sizes and times, before and after."""
    rows: list[tuple[object, ...]] = [
        (label, f"{old:,}", f"{new:,}", words.change(old, new), bar(old, new))
        for label, old, new in words.costs(report)
    ]
    told = []
    if (timing := report.timing) is not None:
        rows.append(("ms per run", *words.times(timing), bar(timing.original_ms, timing.candidate_ms)))
        said = f"times are medians of {counted(timing.pairs, 'run')} of each, in turn, on {timing.provider}; "
        told = [
            element("p", f"{said}their ratio is between {timing.low:.3f} and {timing.high:.3f} (95 %)", class_="soft")
        ]
    sums = bullets(f"{m.name}: sha256 {m.sha256}" for m in (report.source, report.output))
    columns = ("", ">before", ">after", ">change", "")
    return [element("h2", "What came out"), table(columns, rows), *told, fold("The files", sums)]


def _verification(found: VerificationReport) -> list[Html]:
    """How well the result does, and how far each output is off."""
    metrics = [(name, words.metric(name, values)) for name, values in found.metrics.items()]
    outputs = [
        (o.name, f"{o.max_abs:.3g}", f"{o.tolerance:.3g}", f"{o.share:.1%}", words.doubt(o)) for o in found.outputs
    ]
    said = [*found.differences, *(f"the original does not run {n}" for n in found.notes)]
    columns = ("output", ">max |error|", ">allowed", ">at worst, of what is allowed", "")
    return [
        element("h2", "Verification"),
        *([table(("metric", ">before → after"), metrics)] if metrics else []),
        *([bullets(said)] if said else []),
        fold(f"Outputs ({len(outputs):,})", table(columns, outputs), opened=not found),
    ]


def _noise(found: VerificationReport) -> list[Html]:
    """How well both models do with noise on what they are given."""
    if (name := words.first(found.noise[0].metrics) if found.noise else None) is None:
        return []
    series = {
        side: [(n.level, n.metrics[name][i]) for n in found.noise if name in n.metrics]
        for i, side in enumerate(("original", "result"))
    }
    caption = f"{name} (upward) by the noise on the inputs; dashed the original, solid the result"
    names = list(dict.fromkeys(name for n in found.noise for name in n.metrics))
    rows = [
        (f"{n.level:g}", *(words.both(m, n.metrics[m]) if m in n.metrics else "" for m in names)) for n in found.noise
    ]
    legend = (
        f"Gaussian noise on the float inputs of {counted(found.noise[0].samples, 'sample')} among those that judge, by "
        "its share of each input's standard deviation; original → result, both against the original without noise"
    )
    return [
        element("h2", "With noise"),
        element(
            "figure",
            lines(series, lambda x: f"{x:g}", lambda y: words.value(name, y)),
            element("figcaption", caption),
        ),
        fold(f"In numbers ({len(rows):,})", table(("noise", *(f">{m}" for m in names)), rows)),
        element("p", legend, class_="soft"),
    ]


def _steps(report: Report) -> list[Html]:
    """What each pass did, how exactly, and how long it took."""
    done = sorted((s for s in report.steps if s.edits), key=lambda s: -sum(s.edits.values()))
    idle = [s for s in report.steps if not s.edits]
    rows = [
        (s.name, s.exactness.lower(), f"{sum(s.edits.values()):,}", f"{s.seconds:.3f}", _rules(s.edits)) for s in done
    ]
    parts = [table(("step", "exactness", ">edits", ">seconds", "rules"), rows)] if rows else []
    if report.unchanged and rows:
        parts.append(element("p", "none of it was kept: the model is emitted as it was given", class_="soft"))
    if idle:
        said = f"nothing to do for {counted(len(idle), 'other')}, in {sum(s.seconds for s in idle):.3f} s: "
        parts.append(element("p", said, ", ".join(s.name for s in idle), class_="soft"))
    if report.edits:
        more = len(report.edits) - _MANY
        listed = [*report.edits[:_MANY], *([f"… and {more:,} more, which JSON has"] if more > 0 else [])]
        parts.append(fold(f"Each edit, and the node it began at ({len(report.edits):,})", bullets(listed)))
    return [element("h2", "Steps"), *parts] if parts else []


def _rules(edits: Mapping[str, int]) -> str:
    return ", ".join(f"{rule} × {count:,}" for rule, count in sorted(edits.items(), key=lambda e: -e[1]))


def _where(report: Report) -> list[Html]:
    """What it was made and run on."""
    rows = []
    if report.host:
        host = report.host
        rows = [("processor", host.processor or "unknown"), ("cores", host.cores), ("system", host.system)]
        rows += [("Python", host.python), ("graphopt", report.version)]
    if (found := report.verification) is not None:
        rows += [("models ran on", found.environment), ("provider", report.provider)]
    return [element("h2", "Where it was made"), table(("", ""), rows)] if rows else []


def _again(report: Report, recipe: str) -> list[Html]:
    """The command that asks for the same, and the recipe that also holds what was decided."""
    parts = [code(words.again(report))] if report.asked else []
    if recipe:
        parts.append(fold("The recipe, which holds all that was decided; for --recipe", code(recipe)))
    return [element("h2", "To do it again"), *parts] if parts else []
