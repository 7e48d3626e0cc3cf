"""What was given up and where, as sections of a page: channels, weights, bits, types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Final

from graphopt.compress.refit import Refit
from graphopt.compress.sparse import Sparse
from graphopt.report import words
from graphopt.report.data import Report
from graphopt.report.half import HalfReport
from graphopt.report.integers import IntegersReport
from graphopt.report.markup import Html, bar, bullets, curve, element, fold, histogram, path, scatter, table
from graphopt.report.packages import PackagesReport
from graphopt.report.plan import FormReport, PlanReport, WidthReport

__all__ = ["losses"]


def losses(report: Report) -> Iterator[Html]:
    """A section for each way in which something was given up."""
    plan = report.plan
    if plan and (plan.groups or plan.forms):
        yield from _plan(plan)
    if plan and plan.sparse:
        yield from _sparse(plan)
    if report.integers:
        yield from _integers(report.integers)
    if report.packages:
        yield from _packages(report.packages)
    if report.half:
        yield from _half(report.half)


def _plan(plan: PlanReport) -> list[Html]:
    """What was cut from which group, and what led to that."""
    cut = [_group(g) for g in plan.groups if g.after < g.before]
    kept = [_group(g) for g in plan.groups if g.after >= g.before]
    columns = ("group", ">before", ">after", "", ">MACs alone", ">error", ">error at half", "error by width", "of")
    legend = (
        f"{words.learned(plan)}; the MACs are the part of the model's that goes if "
        "this group alone is cut, the error is what that costs the outputs before anything is fitted, at this width "
        "and at half of all (the larger, the more sensitive); each curve has a scale of its own, and a dot at the width"
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
    half = "" if (at := _between(group.curve, group.before / 2)) is None else f"{at:.2g}"
    return (path(group.key), *widths, saved, error, half, curve(group.curve, group.after), group.kind)


def _between(points: Mapping[int, float], x: float) -> float | None:
    """What a curve says at `x`, on a straight line between its neighbours there; None beyond its ends."""
    left, right = max((p for p in points if p <= x), default=None), min((p for p in points if p >= x), default=None)
    if left is None or right is None:
        return None
    part = (x - left) / (right - left) if right > left else 0.0
    return points[left] + part * (points[right] - points[left])


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
    return [
        element("h2", "Weights that became zero"),
        element("p", words.zeros(plan)),
        element("p", words.learned(plan), class_="soft"),
        fold(f"Products ({len(plan.sparse):,})", table(columns, map(_zeros, plan.sparse))),
    ]


def _zeros(found: Sparse) -> tuple[object, ...]:
    share = f"{found.zeros / max(found.weights, 1):.1%}"
    counts = (f"{found.weights:,}", share, bar(found.weights, found.weights - found.zeros))
    return (path(found.key), found.form, *counts, _damping(found.damping), f"{found.before:.3g}", f"{found.after:.3g}")


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
    most = max((abs(p.gain) for p in found.products if p.gain is not None), default=0.0)
    products = [
        (
            path(p.key),
            p.way or "floats",
            f"{p.before:.3g}" if p.way else "",
            f"{p.after:.3g}" if p.way else "",
            "" if p.gain is None else f"{p.gain:+.2f}",
            "" if p.gain is None else bar(most, max(p.gain, 0.0)),
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
    evened = [(_paths(g.products), f"{g.power:g}", f"{g.spread:.3g}", f"{g.gain:+.2f}") for g in found.evened]
    kernels = [(name, f"{count:,}") for name, count in found.kernels.items()]
    return [
        element("h2", "On integers"),
        bullets(words.integers(found)),
        element("p", legend, class_="soft"),
        fold(f"Ranges ({len(ranges):,})", table(columns, ranges)),
        fold(
            f"Products ({len(products):,})",
            table(("product", "weights", ">error, floats", ">error, integers", ">dB", "", "why", "runs on"), products),
        ),
        *([fold(f"Channels brought to one range ({len(evened):,})", table(_EVENED, evened))] if evened else []),
        *([fold(f"Kernels ({len(kernels):,})", table(("operator", ">times"), kernels))] if kernels else []),
    ]


def _paths(names: Sequence[str]) -> Html:
    return element("span", *(part for name in names for part in (path(name), " ")))


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
