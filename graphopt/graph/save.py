"""Models out.

The saver writes beside the target, reads back what it wrote, and only then moves it into place: OUT is the old file or
the new one, never half of either.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from graphopt.errors import MachineError
from graphopt.graph import shapes
from graphopt.graph.carry import Carried, to_proto
from graphopt.graph.collector import resting, trimmed
from graphopt.graph.external import Outside, Runnable, Weight
from graphopt.graph.nodes import MAPPABLE, graphs

__all__ = ["EXTERNAL_ABOVE", "runnable", "save", "serialize", "weight_bytes", "write_bytes", "write_text"]

EXTERNAL_ABOVE = 2_000_000_000
"""Bytes of weights above which they are written beside the model: protobuf ends at 2 GiB."""
_ALIGNED = 64
"""Weights in a file of their own begin at multiples of it."""
_BLOCK = 1 << 18
"""Bytes that are read back at once."""
_LONGEST_NAME = 100
"""Characters of the target's name that a temporary file repeats: file systems end at 255."""


@resting()
def serialize(model: ir.Model, carried: Carried) -> bytes:
    """The bytes of a model file with its weights inside. Same graph, same bytes.

    Raises:
        InputError: it would be larger than a protobuf can be.
    """
    content = bytes(to_proto(model, carried).SerializeToString(deterministic=True))
    trimmed(len(content))
    return content


