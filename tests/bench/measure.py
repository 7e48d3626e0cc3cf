"""What it takes to run one optimizer on one model: CPU time and memory of its process and of those it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "Cost", "measure"]

ROOT = Path(__file__).parents[2]
"""Where `tests` can be imported from."""


@dataclass(frozen=True)
class Cost:
    """Of one process, and of its children that it waited for."""

    cpu: float
    """Seconds, user and system, from the start of the interpreter to its end."""
    memory: int
    """Largest resident size of one process, in bytes."""
    problem: str | None = None
    """The last line of what it wrote to stderr, if it failed."""


def measure(
    tool: str, source: Path, target: Path, *, seconds: float = 600.0, options: Mapping[str, Any] | None = None
) -> Cost:
    """Let `tool` read `source` and write `target`, with options of its own; it is killed after `seconds`."""
    given = [tool, str(source.resolve()), str(target.resolve()), json.dumps(dict(options or {}))]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.tools", *given],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            late = not timer.is_alive()
            timer.cancel()
        log.seek(0)
        lines = log.read().decode(errors="replace").strip().splitlines()
    problem = None
    if process.returncode:
        problem = f"it took longer than {seconds:g} s" if late else lines[-1] if lines else f"{process.returncode}"
    memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Cost(usage.ru_utime + usage.ru_stime, memory, problem)
