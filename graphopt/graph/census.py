"""What a model file holds, counted before anything else looks at it.

Parsers, the checker, inference and runtimes recurse into bodies, and believe what tensors say of themselves: what is
too deep or lies about its size is refused here, by walks without recursion over the messages as they were parsed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import onnx
import onnx_ir as ir
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from onnx import TensorProto

__all__ = ["MOST_DEEP", "Refused", "Tensor", "bits_of", "bytes_of", "count"]

MOST_DEEP: Final = 32
"""Bodies inside each other; onnxruntime takes no more either."""

_MOST_AXES: Final = 64
"""Of a tensor: numpy has no more."""
_MOST_BYTES: Final = 1 << 60
_MOST_PARTS: Final = 10_000
"""Functions, or sets of training information, of a model; the checker takes no more functions either."""
_DATA: Final = ("raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_T: Final = TensorProto
_FIELDS: Final[Mapping[int, str]] = {
    _T.FLOAT: "float_data",
    _T.COMPLEX64: "float_data",
    _T.INT64: "int64_data",
    _T.STRING: "string_data",
    _T.DOUBLE: "double_data",
    _T.COMPLEX128: "double_data",
    _T.UINT32: "uint64_data",
    _T.UINT64: "uint64_data",
}
"""Where the contents of a tensor stand, if not in `raw_data`; those of all other types in `int32_data`."""


class Refused(ValueError):  # noqa: N818 - it states what happened to the file
    """The file is not fit to be looked at; the text says why."""


@dataclass(frozen=True)
class Tensor:
    """A tensor, and the graph whose initializer it is, if it is one."""

    proto: TensorProto
    owner: onnx.GraphProto | None = None


def count(model: Message) -> list[Tensor]:
    """Every tensor in a message, each known to be what its type and shape say.

    Raises:
        Refused: bodies stand too deep inside each other, or a tensor is not what it says.
    """
    found = list(_tensors(model))
    for tensor in found:
        if problem := _problem(tensor.proto):
            raise Refused(f"the tensor {tensor.proto.name!r} {problem}")
    return found


def _tensors(message: Message) -> Iterator[Tensor]:
    pending: list[tuple[Message, int, onnx.GraphProto | None]] = [(message, 0, None)]
    while pending:
        current, depth, owner = pending.pop()
        if isinstance(current, TensorProto):
            yield Tensor(current, owner)
            continue
        graph = current if isinstance(current, onnx.GraphProto) else None
        if graph is not None and (depth := depth + 1) > MOST_DEEP + 1:
            raise Refused(f"more than {MOST_DEEP} bodies stand inside each other")
        _check(current)
        for name, many in _leading(current.DESCRIPTOR):
            if many:
                pending.extend((part, depth, graph) for part in getattr(current, name))
            elif current.HasField(name):
                pending.append((getattr(current, name), depth, None))


def _check(message: Message) -> None:
    """What a reader would stumble over, or pass over in silence."""
    match message:
        case onnx.AttributeProto():
            if message.type == onnx.AttributeProto.UNDEFINED and not message.ref_attr_name:
                raise Refused(f"the attribute {message.name!r} is of no type that is known")
        case onnx.GraphProto():
            _check_graph(message)
        case onnx.NodeProto():
            _check_node(message)
        case onnx.ModelProto():
            if message.ir_version < 1:
                raise Refused(f"its IR version is {message.ir_version}")
            if max(len(message.functions), len(message.training_info)) > _MOST_PARTS:
                raise Refused(f"it has more than {_MOST_PARTS:,} functions or sets of training information")


def _check_node(node: onnx.NodeProto) -> None:
    if not node.op_type:
        raise Refused("a node has no operator")
    # Inference makes a list of as many extents as a Split says.
    split = node.op_type == "Split" and node.domain in {"", "ai.onnx"}
    if split and any(a.name == "num_outputs" and a.i > len(node.output) for a in node.attribute):
        raise Refused(f"the Split {node.name!r} is to make more parts than it has outputs")


def _check_graph(graph: onnx.GraphProto) -> None:
    names = [t.name for t in graph.initializer] + [t.values.name for t in graph.sparse_initializer]
    if len(set(names)) < len(names):
        twice = next(n for n, times in Counter(names).items() if times > 1)
        raise Refused(f"two initializers are named {twice!r}")
    for info in (*graph.input, *graph.output, *graph.value_info):
        _check_type(info)
    for info in graph.input:
        if info.type.HasField("tensor_type") and info.type.tensor_type.elem_type == TensorProto.UNDEFINED:
            raise Refused(f"the input {info.name!r} is of no type that is known")


def _check_type(info: onnx.ValueInfoProto) -> None:
    inner, depth = info.type, 0
    while (kind := inner.WhichOneof("value")) in {"sequence_type", "optional_type", "map_type"}:
        inner, depth = getattr(getattr(inner, kind), "value_type" if kind == "map_type" else "elem_type"), depth + 1
        if depth > MOST_DEEP:
            raise Refused(f"the type of {info.name!r} has more than {MOST_DEEP} types inside each other")


@cache
def _leading(kind: Descriptor) -> Sequence[tuple[str, bool]]:
    """The fields of a message below which a tensor or a graph can stand, and whether they repeat."""
    return tuple((f.name, f.is_repeated) for f in kind.fields if f.message_type and _reaches(f.message_type))


@cache
def _reaches(kind: Descriptor) -> bool:
    seen, pending = {kind.full_name}, [kind]
    while pending:
        current = pending.pop()
        if current.full_name == TensorProto.DESCRIPTOR.full_name:
            return True
        for field in current.fields:
            if field.message_type and field.message_type.full_name not in seen:
                seen.add(field.message_type.full_name)
                pending.append(field.message_type)
    return False


def bits_of(data_type: int) -> int | None:
    """Bits of one element; 0 for text, None for no type that is known."""
    if data_type == TensorProto.STRING:
        return 0
    try:
        return ir.DataType(data_type).bitwidth
    except (ValueError, TypeError):
        return None


def bytes_of(tensor: TensorProto) -> int | None:
    """What the contents of a tensor take by its type and shape; None where there is no such number."""
    bits = bits_of(tensor.data_type)
    return None if not bits or any(d < 0 for d in tensor.dims) else -(-math.prod(tensor.dims) * bits // 8)


def _problem(tensor: TensorProto) -> str | None:
    """Why a tensor is not what it says, if so. Nothing is computed with its contents to find out."""
    bits = bits_of(tensor.data_type)
    if bits is None:
        return f"is of no type that is known ({tensor.data_type})"
    if any(d < 0 for d in tensor.dims):
        return "has an extent below zero"
    if len(tensor.dims) > _MOST_AXES or math.prod(d or 1 for d in tensor.dims) * (bits or 8) > 8 * _MOST_BYTES:
        return "has more axes or larger ones than any memory holds"
    if tensor.HasField("segment"):
        return "is only a segment"
    filled = [f for f in _DATA if (tensor.HasField(f) if f == "raw_data" else len(getattr(tensor, f)))]
    if tensor.data_location == TensorProto.EXTERNAL:
        return "has contents in the file and outside of it" if filled else None if bits else "is text in another file"
    if tensor.external_data:
        return "is in the file, and said to be outside of it"
    if len(filled) > 1:
        return f"has contents twice, as {filled[0]} and {filled[1]}"
    return _misfit(tensor, bits, filled)


def _misfit(tensor: TensorProto, bits: int, filled: Sequence[str]) -> str | None:
    """What is wrong with the contents of a tensor in the file, if anything is."""
    field = _FIELDS.get(tensor.data_type, "int32_data")
    held, asked, what = len(getattr(tensor, field)), math.prod(tensor.dims), "elements"
    if filled == ["raw_data"] and bits:
        held, asked, what = len(tensor.raw_data), bytes_of(tensor) or 0, "bytes"
    elif filled and filled != [field]:
        return f"has its contents as {filled[0]}, which its type does not allow"
    elif tensor.data_type in {TensorProto.COMPLEX64, TensorProto.COMPLEX128}:
        asked *= 2
    elif bits in {2, 4}:  # several of them in each element; 6 bits have one of their own
        asked = -(-asked * bits // 8)
    return None if held == asked else f"has {held:,} {what}, which is not what its type and shape ask for"
