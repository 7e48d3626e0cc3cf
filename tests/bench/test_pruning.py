from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.pruning import Row, Subject, closest, table, ways

MODELS = Path(__file__).parents[2] / "models"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.7, 0.999])
def test_the_rate_is_the_least_that_leaves_no_more(share: float) -> None:
    rate = closest(lambda r: 1 - r * r, share)
    assert rate is not None
    assert 1 - rate * rate <= share < 1 - (rate - 1 / 256) ** 2


def test_what_cannot_be_cut_enough_has_no_rate() -> None:
    assert closest(lambda r: 1 - r / 2, 0.4) is None


def test_a_way_is_counted_and_judged() -> None:
    subject = Subject.of(
        MODELS / "digits_resnet.onnx", str(MODELS / "digits_calib.npz"), str(MODELS / "digits_test.npz")
    )
    row = subject.row("another", "rate 0.25", ways()["magnitude l2"](subject.simple, subject.calibration, 0.25))
    assert 0.6 < row.macs < 0.9
    given = subject.row("another", "", subject.model)
    assert given.accuracy == pytest.approx(0.996)
    assert given.agreement == 1.0
    assert row.accuracy is not None
    assert row.accuracy < 0.9  # nothing is fitted


def test_a_row_tells_why_there_is_no_result() -> None:
    *_, line = table([Row("a", "macs 0.5", 1.0, why="x | y")]).splitlines()
    assert line == "| a | macs 0.5 | x / y |  |  |  |  |"
