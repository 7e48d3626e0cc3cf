"""What a case of the corpus is, and the small words that cases are written with."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from tests.support.models import parse

__all__ = [
    "Hostile",
    "Place",
    "Valid",
    "blob",
    "constant",
    "external",
    "field_",
    "graph",
    "model_of",
    "nested",
    "outsource",
    "tensor",
    "varint",
    "with_tensor",
    "words",
]


@dataclass(frozen=True)
class Place:
    """Where a case lives: the model's folder, a folder that nothing may look into, and one for temporary files."""

    root: Path

    @property
    def inner(self) -> Path:
        return self.root / "inner"

    @property
    def outside(self) -> Path:
        return self.root / "outside"

    @property
    def tmp(self) -> Path:
        return self.root / "tmp"

    @property
    def secret(self) -> Path:
        """A file outside of the model's folder that would do as its weights."""
        return self.outside / "secret.bin"

    @property
    def model(self) -> Path:
        return self.inner / "model.onnx"

    def made(self) -> Place:
        for folder in (self.inner, self.outside, self.tmp):
            folder.mkdir(parents=True)
        self.secret.write_bytes(b"SECRET##" * 1024)
        return self


Built = onnx.ModelProto | bytes | Path


@dataclass(frozen=True)
class Hostile:
    """A file made to do harm.

    Args:
        name: what the test is called.
        reason: the harm that it would do.
        build: makes it, and says what the command is given: a path, or contents for `model.onnx`.
        words: further words of the command line; `{inner}` and `{outside}` in them are the folders.
        passes: it may go through, since what it holds is harmless as long as nobody runs or folds it.
        blind: it may go through where nothing is run: only the runtime knows that it makes no sense.
    """

    name: str
    reason: str
    build: Callable[[Place], Built] | Built | str
    words: tuple[str, ...] = ()
    passes: bool = False
    blind: bool = False

    def prepared(self, place: Place) -> Path:
        """The model's path, once everything is on the disk."""
        built = self.build(place) if callable(self.build) else self.build
        if isinstance(built, Path):
            return built
        content = graph(built) if isinstance(built, str) else built
        place.model.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
        return place.model


@dataclass(frozen=True)
class Valid:
    """A graph that is allowed, and that some optimizer got wrong or may get wrong.

    Args:
        name: what the test is called.
        reason: what goes wrong with it.
        build: text of ONNX's own format, or what makes the model.
        runs: whether onnxruntime can run it; where not, its graph must come back as it was.
        dims: two values for each symbolic dimension.
        edges: whether floats of feeds may be not-a-number and infinite.
        random: it draws numbers, so that only what is drawn can be compared.
        low: integers in feeds begin here.
        high: and end before this.
        relative: allowed difference where edits round, of an output's scale.
    """

    name: str
    reason: str
    build: Callable[[], onnx.ModelProto] | str
    runs: bool = True
    dims: Mapping[str, Sequence[int]] = field(default_factory=dict)
    edges: bool = True
    random: bool = False
    low: int = 0
    high: int = 2
    relative: float = 2e-5

    def model(self) -> onnx.ModelProto:
        return graph(self.build) if isinstance(self.build, str) else self.build()


# -- models ----------------------------------------------------------------------------------------------------------


def graph(text: str, *, opset: int = 21, ir_version: int = 10) -> onnx.ModelProto:
    """A model from text; a text that begins with a node gets a usual frame: x goes in and y comes out."""
    text = text.strip()
    if text.startswith("<"):
        return parse(text)
    if not text.startswith("g "):
        text = f"g (float[N,4] x) => (float[N,4] y) {{ {text} }}"
    return parse(f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>\n{text}')


def model_of(
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Sequence[onnx.ValueInfoProto] = (),
    outputs: Sequence[onnx.ValueInfoProto] = (),
    opset: int = 21,
    **more: Any,
) -> onnx.ModelProto:
    """A model from nodes, with the usual frame unless another one is given."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in "xy")
    made = helper.make_graph(nodes, "g", inputs or [x], outputs or [y], **more)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def constant(nodes: str, initializers: str = "", opset: int = 21) -> onnx.ModelProto:
    """A model of y = x + k, where a scalar k is read out of what `nodes` compute from constants alone as `c`."""
    text = f"""g (float[N,4] x) => (float[N,4] y) <{initializers}> {{
      {nodes} k = ReduceMax <keepdims = 0>(c) f = Cast <to = 1>(k) y = Add(x, f)
    }}"""
    return graph(text, opset=opset)


def tensor(name: str, array: Any, dtype: Any = np.float32) -> onnx.TensorProto:
    return ir.serde.serialize_tensor(ir.tensor(np.asarray(array, dtype), name=name))


def words(name: str, dims: list[int], content: list[bytes]) -> onnx.TensorProto:
    return onnx.TensorProto(name=name, dims=dims, data_type=TensorProto.STRING, string_data=content)


def with_tensor(**fields: Any) -> onnx.ModelProto:
    """A model of y = x + w, where w is a tensor with these fields, whatever they are."""
    given: dict[str, Any] = {"name": "w", "dims": [4], "data_type": TensorProto.FLOAT} | fields
    model = graph("y = Add(x, w)")
    model.graph.initializer.append(onnx.TensorProto(**given))
    return model


def external(**entries: str) -> onnx.ModelProto:
    """A model with the initializer w, whose data is somewhere else."""
    model = graph("g (float[300] x) => (float[300] y) { y = Add(x, w) }")
    made = model.graph.initializer.add(name="w", dims=[300], data_type=TensorProto.FLOAT)
    outsource(made, **entries)
    return model


def outsource(made: onnx.TensorProto, **entries: str) -> onnx.TensorProto:
    made.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        made.external_data.add(key=key, value=value)
    return made


def blob(place: Place, name: str = "weights.bin", size: int = 1200) -> Path:
    """A file of weights in the model's folder."""
    path = place.inner / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.linspace(0, 1, size // 4 + 1, dtype=np.float32).tobytes()[:size])
    return path


# -- protobuf by hand ------------------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field_(number: int, content: bytes | float) -> bytes:
    """A field on the wire: bytes with their length, an integer as a varint, a float as four bytes."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    if isinstance(content, float):
        return varint(number << 3 | 5) + struct.pack("<f", content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def nested(levels: int, numbers: Sequence[int], core: bytes = b"") -> bytes:
    """A message in a message in a message."""
    for _ in range(levels):
        for number in numbers:
            core = field_(number, core)
    return core
