"""What a candidate must keep to, from a file and from options: the lines of `gate.rules.RULES`.

A policy is TOML, in a file of its own or in the table [tool.graphopt.check] of a pyproject.toml:

    max-bytes = 0.6
    min-sqnr = 30
    max-drop.accuracy = 0.01
"""

from __future__ import annotations

import difflib
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from graphopt.errors import InputError, UsageError
from graphopt.gate.measured import Measured
from graphopt.gate.rules import RULES, Line, Row
from graphopt.plan.budget import Metric, drops
from graphopt.recipe import read_toml

__all__ = ["Policy"]

_TABLE: Final = ("tool", "graphopt", "check")
_PYPROJECT: Final = "pyproject.toml"


@dataclass(frozen=True)
class Policy:
    """Lines, in the order of `RULES`."""

    lines: tuple[Line, ...]
    atol: float | None = None
    rtol: float | None = None

    @classmethod
    def of(
        cls, policy: str | os.PathLike[str] | Mapping[str, Any] | None, options: Mapping[str, Any], own: Iterable[str]
    ) -> Policy:
        """From a file or what it would hold, and options by their keys; an option counts before the file's line.

        Whether every value must be the same is said by `equal`; where it is not, only if nothing else tells how well
        the candidate does its job.

        Args:
            policy: a file, or keys and limits; None for none.
            options: keys and limits; None stands for an option that was not given.
            own: names of metrics beside those that there are.

        Raises:
            InputError: the file cannot be read or is no TOML.
            UsageError: a key is unknown, or a limit makes no sense.
        """
        name = str(policy) if isinstance(policy, str | os.PathLike) else "the policy"
        told = _checked(_read(policy), name, own)
        given = _checked({k: v for k, v in options.items() if v is not None}, "the call", own)
        drop = {**told.get("max-drop", {}), **given.get("max-drop", {})}
        limits = {**told, **given, **({"max-drop": drop} if drop else {})}
        quality = any(RULES[key].quality for key in limits)
        bounds = {key: limits.get(key) for key in ("atol", "rtol")}
        limits.setdefault("interface", True)
        limits.setdefault("equal", not quality or any(b is not None for b in bounds.values()))
        if not limits["equal"] and any(b is not None for b in bounds.values()):
            raise UsageError(f"{name} gives a tolerance, but equal = false: leave one of them out")
        if policy is not None:
            limits.setdefault("synthetic", False)
        return cls(tuple(_lines(limits)), **bounds)

    @property
    def equal(self) -> bool:
        """Whether every value must be the same."""
        return any(line.rule.key == "equal" for line in self.lines)

    @property
    def counts_macs(self) -> bool:
        """Whether a line is about multiply-accumulates, for which shapes must be known."""
        return any(line.rule.key == "max-macs" for line in self.lines)

    def judge(self, measured: Measured) -> tuple[Row, ...]:
        """One row for each line."""
        return tuple(Row.of(line, measured) for line in self.lines)


def _lines(limits: Mapping[str, Any]) -> Iterable[Line]:
    for key, rule in RULES.items():
        if key not in limits or rule.judge is None:
            continue
        limit = limits[key]
        if key == "max-drop":
            yield from (Line(rule, value, metric) for metric, value in limit.items())
        elif limit is not False or key == "synthetic":  # a flag that is off asks for nothing
            yield Line(rule, limit)


def _read(policy: object) -> Mapping[str, Any]:
    if policy is None:
        return {}
    if isinstance(policy, Mapping):
        return policy
    if not isinstance(policy, str | os.PathLike):
        raise UsageError(f"policy is {reprlib.repr(policy)}: give the path of a TOML file, or keys and limits")
    path = Path(policy)
    found: Any = read_toml(path)
    for part in _TABLE if path.name == _PYPROJECT else ():
        found = found.get(part) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        raise InputError(f"{path} has no table [{'.'.join(_TABLE)}]: write the policy there")
    return found


def _checked(given: Mapping[str, Any], name: str, own: Iterable[str]) -> dict[str, Any]:
    for key, value in given.items():
        if key not in RULES:
            close = difflib.get_close_matches(str(key).replace("_", "-"), RULES, n=1, cutoff=0.0)[0]
            raise UsageError(f"{name} has {reprlib.repr(key)}, which is no line of a policy: did you mean {close!r}?")
        kind = RULES[key].kind
        words = key == "max-drop" and isinstance(value, str | Sequence) and value  # as an option has it
        if not words and not kind.fits(value):
            raise UsageError(f"{name} has {key} = {reprlib.repr(value)}: give {kind.words}")
    checked = dict(given)
    if "max-drop" in checked:
        checked["max-drop"] = drops(checked["max-drop"])
        names = (*get_args(Metric), *own)
        for metric in checked["max-drop"]:
            if metric not in names:
                close = difflib.get_close_matches(metric, names, n=1, cutoff=0.0)[0]
                raise UsageError(f"{name} has max-drop.{metric}: did you mean {close!r}? Others need --metric")
    return checked
