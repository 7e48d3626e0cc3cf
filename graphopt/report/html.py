"""The report as one page for a browser: what was asked, what came out, how, and where."""

from __future__ import annotations

from graphopt.counted import counted
from graphopt.report import words
from graphopt.report.data import Report, VerificationReport
from graphopt.report.document import document
from graphopt.report.losses import losses
from graphopt.report.markup import Html, bar, bullets, code, element, fold, lines, table

__all__ = ["page"]


def page(report: Report, recipe: str = "") -> str:
    """All that is worth seeing of a report.

    Args:
        report: what `optimize` did.
        recipe: the text of the recipe that repeats it, if that is to be shown.
    """
    only = report.plan is not None and report.plan.only
    main = element(
        "main",
        element("h1", report.source.name, " → ", "a plan" if only else report.output.name),
        element("p", f"graphopt {report.version}", class_="soft"),
        *_told(report),
        *_came_out(report),
        *(_verification(report.verification) if report.verification else ()),
        *(_noise(report.verification) if report.verification else ()),
        *losses(report),
        *_rewritten(report),
        *(_repeat(recipe) if recipe and not only else ()),
    )
    return document("report", f"graphopt: {report.source.name}", main)


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
    lines = words.lost(report) + words.unused(report)
    lines += [f"unchanged: {report.unchanged}"] if report.unchanged else []
    lines += [f"left out: {x.rule} at {x.root} changed the result ({x.reason})" for x in report.left_out]
    lines += [f"note: {n}" for n in report.notes]
    if missing := max(report.source.unknown_macs, report.output.unknown_macs):
        lines.append(f"note: MACs leave out {counted(missing, 'node')}, whose shapes could not be told")
    verdict = words.proof(found, cut=report.cut) if found else "unverified: nothing was run"
    parts = [
        element("p", "asked for: ", "; ".join(asked) or "a model cut to a given plan"),
        element("p", verdict, class_="good" if found and found.evidence else "bad"),
    ]
    parts += [element("p", words.data(data))] if data else []
    return [*parts, bullets(lines)] if lines else parts


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


def _rewritten(report: Report) -> list[Html]:
    """What the rules did."""
    rows = [(rule, f"{count:,}", exactness) for rule, count, exactness in words.rules(report)]
    if not rows:
        return []
    return [element("h2", "What was rewritten"), fold(f"Rules ({len(rows):,})", table(("", ">times", ""), rows))]


def _repeat(recipe: str) -> list[Html]:
    return [element("h2", "To do it again"), fold("The recipe, for --recipe", code(recipe))]
