"""Feeds that attack: pickles, archives that unpack to more than there is room, headers that lie."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from tests.corpus.case import Hostile, Place, graph, outsource
from tests.corpus.hostile_format import TRIPWIRE

__all__ = ["CASES"]

_MODEL = graph("y = Relu(x)")
_GOOD = np.ones((8, 4), np.float32)


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=False)
    return out.getvalue()


def _header(text: str, content: bytes = b"", version: int = 1) -> bytes:
    """A .npy file with a header by hand."""
    body = text.encode()
    length = struct.pack("<H" if version == 1 else "<I", len(body))
    return b"\x93NUMPY" + bytes([version, 0]) + length + body + content


def _shape(shape: str, descr: str = "'<f4'", content: bytes = bytes(128)) -> bytes:
    return _header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n", content)


def _zip(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return out.getvalue()


def _lying(size: int) -> bytes:
    """An archive whose folder says that a member is larger than it is."""
    content = bytearray(_zip({"x.npy": _npy(_GOOD)}))
    place = content.index(b"PK\x01\x02")
    struct.pack_into("<I", content, place + 24, size)
    return bytes(content)


def _bomb() -> bytes:
    """Half a gigabyte of zeros in half a megabyte, behind a header that says 128 bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made, made.open("x.npy", "w") as member:
        member.write(_shape("(8, 4)", content=b""))
        for _ in range(64):
            member.write(bytes(1 << 23))
    return out.getvalue()


