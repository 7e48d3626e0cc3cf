from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graphopt.analysis import moments
from graphopt.analysis.moments import Kind
from graphopt.compress import axis
from graphopt.compress.axis import Curve, Reader, curve, ranked

Array = NDArray[Any]


def reader(units: int, kernel: int, *, out: int = 3, stay: int = 0, seed: int = 0, gain: float = 1.0) -> Reader:
    random = np.random.default_rng(seed)
    columns = units * kernel + stay
    x = random.standard_normal((columns, columns)) @ random.standard_normal((columns, 10 * columns)) + 1
    unit = random.permutation(np.concatenate([np.repeat(np.arange(units), kernel), np.full(stay, -1)]))
    matrix = random.standard_normal((out, columns))
    return Reader(matrix, x @ x.T / x.shape[1], x.mean(axis=1), unit, gain, 1e-3)


def lost(readers: list[Reader], gone: set[int]) -> float:
    """By least squares: how much less of W·x is told by the columns that stay."""
    total = 0.0
    for r in readers:
        moment = r.gram - np.outer(r.mean, r.mean)
        moment = moment + r.damping * np.mean(np.diagonal(moment)) * np.eye(len(moment))
        out = np.isin(r.unit, list(gone))
        new = r.matrix[:, ~out] + r.matrix[:, out] @ moment[out][:, ~out] @ np.linalg.inv(moment[~out][:, ~out])
        gap = r.matrix.copy()
        gap[:, ~out] -= new
        total += r.gain * float(np.trace(gap @ moment @ gap.T))
    return total


def brute(units: int, readers: list[Reader]) -> Curve:
    order: list[int] = []
    errors = [0.0]
    while len(order) < units:
        rest = [u for u in range(units) if u not in order]
        found = {u: lost(readers, {*order, u}) for u in rest}
        best = min(rest, key=lambda u: found[u])
        order.append(best)
        errors.append(found[best])
    return Curve(np.array(order), np.array(errors)[::-1])


@pytest.mark.parametrize(
    "readers",
    [
        [reader(6, 1)],
        [reader(5, 4)],
        [reader(5, 2, stay=3)],
        [reader(5, 4), reader(5, 1, seed=1, gain=3.0), reader(5, 2, stay=2, seed=2)],
    ],
)
def test_it_is_what_leaving_out_one_after_the_other_costs(readers: list[Reader]) -> None:
    units = max(int(r.unit.max()) for r in readers) + 1
    found, expected = curve(units, readers), brute(units, readers)
    assert found.order.tolist() == expected.order.tolist()
    np.testing.assert_allclose(found.error, expected.error, rtol=1e-6, atol=1e-9)


def test_the_error_of_a_width_is_that_of_the_units_that_go() -> None:
    readers = [reader(6, 2)]
    order = np.array([3, 1, 5, 0, 2, 4])
    found = curve(6, readers, order=order)
    assert found.order.tolist() == order.tolist()
    np.testing.assert_allclose(found.error, [lost(readers, {*order[: 6 - k].tolist()}) for k in range(7)], atol=1e-9)
    assert found.error[6] == 0


def test_of_two_units_that_are_the_same_one_goes_for_free() -> None:
    r = reader(4, 1)
    twin = np.array([0, 1, 2, 3, 0])
    gram = r.gram[np.ix_(np.argsort(r.unit), np.argsort(r.unit))]
    mean = r.mean[np.argsort(r.unit)]
    wide = Reader(np.ones((2, 5)), gram[np.ix_(twin, twin)], mean[twin], np.arange(5), 1.0, 1e-9)
    found = curve(5, [wide])
    assert found.order[0] in {0, 4}
    assert found.error[4] < 1e-6 * found.error[0]


def test_many_at_once_is_almost_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    readers = [reader(100, 1, out=5)]
    exact = curve(100, readers)
    monkeypatch.setattr(axis, "_EXACT", 0)
    found = curve(100, readers)
    assert sorted(found.order.tolist()) == list(range(100))
    np.testing.assert_allclose(
        found.error[[10, 50, 90]],
        [lost(readers, set(found.order[: 100 - k].tolist())) for k in (10, 50, 90)],
        rtol=1e-6,
    )
    assert np.all(found.error[1:] <= 1.05 * exact.error[1:] + 1e-9)
    given = curve(100, readers, order=exact.order)
    np.testing.assert_allclose(given.error, exact.error, rtol=1e-6, atol=1e-9)


