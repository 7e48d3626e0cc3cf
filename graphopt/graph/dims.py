"""Extents of tensors as polynomials in the symbolic dimensions of the inputs.

Two extents that are the same polynomial are equal whatever the feed, however differently the graph computes them.
Symbols stand for extents and so are never negative; that decides many comparisons (batch + 1 is not 0).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import reduce
from itertools import product
from math import gcd

__all__ = ["Dim", "Factor", "Floor", "Least"]


@dataclass(frozen=True)
class Floor:
    """An inexact quotient, rounded down. It stands in products as symbols do."""

    dividend: Dim
    divisor: int

    def __str__(self) -> str:
        return f"({self.dividend})//{self.divisor}"


@dataclass(frozen=True)
class Least:
    """The smaller one of an extent and a number: what a Slice of a constant leaves. It stands for a symbol as well."""

    extent: Dim
    most: int

    def __str__(self) -> str:
        return f"min({self.extent}, {self.most})"


Factor = str | Floor | Least
Monomial = tuple[Factor, ...]
"""Factors of a product, sorted; () stands for 1."""


@dataclass(frozen=True)
class Dim:
    """A polynomial with integer coefficients. Build one with `Dim.of`, and combine them with +, -, * and //."""

    terms: frozenset[tuple[Monomial, int]]

    @staticmethod
    def of(extent: int | str) -> Dim:
        """A number, or a symbol."""
        if isinstance(extent, str):
            return Dim(frozenset({((extent,), 1)}))
        return Dim(frozenset({((), int(extent))} if extent else ()))

    def least(self, most: int) -> Dim | None:
        """The smaller one of an extent and a number above zero; None where this may not be an extent."""
        return Dim(frozenset({((Least(self, most),), 1)})) if self.is_extent and most > 0 else None

    @property
    def limited(self) -> Dim | None:
        """The extent x, if this is min(x, n)."""
        if len(self.terms) != 1:
            return None
        ((monomial, coefficient),) = self.terms
        (factor,) = monomial if len(monomial) == 1 and coefficient == 1 else (None,)
        return factor.extent if isinstance(factor, Least) else None

    @property
    def number(self) -> int | None:
        """The extent, if it is a number."""
        if not self.terms:
            return 0
        ((monomial, coefficient),) = self.terms if len(self.terms) == 1 else (((None,), 0),)
        return coefficient if monomial == () else None

    @property
    def symbol(self) -> str | None:
        """The name, if it is a symbol alone."""
        if len(self.terms) != 1:
            return None
        ((monomial, coefficient),) = self.terms
        (factor,) = monomial if len(monomial) == 1 and coefficient == 1 else (None,)
        return factor if isinstance(factor, str) else None

    def __add__(self, other: Dim) -> Dim:
        return _collect([*self.terms, *other.terms])

    def __neg__(self) -> Dim:
        return Dim(frozenset((m, -c) for m, c in self.terms))

    def __sub__(self, other: Dim) -> Dim:
        return self + -other

    def __mul__(self, other: Dim) -> Dim:
        return _collect([(_sorted(m + n), c * d) for (m, c), (n, d) in product(self.terms, other.terms)])

    def __floordiv__(self, other: Dim) -> Dim | None:
        """The quotient rounded down; None where it cannot be told. An inexact quotient of extents is a `Floor`."""
        if other.number == 0 or not other.terms:
            return None
        exact = _divide(self, other)
        if exact is not None:
            return exact
        if self.number is not None and other.number is not None:
            return Dim.of(self.number // other.number)
        if self.is_extent and other.number is not None and other.number > 0:
            return self._floor(other.number)
        return None

    def _floor(self, divisor: int) -> Dim:
        """⌊(a + r) / d⌋ with what divides evenly taken out in front."""
        whole = Dim(frozenset((m, c // divisor) for m, c in self.terms if c % divisor == 0))
        rest = Dim(frozenset((m, c) for m, c in self.terms if c % divisor))
        common = reduce(gcd, (c for _, c in rest.terms), divisor)
        if common > 1:
            rest, divisor = Dim(frozenset((m, c // common) for m, c in rest.terms)), divisor // common
        if rest.number is not None:
            return whole + Dim.of(rest.number // divisor)
        return whole + Dim(frozenset({((Floor(rest, divisor),), 1)}))

    @property
    def is_extent(self) -> bool:
        """Whether it is provably not negative."""
        return all(c > 0 for _, c in self.terms)

    @property
    def is_positive(self) -> bool:
        """Whether it is provably above zero."""
        return self.is_positive_for(())

    def is_positive_for(self, positive: Collection[str]) -> bool:
        """Whether it is above zero where these symbols are."""
        return self.is_extent and any(all(factor in positive for factor in m) for m, _ in self.terms)

    def __str__(self) -> str:
        """Readable, and the same for equal polynomials."""
        words = sorted(([*map(str, m)], c) for m, c in self.terms)
        return " + ".join("*".join([*([str(c)] if c != 1 or not m else []), *m]) for m, c in words) or "0"


def _sorted(factors: Iterable[Factor]) -> Monomial:
    return tuple(sorted(factors, key=lambda f: (not isinstance(f, str), str(f))))


def _collect(terms: list[tuple[Monomial, int]]) -> Dim:
    total: Counter[Monomial] = Counter()
    for monomial, coefficient in terms:
        total[monomial] += coefficient
    return Dim(frozenset((m, c) for m, c in total.items() if c))


def _divide(a: Dim, b: Dim) -> Dim | None:
    """The quotient, where b is a single term that divides every term of a."""
    if a == b:
        return Dim.of(1)
    if len(b.terms) != 1:
        return None
    ((divisor, d),) = b.terms
    found = []
    for monomial, c in a.terms:
        left = Counter(monomial)
        left.subtract(divisor)
        if c % d or any(n < 0 for n in left.values()):
            return None
        found.append((_sorted(left.elements()), c // d))
    return Dim(frozenset(found))
