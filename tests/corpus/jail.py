"""Runs graphopt's command line on one case after another, each in a forked process under guard.

`python -m tests.corpus.jail` imports everything once. Each line on stdin is a JSON list: the case's folder, and the
words of one or more commands. Each line on stdout says what became of them. Python's own audit events tell which files
a command opened and which processes it started; inotify tells whether anybody, native code and children included,
looked into the folder outside.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from tests.corpus.case import Place

__all__ = ["SECONDS", "Jail", "Verdict"]

SECONDS: Final = 30.0
_MEMORY: Final = 12 << 30
_MOST_MEGABYTES: Final = 2048
_LONGEST: Final = 1500
"""Characters of an error."""
_ROOT: Final = Path(__file__).parents[2]
_IN_ACCESS, _IN_MODIFY = 1, 2
_READS: Final = (sys.prefix, sys.base_prefix, str(_ROOT), "/proc/", "/sys/", "/dev/null", "/usr/", "/etc/", "/lib")
_TRIPWIRES: Final = ("os.system", "os.exec", "os.posix_spawn", "pickle.find_class", "socket.connect", "socket.bind")


@dataclass(frozen=True)
class Verdict:
    """What became of the commands of one case."""

    codes: tuple[int, ...]
    """Exit codes; fewer than commands if one of them killed the process."""
    signal: int
    seconds: float
    megabytes: int
    """The most that the process or one of its children held."""
    out: str
    err: str
    touched: tuple[str, ...]
    """Files that it opened and that are none of its business, and processes that it should not have started."""

    @property
    def told(self) -> str:
        """What happened, for who reads why a test failed."""
        times = f"after {self.seconds:.1f} s, {self.megabytes} MB"
        return f"{self.codes} signal {self.signal} {times}\n{self.err[-2000:]}"

    def insist(self, commands: int) -> None:
        """Every command ended by itself, in time, with a result or one sentence, and did no harm."""
        assert self.seconds < SECONDS, self.told
        assert not self.signal, self.told
        assert len(self.codes) == commands, self.told
        assert not self.touched, self.touched
        assert self.megabytes < _MOST_MEGABYTES, self.told
        assert set(self.codes) <= {0, 2, 3}, self.told
        assert "Traceback" not in self.err, self.told
        errors = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == sum(code != 0 for code in self.codes), self.told
        if all(self.codes):
            assert len(self.err.splitlines()) == commands, self.told
        for line in (self.out + self.err).splitlines():
            assert not [c for c in line if unicodedata.category(c) in {"Cc", "Cf", "Cs"}], ascii(line[:300])
        assert max(map(len, errors), default=0) < _LONGEST, self.told


class Jail:
    """The process that forks, as a context manager."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.corpus.jail"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, place: Place, *commands: Sequence[object]) -> Verdict:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        words = [list(map(str, c)) for c in commands]
        self._process.stdin.write(json.dumps([str(place.root), words]) + "\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        said |= {k: tuple(v) for k, v in said.items() if isinstance(v, list)}
        return Verdict(**said)


def main() -> None:
    from typer.testing import CliRunner  # noqa: PLC0415 - what is imported here, forked processes have

    from graphopt.cli import app  # noqa: PLC0415

    CliRunner().invoke(app, ["optimize", "nothing.onnx"])  # imports what a command needs
    for line in sys.stdin:
        root, commands = json.loads(line)
        print(json.dumps(asdict(_guarded(Place(Path(root)), commands))), flush=True)  # noqa: T201 - its answer


def _guarded(place: Place, commands: list[list[str]]) -> Verdict:
    log = place.tmp / "log"
    log.mkdir()
    watch = _watch(place.outside)
    start = time.monotonic()
    child = os.fork()
    if not child:
        _command(place, log, commands)
    waiting = os.pidfd_open(child)
    select.select([waiting], [], [], SECONDS)
    late = not select.select([waiting], [], [], 0)[0]
    if late:
        os.kill(child, signal.SIGKILL)
    os.close(waiting)
    _, status, usage = os.wait4(child, 0)
    return Verdict(
        codes=tuple(int(c) for c in _text(log / "codes").split()),
        signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        seconds=time.monotonic() - start,
        megabytes=usage.ru_maxrss >> 10,
        out=_text(log / "out"),
        err=_text(log / "err"),
        touched=(*_text(log / "touched").splitlines(), *_seen(watch)),
    )


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _command(place: Place, log: Path, commands: list[list[str]]) -> None:
    """Runs the commands in this forked process, and ends it."""
    from graphopt.cli import main as graphopt  # noqa: PLC0415 - it is there already

    os.setsid()
    os.chdir(place.inner)
    os.environ["TMPDIR"] = str(place.tmp)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    for name, stream in (("out", 1), ("err", 2)):
        os.dup2(os.open(log / name, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), stream)
    codes = os.open(log / "codes", os.O_CREAT | os.O_WRONLY, 0o600)
    touched = os.open(log / "touched", os.O_CREAT | os.O_WRONLY, 0o600)
    sys.addaudithook(lambda event, given: _note(event, given, place, touched))
    for words in commands:
        sys.argv = ["graphopt", *words]
        code: Any = 0
        try:
            graphopt()
        except SystemExit as end:
            code = end.code or 0
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(codes, f"{code}\n".encode())
    os._exit(0)


def _note(event: str, given: tuple[Any, ...], place: Place, log: int) -> None:
    if event in _TRIPWIRES or (event == "subprocess.Popen" and list(given[1])[1:] != _WORKER):
        os.write(log, f"{event} {ascii(given)[:200]}\n".encode())
    if event != "open" or isinstance(given[0], int) or given[0] is None:
        return
    path = os.fsdecode(given[0])
    if isinstance(given[2], int) and given[2] & os.O_NOFOLLOW:  # a link itself is opened, or rather not
        path = f"{os.path.realpath(os.path.dirname(path) or '.')}/{os.path.basename(path)}"  # noqa: PTH119, PTH120
    else:
        path = os.path.realpath(path)
    writes = isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    ours = (str(place.inner), str(place.tmp))
    if not path.startswith(ours if writes else (*ours, *_READS)):
        os.write(log, f"open {path!r}\n".encode())


_WORKER: Final = ["-P", "-m", "graphopt.run.worker"]


# -- inotify ---------------------------------------------------------------------------------------------------------


def _watch(folder: Path) -> int:
    """Begins to watch a folder and the files in it, by whatever name these are opened."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    for path in (folder, *folder.iterdir()):
        if not path.is_symlink():
            libc.inotify_add_watch(watch, os.fsencode(path), _IN_ACCESS | _IN_MODIFY)
    return int(watch)


def _seen(watch: int) -> list[str]:
    try:
        events = os.read(watch, 1 << 16)
    except BlockingIOError:
        return []
    finally:
        os.close(watch)
    mask = struct.unpack_from("iIII", events)[1]
    folder = 1 << 30  # that the folder itself was listed is no harm
    return [] if mask & folder else [f"the folder outside was looked into (event {mask:#x})"]


if __name__ == "__main__":
    main()
