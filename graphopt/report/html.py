"""The report as one page for a browser: no script, nothing from a network, pictures drawn in place.

What is in it came from a model, so a policy in the page itself forbids a browser all but the styles below.
"""

from __future__ import annotations

from math import isfinite
from typing import Final

from graphopt.compress.refit import Refit
from graphopt.compress.sparse import Sparse
from graphopt.counted import counted
from graphopt.report import words
from graphopt.report.data import Report, VerificationReport
from graphopt.report.half import HalfReport
from graphopt.report.integers import IntegersReport
from graphopt.report.markup import (
    Html,
    bar,
    bullets,
    code,
    curve,
    element,
    fold,
    histogram,
    lines,
    path,
    scatter,
    table,
)
from graphopt.report.packages import PackagesReport
from graphopt.report.plan import FormReport, PlanReport, WidthReport

__all__ = ["page"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5b6675; --line: #d5dae1; --paper: #fff; --mark: #0b62c4;
  --good: #17723a; --bad: #b3261e }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa6b5; --line: #39424f;
  --paper: #14181e; --mark: #6db3ff; --good: #6fcf8d; --bad: #ff8a80 } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; overflow-wrap: anywhere }
h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
p, ul { margin: .4rem 0 } ul { padding-left: 1.2rem }
.soft, figcaption { color: var(--soft) } .good, .bad { font-weight: 600; color: var(--good) } .bad { color: var(--bad) }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal }
th, td { text-align: left; padding: .25rem 1.2rem .25rem 0; border-bottom: 1px solid var(--line) }
th { color: var(--soft); font-weight: 500; vertical-align: bottom } .number { text-align: right }
td.number { white-space: nowrap }
td:first-child { overflow-wrap: break-word } .path { display: inline-block; min-width: 9rem; overflow-wrap: anywhere }
details { margin: .6rem 0 } summary { cursor: pointer; color: var(--mark) }
:focus-visible { outline: 2px solid var(--mark); outline-offset: 2px }
pre { padding: .8rem; border: 1px solid var(--line); white-space: pre-wrap }
svg { display: block } figure { margin: .8rem 0 } figure svg { max-width: 100%; height: auto }
text { fill: var(--soft); font-size: 11px }
rect, .kept, .result.dot { fill: var(--mark) } .chosen { fill: var(--bad) } .original.dot { fill: var(--soft) }
.axis { stroke: var(--soft) } .seen { fill: var(--soft) } rect.range { fill: none; stroke: var(--mark) }
.curve, .result { stroke: var(--mark); stroke-width: 1.5 }
.original { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 4 3 }
.open { fill: var(--paper); stroke: var(--mark) } .open, .original.dot { stroke-dasharray: none }
@media screen and (max-width: 40rem) { .bar { display: none } th, td { padding-right: .7rem }
  .path { max-width: 9rem } }
@media print { body { font-size: 11px } main { max-width: none; padding: 0 } tr, figure { break-inside: avoid }
  svg { print-color-adjust: exact } details::details-content { content-visibility: visible; display: block } }
"""


def page(report: Report, recipe: str = "") -> str:
    """All that is worth seeing of a report.

    Args:
        report: what `optimize` did.
        recipe: the text of the recipe that repeats it, if that is to be shown.
    """
    plan, only = report.plan, report.plan is not None and report.plan.only
    main = element(
        "main",
        element("h1", report.source.name, " → ", "a plan" if only else report.output.name),
        element("p", f"graphopt {report.version}", class_="soft"),
        *_told(report),
        *_came_out(report),
        *(_verification(report.verification) if report.verification else ()),
        *(_noise(report.verification) if report.verification else ()),
        *(_plan(plan) if plan and (plan.groups or plan.forms) else ()),
        *(_sparse(plan) if plan and plan.sparse else ()),
        *(_integers(report.integers) if report.integers else ()),
        *(_packages(report.packages) if report.packages else ()),
        *(_half(report.half) if report.half else ()),
        *_rewritten(report),
        *(_repeat(recipe) if recipe and not only else ()),
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/>
{element("title", f"graphopt: {report.source.name}")}
<style>{_STYLE}</style>
</head>
<body>
{main}
</body>
</html>
"""


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


