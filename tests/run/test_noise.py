from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphopt.run.noise import Noise, classes

EPS = float(np.finfo(np.float32).eps)
RNG = np.random.default_rng(0)


def heard(values: Any, *others: Any, dtype: Any = np.float32) -> Noise:
    first, *rest = (np.asarray(v, dtype) for v in (values, *others))
    noise = Noise([[first]])
    for other in rest:
        noise.hear(0, [first], [other])
    return noise


def tolerances(noise: Noise, *sizes: float) -> list[float]:
    """Of values of these magnitudes, in units of 32 eps."""
    return [float(t) / (32 * EPS) for t in noise.tolerances()[classes(np.array(sizes))]]


def populations(values: Any) -> int:
    return len(heard(values)._populations)


def test_classes_cover_every_number() -> None:
    numbers = classes(np.array([0, 5e-324, 1e-300, 1, 500, 2000, 1.7e308]))
    assert numbers[0] == 0
    assert numbers[3] == numbers[4] == numbers[5] - 1
    assert np.all(np.diff(numbers) >= 0)
    assert 0 < numbers[1] <= numbers[-1] < len(heard([1]).tolerances())


@pytest.mark.parametrize("scale", [1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1, 3, 1e3])
@pytest.mark.parametrize(
    "draw",
    [RNG.normal, lambda size: RNG.uniform(-1, 1, size), lambda size: RNG.normal(size=size) * RNG.normal(size=size)],
    ids=["normal", "uniform", "product"],
)
def test_what_is_dense_around_zero_is_one_population(draw: Any, scale: float) -> None:
    """At most two: where the bulk lies below the edge of a class, its few largest values stand above."""
    values = scale * draw(size=20_000)
    noise = heard(values)
    assert len(noise._populations) <= 2
    bulk, least = np.quantile(np.abs(values), 0.5), np.abs(values).min()
    assert tolerances(noise, least)[0] > 0.5 * bulk


def test_what_is_not_dense_around_zero_is_several() -> None:
    normal = RNG.normal(size=1000)
    assert populations(np.concatenate([normal, 1e6 * normal])) == 2
    assert populations(np.where(normal < 0, -3.4e38, normal)) == 2
    assert populations([-1e9, 1.5]) == 2, "a single value can be enough"
    assert populations(10.0 ** np.arange(-30, 30, 0.01)) > 10
    assert populations(np.maximum(normal, 0)) == 1
    assert populations([0, 0]) == 1
    assert populations([]) == 1


def test_each_population_has_its_scale() -> None:
    assert tolerances(heard([1e9, -2e9, 0.25, 0.5]), 2e9, 0.5, 0) == [2e9, 0.5, 0.5]


def test_noise_counts_above_and_relative_noise_below() -> None:
    values = np.array([1e6, 1e6, 1, 1, 0])
    (top, low, zero) = tolerances(heard(values, [1e6, 1e6, 1, 1 + 4 * EPS * 1e8, 0]), 1e6, 1, 0)
    assert top == pytest.approx(1e8, rel=1e-2)
    assert low == pytest.approx(1e8, rel=1e-2)
    assert zero == low
    (top, low, zero) = tolerances(heard(values, values * [1.01, 1, 1, 1, 1]), 1e6, 1, 0)
    assert top == pytest.approx(1e6 * low, rel=1e-2)
    assert zero == low


def test_noise_at_zeros_is_that_of_the_lowest_population() -> None:
    (top, low) = tolerances(heard([1e9, 1, 1, 0], [1e9, 1, 1, 400 * EPS]), 1e9, 1)
    assert top == 1e9
    assert low == pytest.approx(100)


def test_what_may_be_flushed_to_zero_is_allowed() -> None:
    tiny = float(np.finfo(np.float32).smallest_normal)
    assert heard([1e-40, 1e-42]).tolerances().max() == tiny
    assert heard([1e-40, 1]).tolerances()[classes(np.array([1e-40]))] == tiny


def test_values_that_must_be_equal_have_no_tolerance() -> None:
    assert not heard([1, 2], [1, 3], dtype=np.int64).tolerances().any()
    assert not heard(["a"], ["b"], dtype=object).tolerances().any()


def test_nothing_overflows() -> None:
    noise = heard([1.7e308, -1.7e308, np.inf, np.nan], [-1.7e308, 1.7e308, np.inf, np.nan], dtype=np.float64)
    assert np.isfinite(noise.tolerances()).all()
    assert noise.drowned
    assert np.isfinite(heard([1 + 1j, np.inf], dtype=np.complex64).tolerances()).all()
