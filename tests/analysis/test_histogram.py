from __future__ import annotations

from math import frexp, inf, nan
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from graphopt.analysis import histogram
from graphopt.analysis.histogram import SIDE, Histogram
from graphopt.errors import InputError

Array = NDArray[Any]

RANDOM = np.random.default_rng(0)

tables = st.sampled_from([np.float16, np.float32, np.float64]).flatmap(
    lambda t: hnp.arrays(
        t,
        st.tuples(st.integers(1, 8), st.integers(1, 6)),
        elements=st.one_of(
            st.floats(width=np.dtype(t).itemsize * 8),  # type: ignore[arg-type]
            st.integers(-20, 20).map(lambda i: float(np.ldexp(1 + i / 64, min(i, 15)))),
            st.sampled_from([0.0, -0.0, 1.0, -1.0]),
        ),
    )
)
"""Samples: NaN, infinities, subnormals and numbers of all sizes among them."""


def of(*parts: Array, samples: int = 1) -> Histogram:
    made = Histogram()
    for part in parts:
        made.add(part, samples)
    return made


def same(a: Histogram, b: Histogram) -> bool:
    mine, other = a.arrays(), b.arrays()
    return all(np.array_equal(mine[n], other[n]) for n in mine)


def counted(x: Array, width: float) -> Array:
    """The plain way to count."""
    x = x.astype(np.longdouble)
    return np.bincount(np.trunc(x / width).astype(np.int64).reshape(-1) + SIDE - 1, minlength=2 * SIDE - 1)


@given(tables, st.randoms(use_true_random=False))
def test_neither_batches_nor_order_nor_shards_change_anything(x: Array, random: Any) -> None:
    rows = list(range(len(x)))
    random.shuffle(rows)
    cut = random.randint(0, len(x))
    left, right = rows[:cut], rows[cut:]
    whole = of(x, samples=len(x))
    assert same(of(*(x[i] for i in rows)), whole)
    first, second = of(*(x[i] for i in left)), of(*(x[i] for i in right))
    assert same(first + second, whole)
    assert same(second + first, whole)
    batches = Histogram()
    for part in (left, right):
        batches.add(x[part], max(len(part), 1))
    assert same(batches, whole)


@given(tables)
def test_counts_are_those_of_the_definition(x: Array) -> None:
    made = of(x)
    finite = x[np.isfinite(x)].astype(np.float64)
    assert (made.nans, made.above, made.below) == (np.isnan(x).sum(), (x == inf).sum(), (x == -inf).sum())
    assert made.count == finite.size
    assert made.zeros == (finite == 0).sum()
    if finite.size:
        most = float(np.abs(finite).max())
        assert (made.low, made.high) == (finite.min(), finite.max())
        assert most < SIDE * made.width
        assert made.exponent == -126 or SIDE * made.width <= 2 * most
        assert np.array_equal(made.counts, counted(finite, made.width))
    else:
        assert (made.low, made.high, made.exponent, made.samples) == (inf, -inf, -126, 0)


def test_of_one_sign_counts_are_those_of_numpy() -> None:
    x = RANDOM.exponential(size=10_000).astype(np.float32)
    made = of(x)
    edges = np.arange(SIDE + 1) * made.width
    assert np.array_equal(made.counts[SIDE - 1 :], np.histogram(x, edges)[0])
    assert np.array_equal(of(-x).counts[::-1], made.counts)


def test_bins_merge_in_pairs_as_the_data_grows() -> None:
    x = RANDOM.standard_normal(5000).astype(np.float32) * np.float32(2.0) ** RANDOM.integers(-30, 30, 5000)
    made = Histogram()
    exponents = list[int]()
    for piece in np.split(x[np.argsort(np.abs(x))], 50):
        made.add(piece)
        exponents.append(made.exponent)
    assert exponents == sorted(exponents)
    assert len(set(exponents)) > 20
    assert made.exponent == frexp(float(np.abs(x).max()))[1] - 12
    assert np.array_equal(made.counts, counted(x, made.width))
    assert made.counts[SIDE - 1]


def test_blocks_are_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    x = RANDOM.standard_normal((3, 1001)).astype(np.float32)
    usual = of(x, samples=3)
    monkeypatch.setattr(histogram, "_BLOCK", 17)
    assert same(of(x, samples=3), usual)
    assert same(of(np.asfortranarray(x), samples=3), usual)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64, np.int8, np.int64, np.uint8])
def test_a_type_changes_nothing_but_what_it_can_hold(dtype: Any) -> None:
    x = RANDOM.integers(0, 100, 1000).astype(dtype)
    assert same(of(x), of(x.astype(np.float32)))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_short_floats_keep_infinities(dtype: Any) -> None:
    made = of(np.array([1.5, nan, inf, -inf, -0.25]).astype(dtype))
    assert (made.nans, made.above, made.below, made.low, made.high, made.count) == (1, 1, 1, -0.25, 1.5, 2)


