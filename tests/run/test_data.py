from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt.errors import InputError, UsageError
from graphopt.run import files
from graphopt.run.data import Data, open_data
from graphopt.run.session import Port

SHARED = Path(__file__).parents[2].parent / "shared"
F32, I64 = np.dtype(np.float32), np.dtype(np.int64)


def port(name: str, *shape: int | str | None, dtype: Any = F32) -> Port:
    return Port(name, np.dtype(dtype), shape, "tensor", np.dtype(dtype))


ROWS = (port("x", "n", 2), port("m", "n", dtype=I64))
FIXED = (port("x", 1, 2),)
STATE = (port("x", "n", 2), port("state", 4, "n"), port("sr", dtype=I64))

X = np.arange(20, dtype=np.float32).reshape(10, 2)
M = np.arange(10)
ARRAYS = {"x": X, "m": M, "labels": M * 7}


def save(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


def refused(source: Any, sentence: str, inputs: tuple[Port, ...] = ROWS) -> None:
    with pytest.raises(InputError, match=sentence):
        list(open_data(source, inputs).pairs())


def feeds_of(data: Data) -> list[Any]:
    return [feed for feed, _ in data.pairs()]


def labels_of(data: Data) -> list[Any]:
    found = [labels for _, labels in data.pairs()]
    assert all(labels is not None for labels in found)
    return list(np.concatenate([np.atleast_1d(np.asarray(labels)) for labels in found]))


def count(data: Data) -> int:
    return data.survey(1).samples


def sha256(data: Data) -> str:
    return data.survey(1).sha256


@pytest.fixture(params=["npz", "folder", "dict", "feeds", "generator", "function"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The same ten samples in every form."""
    pairs = [({"x": X[i : i + 4], "m": M[i : i + 4]}, M[i : i + 4] * 7) for i in (0, 4, 8)]
    match request.param:
        case "npz":
            return save(tmp_path / "data.npz", **ARRAYS)
        case "folder":
            for i, (feed, labels) in enumerate(pairs):
                save(tmp_path / f"part{i}.npz", **feed, labels=labels)
            return tmp_path
        case "dict":
            return ARRAYS
        case "feeds":
            return pairs
        case "generator":
            return iter(pairs)
        case _:
            return lambda: iter(pairs)


def test_rows_are_samples_however_they_come(source: Any) -> None:
    data = open_data(source, ROWS)
    assert data.rows
    assert count(data) == 10
    assert labels_of(data) == [7 * i for i in range(10)]
    assert not data.synthetic
    assert len(list(data.pairs())) == len(list(data.pairs())), "again and again"
    batches = list(data.batches(3))
    assert [len(feed["x"]) for feed, _ in batches] == [3, 3, 3, 1]
    assert np.array_equal(np.concatenate([feed["x"] for feed, _ in batches]), X)
    assert all(labels is not None and np.array_equal(feed["m"] * 7, labels) for feed, labels in batches)
    assert sha256(data) == sha256(open_data(ARRAYS, ROWS))


def test_the_hash_tells_contents_apart() -> None:
    hashes = {sha256(open_data({"x": x, "m": M}, ROWS)) for x in (X, X + 1, X[::-1], np.zeros_like(X))} | {
        sha256(open_data({"x": X[:5], "m": M[:5]}, ROWS)),
        sha256(open_data(ARRAYS, ROWS)),
    }
    assert len(hashes) == 6


@pytest.mark.parametrize("most", [1, 3, 4, 7, 10, 99])
def test_a_survey_keeps_samples_from_all_over(most: int) -> None:
    read = []

    def feeds() -> Any:
        read.append(1)
        return iter([{"x": np.full((n, 2), i, np.float32), "m": np.arange(n)} for i, n in enumerate((30, 1, 69))])

    survey = open_data(feeds, ROWS).survey(most)
    assert (survey.samples, len(survey.kept), len(read)) == (100, most, 1)
    assert all(sample["x"].shape == (1, 2) for sample in survey.kept)
    numbers = [int(s["m"][0]) + (0, 30, 31)[int(s["x"][0, 0])] for s in survey.kept]
    assert numbers[0] == 0
    assert most == 1 or numbers[-1] > 60
    assert np.all(np.diff(numbers) > 0)
    assert np.ptp(np.diff(numbers)) <= 1 + 100 // most if most > 2 else True


def test_an_array_with_one_axis_more_holds_feeds() -> None:
    data = open_data({"x": X.reshape(5, 2, 2), "m": M.reshape(5, 2), "labels": M.reshape(5, 2)}, ROWS)
    assert count(data) == 10
    assert sha256(data) == sha256(open_data({"x": X, "m": M, "labels": M}, ROWS))


def test_a_fixed_first_axis_is_cut_from_the_samples() -> None:
    data = open_data({"x": X, "labels": M}, FIXED)
    assert not data.rows
    assert count(data) == 10
    assert [feed["x"].tolist() for feed in feeds_of(data)] == [[row] for row in X.tolist()]
    assert labels_of(data) == M.tolist()
    assert count(open_data({"x": X[:, None]}, FIXED)) == 10
    refused({"x": X[:9]}, "'x' has 9 samples, but the model takes 2 at a time", (port("x", 2, 2),))


def test_labels_are_cut_with_the_rows_of_a_fixed_first_axis() -> None:
    inputs = (port("x", 2, *X.shape[1:]),)
    assert [
        labels.tolist() for _, labels in open_data({"x": X, "labels": M}, inputs).pairs() if labels is not None
    ] == [M[i : i + 2].tolist() for i in range(0, 10, 2)]


def test_labels_come_with_all_feeds_or_none() -> None:
    assert [labels for _, labels in open_data([({"x": X, "m": M}, None)], ROWS).pairs()] == [None]
    refused([({"x": X, "m": M}, M), {"x": X, "m": M}], "labels with some feeds and not with others")
    refused([({"x": X, "m": M}, 3)], "1 label for 10 samples")
    refused({**ARRAYS, "labels": np.int64(3)}, "1 label for 10 samples")


def test_a_survey_says_what_labels_are() -> None:
    assert open_data(ARRAYS, ROWS).survey(3).labels == "int64"
    assert open_data({**ARRAYS, "labels": np.zeros((10, 4), np.float32)}, ROWS).survey(3).labels == "float32 [4]"
    assert open_data({"x": X, "m": M}, ROWS).survey(3).labels is None


def test_inputs_without_a_common_axis_take_one_feed_per_index() -> None:
    feeds = feeds_of(
        open_data({"x": np.ones((3, 5, 2), F32), "state": np.ones((3, 4, 5), F32), "sr": np.array([8, 9, 10])}, STATE)
    )
    assert [int(feed["sr"]) for feed in feeds] == [8, 9, 10]
    assert feeds[0]["x"].shape == (5, 2)
    same = feeds_of(
        open_data({"x": np.ones((3, 5, 2), F32), "state": np.ones((3, 4, 5), F32), "sr": np.int64(8)}, STATE)
    )
    assert [int(feed["sr"]) for feed in same] == [8, 8, 8]
    one = {"x": np.ones((5, 2), F32), "state": np.ones((4, 5), F32), "sr": np.int64(8)}
    assert count(open_data([one, one], STATE)) == 2
    refused(
        {**one, "x": np.ones((3, 5, 2), F32), "state": np.ones((2, 4, 5), F32)}, "different numbers of feeds", STATE
    )
    refused({"x": X, "labels": M[:3]}, "3 labels for 10 feeds", FIXED)


def test_a_batch_ends_where_rows_change_their_shape() -> None:
    inputs = (port("ids", "n", "s", dtype=I64),)
    feeds = [{"ids": np.ones((2, s), np.int64)} for s in (5, 5, 7)]
    assert [feed["ids"].shape for feed, _ in open_data(feeds, inputs).batches(8)] == [(4, 5), (2, 7)]


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": X}, "has nothing for the input 'm'; it has: x"),
        ({**ARRAYS, "q": M}, "has 'q', which is no input of the model; they are: x, m"),
        ({**ARRAYS, "x": X.astype(float)}, "gives 'x' as float64; the model takes float32"),
        ({**ARRAYS, "x": X[:, 0]}, r"'x' with the shape \[10\]; the model takes \[n, 2\]"),
        ({**ARRAYS, "x": np.ones((10, 3), F32)}, r"'x' with the shape \[10, 3\]; the model takes \[n, 2\]"),
        ({**ARRAYS, "x": X[:5]}, "different numbers of samples: 'x' has 5, 'm' has 10"),
        ({**ARRAYS, "labels": M[:3]}, "3 labels for 10 samples"),
    ],
)
def test_what_does_not_fit_is_one_sentence(arrays: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    refused(arrays, sentence)
    refused(save(tmp_path / "bad.npz", **arrays), sentence)


def test_an_input_called_labels_is_an_input() -> None:
    inputs = (port("labels", "n", 2),)
    data = open_data({"labels": X, "__labels__": M}, inputs)
    assert labels_of(data) == M.tolist()
    assert feeds_of(data)[0]["labels"].shape == (10, 2)


def test_byte_order_and_names_of_small_floats_are_restored(tmp_path: Path) -> None:
    path = save(tmp_path / "big.npz", x=X.astype(">f4"), b=X.astype(ml_dtypes.bfloat16))
    feed = feeds_of(open_data(path, (port("x", "n", 2), port("b", "n", 2, dtype=ml_dtypes.bfloat16))))[0]
    assert feed["x"].dtype == F32
    assert np.array_equal(feed["x"], X)
    assert np.array_equal(feed["b"].astype(np.float32), X)


def test_memory_order_strings_and_empty_arrays(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", x=np.asfortranarray(X), s=np.array(["ab", "é"] * 5))
    feed = feeds_of(open_data(path, (port("x", "n", 2), port("s", "n", dtype=object))))[0]
    assert np.array_equal(feed["x"], X)
    assert feed["s"].tolist() == ["ab", "é"] * 5
    assert count(open_data(save(tmp_path / "b.npz", x=X[:0], m=M[:0]), ROWS)) == 0


def test_large_arrays_lie_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_LARGE", 16)
    monkeypatch.setattr(files, "_PIECE", 7)
    given = {"x": X, "f": np.asfortranarray(X), "s": np.array(["ab", "é"] * 5), "e": X[:0]}
    path = save(tmp_path / "a.npz", **given)
    found = files.read_npz(Path(path))
    assert all(np.array_equal(found[n], given[n]) and found[n].dtype == given[n].dtype for n in given)
    short = npz(tmp_path / "short.npz", x=header((4, 3)) + bytes(48))
    stream = io.BytesIO(bytes(20))
    with pytest.raises(EOFError, match="too early"):
        files._filled(stream, 48)
    assert not files.read_npz(Path(short))["x"].any()


def npz(path: Path, **members: bytes) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return str(path)


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize("shape", [(10**12,), (-1,), (2**62, 2**62), (3,)])
def test_headers_that_lie_about_size_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    lie = npz(tmp_path / "lie.npz", x=header(shape) + bytes(8))
    refused(lie, "'x' in .* (claims the shape|has a shape that no array can have)")


def test_pickles_are_refused_and_never_run(tmp_path: Path) -> None:
    refused(save(tmp_path / "p.npz", x=np.array([{}], object)), "holds Python objects or records")
    refused(save(tmp_path / "r.npz", x=np.zeros(2, "i4,f4")), "holds Python objects or records")


def test_files_that_are_no_npz_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "junk.npz"
    path.write_bytes(b"junk")
    refused(path, "cannot be read as an .npz file")
    refused(npz(path, x=b"\x80\x05junk of no format"), "no array of a known .npy version")
    refused(
        npz(path, x=header((2,)).replace(b"NUMPY\x01", b"NUMPY\x09") + bytes(8)), "no array of a known .npy version"
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../evil.txt", "")
    refused(path, "no plain .npz file: '../evil.txt'")
    cut = Path(save(tmp_path / "cut.npz", **ARRAYS))
    cut.write_bytes(cut.read_bytes()[:-30])
    refused(cut, "cannot be read as an .npz file")


def test_bombs_are_refused_before_they_unpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphopt.run.files._MOST", 1 << 20)
    path = npz(tmp_path / "bomb.npz", x=header((1 << 19,)) + bytes(1 << 21))
    assert Path(path).stat().st_size < 1 << 14
    refused(path, "unpacks to .* bytes, more than the 1,048,576 allowed")


def test_paths_that_are_no_data(tmp_path: Path) -> None:
    refused(tmp_path / "none.npz", "cannot be read as an .npz file: .*No such file")
    refused(tmp_path / "none", "does not exist: give an .npz file, a folder, FILE.py:FUNCTION or random:N")
    refused(tmp_path, "holds neither .npz files nor test_data_set")
    (tmp_path / "x.csv").write_text("1,2")
    refused(tmp_path / "x.csv", "is no data: give an .npz file, a folder or FILE.py:FUNCTION")
    with pytest.raises(UsageError, match="cannot be a int"):
        open_data(3, ROWS)


def data_set(folder: Path, **arrays: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for i, (name, array) in enumerate(arrays.items()):
        (folder / f"input_{i}.pb").write_bytes(ir.to_proto(ir.tensor(array, name=name)).SerializeToString())


def test_onnx_test_data(tmp_path: Path) -> None:
    data_set(tmp_path / "test_data_set_0", x=X[:4], m=M[:4])
    data_set(tmp_path / "test_data_set_1", m=M[4:], x=X[4:])
    data = open_data(str(tmp_path), ROWS)
    assert count(data) == 10
    assert np.array_equal(np.concatenate([f["x"] for f in feeds_of(data)]), X), "by name, whatever the number"
    assert count(open_data(tmp_path / "test_data_set_0", ROWS)) == 4
    data_set(tmp_path / "unnamed", a=X[:4], b=M[:4])
    assert count(open_data(tmp_path / "unnamed", ROWS)) == 4, "by number"
    (tmp_path / "unnamed" / "input_1.pb").unlink()
    refused(tmp_path / "unnamed", "has 1 input_.*pb file; the model has 2 inputs")


def test_onnx_test_data_may_hold_sequences_and_strings(tmp_path: Path) -> None:
    tensors = [ir.to_proto(ir.tensor(X)), ir.to_proto(ir.tensor(X[:1]))]
    items = onnx.SequenceProto(name="s", elem_type=onnx.SequenceProto.TENSOR, tensor_values=tensors)
    (tmp_path / "input_0.pb").write_bytes(items.SerializeToString())
    words = onnx.TensorProto(name="w", data_type=onnx.TensorProto.STRING, dims=[2], string_data=[b"a", "é".encode()])
    (tmp_path / "input_1.pb").write_bytes(words.SerializeToString())
    inputs = (Port("s", None, None, "sequence", F32), port("w", 2, dtype=object))
    (feed,) = feeds_of(open_data(tmp_path, inputs))
    assert [a.shape for a in feed["s"]] == [(10, 2), (1, 2)]
    assert feed["w"].tolist() == ["a", "é"]
    assert len(sha256(open_data(tmp_path, inputs))) == 64


def test_tensors_that_point_elsewhere_or_lie_are_refused(tmp_path: Path) -> None:
    elsewhere = onnx.StringStringEntryProto(key="location", value="/etc/passwd")
    outside = onnx.TensorProto(dims=[2], data_type=1, data_location="EXTERNAL", external_data=[elsewhere])
    lying = onnx.TensorProto(dims=[1000, 1000], data_type=1, raw_data=bytes(8))
    inputs = (port("x", "n"),)
    for proto, sentence in (
        (outside, "keeps its data in another file"),
        (lying, "holds less than the shape of its tensor"),
    ):
        (tmp_path / "input_0.pb").write_bytes(proto.SerializeToString())
        refused(tmp_path, sentence, inputs)
    (tmp_path / "input_0.pb").write_bytes(b"\xff\xff\xff")
    refused(tmp_path, "cannot be read as an ONNX tensor", inputs)


MODULE = """
import numpy as np
from dataclasses import dataclass

@dataclass
class Row:
    x: int

def feeds():
    for i in range(3):
        yield {"x": np.full((2, 2), i, np.float32), "m": np.zeros(2, np.int64)}, [i, i]

def fails():
    yield {"x": np.ones((1, 2), np.float32), "m": np.zeros(1, np.int64)}
    raise RuntimeError("no more")

def number():
    return 3

def rows():
    return [3]

def leaves():
    raise SystemExit(0)
"""


def test_functions_in_files(tmp_path: Path) -> None:
    path = tmp_path / "source.py"
    path.write_text(MODULE)
    data = open_data(f"{path}:feeds", ROWS)
    assert count(data) == 6
    assert labels_of(data) == [0, 0, 1, 1, 2, 2]
    refused(f"{path}:fails", "fails failed: RuntimeError: no more")
    refused(f"{path}:leaves", "leaves failed: SystemExit: 0")
    refused(f"{path}:number", "gives a int; it must give feeds")
    refused(f"{path}:rows", "gives a int where a dict of input name -> array is needed")
    refused(f"{path}:none", "has no function 'none'")
    refused(f"{tmp_path / 'none.py'}:feeds", "none.py cannot be imported: FileNotFoundError")


def test_functions_in_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_data_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert count(open_data("some_data_module:feeds", ROWS)) == 6
    refused("no.such.module:feeds", "no.such.module cannot be imported: ModuleNotFoundError")


def test_random_feeds_are_marked_as_synthetic() -> None:
    def draw(index: int) -> dict[str, Any]:
        return {"x": np.full((2, 2), index, np.float32), "m": np.zeros(2, np.int64)}

    data = open_data("random:5", ROWS, draw=draw)
    assert data.synthetic
    assert count(data) == 10
    assert len(list(data.batches(4))) == 3
    with pytest.raises(UsageError, match="random:5 needs a model"):
        open_data("random:5", ROWS)


def test_unnamed_first_axes_are_one() -> None:
    assert open_data({"x": X, "m": M}, (port("x", None, 2), port("m", None, dtype=I64))).rows


def test_opened_data_passes_through() -> None:
    data = open_data(ARRAYS, ROWS)
    assert open_data(data, ROWS) is data
    assert isinstance(data, Data)


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the shared data are absent")
def test_a_folder_of_real_data() -> None:
    data = open_data(f"{SHARED / 'data' / 'feeds.py'}:cifar10_calib", (port("input", "batch", 3, 32, 32),))
    assert count(data) == 1000
    assert set(labels_of(data)) == set(range(10))


def test_a_tensor_file_takes_no_more_memory_than_it_has_bytes(tmp_path: Path) -> None:
    (tmp_path / "input_0.pb").write_bytes(ir.to_proto(ir.tensor(X[:1], name="x")).SerializeToString())
    tracemalloc.start()
    try:
        assert count(open_data(str(tmp_path), FIXED)) == 1
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_a_tensor_whose_name_is_no_text_is_taken_by_its_number(tmp_path: Path) -> None:
    for index, tensor in enumerate((ir.tensor(X, name="QQ"), ir.tensor(M, name="m"))):
        content = ir.to_proto(tensor).SerializeToString()
        (tmp_path / f"input_{index}.pb").write_bytes(content.replace(b"QQ", b"\xff\xfe"))
    assert count(open_data(str(tmp_path), ROWS)) == 10


def test_a_tensor_whose_data_is_of_another_type_is_refused(tmp_path: Path) -> None:
    tensor = onnx.TensorProto(name="x", data_type=onnx.TensorProto.FLOAT, dims=[1, 2], int32_data=[1, 2])
    (tmp_path / "input_0.pb").write_bytes(tensor.SerializeToString())
    refused(str(tmp_path), "cannot be read as an ONNX tensor", FIXED)
