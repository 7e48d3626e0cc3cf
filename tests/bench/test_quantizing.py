from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import quantizing
from tests.bench.measure import Cost
from tests.bench.quantizing import Row, rows, table

MODELS = Path(__file__).parents[2] / "models"


def test_a_way_is_judged_timed_and_costed(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "onnxruntime, U8S8, minmax"
    monkeypatch.setattr(quantizing, "WAYS", {name: quantizing.WAYS[name]})
    monkeypatch.setattr(quantizing, "_SECONDS", 0.1)
    (row,) = rows(
        MODELS / "digits_resnet.onnx", str(MODELS / "digits_calib.npz"), str(MODELS / "digits_test.npz"), samples=64
    )
    assert row.cost is not None
    assert not row.cost.problem
    assert row.metrics["accuracy"][0] == pytest.approx(0.996)
    assert row.metrics["agreement"][1] > 0.98
    assert row.metrics["sqnr"][1] > 20
    assert row.bytes < (MODELS / "digits_resnet.onnx").stat().st_size / 2


def test_a_row_tells_why_there_is_no_result() -> None:
    *_, line = table([Row("a", {}, cost=Cost(1.0, 2_000_000, "x | y"))]).splitlines()
    assert line == "| a | x / y |  |  |  |  | 1 | 2 |"
