"""Elements of a page, and small pictures in it.

Only what `element` makes is markup: every other text is escaped where it enters a page, so that none can be forgotten.
All of it is well-formed XML as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import isfinite
from typing import Final

from graphopt.report.text import shown

__all__ = ["Html", "Point", "bar", "bullets", "code", "curve", "element", "fold", "scatter", "table"]

Point = tuple[float, float]

_LINE: Final = {"fill": "none", "stroke": "currentColor"}
_BAR: Final = (120, 12)
_CURVE: Final = (160, 40)
_SCATTER: Final = (480, 240)


class Html(str):
    """Markup."""

    __slots__ = ()


def element(tag: str, *inside: object, **attributes: object) -> Html:
    """One element; of attributes' names, a trailing _ goes and others become dashes."""
    given = "".join(f' {k.rstrip("_").replace("_", "-")}="{_safe(v)}"' for k, v in attributes.items())
    return Html(f"<{tag}{given}>{''.join(map(_safe, inside))}</{tag}>")


def _safe(value: object) -> str:
    return value if isinstance(value, Html) else escape(shown(str(value)))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """A table; a leading > aligns a column to the right."""
    looks = [{"class_": "number"} if c.startswith(">") else {} for c in columns]
    heads = [element("th", c.removeprefix(">"), scope="col", **s) for c, s in zip(columns, looks, strict=True)]
    body = [element("tr", *(element("td", cell, **s) for cell, s in zip(row, looks, strict=True))) for row in rows]
    return element("table", element("thead", element("tr", *heads)), element("tbody", *body))


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
    return element("svg", *parts, width=width, height=height, aria_hidden="true")


def curve(points: Mapping[int, float], chosen: int) -> Html | str:
    """A falling line, and a dot on it."""
    placed = _placed(sorted(points.items()), _CURVE)
    if len(placed) <= 1:
        return ""
    line = element("polyline", class_="curve", **_LINE, points=Html(" ".join(f"{x},{y}" for x, y in placed.values())))
    told = f"error {min(y for _, y in placed):.2g} to {max(y for _, y in placed):.2g}"
    point: Point = (chosen, points.get(chosen, 0.0))
    if point not in placed:
        return _picture(told, _CURVE, line)
    x, y = placed[point]
    return _picture(f"{told}, {point[1]:.2g} at {chosen:,}", _CURVE, line, _dot("chosen", x, y, 3))


def scatter(points: Sequence[Point], full: Sequence[bool]) -> Html:
    """Dots, filled where `full`, and what the axes reach; the one to the right counts parts of one."""
    (width, height), edge = _SCATTER, 28
    placed = _placed(points, _SCATTER, edge)
    ends = []
    if placed:
        (left, right), (low, high) = ((min(v), max(v)) for v in zip(*placed, strict=True))
        ends = [
            element("text", f"{left:.1%}", x=edge, y=height - 6),
            element("text", f"{right:.1%}", x=width, y=height - 6, text_anchor="end"),
            element("text", f"{low:.4g}", x=4, y=height - edge - 4),
            element("text", f"{high:.4g}", x=4, y=14),
        ]
    dots = [
        _dot("kept" if met else "open", *placed[p], 5, f"{p[1]:.4g} at {p[0]:.1%}")
        for p, met in zip(points, full, strict=True)
        if p in placed
    ]
    frame = element("path", class_="axis", **_LINE, d=f"M2 2V{height - 20}H{width - 2}")
    return _picture(f"{len(points):,} plans", _SCATTER, frame, *ends, *dots)


def _dot(looks: str, x: float, y: float, r: int, told: str = "") -> Html:
    return element("circle", *([element("title", told)] if told else []), class_=looks, cx=x, cy=y, r=r)


def _placed(points: Iterable[Point], size: tuple[int, int], edge: int = 5) -> dict[Point, Point]:
    """Where each point goes in a picture; what is not finite has no place in it."""
    known = [p for p in points if all(map(isfinite, p))]
    xs, ys = (_scaled([p[axis] for p in known], size[axis], edge) for axis in (0, 1))
    return {p: (x, round(size[1] - y, 1)) for p, x, y in zip(known, xs, ys, strict=True)}


def _scaled(values: Sequence[float], length: int, edge: int) -> list[float]:
    """From the least value at one edge to the largest at the other; halves, since their difference cannot overflow."""
    low = min(values, default=0) / 2
    span = max(values, default=0) / 2 - low or 1.0
    return [round(edge + (length - 2 * edge) * ((v / 2 - low) / span), 1) for v in values]


def _picture(told: str, size: tuple[int, int], *inside: Html) -> Html:
    width, height = size
    box = {"width": width, "height": height, "viewBox": f"0 0 {width} {height}"}
    return element("svg", element("title", told), *inside, role="img", aria_label=told, **box)
