"""Weights in files of their own: opened only where they may be, and mapped instead of read.

What a model says of its files is not trusted (CVE-2022-25882, CVE-2024-27318, CVE-2026-27489, CVE-2026-34445 …):

    location   relative, without a way out of the folder; each folder on the way and the file itself are opened by name
               below the one before, never through a symbolic link, so that nothing can be exchanged in between
    file       a regular one with a single name (a hard link may stand for any file of the disk); never waited for
    offset,    natural numbers, within the file; as many bytes as type and shape ask for
    length
    keys       those of the specification, each once

With `root`, the user vouches for a folder: there links are followed as long as they end inside it, which is how caches
of model hubs are laid out. No native parser is ever given a path: what is opened here is all that is read.

A file that is mapped takes no memory of its own, and stays what it is when another one is moved to its place.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from graphopt.errors import InputError

__all__ = ["Files", "Mapped", "Outside", "Piece", "Runnable", "Weight", "weight_of"]

_KEYS: Final = frozenset({"location", "offset", "length", "checksum", "basepath"})
"""Of the specification, and the folder that onnx itself used to note; only the first three are used."""
_DIGITS: Final = 19
_HINT: Final = "or give --external-root"


@dataclass(frozen=True)
class Mapped:
    """A file that was opened and mapped."""

    path: Path
    """Without links."""
    identity: tuple[int, int, int, int]
    """Device, number, size and time of the last change."""
    data: NDArray[np.uint8] = field(repr=False, compare=False)

    @classmethod
    def below(cls, folder: Path, location: str, *, linked: bool = False) -> Mapped:
        """Map a file below a folder.

        Args:
            folder: without links.
            location: normalized, without a way out.
            linked: allow hard links.

        Raises:
            OSError: it cannot be opened, or is not what may be.
        """
        handle = _open_below(folder, location, linked=linked)
        try:
            found = os.fstat(handle)
            _refuse(found, linked=linked)
            identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
            if not found.st_size:
                return cls(folder / location, identity, np.empty(0, np.uint8))
            view = mmap.mmap(handle, found.st_size, access=mmap.ACCESS_READ)
            return cls(folder / location, identity, np.frombuffer(view, np.uint8))
        finally:
            os.close(handle)

    @classmethod
    def again(cls, path: Path, identity: Iterable[int]) -> Mapped:
        """The same file once more, in another process.

        Raises:
            OSError: it is gone or another one.
        """
        found = cls.below(path.parent, path.name, linked=True)
        if found.identity != tuple(identity):
            raise OSError(errno.ESTALE, "was changed meanwhile")
        return found


@dataclass(frozen=True)
class Piece:
    """The contents of one tensor in a file."""

    file: Mapped
    offset: int
    length: int

    @property
    def data(self) -> NDArray[np.uint8]:
        """The bytes, where they are."""
        return self.file.data[self.offset : self.offset + self.length]


@dataclass(frozen=True)
class Weight:
    """A weight that the runtime is given beside the model, and where in which file it is, if it is in one."""

    array: NDArray[Any] = field(repr=False)
    piece: Piece | None = None


@dataclass(frozen=True, eq=False)
class Outside:
    """A model that can be run, with large weights outside of its bytes: they are marked as external there."""

    content: bytes = field(repr=False)
    weights: Mapping[str, Weight]


Runnable = bytes | Outside
"""A serialized model, complete or with its large weights beside it."""


def weight_of(model: Runnable) -> int:
    """Bytes of a model and its weights."""
    if isinstance(model, bytes):
        return len(model)
    return len(model.content) + sum(w.array.nbytes for w in model.weights.values())


class Files:
    """The files that one model may read.

    Args:
        path: the model, as it was given.
        root: a folder in which links are followed.
    """

    def __init__(self, path: Path, root: Path | None = None) -> None:
        self._folder = path.resolve().parent
        self._places = tuple(dict.fromkeys((path.absolute().parent, self._folder)))
        self._root = None if root is None else root.resolve()
        if self._root is not None and not self._root.is_dir():
            raise InputError(f"{root} is no folder: give one that holds the weights")
        self.opened: dict[str, Mapped] = {}

    def piece(self, entries: Iterable[tuple[str, str]], needed: int | None, where: str) -> Piece:
        """What a tensor's entries point to.

        Args:
            entries: keys and values.
            needed: bytes that its type and shape ask for.
            where: what messages call it.

        Raises:
            InputError: it cannot or must not be read; the text says why.
        """
        given: dict[str, str] = {}
        for key, text in entries:
            if key not in _KEYS or key in given:
                raise InputError(f"{where} says {key[:80]!r} {'twice' if key in given else ', which nobody knows'}")
            given[key] = text
        location = given.get("location", "")
        if not location:
            raise InputError(f"{where} has no location: export the model again")
        if location not in self.opened:
            self.opened[location] = self._opened(location, where)
        file = self.opened[location]
        offset, length = given.get("offset", "0"), given.get("length", str(needed))
        if not all(text.isascii() and text.isdecimal() and len(text) <= _DIGITS for text in (offset, length)):
            raise InputError(f"{where} has an offset or a length that is no natural number: export the model again")
        if int(length) != needed:
            raise InputError(f"{where} has {length} bytes, which is not what its type and shape ask for")
        if int(offset) + int(length) > len(file.data):
            raise InputError(f"{where} goes past the end of {location!r}: the file is truncated, copy it again")
        return Piece(file, int(offset), int(length))

    def _opened(self, location: str, where: str) -> Mapped:
        if "\0" in location:
            raise InputError(f"{where} has a location that no file can have: export the model again")
        path = os.path.normpath(location)
        outside = f"{where} lies outside the model's folder ({location!r}): move it beside the model, {_HINT}"
        try:
            if self._root is not None:
                return self._vouched(self._root, location, where)
            if Path(path).is_absolute() or Path(path).parts[:1] == ("..",):
                raise InputError(outside)
            return Mapped.below(self._folder, path)
        except (FileNotFoundError, IsADirectoryError):
            raise InputError(f"{where} is missing: put {location!r} beside the model, {_HINT}") from None
        except OSError as problem:
            if problem.errno in {errno.ELOOP, errno.ENOTDIR}:
                reason = f"is reached through a symbolic link ({location!r}): put the file itself"
            elif problem.errno == errno.EMLINK:
                reason = f"is a hard link ({location!r}): put a copy"
            else:
                raise InputError(f"{where} cannot be read: {location[:200]!r}: {problem.strerror}") from None
            raise InputError(f"{where} {reason} beside the model, {_HINT}") from None
        except (ValueError, RuntimeError):  # links that go round in circles
            raise InputError(f"{where} has a location that no file can have: export the model again") from None

    def _vouched(self, root: Path, location: str, where: str) -> Mapped:
        """The file that a location stands for, beside the model or in `root`, once it is known to end in there."""
        for place in (*self._places, root):
            real = (place / location).resolve()
            if real.exists():
                if not real.is_relative_to(root):
                    raise InputError(f"{where} lies outside {root} ({location!r}): give another --external-root")
                return Mapped.below(root, str(real.relative_to(root)), linked=True)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _open_below(folder: Path, location: str, *, linked: bool) -> int:
    """A handle of a file, each part of whose way is opened below the one before and is no link."""
    binary, nofollow = getattr(os, "O_BINARY", 0), getattr(os, "O_NOFOLLOW", 0)
    last = os.O_RDONLY | nofollow | getattr(os, "O_NONBLOCK", 0) | binary
    if os.open not in os.supports_dir_fd:  # Windows
        path = folder / location
        if path.resolve() != path:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return os.open(path, last)
    *folders, name = Path(location).parts or (".",)
    way = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in folders:
            _refuse_link(os.stat(part, dir_fd=way, follow_symlinks=False))
            deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | nofollow, dir_fd=way)
            os.close(way)
            way = deeper
        _refuse(os.stat(name, dir_fd=way, follow_symlinks=False), linked=linked)  # even to open a device does something
        return os.open(name, last, dir_fd=way)
    finally:
        os.close(way)


def _refuse_link(found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _refuse(found: os.stat_result, *, linked: bool) -> None:
    """Insist on a regular file with a single name, unless hard links are allowed."""
    _refuse_link(found)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is no regular file")
    if found.st_nlink != 1 and not linked:
        raise OSError(errno.EMLINK, "is a hard link")
