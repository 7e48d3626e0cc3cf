"""The benchmark of CUDA, tried on the CPU."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.bench.cuda import FAST, RAW, Row, Sheet, measured, speedup
from tests.bench.measure import ROOT
from tests.bench.nets import NETS


def test_a_row_is_measured_and_stands_in_the_table(tmp_path: Path) -> None:
    path = ROOT / "models" / "digits_mobilenet.onnx"
    sheet = Sheet.open(tmp_path / "out")
    sheet.facts["doctor"] = []
    for variant in (RAW, "graphopt fp32"):
        sheet.add(measured(path, variant, tmp_path, device="cpu", rows=2))
    again = Sheet.open(tmp_path / "out")
    assert again == sheet
    assert again.has(path.stem, RAW)
    assert not again.has(path.stem, FAST)
    raw, ours = again.rows
    assert (raw.problem, ours.problem) == ("", "")
    assert ours.nodes < raw.nodes
    assert ours.agreement == 1
    assert ours.bench["rows"] == 2
    table = (tmp_path / "out" / "cuda.md").read_text()
    assert table.count("| digits_mobilenet |") == 2
    assert "CPUExecutionProvider, onnxruntime" in table
    assert "geometric mean" not in table, "nothing was measured in half precision"


def test_without_a_gpu_a_row_says_why_it_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "tiny_encoder.onnx"
    onnx.save(NETS["tiny_encoder"](), path)
    row = measured(path, RAW, tmp_path, device="cuda", rows=2)
    assert row.bench or "CUDA does not run here" in row.problem


def test_the_mean_is_geometric_and_of_models_with_a_free_number_of_rows() -> None:
    rows = [
        *(Row("m", FAST, bench={"ratio": ratio}) for ratio in (0.25, 1.0)),
        Row("fixed", FAST, free=False, bench={"ratio": 0.01}),
        Row("broken", FAST, "it does not run"),
        Row("m", RAW, bench={"ratio": 1.0}),
    ]
    assert speedup(rows) == pytest.approx(2.0)
    assert speedup(rows[2:]) is None
