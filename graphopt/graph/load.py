"""Models in: the file is read once, checked, and handed on with what is needed to put it back."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx.checker
import onnx_ir as ir
from google.protobuf.message import DecodeError, EncodeError

from graphopt.errors import InputError, UsageError
from graphopt.graph import census, digest, functions, invariants, shapes, values
from graphopt.graph.carry import Carried, from_proto, graph_protos
from graphopt.graph.collector import resting
from graphopt.graph.external import Files, Outside, Runnable, Weight
from graphopt.graph.nodes import MAPPABLE, is_overridable, name_keys

__all__ = ["Source", "load", "validate"]

_CONSTANT_INITIALIZERS_BEFORE_IR = 4
_MOST_NODES = 1_000_000
"""Nodes that calls of local functions may come to."""
_MOST_BYTES = (1 << 31) - 1
"""Of a file: protobuf has no larger messages."""
_MOST_TAKEN_IN = 1 << 30
"""Bytes of external data that becomes a part of the file."""


@dataclass(frozen=True)
class Source:
    """A model as it was given, and its graph."""

    model: ir.Model
    name: str
    """What messages call it: its path, or "model" where it came from memory."""
    runnable: Runnable
    """What the runtime is given: the serialized model, its large weights beside it where they are external."""
    digest: Future[str]
    """What `sha256` will be: it is found out meanwhile."""
    size: int
    """Bytes of the file and its external data."""
    carried: Carried
    path: Path | None = None
    """The file it was read from, if it was."""
    external: tuple[Path, ...] = ()
    """The files of its weights."""
    frozen: int = 0
    """Number of overridable initializers that were made constants because that was asked for."""
    notes: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Of the file followed by its external data."""
        return self.digest.result()


def load(
    model: str | os.PathLike[str] | onnx.ModelProto | ir.Model | Any,
    *,
    freeze: bool = False,
    external_root: str | os.PathLike[str] | None = None,
) -> Source:
    """Read a model from a file or take one from memory, check it, and learn its shapes.

    Args:
        model: a path, an `onnx.ModelProto`, an `onnx_ir.Model`, or torch's `ONNXProgram`. It is not changed.
        freeze: make constants of the initializers that a feed could override.
        external_root: a folder in which weights may be, also behind links, instead of the model's folder.

    Raises:
        InputError: it cannot be read, is no ONNX model, or is not a valid one; the text says why.
    """
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        return _load(_read(path), path, Files(path, None if external_root is None else Path(external_root)), freeze)
    inner = getattr(model, "model", model)  # torch's ONNXProgram holds an onnx_ir.Model
    if isinstance(inner, ir.Model):
        inner = ir.to_proto(inner)
    if not isinstance(inner, onnx.ModelProto):
        raise UsageError(f"a {type(model).__name__} is no model: give a path, an onnx.ModelProto or an onnx_ir.Model")
    return _load(_serialized(inner, "model"), None, None, freeze)


def _serialized(proto: onnx.ModelProto, name: str) -> bytes:
    try:
        return bytes(proto.SerializeToString())
    except (EncodeError, ValueError):
        raise InputError(
            f"{name} has more than 2 GiB in one piece: save it with external data and give its path"
        ) from None


def _read(path: Path) -> bytes:
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise InputError(f"{path} is a folder: give the .onnx file inside it")
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path} is a device or a pipe: give a file")
        if found.st_size > _MOST_BYTES:
            raise InputError(f"{path} is larger than an ONNX file can be (2 GiB): save the model with external data")
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} does not exist: give the path of an .onnx file") from None
    except OSError as problem:
        raise InputError(f"{path} cannot be read: {problem.strerror or problem}") from None
    except (ValueError, RuntimeError):  # a zero character; links that go round in circles
        raise InputError(f"{path} is no name that a file can have") from None
    if not content:
        raise InputError(f"{path} is empty: export the model again")
    return content


