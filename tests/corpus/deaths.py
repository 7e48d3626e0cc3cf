"""Optimizes a model again and again, and is stopped at moments that nobody chose.

`python -m tests.corpus.deaths FOLDER MOMENTS` forks a process for each moment and signal: it runs the command in place,
over a model that has external data, in a folder of its own. Moments are spread over the time that a whole run takes.
Each line on stdout is JSON: the signal, how the process ended, and what the folder held afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import onnx

from graphopt.cli import main as command
from tests.end_to_end.support import net

__all__ = ["DATA", "MODEL"]

MODEL: Final = "net.onnx"
DATA: Final = "net.data"


def main() -> None:
    folder, moments = Path(sys.argv[1]), int(sys.argv[2])
    warm = _forked(folder / "warm", None, 0.0)  # it reads from the disk what the others find in memory
    if warm["status"]:
        sys.exit(f"the command fails: {warm}")
    began = time.perf_counter()
    whole = _forked(folder / "whole", None, 0.0)
    seconds = time.perf_counter() - began
    print(json.dumps(whole), flush=True)  # noqa: T201 - its answer
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        for moment in range(moments):
            place = folder / f"{number.name}-{moment}"
            print(json.dumps(_forked(place, number, seconds * (moment + 0.5) / moments)), flush=True)  # noqa: T201


def _forked(folder: Path, number: signal.Signals | None, after: float) -> Mapping[str, object]:
    folder.mkdir(parents=True)
    onnx.save(net(channels=8), folder / MODEL, save_as_external_data=True, location=DATA, size_threshold=0)
    child = os.fork()
    if not child:
        os.chdir(folder)
        sys.argv = ["graphopt", "optimize", MODEL, "-o", MODEL, "--force", "--device", "cpu", "--threads", "1", "-q"]
        status = 70
        try:
            command()
        except SystemExit as end:
            status = int(end.code or 0)
        except KeyboardInterrupt:  # before the command could take it, or after
            status = 130
        finally:
            os._exit(status)
    if number is not None:
        time.sleep(after)
        os.kill(child, number)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    held = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())}
    return {"signal": None if number is None else number.name, "status": status, "held": held}


if __name__ == "__main__":
    main()
