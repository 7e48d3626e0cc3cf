"""What is learned of types and shapes, and what is not believed."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from graphopt.graph import shapes, values
from graphopt.graph.nodes import graphs
from graphopt.graph.save import serialize
from tests.support.models import parse, show, source


def known(model: ir.Model) -> dict[str, str]:
    return {str(v.name): f"{v.dtype}{v.shape}" for g in graphs(model) for n in g for v in n.outputs}


def test_symbols_are_followed() -> None:
    model = source("g (float[N,3] x) => (float[3,N] y) { a = Relu (x) y = Transpose <perm = [1, 0]> (a) }").model
    assert known(model) == {"a": "FLOAT[N,3]", "y": "FLOAT[3,N]"}


def test_values_of_shapes_are_followed() -> None:
    model = source("""g (float[N,3,4] x) => (float[N,12] y) <int64[1] i = {0}, int64[1] rest = {12}> {
      s = Shape (x)
      n = Gather (s, i)
      t = Concat <axis = 0> (n, rest)
      a = Reshape (x, t)
      y = Relu (a)
    }""").model
    assert known(model)["a"] == "FLOAT[N,12]"


def test_bodies_are_entered() -> None:
    model = source("""g (bool c, float[N,3] x) => (float[N,3] y) {
      y = If (c) <
        then_branch = t () => (float[N,3] p) { a = Neg (x) p = Relu (a) },
        else_branch = e () => (float[N,3] q) { q = Abs (x) }
      >
    }""").model
    assert known(model)["a"] == "FLOAT[N,3]"


def test_the_declared_interface_is_left_as_it_is() -> None:
    text = "g (float[N,3] x) => (float[P,Q] y) { y = Relu (x) }"
    given = source(text)
    assert known(given.model)["y"] == "FLOAT[N,3]"
    assert show(onnx.ModelProto.FromString(serialize(given.model, given.carried))) == show(parse(text))


def test_extents_that_nobody_knows_are_not_taken_for_equal() -> None:
    model = source("""g (float[N] x) => (int64[1,K] y, int64[1,L] z) {
      a = NonZero (x)
      b = NonZero (x)
      y = Neg (a)
      z = Neg (b)
    }""").model
    assert known(model)["a"] != known(model)["b"]
    assert known(model)["a"] == known(model)["y"]


def test_what_a_file_says_of_inner_values_is_not_believed() -> None:
    model = source("""g (float[N,2] x) => (float[N,2] y) <float[5,2] a, int64[7] b> {
      a = Relu (x)
      b = Cast <to = 7> (x)
      y = Neg (a)
    }""").model
    assert known(model)["a"] == "FLOAT[N,2]"
    assert known(model)["b"] == "INT64[N,2]"


def test_a_shape_that_contradicts_itself_is_no_obstacle() -> None:
    model = ir.from_proto(parse("g (float[2,3] x, float[4,5] z) => (float[P,Q] y) { y = MatMul (x, z) }"))
    values.follow(model)
    assert model.graph.outputs[0].dtype is ir.DataType.FLOAT


def test_one_node() -> None:
    model = source(
        "g (float[N,4] x) => (float[N,2] y) <int64[2] s = {-1, 2}> { a = Relu (x) y = Reshape (a, s) }"
    ).model
    given = model.graph.inputs[0]
    node = ir.node("Reshape", [given, model.graph.initializers["s"]], name="new")
    node.outputs[0].name = "new"
    shapes.infer_node(node, model)
    assert node.outputs[0].dtype is ir.DataType.FLOAT
    assert node.outputs[0].shape is not None
    assert node.outputs[0].shape[1] == 2


def test_one_node_of_which_nothing_is_known() -> None:
    model = source("g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }").model
    for op, domain in (("NoSuchOperator", ""), ("Op", "mine")):
        node = ir.node(op, [model.graph.inputs[0]], domain=domain, name="new")
        shapes.infer_node(node, model)
        assert node.outputs[0].type is None


def test_large_weights_are_not_in_the_skeleton() -> None:
    proto = parse("g (float[N,600] x) => (float[N,600] y) <float[600] w, float[2] v = {1, 2}> { y = Mul (x, w) }")
    del proto.graph.value_info[:]
    proto.graph.initializer.append(onnx.TensorProto(name="w", dims=[600], data_type=1, raw_data=bytes(2400)))
    bare = shapes.skeleton(ir.from_proto(proto))
    assert [t.name for t in bare.graph.initializer] == ["v"]
    assert [i.name for i in bare.graph.input] == ["x", "w"]
    onnx.checker.check_model(bare)


def test_vectors_of_unbelievable_length_are_not_held() -> None:
    text = """g (float[N] x) => (float[N] y)
    <int64[1] s = {1000000}, int64[1] t = {1000000}, int64[1] f = {0}> {
      product = Mul (s, t)
      a = ConstantOfShape (product)
      b = Gather (a, f)
      c = Add (a, a)
      d = Concat <axis = 0> (a, c)
      y = Add (x, b)
    }"""
    model = source(text).model
    assert known(model)["b"] == "FLOAT[1]"


def test_a_type_that_an_operator_does_not_take_tells_nothing() -> None:
    given = source("agraph (float[2] x) => (bool[2] y) { y = And(x, x) }")
    assert given.model.graph.outputs[0].type is not None
