"""What was asked for, as the command line that asks for it again."""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

__all__ = ["command"]

_OPTIONS: Final = {"passes": "pass", "set_dims": "set"}
"""Where an option has another name than the parameter."""
_UNSAID: Final = frozenset({"progress"})


def command(verb: Callable[..., Any], given: Mapping[str, Any]) -> str:
    """The command line that does what a call did; what only a program has is put as a word in capitals.

    Args:
        verb: such as `graphopt.optimize`.
        given: its arguments, by name; those at their defaults are left out.
    """
    words = ["graphopt", verb.__name__]
    for name, parameter in inspect.signature(verb).parameters.items():
        value = given[name]
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            words.append(_word(name, value))
        elif name not in _UNSAID and value is not None and value != parameter.default:
            option = f"--{_OPTIONS.get(name, name).replace('_', '-')}"
            words += [option] if value is True else [w for part in _parts(name, value) for w in (option, part)]
    return " ".join(words)


def _parts(name: str, value: Any) -> Iterator[str]:
    """What is said of an option, once for each time it is repeated."""
    if isinstance(value, Mapping):
        yield from (_word(name, f"{k}={v}") for k, v in value.items())
    elif isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        yield from (_word(name, v) for v in value)
    else:
        yield _word(name, value)


def _word(name: str, value: Any) -> str:
    plain = isinstance(value, str | int | float | os.PathLike)
    return shlex.quote(os.fsdecode(value) if isinstance(value, os.PathLike) else str(value)) if plain else name.upper()
