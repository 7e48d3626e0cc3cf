"""A user's own metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from graphopt.errors import UsageError
from graphopt.gate.measured import Metric
from graphopt.plan import budget
from graphopt.run.data import function

__all__ = ["metric_of"]


def metric_of(given: str | Callable[..., Any] | None) -> Metric | None:
    """The function, by its name.

    Args:
        given: itself, or `module:function` or `file.py:function`.

    Raises:
        InputError: it cannot be imported.
        UsageError: it is no function, or has the name of another metric.
    """
    if given is None:
        return None
    if isinstance(given, str):
        module, colon, name = given.rpartition(":")
        if not colon or not name.isidentifier():
            raise UsageError(f"metric is {given!r}: write module:function or file.py:function")
        made: Any = function(module, name)
    else:
        made, name = given, getattr(given, "__name__", "")
    if not callable(made) or not name.isidentifier():
        raise UsageError(f"metric is {str(given)[:60]!r}: give a function that has a name")
    if name in get_args(budget.Metric):
        raise UsageError(f"there is a metric {name!r} already: give the function another name")
    return Metric(name, made)
