"""Text that came from a model, made harmless for terminals."""

from __future__ import annotations

import unicodedata

__all__ = ["shown"]


def shown(text: str, limit: int = 1000) -> str:
    """`text` on one line, with control and direction characters spelled out, and cut at `limit` characters.

    A name inside a model may hold anything: escape sequences that repaint the terminal (CWE-150), or characters that
    reverse the reading direction.
    """
    some = text[: limit + 1]  # of a name of megabytes, the rest need not be looked at
    safe = "".join(c if unicodedata.category(c)[0] not in "CZ" or c == " " else _spelled(c) for c in some)
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def _spelled(character: str) -> str:
    """As Python would write it. Of the separators, only those that end a line need that."""
    spaces = unicodedata.category(character) == "Zs"
    return character if spaces else character.encode("unicode_escape").decode()
