"""What can go wrong, and the exit code each kind has on the command line.

GraphoptError                70  a bug of ours, or the base for `except`
├── UsageError                2  the call itself makes no sense
├── InputError                3  a model, data or policy file cannot be read, is invalid or unsafe
│   └── NeedsData             3  no feed could be generated on which the model runs
├── MachineError              3  the machine lacks what was asked for (CUDA, disk space)
└── Verdict                   1  it ran, and the answer is no
"""

from __future__ import annotations

__all__ = ["GraphoptError", "InputError", "MachineError", "NeedsData", "UsageError", "Verdict"]


class GraphoptError(Exception):
    """Base of everything graphopt raises on purpose. Its text is one sentence that says what to do."""

    exit_code = 70


class UsageError(GraphoptError):
    """The call makes no sense: contradicting options, an unknown name, a malformed value."""

    exit_code = 2


class InputError(GraphoptError):
    """A file that was given cannot be read, is invalid, or is not safe to read."""

    exit_code = 3


class NeedsData(InputError):  # noqa: N818 - it states what is needed
    """No generated feed runs on the model, so the user's own data is needed."""


class MachineError(GraphoptError):
    """The machine lacks what was asked for."""

    exit_code = 3


class Verdict(GraphoptError):  # noqa: N818 - a negative answer, not a malfunction
    """The work was done and the answer is negative; nothing was emitted."""

    exit_code = 1
