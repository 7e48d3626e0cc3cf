"""How many there are of something, as text for people."""

from __future__ import annotations

__all__ = ["counted"]


def counted(count: int, noun: str) -> str:
    """One noun or several, whose plural ends in -s: "1 feed", "1,200 feeds"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"
