"""Every kind of group: a small graph, what can be cut from it, and what is held for which reason.

Weights are declared and have no contents; what has some is a shape, an index and the like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Kind:
    """One graph."""

    name: str
    text: str
    inner: Mapping[str, int]
    """Units of each group, by key, where axes that are split lose indices inside."""
    outer: Mapping[str, int] | None = None
    """Where they lose whole blocks, if that differs."""
    held: Mapping[str, str] = field(default_factory=dict)
    """A part of the reason why the result of a product is held in both, by key."""
    tolerance: float = 1e-5

    def __str__(self) -> str:
        return self.name


LAST = {"last": "an axis of the output y"}
NCHW = "g (float[N,3,6,6] x) => (float[N,M,A,B] y)"
"""Most graphs take an image and give another one."""
ROWS = "g (float[N,S,12] x) => (float[N,S,M] y)"
"""Others take a sequence."""
