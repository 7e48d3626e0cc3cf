from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from graphopt.analysis import samples
from graphopt.analysis.samples import split
from graphopt.errors import InputError
from graphopt.run.data import Data, open_data
from graphopt.run.session import Port

ROWS = (Port("x", np.dtype(np.float32), ("N", 3), "tensor"),)
WHOLE = (Port("x", np.dtype(np.float32), (2, 3), "tensor"),)
X = np.random.default_rng(0).standard_normal((300, 3)).astype(np.float32)
LABELS = np.arange(300)


def data(cuts: Iterable[np.ndarray], ports: tuple[Port, ...] = ROWS) -> Data:
    return open_data([({"x": X[c]}, LABELS[c]) for c in cuts], ports)


def test_nothing_depends_on_how_rows_are_cut_or_in_which_order_they_come() -> None:
    one = split(data([np.arange(300)]))
    shuffled = np.random.default_rng(1).permutation(300)
    other = split(data(np.array_split(shuffled, 7)))
    assert isinstance(one.calibration, dict)
    assert isinstance(other.calibration, dict)
    assert np.array_equal(one.calibration["x"], other.calibration["x"])
    for a, b in zip(one.judgement, other.judgement, strict=True):
        assert np.array_equal(a["x"], b["x"])
    for first, second in zip(one.labels, other.labels, strict=True):
        assert first is not None
        assert second is not None
        assert np.array_equal(first, second)


def test_no_sample_is_on_both_sides_and_labels_stay_with_theirs() -> None:
    found = split(data([np.arange(300)]))
    assert isinstance(found.calibration, dict)
    learned = {row.tobytes() for row in found.calibration["x"]}
    assert found.calibrated == len(learned)
    assert found.calibrated + found.judged == 300
    assert 10 < found.judged < 60
    for feed, labels in zip(found.judgement, found.labels, strict=True):
        assert labels is not None
        for row, label in zip(feed["x"], labels, strict=True):
            assert row.tobytes() not in learned
            assert np.array_equal(row, X[label])


def test_only_so_many_are_kept() -> None:
    few = split(data([np.arange(300)]), most=50)
    all_of_them = split(data([np.arange(300)]))
    assert isinstance(few.calibration, dict)
    assert isinstance(all_of_them.calibration, dict)
    assert np.array_equal(few.calibration["x"], all_of_them.calibration["x"][:50])


def test_rows_in_files_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = split(data([np.arange(300)]), most=50)
    monkeypatch.setattr(samples, "_LARGE", 1000)
    found = split(data([np.arange(300)]), most=50)
    assert isinstance(usual.calibration, dict)
    assert isinstance(found.calibration, dict)
    assert np.array_equal(found.calibration["x"], usual.calibration["x"])
    for a, b in zip(found.judgement, usual.judgement, strict=True):
        assert np.array_equal(a["x"], b["x"])


def test_feeds_are_samples_where_rows_are_not() -> None:
    found = split(data(np.array_split(np.arange(60), 30), WHOLE))
    assert isinstance(found.calibration, list)
    assert found.calibrated == len(found.calibration)
    assert found.calibrated + found.judged == 30


@pytest.mark.parametrize(("count", "enough"), [(1, False), (2, True)])
def test_one_sample_cannot_do_both(count: int, enough: Any) -> None:
    if enough:
        assert split(data([np.arange(count)])).judged == 1
    else:
        with pytest.raises(InputError, match="too few samples"):
            split(data([np.arange(count)]))
