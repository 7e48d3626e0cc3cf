"""The same model gives the same bytes: whatever the hash seed, the number of threads, and the folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.end_to_end.support import ROOT


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    runs = []
    for seed, threads, folder in (("1", "1", "a"), ("2", "2", "another folder")):
        runs.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.corpus.repeat", str(tmp_path / folder), threads],
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads},
            )
        )
    first, second = (run.communicate()[0].splitlines() for run in runs)
    assert [run.returncode for run in runs] == [0, 0]
    assert len(first) > 30
    assert [line for line in first if line not in second] == []
