"""Fewer bytes for the same graph: what is said less shortly, or not at all, computes what it did."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graphopt.compress.forms.terse import shorten
from graphopt.graph.load import load
from graphopt.graph.save import serialize
from tests.support.models import differences, feed, parse, run

CONVOLUTION = """
convolution (float[1,2,8,8] image) => (float[1,4,4,4] scores)
<float[4,2,3,3] first_weights, float[4] first_bias>
{
  wide = Conv <dilations = [1, 1], group = 1, kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [1, 1]>
    (image, first_weights, first_bias)
  clipped = Relu (wide)
  scores = MaxPool <ceil_mode = 0, kernel_shape = [2, 2], pads = [0, 0, 0, 0], strides = [2, 2]> (clipped)
}
"""
BODIES = """
bodies (float[2,3] data, bool[1] chosen) => (float[2,3] result, float[2,3] a)
{
  shifted = Add (data, data)
  a = Neg (shifted)
  flag = Squeeze (chosen)
  result = If (flag) <
    then_branch = yes () => (float[2,3] then_result) { then_result = Exp (shifted) },
    else_branch = no () => (float[2,3] else_result) { inner = Abs (shifted) else_result = Sqrt (inner) }
  >
}
"""


@pytest.mark.parametrize("text", [CONVOLUTION, BODIES], ids=["attributes", "bodies"])
def test_it_computes_the_same_in_fewer_bytes(text: str) -> None:
    given = _filled(parse(text))
    source, inputs = load(given), feed(given, {})
    before, result = serialize(source.model, source.carried), source.model.clone()
    shorten(result)
    after = serialize(result, source.carried)
    onnx.checker.check_model(onnx.ModelProto.FromString(after), full_check=True)
    assert len(after) < 0.85 * len(before)
    ends = [[str(v.name) for v in (*m.graph.inputs, *m.graph.outputs)] for m in (source.model, result)]
    assert ends[0] == ends[1]
    assert not differences(run(before, inputs), run(after, inputs))


def test_only_what_is_implied_is_left_out() -> None:
    source = load(_filled(parse(CONVOLUTION)))
    shorten(source.model)
    conv, _, pool = source.model.graph
    assert set(conv.attributes) == {"pads"}
    assert set(pool.attributes) == {"kernel_shape", "strides"}


def _filled(model: onnx.ModelProto) -> onnx.ModelProto:
    """What the text declares, and nobody computes, are weights."""
    random = np.random.default_rng(0)
    for info in [i for i in model.graph.value_info if i.name.startswith("first")]:
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
        contents = random.standard_normal(shape).astype(np.float32)
        tensor = onnx.helper.make_tensor(info.name, onnx.TensorProto.FLOAT, shape, contents.tobytes(), raw=True)
        model.graph.initializer.append(tensor)
        model.graph.value_info.remove(info)
    return model