def test_no_choice_of_so_many_is_much_better() -> None:
    readers = [reader(7, 2, seed=5)]
    found = curve(7, readers)
    for k in range(1, 7):
        best = min(lost(readers, set(gone)) for gone in combinations(range(7), 7 - k))
        assert best <= found.error[k] * (1 + 1e-9)
        assert found.error[k] <= 2 * best


def test_many_outputs_are_mixed() -> None:
    r = reader(8, 1, out=3000)
    assert len(axis._mixed(r.matrix)) == 512
    found = curve(8, [r])
    np.testing.assert_allclose(found.error[0], lost([r], set(range(8))), rtol=0.3)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("kernel", [1, 2])
def test_fewer_rows_than_columns_give_the_same_without_their_gram_matrix(
    exact: bool,  # noqa: FBT001
    kernel: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not exact:
        monkeypatch.setattr(axis, "_EXACT", 0)
    random = np.random.default_rng(0)
    columns = 70 * kernel
    x = (random.standard_normal((columns, 20)) + 1).astype(np.float32)
    matrix, unit = random.standard_normal((4, columns)), np.repeat(np.arange(70), kernel)
    gram, mean = x.astype(np.float64) @ x.T / 20, x.mean(axis=1, dtype=np.float64)
    full = Reader(matrix, gram, mean, unit, 2.0)
    rows = Reader(matrix, x, mean, unit, 2.0, kind="rows")
    found, expected = (curve(70, [r]) for r in (rows, full))
    assert found.order.tolist() == expected.order.tolist()
    np.testing.assert_allclose(found.error, expected.error, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(rows.energy, full.energy, rtol=1e-5)
    assert rows.without(np.arange(9)) == pytest.approx(full.without(np.arange(9)), rel=1e-5)


@pytest.mark.parametrize("kind", ["full", "rows"])
def test_single_precision_will_do(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    x, matrix = (random.standard_normal((60, 40)) + 1).astype(np.float32), random.standard_normal((4, 60))
    gram, mean = x if kind == "rows" else x @ x.T / 40, x.mean(axis=1, dtype=np.float64)
    readers = [Reader(matrix, gram, mean, np.arange(60), kind=kind)]
    expected = curve(60, readers)
    monkeypatch.setattr(moments, "_SINGLE", 0)
    found = curve(60, readers, order=expected.order)
    np.testing.assert_allclose(found.error, expected.error, rtol=1e-3, atol=1e-4 * expected.error[0])
    monkeypatch.setattr(axis, "_EXACT", 0)
    found = curve(60, readers, order=expected.order)
    np.testing.assert_allclose(found.error, expected.error, rtol=1e-3, atol=1e-4 * expected.error[0])


def test_of_a_diagonal_each_unit_is_on_its_own() -> None:
    r = reader(9, 2, seed=4)
    energy = np.diagonal(r.gram)
    thin = Reader(r.matrix, energy, r.mean, r.unit, r.gain, r.damping, "diagonal")
    full = Reader(
        r.matrix, np.diag(energy - r.mean**2) + np.outer(r.mean, r.mean), *(r.mean, r.unit, r.gain, r.damping)
    )
    found, expected = (curve(9, [r]) for r in (thin, full))
    assert found.order.tolist() == expected.order.tolist()
    np.testing.assert_allclose(found.error, expected.error, rtol=1e-6, atol=1e-9)
    assert thin.without(np.array([3])) == pytest.approx(float(np.sum((r.matrix**2 * energy)[:, r.unit == 3])))


def test_rounding_that_leaves_a_matrix_indefinite_costs_some_damping() -> None:
    r = reader(6, 1)
    gram = r.gram - 1.1 * np.linalg.eigvalsh(r.gram)[0] * np.eye(6)
    found = curve(6, [Reader(r.matrix, gram, np.zeros(6), r.unit, damping=1e-9)])
    assert np.isfinite(found.error).all()
    assert np.all(np.diff(found.error) <= 0)


def test_scores_are_ranked() -> None:
    assert ranked(np.array([3.0, 1, 2])).tolist() == [1, 2, 0]


def test_what_nobody_reads_costs_nothing() -> None:
    assert curve(3, []).error.tolist() == [0, 0, 0, 0]
