from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graphopt.analysis.frontier import Rows
from graphopt.compress import refit
from graphopt.compress.refit import _System, fit, times

Array = NDArray[Any]


def problem(columns: int, rows: int, *, out: int = 3, groups: int = 1, noise: float = 0.1) -> tuple[Rows, Array, Array]:
    """Rows of a product whose weights have gone astray, and these weights."""
    random = np.random.default_rng(columns * rows)
    x = random.standard_normal((groups, columns, columns)) @ random.standard_normal((groups, columns, rows))
    mean = x.mean(axis=-1)
    matrix = random.standard_normal((groups, out, columns))
    target = matrix @ x + noise * random.standard_normal((groups, out, rows)) + 0.5
    astray = matrix + 0.3 * random.standard_normal(matrix.shape)
    centred = (x - mean[..., None]).astype(np.float32)
    bias = random.standard_normal((groups, out))
    return Rows(centred, mean.astype(np.float32), target.astype(np.float32), None, rows * 3 // 4), astray, bias


def by_normal_equations(rows: Rows, matrix: Array, damping: float) -> tuple[Array, Array]:
    """The fit with the bias as one more column that is not damped, group by group."""
    x = rows.x.astype(np.float64) + rows.mean[..., None]
    found = []
    for data, target, old in zip(x, rows.target.astype(np.float64), matrix, strict=True):
        count = data.shape[1]
        wide = np.vstack([data, np.ones(count)])
        ridge = damping * np.mean(np.var(data, axis=1)) * count * np.diag([*np.ones(len(data)), 0])
        start = np.hstack([old, np.zeros((len(old), 1))])
        found.append((target @ wide.T + start @ ridge) @ np.linalg.inv(wide @ wide.T + ridge))
    stacked = np.stack(found)
    return stacked[..., :-1], stacked[..., -1]


@pytest.mark.parametrize(("columns", "rows", "groups"), [(6, 80, 1), (4, 40, 5), (1, 30, 4), (40, 24, 1), (12, 8, 3)])
@pytest.mark.parametrize("damping", [1e-3, 1.0])
def test_it_is_ridge_regression_towards_the_old_weights(columns: int, rows: int, groups: int, damping: float) -> None:
    data, matrix, bias = problem(columns, rows, groups=groups)
    found = fit(data, matrix, bias, dampings=[damping])
    assert found.damping == damping
    assert found.form == ("primal" if columns <= rows else "dual")
    expected = by_normal_equations(data, matrix, damping)
    np.testing.assert_allclose(found.matrix, expected[0], atol=2e-4)
    np.testing.assert_allclose(found.bias, expected[1], atol=2e-3)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("stop", [15, 20])
def test_the_dual_form_solves_the_primal_problem(biased: bool, stop: int) -> None:  # noqa: FBT001
    data, matrix, bias = problem(20, 20)
    residual = data.target[..., :stop] - (matrix @ data.x[..., :stop]).astype(np.float32)
    primal, dual = _System(data, biased=biased), _System(data, biased=biased)
    dual.form = "dual"
    for damping in (1e-2, 10.0, inf):
        parts = [system.part(stop) for system in (primal, dual)]
        np.testing.assert_allclose(parts[0]._scale, parts[1]._scale, rtol=1e-6)
        one, other = (part.solver(damping)(*part.right(residual, bias)) for part in parts)
        np.testing.assert_allclose(one[0], other[0], atol=1e-4)
        np.testing.assert_allclose(one[1], other[1], atol=1e-4)


def test_weights_that_cannot_be_bettered_stay() -> None:
    data, matrix, bias = problem(4, 60)
    x = data.x + data.mean[..., None]
    exact = Rows(data.x, data.mean, (matrix @ x + bias[..., None]).astype(np.float32), None, data.fitted)
    found = fit(exact, matrix, bias)
    assert found.damping is None
    assert found.matrix is matrix
    assert found.bias is bias


def test_where_rows_are_few_the_old_weights_are_trusted() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((1, 100, 12)).astype(np.float32)
    matrix, bias = random.standard_normal((1, 2, 100)), np.zeros((1, 2))
    target = (matrix @ x + 3 + 0.1 * random.standard_normal((1, 2, 12))).astype(np.float32)
    found = fit(Rows(x, np.zeros((1, 100), np.float32), target, None, 9), matrix, bias)
    assert found.damping is not None
    assert found.damping >= 1
    np.testing.assert_allclose(found.bias, 3, atol=0.3)


def test_no_rows_held_back_change_nothing() -> None:
    data, matrix, bias = problem(4, 60)
    found = fit(Rows(data.x, data.mean, data.target, None, 60), matrix, bias)
    assert found.damping is None


def test_an_operand_added_behind_counts() -> None:
    data, matrix, bias = problem(6, 80)
    base = np.random.default_rng(1).standard_normal(data.target.shape).astype(np.float32)
    added = Rows(data.x, data.mean, data.target + base, base, data.fitted)
    plain, found = (fit(d, matrix, bias, dampings=[0.1]) for d in (data, added))
    np.testing.assert_allclose(found.matrix, plain.matrix, atol=1e-4)
    np.testing.assert_allclose(found.bias, plain.bias, atol=1e-4)


def one_sided(data: Rows, matrix: Array, bias: Array, low: float, high: float) -> float:
    """The objective itself: what the clipped values differ by, and what is on the wrong side counts from there."""
    x = data.x.astype(np.float64) + data.mean[..., None]
    value = matrix @ x + bias[..., None] + (0 if data.base is None else data.base)
    gap = value - data.target
    gap = np.where(data.target <= low, np.maximum(value - low, 0), gap)
    gap = np.where(data.target >= high, np.minimum(value - high, 0), gap)
    return float(np.mean(gap**2))


@pytest.mark.parametrize(("low", "high"), [(0.0, inf), (0.0, 6.0), (-inf, 1.0)])
@pytest.mark.parametrize("based", [True, False])
def test_one_sided_steps_only_lower_the_one_sided_error(low: float, high: float, based: bool) -> None:  # noqa: FBT001
    data, matrix, bias = problem(8, 400, noise=4.0)
    if based:
        base = np.random.default_rng(1).standard_normal(data.target.shape).astype(np.float32)
        data = Rows(data.x, data.mean, data.target, base, data.fitted)
    tiny, errors = 1e-6, []
    for steps in (0, 1, 2, 4, 8):
        found = fit(data, matrix, bias, bounds=(low, high), dampings=[tiny], steps=steps)
        assert found.damping == tiny
        errors.append(one_sided(data, found.matrix, found.bias, low, high))
    assert all(after <= before * (1 + 1e-4) for before, after in pairwise(errors))
    assert errors[-1] < errors[0] * 0.999


def test_without_a_place_for_a_bias_the_mean_is_fitted_by_the_matrix() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((1, 3, 100)).astype(np.float32) + 2
    true = random.standard_normal((1, 2, 3))
    rows = Rows(x, np.zeros((1, 3), np.float32), (true @ x).astype(np.float32), None, 75)
    found = fit(rows, true + 0.2, np.zeros((1, 2)), biased=False, dampings=[1e-6])
    np.testing.assert_allclose(found.matrix, true, atol=1e-3)
    assert not found.bias.any()


@pytest.mark.parametrize("scale", [1.0, 1e30])  # whose products overflow single precision
def test_large_products_are_made_piece_by_piece(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refit, "_PANEL", 4)
    monkeypatch.setattr(refit, "_BLOCK", 7)
    random = np.random.default_rng(0)
    a, b = (scale * random.standard_normal((2, n, 20)).astype(np.float32) for n in (11, 9))
    for other in (a, b):
        exact = a.astype(np.float64) @ other.transpose(0, 2, 1).astype(np.float64)
        np.testing.assert_allclose(times(a, other), exact, atol=1e-5 * scale**2)
    np.testing.assert_array_equal(times(a, a), times(a, a).transpose(0, 2, 1))
