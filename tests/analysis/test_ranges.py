from __future__ import annotations

from itertools import pairwise
from math import inf, isnan
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from graphopt.analysis.histogram import Histogram
from graphopt.analysis.ranges import Method, Range, chosen
from graphopt.errors import UsageError

Array = NDArray[Any]
METHODS = get_args(Method)
TINY = float(np.finfo(np.float32).tiny)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def of(*parts: Array) -> Histogram:
    made = Histogram()
    for part in parts:
        made.add(part)
    return made


def ends(found: Range) -> tuple[int, int]:
    return round(found.low / found.step), round(found.high / found.step)


def noise(x: Array, found: Range) -> Array:
    """What quantizing moves each element by."""
    x = x.astype(np.float64)
    return np.asarray(np.clip(np.rint(x / found.step), *ends(found)) * found.step - x)


def rms(x: Array) -> float:
    return float(np.sqrt(np.mean(x**2)))


tensors = hnp.arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.one_of(
        st.floats(-1, 1, width=32), st.floats(width=32, allow_nan=False, allow_infinity=False), st.just(0.0)
    ),
)

SHAPES: dict[str, Array] = {
    "relu": np.maximum(random().standard_normal(20_000), 0),
    "normal": random().standard_normal(20_000),
    "shifted": random().standard_normal(20_000) * 2 - 3,
    "laplace": random().laplace(size=20_000),
    "heavy": random().standard_t(2.5, 20_000),
    "uniform": random().uniform(-1, 3, 20_000),
    "negative": -random().exponential(size=20_000),
    "outlier": np.append(random().standard_normal(20_000), 60),
}


@given(tensors, st.sampled_from(METHODS), st.sampled_from([2, 3, 16, 255, 256, 65536]), st.booleans())
def test_any_tensor_gets_a_range_that_can_be_used(x: Array, method: Method, levels: int, symmetric: bool) -> None:  # noqa: FBT001
    if symmetric and levels == 2:
        levels = 3
    found = chosen(of(x), method, levels=levels, symmetric=symmetric)
    below, above = ends(found)
    assert found.low <= 0 <= found.high
    assert TINY <= found.step < inf
    assert float(np.float32(found.step)) == found.step
    assert (found.low, found.high) == (below * found.step, above * found.step)
    assert above - below == (levels - 1 if not symmetric else (levels - 1) // 2 * 2)
    assert not symmetric or above == -below
    assert symmetric or x.min() < 0 or below == 0
    assert symmetric or x.max() > 0 or above == 0 or not x.any()
    assert 0 <= found.clipped <= 1
    assert not isnan(found.sqnr)
    if method == "minmax":
        assert found.clipped == 0


@given(tensors, st.sampled_from([4, 16, 256]), st.booleans())
def test_the_least_error_is_none_greater_than_that_of_the_whole_range(x: Array, levels: int, symmetric: bool) -> None:  # noqa: FBT001
    """|x − Q(x)| changes by no more than x does, so it is known to the width of a bin (of the middle one: two)."""
    made = of(x)
    whole, least = (chosen(made, m, levels=levels, symmetric=symmetric) for m in ("minmax", "mse"))
    assert rms(noise(x, least)) <= rms(noise(x, whole)) * (1 + 1e-5) + 4 * made.width
    assert least.sqnr >= whole.sqnr


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("levels", "symmetric"), [(256, False), (256, True), (16, False)])
def test_what_is_told_of_a_range_is_what_it_does(shape: str, method: Method, levels: int, symmetric: bool) -> None:  # noqa: FBT001
    x = SHAPES[shape].astype(np.float32)
    found = chosen(of(x), method, levels=levels, symmetric=symmetric)
    moved = noise(x, found)
    assert found.sqnr == pytest.approx(20 * np.log10(rms(x.astype(np.float64)) / rms(moved)), abs=0.2)
    assert found.clipped == pytest.approx(np.mean(np.abs(moved) > found.step / 2 * (1 + 1e-6)), abs=2e-4)
    assert (found.method, found.levels) == (method, levels)


