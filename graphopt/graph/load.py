"""Models in: the file is read once, checked, and handed on with what is needed to put it back."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import onnx
import onnx.checker
import onnx_ir as ir
from google.protobuf.message import DecodeError, EncodeError
from onnx_ir.passes.common import InlinePass

from graphopt.counted import counted
from graphopt.errors import InputError, UsageError
from graphopt.graph import census, functions, invariants, shapes, values
from graphopt.graph.carry import MAPS, Carried, from_proto, graph_protos, sparse_tensors
from graphopt.graph.collector import resting
from graphopt.graph.external import Files, Outside, Runnable, Weight
from graphopt.graph.nodes import MAPPABLE, is_overridable, name_keys

__all__ = ["Guard", "Source", "examine", "files_of", "load", "validate"]

_CONSTANT_INITIALIZERS_BEFORE_IR = 4
_MOST_NODES = 1_000_000
"""Nodes that calls of local functions may come to."""
_MOST_INLINED = 100_000
"""Nodes, beyond which rewriting leaves calls as they are."""
_MOST_BYTES = (1 << 31) - 1
"""Of a file: protobuf has no larger messages."""
_MOST_TAKEN_IN = 1 << 30
"""Bytes of external data that becomes a part of the file."""

_MOST_SHARING = 8
"""Tensors that are the same external data, on average. A few are tied; more make a small file a large model."""


@dataclass(frozen=True)
class Source:
    """A model as it was given, and its graph."""

    model: ir.Model
    name: str
    """What messages call it: its path, or "model" where it came from memory."""
    runnable: Runnable
    """What the runtime is given: the serialized model, its large weights beside it where they are external."""
    sha256: str
    """Of the file followed by its external data."""
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


class Guard(Protocol):
    """Finds out in another process whether native code survives a model, before it meets it in this one."""

    def __call__(self, model: Runnable, name: str, *, freeze: bool, nodes: int) -> None:
        """Have `examine` called on the model.

        Args:
            model: its files are read, and its weights found.
            name: what messages call it.
            freeze: as for `load`.
            nodes: how many there are, with all functions put in place of their calls.

        Raises:
            InputError: it finds fault with the model, or does not come back.
        """


def load(
    model: str | os.PathLike[str] | onnx.ModelProto | ir.Model | Any,
    *,
    freeze: bool = False,
    external_root: str | os.PathLike[str] | None = None,
    guard: Guard | None = None,
) -> Source:
    """Read a model from a file or take one from memory, check it, and learn its shapes.

    Args:
        model: a path, an `onnx.ModelProto`, an `onnx_ir.Model`, or torch's `ONNXProgram`. It is not changed.
        freeze: make constants of the initializers that a feed could override.
        external_root: a folder in which weights may be, also behind links, instead of the model's folder.
        guard: asked before native code is given anything of the model but its bytes to parse.

    Raises:
        InputError: it cannot be read, is no ONNX model, or is not a valid one; the text says why.
    """
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        return _load(_read(path), path, _beside(path, external_root), freeze, guard)
    inner = getattr(model, "model", model)  # torch's ONNXProgram holds an onnx_ir.Model
    if isinstance(inner, ir.Model):
        inner = ir.to_proto(inner)
    if not isinstance(inner, onnx.ModelProto):
        raise UsageError(f"a {type(model).__name__} is no model: give a path, an onnx.ModelProto or an onnx_ir.Model")
    return _load(_serialized(inner, "model"), None, None, freeze, guard)


def files_of(path: Path, external_root: str | os.PathLike[str] | None = None) -> tuple[Path, ...]:
    """The files that hold the weights of a model; nothing else is looked at.

    Raises:
        InputError: it or one of them cannot be read, or is no ONNX model.
    """
    files = _beside(path, external_root)
    _taken_in(_parsed(_read(path), str(path)), str(path), files)
    return tuple(f.path for f in files.opened.values())


def examine(model: Runnable, name: str, *, freeze: bool = False) -> None:
    """Do all that `load` does once the files are read, and what follows once functions are put in place of calls.

    Raises:
        InputError: as `load`.
    """
    content, weights = (model.content, model.weights) if isinstance(model, Outside) else (model, {})
    graph = _sorted(_parsed(content, name), weights, name)
    _followed(graph, name, freeze)
    if graph.model.functions and graph.nodes <= _MOST_INLINED:
        with suppress(ValueError, TypeError, KeyError, RuntimeError):  # what cannot be put there will not be
            InlinePass()(graph.model)
            values.follow(graph.model)


def _beside(path: Path, root: str | os.PathLike[str] | None) -> Files:
    return Files(path, None if root is None else Path(root))


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
def _load(
    content: bytes,
    path: Path | None,
    files: Files | None,
    freeze: bool,  # noqa: FBT001 - see `load`
    guard: Guard | None,
) -> Source:
    name = str(path) if path else "model"
    proto = _parsed(content, name)
    weights = _taken_in(proto, name, files)
    sha256, size = _digest(content, files)
    runnable: Runnable = content
    if files is not None and files.opened:
        inside = _serialized(proto, name)
        runnable = Outside(inside, weights) if weights else inside
    graph = _sorted(proto, weights, name)
    if guard is not None:
        guard(runnable, name, freeze=freeze, nodes=graph.nodes)
    frozen, notes = _followed(graph, name, freeze)
    external = tuple(f.path for f in files.opened.values()) if files else ()
    return Source(graph.model, name, runnable, sha256, size, graph.carried, path, external, frozen, notes)


def _parsed(content: bytes, name: str) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError:
        raise InputError(f"{name} is not a complete ONNX model: the file is truncated or of another format") from None
    if not proto.HasField("graph") or not proto.opset_import:
        raise InputError(f"{name} is not an ONNX model: it has no graph or no operator set")
    return proto


@dataclass(frozen=True)
class _Graph:
    """A graph that native code has not seen yet."""

    model: ir.Model
    carried: Carried
    sparse: tuple[onnx.SparseTensorProto, ...]
    """The sparse weights of all graphs."""
    nodes: int
    """With all functions put in place of their calls."""


def _sorted(proto: onnx.ModelProto, weights: Mapping[str, Weight], name: str) -> _Graph:
    """The graph of a model whose files are read."""
    sparse = tuple(t for graph in graph_protos(proto.graph) for t in sparse_tensors(graph))
    try:
        model, carried = from_proto(proto)
    except (ValueError, TypeError, KeyError, RuntimeError, ir.serde.SerdeError) as problem:
        raise InputError(f"{name} is not a valid ONNX model: {_first_line(problem)}") from None
    for weight, value in ((weights[n], v) for n, v in model.graph.initializers.items() if n in weights):
        value.const_value = ir.Tensor(weight.array, name=value.name)
    _order(model, name)
    return _Graph(model, carried, sparse, _counted(model, name))


def _followed(graph: _Graph, name: str, freeze: bool) -> tuple[int, tuple[str, ...]]:  # noqa: FBT001 - see `load`
    """Check a graph, and learn what it comes to: what native code thinks of it. Answers as `_free_constants`."""
    _check_sparse(graph.sparse, name)
    told = _free_constants(graph.model, freeze=freeze)
    validate(graph.model, name)
    name_keys(graph.model)
    values.follow(graph.model)
    return told


def _taken_in(proto: onnx.ModelProto, name: str, files: Files | None) -> dict[str, Weight]:
    """Look up all external data, and put it into the file: but large weights of the main graph, which are answered."""
    try:
        tensors = census.count(proto)
    except census.Refused as problem:
        raise InputError(f"{name} is not a valid ONNX model: {problem}") from None
    weights: dict[str, Weight] = {}
    taken = asked = 0
    for tensor in tensors:
        t = tensor.proto
        if t.data_location != onnx.TensorProto.EXTERNAL:
            continue
        where = f"{name}: the external data of {t.name!r}"
        if files is None:
            raise InputError("a model in memory must hold its weights: load its external data first, or give its path")
        piece = files.piece(((e.key, e.value) for e in t.external_data), census.bytes_of(t), where)
        asked += piece.length
        if asked > max(_MOST_TAKEN_IN, _MOST_SHARING * sum(len(f.data) for f in files.opened.values())):
            raise InputError(f"{name} is not safe: many of its tensors are the same few bytes of external data")
        dtype = ir.DataType(t.data_type)
        if tensor.owner is proto.graph and piece.length > shapes.SMALL and dtype in MAPPABLE:
            weights[t.name] = Weight(piece.data.view(dtype.numpy()).reshape(t.dims), piece)
            continue
        if (taken := taken + piece.length) > _MOST_TAKEN_IN:
            raise InputError(
                f"{where} does not fit into memory with what else is in bodies, attributes or packed types: "
                "run it where there is more memory"
            )
        t.raw_data = piece.data.tobytes()
        t.ClearField("data_location")
        t.ClearField("external_data")
    return weights


def _check_sparse(tensors: Iterable[onnx.SparseTensorProto], name: str) -> None:
    """The checker never sees sparse weights in the graph, which does not hold them: they are checked on their own."""
    try:
        for tensor in tensors:
            onnx.checker.check_sparse_tensor(tensor)
    except (onnx.checker.ValidationError, ValueError) as problem:
        raise InputError(f"{name} is not a valid ONNX model: {_first_line(problem)}") from None


def _digest(content: bytes, files: Files | None) -> tuple[str, int]:
    digest, size = hashlib.sha256(content), len(content)
    opened = {f.path: f.data for f in files.opened.values()} if files else {}
    for path in sorted(opened):
        size += len(opened[path])
        digest.update(opened[path].data)
    return digest.hexdigest(), size


def _order(model: ir.Model, name: str) -> None:
    """Sort nodes so that each stands after what it reads. Some writers leave them in another order."""
    try:
        for graph in (model.graph, *(f.graph for f in model.functions.values())):
            graph.sort()
    except ValueError:
        raise InputError(f"{name} is not a valid ONNX model: its graph has a cycle") from None


def _counted(model: ir.Model, name: str) -> int:
    """Nodes, with all functions put in place of their calls.

    A few functions that call each other twice come to more nodes than any machine can hold, and runtimes try.
    """
    size = functions.expanded(model)
    if endless := [f for f in model.functions if f not in size]:
        raise InputError(f"{name} is not a valid ONNX model: the function {endless[0][1]!r} comes to call itself")
    total = sum(size[f] * times for f, times in functions.calls(model, model.graph.all_nodes()).items())
    if total > _MOST_NODES:
        raise InputError(f"{name} is not safe: the calls of its functions come to {total:,} nodes")
    return total + sum(1 for _ in model.graph.all_nodes())


def _free_constants(model: ir.Model, *, freeze: bool) -> tuple[int, tuple[str, ...]]:
    """Take initializers off the list of inputs where nothing can override them, or where that was asked for.

    Returns:
        How many were taken off on request, and what to tell about it.
    """
    listed = [v for v in model.graph.inputs if is_overridable(v)]
    old = model.ir_version < _CONSTANT_INITIALIZERS_BEFORE_IR
    if listed and not old and not freeze:
        return 0, (f"overridable: {counted(len(listed), 'weight')}; --freeze makes constants of them",)
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

    The checker and inference are native code, and crafted models kill them: what they survive is for a guard to find
    out. What no memory holds is refused before: deep bodies, functions that come to millions of nodes, tensors that lie
    about their size. Rewriting asks inference again, of single nodes, which no other process could answer in time.

    Raises:
        InputError: it is not valid; the text says why.
    """
    problem = next(invariants.broken(model), None)
    if problem:
        raise InputError(f"{name} is not a valid ONNX model: {problem}")
    try:
        proto = shapes.skeleton(model)
    except ir.serde.SerdeError:  # protobuf reads text that is no UTF-8 as bytes, and writes none such
        raise InputError(
            f"{name} is not a valid ONNX model: something in it cannot be written, as a name that is no UTF-8"
        ) from None
    for port in (*proto.graph.input, *proto.graph.output):  # of an unknown rank: runtimes take it, the checker does not
        if port.type.HasField("tensor_type"):
            port.type.tensor_type.shape.SetInParent()
        elif port.name in model.graph.meta.get(MAPS, ()):  # the checker only asks for some type
            port.type.opaque_type.name = "map"
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
