"""Models that are quantized already, moved to another runtime or back to floats."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

import graphopt as api
from graphopt import ops
from graphopt.analysis.audit import audit
from graphopt.compress.integers.unquantize import unquantized
from graphopt.errors import UsageError
from graphopt.graph.load import load
from graphopt.graph.nodes import key
from graphopt.plan import regions
from graphopt.run.files import read_npz

from .support import MODELS, command

NET, CALIBRATION = MODELS / "digits_resnet.onnx", MODELS / "digits_calib.npz"
DATA = {name: a[:200] for name, a in read_npz(CALIBRATION).items() if name != "labels"}


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self._left = [{name: a[i : i + 50] for name, a in DATA.items()} for i in range(0, 200, 50)]

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return self._left.pop() if self._left else None


def quantized(model: Any, target: str, **more: Any) -> Any:
    return api.optimize(model, int8=True, target=target, data=DATA, threads=1, device="cpu", **more)


@pytest.fixture(scope="module", autouse=True)
def no_clock() -> Iterator[None]:
    """Nothing stays on floats because of what it takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regions, "_WORTH", inf)
        yield


@pytest.fixture(scope="module")
def ours() -> onnx.ModelProto:
    """The ResNet of `models/` for the CPU."""
    model: onnx.ModelProto = quantized(NET, "cpu").model
    return model


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by onnxruntime, with int8 data and weights, as is its default."""
    out: Path = tmp_path_factory.mktemp("theirs") / "s8s8.onnx"
    quantize_static(NET, out, Reader(), activation_type=QuantType.QInt8, weight_type=QuantType.QInt8)
    return out


def agreement(model: Any) -> float:
    """With the network on floats."""
    found = api.check(NET, model, data=MODELS / "digits_test.npz", threads=1, device="cpu")
    return found.verification.metrics["agreement"].after


def moved(result: api.Result) -> tuple[int, ...]:
    """Values and weights that keep their scales, and values that were observed."""
    (note,) = [n for n in result.report.notes if n.startswith("moved: ")]
    return tuple(int(w) for w in note.split() if w.isdigit())


def test_what_stands_as_the_target_wants_it_is_emitted_as_it_came(ours: onnx.ModelProto) -> None:
    again = quantized(ours, "cpu")
    assert again.report.unchanged == "its quantizers stand as cpu wants them"
    assert again.model.SerializeToString() == ours.SerializeToString()


def test_weights_come_back_within_half_a_step(theirs: Path) -> None:
    floats = {key(n): x for n in load(NET).model.graph for x in ops.linears(n)}
    back = unquantized(load(theirs).model)
    assert not back.left
    assert back.products == floats.keys()
    for node in back.model.graph:
        for one in ops.linears(node):
            (step,) = back.scales[key(node)]
            assert np.abs(one.weights - floats[key(node)].weights).max() <= step / 2 * (1 + 1e-5)


def test_ours_come_back_as_they_were(ours: onnx.ModelProto) -> None:
    back = unquantized(load(ours).model)
    plain = api.optimize(NET, data=DATA, threads=1).outcome.model.graph
    assert not back.left
    assert [(key(n), n.op_type) for n in back.model.graph] == [(key(n), n.op_type) for n in plain]
    assert [str(v.name) for n in back.model.graph for v in n.outputs] == [str(v.name) for n in plain for v in n.outputs]
    assert set(back.model.graph.initializers) == set(plain.initializers)
    assert len(back.weights(back.model, 8)) == len(back.products) == 12


def test_a_model_goes_to_another_runtime_and_back(ours: onnx.ModelProto) -> None:
    there = quantized(ours, "tensorrt")
    assert moved(there)[1:] == (12, 0)
    back = quantized(there.model, "cpu")
    assert moved(back)[1] == 12
    assert moved(back)[2] > 0
    first, last = (unquantized(load(m).model) for m in (ours, back.model))
    assert first.products == last.products
    for name, one in first.weights(first.model, 8).items():
        other = last.weights(last.model, 8)[name]
        assert np.array_equal(one.codes, other.codes)
        assert np.array_equal(one.scale, other.scale)
    assert agreement(back.model) >= agreement(ours) - 0.005


def test_scales_of_a_symmetric_target_cover_the_larger_side(ours: onnx.ModelProto) -> None:
    there = quantized(ours, "tensorrt").model
    wide, even = (unquantized(load(m).model).ranges for m in (ours, there))
    for name in wide.keys() & even.keys():
        most = max(-wide[name][0], wide[name][1])
        np.testing.assert_allclose(even[name], (-most, most), rtol=1e-6)


def test_what_onnxruntime_quantized_runs_on_integers_afterwards(theirs: Path) -> None:
    before = audit(load(theirs).model)
    assert len(before.integer) < len(before.products)
    made = quantized(theirs, "cpu")
    assert moved(made) == (18, 12, 0)
    after = audit(load(made.model).model)
    assert len(after.products) == 12
    assert not after.floating
    assert agreement(made.model) >= agreement(theirs) - 0.005


def test_the_recipe_gives_the_same_bytes(theirs: Path, tmp_path: Path) -> None:
    made = quantized(theirs, "cpu")
    path = tmp_path / "recipe.toml"
    path.write_text(made.recipe.text())
    again = api.optimize(theirs, recipe=path, data=DATA, threads=1, device="cpu")
    assert again.model.SerializeToString() == made.model.SerializeToString()


def test_the_command_undoes_and_says_so(ours: onnx.ModelProto, tmp_path: Path) -> None:
    given, out = tmp_path / "given.onnx", tmp_path / "floats.onnx"
    onnx.save(ours, given)
    answer = command("optimize", given, "-o", out, "--pass", "unquantize", "--data", CALIBRATION, "--threads", "1")
    assert answer.code == 0, answer.err
    assert "quantizers" in answer.err
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    assert not {n.op_type for n in model.graph.node} & {"QuantizeLinear", "DequantizeLinear"}
    assert [o.name for o in model.graph.output] == [o.name for o in ours.graph.output]
    assert agreement(out) >= 0.99
    again = api.optimize(given, passes="unquantize", data=DATA, threads=1)
    assert again.recipe.text() == 'version = 1\npasses = [\n"unquantize",\n]\n'


def test_what_computed_on_floats_among_integers_still_does(tmp_path: Path) -> None:
    given = tmp_path / "some.onnx"
    quantize_static(NET, given, Reader(), activation_type=QuantType.QInt8, nodes_to_exclude=["/head/Gemm"])
    made = quantized(given, "cpu")
    assert moved(made)[1] == 11
    assert [p.key for p in audit(load(made.model).model).floating] == ["/head/Gemm"]


def test_products_may_be_skipped_but_quantizers_may_not(ours: onnx.ModelProto) -> None:
    names = {n.op_type: n.name for n in reversed(ours.graph.node)}
    assert moved(quantized(ours, "tensorrt", skip=[names["Conv"]]))[1] == 11
    for kind in ("QuantizeLinear", "DequantizeLinear"):
        for words in ({"int8": True, "target": "tensorrt"}, {"passes": "unquantize"}):
            with pytest.raises(UsageError, match="is a quantizer, and all of these go: skip the product"):
                api.optimize(ours, data=DATA, skip=[names[kind]], threads=1, **words)


def test_models_on_floats_have_nothing_to_undo() -> None:
    with pytest.raises(UsageError, match=r"nothing in .* is quantized in a form that becomes floats"):
        api.optimize(NET, passes="unquantize", data=DATA)


def test_what_is_left_is_told_with_the_reason(theirs: Path) -> None:
    model = onnx.load(theirs)
    (first,) = [
        n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == model.graph.input[0].name
    ]
    model.graph.node.append(onnx.helper.make_node("Cast", [first.output[0]], ["bytes"], name="bytes", to=6))
    model.graph.output.append(onnx.helper.make_tensor_value_info("bytes", 6, None))
    made = api.optimize(model, passes="unquantize", data=DATA, threads=1)
    assert f"left as it is: {first.name}: bytes computes on its integers" in made.report.notes
    assert sum(n.op_type == "QuantizeLinear" for n in made.model.graph.node) == 1
