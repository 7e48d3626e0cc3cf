"""Whatever happens while a model is written: the old file or the new one, and nothing else is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.corpus.faults import MOMENTS
from tests.end_to_end.support import ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="faults are injected into forked processes")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.corpus.faults", str(tmp_path_factory.mktemp("faults"))],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_old_file_or_the_new_one(told: list[dict[str, Any]]) -> None:
    assert [t for t in told if t["held"] not in {"old", "new"}] == []
    assert {t["held"] for t in told} == {"old", "new"}


def test_a_full_disk_is_told_in_one_sentence(told: list[dict[str, Any]]) -> None:
    failed = [t for t in told if "fails" in t["fault"] or "full" in t["fault"]]
    assert [t for t in failed if t["status"] not in {0, 3}] == []
    assert [t for t in failed if (t["held"] == "new") != (t["status"] == 0)] == []
    assert sum(t["status"] == 3 for t in failed) > 10


def test_nothing_is_left_behind_by_what_fails(told: list[dict[str, Any]]) -> None:
    assert [t for t in told if t["status"] in {0, 3} and t["litter"]] == []


def test_what_died_leaves_hidden_files_at_most(told: list[dict[str, Any]]) -> None:
    died = [t for t in told if t["status"] in {9, -9}]
    assert len(died) > 10 + MOMENTS // 2
    visible = [t for t in died if any(not n.startswith(".") and not n.endswith(".data") for n in t["litter"])]
    assert visible == []


def test_the_file_behind_a_link_is_kept(tmp_path: Path) -> None:
    """Without --force, links are refused; see tests/end_to_end. A link that appears later is replaced, not followed."""
    from tests.corpus.faults import _saved  # noqa: PLC0415 - the one word of it that is of use here

    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "m.onnx").symlink_to(victim)
    _saved(tmp_path, "outside", 2)
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "m.onnx").is_symlink()
