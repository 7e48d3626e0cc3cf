"""Elements of a page, and small pictures in it.

Only what `element` makes is markup: every other text is escaped where it enters a page, so that none can be forgotten.
All of it is well-formed XML as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from math import isfinite
from typing import Final

from graphopt.report.text import shown

__all__ = [
    "Html",
    "Point",
    "bar",
    "bullets",
    "code",
    "curve",
    "element",
    "fold",
    "histogram",
    "lines",
    "path",
    "scatter",
    "table",
]

Point = tuple[float, float]

_LINE: Final = {"fill": "none", "stroke": "currentColor"}
_BAR: Final = (120, 12)
_CURVE: Final = (120, 36)
_CHART: Final = (356, 210)
_INSET: Final = 10
"""Of what is drawn, from the frame of a chart."""
_LEFT, _BELOW = 60, 22
"""Room for the labels of a chart's axes."""


class Html(str):
    """Markup."""

    __slots__ = ()


def element(tag: str, *inside: object, **attributes: object) -> Html:
    """One element; of attributes' names, a trailing _ goes and others become dashes."""
    given = "".join(f' {k.rstrip("_").replace("_", "-")}="{_safe(v)}"' for k, v in attributes.items())
    return Html(f"<{tag}{given}>{''.join(map(_safe, inside))}</{tag}>")


def _safe(value: object) -> str:
    return value if isinstance(value, Html) else escape(shown(str(value)))


def path(name: str) -> Html:
    """A long name, which may be broken behind its slashes and dots."""
    parts = re.split(r"(?<=.[/.:_])(?=[^/.:_])", shown(name))
    return element("span", Html("<wbr/>".join(map(escape, parts))), class_="path")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """A table, to be moved sideways where it is too wide; a leading > aligns a column to the right."""
    looks = [{"class_": "number"} if c.startswith(">") else {} for c in columns]
    heads = [element("th", c.removeprefix(">"), scope="col", **s) for c, s in zip(columns, looks, strict=True)]
    body = [element("tr", *(element("td", cell, **s) for cell, s in zip(row, looks, strict=True))) for row in rows]
    found = element("table", element("thead", element("tr", *heads)), element("tbody", *body))
    return element("div", found, class_="wide", tabindex=0)


def bullets(lines: Iterable[str]) -> Html:
    """A list."""
    return element("ul", *(element("li", line) for line in lines))


def fold(summary: str, *inside: Html, opened: bool = False) -> Html:
    """Folded up; browsers open it with the keyboard as well."""
    return element("details", element("summary", summary), *inside, **({"open": "open"} if opened else {}))


def code(text: str) -> Html:
    """Lines as they are, however long."""
    lines = (shown(line, 12 * len(line)) for line in text.split("\n"))
    return element("pre", element("code", Html(escape("\n".join(lines)))))


# -- pictures --------------------------------------------------------------------------------------------------------


def bar(before: float, after: float) -> Html:
    """What there was, and how much there is, on one scale; the numbers stand beside it."""
    (width, height), most = _BAR, max(before, after)
    old, new = (round(width * (v / most), 1) if 0 < v <= most and isfinite(most) else 0 for v in (before, after))
    parts = (
        element("rect", opacity=0.25, width=old, height=height),
        element("rect", y=2, width=new, height=height - 4),
    )
    box = f"0 0 {width} {height}"
    return element("svg", *parts, class_="bar", width=width, height=height, viewBox=box, aria_hidden="true")


def curve(points: Mapping[int, float], chosen: int) -> Html | str:
    """A falling line, and a dot on it."""
    placed = _placed(sorted(points.items()), _CURVE)
    if len(placed) <= 1:
        return ""
    line = element("polyline", class_="curve", **_LINE, points=Html(" ".join(f"{x},{y}" for x, y in placed.values())))
    told = f"error {min(y for _, y in placed):.2g} to {max(y for _, y in placed):.2g}"
    dots = [
        _dot("chosen" if width == chosen else "dot", x, y, 3, f"{error:.2g} at {width:,}")
        for (width, error), (x, y) in placed.items()
    ]
    return _picture(told, _CURVE, line, *dots)


