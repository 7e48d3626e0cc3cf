"""What goes to the terminal, and what a library would like to put there."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import pytest

from graphopt.errors import MachineError, UsageError
from graphopt.report import console

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
    with console.progress(quiet=True, verbose=False) as say:
        say("verifying")
    assert capsys.readouterr().err == "loading \\x1b[2J\\u202e\n"
    with pytest.raises(UsageError, match="contradict each other"), console.progress(quiet=True, verbose=True):
        pass
