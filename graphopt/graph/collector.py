"""Memory that is free: Python's collector of cycles, when it had better rest, and what goes back to the system."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["released", "resting", "trimmed"]

_LARGE = 1 << 24
"""Bytes from which looking for what is free takes less time than what was done with them."""


@contextmanager
def resting() -> Iterator[None]:
    """Collect no cycles meanwhile.

    A graph is one web of cycles, all of it in use: the collector would walk it again and again, and find nothing.
    Reading and rewriting a graph of thousands of nodes takes a third longer with it.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def released(size: int) -> None:
    """Free a large graph that nobody refers to any more, which its cycles would keep for a while; see `trimmed`."""
    if size > _LARGE:
        gc.collect()
        trimmed(size)


def trimmed(size: int) -> None:
    """Give back to the system what was freed, where its C library keeps it and it may be much.

    glibc keeps blocks of up to 32 MiB, once one of that size was freed: weights of a model, and values in a run.

    Args:
        size: bytes of what has just been at hand in several copies.
    """
    if size > _LARGE and sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