@resting()
def _load(content: bytes, path: Path | None, files: Files | None, freeze: bool) -> Source:  # noqa: FBT001 - see `load`
    name = str(path) if path else "model"
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError:
        raise InputError(f"{name} is not a complete ONNX model: the file is truncated or of another format") from None
    if not proto.HasField("graph") or not proto.opset_import:
        raise InputError(f"{name} is not an ONNX model: it has no graph or no operator set")
    weights = _taken_in(proto, name, files)
    pieces: list[bytes | memoryview] = [content, *_contents(files)]
    found = digest.begin(pieces)
    runnable: Runnable = content
    if files is not None and files.opened:
        inside = _serialized(proto, name)
        runnable = Outside(inside, weights) if weights else inside
    try:
        model, carried = from_proto(proto)
    except (ValueError, TypeError, KeyError, RuntimeError, ir.serde.SerdeError) as problem:
        raise InputError(f"{name} is not a valid ONNX model: {_first_line(problem)}") from None
    for weight, value in ((weights[n], v) for n, v in model.graph.initializers.items() if n in weights):
        value.const_value = ir.Tensor(weight.array, name=value.name)
    _order(model, name)
    _check_functions(model, name)
    frozen, notes = _free_constants(model, freeze=freeze)
    validate(model, name)
    name_keys(model)
    values.follow(model)
    external = tuple(f.path for f in files.opened.values()) if files else ()
    return Source(model, name, runnable, found, sum(map(len, pieces)), carried, path, external, frozen, notes)


def _taken_in(proto: onnx.ModelProto, name: str, files: Files | None) -> dict[str, Weight]:
    """Look up all external data, and put it into the file: but large weights of the main graph, which are answered."""
    try:
        tensors = census.count(proto)
    except census.Refused as problem:
        raise InputError(f"{name} is not a valid ONNX model: {problem}") from None
    weights: dict[str, Weight] = {}
    taken = 0
    for tensor in tensors:
        t = tensor.proto
        if t.data_location != onnx.TensorProto.EXTERNAL:
            continue
        where = f"{name}: the external data of {t.name!r}"
        if files is None:
            raise InputError("a model in memory must hold its weights: load its external data first, or give its path")
        piece = files.piece(((e.key, e.value) for e in t.external_data), census.bytes_of(t), where)
        dtype = ir.DataType(t.data_type)
        if tensor.owner is proto.graph and piece.length > shapes.SMALL and dtype in MAPPABLE:
            weights[t.name] = Weight(piece.data.view(dtype.numpy()).reshape(t.dims), piece)
            continue
        if (taken := taken + piece.length) > _MOST_TAKEN_IN:
            raise InputError(
                f"{where} does not fit into memory with what else is in bodies, attributes or packed types"
            )
        t.raw_data = piece.data.tobytes()
        t.ClearField("data_location")
        t.ClearField("external_data")
    _check_sparse(proto, name)
    return weights


def _check_sparse(proto: onnx.ModelProto, name: str) -> None:
    """The checker never sees sparse weights in the graph, which does not hold them: they are checked on their own."""
    try:
        for graph in graph_protos(proto.graph):
            for tensor in graph.sparse_initializer:
                onnx.checker.check_sparse_tensor(tensor)
    except (onnx.checker.ValidationError, ValueError) as problem:
        raise InputError(f"{name} is not a valid ONNX model: {_first_line(problem)}") from None


def _contents(files: Files | None) -> Iterator[memoryview]:
    """Of all files that were opened, each once."""
    opened = {f.path: f.data for f in files.opened.values()} if files else {}
    return (opened[path].data for path in sorted(opened))


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

    The checker and inference are native code and run in this process: inference is asked about one node at a time, as
    often as rewriting needs it, which no other process could answer in time. What made them hang or run out of their
    memory is refused before: deep bodies, functions that come to millions of nodes, tensors that lie about their size.

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
