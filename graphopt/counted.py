"""How many there are of something, as text for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

__all__ = ["counted", "grouped"]

_NAMED: Final = 3
"""That are named of those with one reason."""


def counted(count: int, noun: str) -> str:
    """One noun or several, whose plural ends in -s: "1 feed", "1,200 feeds"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def grouped(reasons: Mapping[str, str]) -> Iterator[str]:
    """By key, reasons; each of them once, the most frequent first: "a, b, c and 2 others: the reason"."""
    for why, count in Counter(reasons.values()).most_common():
        keys = [key for key, reason in reasons.items() if reason == why]
        more = f" and {counted(count - _NAMED, 'other')}" if count > _NAMED else ""
        yield f"{', '.join(keys[:_NAMED])}{more}: {why}"
