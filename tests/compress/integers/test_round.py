"""Rounding: what it minimizes it lowers, what it answers can be written down, and whatever data it is given."""

from __future__ import annotations

import tracemalloc
from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graphopt.analysis.frontier import Rows
from graphopt.compress.integers.round import Rounded, _damped, _upper, _ways, rounded
from graphopt.compress.integers.steps import BITS, Steps
from graphopt.compress.refit import Goal

Array = NDArray[Any]
TINY = np.finfo(np.float32).tiny


def rows(x: Array, target: Array, *, biased: bool = True, base: Array | None = None) -> Rows:
    mean = x.mean(axis=-1) if biased else np.zeros(x.shape[:2])
    told = None if base is None else base.astype(np.float32)
    held = x.shape[-1] * 3 // 4
    return Rows(
        (x - mean[..., None]).astype(np.float32), mean.astype(np.float32), target.astype(np.float32), told, held
    )


def problem(
    groups: int = 1, out: int = 5, columns: int = 8, count: int = 120, *, seed: int = 0, noise: float = 0.0
) -> tuple[Array, Array, Array, Array]:
    """Correlated data, weights, a bias, and what they should give."""
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((groups, columns, columns)) @ draw.standard_normal((groups, columns, count)) + 1
    matrix, bias = draw.standard_normal((groups, out, columns)), draw.standard_normal((groups, out))
    return x, matrix, bias, matrix @ x + bias[..., None] + noise * draw.standard_normal((groups, out, count))


def assert_written(made: Rounded, shape: tuple[int, ...], bits: int) -> None:
    assert made.codes.dtype == np.int8
    assert made.codes.shape == shape
    assert np.abs(made.codes.astype(int)).max(initial=0) <= 2 ** (bits - 1) - 1
    assert made.scale.dtype == np.float32
    assert made.scale.shape == made.bias.shape == shape[:2]
    assert np.all(np.isfinite(made.scale))
    assert np.all(made.scale >= TINY)
    assert np.all(np.isfinite(made.bias))
    np.testing.assert_array_equal(made.matrix, made.codes * made.scale[..., None].astype(np.float64))


@settings(max_examples=60, deadline=None)
@given(
    groups=st.integers(1, 3),
    out=st.integers(1, 4),
    columns=st.sampled_from([1, 2, 7, 64, 65, 70]),
    rank=st.integers(1, 12),
    bits=st.sampled_from(BITS),
    seed=st.integers(0, 2**16),
)
def test_descent_is_never_worse_than_the_nearest_codes(
    groups: int, out: int, columns: int, rank: int, bits: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    matrix = draw.standard_normal((groups, out, columns)) * 10.0 ** draw.integers(-3, 3, (groups, out, 1))
    factor = draw.standard_normal((groups, columns, rank))
    gram = factor @ factor.transpose(0, 2, 1)
    system = gram + 1e-2 * (np.trace(gram, axis1=1, axis2=2) / columns)[:, None, None] * np.eye(columns)
    found = {}
    for way, made in _ways(matrix, system, Steps(bits)):
        codes, scale = made.codes, made.scale[..., 0].astype(np.float32)
        assert np.abs(codes.astype(int)).max() <= 2 ** (bits - 1) - 1
        np.testing.assert_array_equal(scale, made.scale[..., 0])
        assert np.all(scale >= TINY)
        gap = matrix - codes * scale[..., None].astype(np.float64)
        found[way] = np.einsum("goi,gij,goj->go", gap, system, gap)
    assert np.all(found["descent"] <= found["nearest"] * (1 + 1e-6))


def test_descent_pays_where_columns_are_alike() -> None:
    x, matrix, _, _ = problem(columns=16)
    gram = x @ x.transpose(0, 2, 1) / x.shape[-1]
    error = {}
    for way, made in _ways(matrix, _damped(gram.copy()), Steps(4)):
        codes, scale = made.codes, made.scale[..., 0]
        gap = matrix - codes * scale[..., None]
        error[way] = float(np.trace((gap @ gram @ gap.transpose(0, 2, 1))[0]))
    assert error["descent"] < 0.7 * error["nearest"]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("groups", "out"), [(1, 5), (3, 4), (6, 1)], ids=["plain", "grouped", "depthwise"])
def test_codes_fit_into_their_bits_and_the_error_is_what_is_told(
    groups: int,
    out: int,
    biased: bool,  # noqa: FBT001
    bits: int,
) -> None:
    x, matrix, bias, target = problem(groups, out, noise=0.1)
    given_ = rows(x, target, biased=biased)
    made = rounded(given_, matrix, bias, steps=Steps(bits), biased=biased)
    assert_written(made, matrix.shape, bits)
    held = slice(given_.fitted, None)
    gap = made.matrix @ x[..., held] + made.bias[..., None] - target[..., held]
    expected = np.sum(gap**2) / gap.shape[-1] / np.sum(np.var(target, axis=-1))
    assert made.after == pytest.approx(expected, rel=1e-2, abs=1e-7)
    if not biased:
        np.testing.assert_array_equal(made.bias, bias)


def test_fewer_bits_cost_more() -> None:
    x, matrix, bias, target = problem(columns=20, count=400)
    errors = [rounded(rows(x, target), matrix, bias, steps=Steps(bits)).after for bits in (8, 4, 3)]
    assert errors[0] < 1e-4
    assert errors[0] < errors[1] < errors[2] < 0.2


