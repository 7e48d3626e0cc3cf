"""Passes as text: `name`, or `name{field=value,…}` with values as in TOML."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from typing import Any, TypeVar

import tomli_w

from graphopt.errors import UsageError
from graphopt.protocol import Named

__all__ = ["parse", "spec"]

T = TypeVar("T", bound=Named)
_SPEC = re.compile(r"(?P<name>[a-z][a-z0-9-]*)(?:\{(?P<fields>.*)\})?")


def parse(text: str, kinds: Mapping[str, type[T]], *more: str) -> T:
    """What `text` describes.

    Args:
        text: as `spec` writes it.
        kinds: by name, what there is.
        more: further words that are told of where it is none of these.

    Raises:
        UsageError: unknown name or field, or a value of another type or out of range.
    """
    found = _SPEC.fullmatch(text.strip())
    if not found or found["name"] not in kinds:
        names = ", ".join((*kinds, *more))
        raise UsageError(f"no pass is called {text!r}: give one of {names}, as name or name{{field=value}}")
    kind = kinds[found["name"]]
    try:
        given = tomllib.loads("p = {" + (found["fields"] or "") + "}")["p"]
    except (ValueError, RecursionError):  # what tomllib says of bad TOML, of numbers and of nesting without end
        raise UsageError(f"{text[:80]!r} cannot be read: write {found['name']}{{field=value, field=value}}") from None
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name, value in given.items():
        if name not in fields:
            raise UsageError(f"{kind.name} has no field {name!r}: it has {', '.join(fields) or 'none'}")
        expected = type(fields[name].default)
        if type(value) is not expected and not (expected is float and type(value) is int):
            raise UsageError(f"{kind.name}{{{name}}} is of type {expected.__name__}, not {type(value).__name__}")
    return kind(**given)


def spec(step: Named) -> str:
    """The text that `parse` reads as `step`: fields at their defaults are left out."""
    changed = [
        f"{f.name}={_toml(getattr(step, f.name))}"
        for f in dataclasses.fields(step)
        if getattr(step, f.name) != f.default
    ]
    return step.name + (f"{{{','.join(changed)}}}" if changed else "")


def _toml(value: Any) -> str:
    return tomli_w.dumps({"value": value}).removeprefix("value = ").rstrip()
