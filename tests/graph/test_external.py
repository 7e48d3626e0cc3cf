"""What a model's weights may be read from, and what not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphopt.errors import InputError
from graphopt.graph.external import Files, Mapped, Outside, weight_of
from graphopt.graph.load import load
from graphopt.run.child import Child
from graphopt.run.session import Session
from tests.support.models import parse

CONTENT = np.arange(400, dtype=np.float32)
LOCATION = ("location", "w.bin")
X = {"x": np.ones(400, np.float32)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "w.bin").write_bytes(CONTENT.tobytes())
    (tmp_path / "secret").write_bytes(CONTENT.tobytes())
    return tmp_path / "model"


def piece(folder: Path, *entries: tuple[str, str], root: Path | None = None) -> np.ndarray:
    return Files(folder / "m.onnx", root).piece(entries, CONTENT.nbytes, "w").data.view(np.float32)


def test_a_file_is_mapped_and_never_changed(folder: Path) -> None:
    found = piece(folder, LOCATION, ("offset", "0"), ("length", "1600"), ("checksum", "?"))
    np.testing.assert_array_equal(found, CONTENT)
    assert not found.flags.writeable
    np.testing.assert_array_equal(piece(folder, ("location", "./x/../w.bin")), CONTENT)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([LOCATION, LOCATION], "says 'location' twice"),
        ([LOCATION, ("__class__", "x")], "says '__class__' , which nobody knows"),
        ([("location", "../secret")], "outside the model's folder"),
        ([("location", "x/../../secret")], "outside the model's folder"),
        ([("location", "w.bin\0.txt")], "no file can have"),
        ([("location", "no.bin")], "is missing: put 'no.bin' beside the model, or give --external-root"),
        ([LOCATION, ("offset", "\u0663")], "no natural number"),
        ([LOCATION, ("offset", "9" * 5000)], "no natural number"),
        ([LOCATION, ("offset", "18446744073709551616")], "no natural number"),
        ([LOCATION, ("offset", "9223372036854775807")], "past the end"),
        ([LOCATION, ("length", "99")], "type and shape"),
    ],
)
def test_entries_that_make_no_sense(folder: Path, entries: list[tuple[str, str]], words: str) -> None:
    with pytest.raises(InputError, match=words):
        piece(folder, *entries)


def hard_link(folder: Path) -> None:
    (folder / "w.bin").hardlink_to(folder.parent / "secret")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "w.bin")


def link_inside(folder: Path) -> None:
    (folder / "other").write_bytes(CONTENT.tobytes())
    (folder / "w.bin").symlink_to("other")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (hard_link, "is a hard link .* put a copy beside the model, or give --external-root"),
        (pipe, "no regular file"),
        (link_inside, "through a symbolic link"),
        (lambda folder: (folder / "w.bin").symlink_to("/dev/zero"), "through a symbolic link"),
        (lambda folder: (folder / "w.bin").mkdir(), "no regular file"),
        (lambda folder: (folder / "w.bin").touch(), "past the end"),
    ],
)
def test_files_that_are_not_read(folder: Path, make: Callable[[Path], None], words: str) -> None:
    (folder / "w.bin").unlink()
    make(folder)
    with pytest.raises(InputError, match=words):
        piece(folder, LOCATION)


def stored(path: Path, location: str) -> Path:
    model = parse("g (float[400] x) => (float[400] y) { y = Mul (x, w) }")
    weight = model.graph.initializer.add(name="w", data_type=1, dims=[400], data_location=1)
    weight.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_cache_of_a_model_hub_needs_its_root(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "1"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    stored(blobs / "0a", "model.onnx_data")
    (blobs / "0b").write_bytes(CONTENT.tobytes())
    (snapshot / "model.onnx").symlink_to("../../blobs/0a")
    (snapshot / "model.onnx_data").symlink_to("../../blobs/0b")
    with pytest.raises(InputError, match="--external-root"):
        load(snapshot / "model.onnx")
    source = load(snapshot / "model.onnx", external_root=tmp_path / "hub")
    assert source.external == (blobs / "0b",)
    with pytest.raises(InputError, match=r"lies outside .*snapshots"):
        load(snapshot / "model.onnx", external_root=snapshot)
    with pytest.raises(InputError, match="is no folder"):
        load(snapshot / "model.onnx", external_root=tmp_path / "no")


def test_weights_may_lie_in_the_root_itself(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (folder / "w.bin").rename(tmp_path / "weights" / "w.bin")
    path = stored(folder / "m.onnx", "w.bin")
    with pytest.raises(InputError, match="is missing"):
        load(path)
    assert load(path, external_root=tmp_path / "weights").external == (tmp_path / "weights" / "w.bin",)


@pytest.mark.parametrize("optimize", [False, True])
def test_the_runtime_is_given_the_mapping_and_no_path(folder: Path, optimize: bool) -> None:  # noqa: FBT001
    path = stored(folder / "m.onnx", "w.bin")
    source = load(path)
    assert isinstance(source.runnable, Outside)
    assert weight_of(source.runnable) == source.size
    np.testing.assert_array_equal(Session(source.runnable, optimize=optimize).run(X)["y"], CONTENT)
    with Child() as child:
        assert [p.name for p in child.inputs(source.runnable)] == ["x"]
        np.testing.assert_array_equal(child.evaluate(source.runnable, X, optimize=optimize)["y"], CONTENT)


def test_another_process_takes_only_the_same_file(folder: Path) -> None:
    first = Mapped.below(folder, "w.bin")
    assert Mapped.again(first.path, list(first.identity)) == first
    (folder / "w.bin").write_bytes(CONTENT.tobytes() + b"1234")
    with pytest.raises(OSError, match="was changed meanwhile"):
        Mapped.again(first.path, first.identity)


def test_what_is_replaced_meanwhile_stays_what_it_was(folder: Path) -> None:
    source = load(stored(folder / "m.onnx", "w.bin"))
    (folder / "new").write_bytes(bytes(CONTENT.nbytes))
    (folder / "new").replace(folder / "w.bin")
    np.testing.assert_array_equal(Session(source.runnable).run(X)["y"], CONTENT)


@pytest.mark.parametrize("kind", ["attribute", "body", "sparse", "packed"])
def test_what_the_runtime_takes_no_memory_for_is_put_into_the_file(folder: Path, kind: str) -> None:
    texts = {
        "attribute": "g (float[400] x) => (float[400] y) { w = Constant <value = float[1] {0}> () y = Mul (x, w) }",
        "body": """g (bool c, float[400] x) => (float[400] y) { y = If (c) <
            then_branch = t () => (float[400] p) { p = Mul (x, w) },
            else_branch = e () => (float[400] q) { q = Abs (x) }> }""",
        "sparse": "g (float[400] x) => (float[400] y) { y = Mul (x, w) }",
        "packed": "g (float[3200] x, float s) => (float[3200] y) { a = DequantizeLinear (w, s) y = Mul (x, a) }",
    }
    model = parse(texts[kind])
    tensor = {
        "attribute": lambda: model.graph.node[0].attribute[0].t,
        "body": lambda: model.graph.node[0].attribute[0].g.initializer.add(name="w"),
        "sparse": lambda: model.graph.sparse_initializer.add(dims=[400]).values,
        "packed": lambda: model.graph.initializer.add(name="w"),
    }[kind]()
    tensor.Clear()
    tensor.name, tensor.data_type = "w", 22 if kind == "packed" else 1
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.dims.append(3200 if kind == "packed" else 400)
    tensor.external_data.add(key="location", value="../secret")
    if kind == "sparse":
        indices = model.graph.sparse_initializer[0].indices
        indices.CopyFrom(onnx.helper.make_tensor("i", 7, [400], range(400)))
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="outside the model's folder"):
        load(path)
    tensor.external_data[0].value = "w.bin"
    path.write_bytes(model.SerializeToString())
    source = load(path)
    assert isinstance(source.runnable, bytes)
    assert b"w.bin" not in source.runnable
    assert Session(source.runnable, optimize=False).outputs
