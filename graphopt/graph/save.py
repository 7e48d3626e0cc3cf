"""Models out.

The saver writes beside the target, reads back what it wrote, and only then moves it into place: OUT is the old file or
the new one, never half of either.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from graphopt.errors import MachineError
from graphopt.graph import shapes
from graphopt.graph.carry import Carried, to_proto
from graphopt.graph.collector import resting
from graphopt.graph.nodes import graphs, in_memory

__all__ = ["EXTERNAL_ABOVE", "save", "serialize", "weight_bytes", "write_text"]

EXTERNAL_ABOVE = 2_000_000_000
"""Bytes of weights above which they are written beside the model: protobuf ends at 2 GiB."""
_LONGEST_NAME = 100
"""Characters of the target's name that a temporary file repeats: file systems end at 255."""


@resting()
def serialize(model: ir.Model, carried: Carried) -> bytes:
    """The bytes of a model file with its weights inside. Same graph, same bytes.

    Raises:
        InputError: it would be larger than a protobuf can be.
    """
    inside = model
    if any(isinstance(v.const_value, ir.ExternalTensor) for g in graphs(model) for v in g.initializers.values()):
        inside = model.clone()
        for graph in inside.graphs():
            for value in graph.initializers.values():
                if value.const_value is not None:
                    value.const_value = in_memory(value.const_value)
    return bytes(to_proto(inside, carried).SerializeToString(deterministic=True))


def write_text(path: Path, text: str) -> None:
    """Write a small file so that `path` holds the old one or the complete new one.

    Raises:
        MachineError: the folder is missing, full or not writable.
    """
    try:
        with _beside(path) as (temporary, _):
            _write(temporary, text.encode())
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
            _write(temporary, content)
            check(temporary)
            temporary.replace(path)
            extra.clear()
    except OSError as problem:
        raise MachineError(f"{path} cannot be written: {problem.strerror or problem}; nothing was changed") from problem


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
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:_LONGEST_NAME]}.", suffix=".tmp", dir=path.parent)
    os.fchmod(handle, path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
    os.close(handle)
    return Path(name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    if path.read_bytes() != content:
        raise OSError(0, "what was read back is not what was written")


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers together."""
    return sum(v.const_value.nbytes for g in graphs(model) for v in g.initializers.values() if v.const_value)


def _with_external_weights(model: ir.Model, carried: Carried, path: Path, extra: list[Path]) -> bytes:
    """The bytes of a model whose large weights were written to a file beside `path`, which is added to `extra`."""
    outside = model.clone()
    digest = hashlib.sha256()
    partial = _aside(path)
    extra.append(partial)
    large: list[tuple[ir.Value, int, int]] = []
    with partial.open("wb") as stream:
        for graph in outside.graphs():
            for value in graph.initializers.values():
                if value.const_value is None or value.const_value.nbytes <= shapes.SMALL:
                    continue
                content = value.const_value.tobytes()
                digest.update(content)
                large.append((value, stream.tell(), len(content)))
                stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    # Named after its contents, so that a model that stands there already keeps its own weights until it is replaced.
    data = path.with_name(f"{path.name}.{digest.hexdigest()[:12]}.data")
    if not data.exists():
        extra.append(data)
    partial.replace(data)
    for value, offset, length in large:
        tensor = value.const_value
        if tensor is not None:
            value.const_value = ir.ExternalTensor(
                data.name,
                offset,
                length,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=str(value.name),
                base_dir=path.parent,
            )
    return bytes(to_proto(outside, carried).SerializeToString(deterministic=True))
