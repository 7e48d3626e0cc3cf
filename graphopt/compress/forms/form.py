"""In which ways the weights of one product may be kept: what all of them have in common.

A form replaces W by the nearest Ŵ of a poorer family, where near is what the data says: E|(W − Ŵ)·x|² is least.
Families differ in what is left of the product, and in what is written in its place:

    factored      Ŵ = P·T, several smaller products in a row        `factor`: `lowrank`, `separable`
    coded         Ŵ made of entries of a table                      `codebook`
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from graphopt import ops
from graphopt.graph.record import Exactness
from graphopt.protocol import Named

__all__ = ["Form", "Left"]


@dataclass(frozen=True)
class Left:
    """What is left of a product, as shares of what it was."""

    macs: float
    params: float
    bytes: float
    loose: float = 0.0
    """Which part of that does not depend on the number of output channels."""


@dataclass(frozen=True)
class Form(Named):
    """A way to keep the weights of a product."""

    exactness: ClassVar[Exactness] = Exactness.LOSSY
    rules: ClassVar[Mapping[str, str]] = {}

    @classmethod
    @abstractmethod
    def offered(cls, linear: ops.Linear) -> Iterator[Sequence[Self]]:
        """What there is to choose from for a product: those that are found together in a row, the largest first."""
