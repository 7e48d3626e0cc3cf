"""Digests of what is large. A thread of its own finds them out, which takes as long as writing and needs no lock."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["begin"]


def begin(pieces: Iterable[bytes | memoryview]) -> Future[str]:
    """The digest (SHA-256, as text) of all pieces in a row."""
    thread = ThreadPoolExecutor(1, "digest")
    try:
        return thread.submit(_digest, pieces)
    finally:
        thread.shutdown(wait=False)


def _digest(pieces: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
