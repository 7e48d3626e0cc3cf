"""The two things that text for a terminal is made of."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from graphopt.report.text import shown

__all__ = ["grid", "plain"]


def grid(*columns: str) -> Table:
    """A plain table; a leading > aligns a column to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    return table


def plain(text: str) -> Text:
    """A line of text, from wherever it came."""
    return Text(shown(text))
