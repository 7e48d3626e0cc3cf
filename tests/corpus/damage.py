"""Damage to files: what disks, downloads and other people's writers do to bytes, and to the fields of protobuf."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.corpus.case import varint

__all__ = ["damaged"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_NUMBERS = (0, 1, 2, 7, 100, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
_DEEPEST = 8

Field = tuple[int, int, bytes]
"""Its number, its wire type, and what follows: for bytes without their length."""


@st.composite
def damaged(draw: st.DrawFn, contents: list[bytes]) -> bytes:
    """One of the files, with one to three things done to it."""
    content = draw(st.sampled_from(contents))
    for _ in range(draw(st.integers(1, 3))):
        content = draw(st.sampled_from((_inside, _inside, _inside, _flipped, _cut)))(draw, content)
    return content


def _flipped(draw: st.DrawFn, content: bytes) -> bytes:
    """Some bits are others."""
    made = bytearray(content)
    for _ in range(draw(st.integers(1, 4)) if made else 0):
        made[draw(st.integers(0, len(made) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(made)


def _cut(draw: st.DrawFn, content: bytes) -> bytes:
    """The end is missing, as often as not exactly between two fields."""
    fields = _read(content)
    if fields and draw(st.booleans()):
        return _written(fields[: draw(st.integers(0, len(fields) - 1))])
    return content[: draw(st.integers(0, len(content)))]


def _inside(draw: st.DrawFn, content: bytes, depth: int = 0) -> bytes:
    """A field somewhere is gone, there twice, at another place, or holds something else."""
    fields = _read(content)
    if not fields:
        return _replaced(draw, content)
    index = draw(st.integers(0, len(fields) - 1))
    number, wire, payload = fields[index]
    if wire == _BYTES and depth < _DEEPEST and draw(st.integers(0, 4)):
        fields[index] = (number, wire, _inside(draw, payload, depth + 1))
        return _written(fields)
    match draw(st.sampled_from(("delete", "duplicate", "move", "renumber", "replace", "replace"))):
        case "delete":
            del fields[index]
        case "duplicate":
            fields.insert(draw(st.integers(0, len(fields))), fields[index])
        case "move":
            fields.insert(draw(st.integers(0, len(fields) - 1)), fields.pop(index))
        case "renumber":
            fields[index] = (draw(st.integers(1, 30)), wire, payload)
        case _:
            fields[index] = (number, wire, _other(draw, wire, payload))
    return _written(fields)


def _other(draw: st.DrawFn, wire: int, payload: bytes) -> bytes:
    if wire == _VARINT:
        return varint(draw(st.sampled_from(_NUMBERS)))
    if wire == _BYTES:
        return _replaced(draw, payload)
    return draw(st.binary(min_size=len(payload), max_size=len(payload)))


def _replaced(draw: st.DrawFn, payload: bytes) -> bytes:
    others: list[Any] = [st.just(b""), st.binary(max_size=20), st.just(payload * 2), st.just(payload[:-1])]
    return bytes(draw(st.one_of(*others)))


def _read(content: bytes) -> list[Field] | None:
    """The fields of a message; None where it is none."""
    fields: list[Field] = []
    at = 0
    while at < len(content):
        key, at = _number(content, at)
        wire = key & 7
        if not 0 < key >> 3 < 1 << 29 or wire not in {_VARINT, _BYTES, *_WIDTHS}:
            return None
        start = at
        if wire == _VARINT:
            _, at = _number(content, at)
        elif wire == _BYTES:
            length, start = _number(content, at)
            at = start + length
        else:
            at += _WIDTHS[wire]
        if at > len(content):
            return None
        fields.append((key >> 3, wire, content[start:at]))
    return fields


def _number(content: bytes, at: int) -> tuple[int, int]:
    """A varint, and where it ends; beyond the end where it does not."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            break
        number |= (content[at] & 0x7F) << shift
        at += 1
        if not content[at - 1] & 0x80:
            return number, at
    return 0, len(content) + 1


def _written(fields: list[Field]) -> bytes:
    lengths = ((varint(len(p)) if wire == _BYTES else b"") for _, wire, p in fields)
    return b"".join(
        varint(number << 3 | wire) + length + payload
        for (number, wire, payload), length in zip(fields, lengths, strict=True)
    )