def _plan(plan: PlanReport) -> list[Html]:
    """What was cut from which group, and what led to that."""
    cut = [_group(g) for g in plan.groups if g.after < g.before]
    kept = [_group(g) for g in plan.groups if g.after >= g.before]
    columns = ("group", ">before", ">after", "", ">MACs alone", ">error", "error by width", "of")
    judged = "" if plan.only else f", judged by {counted(plan.judged, 'other')}"
    legend = (
        f"learned from {counted(plan.calibrated, 'sample')}{judged}; the MACs are the part of the model's that goes if "
        "this group alone is cut, the error is what that costs the outputs before anything is fitted; each curve has a "
        "scale of its own, and a dot at the width"
    )
    fitted = (">rows × inputs", ">damping", ">error, only cut", ">error, fitted")
    parts = [
        element("h2", "What would be cut" if plan.only else "What was cut"),
        table(columns, cut) if cut else element("p", "nothing"),
        element("p", legend, class_="soft"),
    ]
    if kept:
        parts.append(fold(f"Groups that stay ({len(kept):,})", table(columns, kept)))
    if plan.forms:
        lost = ("product", "written as", ">MACs", ">parameters", ">bytes", ">error")
        parts.append(element("h3", "Products that are written in another way"))
        parts.append(fold(f"Products ({len(plan.forms):,})", table(lost, map(_form, plan.forms))))
    if plan.refits:
        rows = table(("product", "solved", *fitted), map(_refit, plan.refits))
        parts.append(fold(f"Products fitted anew ({len(plan.refits):,})", rows))
    return [*parts, *(_tried(plan) if plan.tried else ())]


def _group(group: WidthReport) -> tuple[object, ...]:
    saved = f"-{group.macs:.1%}" if group.after < group.before else ""
    widths = (f"{group.before:,}", f"{group.after:,}", bar(group.before, group.after))
    error = f"{group.curve[group.after]:.2g}" if group.after in group.curve else ""
    return (path(group.key), *widths, saved, error, curve(group.curve, group.after), group.kind)


def _form(found: FormReport) -> tuple[object, ...]:
    left = (f"{found.left[n]:.1%}" if n in found.left else "" for n in ("macs", "params", "bytes"))
    return (path(found.key), found.form, *left, "" if found.loss is None else f"{found.loss:.2g}")


def _refit(refit: Refit) -> tuple[str, ...]:
    damping = _damping(refit.damping)
    size = f"{refit.rows:,} × {refit.columns:,}"
    return (path(refit.key), refit.form, size, damping, f"{refit.before:.3g}", f"{refit.after:.3g}")


def _sparse(plan: PlanReport) -> list[Html]:
    """How many weights became zero, and where."""
    columns = ("product", "chosen", ">weights", ">zeros", "", ">damping", ">error, only zeros", ">error, fitted")
    legend = f"learned from {counted(plan.calibrated, 'sample')}, judged by {counted(plan.judged, 'other')}"
    return [
        element("h2", "Weights that became zero"),
        element("p", words.zeros(plan)),
        element("p", legend, class_="soft"),
        fold(f"Products ({len(plan.sparse):,})", table(columns, map(_zeros, plan.sparse))),
    ]


def _zeros(found: Sparse) -> tuple[object, ...]:
    share = f"{found.zeros / max(found.weights, 1):.1%}"
    counts = (f"{found.weights:,}", share, bar(found.weights, found.weights - found.zeros))
    return (found.key, found.form, *counts, _damping(found.damping), f"{found.before:.3g}", f"{found.after:.3g}")


_EVENED: Final = ("read by", ">power", ">largest factor over smallest", ">dB there")


