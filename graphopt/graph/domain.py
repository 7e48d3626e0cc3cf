"""What is known about the values of a tensor without running the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Bound", "Domain"]

Bound = int | str
"""A number, or the name of the symbolic dimension that stands for it."""


@dataclass(frozen=True)
class Domain:
    """The values that make sense at a graph input: what its consumers accept.

    `low` is inclusive, `high` exclusive; None means unbounded on that side. A `high` that names a symbolic
    dimension is that dimension's extent in the feed. `ascending` asks for values that do not fall along the
    last axis. Where `low` is above 0 and `high` names a dimension, that extent is included: these are lengths. An int64
    input that reaches the index of a Gather over an axis of 100 has Domain(0, 100).
    """

    low: int | None = None
    high: Bound | None = None
    ascending: bool = False

    def meet(self, other: Domain) -> Domain:
        """The values that both accept. Of two different symbols the first is kept: only a run can tell more."""
        lows = [d.low for d in (self, other) if d.low is not None]
        highs = [d.high for d in (self, other) if d.high is not None]
        numbers = [h for h in highs if isinstance(h, int)]
        symbols = [h for h in highs if isinstance(h, str)]
        high: Bound | None = symbols[0] if symbols else min(numbers, default=None)
        return Domain(max(lows, default=None), high, ascending=self.ascending or other.ascending)

    def limit(self, dims: Mapping[str, int]) -> int | None:
        """`high` as a number under the binding `dims` of symbolic dimensions; None if unbounded or unbound."""
        return dims.get(self.high) if isinstance(self.high, str) else self.high
