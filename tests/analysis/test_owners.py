"""Owners of nodes and weights, as exporters tell them."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from rich.console import Console

import graphopt
from graphopt.analysis.owners import largest, owner
from graphopt.graph.load import load
from graphopt.report import table
from tests.end_to_end.support import MODELS
from tests.support.models import parse


def node(name: str = "", **notes: str) -> ir.Node:
    found = ir.node("MatMul", [])
    found.name = name
    found.metadata_props.update({k.replace("scopes", "pkg.torch.onnx.name_scopes"): v for k, v in notes.items()})
    return found


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/encoder/layers.0/fc1/MatMul", "encoder.layers.0.fc1"),
        ("/features/features.1/conv/conv.0/conv.0.2/Constant_1", "features.1.conv.0.2"),
        ("/blocks/blocks.0/body/body.0/Conv", "blocks.0.body.0"),
        ("/conv/conv/Conv", "conv.conv"),
        ("/layer/layers/Conv", "layer.layers"),
        ("/head/fc/Gemm/MatMul", "head.fc"),
        ("/head/fc/Gemm_2/MatMul/Add_1", "head.fc"),
        ("/MatMul_3", None),
        ("/", None),
        ("conv/Conv", None),
        ("Conv_12", None),
        ("", None),
    ],
)
def test_torchscript_names_nodes_by_their_path(name: str, path: str | None) -> None:
    assert owner(node(name)) == path


@pytest.mark.parametrize(
    ("notes", "path"),
    [
        ({"scopes": "['', 'head', 'head.1', 'linear']"}, "head.1"),
        ({"scopes": "['', 'trunk.0@1', 'conv2d']"}, "trunk.0"),
        ({"scopes": "['', 'cond']"}, None),
        ({"scopes": "[]", "namespace": ": a.Net/head: b.Sequential/head.1: c.Linear/linear: aten.linear"}, "head.1"),
        ({"scopes": "['', 'head', ", "namespace": ": a.Net/fc: c.Linear/linear: aten.linear"}, "fc"),
        ({"scopes": "__import__('os')"}, None),
        ({"scopes": "[" * 5000}, None),
        ({"scopes": "[1, 2, 3]"}, None),
        ({"namespace": ""}, None),
    ],
)
def test_torch_export_notes_scopes(notes: dict[str, str], path: str | None) -> None:
    assert owner(node(**notes)) == path


def test_a_weight_belongs_to_what_its_name_or_its_reader_says() -> None:
    model = load(
        parse("""g (float[2,4] x) => (float[2,4] y)
        <float[4,4] "onnx::MatMul_7" = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16},
         float[4] "layers.0.fc.bias" = {1,2,3,4}, float other = {1}> {
          ["/layers.0/fc/MatMul"] a = MatMul (x, "onnx::MatMul_7")
          ["/bn/Add"] b = Add (a, "layers.0.fc.bias")
          k = Constant <value = float[2] {1, 2}> ()
          [plain] c = Mul (b, other)
          s = ReduceSum (k)
          y = Add (c, s)
        }""")
    ).model
    assert [(w.name, w.owner, w.shape, w.bytes) for w in largest(model)] == [
        ("onnx::MatMul_7", "layers.0.fc", (4, 4), 64),
        ("layers.0.fc.bias", "layers.0.fc", (4,), 16),
        ("k", None, (2,), 8),
        ("other", None, (), 4),
    ]
    assert [w.name for w in largest(model, 1)] == ["onnx::MatMul_7"]


@pytest.mark.parametrize(
    ("name", "weight", "path"),
    [
        ("digits_vit", "layers.0.mlp.0.weight", "layers.0.mlp.0"),
        ("digits_mobilenet", "last.0.weight", "last.0"),
        ("digits_resnet", "stem.0.weight", "stem.0"),
    ],
)
def test_inspect_lists_the_largest_weights(name: str, weight: str, path: str) -> None:
    (found,) = graphopt.inspect(MODELS / f"{name}.onnx")
    sizes = [w.bytes for w in found.weights]
    assert len(sizes) == 10
    assert sizes == sorted(sizes, reverse=True)
    assert all(w.owner for w in found.weights)
    assert {w.name: w.owner for w in largest(load(MODELS / f"{name}.onnx").model, 1000)}[weight] == path
    with (console := Console(width=200)).capture() as capture:
        console.print(table.inspect([found]))
    assert "largest weights" in capture.get()
    assert found.weights[0].name in capture.get()


@pytest.mark.parametrize("name", ["digits_vit", "digits_mobilenet"], ids=["torchscript", "torch.export"])
def test_nodes_of_exports_tell_the_owner_that_their_weights_are_named_after(name: str) -> None:
    model = load(MODELS / f"{name}.onnx").model
    pairs = [
        (owner(node), value.name.rpartition(".")[0])
        for node in model.graph
        for value in node.inputs
        if value is not None and value.is_initializer() and value.name and value.name.endswith(".weight")
    ]
    assert len(pairs) > 5
    assert all(told == named for told, named in pairs if told is not None)
    assert sum(told is not None for told, _ in pairs) > 5
