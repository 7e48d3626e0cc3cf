"""The example models, from the command line, judged on their test images."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest

from graphopt.catalogue import LOSSLESS
from tests.end_to_end.support import DATA, MODELS, NETS, command, graphopt, interface, operators, provenance


@dataclass(frozen=True)
class Done:
    """One model before and after."""

    source: Path
    out: Path
    report: dict[str, Any]

    @property
    def before(self) -> onnx.ModelProto:
        return onnx.load(self.source)

    @property
    def after(self) -> onnx.ModelProto:
        return onnx.load(self.out)


@pytest.fixture(scope="module", params=NETS)
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp(request.param)
    source, out, report = MODELS / f"{request.param}.onnx", folder / "small.onnx", folder / "report.json"
    answer = command("optimize", source, "-o", out, "--data", DATA, "--threads", 1, "--json", report)
    assert (answer.code, answer.out) == (0, "")
    assert "verified: " in answer.err
    return Done(source, out, json.loads(report.read_text(encoding="utf-8")))


def test_the_result_is_verified_on_the_data(done: Done) -> None:
    found = done.report["verification"]
    assert found["passed"]
    assert found["feeds"] == 8
    assert found["provider"] == done.report["provider"] == "CPUExecutionProvider"
    assert found["differences"] == []
    assert [o["name"] for o in found["outputs"]] == ["logits"]
    assert all(o["max_abs"] <= o["tolerance"] and o["evidence"] for o in found["outputs"])
    assert done.report["data"]["samples"] == 500
    assert not done.report["data"]["synthetic"]


def test_accuracy_is_what_it_was(done: Done) -> None:
    found = done.report["verification"]["metrics"]
    assert found["accuracy"]["before"] == found["accuracy"]["after"] > 0.97
    assert found["agreement"] == {"before": 1.0, "after": 1.0}


def test_it_is_smaller_and_no_edit_was_left_out(done: Done) -> None:
    before, after = done.report["source"], done.report["output"]
    assert after["nodes"] < before["nodes"]
    assert after["params"] <= before["params"]
    assert after["macs"] <= before["macs"]
    assert after["bytes"] < before["bytes"]
    assert after["bytes"] == done.out.stat().st_size
    assert done.report["left_out"] == []
    assert done.report["unchanged"] is None


def test_no_batchnormalization_is_left(done: Done) -> None:
    assert "BatchNormalization" not in set(operators(done.after))


def test_the_interface_is_what_it_was(done: Done) -> None:
    assert interface(done.after) == interface(done.before)
    versions = [{o.domain: o.version for o in m.opset_import} for m in (done.before, done.after)]
    assert versions[0] == versions[1]
    assert done.after.ir_version == done.before.ir_version


def test_the_file_says_how_it_was_made(done: Done) -> None:
    made = provenance(done.after)
    assert made["graphopt.version"] == done.report["version"]
    assert made["graphopt.source_sha256"] == done.report["source"]["sha256"]
    assert made["graphopt.verdict"] == "verified on 8 feeds, CPUExecutionProvider"
    assert tomllib.loads(made["graphopt.recipe"])["passes"] == [p.name for p in LOSSLESS]
    kept = {p.key: p.value for p in done.before.metadata_props}
    assert {p.key: p.value for p in done.after.metadata_props} == kept | made


def test_optimizing_it_again_gives_the_same_bytes(done: Done) -> None:
    again = done.out.with_name("again.onnx")
    answer = command("optimize", done.out, "-o", again, "--data", DATA, "--json", "-")
    assert answer.code == 0
    assert again.read_bytes() == done.out.read_bytes()
    assert answer.json["unchanged"] == "nothing was found to rewrite"
    assert answer.json["output"]["sha256"] == answer.json["source"]["sha256"] == done.report["output"]["sha256"]


def test_the_result_passes_a_check_on_generated_feeds(done: Done) -> None:
    assert command("check", done.source, done.out, "--threads", 1, "-q").code == 0


def test_the_installed_command_writes_beside_the_model(tmp_path: Path) -> None:
    source = tmp_path / "digits.onnx"
    source.write_bytes((MODELS / "digits_resnet.onnx").read_bytes())
    answer = graphopt("optimize", "digits.onnx", "--data", DATA, "--json", "-", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert answer.json["verification"]["passed"]
    assert "accuracy 99.60% → 99.60%" in answer.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digits.onnx", "digits.opt.onnx"]
