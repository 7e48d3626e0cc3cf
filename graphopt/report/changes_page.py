"""Two graphs side by side as one page for a browser: what differs, and for each node what it came from.

What is in the page came from models: all of it is text, or in JSON that no name can end. Without scripts, the lists are
still there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from graphopt.counted import counted
from graphopt.graph.diff import GONE
from graphopt.report.changes import DiffReport, NodeReport, SideReport
from graphopt.report.changes_table import MEANINGS
from graphopt.report.document import document
from graphopt.report.layout import Drawn, arrange
from graphopt.report.markup import Html, bullets, element, fold, path, table
from graphopt.report.text import file_name, shown
from graphopt.report.words import change

__all__ = ["page"]

_FEW = 500
"""Nodes and constants that are listed; the drawing has all of them."""
_SIGNS = {
    "same": "", "moved": "⇅", "resized": "↔", "requantized": "#", "changed": "≠", "fused": "⊃", "split": "⋔",
    "inserted": "+", "unknown": "?", "folded": "▪", "bypassed": "↷", "dead": "×",
}  # fmt: skip
"""What stands for a kind beside its colour."""


def page(report: DiffReport) -> str:
    """The whole page."""
    names = [file_name(s.name) for s in (report.before, report.after)]
    return document(
        "changes",
        f"graphopt: {names[0]} → {names[1]}",
        element("header", element("h1", names[0], " → ", names[1]), _legend(report), _tools()),
        element("main", _pane("before", report.before), _pane("after", report.after), _lists(report)),
        element("script", _inert(_drawing(report)), type="application/json", id="data"),
    )


def _inert(data: Any) -> Html:
    """JSON that stands in a page: nothing in it ends the element, opens one, or ends a line of a script."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)  # in plain ASCII
    return Html(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


# -- what is there without a script ------------------------------------------------------------------------------------


def _legend(report: DiffReport) -> Html:
    counts = {**report.kinds, **report.gone}
    chips = [
        element(
            "button", _SIGNS[k], element("b", f" {n:,}"), f" {k}", class_=f"chip {k}", data_kind=k, title=MEANINGS[k]
        )
        for k, n in counts.items()
    ]
    return element("nav", *chips, aria_label="Kinds of nodes: a click goes to the next one of a kind")


def _tools() -> Html:
    search = element("input", id="search", type="search", placeholder="Find a node  ( / )", aria_label="Find a node")
    buttons = [
        element("button", sign, id=name, title=told, aria_label=told)
        for name, sign, told in (
            ("next", "≠ next", "The next node that differs (n, and p for the one before)"),
            ("out", "−", "Smaller (−)"),
            ("in", "+", "Larger (+)"),
            ("fit", "fit", "All of it (0)"),
        )
    ]
    return element("div", search, element("output", id="found"), *buttons, class_="tools")


def _pane(side: str, report: SideReport) -> Html:
    drawing = element("svg", id=side, tabindex=0, role="application", aria_label=f"The graph of {report.name}")
    count = element("small", f" {counted(len(report.nodes), 'node')}")
    return element("section", element("h2", report.name, count, title=report.name), drawing)


def _lists(report: DiffReport) -> Html:
    before, after = report.before, report.after
    sizes = [
        (label, f"{old:,}", f"{new:,}", change(old, new))
        for label, old, new in (("nodes", len(before.nodes), len(after.nodes)), ("bytes", before.bytes, after.bytes))
    ]
    parts = [element("h2", "Nothing differs" if report.equal else "What differs")]
    parts += [element("p", "The second model says that graphopt made it from the first.")] if report.derived else []
    parts += [table(("", ">before", ">after", ">"), sizes)]
    parts += [bullets(report.ports)] if report.ports else []
    for kind in (k for k in (*report.kinds, *report.gone) if k != "same"):
        side, nodes = (0, before.nodes) if kind in GONE else (1, after.nodes)
        parts.append(_listed(kind, side, [(i, n) for i, n in enumerate(nodes) if n.kind == kind]))
    if report.constants:
        rows = [
            (path(c.name), c.kind, c.before, c.after, f"{c.bytes_after - c.bytes_before:+,}")
            for c in report.constants[:_FEW]
        ]
        columns = ("name", "", "before", "after", ">bytes")
        parts.append(fold(f"Constants ({len(report.constants):,})", table(columns, rows)))
    if report.header:
        told = [(name, shown(old, 100), shown(new, 100)) for name, (old, new) in report.header.items()]
        parts.append(fold(f"Header ({len(told):,})", table(("", "before", "after"), told)))
    parts += [bullets(report.notes)] if report.notes else []
    return element("aside", element("div", *parts, id="lists"), id="told", tabindex=0)


def _listed(kind: str, side: int, nodes: list[tuple[int, NodeReport]]) -> Html:
    """The nodes of one kind, and what each has to do with."""
    items = [
        element(
            "li",
            element("button", path(node.key), data_side=side, data_node=index),
            element("small", f" {node.op}", *_origin(kind, node), *(f"; {n}" for n in node.notes)),
        )
        for index, node in nodes[:_FEW]
    ]
    items += [element("li", f"… and {len(nodes) - _FEW:,} more")] if len(nodes) > _FEW else []
    return fold(f"{kind}: {MEANINGS[kind]} ({len(nodes):,})", element("ul", *items))


def _origin(kind: str, node: NodeReport) -> Iterator[str]:
    if len(node.nodes) > 1 or (node.nodes and node.nodes[0] != node.key):
        word = "instead of it" if kind == "bypassed" else "from"
        yield f", {word} {node.nodes[0]}" + (f" and {counted(len(node.nodes) - 1, 'other')}" if node.nodes[1:] else "")


# -- what the script draws ---------------------------------------------------------------------------------------------


def _drawing(report: DiffReport) -> dict[str, Any]:
    """Both graphs with places, in short words: a page of thousands of nodes opens faster."""
    sides = report.before, report.after
    places = [{n.key: i for i, n in enumerate(s.nodes)} for s in sides]
    links = [
        [sorted({p[k] for k in n.reads if p.get(k, i) < i}) for i, n in enumerate(s.nodes)]
        for s, p in zip(sides, places, strict=True)
    ]
    pairs = {i: places[0][n.nodes[0]] for i, n in enumerate(report.after.nodes) if n.nodes and n.kind != "moved"}
    drawn = arrange(links[0], links[1], pairs)
    return {
        "sides": [
            {
                "name": shown(side.name),
                "nodes": [_node(n, places[1 - i], d, index) for index, n in enumerate(side.nodes)],
                "types": {shown(k): shown(t) for k, t in side.values.items()},
                "edges": [[a, b, [[round(x, 2), row] for x, row in way]] for a, b, way in d.edges],
                "width": round(d.width, 2),
            }
            for i, (side, d) in enumerate(zip(sides, drawn, strict=True))
        ],
        "signs": _SIGNS,
        "meanings": MEANINGS,
    }


def _node(node: NodeReport, others: Mapping[str, int], drawn: Drawn, index: int) -> list[Any]:
    """Key, operator, kind, place, counterparts, notes, attributes, inputs, outputs."""
    return [
        shown(node.key),
        shown(node.op),
        node.kind,
        round(float(drawn.x[index]), 2),
        int(drawn.row[index]),
        [others[k] for k in node.nodes if k in others],
        [shown(n) for n in node.notes],
        {shown(k): shown(v) for k, v in node.attributes.items()},
        [shown(v) for v in node.inputs],
        [shown(v) for v in node.outputs],
    ]
