"""Models in: the file is read once, checked, and handed on with what is needed to put it back."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx.checker
import onnx_ir as ir
from google.protobuf.message import DecodeError, Message

from graphopt.errors import InputError, UsageError
from graphopt.graph import functions, invariants, shapes, values
from graphopt.graph.carry import Carried, from_proto
from graphopt.graph.collector import resting
from graphopt.graph.nodes import is_overridable, name_keys

__all__ = ["Source", "load", "validate"]

_CONSTANT_INITIALIZERS_BEFORE_IR = 4
_MOST_NODES = 1_000_000
"""Nodes that calls of local functions may come to."""


@dataclass(frozen=True)
class Source:
    """A model as it was given, and its graph."""

    model: ir.Model
    name: str
    """What messages call it: its path, or "model" where it came from memory."""
    runnable: bytes | Path
    """What the runtime is given: the serialized model, or its file where weights are external."""
    sha256: str
    """Of the file followed by its external data."""
    size: int
    """Bytes of the file and its external data."""
    carried: Carried
    path: Path | None = None
    """The file it was read from, if it was."""
    frozen: int = 0
    """Number of overridable initializers that were made constants because that was asked for."""
    notes: tuple[str, ...] = ()


def load(model: str | os.PathLike[str] | onnx.ModelProto | ir.Model | Any, *, freeze: bool = False) -> Source:
    """Read a model from a file or take one from memory, check it, and learn its shapes.

    Args:
        model: a path, an `onnx.ModelProto`, an `onnx_ir.Model`, or torch's `ONNXProgram`. It is not changed.
        freeze: make constants of the initializers that a feed could override.

    Raises:
        InputError: it cannot be read, is no ONNX model, or is not a valid one; the text says why.
    """
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        return _load(_read(path), path, path.resolve().parent, freeze=freeze)
    inner = getattr(model, "model", model)  # torch's ONNXProgram holds an onnx_ir.Model
    if isinstance(inner, ir.Model):
        inner = ir.to_proto(inner)
    if not isinstance(inner, onnx.ModelProto):
        raise UsageError(f"a {type(model).__name__} is no model: give a path, an onnx.ModelProto or an onnx_ir.Model")
    if _external(inner):
        raise InputError("a model in memory must hold its weights: load its external data first, or give its path")
    return _load(inner.SerializeToString(), None, None, freeze=freeze)


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the .onnx file inside it")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a device or a pipe: give a file")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: give the path of an .onnx file") from None
    except OSError as problem:
        raise InputError(f"{path} cannot be read: {problem.strerror or problem}") from None
    if not content:
        raise InputError(f"{path} is empty: export the model again")
    return content


@resting()
def _load(content: bytes, path: Path | None, folder: Path | None, *, freeze: bool) -> Source:
    name = str(path) if path else "model"
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError:
        raise InputError(f"{name} is not a complete ONNX model: the file is truncated or of another format") from None
    if not proto.HasField("graph") or not proto.opset_import:
        raise InputError(f"{name} is not an ONNX model: it has no graph or no operator set")
    _check_sizes(proto, name)
    external = _resolve(proto, name, folder)
    sha256, size = _digest(content, external)
    try:
        model, carried = from_proto(proto)
    except (ValueError, TypeError, KeyError, ir.serde.SerdeError) as problem:
        raise InputError(f"{name} is not a valid ONNX model: {_first_line(problem)}") from None
    if folder is not None and external:
        ir.external_data.set_base_dir(model.graph, folder)
    _order(model, name)
    _check_functions(model, name)
    frozen, notes = _free_constants(model, freeze=freeze)
    validate(model, name)
    name_keys(model)
    values.follow(model)
    runnable = path if path is not None and external else content
    return Source(model, name, runnable, sha256, size, carried, path, frozen, notes)


def _tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """Every tensor in `message`, however deep."""
    pending = [message]
    while pending:
        current = pending.pop()
        if isinstance(current, onnx.TensorProto):
            yield current
            continue
        for descriptor, value in current.ListFields():
            if descriptor.message_type is not None:
                pending.extend(value if descriptor.is_repeated else [value])


def _external(message: Message) -> list[onnx.TensorProto]:
    """Every tensor in `message` whose data is in another file."""
    return [t for t in _tensors(message) if t.data_location == onnx.TensorProto.EXTERNAL]


def _check_sizes(proto: onnx.ModelProto, name: str) -> None:
    """Each tensor inside the file has as many bytes as its type and shape ask for."""
    for tensor in _tensors(proto):
        if tensor.HasField("raw_data") and len(tensor.raw_data) != _bytes_of(tensor):
            raise InputError(
                f"{name} is not a valid ONNX model: the tensor {tensor.name!r} has {len(tensor.raw_data)} bytes, "
                "which is not what its type and shape ask for"
            )


def _bytes_of(tensor: onnx.TensorProto) -> int | None:
    """What the contents of a tensor take by its type and shape; None where there is no such number."""
    try:
        bits = ir.DataType(tensor.data_type).bitwidth
    except (ValueError, TypeError):  # no type that is known, or text
        return None
    return None if any(d < 0 for d in tensor.dims) else -(-math.prod(tensor.dims) * bits // 8)


def _resolve(proto: onnx.ModelProto, name: str, folder: Path | None) -> list[Path]:
    """The external data files, each known to lie inside the model's folder and to be long enough."""
    files: dict[str, Path] = {}
    for tensor in _external(proto):
        entries = {e.key: e.value for e in tensor.external_data}
        location = entries.get("location", "")
        where = f"{name}: the external data of {tensor.name!r}"
        if folder is None or not location:
            raise InputError(f"{where} has no location: export the model again")
        file = files.setdefault(location, folder / location)
        real = file.resolve()
        if Path(location).is_absolute() or not real.is_relative_to(folder):
            raise InputError(f"{where} lies outside the model's folder ({location!r}): move it beside the model")
        if not real.is_file():
            raise InputError(f"{where} is missing: put {location!r} beside the model")
        size, needed = real.stat().st_size, _bytes_of(tensor)
        offset, length = entries.get("offset", "0"), entries.get("length", str(needed))
        if not (offset.isdecimal() and length.isdecimal()):
            raise InputError(f"{where} has an offset or a length that is no natural number")
        if int(length) != needed:
            raise InputError(f"{where} has {length} bytes, which is not what its type and shape ask for")
        if int(offset) + int(length) > size:
            raise InputError(f"{where} goes past the end of {location!r}: the file is truncated")
    return list(files.values())


