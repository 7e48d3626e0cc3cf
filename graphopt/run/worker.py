"""The process that `Child` drives: `python -m graphopt.run.worker`.

A message in either direction is a length, a JSON header of that length, and raw bytes whose lengths stand in the
header: nothing is unpickled. The first message holds the limits; each later one a feed (or the question what the model
takes, or whether it can be looked at) and, if they changed, the limits and a model, or a model to simplify.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from graphopt.errors import GraphoptError, InputError
from graphopt.graph.external import Mapped, Outside, Runnable, Weight
from graphopt.run.session import Session

__all__ = ["OUT_OF_MEMORY", "Blobs", "Limits", "pack", "receive", "send", "unpack"]

OUT_OF_MEMORY: Final = "out of memory"
_LENGTH_BYTES: Final = 8
_HEADER_BYTES: Final = 1 << 26
_LOG_BYTES: Final = 1 << 20

_log = logging.getLogger(__name__)

Blobs = list[bytes | memoryview]
"""The raw bytes of a message, in the order in which its header names them."""


@dataclass(frozen=True)
class Limits:
    """What one evaluation may use.

    `seconds` of wall clock; `memory` in bytes of address space beyond what the worker has after its imports
    (None: unlimited; Linux only); `result_bytes` for all outputs together.
    """

    seconds: float = 30.0
    memory: int | None = 4 << 30
    result_bytes: int = 1 << 30


def main() -> None:
    """Answers requests until there are no more."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not look like an answer
    requests = sys.stdin.buffer
    assert isinstance(requests, BufferedReader)  # noqa: S101 - stdin is a pipe
    limits = Limits(**receive(requests)[0]["limits"])
    size = _size()
    _confine(limits, size)
    send(replies, {}, [])
    desk = _Desk()
    while True:
        try:
            header, payload = receive(requests)
        except EOFError:
            return
        if "limits" in header:
            limits = Limits(**header["limits"])
            _confine(limits, size)
        _bound_cpu(limits.seconds)
        reply: dict[str, Any] = {}
        blobs: Blobs = []
        try:
            reply, blobs = desk.answer(header, payload, limits)
        except MemoryError:
            reply["error"] = OUT_OF_MEMORY
        except (GraphoptError, ValueError, TypeError, RuntimeError) as error:
            reply["error"] = str(error)
        send(replies, {**reply, "loaded": desk.loaded}, blobs)


@dataclass
class _Desk:
    """The model that lies here: as it came, until a session is made of it."""

    model: Runnable | None = None
    session: Session | None = None

    @property
    def loaded(self) -> bool:
        return self.model is not None or self.session is not None

    def answer(self, header: Mapping[str, Any], payload: memoryview, limits: Limits) -> tuple[dict[str, Any], Blobs]:
        """What a request comes to."""
        if "model" in header:
            self.model = self.session = None  # frees the last model first
        if header.get("simplify"):
            return {}, [_checked(_simplified(bytes(payload[: header["model"]])), limits)]
        if "model" in header:
            self.model, payload = _received(header, payload)
        if "examine" in header and self.model is not None:
            _examine(self.model, header["examine"])
            return {}, []
        if self.model is not None:
            model, self.model = self.model, None
            self.session = Session(model, optimize=header["optimize"], threads=1)
        if "inputs" in header and self.session is not None:
            return {"inputs": [(p.name, p.type, p.shape) for p in self.session.inputs]}, []
        outputs, blobs = _run(self.session, header, payload, limits)
        return {"outputs": outputs}, blobs


def _received(header: Mapping[str, Any], payload: memoryview) -> tuple[Runnable, memoryview]:
    """The model in a request, and the rest of the payload. Weights are mapped from their files."""
    size = header["model"]
    content = bytes(payload[:size])
    files: dict[str, Mapped] = {}
    try:
        weights = {name: Weight(_mapped(w, files)) for name, w in header.get("weights", {}).items()}
    except OSError as problem:
        raise InputError(f"the weights cannot be read again: {problem.strerror}") from None
    return Outside(content, weights) if weights else content, payload[size:]


def _examine(model: Runnable, options: Mapping[str, Any]) -> None:
    from graphopt.graph.load import examine  # noqa: PLC0415 - workers that only run models need none of it

    try:
        examine(model, **options)
    except (InputError, MemoryError):
        raise
    except Exception:  # noqa: BLE001 - nothing died: the process that asked meets it as well, and tells it better
        _log.debug("not examined to the end", exc_info=True)


def _mapped(weight: Mapping[str, Any], files: dict[str, Mapped]) -> np.ndarray:
    """A weight in its file, which is mapped once for all of them."""
    path = weight["path"]
    if path not in files:
        files[path] = Mapped.again(Path(path), weight["identity"])
    start, dtype = weight["offset"], np.dtype(weight["dtype"])
    return np.frombuffer(files[path].data.data, dtype, math.prod(weight["shape"]), start).reshape(weight["shape"])