def _integers(found: IntegersReport) -> list[Html]:
    """What was quantized, over which ranges, and what each product costs."""
    ranges = [
        (
            path(t.name),
            t.method,
            f"{t.low:.4g}",
            f"{t.high:.4g}",
            "" if t.clipped is None else f"{t.clipped:.3%}",
            "" if t.sqnr is None else f"{t.sqnr:.1f}" if isfinite(t.sqnr) else "exact",
            histogram(t.bars, (t.least, t.most), (t.low, t.high)),
        )
        for t in found.tensors
    ]
    products = [
        (
            path(p.key),
            p.way or "floats",
            f"{p.before:.3g}" if p.way else "",
            f"{p.after:.3g}" if p.way else "",
            "" if p.gain is None else f"{p.gain:+.2f}",
            f"{p.cause} ({p.done})" if p.cause else p.done,
            "" if p.integer is None else "integers" if p.integer else f"floats: {p.reason}" if p.reason else "floats",
        )
        for p in found.products
    ]
    legend = (
        "each histogram has a scale of its own, and stands for all that was seen; the frame is the range that has "
        "levels; errors are on samples held back, as a part of what the original's values vary, behind products that "
        "are quantized already; dB are what the outputs gain with that product alone on floats"
    )
    columns = ("value", "by", ">from", ">to", ">clipped", ">dB", "")
    evened = [(", ".join(g.products), f"{g.power:g}", f"{g.spread:.3g}", f"{g.gain:+.2f}") for g in found.evened]
    kernels = [(name, f"{count:,}") for name, count in found.kernels.items()]
    return [
        element("h2", "On integers"),
        bullets(words.integers(found)),
        element("p", legend, class_="soft"),
        fold(f"Ranges ({len(ranges):,})", table(columns, ranges)),
        fold(
            f"Products ({len(products):,})",
            table(("product", "weights", ">error, floats", ">error, integers", ">dB", "why", "runs on"), products),
        ),
        *([fold(f"Channels brought to one range ({len(evened):,})", table(_EVENED, evened))] if evened else []),
        *([fold(f"Kernels ({len(kernels):,})", table(("operator", ">times"), kernels))] if kernels else []),
    ]


def _packages(found: PackagesReport) -> list[Html]:
    """How each matrix is written, and what it costs."""
    rows = [
        (path(p.key), p.form, p.way, f"{p.before:,}", f"{p.after:,}", "" if p.sqnr is None else f"{p.sqnr:.1f}")
        for p in found.packages
    ]
    columns = ("product or table", "written as", "rounded by", ">bytes before", ">bytes after", ">dB")
    return [
        element("h2", "Packed weights"),
        bullets(found.lines),
        fold(f"Matrices ({len(rows):,})", table(columns, rows)),
    ]


def _half(found: HalfReport) -> list[Html]:
    """What computes in half precision, and why other nodes do not."""
    rows = [(path(name), reason) for name, reason in found.floats.items()]
    return [
        element("h2", "In half precision"),
        bullets(words.half(found)[:2]),
        *([fold(f"On floats ({len(rows):,})", table(("node", "why"), rows))] if rows else []),
    ]


def _damping(damping: float | None) -> str:
    return "as it was" if damping is None else f"{damping:.2g}" if isfinite(damping) else "bias only"


def _tried(plan: PlanReport) -> list[Html]:
    """Every plan that was measured: the metric that says most, or the loss, against the work; and in numbers."""
    tried = plan.tried
    names = list(dict.fromkeys(name for t in tried for name in t.metrics))
    best = words.first(n for n in names if all(n in t.metrics for t in tried))
    points = [(t.macs, t.loss if best is None else t.metrics[best].after) for t in tried]
    looks = ["chosen" if t.chosen else "kept" if t.met else "open" for t in tried]
    points.append((1.0, 0.0 if best is None else tried[0].metrics[best].before))
    caption = (
        f"{best or 'loss'} (upward) against the share of the MACs; red what was emitted, filled what meets all that "
        "was asked for, grey the original"
    )
    up = (lambda y: f"{y:.3g}") if best is None else (lambda y: words.value(best, y))
    picture = scatter(f"{len(tried):,} plans", points, [*looks, "original dot"], lambda x: f"{x:.1%}", up)
    columns = (">MACs", ">loss", ">predicted", *(f">{n}" for n in names), ">time", "met")
    rows = [
        (
            f"{t.macs:.1%}",
            f"{t.loss:.3g}",
            f"{t.predicted:.3g}",
            *(words.metric(n, t.metrics[n]) if n in t.metrics else "" for n in names),
            "" if t.latency is None else f"{t.latency:.1%}",
            ("yes" if t.met else "no") + (", emitted" if t.chosen else ""),
        )
        for t in tried
    ]
    return [
        element("h2", "Plans tried"),
        *([element("figure", picture, element("figcaption", caption))] if len(tried) > 1 else []),
        fold(f"In numbers ({len(rows):,})", table(columns, rows)),
    ]


def _rewritten(report: Report) -> list[Html]:
    """What the rules did."""
    rows = [(rule, f"{count:,}", exactness) for rule, count, exactness in words.rules(report)]
    if not rows:
        return []
    return [element("h2", "What was rewritten"), fold(f"Rules ({len(rows):,})", table(("", ">times", ""), rows))]


def _repeat(recipe: str) -> list[Html]:
    return [element("h2", "To do it again"), fold("The recipe, for --recipe", code(recipe))]