def test_rows_held_back_choose() -> None:
    x, matrix, bias, target = problem(columns=12, count=400, noise=0.05)
    given_ = rows(x, target + 0.5 * x[:, :1])  # what upstream lost the weights can make up for
    refit = rounded(given_, matrix, bias)
    assert refit.way.startswith("refit ")
    assert refit.after < 0.5 * refit.before
    few = rounded(rows(x[..., :8], target[..., :8]), matrix, bias)
    assert "refit" not in few.way


def test_a_mean_that_moved_is_put_right_by_the_bias() -> None:
    x, matrix, bias, target = problem(6, 1, columns=9, count=60)
    given_ = rows(x, target + 3)
    made = rounded(given_, matrix, bias)
    assert "bias" in made.way or "refit" in made.way
    np.testing.assert_allclose((made.matrix @ x + made.bias[..., None] - target).mean(axis=-1), 3, atol=0.05)


def test_what_is_clipped_does_not_move_the_mean() -> None:
    x, matrix, bias, target = problem(count=400)
    clipped = np.maximum(target, 0)
    goal = Goal(rows(x, clipped), (0.0, inf))
    level = bias + (matrix @ x.mean(axis=-1)[..., None])[..., 0]
    np.testing.assert_allclose(goal.balanced(matrix, level, slice(400)), level, atol=1e-4)
    plain = Goal(rows(x, clipped), (-inf, inf))
    assert np.abs(plain.balanced(matrix, level, slice(400)) - level).max() > 0.1


def test_an_operand_of_a_sum_counts() -> None:
    x, matrix, bias, target = problem()
    base = np.random.default_rng(3).standard_normal(target.shape) * 5
    plain, added = rounded(rows(x, target), matrix, bias), rounded(rows(x, target + base, base=base), matrix, bias)
    np.testing.assert_array_equal(plain.codes, added.codes)
    np.testing.assert_allclose(plain.bias, added.bias, atol=1e-5)


def draw(*shape: int) -> Array:
    return np.random.default_rng(7).standard_normal(shape)


ODD: dict[str, tuple[Array, Array]] = {
    "dead columns": (np.concatenate([draw(1, 4, 100), np.zeros((1, 4, 100))], axis=1), draw(1, 5, 8)),
    "constant columns": (np.concatenate([draw(1, 4, 100), np.full((1, 4, 100), 3.0)], axis=1), draw(1, 5, 8)),
    "nothing but zeros": (np.zeros((1, 8, 100)), draw(1, 5, 8)),
    "weights of zero": (draw(1, 8, 100), np.zeros((1, 5, 8))),
    "a channel of zeros": (draw(1, 8, 100), draw(1, 5, 8) * np.array([1, 0, 1, 1, 1])[:, None]),
    "tiny channels": (draw(1, 8, 100), draw(1, 5, 8) * np.array([1, 1e-44, 1e-38, 1e-30, 1])[:, None]),
    "one column": (draw(1, 1, 100), draw(1, 5, 1)),
    "few rows": (draw(1, 50, 8), draw(1, 5, 50)),
    "two rows": (draw(1, 5, 2), draw(1, 5, 5)),
    "one row": (draw(1, 5, 1), draw(1, 5, 5)),
    "huge data": (draw(1, 5, 50) * 1e15, draw(1, 5, 5)),
    "tiny data": (draw(1, 5, 50) * 1e-30, draw(1, 5, 5)),
}


@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("bits", [8, 3])
@pytest.mark.parametrize("biased", [True, False])
def test_odd_data_and_weights(case: str, bits: int, biased: bool) -> None:  # noqa: FBT001
    x, matrix = ODD[case]
    bias = draw(*matrix.shape[:2])
    target = matrix @ x + bias[..., None]
    made = rounded(rows(x, target, biased=biased), matrix, bias, steps=Steps(bits), biased=biased)
    assert_written(made, matrix.shape, bits)
    scale = np.abs(matrix).max(axis=-1)
    gone = np.abs(made.matrix - matrix).max(axis=-1)
    assert np.all(gone <= scale + TINY * 128)
    if bits == 8 and len(x[0, 0]) > 50:
        gap = made.matrix @ x + made.bias[..., None] - target
        assert np.mean(gap**2) <= 1e-3 * np.mean(target**2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("bits", BITS)
def test_values_that_are_not_finite_teach_nothing(value: float, bits: int) -> None:
    x, matrix, bias, target = problem()
    good = rows(x, target)
    bad = Rows(np.where(np.arange(120) == 3, np.float32(value), good.x), good.mean, good.target, None, good.fitted)
    made = rounded(bad, matrix, bias, steps=Steps(bits))
    assert made.way == "nearest, as its values are not finite"
    assert_written(made, matrix.shape, bits)
    np.testing.assert_array_equal(made.bias, bias)
    assert np.abs(made.matrix - matrix).max() <= np.abs(matrix).max() * {8: 0.2, 4: 0.5, 3: 0.6}[bits]


def test_a_large_system_is_inverted_in_one_room() -> None:
    groups, columns = 1, 300
    x = np.random.default_rng(0).standard_normal((groups, columns, 2 * columns))
    system, order = x @ x.transpose(0, 2, 1), np.random.default_rng(1).permutation(columns)
    tracemalloc.start()
    try:
        upper = _upper(system, order)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * system.nbytes
    assert not np.tril(upper, -1).any()
    own = system[:, order[:, None], order]
    np.testing.assert_allclose(upper.transpose(0, 2, 1) @ upper @ own, [np.eye(columns)] * groups, atol=1e-8)
