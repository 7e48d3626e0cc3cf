"""Two products with whatever attributes go together, in a row or in a sum: fused or not, the result is the same."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from graphopt.errors import InputError
from graphopt.fuse import FuseChain, FuseParallel, FuseSum
from graphopt.graph.load import load
from graphopt.targets import Target
from tests.support.models import cannot_evaluate, differences, feed, rewritten, run

CHANNELS = 4
LENGTH = 9


def tensor(name: str, shape: tuple[int, ...], seed: int) -> onnx.TensorProto:
    numbers = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return helper.make_tensor(name, TensorProto.FLOAT, shape, numbers.tobytes(), raw=True)


@st.composite
def conv(draw: st.DrawFn, name: str, source: str, seed: int) -> tuple[onnx.NodeProto, list[onnx.TensorProto]]:
    """A Conv of one spatial axis, four channels to four channels."""
    kernel, group = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 4]))
    attributes: dict[str, Any] = {"group": group, "strides": [draw(st.sampled_from([1, 1, 2]))]}
    match draw(st.sampled_from(["none", "pads", "same", "SAME_UPPER", "SAME_LOWER", "VALID"])):
        case "none":
            attributes["dilations"] = [draw(st.integers(1, 2))]
        case "same":
            attributes["pads"] = [(kernel - 1) // 2, kernel // 2]
        case "pads":
            attributes |= {"pads": [draw(st.integers(0, 2)), draw(st.integers(0, 2))], "dilations": [1]}
        case mode:
            attributes["auto_pad"] = mode
    weights = [tensor(f"{name}.w", (CHANNELS, CHANNELS // group, kernel), seed)]
    if draw(st.booleans()):
        weights.append(tensor(f"{name}.b", (CHANNELS,), seed + 1))
    return helper.make_node("Conv", [source, *(w.name for w in weights)], [name], **attributes), weights


def model(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], *outputs: str) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", CHANNELS, LENGTH])
    ys = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "C", "L"]) for name in outputs]
    graph = helper.make_graph(nodes, "g", [x], ys, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def assert_same(given_model: onnx.ModelProto) -> None:
    numbers = feed(given_model, {"N": 2})
    try:
        wanted = run(given_model, numbers)
    except InputError:
        assume(False)
    result = rewritten(load(given_model), [FuseChain(), FuseSum(), FuseParallel()], cannot_evaluate, growth=10**6)
    assert not differences(wanted, run(result.model, numbers), relative=1e-5), [str(e) for e in result.edits]


@settings(max_examples=200, deadline=None)
@given(conv("a", "x", 1), conv("y", "a", 3))
def test_in_a_row(first: tuple[Any, Any], second: tuple[Any, Any]) -> None:
    assert_same(model([first[0], second[0]], [*first[1], *second[1]], "y"))


# Results of two lengths cannot be added up, which is most of what is drawn.
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(conv("a", "x", 1), conv("b", "x", 3), st.sampled_from(["", "x", "bn"]), st.booleans(), st.booleans())
def test_in_a_sum(first: tuple[Any, Any], second: tuple[Any, Any], third: str, swap: bool, many: bool) -> None:  # noqa: FBT001
    weights = [*first[1], *second[1], *(tensor(n, (CHANNELS,), i) for i, n in enumerate("stmv"))]
    weights[-1] = helper.make_tensor("v", TensorProto.FLOAT, [CHANNELS], [1.0, 2.0, 3.0, 4.0])
    nodes = [first[0], second[0], helper.make_node("BatchNormalization", ["x", "s", "t", "m", "v"], ["bn"])]
    terms = ["b", "a", third] if swap else ["a", third, "b"]
    terms = [t for t in terms if t]
    if many:
        nodes.append(helper.make_node("Sum", terms, ["y"]))
    else:
        nodes.append(helper.make_node("Add", terms[:2], ["y" if len(terms) == 2 else "p"]))
        nodes += [helper.make_node("Add", ["p", terms[2]], ["y"])] if len(terms) > 2 else []
    assert_same(model(nodes if third == "bn" else nodes[:2] + nodes[3:], weights, "y"))


def again(one: tuple[onnx.NodeProto, list[onnx.TensorProto]], name: str, seed: int) -> tuple[Any, Any]:
    """The same Conv with other weights."""
    weights = [tensor(f"{name}.{w.name[-1]}", tuple(w.dims), seed) for w in one[1]]
    node = helper.make_node("Conv", ["x", *(w.name for w in weights)], [name])
    node.attribute.extend(one[0].attribute)
    return node, weights


@settings(max_examples=100, deadline=None)
@given(conv("a", "x", 1), conv("c", "x", 5), st.sampled_from(["Relu", "Tanh", "none"]))
def test_side_by_side(one: tuple[Any, Any], other: tuple[Any, Any], after: str) -> None:
    """At any price."""
    twin = again(one, "b", 3)
    nodes, outputs = [one[0], other[0], twin[0]], ["a", "b", "c"]
    if after != "none":
        nodes += [helper.make_node(after, [n], [f"{n}.y"]) for n in outputs]
        outputs = [f"{n}.y" for n in outputs]
    with patch.object(Target, "price", lambda _self, _macs, _bytes, nodes: -nodes):
        assert_same(model(nodes, [*one[1], *other[1], *twin[1]], *outputs))
