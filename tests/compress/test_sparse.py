"""Which weights go, and how well the others make up for them."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graphopt.analysis.frontier import Rows
from graphopt.compress.sparse import ROUNDS, SHARES, allocated, dearest, fit_kept, solved, thinned

Array = NDArray[Any]


def moments(columns: int, seed: int = 0) -> Array:
    """Second moments of correlated data."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((columns, columns)) @ random.standard_normal((columns, 50 * columns))
    gram: Array = x @ x.T / x.shape[1]
    return gram


def loss(change: Array, gram: Array) -> float:
    return float(np.sum(change @ gram * change))


def last(matrix: Array, gram: Array, share: float, among: tuple[int, int] | None = None) -> tuple[Array, Array]:
    *_, found = thinned(matrix, gram, [share * r for r in ROUNDS], among)
    return found


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(2, 40), st.floats(0.0, 1.0), st.integers(0, 2**32 - 1))
def test_the_part_that_is_asked_for_goes(rows: int, columns: int, share: float, seed: int) -> None:
    matrix = np.random.default_rng(seed).standard_normal((rows, columns))
    stays, weights = last(matrix, moments(columns, seed), share)
    assert np.sum(~stays) == round(share * matrix.size)
    assert not weights[~stays].any()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(2, 8), st.data(), st.integers(0, 2**32 - 1))
def test_so_many_of_every_group_stay(rows: int, groups: int, among: int, draw: st.DataObject, seed: int) -> None:
    count = draw.draw(st.integers(1, among - 1))
    matrix = np.random.default_rng(seed).standard_normal((rows, groups * among))
    stays, _ = last(matrix, moments(groups * among, seed), 1 - count / among, (count, among))
    assert np.all(stays.reshape(rows, groups, among).sum(axis=-1) == count)


def test_what_is_gone_stays_gone() -> None:
    matrix = np.random.default_rng(0).standard_normal((7, 24))
    rounds = [stays for stays, _ in thinned(matrix, moments(24), [0.1, 0.3, 0.6, 0.9])]
    assert [int(np.sum(~s)) for s in rounds] == [17, 50, 101, 151]
    assert all(not np.any(later & ~earlier) for earlier, later in pairwise(rounds))


def test_what_others_can_stand_in_for_goes_for_free() -> None:
    """Two columns that hold the same: one of them takes over the other one's weight."""
    gram = np.eye(4)
    gram[0, 2] = gram[2, 0] = 1.0
    stays, weights = last(np.array([[5.0, 1.0, 5.0, 2.0]]), gram, 0.25)
    assert stays.tolist() == [[False, True, True, True]]
    np.testing.assert_allclose(weights, [[0, 1, 10, 2]], atol=0.1)


