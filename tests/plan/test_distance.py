from __future__ import annotations

import numpy as np
import pytest

from graphopt.plan.distance import Distance

SCORES = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]], np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def test_scores_are_compared_as_distributions() -> None:
    other = SCORES + np.array([[0.5, 0, 0], [0, 0, 1]], np.float32)
    p, q = softmax(SCORES), softmax(other)
    expected = float(np.mean(np.sum(p * np.log(p / q), axis=1)))
    assert Distance([{"y": SCORES}])([{"y": other}]) == pytest.approx(expected, rel=1e-5)
    assert Distance([{"y": SCORES}])([{"y": SCORES + 7}]) == pytest.approx(0, abs=1e-9)  # the same distribution


def test_shares_are_not_normalized_again() -> None:
    p, q = softmax(SCORES), softmax(SCORES[::-1])
    expected = float(np.mean(np.sum(p * np.log(p / q), axis=1)))
    assert Distance([{"y": p}])([{"y": q}]) == pytest.approx(expected, rel=1e-5)


def test_batches_count_by_their_samples() -> None:
    other = SCORES[::-1].copy()
    whole = Distance([{"y": SCORES}])([{"y": other}])
    parts = Distance([{"y": SCORES[:1]}, {"y": SCORES[1:]}])([{"y": other[:1]}, {"y": other[1:]}])
    assert whole == pytest.approx(parts)


def test_other_floats_are_compared_by_squares_and_outputs_add_up() -> None:
    a = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    spread = float(np.sum((a - a.mean()) ** 2))
    expected = [{"map": a, "other": a, "labels": np.array([1, 2])}]
    assert Distance(expected).outputs == ("map", "other")
    assert Distance(expected)([{"map": a + 1, "other": a, "labels": np.array([0, 0])}]) == pytest.approx(8 / spread)
    assert Distance(expected)([{"map": a + 1, "other": a - 1}]) == pytest.approx(16 / spread)


def test_what_is_not_finite_in_the_original_does_not_count_but_in_the_model_it_does() -> None:
    a = np.array([[[1.0], [np.nan], [3.0]]])
    assert Distance([{"y": a}])([{"y": np.array([[[1.0], [5.0], [3.0]]])}]) == 0
    assert Distance([{"y": a}])([{"y": np.full_like(a, np.inf)}]) == np.inf
    assert Distance([{"y": SCORES}])([{"y": np.full_like(SCORES, np.nan)}]) == np.inf


def test_labels_count_where_there_are_no_floats() -> None:
    expected = [{"label": np.array([1, 2, 3, 4])}]
    assert Distance(expected)([{"label": np.array([1, 2, 3, 0])}]) == 0.25
    assert Distance([{"words": [np.array([1])]}])([{"words": [np.array([2])]}]) == 1.0


def test_a_constant_output_has_a_scale() -> None:
    assert Distance([{"y": np.ones((2, 1))}])([{"y": np.zeros((2, 1))}]) == 1.0
