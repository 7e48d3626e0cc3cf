"""How two models differ, as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from graphopt.counted import counted
from graphopt.graph.diff import GONE, KINDS
from graphopt.report.changes import DiffReport, NodeReport
from graphopt.report.lines import grid, plain
from graphopt.report.text import shown
from graphopt.report.words import change

__all__ = ["MEANINGS", "diff"]

MEANINGS = {
    "same": "as it was",
    "moved": "as it was, at another place",
    "resized": "a weight has another shape",
    "requantized": "a weight has another type",
    "changed": "attributes, constants or the operator differ",
    "fused": "in place of several nodes",
    "split": "one of several in place of one",
    "inserted": "in place of nothing",
    "unknown": "in the midst of too much that is new",
    "folded": "a constant stands where its result was",
    "bypassed": "another value that is there serves instead",
    "dead": "nothing needed its result",
}
"""What is said of a node, in other words."""
_SHORT = 100
"""Characters of an entry of the header that is told in full."""
_FEW, _NAMES = 6, 3
"""Nodes of a kind that are listed, and nodes that are named of those one came from, if not all are to be."""


def diff(report: DiffReport, *, whole: bool = False) -> RenderableType:
    """Counts, and the nodes behind them: what is gone, what is new, and what was made of what.

    Args:
        report: what was found.
        whole: lists as long as they are.
    """
    before, after = report.before, report.after
    if report.equal:
        return plain(f"no difference: {counted(len(after.nodes), 'node')}, {before.name} and {after.name}")
    sizes = grid("", ">A", ">B", ">")
    for label, old, new in (("nodes", len(before.nodes), len(after.nodes)), ("bytes", before.bytes, after.bytes)):
        sizes.add_row(label, f"{old:,}", f"{new:,}", change(old, new))
    kinds = grid("nodes", ">", "")
    for kind, count in (*report.kinds.items(), *report.gone.items()):
        kinds.add_row(f"{kind} (of A)" if kind in GONE else kind, f"{count:,}", MEANINGS[kind])
    parts: list[RenderableType] = [plain(f"{before.name} → {after.name}"), sizes, kinds]
    if report.derived:
        parts.append(plain("B says that graphopt made it from A"))
    for kind in (*GONE, *(k for k in KINDS[::-1] if k != "same")):
        side = before if kind in GONE else after
        parts += _nodes(kind, [n for n in side.nodes if n.kind == kind], whole=whole)
    return Group(*parts, *_constants(report, whole=whole), *map(plain, _rest(report)))


def _nodes(kind: str, nodes: Sequence[NodeReport], *, whole: bool) -> list[RenderableType]:
    if not nodes:
        return []
    origin = "serves instead" if kind == "bypassed" else "from"
    found = grid(f"{kind}: {MEANINGS[kind]}", "operator", origin, "")
    for node in nodes if whole else nodes[:_FEW]:
        some = node.nodes if whole else node.nodes[:_NAMES]
        more = f" and {len(node.nodes) - len(some):,} more" if len(node.nodes) > len(some) else ""
        found.add_row(*map(shown, (node.key, node.op, ", ".join(some) + more, "; ".join(node.notes))))
    return [Text(), found, *_more(len(nodes) - _FEW, whole=whole)]


def _constants(report: DiffReport, *, whole: bool) -> list[RenderableType]:
    if not report.constants:
        return []
    largest = sorted(report.constants, key=lambda c: (-max(c.bytes_before, c.bytes_after), c.name))
    found = grid("constant", "", "A", "B", ">bytes")
    for c in largest if whole else largest[:_FEW]:
        found.add_row(shown(c.name), c.kind, c.before, c.after, f"{c.bytes_after - c.bytes_before:+,}")
    return [Text(), found, *_more(len(largest) - _FEW, whole=whole)]


def _more(count: int, *, whole: bool) -> list[Text]:
    return [plain(f"  … and {count:,} more; -v, --json and --html have them all")] if count > 0 and not whole else []


def _rest(report: DiffReport) -> Iterator[str]:
    yield from report.ports
    for name, (old, new) in report.header.items():
        yield f"{name}: {old or 'not given'} → {new or 'not given'}" if len(old + new) < _SHORT else f"{name}: differs"
    yield from (f"note: {n}" for n in report.notes)