@pytest.mark.parametrize("dtype", [object, np.complex64, "U3"])
def test_what_is_no_number_has_no_histogram(dtype: Any) -> None:
    with pytest.raises(InputError, match="has no range"):
        of(np.zeros(3, dtype))


def test_nothing_adds_nothing() -> None:
    some = of(np.ones(3, np.float32))
    assert same(some + Histogram(), some)
    assert same(Histogram() + some, some)
    assert same(of(np.ones(3, np.float32), np.zeros((0, 4), np.float32)), some)


def test_a_sum_leaves_what_was_added_alone() -> None:
    a, b = of(np.ones(3)), of(np.full(3, 1e9))
    before = [h.arrays()["counts"].copy() for h in (a, b)]
    total = a + b
    total.add(np.full(4, 1e30))
    assert all(np.array_equal(h.counts, was) for h, was in zip((a, b), before, strict=True))
    assert a.exponent < b.exponent < total.exponent


def test_subnormals_and_huge_values_are_where_they_belong() -> None:
    tiny = np.array([1e-45, -1e-45, 0], np.float32)
    made = of(tiny)
    assert (made.exponent, made.zeros, made.counts[SIDE - 1], made.high) == (-126, 1, 3, float(tiny[0]))
    far = np.array([3.4e38, 1e30, -1e-30], np.float32)
    huge = of(far) + of(tiny)
    assert same(huge, of(tiny, far))
    assert same(huge, of(far, tiny))
    assert huge.counts[SIDE - 1] == 5  # 1e30 is less than a bin
    assert huge.counts[SIDE:].sum() == 1


def test_the_average_is_that_of_the_extremes_of_samples() -> None:
    x = RANDOM.standard_normal((50, 20)).astype(np.float32)
    low, high = of(x, samples=50).average
    assert low == pytest.approx(x.min(axis=1).mean(dtype=np.float64), rel=1e-14)
    assert high == pytest.approx(x.max(axis=1).mean(dtype=np.float64), rel=1e-14)
    assert of(x).average == (x.min(), x.max())
    assert Histogram().average == (0, 0)


def test_the_average_is_exact() -> None:
    x = np.array([[1e300], [1.0], [-1e300], [2.0]])
    assert of(x, samples=4).average == (0.75, 0.75)


def test_a_sample_without_a_finite_element_is_not_averaged() -> None:
    made = of(np.array([[1.0, 3.0], [nan, inf], [2.0, -inf]]), samples=3)
    assert made.samples == 2
    assert made.average == (1.5, 2.5)
    assert (made.nans, made.above, made.below) == (1, 1, 1)


def test_what_is_the_same_for_many_samples_counts_for_each() -> None:
    x, made = np.array([nan, 0, 1, 2, inf, -inf]), Histogram()
    made.add(x, times=3)
    assert same(made, of(x, x, x))


def test_bins_are_cut_to_where_data_can_be() -> None:
    made = of(np.array([0, 0, 3.0, 5.0]))
    bins = made.bins()
    width = made.width
    assert (bins.left * width).tolist() == [3, 5]
    assert (bins.right * width).tolist() == [3 + width, 5]
    assert made.bins(zeros=True).count.tolist() == [2, 1, 1]
    assert made.bins(zeros=True).left[0] == 0
    both = of(np.array([-5, 1e-9, -1e-9, 5.0])).bins()
    assert (both.left[1], both.right[1], both.count[1]) == (-1, 1, 2)
    constant = of(np.full(7, -3.0))
    only = constant.bins()
    assert [float(a[0]) for a in (only.left, only.right, only.count)] == [-3 / constant.width, -3 / constant.width, 7]


@given(tables)
def test_a_histogram_can_be_made_again_from_its_arrays(x: Array) -> None:
    made = of(x, samples=len(x))
    assert same(Histogram.of(made.arrays()), made)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("counts", np.zeros(2 * SIDE - 1, np.int64)),
        ("counts", np.full(2 * SIDE - 1, -1)),
        ("counts", np.ones(3, np.int64)),
        ("counts", np.ones(2 * SIDE - 1)),
        ("ends", np.array([2.0, 1.0])),
        ("ends", np.array([-1.0, inf])),
        ("ends", np.array([nan, 1.0])),
        ("ends", np.array([1.0])),
        ("numbers", np.array([-12, 0, 0, 0, 0, 1])),
        ("numbers", np.array([-11, 2, 0, 0, 0, 1])),
        ("numbers", np.array([-11, 0, -1, 0, 0, 1])),
        ("numbers", np.array([-11, 0, 0, 0, 0, 0])),
        ("numbers", np.array([-11, 0, 0, 0, 0, 5])),
        ("numbers", np.array([-11, 0])),
        ("sums", np.array(["1", "x"])),
    ],
)
def test_arrays_that_contradict_each_other_make_no_histogram(name: str, value: Array) -> None:
    arrays = of(np.array([0, 0.5, 1.5])).arrays()
    assert arrays["numbers"].tolist() == [-11, 1, 0, 0, 0, 1]
    with pytest.raises(ValueError, match=r"contradict|unpack|invalid"):
        Histogram.of(arrays | {name: value})
