"""Reads arrays from files that nobody vouches for: nothing is unpickled, and sizes are checked before reading."""

from __future__ import annotations

import errno
import math
import os
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from numpy.lib import format as npy

from graphopt.errors import InputError

__all__ = ["read_npz", "read_pb"]

_MOST: Final = 16 << 30
"""Bytes that one file may unpack to."""
_LARGE: Final = 1 << 26
"""Bytes of an array above which it lies in a file."""
_PIECE: Final = 1 << 20
"""Bytes that are read at once then."""
_MOST_PACKED: Final = 100
_HARMLESS: Final = 1 << 28
"""A file that unpacks to more bytes than this, and to that many times its size, is a trap rather than data."""
_MOST_MESSAGE: Final = (1 << 31) - 1
_MOST_AXES: Final = 32
"""Of an array: older versions of numpy have no more."""


_LONGEST: Final = 200
"""Characters of a library's sentence that are repeated."""
_MOST_PER_BYTE: Final = 8
"""Bytes that one byte of a message can stand for: a small number among 64-bit ones."""


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file.

    Raises:
        InputError: it cannot be read, holds something else than plain arrays, or lies about their size.
    """
    try:
        with _opened(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if (size := sum(m.file_size for m in members)) > _MOST:
                raise InputError(f"{path} unpacks to {size:,} bytes, more than the {_MOST:,} allowed; split it")
            if size > _HARMLESS and size > _MOST_PACKED * os.fstat(file.fileno()).st_size:
                raise InputError(f"{path} unpacks to {size:,} bytes, far more than data does; save it uncompressed")
            arrays = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name == member.filename or name in arrays or member.flag_bits & 1:
                    raise InputError(
                        f"{path} is no plain .npz file: {member.filename!r} is repeated, encrypted or no array; "
                        "write it with numpy.savez"
                    )
                with archive.open(member) as stream:
                    arrays[name] = _read_npy(stream, member.file_size, f"{name!r} in {path}")
            return arrays
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as an .npz file: {_short(error)}; write it with numpy.savez"
        ) from error


def _opened(path: Path) -> IO[bytes]:
    """A regular file, opened without waiting for anybody."""
    if not stat.S_ISREG(path.stat().st_mode):  # to open a device can do something already
        raise OSError(errno.EINVAL, "it is no regular file")
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    raise OSError(errno.EINVAL, "it is no regular file")


def _read_npy(stream: IO[bytes], size: int, where: str) -> np.ndarray:
    try:
        version = npy.read_magic(stream)
        header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = header(stream)
    except (ValueError, KeyError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise InputError(
            f"{where} is no array of a known .npy version: {_short(error)}; write it with numpy.savez"
        ) from error
    if dtype.hasobject or dtype.names:
        raise InputError(f"{where} holds Python objects or records; save plain arrays (strings as dtype 'U')")
    promised, present = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if any(type(extent) is not int for extent in shape) or math.prod(n or 1 for n in shape) >= _MOST:
        raise InputError(f"{where} has a shape that no array can have: write it again")
    if len(shape) > _MOST_AXES or min(shape, default=0) < 0 or promised != present:
        raise InputError(f"{where} claims the shape {shape} of {dtype}, {promised:,} bytes, but has {present:,}")
    array = _filled(stream, promised).view(dtype) if promised else np.empty(math.prod(shape), dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _filled(stream: IO[bytes], size: int) -> np.ndarray:
    """So many bytes of a stream; in an unnamed file, where they are many."""
    if size <= _LARGE:
        return np.frombuffer(bytearray(stream.read(size)), np.uint8)
    with tempfile.TemporaryFile() as file:
        room = np.memmap(file, np.uint8, "w+", shape=(size,))
    for start in range(0, size, _PIECE):
        piece = np.frombuffer(stream.read(min(_PIECE, size - start)), np.uint8)
        if len(piece) < min(_PIECE, size - start):
            raise EOFError("it ends too early")
        room[start : start + _PIECE] = piece
    return room


def read_pb(path: Path, *, sequence: bool = False) -> tuple[str, Any]:
    """The name and the tensor (or list of tensors) in a .pb file of an ONNX test data set.

    Raises:
        InputError: it cannot be read, or points to data elsewhere.
    """
    try:
        with _opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > _MOST_MESSAGE:
                raise InputError(f"{path} is larger than an ONNX tensor can be (2 GiB)")
            data = file.read(size)  # what it is asked for, it takes from memory before it reads
        if sequence:
            items = onnx.SequenceProto.FromString(data)
            return _name(items), [_tensor(t, path, size) for t in items.tensor_values]
        tensor = onnx.TensorProto.FromString(data)
        return _name(tensor), _tensor(tensor, path, size)
    except (OSError, DecodeError, ValueError, TypeError, MemoryError, AssertionError) as error:  # the last is onnx_ir's
        raise InputError(f"{path} cannot be read as an ONNX tensor: {_short(error)}") from error


def _short(error: Exception) -> str:
    """What is wrong, without all of what it is wrong with."""
    text = str(error)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _name(proto: onnx.TensorProto | onnx.SequenceProto) -> str:
    """Its name; of what is no UTF-8, protobuf gives the bytes."""
    name: str | bytes = proto.name
    return name.decode(errors="replace") if isinstance(name, bytes) else name


def _tensor(proto: onnx.TensorProto, path: Path, size: int) -> np.ndarray:
    tensor = ir.serde.deserialize_tensor(proto)
    if not isinstance(tensor, ir.StringTensor) and tensor.nbytes > _MOST_PER_BYTE * size:
        raise InputError(f"{path} holds less than the shape of its tensor asks for")
    if isinstance(tensor, ir.ExternalTensor):
        raise InputError(f"{path} keeps its data in another file; store the values in the file itself")
    if isinstance(tensor, ir.StringTensor):
        return np.array([s.decode() for s in tensor.string_data()], object).reshape(tensor.shape.numpy())
    return np.array(tensor.numpy())