def _simplified(model: bytes) -> bytes:
    """What onnxsim makes of a model. What it prints goes where all output of this process goes: to the log."""
    import onnx  # noqa: PLC0415 - they are large, and few runs ask for this
    import onnxsim  # noqa: PLC0415

    made, _ = onnxsim.simplify(
        onnx.ModelProto.FromString(model),
        include_subgraph=True,
        mutable_initializer=True,
        certify=False,
        tensor_size_threshold="16MB",
    )
    return bytes(made.SerializeToString())


def _checked(result: bytes, limits: Limits) -> bytes:
    if len(result) > limits.result_bytes:
        raise ValueError(f"the result has {len(result):,} bytes, more than the {limits.result_bytes:,} allowed")
    return result


def _run(session: Session | None, header: Mapping[str, Any], payload: memoryview, limits: Limits) -> tuple[Any, Blobs]:
    if session is None:
        raise ValueError("no model was sent")
    outputs = session.run(unpack(header["feed"], payload))
    blobs: Blobs = []
    described = pack(outputs if header["fetch"] else {}, blobs)
    if (size := sum(map(len, blobs))) > limits.result_bytes:
        raise ValueError(f"its outputs have {size:,} bytes, more than the {limits.result_bytes:,} allowed")
    return described, blobs


def _size() -> int | None:
    """Bytes of address space of this process, where the system tells."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else None


def _confine(limits: Limits, size: int | None) -> None:
    """Bounds memory and log, and leaves no core files; where the system cannot (Windows), time is the only bound."""
    try:
        import resource  # noqa: PLC0415 - POSIX only
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LOG_BYTES, _LOG_BYTES))
    if size is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = resource.RLIM_INFINITY if limits.memory is None else size + limits.memory
        bounds = [b for b in (wanted, hard) if b != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_AS, (min(bounds, default=resource.RLIM_INFINITY), hard))


def _bound_cpu(seconds: float) -> None:
    """Ends the worker even when its parent died without a word in the middle of a request."""
    try:
        import resource  # noqa: PLC0415 - POSIX only
    except ImportError:
        return
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used + seconds) + 1, hard))


def send(pipe: IO[bytes], header: Mapping[str, Any], blobs: Blobs) -> None:
    """Writes one message."""
    text = json.dumps({**header, "size": sum(map(len, blobs))}).encode()
    pipe.write(len(text).to_bytes(_LENGTH_BYTES, "little"))
    pipe.write(text)
    for blob in blobs:
        pipe.write(blob)
    pipe.flush()


def receive(pipe: BufferedReader, most: int | None = None) -> tuple[dict[str, Any], memoryview]:
    """Reads one message. Raises EOFError where there is none, ValueError when it is malformed or too long."""
    length = int.from_bytes(_read(pipe, _LENGTH_BYTES), "little")
    if length > _HEADER_BYTES:
        raise ValueError("the header is too long")
    header: dict[str, Any] = json.loads(_read(pipe, length))
    size = int(header["size"])
    if most is not None and size > most:
        raise ValueError("the message is too long")
    return header, memoryview(_read(pipe, size))


def _read(pipe: BufferedReader, size: int) -> bytearray:
    data = bytearray(size)
    if pipe.readinto(data) != size:
        raise EOFError
    return data


def pack(value: Any, blobs: Blobs) -> Any:
    """A JSON-able description of a feed or a result; the raw bytes of its arrays are appended to `blobs`."""
    match value:
        case None:
            return None
        case dict():
            return {"keys": list(value), "values": [pack(v, blobs) for v in value.values()]}
        case list() | tuple():
            return [pack(v, blobs) for v in value]
    array = np.asarray(value, order="C")
    if textual := array.dtype.kind in "OUT":
        blobs.append(json.dumps([str(s) for s in array.ravel()]).encode())
    else:
        blobs.append(array.reshape(-1).view(np.uint8).data)
    return {"dtype": "str" if textual else array.dtype.name, "shape": array.shape, "size": len(blobs[-1])}


def unpack(value: Any, data: memoryview) -> Any:
    """Inverse of `pack`; arrays share the memory of `data`, so that they are writable."""
    offset = 0

    def restore(v: Any) -> Any:
        nonlocal offset
        match v:
            case None:
                return None
            case {"keys": keys, "values": values}:
                return dict(zip(keys, map(restore, values), strict=True))
            case list():
                return [restore(item) for item in v]
        raw = data[offset : offset + v["size"]]
        offset += v["size"]
        if v["dtype"] == "str":
            return np.array(json.loads(bytes(raw)), object).reshape(v["shape"])
        return np.frombuffer(raw, v["dtype"]).reshape(v["shape"])

    return restore(value)


if __name__ == "__main__":
    main()