def test_cost_is_a_better_choice_than_magnitude_and_rounds_than_one() -> None:
    random = np.random.default_rng(1)
    gram, matrix = moments(48), random.standard_normal((20, 48))
    small = dearest(np.abs(matrix), 0.5)
    start = np.where(small, matrix, 0)
    by_size = start + solved(gram, (matrix - start) @ gram, small)
    ((_, once),) = thinned(matrix, gram, [0.5])
    errors = [loss(w - matrix, gram) for w in (last(matrix, gram, 0.5)[1], once, by_size, start)]
    assert errors[0] < 0.6 * errors[1]
    assert errors[0] < 0.6 * errors[2]
    assert errors[2] < 0.6 * errors[3]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_every_row_is_solved_for_what_stays_of_it(rows: int, columns: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    system = moments(columns, seed) + np.eye(columns)
    right, stays = random.standard_normal((rows, columns)), random.random((rows, columns)) < 0.6
    found = solved(system, right, stays)
    assert not found[~stays].any()
    for row in range(rows):
        at = np.flatnonzero(stays[row])
        if at.size:
            expected = np.linalg.solve(system[np.ix_(at, at)], right[row, at])
            np.testing.assert_allclose(found[row, at], expected, atol=1e-4 * max(1.0, float(np.abs(expected).max())))


def problem(*, groups: int = 1, noise: float = 0.05, biased: bool = True) -> tuple[Any, ...]:
    """Rows of a product that gives what it should, its weights and bias, and which of the weights stay."""
    out, columns, count = 5, 12, 600
    random = np.random.default_rng(columns * groups)
    x = random.standard_normal((groups, columns, columns)) @ random.standard_normal((groups, columns, count))
    mean, matrix, bias = (
        x.mean(axis=-1) * biased,
        random.standard_normal((groups, out, columns)),
        random.standard_normal((groups, out)),
    )
    target = matrix @ x + bias[..., None] + noise * random.standard_normal((groups, out, count))
    centred = (x - mean[..., None]).astype(np.float32)
    rows = Rows(centred, mean.astype(np.float32), target.astype(np.float32), None, count * 3 // 4)
    return rows, matrix, bias, random.random(matrix.shape) < 0.6


def held(rows: Rows, matrix: Array, bias: Array, low: float = -inf) -> float:
    """Mean squared error on the rows that were held back; below a bound all is one."""
    x = rows.x[..., rows.fitted :].astype(np.float64) + rows.mean[..., None]
    found, wanted = matrix @ x + bias[..., None], rows.target[..., rows.fitted :]
    return float(np.mean((np.maximum(found, low) - np.maximum(wanted, low)) ** 2))


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("low", [-inf, 0.0])
def test_the_fit_pays_where_it_was_not_fitted(groups: int, biased: bool, low: float) -> None:  # noqa: FBT001
    rows, matrix, bias, stays = problem(groups=groups, biased=biased)
    found = fit_kept(rows, matrix, bias, stays, matrix, bounds=(low, inf), biased=biased)
    assert not found.matrix[~stays].any()
    assert found.after < 0.8 * found.before
    before, after = held(rows, np.where(stays, matrix, 0), bias, low), held(rows, found.matrix, found.bias, low)
    assert after < 0.85 * before
    assert biased or np.array_equal(found.bias, bias)


def test_each_row_is_fitted_as_well_as_it_can_be() -> None:
    rows, matrix, bias, stays = problem()
    found = fit_kept(rows, matrix, bias, stays, matrix)
    wide = np.vstack([rows.x[0] + rows.mean[0][:, None], np.ones((1, rows.x.shape[-1]))])
    for row in range(matrix.shape[1]):
        at = np.append(stays[0, row], values=True)
        expected = np.linalg.lstsq(wide[at].T, rows.target[0, row], rcond=None)[0]
        np.testing.assert_allclose(found.matrix[0, row][stays[0, row]], expected[:-1], atol=0.02)
        assert abs(found.bias[0, row] - expected[-1]) < 0.02


def test_with_nothing_gone_there_is_nothing_to_fit() -> None:
    rows, matrix, bias, stays = problem(noise=0.0)
    found = fit_kept(rows, matrix, bias, np.ones_like(stays), matrix)
    np.testing.assert_allclose(found.matrix, matrix, atol=1e-3)
    assert found.after <= found.before


def test_a_fit_that_does_not_pay_is_left() -> None:
    """What is held back says the opposite of what is fitted."""
    rows, matrix, bias, stays = problem(noise=0.0)
    target = rows.target.copy()
    target[..., : rows.fitted] *= -1
    target[..., rows.fitted :] = (np.where(stays, matrix, 0) @ (rows.x + rows.mean[..., None]) + bias[..., None])[
        ..., rows.fitted :
    ]
    found = fit_kept(Rows(rows.x, rows.mean, target, None, rows.fitted), matrix, bias, stays, matrix)
    assert found.damping is None
    assert np.array_equal(found.matrix, np.where(stays, matrix, 0))
    assert found.bias is bias


def test_an_operand_added_behind_is_made_up_for() -> None:
    rows, matrix, bias, stays = problem()
    base = np.random.default_rng(1).standard_normal(rows.target.shape).astype(np.float32)
    added = Rows(rows.x, rows.mean, rows.target + base, base, rows.fitted)
    plain, found = (fit_kept(r, matrix, bias, stays, matrix) for r in (rows, added))
    np.testing.assert_allclose(found.matrix, plain.matrix, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(10, 10_000), st.floats(1e-3, 1e3)), min_size=1, max_size=6), st.floats(0.01, 0.99)
)
def test_a_share_of_all_goes_where_least_is_lost(products: list[tuple[int, float]], share: float) -> None:
    sizes = np.array([size for size, _ in products])
    at = np.array(SHARES)
    losses = np.stack([scale * at**2 for _, scale in products])
    found = allocated(losses, sizes, share)
    assert abs(found @ sizes - share * sizes.sum()) <= 1e-6 * sizes.sum()

    def total(parts: Array) -> float:
        return sum(float(np.interp(s, at, loss)) for s, loss in zip(parts, losses, strict=True))

    assert total(found) <= total(np.full(len(sizes), share)) * (1 + 1e-6) + 1e-9
