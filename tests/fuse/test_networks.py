"""Blocks of real networks, built here: what the fusing passes make of them, and that it is the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graphopt.fuse import FuseChain, FuseLinear, FuseParallel, FuseSum
from graphopt.graph.load import load
from graphopt.protocol import Context, Pass
from tests.support.models import cannot_evaluate, differences, feed, rewritten, run

CHANNELS = 8


class Net:
    """A graph under construction with random weights."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.draw = np.random.default_rng(0)

    def weight(self, *shape: int, positive: bool = False) -> str:
        name = f"w{len(self.weights)}"
        numbers = self.draw.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        raw = (np.abs(numbers) + 0.5 if positive else numbers).astype(np.float32).tobytes()
        self.weights.append(helper.make_tensor(name, TensorProto.FLOAT, shape, raw, raw=True))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def conv(self, x: str, out: int, size: int, channels: int = CHANNELS, group: int = 1, **more: Any) -> str:
        weight, bias = self.weight(out, channels // group, size, size), self.weight(out)
        return self.node("Conv", x, weight, bias, pads=[size // 2] * 4, group=group, **more)

    def batchnorm(self, x: str, channels: int = CHANNELS) -> str:
        shape = self.weight(channels, positive=True), self.weight(channels), self.weight(channels)
        return self.node("BatchNormalization", x, *shape, self.weight(channels, positive=True))

    def model(self, shape: list[int | str], *outputs: str) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        ys = [helper.make_tensor_value_info(o, TensorProto.FLOAT, ["N", *"abc"[: len(shape) - 1]]) for o in outputs]
        graph = helper.make_graph(self.nodes, "net", [x], ys, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def fused(model: onnx.ModelProto, *passes: Pass) -> Counter[str]:
    """The operators that are left, once the result was compared on two batches."""
    result = rewritten(load(model), passes, cannot_evaluate, growth=0)
    for batch in (1, 3):
        given = feed(model, {"N": batch})
        assert not differences(run(model, given), run(result.model, given), relative=1e-5)
    return Counter(n.op_type for n in result.model.graph.node)


@pytest.mark.parametrize("group", [1, 2, CHANNELS])
@pytest.mark.parametrize("stride", [1, 2])
def test_repvgg(group: int, stride: int) -> None:
    net, x = Net(), "x"
    for step in [stride, 1, 1]:
        branches = [net.batchnorm(net.conv(x, CHANNELS, size, group=group, strides=[step] * 2)) for size in (3, 1)]
        total = net.node("Add", *branches)
        total = net.node("Add", total, net.batchnorm(x)) if step == 1 else total
        x = net.node("Relu", total)
    left = fused(net.model(["N", CHANNELS, 9, 9], x), FuseLinear(), FuseSum())
    assert left == {"Conv": 3, "Relu": 3}


def test_large_kernels_beside_small_ones() -> None:
    """RepLKNet: depthwise 7×7, 5×5 and 3×3, with the input itself."""
    net = Net()
    terms = [net.conv("x", CHANNELS, size, group=CHANNELS) for size in (3, 7, 5)]
    total = net.node("Sum", "x", *terms)
    assert fused(net.model(["N", CHANNELS, 9, 9], total), FuseSum()) == {"Conv": 1}


def test_what_may_go_together_goes_where_not_all_may() -> None:
    """Dense 3×3 and 1×1 become one, the depthwise 5×5 stays: a dense 5×5 would multiply more."""
    net = Net()
    terms = [net.conv("x", CHANNELS, 3), net.conv("x", CHANNELS, 5, group=CHANNELS), net.conv("x", CHANNELS, 1)]
    total = net.node("Add", net.node("Add", terms[0], terms[1]), terms[2])
    assert fused(net.model(["N", CHANNELS, 9, 9], total), FuseSum()) == {"Conv": 2, "Add": 1}


def test_a_bottleneck_without_activations() -> None:
    """1×1, 3×3, 1×1: widening pays, and so all are one 3×3."""
    net = Net()
    wide = net.conv("x", 4 * CHANNELS, 1)
    inner = net.node("Conv", wide, net.weight(CHANNELS, 4 * CHANNELS, 3, 3), strides=[2, 2])
    y = net.conv(inner, CHANNELS, 1)
    assert fused(net.model(["N", CHANNELS, 9, 9], y), FuseChain()) == {"Conv": 1}


def test_normalized_input_and_pre_activation() -> None:
    """Images are normalized before a Conv that does not pad; BatchNormalization stands before a 1×1 Conv."""
    net = Net()
    scaled = net.node("Div", net.node("Sub", "x", net.weight(1, CHANNELS, 1, 1)), net.weight(CHANNELS, 1, 1))
    a = net.node("Conv", scaled, net.weight(CHANNELS, CHANNELS, 3, 3))
    y = net.conv(net.batchnorm(net.node("Relu", a)), CHANNELS, 1)
    assert fused(net.model(["N", CHANNELS, 9, 9], y), FuseChain()) == {"Conv": 2, "Relu": 1}


def test_batchnorm_after_a_concat_of_branches() -> None:
    net = Net()
    branches = [net.conv("x", width, size) for width, size in ((4, 1), (8, 3), (2, 5))]
    y = net.node("Relu", net.batchnorm(net.node("Concat", *branches, axis=1), 14))
    left = fused(net.model(["N", CHANNELS, 9, 9], y), FuseChain())
    assert left == {"Conv": 3, "Concat": 1, "Relu": 1}


def test_chains_of_many_terms_take_no_longer_than_they_are() -> None:
    net, total = Net(), "x"
    for _ in range(2000):
        total = net.node("Add", total, "x")
    assert fused(net.model(["N", 2], total), FuseSum()) == {"Add": 2000}


def inception(channels: int, size: int) -> onnx.ModelProto:
    net = Net()
    parts = [net.node("Relu", net.conv("x", width, 1, channels)) for width in (2, 3, 2)]
    ends = [parts[0], net.conv(parts[1], 2, 3, 3), net.conv(parts[2], 2, 5, 2)]
    return net.model(["N", channels, size, size], *ends)


def test_narrow_branches_of_many_channels_read_them_once() -> None:
    left = fused(inception(512, 14), FuseParallel())
    assert left == {"Conv": 3, "Relu": 1, "Split": 1}


def test_branches_of_few_channels_are_not_worth_a_copy() -> None:
    assert fused(inception(4, 14), FuseParallel()) == {"Conv": 5, "Relu": 3}


def test_the_target_sets_the_price(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where starting a node costs nothing, nothing is gained by fewer of them."""
    net = Net()
    parts = [net.node("Add", net.node("MatMul", "x", net.weight(4, 4)), net.weight(4)) for _ in range(3)]
    model = net.model(["N", 2, 4], *parts)
    assert fused(model, FuseParallel()) == {"MatMul": 1, "Add": 1, "Split": 1}
    free = Context(cannot_evaluate, None).target  # type: ignore[arg-type]
    monkeypatch.setattr(type(free), "price", lambda _self, macs, moved, _nodes: macs + moved)
    assert fused(model, FuseParallel()) == {"MatMul": 3, "Add": 3}
