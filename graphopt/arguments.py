"""What the verbs are given, checked in one place: Python callers have no parser before them."""

from __future__ import annotations

import difflib
import math
import os
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from graphopt.errors import InputError, UsageError
from graphopt.graph.load import Source
from graphopt.graph.nodes import graphs, key
from graphopt.run.session import Device

__all__ = ["check_batch", "check_calibration", "check_keys", "check_opset", "check_run", "check_tolerance", "named"]

_MOST_THREADS = 1024
_MOST_SEED = 2**63 - 1
_MOST_EXTENT = 2**31 - 1


def check_run(*, device: object = "auto", threads: object = 0, seed: object = 0, set_dims: object = None) -> None:
    """Insist on what a run can be made with.

    Raises:
        UsageError: an unknown device, a negative number, or an extent that is no natural number.
    """
    devices = typing.get_args(Device)
    if device not in devices:
        raise UsageError(f"device is {_shown(device)}: give one of {', '.join(devices)}")
    _insist("threads", threads, 0, _MOST_THREADS)
    _insist("seed", seed, 0, _MOST_SEED)
    if set_dims is None:
        return
    if not isinstance(set_dims, Mapping):
        raise UsageError(f"set_dims is {_shown(set_dims)}: give a mapping from names of dimensions to their extents")
    for name, extent in set_dims.items():
        if not isinstance(name, str):
            raise UsageError(f"set_dims names a dimension {_shown(name)}: give its name as text")
        _insist(f"the dimension {name!r}", extent, 1, _MOST_EXTENT)


def check_tolerance(atol: object, rtol: object) -> None:
    """Insist on what a difference can be compared with.

    Raises:
        UsageError: a number that is negative or not finite, or no number.
    """
    for name, given in (("atol", atol), ("rtol", rtol)):
        number = isinstance(given, int | float | np.integer | np.floating) and not isinstance(given, bool)
        if given is not None and not (number and 0 <= given < math.inf):  # type: ignore[operator]
            raise UsageError(f"{name} is {_shown(given)}: give a finite number, at least 0")


def check_batch(given: object) -> tuple[int, ...]:
    """The numbers of rows that are asked for.

    Raises:
        UsageError: one is no natural number.
    """
    sizes: list[Any] = [] if given is None else [given]
    if isinstance(given, Sequence) and not isinstance(given, str):
        sizes = list(given)
    for size in sizes:
        _insist("batch", size, 1, _MOST_EXTENT)
    return tuple(sizes)


def check_calibration(given: object, *, used: bool) -> Path | None:
    """The file that keeps statistics, if one is given.

    Args:
        given: what may be its path.
        used: whether there is a use for them.

    Raises:
        UsageError: there is none, or it is no path.
    """
    if given is None:
        return None
    if not isinstance(given, str | os.PathLike):
        raise UsageError(f"calibration is {_shown(given)}: give the path of a file")
    if not used:
        raise UsageError("a calibration is that of an int8 model: give int8 as well")
    return Path(given)


def _insist(name: str, given: object, least: int, most: int) -> None:
    """Insist on a whole number from `least` to `most`."""
    whole = isinstance(given, int | np.integer) and not isinstance(given, bool)
    if not whole or not least <= int(given) <= most:  # type: ignore[call-overload]
        raise UsageError(f"{name} is {_shown(given)}: give a whole number from {least} to {most}")


def _shown(value: object) -> str:
    """A few words of anything."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"  # noqa: PLR2004 - fits a sentence


def check_opset(source: Source, opset: int | None) -> None:
    """Insist that an opset can be raised to what is asked for."""
    given = source.model.opset_imports.get("", 0)
    if opset is not None and not given <= opset <= onnx.defs.onnx_opset_version():
        known = onnx.defs.onnx_opset_version()
        raise UsageError(f"{source.name} is at opset {given}: give one from there to {known}, the newest known here")


def check_keys(source: Source, skip: Iterable[str], others: Iterable[str] = ()) -> None:
    """Insist that the nodes to leave alone exist: a misspelt key would be passed over in silence.

    Args:
        source: the model as given.
        skip: keys of its nodes.
        others: what else may be named: groups, and nodes that rewriting made.

    Raises:
        UsageError: a key is none of these.
    """
    keys = {key(node) for graph in graphs(source.model) for node in graph}.union(others)
    if unknown := [k for k in skip if k not in keys]:
        close = difflib.get_close_matches(unknown[0], keys, n=3)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise UsageError(f"{source.name} has no node {'or group ' if others else ''}with the key {unknown[0]!r}{hint}")


@contextmanager
def named(model: object, role: str) -> Iterator[None]:
    """Errors that say which of two models they are about: its path, or its role where it came from memory."""
    name = str(model) if isinstance(model, str | os.PathLike) else role
    try:
        yield
    except InputError as problem:
        if name in str(problem):
            raise
        raise type(problem)(f"{name}: {problem}") from problem
