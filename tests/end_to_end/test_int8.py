"""Integers, from the command line to the file: close to the original, the same for any order of data, or refused."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import graphopt as api
from graphopt.errors import InputError, UsageError, Verdict
from graphopt.graph.carry import Carried
from graphopt.graph.save import serialize
from graphopt.recipe import Recipe
from graphopt.run.files import read_npz
from tests.support.integers import filled

from .support import MODELS, NETS, Answer, assert_fails, command, contents, graphopt, net, operators, provenance, stored

CALIBRATION, TEST = MODELS / "digits_calib.npz", MODELS / "digits_test.npz"
NET = MODELS / "digits_resnet.onnx"
FEW = {name: a[:160] for name, a in read_npz(CALIBRATION).items()}
PRODUCTS = {"digits_resnet": 12, "digits_mobilenet": 18, "digits_vit": 20, "digits_lstm": 2}
"""How many of them a net has that are computed on integers on x86: but for recurrent layers, all."""


def recipe(bits: int = 8, *, target: str = "cpu", **more: Any) -> Recipe:
    """All that can be on integers, and no clock."""
    passes = ["lossless", f"quantize{{weight_bits={bits}, always=true}}"]
    return Recipe.of(passes, target=target, opset=17, floats=[], **more)


def quantized(model: Any = NET, data: Any = FEW, **more: Any) -> api.Result:
    return api.optimize(model, data=data, recipe=recipe(**more), threads=1, device="cpu")


def codes(model: onnx.ModelProto) -> dict[str, Any]:
    """Weights that are integers, by name."""
    return {t.name: contents(t) for t in model.graph.initializer if t.data_type == t.INT8 and len(t.dims) > 1}


def small() -> onnx.ModelProto:
    """Two convolutions and a classifier of digits, with random weights."""
    model = filled("""g (float[N,1,8,8] image) => (float[N,10] y)
        <float[8,1,3,3] w1, float[8] b1, float[8,8,3,3] w2, float[8,10] m1, float[10] b2> {
        a = Conv(image, w1, b1) r = Relu(a) b = Conv(r, w2) p = GlobalAveragePool(b) f = Flatten(p)
        y = Gemm(f, m1, b2) }""")
    return onnx.ModelProto.FromString(serialize(model, Carried()))


def judged(result: api.Result, name: str) -> dict[str, float]:
    """On the test data: the accuracy less what it was, and the agreement."""
    found = api.check(MODELS / f"{name}.onnx", result.model, data=TEST, threads=1).verification.metrics
    return {name: metric.after - (metric.before if name == "accuracy" else 0) for name, metric in found.items()}


@pytest.fixture(scope="module")
def nets() -> dict[str, api.Result]:
    """Every net of `models/` on integers."""
    return {name: quantized(MODELS / f"{name}.onnx") for name in NETS}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """The ResNet as the command line makes it, the clock asked."""
    folder = tmp_path_factory.mktemp("int8")
    words = ("--json", folder / "out.json", "--html", folder / "out.html", "--save-recipe", folder / "out.toml")
    answer = graphopt(
        "optimize", NET, "-o", folder / "out.onnx", "--int8", "--target", "cpu", "--data", CALIBRATION,
        "--threads", 1, "--device", "cpu", *words,
    )  # fmt: skip
    return folder / "out.onnx", answer


@pytest.mark.parametrize("name", NETS)
def test_accuracy_stays_within_a_point(name: str, nets: dict[str, api.Result]) -> None:
    result = nets[name]
    onnx.checker.check_model(result.model, full_check=True)
    found = judged(result, name)
    assert found["accuracy"] >= -0.01
    assert found["agreement"] >= 0.99
    verification = result.report.verification
    assert verification is not None
    assert verification.metrics["sqnr"].after > 35


@pytest.mark.parametrize("name", NETS)
def test_the_runtime_computes_every_product_on_integers(name: str, nets: dict[str, api.Result]) -> None:
    if platform.machine() not in {"x86_64", "AMD64"}:
        pytest.skip("the kernels are those of x86")
    found = nets[name].report.integers
    assert found is not None
    assert found.emitted
    assert sum(p.integer is True for p in found.products) == PRODUCTS[name]
    assert all("LSTM" in p.reason for p in found.products if not p.integer)
    assert nets[name].report.output.bytes < {"digits_lstm": 0.95}.get(name, 0.4) * nets[name].report.source.bytes


@pytest.mark.parametrize(("name", "bits"), [("digits_resnet", 4), ("digits_vit", 3)])
def test_fewer_bits_cost_little(name: str, bits: int) -> None:
    result = quantized(MODELS / f"{name}.onnx", bits=bits)
    assert judged(result, name)["accuracy"] >= -0.01
    most = 2 ** (bits - 1) - 1
    found = codes(result.model)
    assert len(found) == PRODUCTS[name]
    assert max(int(np.abs(c.astype(int)).max()) for c in found.values()) == most


@pytest.mark.parametrize("target", ["tensorrt", "openvino"])
def test_other_runtimes_are_placed_for_by_rule(target: str) -> None:
    result = quantized(target=target)
    assert judged(result, "digits_resnet")["accuracy"] >= -0.01
    found = result.report.integers
    assert found is not None
    assert (found.kernels, found.ratio) == ({}, None)
    assert all(p.integer is None for p in found.products)
    onnx.checker.check_model(result.model, full_check=True)


def test_for_cuda_as_little_as_can_be_is_quantized_and_what_is_faster_there_is_said(tmp_path: Path) -> None:
    given, out = stored(small(), tmp_path / "in.onnx"), tmp_path / "out.onnx"
    words = ("--int8", "--target", "cuda", "--data", CALIBRATION, "--device", "cpu", "--threads", 1)
    answer = command("optimize", given, "-o", out, *words)
    assert answer.code == 0, answer.err
    told = " ".join(answer.err.split())
    assert "has no fast kernels on integers" in told
    assert "what is faster there is half precision" in told
    assert "placed by rule, not measured" in told
    made = onnx.load(out)
    assert list(operators(made)).count("QuantizeLinear") == len(codes(made)) == 3
    zeros = [t for t in made.graph.initializer if t.name.endswith("/zero")]
    assert len(zeros) == 6
    assert not any(contents(t).any() for t in zeros)


# -- the same bytes --------------------------------------------------------------------------------------------------


def cuts() -> dict[str, Any]:
    rows = read_npz(CALIBRATION)
    order = np.random.default_rng(0).permutation(len(rows["labels"]))
    mixed = {name: array[order] for name, array in rows.items()}

    def cut(size: int) -> list[Any]:
        return [
            ({"image": mixed["image"][i : i + size]}, mixed["labels"][i : i + size]) for i in range(0, len(order), size)
        ]

    return {"shuffled": mixed, "1": cut(1), "7": cut(7), "64": cut(64)}


@pytest.mark.parametrize("how", ["shuffled", "1", "7", "64"])
def test_the_order_of_the_data_and_how_it_is_cut_change_nothing(how: str) -> None:
    one, other = (quantized(small(), data) for data in (CALIBRATION, cuts()[how]))
    assert one.model.SerializeToString() == other.model.SerializeToString()
    assert len(codes(one.model)) == 3


@pytest.mark.soak
def test_nor_do_they_for_a_residual_network() -> None:
    one, other = (quantized(data=data).model.SerializeToString() for data in (CALIBRATION, cuts()["7"]))
    assert one == other


def test_a_recipe_gives_the_same_bytes(done: tuple[Path, Answer], tmp_path: Path) -> None:
    out, answer = done
    assert answer.code == 0, answer.err
    saved = Recipe.read(out.with_suffix(".toml"))
    report = json.loads(out.with_suffix(".json").read_text())
    if report["integers"]["emitted"]:  # as the clock found
        assert saved.quantize is not None
        assert saved.floats is not None
        assert 'quantize"' in provenance(onnx.load(out))["graphopt.recipe"]
    else:
        assert saved.quantize is None
    again = tmp_path / "again.onnx"
    words = ("--recipe", out.with_suffix(".toml"), "--data", CALIBRATION, "--threads", 1, "--device", "cpu", "-q")
    assert command("optimize", NET, "-o", again, *words).code == 0
    assert again.read_bytes() == out.read_bytes()


def test_the_report_says_what_became_of_it(done: tuple[Path, Answer]) -> None:
    out, answer = done
    report = json.loads(out.with_suffix(".json").read_text())
    found = report["integers"]
    assert found["bits"] == 8
    assert len(found["products"]) == PRODUCTS["digits_resnet"]
    assert found["low"] <= found["ratio"] <= found["high"]
    assert found["emitted"] == (found["low"] <= 1)
    assert report["verification"]["metrics"]["accuracy"]["after"] > 0.97
    assert "accuracy falls by" in answer.err
    assert "Traceback" not in answer.err
    told, dear = " ".join(answer.err.split()), sorted(found["products"], key=lambda p: p["gain"], reverse=True)
    assert [bool(p["done"]) for p in dear] == [p["gain"] >= 0.5 for p in dear]
    for product in [p for p in dear if p["done"]][:4]:
        why = f"{product['cause']} ({product['done']})"
        assert product["cause"].startswith(("what it ", "its weights: "))
        assert f"costs {product['gain']:.2f} dB: {product['key']}: {why}" in told
        assert product["cause"] in out.with_suffix(".html").read_text()


# -- with other limits -----------------------------------------------------------------------------------------------


def test_a_budget_and_integers_in_one_command(tmp_path: Path) -> None:
    out = tmp_path / "both.onnx"
    told = tmp_path / "both.toml"
    told.write_text(recipe(budget=["macs=0.6"]).text())
    words = ("--recipe", told, "--data", CALIBRATION, "--threads", 1, "--device", "cpu", "-q")
    answer = command("optimize", NET, "-o", out, *words, "--json", tmp_path / "both.json")
    assert answer.code == 0, answer.err
    report = json.loads((tmp_path / "both.json").read_text())
    assert report["output"]["macs"] <= 0.6 * report["source"]["macs"]
    assert report["output"]["bytes"] < 0.3 * report["source"]["bytes"]
    assert report["integers"]["emitted"]
    found = api.check(NET, out, data=TEST, threads=1).verification.metrics["accuracy"]
    assert found.after > found.before - 0.02


def test_an_allowed_drop_leaves_regions_on_floats_and_all_runs_do_the_same() -> None:
    passes = ["lossless", "quantize{weight_bits=3, always=true}"]
    words: dict[str, Any] = {"passes": passes, "target": "cpu", "max_drop": ["sqnr=38.5"]}
    result, again = (api.optimize(small(), data=CALIBRATION, threads=1, device="cpu", **words) for _ in range(2))
    found, verification = result.report.integers, result.report.verification
    assert found is not None
    assert verification is not None
    assert 0 < len(found.floats) < 3
    assert verification.metrics["sqnr"].after >= 38.5
    assert result.recipe.floats == found.floats
    told = api.optimize(small(), data=CALIBRATION, recipe=result.recipe, threads=1, device="cpu")
    for other in (again, told):
        assert other.model.SerializeToString() == result.model.SerializeToString()


def test_a_drop_that_not_even_floats_keep_to_is_a_verdict(tmp_path: Path) -> None:
    out, rounding = tmp_path / "none.onnx", stored(net(), tmp_path / "net.onnx")
    words = ("--int8", "--target", "cpu", "--max-drop", "sqnr=300", "--data", "random:40", "--device", "cpu")
    assert_fails(command("optimize", rounding, "-o", out, *words), 1, "the allowed drop cannot be kept")
    assert not out.exists()
    with pytest.raises(Verdict, match="allowed drop"):
        api.optimize(net(), data="random:40", int8=True, target="cpu", max_drop=["sqnr=300"], threads=1)


def test_where_only_floats_keep_to_a_drop_all_stays_on_floats_and_that_is_said(tmp_path: Path) -> None:
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 21]> ' + SMALL)
    given, out = stored(model, tmp_path / "in.onnx"), tmp_path / "out.onnx"
    words = ("--int8", "--target", "cpu", "--max-drop", "sqnr=120", "--data", "random:40", "--device", "cpu")
    answer = command("optimize", given, "-o", out, *words, "--save-recipe", tmp_path / "out.toml")
    assert answer.code == 0, answer.err
    assert "no product does well enough on integers, so all stays on floats" in answer.err
    assert "slower on integers" not in answer.err
    assert not codes(onnx.load(out))
    assert Recipe.read(tmp_path / "out.toml").quantize is None


# -- models and data -------------------------------------------------------------------------------------------------

SMALL = """small (float[N,3] x) => (float[N,2] y)
    <float[3,2] w = {0.5, -1.25, 0.75, 0.3, -0.6, 1.1}, float[2] b = {0.1, -0.2}> { [p] y = Gemm(x, w, b) }"""


def test_what_is_quantized_already_stays_as_it_is_and_that_is_said(nets: dict[str, api.Result], tmp_path: Path) -> None:
    given, out = stored(nets["digits_resnet"].model, tmp_path / "before.onnx"), tmp_path / "again.onnx"
    words = ("--int8", "--target", "cpu", "--data", CALIBRATION, "--device", "cpu", "--threads", 1)
    answer = command("optimize", given, "-o", out, *words)
    assert answer.code == 0, answer.err
    assert "its quantizers stand as cpu wants them" in " ".join(answer.err.split())
    assert out.read_bytes() == given.read_bytes()


def test_of_a_model_that_is_quantized_in_part_what_is_on_floats_stays_so() -> None:
    part = api.optimize(small(), data=CALIBRATION, recipe=recipe(skip=["Gemm_5"]), threads=1, device="cpu").model
    assert len(codes(part)) == 2
    assert quantized(part).model.graph == part.graph


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }", "it has no products"),
        ("g (float[N,3] x, float[3,2] w) => (float[N,2] y) { [p] y = MatMul(x, w) }", "p: its weight is computed"),
        (
            """g (float16[N,3] x, float16[3,3] u) => (float16[N,2] y) <float[3,2] w = {0.5, -1.25, 0.75, 0.3, -1, 1}> {
                v = Cast<to=10>(w) [t] t = MatMul(x, u) [r] r = MatMul(t, u) [s] s = MatMul(r, u) [o] o = MatMul(s, u)
                [p] y = MatMul(o, v) }""",
            "t, r, s and 1 other: its weight is computed; p: its weight is of float16, not of float32",
        ),
    ],
    ids=["no product", "no weight", "half"],
)
def test_a_model_with_nothing_to_quantize_is_told_in_one_sentence(text: str, why: str, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    answer = command("optimize", stored(text, tmp_path / "in.onnx"), "-o", out, "--int8", "--target", "cpu")
    assert_fails(answer, 1, f"nothing in the model can be quantized: {why}")
    assert not out.exists()


def test_without_data_made_up_values_are_learned_from_and_said_to_be() -> None:
    result = quantized(small(), None)
    assert result.report.data is not None
    assert result.report.data.synthetic
    assert result.report.integers is not None
    assert result.report.integers.emitted


@pytest.mark.parametrize("fixed", [1, 4])
def test_a_batch_that_the_model_fixes(fixed: int) -> None:
    model = small()
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = fixed
    result = quantized(model)
    assert result.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == fixed
    verification = result.report.verification
    assert verification is not None
    assert verification.metrics["sqnr"].after > 25
    assert len(codes(result.model)) == 3


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_from_samples_that_are_not_finite_nothing_is_learned_and_that_is_said(value: float) -> None:
    some, every = ({"image": FEW["image"].copy()} for _ in range(2))
    some["image"][::4, 0, 0, 0] = every["image"][:, 0, 0, 0] = value
    for words in ({"recipe": recipe()}, {"budget": ["macs=0.8"]}):
        report = api.optimize(small(), data=some, threads=1, device="cpu", **words).report
        (note,) = (n for n in report.notes if n.startswith("nothing was learned from"))
        count = int(note.split()[4])
        assert note == f"nothing was learned from {count} samples with nan or infinities"
        assert 30 < count <= 40
        assert report.integers is None or "nearest, as" not in " ".join(p.way for p in report.integers.products)
        with pytest.raises(InputError, match="nothing can be learned from the data: leave out samples with nan"):
            api.optimize(small(), data=every, threads=1, device="cpu", **words)


def test_values_whose_squares_overflow_are_learned_from() -> None:
    rows = {"image": read_npz(CALIBRATION)["image"] * np.float32(1e20)}
    found = quantized(small(), rows).report
    assert found.integers is not None
    assert "nearest" not in {p.way for p in found.integers.products}
    assert found.verification is not None
    assert found.verification.metrics["sqnr"].after > 25


def test_a_recipe_that_leaves_what_is_not_there_on_floats_is_refused() -> None:
    with pytest.raises(UsageError, match="no node or group with the key 'Conv_9'"):
        api.optimize(small(), data=CALIBRATION, recipe=replace(recipe(), floats=("Conv_9",)), threads=1)


def test_an_old_opset_is_raised_or_asked_for() -> None:
    model = onnx.parser.parse_model('<ir_version: 7, opset_import: ["" : 11]> ' + SMALL)
    with pytest.raises(UsageError, match="int8 needs opset 13, and the model has 11: give --opset 13 as well"):
        api.optimize(model, data="random:40", passes="quantize{always=true}", target="cpu", threads=1)
    result = api.optimize(model, data="random:40", int8=True, target="tensorrt", threads=1)
    assert result.model.opset_import[0].version == 13
    assert "DequantizeLinear" in operators(result.model)


# -- what makes no sense ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--int8",), ("int8 is made for a runtime", "give one of cpu, cuda, tensorrt, openvino")),
        (("--int8", "--target", "portable"), ("portable", "give one of cpu, cuda, tensorrt, openvino")),
        (("--weight-bits", "4", "--target", "cpu"), ("give int8 as well",)),
        (("--int8", "--weight-bits", "5", "--target", "cpu"), ("weights have 8, 4, 3 bits, not 5",)),
        (("--int8", "--target", "cpu", "--unverified"), ("leave out unverified",)),
        (("--int8", "--target", "cpu", "--pass", "quantize"), ("quantize is given twice",)),
    ],
)
def test_what_makes_no_sense_is_refused(words: tuple[str, ...], parts: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    assert_fails(command("optimize", NET, "-o", out, *words), 2, *parts)
    assert not out.exists()


def test_statistics_are_kept_for_this_model_and_this_data(tmp_path: Path) -> None:
    given, file, told = small(), tmp_path / "kept.npz", list[str]()

    def made(model: onnx.ModelProto = given, rows: int = 160) -> api.Result:
        data = {name: a[:rows] for name, a in FEW.items()}
        told.clear()
        return api.optimize(
            model, data=data, recipe=recipe(), calibration=file, threads=1, device="cpu", progress=told.append
        )

    plain, first = quantized(given), made()
    assert any("observing" in words for words in told)
    assert not any(str(file) in note for note in first.report.notes)
    before, again = file.read_bytes(), made()
    assert not any("observing" in words for words in told)
    assert any(str(file) in note for note in again.report.notes)
    assert file.read_bytes() == before
    assert again.model.SerializeToString() == first.model.SerializeToString() == plain.model.SerializeToString()
    with pytest.raises(InputError, match="other data"):
        made(rows=150)
    other = small()
    other.graph.initializer[0].raw_data = bytes(len(other.graph.initializer[0].raw_data))
    with pytest.raises(InputError, match="another model"):
        made(other)
    assert file.read_bytes() == before
    with pytest.raises(UsageError, match="give int8"):
        api.optimize(small(), calibration=file)
    with pytest.raises(UsageError, match="path of a file"):
        api.optimize(small(), recipe=recipe(), calibration=3)  # type: ignore[arg-type]
