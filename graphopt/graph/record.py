"""What is recorded of a change to a graph, and why one is not made."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

__all__ = ["WHOLE", "Edit", "Exactness", "Refused"]

WHOLE = "the whole model"
"""Stands for the root of an edit that replaces everything."""


class Exactness(IntEnum):
    """How closely the graph after a change computes what it computed before."""

    BITWISE = 0
    """The same bits, with the runtime's own optimizations off."""
    ROUNDING = 1
    """The same function of the reals, rounded differently."""
    LOSSY = 2
    """Another function, within the budget the user set."""


class Refused(Exception):  # noqa: N818 - an answer, not a malfunction
    """The change would not be safe. Its text is the reason."""


@dataclass(frozen=True)
class Edit:
    """One change that was made: which rule, where, and which values it computes anew."""

    rule: str
    root: str
    """Key of the node at which the rule fired, the name of a constant, or `WHOLE`."""
    occurrence: int
    """Counts from 0 the edits that one rule made at one root."""
    exactness: Exactness
    values: tuple[str, ...] = field(default=(), compare=False)
    """Names of the values that are computed differently from now on."""
    reduction: int = field(default=1, compare=False)
    """Length of the longest sum that is now rounded differently."""

    def __str__(self) -> str:
        return f"{self.rule} at {self.root}" + (f" (#{self.occurrence + 1})" if self.occurrence else "")
