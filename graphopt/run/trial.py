"""The first look at a model that nobody knows, and its first run: in a child process, which may not survive it.

Integer division overflows, indices point out of bounds, bodies never end: what kills a runtime, or keeps it for ever,
must not take this process along. A model is therefore loaded and run in a child first, on the very feeds that it is
compared on, with the runtime's optimizations and without; only one that came through that is run here, where it is
measured. What is made of it by rewriting computes the same, and runs here at once. The official checker and inference,
which see it before any runtime does, are no better, and are asked there first as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from graphopt.errors import InputError
from graphopt.graph.external import Runnable, weight_of
from graphopt.graph.load import Guard
from graphopt.run.child import Child, ChildDied, ChildFailed, Limits
from graphopt.run.session import Feed, Port

__all__ = ["endure", "guard", "inputs", "patient", "within"]

_SECONDS = 600.0
_LOOK_SECONDS, _NODE_SECONDS, _BYTE_SECONDS = 10.0, 0.01, 1e-8
"""For looking at a model, and for each of its nodes and bytes: some ten times what that takes."""
_LOOK_MEMORY, _NODE_MEMORY, _BYTE_MEMORY = 1 << 30, 1 << 14, 8


def patient() -> Limits:
    """Limits for running a user's data: a model that reaches them is of no use here."""
    known = "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {})
    return Limits(_SECONDS, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else None)


@contextmanager
def within(limits: Limits, child: Child | None) -> Iterator[Child]:
    """A child with these limits: the given one as long as this lasts, or one of its own."""
    with Child(limits) if child is None else child.within(limits) as found:
        yield found


def guard(child: Child) -> Guard:
    """Has a child look at models before `load` does."""

    def look(model: Runnable, name: str, *, freeze: bool, nodes: int) -> None:
        size = weight_of(model)
        seconds = min(_LOOK_SECONDS + _NODE_SECONDS * nodes + _BYTE_SECONDS * size, _SECONDS)
        limits = Limits(round(seconds, 1), _LOOK_MEMORY + _NODE_MEMORY * nodes + _BYTE_MEMORY * size)
        try:
            with child.within(limits):
                child.examine(model, name, freeze=freeze)
        except ChildDied as death:
            raise InputError(f"{name} is not safe: onnx does not survive the model: {death}") from death
        except ChildFailed as failure:
            raise InputError(str(failure)) from failure

    return look


def inputs(child: Child, model: Runnable) -> tuple[tuple[Port, ...], bool]:
    """What a model takes, and whether it loads only with the runtime's optimizations.

    Raises:
        InputError: it does not load.
    """
    try:
        return child.inputs(model, optimize=False), False
    except ChildDied as death:
        raise _killed(death) from death
    except ChildFailed:
        try:
            return child.inputs(model, optimize=True), True
        except ChildDied as death:
            raise _killed(death) from death
        except ChildFailed as failure:
            raise InputError(str(failure)) from failure


def endure(child: Child, model: Runnable, feeds: Iterable[Feed], levels: Sequence[bool] = (False, True)) -> None:
    """Run a model on feeds, just to see that the runtime survives it. What fails otherwise is not told here.

    Raises:
        InputError: it does not.
    """
    feeds = tuple(feeds)
    for optimize in levels:
        for feed in feeds:
            try:
                child.evaluate(model, feed, optimize=optimize, fetch=False)
            except ChildDied as death:
                raise _killed(death) from death
            except ChildFailed:
                pass


def _killed(death: ChildDied) -> InputError:
    return InputError(f"onnxruntime does not survive the model: {death}")