def _digest(content: bytes, external: list[Path]) -> tuple[str, int]:
    digest, size = hashlib.sha256(content), len(content)
    for file in sorted(external):
        size += file.stat().st_size
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest(), size


def _order(model: ir.Model, name: str) -> None:
    """Sort nodes so that each stands after what it reads. Some writers leave them in another order."""
    try:
        for graph in (model.graph, *(f.graph for f in model.functions.values())):
            graph.sort()
    except ValueError:
        raise InputError(f"{name} is not a valid ONNX model: its graph has a cycle") from None


def _check_functions(model: ir.Model, name: str) -> None:
    """A few functions that call each other twice come to more nodes than any machine can hold, and runtimes try."""
    size = functions.expanded(model)
    if endless := [f for f in model.functions if f not in size]:
        raise InputError(f"{name} is not a valid ONNX model: the function {endless[0][1]!r} comes to call itself")
    total = sum(size[f] * times for f, times in functions.calls(model, model.graph.all_nodes()).items())
    if total > _MOST_NODES:
        raise InputError(f"{name} is not safe: the calls of its functions come to {total:,} nodes")


def _free_constants(model: ir.Model, *, freeze: bool) -> tuple[int, tuple[str, ...]]:
    """Take initializers off the list of inputs where nothing can override them, or where that was asked for.

    Returns:
        How many were taken off on request, and what to tell about it.
    """
    listed = [v for v in model.graph.inputs if is_overridable(v)]
    old = model.ir_version < _CONSTANT_INITIALIZERS_BEFORE_IR
    if listed and not old and not freeze:
        return 0, (f"{len(listed)} weights are overridable; --freeze makes them constants",)
    for value in listed:
        model.graph.inputs.remove(value)
    if old:
        note = f"IR version {model.ir_version} becomes 4: weights need not be inputs any more, and stay constants"
        model.ir_version = _CONSTANT_INITIALIZERS_BEFORE_IR
        return 0, (note,)
    if not listed:
        return 0, ()
    return len(listed), (f"{len(listed)} overridable weights were made constants",)


def validate(model: ir.Model, name: str) -> None:
    """Insist on a valid graph: its structure by our own rules, its operators by the official checker.

    Raises:
        InputError: it is not valid; the text says why.
    """
    problem = next(invariants.broken(model), None)
    if problem:
        raise InputError(f"{name} is not a valid ONNX model: {problem}")
    proto = shapes.skeleton(model)
    for port in (*proto.graph.input, *proto.graph.output):  # of an unknown rank: runtimes take it, the checker does not
        if port.type.HasField("tensor_type"):
            port.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(proto, full_check=False)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise InputError(f"{name} is not a valid ONNX model: {_first_line(error)}") from None


def _first_line(problem: Exception) -> str:
    """The innermost cause of an error, on one line."""
    cause: BaseException = problem
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return (lines[0] if lines else type(cause).__name__)[:300]
