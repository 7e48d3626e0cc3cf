"""What belongs to others and must come back: ports, overridable weights, metadata, and everything around the graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.corpus.case import Valid, graph, tensor

__all__ = ["CASES"]

_N = {"N": (2, 3)}


def _changed(text: str, change: Callable[[onnx.ModelProto], object], **frame: int) -> Callable[[], onnx.ModelProto]:
    def build() -> onnx.ModelProto:
        model = graph(text, **frame)
        change(model)
        return model

    return build


def _weights(**arrays: object) -> Callable[[onnx.ModelProto], None]:
    return lambda model: model.graph.initializer.extend(tensor(n, a) for n, a in arrays.items())


def _described(model: onnx.ModelProto) -> None:
    model.producer_name, model.producer_version, model.domain = "somebody", "1.2", "some.where"
    model.model_version, model.doc_string = 7, "what it is for"
    model.metadata_props.add(key="license", value="a\nb")
    model.metadata_props.add(key="", value="")
    model.graph.doc_string = "a graph"
    for port in (*model.graph.input, *model.graph.output):
        port.doc_string = f"the port {port.name}"
        port.metadata_props.add(key="unit", value="volt")
        port.type.denotation = "IMAGE"
        port.type.tensor_type.shape.dim[1].denotation = "DATA_CHANNEL"


def _annotated(model: onnx.ModelProto) -> None:
    _weights(w=[1, 2, 3, 4])(model)
    model.graph.initializer.extend([tensor("s", 0.5), tensor("z", 0, np.uint8)])
    note = model.graph.quantization_annotation.add(tensor_name="a")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    note.quant_parameter_tensor_names.add(key="ZERO_POINT_TENSOR", value="z")


def _trained(model: onnx.ModelProto) -> None:
    _weights(w=[1, 2, 3, 4])(model)
    step = model.training_info.add()
    step.algorithm.name = "step"
    step.algorithm.node.append(helper.make_node("Neg", ["w"], ["v"]))
    step.algorithm.output.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, [4]))
    step.update_binding.add(key="w", value="v")


def _sparse(model: onnx.ModelProto) -> None:
    index = TensorProto(dims=[2], data_type=7, int64_data=[1, 3])
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(dims=[4], values=tensor("w", [2, 3]), indices=index))


def _sparse_constant(model: onnx.ModelProto) -> None:
    index = tensor("", [0, 2], np.int64)
    value = onnx.SparseTensorProto(dims=[4], values=tensor("", [2, 3]), indices=index)
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], sparse_value=value))


def _sparse_pairs(model: onnx.ModelProto) -> None:
    index = TensorProto(dims=[2, 2], data_type=7, int64_data=[0, 1, 3, 3])
    model.graph.sparse_initializer.append(
        onnx.SparseTensorProto(dims=[4, 4], values=tensor("w", [2, 3]), indices=index)
    )


_TEXTS: dict[str, tuple[str, str]] = {
    "unused_input": ("an input that nothing reads is an input", "g (float[N,4] x, float[M] u) => (float[N,4] y) { y = Relu(x) }"),
    "input_is_output": ("an input that is an output keeps its name", "g (float[N,4] x) => (float[N,4] x, float[N,4] y) { a = Relu(x) y = Relu(a) }"),
    "output_through_identity": ("what an Identity hands through keeps its name", "g (float[N,4] x) => (float[N,4] y) { y = Identity(x) }"),
    "output_through_identities": ("the same twice", "g (float[N,4] x) => (float[N,4] y, float[N,4] z) { a = Relu(x) y = Identity(a) z = Identity(a) }"),
    "output_is_intermediate": ("ORT 4110: an inner value is an output", "g (float[N,4] x) => (float[N,4] a, float[N,4] y) { a = Relu(x) y = Relu(a) }"),
    "output_of_chain": ("every value is an output", "g (float[N,4] x) => (float[N,4] a, float[4,N] b, float[N,4] y) { a = Neg(x) b = Transpose(a) y = Transpose(b) }"),
    "output_is_constant": ("SIM 79: a constant is an output", "g (float[N,4] x) => (float[N,4] y, float[2] k) { k = Constant <value = float[2] {1, 2}>() y = Relu(x) }"),
    "output_is_computed_constant": ("what is computed of constants is an output", "g (float[N,4] x) => (float[N,4] y, float[2] k) { a = Constant <value = float[2] {1, 2}>() k = Neg(a) y = Relu(x) }"),
    "output_is_initializer": ("an initializer is an output", "g (float[N,4] x) => (float[N,4] y, float[4] w) <float[4] w = {1, 2, 3, 4}> { y = Add(x, w) }"),
    "all_constant": ("OS 2810: nothing depends on any feed", "g () => (float[2] y) { a = Constant <value = float[2] {1, 2}>() y = Neg(a) }"),
    "no_inputs": ("a graph without inputs", "g () => (float[2] y) <float[2] w = {1, 2}> { y = Relu(w) }"),
    "outputs_equal": ("two outputs of one value", "g (float[N,4] x) => (float[N,4] y, float[N,4] z) { y = Relu(x) z = Relu(x) }"),
    "outputs_in_order": ("outputs in another order than nodes", "g (float[N,4] x) => (float[N,4] c, float[N,4] a, float[N,4] b) { a = Relu(x) b = Neg(a) c = Abs(b) }"),
    "inputs_in_order": ("inputs in another order than they are read", "g (float[N,4] z, float[N,4] a, float[N,4] m) => (float[N,4] y) { b = Sub(m, z) y = Sub(b, a) }"),
    "overridable": ("ORT 32143: a feed may override a weight", "g (float[N,4] x, float[4] w) => (float[N,4] y) <float[4] w = {1, 1, 1, 1}> { y = Mul(x, w) }"),
    "overridable_zero": ("the same where the default does nothing", "g (float[N,4] x, float w) => (float[N,4] y) <float w = {0}> { y = Add(x, w) }"),
    "overridable_shape": ("the same for a shape", "g (float[N,4] x, int64[2] s) => (float[A,B] y) <int64[2] s = {-1, 4}> { y = Reshape(x, s) }"),
    "overridable_condition": ("the same for a condition", "g (float[N,4] x, bool c) => (float[N,4] y) <bool c = {1}> { y = If(c) <then_branch = t () => (float[N,4] p) { p = Neg(x) }, else_branch = e () => (float[N,4] q) { q = Abs(x) }> }"),
    "overridable_bias": ("the same for a bias", "g (float[N,4] x, float[4] b) => (float[N,4] y) <float[4,4] w = {1,0,0,0,0,2,0,0,0,0,3,0,0,0,0,4}, float[4] b = {0,0,0,0}> { a = MatMul(x, w) y = Add(a, b) }"),
    "overridable_twin": ("two of equal defaults are not one", "g (float[N,4] x, float[4] v, float[4] w) => (float[N,4] y) <float[4] v = {1,2,3,4}, float[4] w = {1,2,3,4}> { a = Mul(x, v) y = Add(a, w) }"),
    "overridable_unread": ("one that nothing reads", "g (float[N,4] x, float[4] w) => (float[N,4] y) <float[4] w = {1,2,3,4}> { y = Relu(x) }"),
    "symbols": ("symbols come back as they were", "g (float[batch,seq] x, float[batch,1] m) => (float[batch,seq] y) { y = Mul(x, m) }"),
    "symbols_unnamed": ("dimensions without a name stay unnamed", "g (float[?,4] x) => (float[?,4] y) { a = Relu(x) y = Relu(a) }"),
    "symbols_other_name": ("the output's dimension has a name of its own", "g (float[N,4] x) => (float[M,4] y) { a = Relu(x) y = Relu(a) }"),
    "symbols_strange": ("names of dimensions that look like sums", "g (float[N,4] x, float[M,4] z) => (float[N_M,4] y) { y = Concat <axis = 0>(x, z) }"),
    "rank_unknown": ("an output of unknown rank", "g (float[N,4] x) => (float[] y) { y = Reshape(x, s) } ".replace("{ y", "<int64[1] s = {-1}> { y")),
    "shape_too_wide": ("an output with open dimensions that are known", "g (float[2,4] x) => (float[A,B] y) { a = Relu(x) y = Relu(a) }"),
    "names_generated": ("OS 2947: names that look generated", "g (float[N,4] x) => (float[N,4] y) <float[4] b0 = {1,2,3,4}, float[4] val_0 = {1,1,1,1}> { x_1 = Add(x, b0) val_1 = Mul(x_1, val_0) x_2 = Relu(val_1) x_orig = Clip(x_2) y = Relu(x_orig) }"),
    "names_of_ports": ("names that others give to ports", "g (float[N,4] input) => (float[N,4] output) { output_1 = Relu(input) x = Relu(output_1) output = Neg(x) }"),
}  # fmt: skip

CASES = (
    *(Valid(f"interface_{n}", why, text, dims=_N | {"M": (2, 3), "batch": (2, 3), "seq": (4, 5)}) for n, (why, text) in _TEXTS.items()),
    Valid("interface_described", "all that can be said of a model", _changed("a = Identity(x) y = Relu(a)", _described), dims=_N),
    Valid("interface_annotated", "what a quantizer noted", _changed("a = Mul(x, w) b = Identity(a) y = Relu(b)", _annotated), dims=_N),
    Valid("interface_trained", "how it is trained", _changed("a = Mul(x, w) b = Identity(a) y = Relu(b)", _trained), dims=_N),
    Valid("interface_sparse", "sparse weights", _changed("a = Relu(x) b = Identity(a) y = Add(b, w)", _sparse), dims=_N),
    Valid("interface_sparse_constant", "of a node", _changed("a = Relu(x) b = Identity(a) y = Add(b, w)", _sparse_constant), dims=_N),
    Valid("interface_sparse_pairs", "the same with two axes", _changed("a = MatMul(x, w) y = Identity(a)", _sparse_pairs), dims=_N),
    Valid(
        "interface_ir_3",
        "before IR 4 weights are inputs too",
        _changed("g (float[N,4] x, float[4] w) => (float[N,4] y) { a = Mul(x, w) b = Identity(a) y = Relu(b) }", _weights(w=[1, 2, 3, 4]), opset=7, ir_version=3),
        dims=_N,
    ),
    Valid(
        "interface_unsorted",
        "nodes in any order",
        _changed("a = Relu(x) b = Neg(a) y = Abs(b)", lambda m: m.graph.node.reverse()),
        dims=_N,
    ),
    Valid(
        "interface_unicode",
        "names of all languages",
        _changed("g (float[N,4] x) => (float[N,4] y) { a = Relu(x) b = Relu(a) y = Neg(b) }", lambda m: _renamed(m, {"x": "输入 é", "y": "вы ход", "a": "🦔", "b": "e\u0301"})),
        dims=_N,
    ),
    Valid(
        "interface_paths",
        "names as torch and tensorflow give them",
        _changed("g (float[N,4] x) => (float[N,4] y) { a = Relu(x) b = Relu(a) y = Neg(b) }", lambda m: _renamed(m, {"x": "serving/x:0", "y": "/model/y.1", "a": "/a/b/c", "b": "../b"})),
        dims=_N,
    ),
)  # fmt: skip


def _renamed(model: onnx.ModelProto, names: dict[str, str]) -> None:
    for port in (*model.graph.input, *model.graph.output):
        port.name = names[port.name]
    for node in model.graph.node:
        node.input[:] = [names[i] for i in node.input]
        node.output[:] = [names[o] for o in node.output]
