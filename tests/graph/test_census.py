"""What a file says of its own contents is not believed."""

from __future__ import annotations

import time

import onnx
import pytest
from onnx import TensorProto

from graphopt.errors import InputError
from graphopt.graph.census import MOST_DEEP, Refused, bytes_of, count
from graphopt.graph.load import load
from tests.support.models import parse


def nested(depth: int) -> onnx.ModelProto:
    model = onnx.ModelProto(ir_version=10)
    graph = model.graph
    for _ in range(depth):
        graph = graph.node.add(op_type="If").attribute.add(type=onnx.AttributeProto.GRAPH).g
        graph.SetInParent()
    return model


def test_bodies_have_an_end() -> None:
    assert not count(nested(MOST_DEEP))
    with pytest.raises(Refused, match="more than 32 bodies"):
        count(nested(MOST_DEEP + 1))


def test_every_tensor_is_found() -> None:
    model = parse("""<ir_version: 10, opset_import: ["" : 21, "d" : 1]>
    g (bool c, float[2] x) => (float[2] y) <float[1] i = {1}> {
      k = Constant <value = float[1] {1}> ()
      y = If (c) <
        then_branch = t () => (float[2] p) <float[1] w = {1}> { p = d.F (x, w) },
        else_branch = e () => (float[2] q) { q = Abs (x) }
      >
    }
    <domain: "d", opset_import: ["" : 21]> F (a, b) => (r) { s = Constant <value = float[1] {1}> () r = Mul (a, s) }""")
    sparse = model.graph.sparse_initializer.add(dims=[4])
    sparse.values.CopyFrom(onnx.helper.make_tensor("s", 1, [1], [1.0]))
    sparse.indices.CopyFrom(onnx.helper.make_tensor("", 7, [1], [1]))
    model.training_info.add().algorithm.initializer.add(name="t", data_type=1, dims=[0])
    attribute = model.graph.node[0].attribute.add(name="more", type=onnx.AttributeProto.SPARSE_TENSORS)
    attribute.sparse_tensors.add().CopyFrom(sparse)
    found = count(model)
    assert len(found) == 1 + 1 + 1 + 1 + 2 + 1 + 2
    assert sum(t.owner is model.graph for t in found) == 1


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (TensorProto(data_type=0, dims=[0]), "no type that is known"),
        (TensorProto(data_type=99, dims=[0]), "no type that is known"),
        (TensorProto(data_type=1, dims=[-1]), "extent below zero"),
        (TensorProto(data_type=1, dims=[1], raw_data=bytes(3)), "has 3 bytes"),
        (TensorProto(data_type=1, dims=[1], raw_data=bytes(8)), "has 8 bytes"),
        (TensorProto(data_type=1, dims=[1 << 40, 1 << 40], raw_data=bytes(4)), "larger ones than any memory holds"),
        (TensorProto(data_type=1, dims=[2], float_data=[1]), "has 1 elements"),
        (TensorProto(data_type=1, dims=[2]), "has 0 elements"),
        (TensorProto(data_type=1, dims=[1], float_data=[1], raw_data=bytes(4)), "contents twice"),
        (TensorProto(data_type=7, dims=[1], float_data=[1]), "which its type does not allow"),
        (TensorProto(data_type=8, dims=[1], raw_data=b"text"), "which its type does not allow"),
        (TensorProto(data_type=22, dims=[3], int32_data=[1]), "has 1 elements"),
        (TensorProto(data_type=1, dims=[1], data_location="EXTERNAL", float_data=[1]), "in the file and outside"),
        (TensorProto(data_type=8, dims=[1], data_location="EXTERNAL"), "text in another file"),
        (
            TensorProto(data_type=1, dims=[0], external_data=[onnx.StringStringEntryProto(key="location")]),
            "in the file, and said to be outside",
        ),
        (TensorProto(data_type=1, dims=[0], segment=TensorProto.Segment(begin=0, end=1)), "only a segment"),
    ],
)
def test_tensors_that_are_not_what_they_say(tensor: TensorProto, words: str) -> None:
    tensor.name = "w"
    with pytest.raises(Refused, match=words):
        count(tensor)
    model = parse("g (float[2] x) => (float[2] y) { y = Abs (x) }")
    model.graph.initializer.append(tensor)
    with pytest.raises(InputError):
        load(model)


@pytest.mark.parametrize("kind", [k for k in TensorProto.DataType.values() if k not in {0, 8}])
@pytest.mark.parametrize("raw", [False, True])
def test_tensors_of_every_type_as_onnx_writes_them(kind: int, raw: bool) -> None:  # noqa: FBT001
    for shape in ([], [0], [5], [3, 1]):
        elements = [1] * (1 if not shape else 0 if shape == [0] else 5 if shape == [5] else 3)
        if raw:
            packed = -(-len(elements) * (bytes_of(TensorProto(data_type=kind, dims=[8])) or 0) // 8)
            tensor = TensorProto(data_type=kind, dims=shape, raw_data=bytes(packed))
        else:
            tensor = onnx.helper.make_tensor("w", kind, shape, elements)
        assert len(count(tensor)) == 1


def test_functions_that_call_each_other_are_refused_before_anything_expands_them() -> None:
    calls = "\n".join(
        f'<domain: "d", opset_import: ["" : 21, "d" : 1]> F{i} (a) => (c) {{ b = d.F{i + 1} (a) c = d.F{i + 1} (b) }}'
        for i in range(40)
    )
    last = '<domain: "d", opset_import: ["" : 21]> F40 (a) => (b) { b = Neg (a) }'
    start = time.monotonic()
    with pytest.raises(InputError, match="come to"):
        load(
            parse(f"""<ir_version: 10, opset_import: ["" : 21, "d" : 1]>
            g (float[2] x) => (float[2] y) {{ y = d.F0 (x) }} {calls} {last}""")
        )
    assert time.monotonic() - start < 10
