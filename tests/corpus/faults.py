"""Saves models while the disk fills up or the process dies, and tells what is left.

`python -m tests.corpus.faults FOLDER` forks a process for each fault. Python's own audit events (open, rename, chmod,
remove, …) and fsync are the moments at which it strikes, whatever the code between them looks like; a limit on
the size of files is a full disk, told by the system itself. Each line on stdout is JSON: the fault, and what the folder held
afterwards.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from graphopt.errors import MachineError
from graphopt.graph.load import Source, load
from graphopt.graph.save import save
from tests.corpus.case import graph, tensor

__all__ = ["MOMENTS"]

MOMENTS: Final = 20
"""Kills at moments that nobody chose."""
_EVENTS: Final = ("open", "os.rename", "os.chmod", "os.link", "os.truncate", "tempfile.mkstemp", "fsync")
_NOTHING_LEFT: Final = 64  # faults after which each way of saving is surely complete


def main() -> None:
    folder = Path(sys.argv[1])
    for way in ("inside", "outside"):
        for mode in ("fails", "dies"):
            for number in range(_NOTHING_LEFT):
                place = folder / f"{way}-{mode}-{number}"
                status = _forked(place, lambda p, w=way, m=mode, n=number: _struck(p, w, m, n))  # type: ignore[misc]
                _tell(place, f"{way} {mode} at {number}", status)
                if status == 0:
                    break
        for size in (0, 1, 100, 700, 1000):
            place = folder / f"{way}-full-{size}"
            _tell(place, f"{way} full at {size}", _forked(place, lambda p, w=way, s=size: _full(p, w, s)))  # type: ignore[misc]
    for number in range(MOMENTS):
        place = folder / f"killed-{number}"
        _tell(place, f"killed {number}", _forked(place, _again_and_again, after=0.001 * number))


def _source(seed: int) -> Source:
    model = graph("g (float[300] x) => (float[300] y) { y = Add(x, w) }")
    model.graph.initializer.append(tensor("w", np.full(300, seed)))
    return load(model)


def _saved(folder: Path, way: str, seed: int) -> None:
    source = _source(seed)
    limit = 0 if way == "outside" else 1 << 30
    save(source.model, folder / "m.onnx", source.carried, check=_read, external_above=limit)


def _read(path: Path) -> None:
    """What a user would do with the file: load it, weights and all."""
    weights = load(path).model.graph.initializers["w"].const_value
    if weights is None or weights.numpy().shape != (300,):
        raise ValueError("the weights are missing")


def _forked(folder: Path, work: Callable[[Path], None], after: float | None = None) -> int:
    """Does the work in a folder with an old model in a forked process; its exit status, or minus a signal."""
    folder.mkdir(parents=True)
    _saved(folder, "inside", 1)
    child = os.fork()
    if not child:
        try:
            work(folder)
        except MachineError:
            os._exit(3)
        except BaseException:  # noqa: BLE001 - whatever it is, it must be told by this process alone
            os._exit(70)
        os._exit(0)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return 3 if status == -signal.SIGXFSZ else status


def _struck(folder: Path, way: str, mode: str, number: int) -> None:
    """Lets one of the calls to the system fail, or end the process."""
    left = number
    inside = str(folder)

    def strike(event: str, given: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in _EVENTS or (event == "open" and not _writes(given, inside)):
            return
        left -= 1
        if left == -1:
            if mode == "dies":
                os._exit(9)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sync = os.fsync

    def fsync(handle: Any) -> None:
        strike("fsync", ())
        sync(handle)

    os.fsync = fsync  # type: ignore[assignment]
    source = _source(2)  # nothing of this is a moment
    del source
    sys.addaudithook(strike)
    _saved(folder, way, 2)


def _writes(given: tuple[Any, ...], folder: str) -> bool:
    path, _, flags = given
    writing = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
    return writing and isinstance(path, str | bytes | Path) and os.fsdecode(path).startswith(folder)


def _full(folder: Path, way: str, size: int) -> None:
    """No file may have more than some bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    _saved(folder, way, 2)


def _again_and_again(folder: Path) -> None:
    while True:
        for seed in (2, 1):
            _saved(folder, "inside", seed)


def _tell(folder: Path, fault: str, status: int) -> None:
    path = folder / "m.onnx"
    try:
        _read(path)
        weights = load(path).model.graph.initializers["w"].const_value
        held = "old" if weights is not None and weights.numpy()[0] == 1 else "new"
    except Exception as problem:  # noqa: BLE001 - that is the finding
        held = f"{type(problem).__name__}: {problem}"
    needed = {"m.onnx"} | _data(path)
    litter = sorted(p.name for p in folder.iterdir() if p.name not in needed)
    print(json.dumps({"fault": fault, "status": status, "held": held, "litter": litter}), flush=True)  # noqa: T201 - its answer


def _data(path: Path) -> set[str]:
    weights = onnx.ModelProto.FromString(path.read_bytes()).graph.initializer[0]
    return {e.value for e in weights.external_data if e.key == "location"}


if __name__ == "__main__":
    main()