def histogram(bars: Sequence[float], ends: Point, chosen: Point) -> Html | str:
    """How often values are met between two ends, and a frame around a range among them."""
    (least, most), (width, height) = ends, _CURVE
    if not bars or not most > least or not all(map(isfinite, (*ends, *chosen))):
        return ""
    step = width / len(bars)
    tall = [round(height * max(b, 0.0) ** 0.5, 1) for b in bars]
    shape = " ".join(f"M{round(i * step, 1)} {height}v{-t}h{round(step, 1)}v{t}" for i, t in enumerate(tall) if t)
    left, right = (round(width * min(max((c - least) / (most - least), 0.0), 1.0), 1) for c in chosen)
    told = f"{least:.3g} to {most:.3g}, levels from {chosen[0]:.3g} to {chosen[1]:.3g}"
    frame = element("rect", class_="range", fill="none", x=left, y=0, width=round(right - left, 1), height=height)
    return _picture(told, _CURVE, element("path", class_="seen", d=Html(shape)), frame)


Words = Callable[[float], str]
"""How a number is written at an axis."""


def scatter(told: str, points: Sequence[Point], looks: Sequence[str], across: Words, up: Words) -> Html:
    """Dots that look as the class of each says, and what the axes reach."""
    frame, placed = _chart(points, across, up)
    dots = [
        _dot(look, *placed[p], 5, f"{up(p[1])} at {across(p[0])}")
        for p, look in zip(points, looks, strict=True)
        if p in placed
    ]
    return _picture(told, _CHART, *frame, *dots)


def lines(series: Mapping[str, Sequence[Point]], across: Words, up: Words) -> Html:
    """A line for each of these, named by its class, and what the axes reach."""
    frame, placed = _chart([p for points in series.values() for p in points], across, up)
    drawn = []
    for look, points in series.items():
        known = [placed[p] for p in points if p in placed]
        drawn.append(element("polyline", class_=look, **_LINE, points=Html(" ".join(f"{x},{y}" for x, y in known))))
        drawn += [
            _dot(f"{look} dot", *placed[p], 3, f"{look}: {up(p[1])} at {across(p[0])}") for p in points if p in placed
        ]
    return _picture(" and ".join(series), _CHART, *frame, *drawn)


def _chart(points: Sequence[Point], across: Words, up: Words) -> tuple[list[Html], dict[Point, Point]]:
    """Two axes with what they reach, and where points go between them."""
    width, height = _CHART
    bottom = height - _BELOW
    inner = _placed(points, (width - _LEFT, bottom), _INSET)
    placed = {p: (round(x + _LEFT, 1), y) for p, (x, y) in inner.items()}
    parts = [element("path", class_="axis", **_LINE, d=f"M{_LEFT} 2V{bottom}H{width - 2}")]
    if placed:
        (left, right), (low, high) = ((min(v), max(v)) for v in zip(*placed, strict=True))
        parts += [
            element("text", across(left), x=_LEFT + 4, y=height - 6),
            *([element("text", across(right), x=width - 2, y=height - 6, text_anchor="end")] if right > left else []),
            *([element("text", up(low), x=_LEFT - 6, y=bottom - 6, text_anchor="end")] if high > low else []),
            element("text", up(high), x=_LEFT - 6, y=min(y for _, y in placed.values()) + 4, text_anchor="end"),
        ]
    return parts, placed


def _dot(looks: str, x: float, y: float, r: int, told: str = "") -> Html:
    return element("circle", *([element("title", told)] if told else []), class_=looks, cx=x, cy=y, r=r)


def _placed(points: Iterable[Point], size: tuple[int, int], edge: int = 5) -> dict[Point, Point]:
    """Where each point goes in a picture; what is not finite has no place in it."""
    known = [p for p in points if all(map(isfinite, p))]
    xs, ys = (_scaled([p[axis] for p in known], size[axis], edge) for axis in (0, 1))
    return {p: (x, round(size[1] - y, 1)) for p, x, y in zip(known, xs, ys, strict=True)}


def _scaled(values: Sequence[float], length: int, edge: int) -> list[float]:
    """From the least value at one edge to the largest at the other; of halves, whose difference cannot overflow."""
    low = min(values, default=0) / 2
    span = max(values, default=0) / 2 - low
    return [round(edge + (length - 2 * edge) * ((v / 2 - low) / span if span else 0.5), 1) for v in values]


def _picture(told: str, size: tuple[int, int], *inside: Html) -> Html:
    width, height = size
    box = {"width": width, "height": height, "viewBox": f"0 0 {width} {height}"}
    return element("svg", element("title", told), *inside, role="img", aria_label=told, **box)
