"""What is loaded, what is refused and with which words, and what a save leaves behind when it fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt.errors import InputError, MachineError, UsageError
from graphopt.graph.external import Outside
from graphopt.graph.load import Source, load
from graphopt.graph.nodes import graphs, key
from graphopt.graph.save import runnable, save, serialize, weight_bytes
from graphopt.run.session import Session
from tests.support.models import parse, run, show

RELU = "g (float[N] x) => (float[N] y) { y = Relu (x) }"
WEIGHTS = np.arange(600, dtype=np.float32).reshape(2, 300)


def relu() -> bytes:
    return bytes(parse(RELU).SerializeToString())


def product() -> onnx.ModelProto:
    """x·W, W of 2400 bytes."""
    model = parse("g (float[N,2] x) => (float[N,300] y) <float[2,300] w> { y = MatMul (x, w) }")
    model.graph.initializer.append(onnx.TensorProto(name="w", dims=[2, 300], data_type=1, raw_data=WEIGHTS.tobytes()))
    del model.graph.value_info[:]
    return model


def with_external_data(folder: Path, **entries: str) -> Path:
    """The product with its weight in weights.bin, as far as `entries` do not say otherwise."""
    model = product()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for name, text in ({"location": "weights.bin", "offset": "16", "length": str(WEIGHTS.nbytes)} | entries).items():
        tensor.external_data.add(key=name, value=text)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def data(folder: Path, name: str = "weights.bin") -> Path:
    path = folder / name
    path.write_bytes(b"\0" * 16 + WEIGHTS.tobytes())
    return path


def accepted(_path: Path) -> None:
    pass


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (relu()[:-7], "truncated or of another format"),
        (b"<html><body>404</body></html>", "truncated or of another format"),
        (b"some text\n", "truncated or of another format"),
        (onnx.TensorProto(dims=[1], data_type=1, float_data=[1.0]).SerializeToString(), "not an ONNX model"),
        (onnx.ModelProto(ir_version=10).SerializeToString(), "it has no graph"),
    ],
    ids=["empty", "truncated", "html", "text", "tensor", "no graph"],
)
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as refusal:
        load(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "model.onnx")
    with pytest.raises(InputError, match="is a folder"):
        load(tmp_path)


def test_something_that_is_no_model() -> None:
    with pytest.raises(UsageError, match="a list is no model"):
        load([1, 2])


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ("a = Add (x, b) b = Neg (a) y = Relu (b)", "cycle"),
        ("y = Add (x, nowhere)", "nowhere"),
        ("a = Relu (x) a = Neg (x) y = Abs (a)", "'a'"),
        ("x = Relu (x) y = Abs (x)", "'x'"),
        ("a = Relu (x)", "'y'"),
        ("y = Relu (x, x)", "Relu"),
        ("y = Softmax <axis = 1.5> (x)", "axis"),
        ("y = NoSuchOperator (x)", "NoSuchOperator"),
    ],
)
def test_a_graph_that_makes_no_sense(nodes: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as refusal:
        load(parse(f"g (float[N] x) => (float[N] y) {{ {nodes} }}"))
    assert "not a valid ONNX model" in str(refusal.value)


def test_the_same_rules_hold_in_bodies() -> None:
    text = """g (bool c, float[N] x) => (float[N] y) {
      y = If (c) <
        then_branch = t () => (float[N] p) { p = Neg (q) },
        else_branch = e () => (float[N] q) { q = Abs (x) }
      >
    }"""
    with pytest.raises(InputError, match="'q'"):
        load(parse(text))


@pytest.mark.parametrize("dropped", [4, WEIGHTS.nbytes])
def test_a_weight_with_too_few_bytes(dropped: int) -> None:
    model = product()
    model.graph.initializer[0].raw_data = WEIGHTS.tobytes()[:-dropped]
    with pytest.raises(InputError, match="'w'"):
        load(model)


# -- external data ---------------------------------------------------------------------------------------------------


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    data(tmp_path)
    path = with_external_data(tmp_path)
    source = load(path)
    weight = source.model.graph.initializers["w"].const_value
    assert weight is not None
    np.testing.assert_array_equal(weight.numpy(), WEIGHTS)
    assert isinstance(source.runnable, Outside)
    assert source.size == path.stat().st_size + 16 + WEIGHTS.nbytes
    outputs = run(serialize(source.model, source.carried), {"x": np.eye(2, dtype=np.float32)})
    np.testing.assert_array_equal(outputs["y"], WEIGHTS)


def test_external_data_in_a_folder_below(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    data(tmp_path, "data/weights.bin")
    load(with_external_data(tmp_path, location="data/weights.bin"))


def test_other_external_data_is_another_model(tmp_path: Path) -> None:
    file = data(tmp_path)
    path = with_external_data(tmp_path)
    first = load(path).sha256
    file.write_bytes(bytes(reversed(file.read_bytes())))
    assert load(path).sha256 != first


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"location": "missing.bin"}, "is missing"),
        ({"location": ""}, "has no location"),
        ({"location": "../weights.bin"}, "outside the model's folder"),
        ({"location": "a/../../weights.bin"}, "outside the model's folder"),
        ({"location": "."}, "no regular file"),
        ({"offset": "17"}, "past the end"),
        ({"offset": "-4"}, "offset or a length"),
        ({"length": "-4"}, "offset or a length"),
        ({"offset": "many"}, "offset or a length"),
        ({"length": "2396"}, "type and shape"),
    ],
)
def test_external_data_that_is_not_read(tmp_path: Path, entries: dict[str, str], words: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    data(tmp_path)
    data(folder)
    with pytest.raises(InputError, match=words):
        load(with_external_data(folder, **entries))


def test_external_data_that_is_shorter_than_its_tensor(tmp_path: Path) -> None:
    data(tmp_path).write_bytes(b"\0" * 100)
    model = with_external_data(tmp_path, offset="0")
    proto = onnx.ModelProto.FromString(model.read_bytes())
    del proto.graph.initializer[0].external_data[1:]
    model.write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match="past the end"):
        load(model)


def test_external_data_by_an_absolute_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="outside the model's folder"):
        load(with_external_data(tmp_path, location=str(data(tmp_path))))


@pytest.mark.parametrize("link", ["file", "folder"])
def test_external_data_through_a_link_that_leads_out(tmp_path: Path, link: str) -> None:
    folder, outside = tmp_path / "inner", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    data(outside)
    if link == "file":
        (folder / "weights.bin").symlink_to(outside / "weights.bin")
    else:
        (folder / "data").symlink_to(outside)
    with pytest.raises(InputError, match=r"through a symbolic link .* --external-root"):
        load(with_external_data(folder, location="weights.bin" if link == "file" else "data/weights.bin"))


def test_external_data_in_a_body(tmp_path: Path) -> None:
    model = parse("""g (bool c, float[300] x) => (float[300] y) {
      y = If (c) <
        then_branch = t () => (float[300] p) <float[300] w> { p = Mul (x, w) },
        else_branch = e () => (float[300] q) { q = Abs (x) }
      >
    }""")
    body = model.graph.node[0].attribute[0].g
    del body.value_info[:]
    body.initializer.add(name="w", dims=[300], data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    body.initializer[0].external_data.add(key="location", value="../weights.bin")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="outside the model's folder"):
        load(path)


def test_a_model_in_memory_must_hold_its_weights(tmp_path: Path) -> None:
    data(tmp_path)
    proto = onnx.ModelProto.FromString(with_external_data(tmp_path).read_bytes())
    with pytest.raises(InputError, match="in memory must hold its weights"):
        load(proto)


# -- what is accepted ------------------------------------------------------------------------------------------------


def test_every_way_to_give_a_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(relu())
    given = [path, str(path), parse(RELU), ir.from_proto(parse(RELU))]
    assert {show(onnx.ModelProto.FromString(serialize((s := load(g)).model, s.carried))) for g in given} == {
        show(parse(RELU))
    }


def test_what_was_given_is_not_changed() -> None:
    proto = parse("g (float[N] x, float[1] w) => (float[N] y) <float[1] w = {1}> { y = Mul (x, w) }")
    before = proto.SerializeToString()
    load(proto, freeze=True)
    assert proto.SerializeToString() == before
    model = ir.from_proto(proto)
    load(model, freeze=True)
    assert [v.name for v in model.graph.inputs] == ["x", "w"]


def test_nodes_in_any_order_are_sorted() -> None:
    proto = parse("g (float[N] x) => (float[N] y) { a = Relu (x) b = Neg (a) y = Abs (b) }")
    shuffled = [proto.graph.node[i] for i in (2, 0, 1)]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in shuffled]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)
    assert [n.op_type for n in load(proto).model.graph] == ["Relu", "Neg", "Abs"]


def test_weights_of_ir_3_are_constants() -> None:
    header = '<ir_version: 3, opset_import: ["" : 9]>'
    source = load(
        parse(f"{header} g (float[N] x, float[1] w) => (float[N] y) <float[1] w = {{2}}> {{ y = Mul (x, w) }}")
    )
    assert [v.name for v in source.model.graph.inputs] == ["x"]
    assert source.model.ir_version == 4
    assert source.frozen == 0
    assert "becomes 4" in source.notes[0]


def test_overridable_weights_stay_inputs_unless_frozen() -> None:
    proto = parse("g (float[N] x, float[1] w) => (float[N] y) <float[1] w = {2}> { y = Mul (x, w) }")
    kept, frozen = load(proto), load(proto, freeze=True)
    assert [v.name for v in kept.model.graph.inputs] == ["x", "w"]
    assert "--freeze" in kept.notes[0]
    assert [v.name for v in frozen.model.graph.inputs] == ["x"]
    assert frozen.frozen == 1


def test_keys_are_unique_and_kept_by_clones() -> None:
    source = load(
        parse("""g (bool c, float[N] x) => (float[N] y) {
      [n] a = Relu (x)
      b = Neg (a)
      y = If (c) <
        then_branch = t () => (float[N] p) { [n] p = Neg (b) },
        else_branch = e () => (float[N] q) { q = Abs (b) }
      >
    }""")
    )
    keys = [key(n) for g in graphs(source.model) for n in g]
    assert keys == ["n", "Neg_1", "If_2", "n#1", "Abs_0"]
    assert [key(n) for g in graphs(source.model.clone()) for n in g] == keys


def test_a_tensor_of_unbelievable_size_does_not_keep_the_loader() -> None:
    load(
        parse("""g (float[N] x) => (float[N] y) <int64[1] s = {1000000000000}, int64[1] f = {0}> {
      a = ConstantOfShape (s)
      b = Gather (a, f)
      y = Add (x, b)
    }""")
    )


# -- saving ----------------------------------------------------------------------------------------------------------


def test_a_saved_model_is_read_back_before_it_is_moved(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    source = load(parse(RELU))
    seen: list[bytes] = []

    def check(written: Path) -> None:
        assert not path.exists()
        assert written.parent == tmp_path
        seen.append(written.read_bytes())

    save(source.model, path, source.carried, check=check)
    assert seen == [path.read_bytes()]
    assert show(onnx.load(path)) == show(parse(RELU))
    assert list(tmp_path.iterdir()) == [path]


def fails(_path: Path) -> None:
    raise InputError("it does not compare well")


@pytest.mark.parametrize("old", [None, b"the old file"])
def test_nothing_is_changed_when_the_check_fails(tmp_path: Path, old: bytes | None) -> None:
    path = tmp_path / "model.onnx"
    if old:
        path.write_bytes(old)
    source = load(product())
    for above in (0, 10_000):
        with pytest.raises(InputError, match="compare well"):
            save(source.model, path, source.carried, check=fails, external_above=above)
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == ({"model.onnx": old} if old else {})


@pytest.mark.parametrize("above", [0, 10_000])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_nothing_is_changed_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, above: int
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the old file")
    source = load(product())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(MachineError, match="No space left on device; nothing was changed"):
        save(source.model, path, source.carried, check=accepted, external_above=above)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"model.onnx": b"the old file"}


def test_an_interrupt_leaves_no_litter(tmp_path: Path) -> None:
    def interrupted(_path: Path) -> None:
        raise KeyboardInterrupt

    source = load(product())
    with pytest.raises(KeyboardInterrupt):
        save(source.model, tmp_path / "model.onnx", source.carried, check=interrupted, external_above=0)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    source = load(parse(RELU))
    with pytest.raises(MachineError, match="cannot be written"):
        save(source.model, tmp_path / "nowhere" / "model.onnx", source.carried, check=accepted)


def test_mode_bits_of_the_old_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the old file")
    path.chmod(0o640)
    save(relu(), path, load(parse(RELU)).carried, check=accepted)
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.read_bytes() == relu()


def test_a_new_file_has_the_usual_mode_bits(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"")
    save(relu(), tmp_path / "model.onnx", load(parse(RELU)).carried, check=accepted)
    assert (tmp_path / "model.onnx").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "model.onnx"
    victim.write_bytes(b"precious")
    path.symlink_to(victim)
    save(relu(), path, load(parse(RELU)).carried, check=accepted)
    assert victim.read_bytes() == b"precious"
    assert not path.is_symlink()


def test_large_weights_go_beside_the_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    source = load(product())
    assert weight_bytes(source.model) == WEIGHTS.nbytes

    def check(written: Path) -> None:
        outputs = Session(load(written).runnable, optimize=False).run({"x": np.eye(2, dtype=np.float32)})
        np.testing.assert_array_equal(outputs["y"], WEIGHTS)

    save(source.model, path, source.carried, check=check, external_above=1000)
    assert path.stat().st_size < 1000
    check(path)
    (other,) = (p for p in tmp_path.iterdir() if p != path)
    assert other.name.startswith("model.onnx.")
    again = load(path)
    assert serialize(again.model, again.carried) == serialize(source.model, source.carried)


def test_saving_over_a_model_with_external_data_keeps_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    source = load(product())
    save(source.model, path, source.carried, check=accepted, external_above=1000)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(InputError):
        save(source.model, path, source.carried, check=fails, external_above=1000)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("make", [lambda: load(product()), lambda: load(parse(RELU))])
def test_the_same_graph_gives_the_same_bytes(make: Callable[[], Source]) -> None:
    one, two = make(), make()
    assert serialize(one.model, one.carried) == serialize(two.model, two.carried)


def test_weights_of_the_model_that_was_replaced_go_once_the_new_one_stands(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for others in ("model.onnx.0123456789ab.data.bak", "other.onnx.0123456789ab.data"):
        (tmp_path / others).write_bytes(b"not ours")
    source = load(product())
    save(source.model, path, source.carried, check=accepted, external_above=1000)
    old = {p.name for p in tmp_path.iterdir()}
    changed = product()
    changed.graph.initializer[0].raw_data = (WEIGHTS + 1).tobytes()
    second = load(changed)
    with pytest.raises(InputError):
        save(second.model, path, source.carried, check=fails, external_above=1000)
    assert {p.name for p in tmp_path.iterdir()} == old
    save(second.model, path, source.carried, check=accepted, external_above=1000)
    new = {p.name for p in tmp_path.iterdir()}
    assert len(new) == len(old) == 4
    assert new != old
    save(relu(), path, source.carried, check=accepted)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "model.onnx",
        "model.onnx.0123456789ab.data.bak",
        "other.onnx.0123456789ab.data",
    ]


def test_weights_that_stay_the_same_stay(tmp_path: Path) -> None:
    path, source = tmp_path / "model.onnx", load(product())
    for _ in range(2):
        save(source.model, path, source.carried, check=accepted, external_above=1000)
    assert len(list(tmp_path.iterdir())) == 2
    assert load(path).sha256


def test_a_file_that_the_replaced_model_does_not_name_stays(tmp_path: Path) -> None:
    path, source = tmp_path / "model.onnx", load(product())
    save(source.model, path, source.carried, check=accepted, external_above=1000)
    other = tmp_path / "model.onnx.0123456789ab.data"
    other.write_bytes(b"named like ours")
    save(relu(), path, source.carried, check=accepted)
    assert {p.name for p in tmp_path.iterdir()} == {path.name, other.name}


@pytest.mark.parametrize("above", [0, 10_000])
def test_a_disk_that_forgets_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, above: int) -> None:
    source = load(product())

    def forgets(handle: int) -> None:
        os.ftruncate(handle, 100)

    monkeypatch.setattr(os, "fsync", forgets)
    with pytest.raises(MachineError, match="what was read back is not what was written; nothing was changed"):
        save(source.model, tmp_path / "model.onnx", source.carried, check=accepted, external_above=above)
    assert not list(tmp_path.iterdir())


def test_a_model_above_2_gb_is_run_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    source = load(product())
    monkeypatch.setattr("graphopt.graph.save.EXTERNAL_ABOVE", 1000)
    model = runnable(source.model, source.carried)
    assert isinstance(model, Outside)
    assert len(model.content) < 1000
    for optimize in (False, True):
        outputs = Session(model, optimize=optimize).run({"x": np.eye(2, dtype=np.float32)})
        np.testing.assert_array_equal(outputs["y"], WEIGHTS)
