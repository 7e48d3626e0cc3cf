"""The whole story on a machine that says it has a GPU: which device is used, for what, and what reports say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphopt
from graphopt.report import words
from graphopt.report.data import BenchReport
from tests.support.faking import pretend

MODELS = Path(__file__).parents[2] / "models"
NET, DATA = MODELS / "digits_resnet.onnx", MODELS / "digits_calib.npz"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return pretend(monkeypatch)


@pytest.mark.parametrize(("device", "how"), [("auto", "with the CPU"), ("cuda", "alone")])
def test_lossless(device: Any, how: str, opened: list[str]) -> None:
    result = graphopt.optimize(NET, device=device, target="cuda", data=DATA, threads=1)
    found = result.report.verification
    assert result.report.provider == "CUDAExecutionProvider"
    assert found is not None
    assert found
    assert found.twice, "on the CPU as well"
    assert words.proof(found).startswith(f"verified: {found.feeds} feeds on CUDA: ")
    assert "TF32 off and on the CPU" in words.proof(found)
    assert result.report.timing is not None
    assert result.report.timing.provider == "CUDAExecutionProvider"
    assert how in opened


@pytest.mark.parametrize(
    "asked",
    [{"budget": {"macs": 0.8}}, {"fp16": True}, {"int8": True}, {"passes": ["lossless", "blocks{bits=8,size=16}"]}],
)
def test_what_is_learned_on_cuda_is_what_is_learned_on_the_cpu(asked: dict[str, Any], opened: list[str]) -> None:
    with np.load(DATA, allow_pickle=False) as arrays:  # noqa: TID251 - the project's own
        data = {name: arrays[name][:40] for name in arrays.files}
    here, there = (
        graphopt.optimize(NET, device=device, target="cuda", data=data, threads=1, **asked)
        for device in ("cpu", "cuda")
    )
    assert opened
    assert there.report.provider == "CUDAExecutionProvider"
    assert there.report.output.params == here.report.output.params
    assert there.report.output.nodes == here.report.output.nodes
    assert there.report.output.macs == here.report.output.macs


def test_check_and_bench(opened: list[str]) -> None:
    assert graphopt.check(NET, NET, device="cuda", threads=1).verification.provider == "CUDAExecutionProvider"
    found: BenchReport = graphopt.bench(NET, device="cuda", threads=1, batch=[1, 2])
    assert [run.rows for run in found.sweep] == [1, 2]
    assert found.environment.provider == "CUDAExecutionProvider"
    assert found.graphs is not None
    assert str(found.placement).endswith("nodes run on CUDA")
    assert "alone" in opened
