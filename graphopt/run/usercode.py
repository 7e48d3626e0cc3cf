"""What users give as code: its failures are theirs, and it does not decide how a command ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from graphopt.errors import GraphoptError

__all__ = ["user_code"]

_SIGNALLED: Final = 128
"""Codes above it are those of a process that was told to end."""


@contextmanager
def user_code(failure: str, kind: type[GraphoptError]) -> Iterator[None]:
    """Turn whatever users' code raises into an error of this kind, but for errors of our own.

    That includes `sys.exit`: a check that ends with the code 0 has passed.
    """
    try:
        yield
    except GraphoptError:
        raise
    except (Exception, SystemExit) as problem:
        if isinstance(problem, SystemExit) and isinstance(problem.code, int) and problem.code > _SIGNALLED:
            raise
        raise kind(f"{failure}: {type(problem).__name__}: {problem}") from problem
