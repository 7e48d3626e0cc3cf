"""Text that came from a model, made harmless for terminals."""

from __future__ import annotations

import unicodedata

__all__ = ["shown"]


def shown(text: str, limit: int = 1000) -> str:
    """`text` on one line, with control and direction characters spelled out, and cut at `limit` characters.

    A name inside a model may hold anything: escape sequences that repaint the terminal (CWE-150), or characters that
    reverse the reading direction.
    """
    safe = "".join(c if unicodedata.category(c)[0] != "C" else c.encode("unicode_escape").decode() for c in text)
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"
