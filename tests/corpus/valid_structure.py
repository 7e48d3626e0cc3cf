"""Bodies, functions, other domains, chance, constants that compute, and old and new opsets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.corpus.case import Valid, graph, tensor

__all__ = ["CASES"]

_N = {"N": (2, 3)}
_F = "float[N,4]"


def _if(then: str, other: str, more: str = "", result: str = "y", tail: str = "") -> str:
    return f"""g (bool c, {_F} x) => ({_F} y) <{more}> {{
      {result} = If(c) <then_branch = t () => ({_F} p) {{ {then} }}, else_branch = e () => ({_F} q) {{ {other} }}> {tail}
    }}"""


_BODIES: dict[str, tuple[str, str]] = {
    "if": ("two branches", _if("a = Relu(x) b = Relu(a) p = Neg(b)", "q = Abs(x)")),
    "if_known": ("OS 2810: a condition that is known", f"g ({_F} x) => ({_F} y) <bool k = {{1}}> {{ y = If(k) <then_branch = t () => ({_F} p) {{ p = Neg(x) }}, else_branch = e () => ({_F} q) {{ q = Abs(x) }}> }}"),
    "if_known_initializer": ("SIM 452: its branch holds weights", f"g ({_F} x) => ({_F} y) <bool k = {{0}}> {{ y = If(k) <then_branch = t () => ({_F} p) {{ p = Neg(x) }}, else_branch = e () => ({_F} q) <float[4] w = {{1,2,3,4}}> {{ q = Add(x, w) }}> }}"),
    "if_computed": ("a condition computed from constants", f"g ({_F} x) => ({_F} y) <float l = {{1}}, float h = {{2}}> {{ k = Less(l, h) y = If(k) <then_branch = t () => ({_F} p) {{ p = Neg(x) }}, else_branch = e () => ({_F} q) {{ q = Abs(x) }}> }}"),
    "if_captures": ("branches read values from outside", _if("p = Add(a, w)", "q = Mul(a, w)", "float[4] w = {1,2,3,4}", "r", "y = Relu(r)").replace("r = If", "a = Tanh(x) r = If")),
    "if_only_use": ("ORT 7982: a weight that only a branch reads", _if("p = Add(x, w)", "q = Abs(x)", "float[4] w = {1,2,3,4}")),
    "if_same_names": ("both branches use one name", f"g (bool c, {_F} x) => ({_F} y) {{ y = If(c) <then_branch = t () => ({_F} p) {{ a = Neg(x) p = Relu(a) }}, else_branch = e () => ({_F} p) {{ a = Abs(x) p = Sqrt(a) }}> }}"),
    "if_shapes_differ": ("branches of other shapes", f"g (bool c, {_F} x) => (float[A,B] y) {{ y = If(c) <then_branch = t () => (float[N,4] p) {{ p = Neg(x) }}, else_branch = e () => (float[4,N] q) {{ q = Transpose(x) }}> }}"),
    "if_unused_output": ("one of two results is not read", f"g (bool c, {_F} x) => ({_F} y) {{ y, z = If(c) <then_branch = t () => ({_F} p, {_F} r) {{ p = Neg(x) r = Relu(x) }}, else_branch = e () => ({_F} q, {_F} s) {{ q = Abs(x) s = Tanh(x) }}> }}"),
    "if_nested": ("branches in branches that reach all the way out", _if(f"p = If(c) <then_branch = u () => ({_F} m) {{ m = Add(x, w) }}, else_branch = v () => ({_F} n) {{ n = Neg(x) }}>", "q = Abs(x)", "float[4] w = {1,2,3,4}")),
    "if_passes_through": ("a branch gives what it did not make", _if("p = Identity(x)", "q = Neg(x)")),
    "if_constant_results": ("branches of constants", "g (bool c) => (float[2] y) { y = If(c) <then_branch = t () => (float[2] p) { p = Constant <value = float[2] {1, 2}>() }, else_branch = e () => (float[2] q) { q = Constant <value = float[2] {3, 4}>() }> }"),
    "loop": ("a state goes round", f"g (int64 n, {_F} x) => ({_F} y) <bool t = {{1}}> {{ y = Loop(n, t, x) <body = b (int64 i, bool c, {_F} v) => (bool k, {_F} w) {{ k = Identity(c) a = Relu(v) w = Neg(a) }}> }}"),
    "loop_known": ("a number of rounds that is known", f"g ({_F} x) => ({_F} y, float[3,N,4] z) <int64 n = {{3}}, bool t = {{1}}> {{ y, z = Loop(n, t, x) <body = b (int64 i, bool c, {_F} v) => (bool k, {_F} w, {_F} s) {{ k = Identity(c) f = Cast <to = 1>(i) w = Add(v, f) s = Neg(v) }}> }}"),
    "loop_no_rounds": ("no rounds at all", f"g ({_F} x) => ({_F} y, float[A,N,4] z) <int64 n = {{0}}, bool t = {{1}}> {{ y, z = Loop(n, t, x) <body = b (int64 i, bool c, {_F} v) => (bool k, {_F} w, {_F} s) {{ k = Identity(c) w = Neg(v) s = Abs(v) }}> }}"),
    "loop_stops": ("its condition ends it", f"g ({_F} x) => ({_F} y) <int64 n = {{9}}, bool t = {{1}}, int64 m = {{2}}> {{ y = Loop(n, t, x) <body = b (int64 i, bool c, {_F} v) => (bool k, {_F} w) {{ k = Less(i, m) w = Neg(v) }}> }}"),
    "loop_without_condition": ("no condition", f"g (int64 n, {_F} x) => ({_F} y) {{ y = Loop(n, , x) <body = b (int64 i, bool c, {_F} v) => (bool k, {_F} w) {{ k = Identity(c) w = Neg(v) }}> }}"),
    "loop_grows": ("a state that changes its shape", "g (float[1] x) => (float[A] y) <int64 n = {3}, bool t = {1}> { y = Loop(n, t, x) <body = b (int64 i, bool c, float[K] v) => (bool k, float[L] w) { k = Identity(c) w = Concat <axis = 0>(v, v) }> }"),
    "loop_invariant": ("what is the same in every round", f"g (int64 n, {_F} x) => ({_F} y) <bool t = {{1}}, float[4] u = {{1,2,3,4}}> {{ y = Loop(n, t, x) <body = b (int64 i, bool c, {_F} v) => (bool k, {_F} w) {{ k = Identity(c) a = Neg(u) d = Exp(a) w = Add(v, d) }}> }}"),
    "loop_state_kept": ("a state that never changes", f"g (int64 n, {_F} x) => ({_F} y, {_F} z) <bool t = {{1}}> {{ y, z = Loop(n, t, x, x) <body = b (int64 i, bool c, {_F} v, {_F} o) => (bool k, {_F} w, {_F} o2) {{ k = Identity(c) w = Neg(v) o2 = Identity(o) }}> }}"),
    "scan": ("row by row", f"g ({_F} x) => (float[4] y, {_F} z) <float[4] s = {{0,0,0,0}}> {{ y, z = Scan(s, x) <num_scan_inputs = 1, body = b (float[4] v, float[4] i) => (float[4] w, float[4] o) {{ w = Add(v, i) o = Relu(w) }}> }}"),
    "scan_reversed": ("from the end", f"g ({_F} x) => ({_F} z) {{ z = Scan(x) <num_scan_inputs = 1, scan_input_directions = [1], scan_output_directions = [1], body = b (float[4] i) => (float[4] o) {{ o = Neg(i) }}> }}"),
    "shadowed_in_function": ("names of a function are its own", '<ir_version: 10, opset_import: ["" : 21, "f" : 1]> g (float[N,4] x) => (float[N,4] y) { a = f.h(x) b = f.h(a) y = Neg(b) } <domain: "f", opset_import: ["" : 21]> h (x) => (y) { a = Relu(x) b = Exp(a) y = Neg(b) }'),
    "function_attributes": ("a function's attribute has a default", '<ir_version: 10, opset_import: ["" : 21, "f" : 1]> g (float[N,4] x) => (float[N,4] y) { a = f.h <alpha = 0.3>(x) y = f.h(a) } <domain: "f", opset_import: ["" : 21]> h <alpha: float = 0.1> (x) => (y) { y = LeakyRelu <alpha : float = @alpha>(x) }'),
    "function_nested": ("functions in functions", '<ir_version: 10, opset_import: ["" : 21, "f" : 1]> g (float[N,4] x) => (float[N,4] y) { y = f.h(x) } <domain: "f", opset_import: ["" : 21, "f" : 1]> h (x) => (y) { a = f.k(x) y = f.k(a) } <domain: "f", opset_import: ["" : 21]> k (x) => (y) { y = Neg(x) }'),
    "function_idle": ("one that nobody calls", '<ir_version: 10, opset_import: ["" : 21, "f" : 1]> g (float[N,4] x) => (float[N,4] y) { y = Relu(x) } <domain: "f", opset_import: ["" : 21]> h (x) => (y) { y = Neg(x) }'),
    "function_optional": ("an input that is left out", '<ir_version: 10, opset_import: ["" : 21, "f" : 1]> g (float[N,4] x) => (float[N,4] y) <float h = {1}> { y = f.h(x, , h) } <domain: "f", opset_import: ["" : 21]> h (x, l, h) => (y) { y = Clip(x, l, h) }'),
    "function_unused_output": ("a result that nobody reads", '<ir_version: 10, opset_import: ["" : 21, "f" : 1]> g (float[N,4] x) => (float[N,4] y) { y, z = f.h(x) } <domain: "f", opset_import: ["" : 21]> h (x) => (y, z) { y = Neg(x) z = Abs(x) }'),
    "function_in_body": ("a call in a branch", '<ir_version: 10, opset_import: ["" : 21, "f" : 1]> g (bool c, float[N,4] x) => (float[N,4] y) { y = If(c) <then_branch = t () => (float[N,4] p) { p = f.h(x) }, else_branch = e () => (float[N,4] q) { q = Abs(x) }> } <domain: "f", opset_import: ["" : 21]> h (x) => (y) { a = Neg(x) y = Exp(a) }'),
    "function_passes_through": ("it gives what it takes", '<ir_version: 10, opset_import: ["" : 21, "f" : 1]> g (float[N,4] x) => (float[N,4] y) { a = f.h(x) y = Relu(a) } <domain: "f", opset_import: ["" : 21]> h (x) => (y) { y = Identity(x) }'),
    "function_other_opset": ("a function of an older opset", '<ir_version: 10, opset_import: ["" : 13, "f" : 1]> g (float[N,4] x) => (float[N,4] y) { a = f.h(x) y = Relu(a) } <domain: "f", opset_import: ["" : 13]> h (x) => (y) { a = Softmax <axis = 1>(x) y = Neg(a) }'),
    "ml_domain": ("operators of the other standard domain", '<ir_version: 10, opset_import: ["" : 21, "ai.onnx.ml" : 3]> g (float[N,4] x) => (float[N,4] y) { a = ai.onnx.ml.Normalizer <norm = "L2">(x) b = Identity(a) y = Relu(b) }'),
    "runtime_domain": ("operators of the runtime", '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]> g (float[N,4] x) => (float[N,4] y) { a = com.microsoft.Gelu(x) b = Identity(a) y = Relu(b) }'),
}  # fmt: skip

_CHANCE: dict[str, tuple[str, str]] = {
    "normal": ("SLIM: frozen to one draw", "r = RandomNormal <shape = [1, 4], seed = 1.0>() y = Add(x, r)"),
    "normal_like": ("the same in the shape of another value", "r = RandomNormalLike(x) y = Add(x, r)"),
    "uniform": ("a draw from an interval", "r = RandomUniform <shape = [1, 4]>() y = Add(x, r)"),
    "twins": ("SIM: two draws become one", "a = RandomUniform <shape = [1, 4]>() b = RandomUniform <shape = [1, 4]>() d = Sub(a, b) y = Add(x, d)"),
    "bernoulli": ("OS: frozen", "k = Constant <value = float[4] {0.5, 0.5, 0.5, 0.5}>() r = Bernoulli(k) y = Add(x, r)"),
    "multinomial": ("a draw of classes", "k = Constant <value = float[1,2] {0, 0}>() r = Multinomial <sample_size = 4>(k) f = Cast <to = 1>(r) y = Add(x, f)"),
    "dropout_training": ("a Dropout that trains", "r = Constant <value = float {0.5}>() t = Constant <value = bool {1}>() y = Dropout(x, r, t)"),
    "in_loop": ("a draw in every round", "n = Constant <value = int64 {3}>() y = Loop(n, , x) <body = b (int64 i, bool c, float[N,4] v) => (bool k, float[N,4] w) { k = Identity(c) r = RandomUniform <shape = [1, 4]>() w = Add(v, r) }>"),
}  # fmt: skip

_FOLDS: dict[str, tuple[str, int]] = {
    "softmax_7": ("a = Softmax <axis = 1>(k) y = Add(x, a)", 7),
    "softmax_12": ("a = Softmax(k) y = Add(x, a)", 12),
    "log_softmax_11": ("a = LogSoftmax(k) y = Add(x, a)", 11),
    "hardmax_11": ("a = Hardmax(k) y = Add(x, a)", 11),
    "negative_zero": ("a = Neg(z) b = Div(k, a) y = Add(x, b)", 21),
    "not_a_number": ("a = Div(z, z) b = Max(a, k) y = Add(x, b)", 21),
    "round_half": ("a = Round(h) y = Add(x, a)", 21),
    "argmax_ties": ("a = ArgMax <axis = 1, select_last_index = 1>(o) b = Cast <to = 1>(a) y = Add(x, b)", 21),
    "cumsum": ("a = CumSum <exclusive = 1, reverse = 1>(k, i) y = Add(x, a)", 21),
    "top_k": ("a, n = TopK <axis = 1>(k, c) b = ReduceSum <keepdims = 0>(a) y = Add(x, b)", 21),
    "unique": ("a = Unique(o) b = Cast <to = 1>(a) d = ReduceMin <keepdims = 0>(b) y = Add(x, d)", 21),
    "non_zero": ("a = NonZero(k) b = Cast <to = 1>(a) d = ReduceMax <keepdims = 0>(b) y = Add(x, d)", 21),
    "trilu": ("a = Trilu(k) y = Add(x, a)", 21),
    "range": ("a = Range(f, t, s) y = Add(x, a)", 21),
    "einsum": ('a = Einsum <equation = "ij,ij->i">(k, k) y = Add(x, a)', 21),
    "clip_crossed": ("a = Clip(k, t, f) y = Add(x, a)", 21),
    "pow_integers": ("a = Pow(o, i) b = Cast <to = 1>(a) y = Add(x, b)", 21),
    "mod_negative": ("a = Mod <fmod = 1>(k, h) y = Add(x, a)", 21),
    "bit_shift": ('a = Cast <to = 13>(o) b = BitShift <direction = "LEFT">(a, a) d = Cast <to = 1>(b) y = Add(x, d)', 21),
}  # fmt: skip


def _fold(nodes: str, opset: int) -> Callable[[], onnx.ModelProto]:
    def build() -> onnx.ModelProto:
        model = graph(nodes, opset=opset, ir_version=10 if opset > 11 else 7)
        values: dict[str, Any] = {
            "k": np.array([[1, -2, 2.5, 0]], np.float32), "z": np.array([0, 0, 0, 0], np.float32), "h": np.array([0.5, 1.5, -0.5, -2.5], np.float32),
            "o": np.array([[3, 1, 3, 1]], np.int64), "i": np.int64(1), "c": np.array([2], np.int64), "f": np.float32(0), "t": np.float32(4), "s": np.float32(1),
        }  # fmt: skip
        read = {name for node in model.graph.node for name in node.input}
        model.graph.initializer.extend(tensor(n, a, a.dtype) for n, a in values.items() if n in read)
        return model

    return build


def _foreign(op: str, **attributes: Any) -> Callable[[], onnx.ModelProto]:
    def build() -> onnx.ModelProto:
        model = graph("y = Relu(x)")
        node = helper.make_node(op, ["x", "", "x"], ["y", "", "z"], domain="some.where", **attributes)
        model.graph.node[0].CopyFrom(node)
        model.opset_import.add(domain="some.where", version=7)
        return model

    return build


def _foreign_body() -> onnx.ModelProto:
    """A body that reads from outside, in an operator that nobody knows."""
    model = _foreign("Each", body=graph("a = Neg(x) y = Neg(a)").graph)()
    del model.graph.node[0].attribute[0].g.input[:]
    return model


def _versions(opset: int) -> Callable[[], onnx.ModelProto]:
    """What any opset has."""

    def build() -> onnx.ModelProto:
        text = "a = Relu(x) b = MatMul(a, w) c = Identity(b) d = Transpose <perm = [1, 0]>(c) e = Transpose <perm = [1, 0]>(d) f = Sigmoid(e) y = Mul(f, e)"
        model = graph(text, opset=opset, ir_version=3 if opset < 9 else 10)
        model.graph.initializer.append(tensor("w", np.eye(4) * 2))
        if opset < 9:
            model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 4]))
        return model

    return build


def _overloads() -> onnx.ModelProto:
    model = graph(_BODIES["shadowed_in_function"][1])
    model.functions.append(model.functions[0])
    model.functions[1].overload = "other"
    model.functions[1].node[0].op_type = "Abs"
    model.graph.node[1].overload = "other"
    return model


CASES = (
    *(Valid(f"body_{n}", why, text, dims=_N, high=4) for n, (why, text) in _BODIES.items()),
    *(Valid(f"chance_{n}", why, text, dims=_N, random=True) for n, (why, text) in _CHANCE.items()),
    *(Valid(f"fold_{n}", "the runtime's own answer counts", _fold(*parts), dims=_N) for n, parts in _FOLDS.items()),
    *(Valid(f"opset_{n}", "an opset stays what it is", _versions(n), dims=_N) for n in range(7, 24)),
    Valid("foreign", "an operator that nobody knows", _foreign("Magic", strength=1.5, words=["a", "b"]), runs=False),
    Valid("foreign_tensor", "with a tensor", _foreign("Magic", value=tensor("", [1, 2])), runs=False),
    Valid("foreign_body", "with a body", _foreign_body, runs=False),
    Valid("foreign_homonym", "an operator that is called like another one", _foreign("Identity"), runs=False),
    Valid("body_function_overloads", "two functions of one name", _overloads, dims=_N),
)