def _honest_bomb() -> bytes:
    """The same, and the header says so."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made, made.open("x.npy", "w") as member:
        member.write(_shape("(33554432, 4)", content=b""))
        for _ in range(64):
            member.write(bytes(1 << 23))
    return out.getvalue()


def _encrypted() -> bytes:
    content = bytearray(_zip({"x.npy": _npy(_GOOD)}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def _repeated() -> bytes:
    content = _zip({"x.npy": _npy(_GOOD), "z.npy": _npy(_GOOD)})
    return content.replace(b"z.npy", b"x.npy")


def _with(content: bytes, name: str = "data.npz") -> Callable[[Place], onnx.ModelProto]:
    def build(place: Place) -> onnx.ModelProto:
        path = place.inner / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return _MODEL

    return build


def _made(make: Callable[[Path], object]) -> Callable[[Place], onnx.ModelProto]:
    def build(place: Place) -> onnx.ModelProto:
        make(place.inner / "data.npz")
        return _MODEL

    return build


def _pb(**fields: object) -> bytes:
    made = {"name": "x", "dims": [2, 4], "data_type": 1} | fields
    return TensorProto(**made).SerializeToString()  # type: ignore[arg-type]


_OUTSIDE = outsource(TensorProto(name="x", dims=[2, 4], data_type=1), location="../../outside/secret.bin")

_ARCHIVES: dict[str, tuple[str, bytes]] = {
    "pickle": ("a pickle that runs a command", TRIPWIRE),
    "pickle_member": ("the same inside an archive", _zip({"x.npy": TRIPWIRE})),
    "pickle_array": ("an array of objects", _zip({"x.npy": _shape("(1,)", "'|O'", TRIPWIRE)})),
    "pickle_torch": ("torch's name for it", _zip({"archive/data.pkl": TRIPWIRE, "x.npy": _npy(_GOOD)})),
    "records": ("records with objects in them", _zip({"x.npy": _shape("(1,)", "[('a', '|O')]", TRIPWIRE)})),
    "code_in_header": (
        "a header that is code",
        _zip({"x.npy": _header("__import__('os').system('touch tripped')\n")}),
    ),
    "deep_header": ("a header that overflows the parser", _zip({"x.npy": _header("(" * 9000 + ")" * 9000)})),
    "long_header": ("a header of 64 MB", _zip({"x.npy": _header(" " * (1 << 26), version=2)}, zipfile.ZIP_DEFLATED)),
    "version_9": ("a version that never was", _zip({"x.npy": b"\x93NUMPY\x09\x00" + bytes(100)})),
    "bomb": ("half a gigabyte of zeros", _bomb()),
    "honest_bomb": ("the same in an array of that shape", _honest_bomb()),
    "lying_archive": ("a member smaller than the archive says", _lying(1 << 31)),
    "slip": ("a name that leads out", _zip({"../../outside/made.npy": _npy(_GOOD)})),
    "slip_absolute": ("an absolute name", _zip({"/made.npy": _npy(_GOOD)})),
    "huge_shape": ("a shape of 4 TiB", _zip({"x.npy": _shape("(1099511627776,)")})),
    "overflowing_shape": (
        "a product that is 0 in 64 bits",
        _zip({"x.npy": _shape("(4294967296, 4294967296)", content=b"")}),
    ),
    "negative_shape": ("a negative extent", _zip({"x.npy": _shape("(-8, -4)")})),
    "huge_empty_shape": (
        "no bytes, and a huge extent",
        _zip({"x.npy": _shape("(0, 1152921504606846976, 1152921504606846976)", content=b"")}),
    ),
    "zero_wide_type": ("elements of no size", _zip({"x.npy": _shape("(1152921504606846976,)", "'|V0'", b"")})),
    "zero_wide_text": ("texts of no letters", _zip({"x.npy": _shape("(1000000000,)", "'<U0'", b"")})),
    "many_axes": ("more axes than numpy has", _zip({"x.npy": _shape(f"({'1,' * 3000})", content=bytes(4))})),
    "float_shape": ("an extent of a half", _zip({"x.npy": _shape("(0.5,)")})),
    "truth_shape": ("an extent that is a truth value", _zip({"x.npy": _shape("(True, 32)")})),
    "wrong_type": ("another element type", _zip({"x.npy": _npy(_GOOD.astype(np.int64))})),
    "wrong_shape": ("another shape", _zip({"x.npy": _npy(np.ones((8, 5), np.float32))})),
    "wrong_rank": ("another rank", _zip({"x.npy": _npy(np.ones(8, np.float32))})),
    "no_samples": ("no rows", _zip({"x.npy": _npy(np.ones((0, 4), np.float32))})),
    "scalar": ("no axes", _zip({"x.npy": _npy(np.float32(1) * np.ones(()))})),
    "input_missing": ("nothing for the input", _zip({"labels.npy": _npy(np.arange(8))})),
    "input_unknown": ("something for no input", _zip({"x.npy": _npy(_GOOD), "z.npy": _npy(_GOOD)})),
    "labels_few": ("fewer labels than samples", _zip({"x.npy": _npy(_GOOD), "labels.npy": _npy(np.arange(3))})),
    "repeated": ("a member twice", _repeated()),
    "encrypted": ("a member that needs a password", _encrypted()),
    "no_members": ("an archive of nothing", _zip({})),
    "no_array": ("a member that is no array", _zip({"x.txt": b"1 2 3"})),
    "hostile_member": ("a name that repaints the terminal", _zip({"\x1b[2J\n.npy": _npy(_GOOD)})),
    "empty": ("nothing", b""),
    "truncated": ("the download broke off", _zip({"x.npy": _npy(_GOOD)})[:-30]),
    "truncated_array": ("an array that breaks off", _zip({"x.npy": _npy(_GOOD)[:-4]})),
    "long_array": ("an array with more behind it", _zip({"x.npy": _npy(_GOOD) + bytes(4)})),
}

_TENSORS: dict[str, tuple[str, bytes]] = {
    "garbage": ("no tensor", b"\xff\xff\xff"),
    "empty": ("a tensor of nothing", b""),
    "outside": ("its data is somewhere else", _OUTSIDE.SerializeToString()),
    "short": ("too few bytes", _pb(raw_data=bytes(12))),
    "negative": ("a negative extent", _pb(dims=[-2, -4], raw_data=bytes(32))),
    "huge": ("an extent of 4 TiB", _pb(dims=[1 << 40], raw_data=bytes(32))),
    "type": ("an element type that does not exist", _pb(data_type=999, raw_data=bytes(32))),
    "strings": ("texts", _pb(data_type=8, string_data=[b"\xff"] * 8)),
}

CASES = (
    *(Hostile(f"data_{n}", why, _with(content), ("--data", "data.npz")) for n, (why, content) in _ARCHIVES.items()),
    *(
        Hostile(f"data_tensor_{n}", why, _with(content, "set/test_data_set_0/input_0.pb"), ("--data", "set"))
        for n, (why, content) in _TENSORS.items()
    ),
    Hostile("data_missing", "no file", _MODEL, ("--data", "data.npz")),
    Hostile("data_folder", "a folder of that name", _made(Path.mkdir), ("--data", "data.npz")),
    Hostile("data_pipe", "a pipe, which blocks whoever opens it", _made(os.mkfifo), ("--data", "data.npz")),
    Hostile("data_device", "a link to a device", _made(lambda p: p.symlink_to("/dev/zero")), ("--data", "data.npz")),
    Hostile("data_link_loop", "a link to itself", _made(lambda p: p.symlink_to(p)), ("--data", "data.npz")),
    Hostile("data_random_none", "no feeds", _MODEL, ("--data", "random:0")),
    Hostile("data_random_negative", "less than none", _MODEL, ("--data", "random:-1")),
    Hostile("data_random_many", "more digits than a number may have", _MODEL, ("--data", f"random:{'9' * 5000}")),
    Hostile("data_random_words", "no number", _MODEL, ("--data", "random:__import__('os')")),
    Hostile("data_module_missing", "a module that is not there", _MODEL, ("--data", "no.such.module:feeds")),
    Hostile("data_module_strange", "a module of no name", _MODEL, ("--data", "..:feeds")),
    Hostile("data_zero_byte", "a name that no file can have", _MODEL, ("--data", "a\0b.npz")),
)
