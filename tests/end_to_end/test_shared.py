"""Graphs of a larger collection that lies beside some checkouts: verified, and never worse than before."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import graphopt
from graphopt.report import summary
from tests.end_to_end.support import SHARED, interface
from tests.support.sampling import one_in

WITHOUT_WEIGHTS = {"seed_cnn_24m_graph.onnx"}
FOUND = sorted(
    p for folder in ("zoo", "data") for p in (SHARED / folder).glob("*.onnx") if p.name not in WITHOUT_WEIGHTS
)


@pytest.mark.skipif(not FOUND, reason="there is no ../shared with models here")
@pytest.mark.parametrize("path", one_in(5, FOUND, (p.stem for p in FOUND)))
def test_it_is_verified_and_not_worse(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "_TIMING_SECONDS", 0.0)
    result = graphopt.optimize(path, device="cpu", threads=1)
    report = result.report
    assert report.verification is not None
    assert report.verification.passed
    assert not report.left_out
    assert report.output.nodes <= report.source.nodes
    assert report.output.bytes <= 1.5 * report.source.bytes
    assert (report.output.macs or 0) <= (report.source.macs or 0)
    assert interface(result.model) == interface(onnx.load(path))