@resting()
def runnable(model: ir.Model, carried: Carried, external_above: int | None = None) -> Runnable:
    """A graph as the runtime takes it: as bytes, or above 2 GB as bytes with the weights beside them, not copied."""
    if weight_bytes(model) < (EXTERNAL_ABOVE if external_above is None else external_above):
        return serialize(model, carried)
    outside, moved = _apart(model)
    weights = {}
    for value, tensor, offset in moved:
        if tensor.dtype in MAPPABLE:
            value.const_value = _elsewhere(value, tensor, offset, "beside")
            weights[str(value.name)] = Weight(tensor.numpy())
    return Outside(serialize(outside, carried), weights)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a small file so that `path` holds the old one or the complete new one.

    Raises:
        MachineError: the folder is missing, full or not writable.
    """
    try:
        with _beside(path) as (temporary, _):
            _write(temporary, [content])
            temporary.replace(path)
    except OSError as problem:
        raise MachineError(f"{path} cannot be written: {problem.strerror or problem}") from problem


def save(
    model: bytes | ir.Model,
    path: Path,
    carried: Carried,
    *,
    check: Callable[[Path], None],
    external_above: int = EXTERNAL_ABOVE,
) -> None:
    """Write a model so that `path` holds the old file or the complete new one, whatever happens in between.

    Weights of more than `external_above` bytes together go to a file beside the model, named after their contents.

    Args:
        model: serialized, or a graph.
        path: where it shall stand.
        carried: from `load`.
        check: called with the written file before it is moved to `path`; what it raises is passed on.
        external_above: see above.

    Raises:
        MachineError: the folder is missing, full or not writable.
    """
    try:
        with _beside(path) as (temporary, extra):
            if isinstance(model, ir.Model) and weight_bytes(model) > external_above:
                content = _with_external_weights(model, carried, path, extra)
            else:
                content = model if isinstance(model, bytes) else serialize(model, carried)
            _write(temporary, [content])
            check(temporary)
            old = _weights_of(path)
            temporary.replace(path)
            extra.clear()
            _settle(path, old)
    except OSError as problem:
        raise MachineError(f"{path} cannot be written: {problem.strerror or problem}; nothing was changed") from problem


def _weights_of(path: Path) -> set[Path]:
    """The files beside a model that hold its weights: those that it names itself, and that were written here."""
    ours = re.compile(re.escape(path.name) + r"\.[0-9a-f]{12}\.data")
    beside = {file for file in path.parent.iterdir() if ours.fullmatch(file.name)}
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes() if beside else b"")
    except (OSError, DecodeError):  # there is none, or it names nothing
        return set()
    named = {e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"}
    return {file for file in beside if file.name in named}


def _settle(path: Path, old: set[Path]) -> None:
    """After a model was replaced: remove the weights of the old one, and see that the folder is on the disk."""
    with suppress(OSError):  # the new model is in its place, whatever happens here
        for file in old.difference(_weights_of(path)):
            file.unlink()
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _beside(path: Path) -> Iterator[tuple[Path, list[Path]]]:
    """A temporary file in the folder of `path`, and a list of further ones: what is left of them is removed."""
    temporary, extra = _aside(path), list[Path]()
    try:
        yield temporary, extra
    finally:
        for file in (temporary, *extra):
            file.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    """A new empty file in the folder of `path`, with the access rights that a file at `path` has or would have."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:_LONGEST_NAME]}.", suffix=".tmp", dir=path.parent)
    try:
        os.fchmod(handle, mode)
    except BaseException:
        Path(name).unlink()
        raise
    finally:
        os.close(handle)
    return Path(name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write(path: Path, pieces: Sequence[bytes | memoryview]) -> None:
    """Write a file, and see that it can be read back."""
    with path.open("wb") as stream:
        for piece in pieces:
            stream.write(piece)
        stream.flush()
        os.fsync(stream.fileno())
    room = bytearray(_BLOCK)
    with path.open("rb") as stream:
        # An array is compared with a view as blocks of memory; two views would be, element by element.
        same = all(room[: stream.readinto(memoryview(room)[: len(p)])] == p for piece in pieces for p in _parts(piece))
        if not same or stream.read(1):
            raise OSError(0, "what was read back is not what was written")


def _parts(piece: bytes | memoryview) -> Iterator[memoryview]:
    view = memoryview(piece)
    return (view[start : start + _BLOCK] for start in range(0, len(view), _BLOCK))


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers together."""
    return sum(v.const_value.nbytes for g in graphs(model) for v in g.initializers.values() if v.const_value)


_Moved = list[tuple[ir.Value, ir.TensorProtocol, int]]
"""Initializers, their contents, and where these come to lie."""


def _apart(model: ir.Model) -> tuple[ir.Model, _Moved]:
    """A copy of the graph, and what of its weights can be kept outside of its file."""
    outside, offset = model.clone(), 0
    moved: _Moved = []
    for value in outside.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > shapes.SMALL and tensor.dtype is not ir.DataType.STRING:
            moved.append((value, tensor, offset))
            offset += -(-tensor.nbytes // _ALIGNED) * _ALIGNED
    return outside, moved


def _elsewhere(value: ir.Value, tensor: ir.TensorProtocol, offset: int, location: str) -> ir.ExternalTensor:
    shape = ir.Shape(tensor.shape.numpy())
    return ir.ExternalTensor(location, offset, tensor.nbytes, tensor.dtype, shape=shape, name=str(value.name))


def _with_external_weights(model: ir.Model, carried: Carried, path: Path, extra: list[Path]) -> bytes:
    """The bytes of a model whose large weights were written to a file beside `path`, which is added to `extra`."""
    outside, moved = _apart(model)
    partial = _aside(path)
    extra.append(partial)
    pieces = list(_padded(moved))
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    _write(partial, pieces)
    # Named after its contents, so that a model that stands there already keeps its own weights until it is replaced.
    data = path.with_name(f"{path.name}.{digest.hexdigest()[:12]}.data")
    if not data.exists():
        extra.append(data)
    partial.replace(data)
    for value, tensor, offset in moved:
        value.const_value = _elsewhere(value, tensor, offset, data.name)
    return serialize(outside, carried)


def _padded(moved: _Moved) -> Iterator[bytes | memoryview]:
    """The contents of weights, where they are already in memory or in a mapped file, and zeros between them."""
    for _, tensor, _ in moved:
        if tensor.dtype in MAPPABLE:
            yield np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data
        else:
            yield tensor.tobytes()
        yield bytes(-tensor.nbytes % _ALIGNED)
