"""Text that came from a model, made harmless for terminals and for Markdown; `markup` makes it so for pages."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["cell", "file_name", "shown"]

_APART: Final = "\u200b"
_MARKUP: Final = frozenset("\\`*_[]<>|~&@#$")


def shown(text: str, limit: int = 1000) -> str:
    """`text` on one line, with control and direction characters spelled out, and cut at `limit` characters.

    A name inside a model may hold anything: escape sequences that repaint the terminal (CWE-150), or characters that
    reverse the reading direction.
    """
    some = text[: limit + 1]  # of a name of megabytes, the rest need not be looked at
    safe = "".join(c if unicodedata.category(c)[0] not in "CZ" or c == " " else _spelled(c) for c in some)
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def cell(text: str) -> str:
    """Any text as Markdown that shows it, and nothing else: in a cell of a table, or in a paragraph.

    CommonMark takes a backslash before any ASCII punctuation, and tables before a bar. A space without width keeps
    GitHub from making mentions, links to issues and addresses of what is left.
    """
    safe = "".join(f"\\{c}{_APART if c in '@#' else ''}" if c in _MARKUP else c for c in shown(text))
    return re.sub(r"(?<=ww)(?=w)|(?<=:)(?=//)", _APART, safe, flags=re.IGNORECASE)


def file_name(path: str) -> str:
    """The last part of a path, of whatever system."""
    return re.split(r"[/\\]", path)[-1] or path


def _spelled(character: str) -> str:
    """As Python would write it. Of the separators, only those that end a line need that."""
    spaces = unicodedata.category(character) == "Zs"
    return character if spaces else character.encode("unicode_escape").decode()
