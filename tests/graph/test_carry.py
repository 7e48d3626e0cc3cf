"""What the graph in memory has no place for comes out as it went in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphopt.catalogue import LOSSLESS
from graphopt.graph.load import load
from graphopt.graph.nodes import is_constant, is_overridable, is_protected
from graphopt.graph.save import serialize
from graphopt.protocol import Evaluator
from graphopt.upgrade import Upgrade
from tests.support.models import differences, parse, rewritten, run

ZOO = Path(__file__).parents[3] / "shared" / "zoo"
NAMES = sorted(p.stem for p in ZOO.glob("*.onnx"))


def round_trip(model: onnx.ModelProto) -> onnx.ModelProto:
    source = load(model)
    return onnx.ModelProto.FromString(serialize(source.model, source.carried))


def sparse(name: str = "w") -> onnx.SparseTensorProto:
    """[0, 2, 0, 3]."""
    values = onnx.TensorProto(name=name, dims=[2], data_type=1, float_data=[2, 3])
    return onnx.SparseTensorProto(
        values=values, indices=onnx.TensorProto(dims=[2], data_type=7, int64_data=[1, 3]), dims=[4]
    )


def with_sparse_weight() -> onnx.ModelProto:
    model = parse("g (float[N,4] x) => (float[N,4] y) <float[4] v = {0, 2, 0, 3}> { a = Mul (x, w) y = Add (a, v) }")
    model.graph.sparse_initializer.append(sparse())
    return model


def test_sparse_initializers_come_back(evaluate: Evaluator) -> None:
    model = with_sparse_weight()
    assert round_trip(model).graph.sparse_initializer == model.graph.sparse_initializer
    assert round_trip(model).graph.input == model.graph.input
    source = load(model)
    assert not is_constant(next(v for v in source.model.graph.inputs if v.name == "w"))
    result = rewritten(source, [p() for p in LOSSLESS], evaluate)
    assert result.model.graph.sparse_initializer == model.graph.sparse_initializer
    given = {"x": np.ones((2, 4), np.float32)}
    assert not differences(run(model, given), run(result.model, given))


def test_a_sparse_initializer_that_a_feed_may_override_stays_an_input() -> None:
    model = with_sparse_weight()
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", 1, [4]))
    again = round_trip(model)
    assert again.graph.input == model.graph.input
    assert again.graph.sparse_initializer == model.graph.sparse_initializer


def test_sparse_initializers_of_a_body_make_the_model_untouchable() -> None:
    model = parse("""g (bool c, float[4] x) => (float[4] y) {
      y = If (c) <
        then_branch = t () => (float[4] p) { p = Mul (x, w) },
        else_branch = e () => (float[4] q) { q = Abs (x) }
      >
    }""")
    model.graph.node[0].attribute[0].g.sparse_initializer.append(sparse())
    source = load(model)
    assert source.carried.untouchable is not None
    assert "sparse" in source.carried.untouchable


def with_training() -> onnx.ModelProto:
    """A training step that updates `w`, which it reads, as it reads `a`."""
    model = parse("""g (float[N,2] x) => (float[N,2] y) <float[2] w = {1, 2}, float[2] v = {1, 2}> {
      a = Identity (x)
      b = Mul (a, w)
      y = Mul (b, v)
    }""")
    step = parse("s () => (float[2] u) { u = Neg (w) n = Relu (a) }").graph
    info = model.training_info.add()
    info.algorithm.CopyFrom(step)
    info.update_binding.add(key="w", value="u")
    return model


def test_training_information_comes_back_and_what_it_names_stays(evaluate: Evaluator) -> None:
    model = with_training()
    assert list(round_trip(model).training_info) == list(model.training_info)
    source = load(model)
    assert not is_constant(source.model.graph.initializers["w"])
    result = rewritten(source, [p() for p in LOSSLESS], evaluate)
    assert list(result.model.training_info) == list(model.training_info)
    assert {t.name for t in result.model.graph.initializer} == {"w", "v"}
    assert "a" in {o for n in result.model.graph.node for o in n.output}


def test_training_information_keeps_the_opset() -> None:
    result = rewritten(load(with_training()), [Upgrade(opset=23)])
    assert not result.edits
    assert [m.reason for m in result.misses] == ["training information is written in the same opset"]


def with_annotation() -> onnx.ModelProto:
    model = parse("""g (float[N,2] x) => (float[N,2] y) <float s = {0.5}, float t = {0.5}, float[2] w = {1, 2}> {
      a = Identity (x)
      b = Mul (a, w)
      y = Mul (b, t)
    }""")
    annotation = model.graph.quantization_annotation.add(tensor_name="a")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    return model


def test_quantization_annotations_come_back_and_what_they_name_stays(evaluate: Evaluator) -> None:
    model = with_annotation()
    assert round_trip(model).graph.quantization_annotation == model.graph.quantization_annotation
    source = load(model)
    assert is_protected(source.model.graph.initializers["s"])
    result = rewritten(source, [p() for p in LOSSLESS], evaluate)
    assert result.model.graph.quantization_annotation == model.graph.quantization_annotation
    assert "s" in {t.name for t in result.model.graph.initializer}
    assert "a" in {o for n in result.model.graph.node for o in n.output}


def test_no_value_info_is_added() -> None:
    model = parse("g (float[N,2] x) => (float[N,2] y) <float[2] w = {1, 2}> { a = Mul (x, w) b = Neg (a) y = Abs (b) }")
    assert not round_trip(model).graph.value_info
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("a", 1, ["rows", None]))
    assert round_trip(model).graph.value_info == model.graph.value_info


def test_what_says_who_made_the_model_comes_back() -> None:
    model = parse("""<ir_version: 9, opset_import: ["" : 19, "unused.domain" : 3], producer_name: "p",
      producer_version: "1", domain: "d", model_version: 7, doc_string: "model", metadata_props: ["a": "b"]>
      g (float[N] x) => (float[N] y) { y = Relu (x) }""")
    model.graph.doc_string = "graph"
    model.graph.input[0].doc_string = "input"
    model.graph.node[0].doc_string = "node"
    model.graph.node[0].metadata_props.add(key="scope", value="layer")
    assert plain(round_trip(model)) == plain(model)


def test_overridable_initializers_keep_their_place() -> None:
    model = parse("g (float[1] w, float[N] x) => (float[N] y) <float[1] w = {1}> { y = Mul (x, w) }")
    assert round_trip(model).graph.input == model.graph.input
    assert is_overridable(load(model).model.graph.inputs[0])


def test_local_functions_come_back() -> None:
    model = parse("""<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
      g (float[N] x) => (float[N] y) { y = local.f <alpha = 2.0> (x) }
      <domain: "local", opset_import: ["" : 20]>
      f <alpha> (x) => (y) { a = LeakyRelu <alpha: float = @alpha> (x) y = Relu (a) }""")
    assert plain(round_trip(model)) == plain(model)


def test_empty_names_stay_empty() -> None:
    model = parse("""g (float[S,N,1] x) => (float[1,N,1] h)
      <float[1,3,1] w = {1, 2, 3}, float[1,3,1] r = {1, 2, 3}, float[1,1,1] start = {0}> {
      "", h = GRU <hidden_size = 1> (x, w, r, "", "", start)
    }""")
    assert plain(round_trip(model)) == plain(model)


DEFAULTS = ("domain", "doc_string", "producer_version", "model_version")


def plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without what no reader sees: fields given and empty, the order of notes on values, stale notes."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    pending: list[Any] = [copy]
    while pending:
        message = pending.pop()
        for descriptor, value in message.ListFields():
            if descriptor.name in DEFAULTS and not value:
                message.ClearField(descriptor.name)
            elif descriptor.message_type is not None:
                pending.extend(value if descriptor.is_repeated else [value])
    graph = copy.graph
    computed = {o for n in graph.node for o in n.output} | {t.name for t in graph.initializer}
    notes = sorted((i for i in graph.value_info if i.name in computed), key=lambda i: str(i.name))
    del graph.value_info[:]
    graph.value_info.extend(notes)
    return copy


@pytest.mark.skipif(not NAMES, reason="the zoo of models is not here")
@pytest.mark.parametrize("name", NAMES)
def test_models_of_the_zoo_come_back(name: str) -> None:
    given = onnx.ModelProto.FromString((ZOO / f"{name}.onnx").read_bytes())
    made = round_trip(given)
    left, right = plain(given), plain(made)
    old = given.ir_version < 4
    if old:  # weights leave the list of inputs, and the version says so
        weights = {t.name for t in left.graph.initializer}
        inputs = [i for i in left.graph.input if i.name not in weights]
        del left.graph.input[:]
        left.graph.input.extend(inputs)
        left.ir_version = 4
    assert left == right


@pytest.mark.skipif(not NAMES, reason="the zoo of models is not here")
def test_the_zoo_is_described() -> None:
    assert {m["name"] for m in json.loads((ZOO / "zoo.json").read_text())["models"]} == set(NAMES)