@pytest.mark.parametrize("shape", ["normal", "shifted", "laplace", "heavy", "uniform", "outlier"])
@pytest.mark.parametrize("levels", [5, 16, 256])
def test_no_pair_of_bounds_has_much_less_error(shape: str, levels: int) -> None:
    """Against a search on the data itself."""
    x = SHAPES[shape].astype(np.float32)
    found = rms(noise(x, chosen(of(x), "mse", levels=levels)))
    shares = np.geomspace(0.03, 1, 24)
    tried = [np.array([low * min(x.min(), 0), high * max(x.max(), 0)]) for low in shares for high in shares]
    least = min(rms(noise(x, chosen(of(ends), "minmax", levels=levels))) for ends in tried)
    assert found <= least * 1.01


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("levels", [4, 16, 256])
def test_no_bound_has_less_error(shape: str, levels: int) -> None:
    x = SHAPES[shape].astype(np.float32)
    found = rms(noise(x, chosen(of(x), "mse", levels=levels, symmetric=True)))
    tried = [np.array([share * np.abs(x).max()]) for share in np.geomspace(0.03, 1, 300)]
    least = min(rms(noise(x, chosen(of(end), "minmax", levels=levels, symmetric=True))) for end in tried)
    assert found <= least * 1.001


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("percentile", [90, 99, 99.9, 99.99, 100])
def test_percentiles_are_those_of_numpy(shape: str, percentile: float) -> None:
    x = SHAPES[shape].astype(np.float32)
    made = of(x)
    low, high = np.quantile(x.astype(np.float64), [1 - percentile / 100, percentile / 100])
    found = chosen(made, "percentile", levels=1 << 20, percentile=percentile)
    slack = 2 * made.width + 2 * found.step
    assert found.low == pytest.approx(min(low, 0), abs=slack)
    assert found.high == pytest.approx(max(high, 0), abs=slack)


@given(hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-8, 8, width=32)), st.floats(50.1, 100))
def test_percentiles_of_few_elements_are_those_of_numpy(x: Array, percentile: float) -> None:
    made = of(x)
    low, high = np.quantile(x.astype(np.float64), [1 - percentile / 100, percentile / 100])
    assume(low < -made.width or high > made.width)  # else nothing but 0 would be left
    assume(max(-low, high) > (1 << 20) * np.finfo(np.float32).tiny)  # no step is smaller than a normal number
    found = chosen(made, "percentile", levels=1 << 20, percentile=percentile)
    slack = 2 * made.width + 2 * found.step
    assert found.low == pytest.approx(min(low, 0), abs=slack)
    assert found.high == pytest.approx(max(high, 0), abs=slack)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_entropy_clips_a_heavy_tail_whatever_the_order(sign: int, symmetric: bool) -> None:  # noqa: FBT001
    x = sign * np.abs(random().standard_t(3, 100_000)).astype(np.float32)
    made = of(x)
    found, whole = (chosen(made, m, symmetric=symmetric) for m in ("entropy", "minmax"))
    assert found.high - found.low < 0.7 * (whole.high - whole.low)
    assert 0 < found.clipped < 0.01
    assert chosen(of(*np.split(x[::-1], 100)), "entropy", symmetric=symmetric) == found


def test_entropy_narrows_both_ends() -> None:
    x = random().standard_t(3, 100_000).astype(np.float32)
    found = chosen(of(x), "entropy")
    assert 0.02 * x.min() > found.low > 0.7 * x.min()
    assert 0.02 * x.max() < found.high < 0.7 * x.max()


def test_a_percentile_that_is_0_is_none() -> None:
    x = np.append(np.zeros(10**6, np.float32), [3, -1]).astype(np.float32)
    found = chosen(of(x), "percentile")
    assert [found.low, found.high] == pytest.approx([-1, 3], rel=0.01)


@pytest.mark.parametrize("sign", [1, -1])
def test_entropy_moves_each_end_on_its_own(sign: int) -> None:
    even, heavy = random().uniform(0, 30, 100_000), np.abs(random(1).standard_t(3, 100_000))
    x = (sign * np.append(-even, heavy)).astype(np.float32)
    found = chosen(of(x), "entropy")
    low, high = (found.low, found.high) if sign > 0 else (-found.high, -found.low)
    assert low == pytest.approx(-30, rel=0.01)
    assert high < 0.7 * heavy.max()


