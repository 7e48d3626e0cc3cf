"""What is counted of the outputs of two models, and which labels are understood."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphopt.analysis.metrics import Tally, interval

X = np.zeros((6, 3), np.float32)
TRUTH = np.array([0, 1, 2, 0, 1, 2])
SCORES = np.eye(3, dtype=np.float32)[TRUTH]
WORSE = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 1]]
COLUMN = np.array([[2.0], [-1], [0.2], [-3], [-0.5], [4]], np.float32)


def metrics(before: np.ndarray, after: np.ndarray, labels: Any, parts: int = 1) -> dict[str, tuple[float, float]]:
    tally = Tally()
    for rows in np.array_split(np.arange(len(before)), parts):
        some = None if labels is None else np.asarray(labels)[rows]
        tally.add({"x": X[rows]}, {"y": before[rows]}, {"y": after[rows]}, some)
    return tally.metrics()


@pytest.mark.parametrize("parts", [1, 3, 6])
@pytest.mark.parametrize(
    "labels",
    [
        TRUTH,
        TRUTH.astype(np.uint8),
        TRUTH.astype(np.float32),
        TRUTH[:, None],
        np.eye(3)[TRUTH],
        np.eye(3, dtype=bool)[TRUTH],
    ],
)
def test_a_label_is_a_class_or_a_row_with_a_one_in_its_place(labels: np.ndarray, parts: int) -> None:
    found = metrics(SCORES, WORSE, labels, parts)
    assert found["accuracy"] == (1.0, 5 / 6)
    assert found["f1"] == pytest.approx((1.0, (1 + 4 / 5 + 2 / 3) / 3))
    assert found["agreement"] == (1.0, 5 / 6)


@pytest.mark.parametrize(
    "labels",
    [
        None,
        TRUTH + 1,
        TRUTH - 1,
        TRUTH + 0.5,
        np.where(TRUTH, np.nan, 0.0),
        np.ones((6, 3)),
        np.full((6, 3), 1 / 3),
        np.zeros((6, 2)),
        TRUTH.astype(str),
    ],
)
def test_with_other_labels_there_is_no_accuracy(labels: Any) -> None:
    assert metrics(SCORES, WORSE, labels).keys() == {"agreement", "sqnr", "cosine"}


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("labels", [[1, 0, 1, 0, 0, 1], [True, False, True, False, False, True]])
def test_one_float_is_the_score_of_the_second_of_two_classes(labels: list[Any], flat: bool) -> None:  # noqa: FBT001
    worse = COLUMN.copy()
    worse[2] = -0.1
    for before, after in ((COLUMN, worse), (1 / (1 + np.exp(-COLUMN)), 1 / (1 + np.exp(-worse)))):
        values = [v.reshape(-1) if flat else v for v in (before, after)]
        found = metrics(values[0], values[1], labels)
        assert found["accuracy"] == found["agreement"] == (1.0, 5 / 6)


def test_one_float_is_no_score_without_such_labels() -> None:
    assert metrics(COLUMN, COLUMN, None).keys() == {"sqnr", "cosine"}
    assert metrics(COLUMN, COLUMN, COLUMN).keys() == {"sqnr", "cosine"}


def test_a_row_of_scores_comes_before_a_single_one() -> None:
    tally = Tally()
    tally.add({"x": X}, {"v": COLUMN, "y": SCORES}, {"v": COLUMN, "y": WORSE}, TRUTH)
    assert tally.metrics()["accuracy"] == (1.0, 5 / 6)


def test_embeddings_are_no_scores_without_labels() -> None:
    rows = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert set(metrics(unit, unit, None)) == {"sqnr", "cosine"}
    assert {"accuracy", "agreement"} <= metrics(unit, unit, TRUTH).keys()
    assert "agreement" in metrics(rows, unit, None)
    assert "agreement" in metrics(SCORES, unit, None)
    assert "agreement" in metrics(np.concatenate([unit[:5], 2 * unit[5:]]), rows, None, parts=6)


def test_distances() -> None:
    found = metrics(SCORES, 2 * SCORES, None)
    assert found["sqnr"] == (np.inf, 0.0)
    assert found["cosine"] == pytest.approx((1.0, 1.0))
    assert metrics(SCORES, SCORES, None)["sqnr"] == (np.inf, np.inf)
    assert metrics(0 * SCORES, SCORES, None).keys() == {"agreement"}


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [(1.0, 300, 0.9878, 1.0), (0.5, 10, 0.1871, 0.8129), (0.0, 1, 0.0, 0.975), (0.99, 2000, 0.9846, 0.9939)],
)
def test_what_a_share_of_samples_says_of_all(share: float, count: int, low: float, high: float) -> None:
    assert interval(share, count) == pytest.approx((low, high), abs=1e-4)
