"""Graphs that break a rule of the format: cycles, names, arity, attributes, types, and functions without end."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import onnx
from onnx import TensorProto, helper

from tests.corpus.case import Hostile, graph, model_of, tensor

__all__ = ["CASES"]

_X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
_Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])


def _changed(text: str, change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    model = graph(text)
    change(model)
    return model


def _branch(then: str, other: str = "() => (float[N,4] q) { q = Abs(x) }", behind: str = "") -> str:
    return f"""g (bool c, float[N,4] x) => (float[N,4] y) {{
      {behind or "y"} = If(c) <then_branch = t {then}, else_branch = e {other}>
    }}"""


def _with_attribute(**fields: object) -> onnx.ModelProto:
    """A Softmax with an attribute put together by hand."""
    return _changed("y = Softmax(x)", lambda m: m.graph.node[0].attribute.append(onnx.AttributeProto(**fields)))  # type: ignore[arg-type]


def _branches(levels: int) -> onnx.ModelProto:
    """If in If, as deep as protobuf can carry."""
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["r"])], "b", [], [_named("r")])
    for level in range(levels):
        node = helper.make_node("If", ["c"], [f"o{level}"], then_branch=body, else_branch=body)
        if level > 5:  # 2 to the 5th branches are enough; from here on one of the two is short
            short = helper.make_graph([helper.make_node("Abs", ["x"], [f"s{level}"])], "s", [], [_named(f"s{level}")])
            node = helper.make_node("If", ["c"], [f"o{level}"], then_branch=body, else_branch=short)
        body = helper.make_graph([node], f"b{level}", [], [_named(f"o{level}")])
    top = onnx.NodeProto()
    top.CopyFrom(body.node[0])
    top.output[0] = "y"
    return model_of([top], inputs=[_X, helper.make_tensor_value_info("c", TensorProto.BOOL, [])])


def _named(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4])


def _twice(field: str) -> onnx.ModelProto:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(tensor("w", [1, 2, 3, 4]))
        items = getattr(model.graph, field)
        items.append(items[-1])

    return _changed("y = Add(x, w)", change)


# -- functions -------------------------------------------------------------------------------------------------------


def _functions(
    bodies: dict[str, list[onnx.NodeProto]], call: str = "f0", domains: tuple[str, ...] = ("", "f")
) -> onnx.ModelProto:
    """A model that calls `call`; each function takes a and gives b."""
    model = model_of([helper.make_node(call, ["x"], ["y"], domain="f")])
    model.opset_import.add(domain="f", version=1)
    imports = [helper.make_opsetid(d, 21 if not d else 1) for d in domains]
    model.functions.extend(helper.make_function("f", n, ["a"], ["b"], body, imports) for n, body in bodies.items())
    return model


def _call(name: str, given: str = "a", result: str = "b") -> onnx.NodeProto:
    return helper.make_node(name, [given], [result], domain="f")


_RELU = helper.make_node("Relu", ["a"], ["b"])


def _laughs(levels: int, times: int = 2, *, in_branch: bool = False) -> onnx.ModelProto:
    """Functions each of which calls the next one several times."""
    bodies = {f"f{levels}": [_RELU]}
    for level in range(levels):
        names = ["a", *(f"t{i}" for i in range(1, times)), "b"]
        calls = [_call(f"f{level + 1}", *pair) for pair in itertools.pairwise(names)]
        if in_branch:
            body = helper.make_graph(calls, "t", [], [_named("b")])
            plain = helper.make_graph([helper.make_node("Abs", ["a"], ["e"])], "e", [], [_named("e")])
            always = helper.make_node("Constant", [], ["k"], value=tensor("", True, bool))
            calls = [always, helper.make_node("If", ["k"], ["b"], then_branch=body, else_branch=plain)]
        bodies[f"f{level}"] = calls
    return _functions(bodies)


def _chain(length: int) -> onnx.ModelProto:
    return _functions({f"f{i}": [_call(f"f{i + 1}")] for i in range(length)} | {f"f{length}": [_RELU]})


def _recursion_in_branch() -> onnx.ModelProto:
    body = helper.make_graph([_call("f0", "a", "r")], "t", [], [_named("r")])
    other = helper.make_graph([helper.make_node("Abs", ["a"], ["e"])], "e", [], [_named("e")])
    size = helper.make_node("ReduceSum", ["a"], ["s"], keepdims=0)
    cond = helper.make_node("Cast", ["s"], ["k"], to=TensorProto.BOOL)
    return _functions({"f0": [size, cond, helper.make_node("If", ["k"], ["b"], then_branch=body, else_branch=other)]})


def _same_function_twice() -> onnx.ModelProto:
    model = _functions({"f0": [_RELU]})
    model.functions.append(model.functions[0])
    model.functions[1].node[0].op_type = "Neg"
    return model


def _function(change: Callable[[onnx.FunctionProto], object]) -> onnx.ModelProto:
    model = _functions({"f0": [_RELU]})
    change(model.functions[0])
    return model


def _with_reference(function: onnx.FunctionProto) -> None:
    function.attribute.append("k")
    function.node[0].attribute.add(name="axis", ref_attr_name="k", type=2)


_NODES: dict[str, tuple[str, str]] = {
    "slice_without_axes": (
        "starts that are no list",
        "g (float[N,4] x) => (float[N,4] y) <int64 s = {0}, int64[1] e = {4}> { y = Slice(x, s, e) }",
    ),
    "cycle": ("two nodes wait for each other", "a = Add(x, b) b = Neg(a) y = Relu(b)"),
    "cycle_of_one": ("a node waits for itself", "y = Add(x, y)"),
    "dangling": ("a name that nothing computes", "y = Add(x, nowhere)"),
    "computed_twice": ("two nodes give one name", "a = Relu(x) a = Neg(x) y = Abs(a)"),
    "computes_its_input": ("a node gives the graph's input", "x = Relu(x) y = Abs(x)"),
    "output_missing": ("the output is not computed", "a = Relu(x)"),
    "outputs_twice": ("one node gives a name twice", "y, y = Split <num_outputs = 2, axis = 1>(x)"),
    "inputs_too_many": ("too many inputs", "y = Relu(x, x)"),
    "inputs_too_few": ("too few inputs", "y = Add(x)"),
    "inputs_none": ("no inputs", "y = Relu()"),
    "outputs_too_many": ("too many outputs", "y, z = Relu(x)"),
    "operator_unknown": ("an operator that does not exist", "y = NoSuchOperator(x)"),
    "operator_of_ml_unknown": ("one of a known domain", "y = ai.onnx.ml.NoSuchOperator(x)"),
    "operator_of_runtime_unknown": ("one that the runtime might have", "y = com.microsoft.NoSuchOperator(x)"),
    "attribute_unknown": ("an attribute that does not exist", "y = Relu <nosuch = 1>(x)"),
    "attribute_of_other_type": ("a float for an integer", "y = Softmax <axis = 1.5>(x)"),
    "attribute_list": ("a list for an integer", "y = Softmax <axis = [1, 1]>(x)"),
    "attribute_missing": ("an attribute that has to be there", "y = Cast(x)"),
    "axis_outside": ("an axis that is not there", "y = Softmax <axis = 7>(x)"),
    "perm_repeats": ("an axis twice", "y = Transpose <perm = [0, 0]>(x)"),
    "perm_outside": ("an axis that is not there", "y = Transpose <perm = [0, 900]>(x)"),
    "cast_to_nothing": ("a type that does not exist", "y = Cast <to = 999>(x)"),
    "types_disagree": ("a float and an integer", "i = Cast <to = 7>(x) y = Add(x, i)"),
    "einsum_garbage": ("no equation", 'y = Einsum <equation = "ij->->k">(x)'),
    "einsum_endless": ("an overlong equation", f'y = Einsum <equation = "{"i" * 4000}->i">(x)'),
    "constant_of_nothing": ("a Constant without contents", "a = Constant() y = Add(x, a)"),
    "constant_of_two": (
        "a Constant of two contents",
        "a = Constant <value_int = 1, value_float = 1.0>() y = Add(x, a)",
    ),
}

_BRANCHES: dict[str, tuple[str, str]] = {
    "body_dangling": ("a name that nothing computes", _branch("() => (float[N,4] p) { p = Add(x, nowhere) }")),
    "body_reads_other": ("it reads what the other branch computes", _branch("() => (float[N,4] p) { p = Neg(q) }")),
    "body_reads_later": (
        "it reads what comes later",
        """g (bool c, float[N,4] x) => (float[N,4] y, float[N,4] z) {
        y = If(c) <then_branch = t () => (float[N,4] p) { p = Neg(z) }, else_branch = e () => (float[N,4] q) { q = Abs(x) }>
        z = Relu(y) }""",
    ),
    "body_outputs_differ": (
        "one branch gives two values",
        _branch("() => (float[N,4] p, float[N,4] r) { p = Neg(x) r = Relu(x) }"),
    ),
    "body_output_missing": ("it gives what it does not compute", _branch("() => (float[N,4] p) { r = Neg(x) }")),
    "body_output_is_outer": ("it gives an outer value", _branch("() => (float[N,4] x) { r = Neg(x) }")),
    "body_with_inputs": ("a branch that takes something", _branch("(float[N,4] k) => (float[N,4] p) { p = Neg(k) }")),
    "body_missing": (
        "an If without else",
        "g (bool c, float[N,4] x) => (float[N,4] y) { y = If(c) <then_branch = t () => (float[N,4] p) { p = Neg(x) }> }",
    ),
    "loop_body_arity": (
        "a body that takes too little",
        """g (int64 n, float[N,4] x) => (float[N,4] y) {
        y = Loop(n, , x) <body = b (int64 i) => (float[N,4] o) { o = Relu(x) }> }""",
    ),
    "loop_body_empty": (
        "a body of nothing",
        "g (int64 n, float[N,4] x) => (float[N,4] y) { y = Loop(n, , x) <body = b () => () { }> }",
    ),
    "scan_inputs_lie": (
        "more scanned inputs than inputs",
        """g (float[N,4] x) => (float[N,4] y) { y = Scan(x) <num_scan_inputs = 9223372036854775807,
        body = b (float[4] i) => (float[4] o) { o = Relu(i) }> }""",
    ),
    "scan_inputs_negative": (
        "a negative number of them",
        """g (float[N,4] x) => (float[N,4] y) { y = Scan(x) <num_scan_inputs = -1,
        body = b (float[4] i) => (float[4] o) { o = Relu(i) }> }""",
    ),
    "sequence_as_tensor": (
        "a sequence where a tensor belongs",
        "g (seq(float[N]) s) => (float[N] y) { y = Relu(s) }",
    ),
}

_FUNCTIONS: dict[str, tuple[str, onnx.ModelProto]] = {
    "recursion": ("a function calls itself", _functions({"f0": [_call("f0")]})),
    "recursion_mutual": ("two call each other", _functions({"f0": [_call("f1")], "f1": [_call("f0")]})),
    "recursion_in_branch": ("it calls itself in a branch", _recursion_in_branch()),
    "recursion_idle": (
        "functions that nobody calls do",
        _functions({"f0": [_RELU], "f1": [_call("f2")], "f2": [_call("f1")]}),
    ),
    "laughs": ("2 to the 30th nodes, at which the official checker hangs", _laughs(30)),
    "laughs_many": ("2 to the 200th, beyond any number of 64 bits", _laughs(200)),
    "laughs_wide": ("10 to the 6th by calling ten times", _laughs(7, 10)),
    "laughs_in_branches": ("the same inside branches", _laughs(30, in_branch=True)),
    "missing": ("a call of a function that is not there", _functions({"f1": [_RELU]})),
    "inner_missing": ("a function calls one that is not there", _functions({"f0": [_call("f9")]})),
    "reads_outside": (
        "it reads the graph of its caller",
        _functions({"f0": [helper.make_node("Add", ["a", "x"], ["b"])]}),
    ),
    "output_missing": ("it does not compute its output", _functions({"f0": [helper.make_node("Relu", ["a"], ["c"])]})),
    "cycle": ("a cycle in it", _functions({"f0": [helper.make_node("Add", ["a", "b"], ["b"])]})),
    "inputs_twice": ("an input twice", _function(lambda f: f.input.append("a"))),
    "without_opset": ("no opset of its own", _function(lambda f: f.ClearField("opset_import"))),
    "attribute_without_value": (
        "an attribute that no caller gives",
        _function(_with_reference),
    ),
}

_RUNTIME = {
    "attribute_list",
    "axis_outside",
    "body_outputs_differ",
    "body_with_inputs",
    "cast_to_nothing",
    "constant_of_nothing",
    "constant_of_two",
    "einsum_endless",
    "einsum_garbage",
    "loop_body_arity",
    "loop_body_empty",
    "operator_of_runtime_unknown",
    "perm_outside",
    "perm_repeats",
    "scan_inputs_lie",
    "scan_inputs_negative",
    "slice_without_axes",
    "sequence_as_tensor",
    "types_disagree",
}
"""What the structure alone does not show."""

CASES = (
    *(Hostile(f"graph_{n}", why, text, blind=n in _RUNTIME) for n, (why, text) in (_NODES | _BRANCHES).items()),
    *(
        Hostile(f"function_{n}", why, model, passes=n == "recursion_idle", blind=n in {"missing", "inner_missing"})
        for n, (why, model) in _FUNCTIONS.items()
    ),
    Hostile("function_chain", "a chain of 3000: recursion in whoever follows it", _chain(3000), passes=True),
    Hostile("function_twice", "two of one name that differ", _same_function_twice(), passes=True),
    Hostile("function_few_levels", "2 to the 9th nodes, which is still possible", _laughs(9), passes=True),
    Hostile("graph_deep_branches", "If in If, 24 deep", _branches(24), passes=True),
    Hostile("graph_initializer_twice", "an initializer twice", _twice("initializer")),
    Hostile("graph_input_twice", "an input twice", _twice("input")),
    Hostile("graph_output_twice", "an output twice", _twice("output"), passes=True),
    Hostile(
        "graph_without_name", "no name", _changed("y = Relu(x)", lambda m: m.graph.ClearField("name")), passes=True
    ),
    Hostile(
        "graph_without_outputs",
        "no outputs",
        _changed("y = Relu(x)", lambda m: m.graph.ClearField("output")),
        passes=True,
    ),
    Hostile(
        "graph_input_untyped",
        "an input without a type",
        _changed("y = Relu(x)", lambda m: m.graph.input[0].ClearField("type")),
    ),
    Hostile(
        "graph_input_unnamed",
        "an input without a name",
        _changed("y = Relu(x)", lambda m: m.graph.input[0].ClearField("name")),
    ),
    Hostile(
        "graph_output_untyped",
        "an output without a type",
        _changed("y = Relu(x)", lambda m: m.graph.output[0].ClearField("type")),
        passes=True,
    ),
    Hostile(
        "graph_operator_unnamed",
        "an operator of no name",
        _changed("y = Relu(x)", lambda m: m.graph.node[0].ClearField("op_type")),
    ),
    Hostile("graph_node_empty", "a node of nothing", _changed("y = Relu(x)", lambda m: m.graph.node.add())),
    Hostile(
        "graph_rank_lies",
        "the output has another rank",
        "g (float[N,4] x) => (float[4] y) { y = Relu(x) }",
        passes=True,
    ),
    Hostile(
        "graph_shape_lies",
        "the output has another shape",
        "g (float[3,4] x) => (float[5,4] y) { y = Relu(x) }",
        passes=True,
    ),
    Hostile(
        "graph_type_lies",
        "the output has another type",
        "g (float[3,4] x) => (int64[3,4] y) { y = Relu(x) }",
        blind=True,
    ),
    Hostile(
        "graph_inner_shape_lies",
        "what is said of an inner value is not true",
        "g (float[3,4] x) => (float[A,B] y) <float[7,9] a> { a = Relu(x) s = Shape(a) y = Reshape(x, s) }",
        passes=True,
    ),
    Hostile(
        "graph_inner_rank_lies",
        "the same of its rank",
        "g (float[3,4] x) => (float[A] y) <float[12] a> { a = Relu(x) y = Identity(a) }",
        passes=True,
    ),
    Hostile(
        "attribute_extreme",
        "a number whose negative does not exist",
        "y = Softmax <axis = -9223372036854775808>(x)",
        passes=True,
    ),
    Hostile(
        "attribute_reference", "a reference where there is no function", "y = Softmax <axis : int = @k>(x)", passes=True
    ),
    Hostile("attribute_unnamed", "an attribute of no name", _with_attribute(type=2, i=1)),
    Hostile("attribute_untyped", "an attribute of no type", _with_attribute(name="axis", i=1), passes=True),
    Hostile(
        "attribute_two_contents",
        "an attribute of two contents",
        _with_attribute(name="axis", type=2, i=1, f=2.0),
        passes=True,
    ),
    Hostile(
        "attribute_wrong_field",
        "an integer that holds a text",
        _with_attribute(name="axis", type=2, s=b"1"),
        passes=True,
    ),
    Hostile("attribute_type_unknown", "a type beyond the list", _with_attribute(name="axis", i=1, type=0), passes=True),
)
