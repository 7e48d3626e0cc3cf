"""What quantizing a product costs most, on made-up values of which that is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graphopt.analysis.causes import Seen, Weighed, cause
from graphopt.analysis.histogram import Histogram
from graphopt.analysis.ranges import Method, chosen

DRAW = np.random.default_rng(0)
NORMAL = DRAW.standard_normal(100_000)


def seen(values: NDArray[Any], method: Method = "mse", *, symmetric: bool = False, **more: Any) -> Seen:
    histogram = Histogram()
    histogram.add(values.astype(np.float32))
    return Seen("what it reads", histogram, chosen(histogram, method, symmetric=symmetric), **more)


FAR = np.append(NORMAL, [30.0] * 20)
LUMPED = np.concatenate([NORMAL, [100.0, -100.0] * 150])


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (seen(NORMAL), ("its range fits, but 256 levels tell 4",)),
        (seen(NORMAL, given=True), ("an input of the model, of which 256 levels tell 4",)),
        (seen(NORMAL, spread=20.0), ("outlier channel: one reaches 20 times as far as half of them",)),
        (seen(FAR, "minmax"), ("long tail: 99.9% lie within 3.", "the farthest at 30")),
        (seen(FAR, "percentile"), ("long tail", "range cut at -3.", "clipped")),
        (seen(np.clip(NORMAL, -2, 2) ** 3, "average"), ("its range fits",)),
        (seen(LUMPED, "minmax"), ("few levels: most of what is not 0 lies on 5 of 256",)),
        (seen(np.abs(NORMAL), symmetric=True), ("none is negative, so half of the 256 levels",)),
        (seen(np.abs(NORMAL)), ("its range fits",)),
        (seen(NORMAL * 1e-40), ("its numbers are less than the least step",)),
    ],
)
def test_the_first_that_is_true_of_a_value_is_told(value: Seen, parts: tuple[str, ...]) -> None:
    told = cause([value])
    assert told.startswith("what it reads: ")
    assert all(part in told for part in parts), told


def test_what_is_cut_off_is_told_with_its_share() -> None:
    uneven = np.concatenate([np.zeros((1, 1000)), DRAW.standard_normal((1, 1000)) * 4])
    histogram = Histogram()
    histogram.add(uneven.astype(np.float32), samples=2)
    found = chosen(histogram, "average")
    share = np.mean((uneven < found.low - found.step / 2) | (uneven > found.high + found.step / 2))
    assert share > 0.005
    told = cause([Seen("what it makes", histogram, found)])
    assert told.startswith("what it makes: much is clipped; range cut at ")
    assert float(told.rsplit(", ", 1)[1].removesuffix("% clipped")) == pytest.approx(share * 100, abs=0.2)


def test_what_adds_most_noise_is_told() -> None:
    good, bad = seen(NORMAL), replace(seen(FAR, "minmax"), what="what it makes")
    assert good.noise < bad.noise
    assert cause([good, bad]) == cause([bad, good]) == cause([bad])
    coarse = Weighed(3, 0.05, 3.0)
    assert cause([good, bad], coarse) == "its weights: rounding them to 3 bits adds 5.00% noise"
    assert cause([good, bad], replace(coarse, noise=good.noise)) == cause([bad])
    peaked = cause([good], Weighed(8, 0.05, 40.0))
    assert peaked.endswith("to 8 bits adds 5.00% noise, one of a channel being 40 times the rms")


def test_of_nothing_no_cause_is_told() -> None:
    assert cause([seen(np.zeros(9))]) == ""
    assert cause([]) == cause([], Weighed(8, 0.0, 1.0)) == ""