def test_entropy_keeps_what_is_even() -> None:
    x = random().uniform(0, 7, 100_000).astype(np.float32)
    found = chosen(of(x), "entropy")
    assert found.high == pytest.approx(7, rel=0.005)


def test_entropy_is_least_among_candidates() -> None:
    """The divergence, as it is written down in the talk, of the bounds that are taken against that of all others."""
    x = np.abs(random().standard_t(4, 50_000)).astype(np.float32)
    made = of(x)
    found = chosen(made, "entropy", levels=128)
    counts = made.counts[len(made.counts) // 2 :].astype(float)
    divergences = dict[int, float]()
    for bins in range(128, 1 + int(np.flatnonzero(counts)[-1]) + 1):
        p = counts[:bins].copy()
        q = np.zeros(bins)
        edges = np.ceil(np.arange(129) * bins / 128).astype(int)
        for a, b in pairwise(edges):
            held = counts[a:b] > 0
            if b == bins and counts[bins:].any():
                held[-1] = True
            q[a:b][held] = counts[a:b].sum() / max(held.sum(), 1)
        p[-1] += counts[bins:].sum()
        if not np.any((p > 0) & (q == 0)):
            p, q = p / p.sum(), q / q.sum()
            divergences[bins] = float(np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0])))
    taken = round(found.high / made.width)
    nearest = min(divergences, key=lambda b: abs(b - taken))
    best = min(divergences.values())
    assert abs(nearest - taken) <= 1
    assert divergences[nearest] <= best + 0.02 * (max(divergences.values()) - best)


def test_the_average_is_narrower_than_the_extremes() -> None:
    made = Histogram()
    x = random().standard_normal((100, 50)).astype(np.float32)
    made.add(x, 100)
    found = chosen(made, "average")
    assert found.low == pytest.approx(x.min(axis=1).mean(), abs=found.step)
    assert found.high == pytest.approx(x.max(axis=1).mean(), abs=found.step)
    assert found.clipped > 0.001


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("parts", [[], [np.zeros(5, np.float32)], [np.array([np.nan, np.inf], np.float32)]])
def test_where_nothing_is_known_any_range_will_do(method: Method, parts: list[Array]) -> None:
    found = chosen(of(*parts), method)
    assert (found.low, found.high, found.step, found.clipped, found.sqnr) == (0, 255, 1, 0, inf)
    assert chosen(of(*parts), method, symmetric=True).low == -127


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [3.0, -0.7, 1e30, 3.4e38, 1e-30])
def test_a_constant_is_exact(method: Method, value: float) -> None:
    x = np.full(9, value, np.float32)
    for symmetric in (False, True):
        found = chosen(of(x), method, symmetric=symmetric)
        assert np.allclose(noise(x, found), 0, atol=1e-6 * abs(value))
        assert found.sqnr > 100


def test_steps_are_normal_numbers() -> None:
    assert chosen(of(np.array([1e-45, 2e-45], np.float32))).step == TINY
    assert chosen(of(np.array([-2e-35], np.float32)), levels=65536).high == 0
    far = chosen(of(np.array([-1e300, 1e300])))
    assert far.step < inf
    assert np.isfinite(np.float32(far.high))
    assert far.clipped == 1


def test_zeros_cost_nothing() -> None:
    """However many there are, the range is that of the rest."""
    x = np.abs(random().standard_t(4, 50_000)).astype(np.float32)
    for method in ("mse", "entropy"):
        alone, among = chosen(of(x), method), chosen(of(x, np.zeros(10**6, np.float32)), method)
        assert alone.high == among.high
        assert alone.sqnr == pytest.approx(among.sqnr, abs=0.01)
        assert among.clipped < alone.clipped


@pytest.mark.parametrize(
    "options",
    [{"method": "best"}, {"levels": 1}, {"levels": 2, "symmetric": True}, {"percentile": 50}, {"percentile": 101}],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"no method 'best'|a range needs"):
        chosen(Histogram(), **options)
