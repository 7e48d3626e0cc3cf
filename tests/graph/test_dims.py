"""Polynomials compute as the numbers do that they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.graph.dims import Dim, Factor, Floor, Least

NAMES = ("N", "M", "past + seq", "2*N", "(N)//2")
"""Names of dimensions are any text, also one that looks like a polynomial."""

laws = settings(max_examples=100, deadline=None, derandomize=True)
numbers = st.integers(-6, 6)
bindings = st.fixed_dictionaries({n: st.integers(0, 7) for n in NAMES})


def plain() -> st.SearchStrategy[Dim]:
    return st.one_of(numbers.map(Dim.of), st.sampled_from(NAMES).map(Dim.of))


def combined(parts: st.SearchStrategy[Dim]) -> st.SearchStrategy[Dim]:
    pairs = st.tuples(parts, parts)
    return st.one_of(
        pairs.map(lambda p: p[0] + p[1]),
        pairs.map(lambda p: p[0] - p[1]),
        pairs.map(lambda p: p[0] * p[1]),
        parts.map(lambda p: -p),
        st.tuples(parts, st.integers(2, 5)).map(lambda p: p[0] // Dim.of(p[1]) or p[0]),
        st.tuples(parts, st.integers(1, 5)).map(lambda p: p[0].least(p[1]) or p[0]),
    )


dims = st.recursive(plain(), combined, max_leaves=6)


def at(extent: Dim, binding: Mapping[str, int]) -> int:
    """What a polynomial comes to."""
    return sum(coefficient * prod(factor_at(f, binding) for f in factors) for factors, coefficient in extent.terms)


def factor_at(factor: Factor, binding: Mapping[str, int]) -> int:
    match factor:
        case Floor(dividend, divisor):
            return at(dividend, binding) // divisor
        case Least(extent, most):
            return min(at(extent, binding), most)
    return binding[factor]


def total(parts: Iterable[Dim]) -> Dim:
    return sum(parts, Dim.of(0))


@laws
@given(dims, dims, bindings)
def test_it_computes_as_numbers_do(a: Dim, b: Dim, binding: dict[str, int]) -> None:
    x, y = at(a, binding), at(b, binding)
    assert at(a + b, binding) == x + y
    assert at(a - b, binding) == x - y
    assert at(a * b, binding) == x * y
    assert at(-a, binding) == -x


@laws
@given(dims, dims, bindings)
def test_a_quotient_is_rounded_down(a: Dim, b: Dim, binding: dict[str, int]) -> None:
    quotient, divisor = a // b, at(b, binding)
    if quotient is not None and divisor:
        assert at(quotient, binding) == at(a, binding) // divisor


@laws
@given(dims, dims)
def test_products_divide(a: Dim, b: Dim) -> None:
    if b.number != 0 and (len(b.terms) == 1 or a.number == 1):
        assert (a * b) // b == a


@laws
@given(dims, st.integers(1, 6))
def test_a_quotient_of_extents_is_an_extent(a: Dim, divisor: int) -> None:
    quotient = a // Dim.of(divisor)
    if a.is_extent:
        assert quotient is not None
        assert quotient.is_extent


@laws
@given(dims, dims, dims)
def test_equal_polynomials_are_equal(a: Dim, b: Dim, c: Dim) -> None:
    for left, right in (
        (a + b, b + a),
        (a * b, b * a),
        (a + (b + c), (a + b) + c),
        (a * (b * c), (a * b) * c),
        (a * (b + c), a * b + a * c),
        (a - b, -(b - a)),
        (a - a, Dim.of(0)),
        (a + a, a * Dim.of(2)),
    ):
        assert left == right
        assert hash(left) == hash(right)
        assert str(left) == str(right)


@laws
@given(dims, dims, st.lists(bindings, min_size=8, max_size=8))
def test_unequal_polynomials_differ_somewhere(a: Dim, b: Dim, many: list[dict[str, int]]) -> None:
    if any(at(a, binding) != at(b, binding) for binding in many):
        assert a != b


@laws
@given(dims, dims, st.integers(2, 5))
def test_equal_quotients_are_equal(a: Dim, b: Dim, divisor: int) -> None:
    d = Dim.of(divisor)
    assert (a + b) // d == (b + a) // d
    assert (a * (b + b)) // d == (b * a * Dim.of(2)) // d


@laws
@given(dims, bindings)
def test_what_is_known_of_it_is_true(a: Dim, binding: dict[str, int]) -> None:
    value = at(a, binding)
    assert a.number in {None, value}
    assert not a.is_extent or value >= 0
    assert not a.is_positive or value > 0
    assert a.is_extent or not a.is_positive
    assert a.symbol is None or value == binding[a.symbol]


@pytest.mark.parametrize(
    ("dividend", "divisor", "quotient"), [(7, 2, 3), (-7, 2, -4), (7, -2, -4), (-8, 2, -4), (0, 5, 0), (0, -5, 0)]
)
def test_numbers_are_rounded_down(dividend: int, divisor: int, quotient: int) -> None:
    assert Dim.of(dividend) // Dim.of(divisor) == Dim.of(quotient)


N, M, ONE, TWO = Dim.of("N"), Dim.of("M"), Dim.of(1), Dim.of(2)


def test_what_is_not_known_is_not_told() -> None:
    assert N // Dim.of(0) is None
    assert N // (N - N) is None
    assert ONE // N is None
    assert N // M is None
    assert (N - ONE) // TWO is None
    assert N // -TWO is None
    assert (N - ONE).number is None
    assert (N + ONE).symbol is None
    assert TWO.symbol is None
    assert (N // TWO or N).symbol is None
    assert not (N - ONE).is_extent
    assert not N.is_positive
    assert Dim.of(0).is_extent
    assert not Dim.of(0).is_positive


def test_what_divides_is_taken_out() -> None:
    assert (N * M * TWO) // N == M * TWO
    assert (N + M) // (N + M) == ONE
    assert (N * Dim.of(4) + Dim.of(3)) // Dim.of(4) == N
    assert (N * TWO + TWO) // Dim.of(4) == (N + ONE) // TWO
    assert (N * Dim.of(4) + M) // Dim.of(4) == N + (M // Dim.of(4) or ONE)


def test_it_is_readable() -> None:
    assert str(total([N * M * TWO, M, Dim.of(3)])) == "3 + M + 2*M*N"
    assert str(Dim.of(0)) == "0"
    assert str(N - ONE) == "-1 + N"
    assert str((N + ONE) // TWO) == "(1 + N)//2"


def test_names_that_look_like_polynomials_are_names() -> None:
    assert Dim.of("2*N") != N * TWO
    assert Dim.of("1 + N") != N + ONE
    assert Dim.of("(N)//2") != N // TWO
    assert Dim.of("2") != TWO
    assert Dim.of("2*N") // N is None
