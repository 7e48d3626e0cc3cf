"""A user's own metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from graphopt.errors import UsageError
from graphopt.plan.budget import Metric
from graphopt.run.data import function

__all__ = ["Outputs", "OwnMetric", "metric_of"]

Outputs = Iterable[tuple[Mapping[str, Any], np.ndarray | None]]
"""What a model gives for a few samples at a time, by the names of its outputs, with their labels if there are any."""


@dataclass(frozen=True)
class OwnMetric:
    """A user's own: of all outputs of one model to a number, of which more is better."""

    name: str
    function: Callable[[Outputs], float]


def metric_of(given: str | Callable[..., Any] | None) -> OwnMetric | None:
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
    if name in get_args(Metric):
        raise UsageError(f"there is a metric {name!r} already: give the function another name")
    return OwnMetric(name, made)
