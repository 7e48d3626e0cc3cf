"""Bytes that are no model, or only almost: other formats, broken protobuf, tensors that lie about their contents."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from tests.corpus.case import Hostile, Place, field_, graph, nested, tensor, varint, with_tensor

__all__ = ["CASES", "TRIPWIRE"]

TRIPWIRE = b"cos\nsystem\n(S'touch tripped'\ntR."
"""A pickle that leaves a file `tripped` behind whoever loads it."""
_WHOLE = graph("a = Relu(x) b = Mul(a, w) y = Add(b, w)")
_WHOLE.graph.initializer.append(tensor("w", np.arange(4)))
_BYTES = _WHOLE.SerializeToString()
_HEAD = field_(1, 10) + field_(8, field_(2, 21))  # IR version and opset


def _archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("archive/data.pkl", TRIPWIRE)
    return out.getvalue()


def _changed(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    model = onnx.ModelProto.FromString(_BYTES)
    change(model)
    return model


def _opset(*versions: int, domain: str = "") -> onnx.ModelProto:
    def change(model: onnx.ModelProto) -> None:
        del model.opset_import[:]
        for version in versions:
            model.opset_import.add(domain=domain, version=version)

    return _changed(change)


def _type(kind: int) -> onnx.ModelProto:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.elem_type = kind

    return _changed(change)


def _shape(size: int) -> onnx.ModelProto:
    def change(model: onnx.ModelProto) -> None:
        for port in (model.graph.input[0], model.graph.output[0]):
            port.type.tensor_type.shape.dim[1].dim_value = size

    return _changed(change)


def _pipe(place: Place) -> Path:
    os.mkfifo(place.model)
    return place.model


def _folder(place: Place) -> Path:
    place.model.mkdir()
    return place.model


def _link(place: Place, target: str) -> Path:
    place.model.symlink_to(target)
    return place.model


def _branches(levels: int) -> bytes:
    """If in If in If, deeper than any parser goes."""
    node = nested(levels, (6, 5, 1))  # graph in an attribute in a node, and that in a graph
    return _HEAD + field_(7, node)


def _type_tower(levels: int) -> bytes:
    """A sequence of sequences of sequences."""
    kind = nested(levels, (1, 4), field_(1, field_(1, 1)))
    return _HEAD + field_(7, field_(2, b"g") + field_(11, field_(1, b"x") + field_(2, kind)))


def _sparse(
    values: TensorProto, indices: list[int], dims: list[int], rank: tuple[int, ...] = (), kind: int = 7
) -> onnx.ModelProto:
    model = graph("g (float[N,4] x, float[4] v) => (float[N,4] y) { y = Add(x, w) }")
    index = TensorProto(dims=rank or [len(indices)], data_type=kind)
    getattr(index, "int64_data" if kind == TensorProto.INT64 else "float_data").extend(indices)
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=values, indices=index, dims=dims))
    return model


_PAIR = tensor("w", [1, 2])
_ENDS = {
    "first": 1,
    "tenth": len(_BYTES) // 10,
    "half": len(_BYTES) // 2,
    "most": len(_BYTES) * 9 // 10,
    "last": len(_BYTES) - 1,
}

_BLOBS: dict[str, tuple[str, bytes]] = {
    "empty_file": ("nothing", b""),
    "zero_byte": ("a field of number 0", b"\0"),
    "zeros": ("a hole in a disk", bytes(4096)),
    "ones": ("an erased chip", b"\xff" * 4096),
    "text": ("a note", b"hello, world\n"),
    "pointer": (
        "what git keeps of a large file",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    ),
    "html": ("a login page", b"<!DOCTYPE html><html><body>Sign in</body></html>"),
    "json": ("a model as JSON", json.dumps({"irVersion": "10", "graph": {}}).encode()),
    "pickle": ("it runs a command when it is loaded", TRIPWIRE),
    "pickle_newest": ("the same in another protocol", b"\x80\x04\x95" + TRIPWIRE),
    "archive": ("a file of torch.save with such a pickle", _archive()),
    "gzip": ("a compressed file", b"\x1f\x8b\x08" + bytes(64)),
    "png": ("a picture", b"\x89PNG\r\n\x1a\n" + bytes(range(256))),
    "elf": ("a program", b"\x7fELF\x02\x01\x01" + bytes(57)),
    "numpy": ("an array", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'shape': (1,)}" + TRIPWIRE),
    **{f"truncated_{n}": ("the download broke off", _BYTES[:end]) for n, end in _ENDS.items()},
    "garbage_behind": ("something was appended", _BYTES + b"\xff\xff\xff"),
    "wrong_wire_type": ("the graph is a number", _HEAD + field_(7, 5)),
    "wrong_wire_float": ("the graph is a float", _HEAD + field_(7, 1.5)),
    "open_group": ("a group that does not end", _HEAD + varint(7 << 3 | 3)),
    "closed_group": ("a group that does not begin", _HEAD + varint(7 << 3 | 4)),
    "endless_number": ("a number of more than ten bytes", b"\x08" + b"\x80" * 64),
    "long_length": ("a length beyond the file", _HEAD + varint(7 << 3 | 2) + varint(1 << 40)),
    "negative_length": ("a length that is negative in 32 bits", _HEAD + varint(7 << 3 | 2) + varint((1 << 32) - 8)),
    "deep_branches": ("CVE-2025-4565: recursion in the parser", _branches(5000)),
    "deep_types": ("the same by types", _type_tower(5000)),
    "branches_of_forty": ("as deep as protobuf allows", _branches(30)),
    "types_of_forty": ("the same by types", _type_tower(45)),
    "no_graph": ("no graph", _HEAD),
    "empty_graph": ("a graph of nothing", _HEAD + field_(7, b"")),
    "tensor": ("a tensor and no model", tensor("w", [1, 2]).SerializeToString()),
    "function": ("a function and no model", onnx.FunctionProto(name="f", domain="d", input=["a"]).SerializeToString()),
}

_TENSORS: dict[str, tuple[str, dict[str, object]]] = {
    "raw_short": ("CVE-2024-27319: reading beyond the end", {"raw_data": bytes(12)}),
    "raw_long": ("bytes that nobody accounts for", {"raw_data": bytes(20)}),
    "raw_empty": ("no bytes", {"raw_data": b""}),
    "raw_and_floats": ("two contents: who reads which?", {"raw_data": bytes(16), "float_data": [1.0, 2.0, 3.0, 4.0]}),
    "floats_few": ("too few numbers", {"float_data": [1.0]}),
    "floats_many": ("too many numbers", {"float_data": [1.0] * 5}),
    "floats_as_integers": ("numbers of another type", {"int32_data": [1, 2, 3, 4]}),
    "nothing": ("no contents", {}),
    "dims_negative": ("a negative extent", {"dims": [-4], "raw_data": bytes(16)}),
    "dims_two_negative": ("a positive product of negative extents", {"dims": [-2, -2], "raw_data": bytes(16)}),
    "dims_overflow": ("a product that is 0 in 64 bits", {"dims": [1 << 32, 1 << 32], "raw_data": b""}),
    "dims_wrap": ("a product that is 4 in 64 bits", {"dims": [(1 << 62) + 1, 4], "raw_data": bytes(16)}),
    "dims_huge": ("4 EiB", {"dims": [1 << 60], "raw_data": bytes(16)}),
    "dims_huge_and_zero": ("an empty tensor of a huge extent", {"dims": [1 << 60, 0], "raw_data": b""}),
    "dims_many": ("more axes than numpy has", {"dims": [1] * 3000, "raw_data": bytes(4)}),
    "type_zero": ("no element type", {"data_type": 0, "raw_data": bytes(16)}),
    "type_unknown": ("an element type that does not exist", {"data_type": 999, "raw_data": bytes(16)}),
    "type_negative": ("a negative element type", {"data_type": -1, "raw_data": bytes(16)}),
    "strings_raw": ("text as raw bytes", {"data_type": TensorProto.STRING, "raw_data": bytes(16)}),
    "strings_few": ("too few texts", {"data_type": TensorProto.STRING, "string_data": [b"a"]}),
    "strings_in_floats": ("texts where numbers belong", {"string_data": [b"a"] * 4}),
    "int4_odd": ("half a byte too few", {"data_type": TensorProto.INT4, "raw_data": b"\0"}),
    "complex_odd": ("real parts without imaginary ones", {"data_type": TensorProto.COMPLEX64, "float_data": [1.0] * 4}),
    "int8_range": ("300 in eight bits", {"data_type": TensorProto.INT8, "int32_data": [300] * 4}),
    "segment": ("a part of a tensor", {"raw_data": bytes(16), "segment": TensorProto.Segment(begin=0, end=1 << 40)}),
}

CASES = (
    *(Hostile(f"file_{n}", why, content) for n, (why, content) in _BLOBS.items()),
    *(
        Hostile(
            f"tensor_{n}",
            why,
            with_tensor(**fields),
            passes=n in {"segment", "int8_range"},
            blind=n == "dims_huge_and_zero",
        )
        for n, (why, fields) in _TENSORS.items()
    ),
    Hostile(
        "tensor_bool_of_7", "truth values that are neither", with_tensor(data_type=9, raw_data=b"\7\7\7\7"), passes=True
    ),
    Hostile("file_missing", "no file", lambda p: p.model),
    Hostile("file_pipe", "a pipe, which blocks whoever opens it", _pipe),
    Hostile("file_folder", "a folder", _folder),
    Hostile("file_device", "a link to a device that never ends", lambda p: _link(p, "/dev/zero")),
    Hostile("file_link_loop", "a link to itself", lambda p: _link(p, "model.onnx")),
    Hostile("file_long_name", "a name that no file can have", lambda p: p.inner / ("a" * 300 + ".onnx")),
    Hostile("opset_missing", "no opset", _opset()),
    Hostile("opset_0", "an opset that never was", _opset(0)),
    Hostile("opset_negative", "a negative opset", _opset(-1)),
    Hostile("opset_999", "an opset to come, which the official checker accepts", _opset(999), passes=True),
    Hostile("opset_huge", "an opset beyond 32 bits", _opset((1 << 40) + 21)),
    Hostile("opset_twice", "two opsets of one domain", _opset(21, 7), passes=True),
    Hostile("opset_foreign_only", "none of the domain that is used", _opset(1, domain="a.b")),
    Hostile("ir_0", "no version", _changed(lambda m: setattr(m, "ir_version", 0))),
    Hostile("ir_missing", "no version field", _changed(lambda m: m.ClearField("ir_version"))),
    Hostile("ir_negative", "a negative version", _changed(lambda m: setattr(m, "ir_version", -1))),
    Hostile("ir_999", "a version to come", _changed(lambda m: setattr(m, "ir_version", 999)), passes=True),
    Hostile("type_of_input_unknown", "an input of a type that does not exist", _type(999)),
    Hostile("type_of_input_zero", "an input of no type", _type(0)),
    Hostile("shape_of_input_huge", "a feed of 4 EiB", _shape(1 << 60), blind=True),
    Hostile("shape_of_input_negative", "a negative extent", _shape(-4), passes=True),
    Hostile("sparse_index_outside", "an index beyond the end", _sparse(_PAIR, [1, 400], [4]), passes=True),
    Hostile("sparse_index_negative", "a negative index", _sparse(_PAIR, [-1, 2], [4]), passes=True),
    Hostile("sparse_index_twice", "an index twice", _sparse(_PAIR, [1, 1], [4]), passes=True),
    Hostile("sparse_few_indices", "fewer indices than values", _sparse(_PAIR, [1], [4])),
    Hostile("sparse_index_ranks", "indices of three axes", _sparse(_PAIR, [1, 2], [4], (2, 1, 1))),
    Hostile("sparse_index_floats", "indices that are floats", _sparse(_PAIR, [1, 2], [4], kind=1)),
    Hostile("sparse_dims_huge", "a dense form of 4 EiB", _sparse(_PAIR, [1, 2], [1 << 60]), passes=True),
    Hostile("sparse_dims_none", "no dense form", _sparse(_PAIR, [1, 2], [])),
    Hostile("sparse_without_name", "values that nobody can name", _sparse(tensor("", [1, 2]), [1, 2], [4])),
)
