from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import onnx_ir as ir
import pytest

from graphopt.errors import InputError, MachineError
from graphopt.graph import save
from graphopt.graph.load import load
from graphopt.graph.nodes import static_shape
from graphopt.run import optimized as module
from graphopt.run.optimized import optimized
from tests.support.models import parse

LARGE = f"float[64,64] w = {{{', '.join(['0.5'] * 4096)}}}"
MODEL = f"g (float[8,64] x) => (float[8,64] y) <{LARGE}> {{ a = Identity(x) t = MatMul(a, w) y = Relu(t) }}"
QUANTIZED = """g (float[3] x) => (float[3] y) <float s = {0.5}, uint8 z = {0}> {
    a = Identity(x) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) r = Sigmoid(d)
    p = QuantizeLinear(r, s, z) y = DequantizeLinear(p, s, z) }"""


def model(text: str = MODEL) -> ir.Model:
    return load(parse(text)).model


def operators(graph: ir.Graph) -> Counter[str]:
    return Counter(node.op_type for node in graph)


def test_the_basic_optimizations_leave_quantizers() -> None:
    basic = operators(optimized(model(QUANTIZED), fuse=False).graph)
    assert basic == {"QuantizeLinear": 2, "Sigmoid": 1, "DequantizeLinear": 2}
    assert operators(optimized(model(QUANTIZED)).graph)["QLinearSigmoid"] == 1


def test_the_model_is_not_changed_and_nothing_stays_on_the_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    given = model()
    before = operators(given.graph)
    assert optimized(given).provider == "CPUExecutionProvider"
    assert operators(given.graph) == before
    assert not list(tmp_path.iterdir())


def test_large_weights_are_beside_the_graph_on_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save, "EXTERNAL_ABOVE", 1)
    monkeypatch.setattr(module, "_LARGE", 1)
    graph = optimized(model(), fuse=False).graph
    (weight,) = graph.initializers.values()
    assert weight.name == "w"
    assert weight.dtype is ir.DataType.FLOAT
    assert static_shape(weight) == (64, 64)
    assert isinstance(weight.const_value, ir.ExternalTensor)


def test_no_room_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(MachineError, match=r"^no temporary file can be written: [^\n]+$"):
        optimized(model())


def test_a_model_that_does_not_load_is_one_sentence() -> None:
    given = model()
    given.graph[-1].op_type = "Foo"
    with pytest.raises(InputError, match=r"^onnxruntime does not load the model: "):
        optimized(given)
