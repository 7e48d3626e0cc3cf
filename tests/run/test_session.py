from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import parser

from graphopt.errors import InputError, MachineError, UsageError
from graphopt.run import session as module
from graphopt.run.cuda import cuda_works
from graphopt.run.session import Device, Port, Session


def model(graph: str, opset: int = 21) -> bytes:
    return bytes(parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> {graph}').SerializeToString())


ADD = model("g (float[n,3] x, float[n,3] z) => (float[n,3] y) { y = Add(x, z) }")
CUDA, WHY = cuda_works()


def ones(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


def test_ports_say_what_goes_in_and_out() -> None:
    session = Session(
        model("""g (float[n,3] x, seq(int64[k]) s, optional(float[2]) o, string t, float w = {1})
          => (float[n,3] y, bool has) { y = Mul(x, w) has = OptionalHasElement(o) }""")
    )
    float32, int64 = np.dtype(np.float32), np.dtype(np.int64)
    assert session.inputs == (
        Port("x", float32, ("n", 3), "tensor", float32, "tensor(float)"),
        Port("s", None, None, "sequence", int64, "seq(tensor(int64))"),
        Port("o", None, (2,), "optional", float32, "optional(tensor(float))"),
        Port("t", np.dtype(object), (), "tensor", np.dtype(object), "tensor(string)"),
    )
    assert [p.name for p in session.overridable] == ["w"]
    assert [(p.name, p.dtype) for p in session.outputs] == [("y", float32), ("has", np.dtype(bool))]
    assert session.provider == "CPUExecutionProvider"


def test_unnamed_dimensions_are_none() -> None:
    assert Session(model("g (float[?,2] x) => (float[?,2] y) { y = Neg(x) }")).inputs[0].shape == (None, 2)


def test_run_gives_the_outputs_asked_for() -> None:
    session = Session(model("g (float[n] x) => (float[n] a, float[n] b) { a = Neg(x) b = Abs(x) }"))
    feed = {"x": np.array([1, -2], np.float32)}
    assert list(session.run(feed)) == ["a", "b"]
    assert session.run(feed, ["b"])["b"].tolist() == [1, 2]
    with pytest.raises(InputError, match=r"no output 'c'; it has: a, b"):
        session.run(feed, ["c"])


def test_an_overridable_initializer_may_be_fed() -> None:
    session = Session(model("g (float[2] x, float w = {3}) => (float[2] y) { y = Mul(x, w) }"))
    assert session.run({"x": ones(2)})["y"].tolist() == [3, 3]
    assert session.run({"x": ones(2), "w": np.float32(5)})["y"].tolist() == [5, 5]


@pytest.mark.parametrize(
    ("feed", "sentence"),
    [
        ({"x": ones(2, 3)}, "the feed lacks the input 'z'"),
        ({"x": ones(2, 3), "z": ones(2, 3), "q": ones(1)}, "the model has no input 'q'; it has: x, z"),
        ({"x": ones(2, 3, dtype=float), "z": ones(2, 3)}, "input 'x' is float64, the model takes float32"),
        ({"x": ones(2, 4), "z": ones(2, 3)}, "index: 1 Got: 4 Expected: 3"),
        ({"x": ones(2, 3), "z": ones(5, 3)}, "by a dimension other than 1. 2 by 5"),
    ],
    ids=["missing", "unknown", "dtype", "shape", "broadcast"],
)
def test_a_feed_that_does_not_fit_is_one_sentence(feed: Any, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Session(ADD).run(feed)
    text = str(caught.value)
    assert sentence in text
    assert "ONNXRuntimeError" not in text
    assert "onnxruntime_src" not in text
    assert "\n" not in text


@pytest.mark.parametrize("bad", [b"", b"garbage", model("g (float[2] x) => (float[2] y) { y = Foo(x) }")])
def test_what_does_not_load_is_one_sentence(bad: bytes) -> None:
    with pytest.raises(InputError, match=r"^onnxruntime does not load the model: [^\n]+$"):
        Session(bad)


def test_types_that_numpy_lacks() -> None:
    session = Session(
        model("g (bfloat16[n] x, float[n] z) => (bfloat16[n] y, float[n] w) { y = Identity(x) w = Neg(z) }")
    )
    x = np.array([1.5, -2], ml_dtypes.bfloat16)
    result = session.run({"x": x, "z": ones(2)})
    assert result["y"].dtype == x.dtype
    assert result["y"].tolist() == [1.5, -2]
    assert result["w"].tolist() == [-1, -1]
    assert session.run({"x": np.array([1.501, -2], np.float32), "z": ones(2)})["y"].tolist() == [1.5, -2]
    with pytest.raises(InputError, match="'x' is float64, the model takes bfloat16"):
        session.run({"x": ones(2, dtype=float), "z": ones(2)})


def test_types_that_python_cannot_feed() -> None:
    session = Session(model("g (float[4] x, float s, int4 zp) => (int4[4] y) { y = QuantizeLinear(x, s, zp) }"))
    with pytest.raises(InputError, match=r"'zp' is a tensor\(int4\)"):
        session.run({"x": ones(4), "s": np.float32(1), "zp": np.int8(0)})


@pytest.mark.parametrize("words", [["a", "bé"], np.array(["a", "bé"]), np.array(["a", "bé"], object)])
def test_strings(words: Any) -> None:
    session = Session(model("g (string[n] x) => (string[n] y) { y = Identity(x) }"))
    assert session.run({"x": words})["y"].tolist() == ["a", "bé"]


def test_arrays_in_any_memory_order() -> None:
    x = np.arange(6, dtype=np.float32).reshape(3, 2).T
    assert np.array_equal(Session(ADD).run({"x": x, "z": x})["y"], 2 * x)


def test_a_seed_repeats_random_operators() -> None:
    random = model("g () => (float[4] y) { y = RandomNormal <shape = [4]> () }")
    draws = [Session(random, seed=seed).run({})["y"] for seed in (1, 1, 2)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_optimize_decides_whether_onnxruntime_fuses() -> None:
    relu = model("g (float[2] x) => (float[2] y) { a = Identity(x) b = Identity(a) y = Relu(b) }")
    for optimize in (True, False):
        assert Session(relu, optimize=optimize).run({"x": ones(2)})["y"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"device": "tpu"}, "there is no device 'tpu': give one of auto, cpu, cuda"),
        ({"threads": -1}, "threads and seed are numbers of at least 0, not -1 and 0"),
        ({"seed": -1}, "threads and seed are numbers of at least 0, not 0 and -1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Session(ADD, **arguments)


@pytest.mark.skipif(CUDA, reason="CUDA runs here")
def test_without_cuda_auto_says_why_and_cuda_refuses(capfd: pytest.CaptureFixture[str]) -> None:
    session = Session(ADD, device="auto")
    assert session.provider == "CPUExecutionProvider"
    assert session.reason == WHY
    with pytest.raises(MachineError, match="CUDA does not run here: "):
        Session(ADD, device="cuda")
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(CUDA, reason="CUDA runs here")
def test_what_onnxruntime_lists_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "cuda_works", lambda: (True, "listed"))
    with pytest.raises(MachineError, match="CUDA was asked for, but onnxruntime runs this model with CPUExecutionProv"):
        Session(ADD, device="cuda")
    session = Session(ADD, device="auto")
    assert session.provider == "CPUExecutionProvider"
    assert session.reason == "onnxruntime runs this model with CPUExecutionProvider, although CUDA runs others"
    assert capfd.readouterr() == ("", "")


def test_cuda_is_alone_only_where_it_is_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, alone: bool) -> None:
        asked.append((arguments[2], alone))
        raise RuntimeError("no kernel")

    asked: list[Any] = []
    monkeypatch.setattr(module, "cuda_works", lambda: (True, "it runs"))
    monkeypatch.setattr(module, "on_cuda", refuse)
    with pytest.raises(InputError, match="onnxruntime does not load the model: no kernel"):
        Session(ADD, device="cuda", cuda={"enable_cuda_graph": "1"})
    session = Session(ADD, device="auto")
    assert (session.provider, session.reason) == ("CPUExecutionProvider", "CUDA does not load this model: no kernel")
    assert asked == [({"enable_cuda_graph": "1"}, True), ({}, False)]


def test_what_a_session_holds_is_fed_to_another_one() -> None:
    half = Session(model("g (float[n] x) => (bfloat16[n] y, float[n] z) { y = Cast<to = 16>(x) z = Neg(x) }"))
    total = Session(model("g (bfloat16[n] y, float[n] t) => (float[n] s) { f = Cast<to = 1>(y) s = Add(f, t) }"))
    y = half.hold({"x": np.array([1.5, -2], np.float32)}, ["y"])["y"]
    once = total.hold({"y": y, "t": ones(2)}, ["s"])["s"]
    assert total.hold({"y": y, "t": once}, ["s"])["s"].numpy().tolist() == [4, -3]
    assert not half.remote
    with pytest.raises(InputError, match="the feed lacks the input 't'"):
        total.hold({"y": y}, ["s"])
    with pytest.raises(InputError, match="the model fails on this feed: "):
        total.hold({"y": once, "t": ones(2)}, ["s"])


@pytest.mark.cuda
@pytest.mark.skipif(not CUDA, reason=WHY)
def test_cuda_really_runs() -> None:
    devices: tuple[Device, ...] = ("auto", "cuda")
    for device in devices:
        session = Session(ADD, device=device)
        assert session.provider == "CUDAExecutionProvider"
        assert np.array_equal(session.run({"x": ones(2, 3), "z": ones(2, 3)})["y"], ones(2, 3) * 2)
