"""The command over the model itself: on a disk that is full, and stopped at any moment. The old model or the new one."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.corpus.deaths import DATA, MODEL
from tests.end_to_end.support import ROOT, assert_fails, command, net

_MOMENTS = 3
_ROOM = 300_000
"""Bytes of a disk that holds the model below, and no second one."""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="these are disks and signals of POSIX")


def _stored(folder: Path, *, outside: bool) -> dict[str, bytes]:
    model = net(3, channels=40)
    onnx.save(model, folder / MODEL, save_as_external_data=outside, location=DATA, size_threshold=0)
    return _held(folder)


def _held(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir()}


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """A file system in memory."""
    given = ["mount", "-t", "tmpfs", "-o", f"size={_ROOM}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(given, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607 - weights may still be mapped


@contextmanager
def _limit(_folder: Path) -> Iterator[None]:
    """The size that a file may have is as it was, afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("out", [MODEL, "out.onnx"], ids=["in place", "beside"])
@pytest.mark.parametrize("outside", [False, True], ids=["inside", "outside"])
@pytest.mark.parametrize("disk", [_disk, _limit], ids=["disk", "limit"])
def test_a_full_disk_changes_nothing(disk: Any, outside: bool, out: str, tmp_path: Path) -> None:  # noqa: FBT001
    folder = tmp_path / "disk"
    folder.mkdir()
    with disk(folder):
        before = _stored(folder, outside=outside)
        if disk is _limit:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (sum(map(len, before.values())) // 2, hard))
        words = ["optimize", folder / MODEL, "-o", folder / out, "--force", "--device", "cpu", "--threads", "1"]
        answer = command(*words, "-q")
        assert_fails(answer, 3, "cannot be written", "nothing was changed")
        assert _held(folder) == before


def test_what_a_hard_link_shares_is_kept(tmp_path: Path) -> None:
    """A file that is replaced keeps its other names: nothing is written into it."""
    _stored(tmp_path, outside=False)
    victim, out = tmp_path / "victim", tmp_path / "out.onnx"
    victim.write_bytes(b"precious")
    out.hardlink_to(victim)
    assert command("optimize", tmp_path / MODEL, "-o", out, "--device", "cpu", "--threads", "1", "-q").code == 0
    assert victim.read_bytes() == b"precious"
    assert onnx.load(out).graph.node


def test_it_dies_at_any_moment(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.corpus.deaths", str(tmp_path), str(_MOMENTS)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    whole, *stopped = map(json.loads, done.stdout.splitlines())
    new, weights = whole["held"][MODEL], whole["held"][DATA]
    assert whole["held"].keys() == {MODEL, DATA}
    assert len(stopped) == 3 * _MOMENTS
    old = next(s["held"][MODEL] for s in stopped if s["status"])
    assert old != new
    for end in stopped:
        assert end["status"] in {0, -9, 130, 143}, end
        assert end["held"][MODEL] == new if end["status"] == 0 else end["held"][MODEL] in {old, new}, end
        assert end["held"][DATA] == weights, end
        litter = end["held"].keys() - {MODEL, DATA}
        assert not litter or (end["status"] == -9 and all(n.startswith(".") for n in litter)), end
