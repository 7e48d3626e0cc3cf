"""What goes to the terminal, and what a library would like to put there."""

from __future__ import annotations

import io
import logging
import re
import sys
import warnings
from pathlib import Path

import pytest
from rich.console import Console

from graphopt.errors import MachineError, UsageError
from graphopt.report import console
from graphopt.run.machine import Machine

NASTY = "\x1b[2J\u202e"


def speak() -> None:
    logging.getLogger("some.library").warning("about %s", NASTY)
    logging.getLogger("graphopt.room").debug("about %s", NASTY)


def test_libraries_are_not_heard(capsys: pytest.CaptureFixture[str]) -> None:
    with console.logs(debug=False), warnings.catch_warnings():
        warnings.simplefilter("always")
        speak()
        warnings.warn(NASTY, stacklevel=1)
    assert capsys.readouterr() == ("", "")


def test_logs_are_shown_on_request_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(logging.getLogger().handlers)
    with console.logs(debug=True):
        speak()
    assert capsys.readouterr().err.splitlines() == [
        r"WARNING some.library: about \x1b[2J\u202e",
        r"DEBUG graphopt.room: about \x1b[2J\u202e",
    ]
    assert logging.getLogger().handlers == before
    assert logging.getLogger("graphopt").level == logging.NOTSET


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_stdout_is_told_and_a_full_stderr_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(MachineError, match="stdout cannot be written: No space left on device"):
            console.write("text", err=False)
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        console.write("text", err=True)


def test_a_stdout_that_is_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(MachineError, match="it is closed"):
        console.show("text", err=False)


def test_progress_is_told_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress(quiet=False, verbose=True) as say:
        say(f"loading {NASTY}")
        print("what a user's function prints")  # noqa: T201 - stdout is for data
    with console.progress(quiet=True, verbose=False) as say:
        say("verifying")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "loading \\x1b[2J\\u202e\nwhat a user's function prints\n")
    with pytest.raises(UsageError, match="contradict each other"), console.progress(quiet=True, verbose=True):
        pass


def test_a_phase_of_known_parts_has_a_bar_and_the_time_that_is_left() -> None:
    now, seen = 0.0, list[str]()
    terminal = Console(file=io.StringIO(), force_terminal=True, width=70, color_system=None)
    bars = console.Bars(terminal, lambda: now)

    def look() -> str:
        with terminal.capture() as found:
            terminal.print(bars.get_renderable())
        return found.get().rstrip("\n")

    bars(f"loading {NASTY}")
    assert "loading \\x1b[2J\\u202e" in look()
    for name in Machine(progress=bars).track(["a", "b", "c" * 99, "d", "e"], "rounding {}".format):
        assert f"rounding {name}"[:20] in look()
        assert ("…" in look()) == (len(name) > 9)
        seen.append(look())
        now += 30
    assert not any("\n" in line for line in seen), "a long name is cut"
    assert [re.findall(r"0:\d\d:\d\d left", line) for line in seen[2:]] == [
        ["0:01:30 left"],
        ["0:01:00 left"],
        ["0:00:30 left"],
    ]
    assert [line.count("━") for line in seen] == sorted(line.count("━") for line in seen)
    bars("verifying")
    assert "left" not in look()


def test_parts_of_a_phase_are_told_once_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress(quiet=False, verbose=True) as say:
        for _ in Machine(progress=say).track(range(5), "summing"):
            pass
        say("verifying")
        say("summing")
    assert capsys.readouterr().err.splitlines() == ["summing", "verifying", "summing"]
