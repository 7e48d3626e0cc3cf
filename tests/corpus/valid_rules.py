"""Graphs on which a rewrite of some optimizer was wrong: lookalikes, shared weights, broadcasting, attributes.

Numbers behind names of projects are those of their threads: ORT microsoft/onnxruntime, OS microsoft/onnxscript, SLIM
inisis/OnnxSlim, SIM onnxsim/onnxsim, OPT onnx/optimizer.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.corpus.case import Valid, graph, tensor

__all__ = ["CASES"]

_DIMS = {"N": (2, 3), "H": (5, 6), "W": (5, 7)}


def _draw(name: str, *shape: int) -> onnx.TensorProto:
    return tensor(name, np.random.default_rng([len(shape), *shape, *name.encode()]).uniform(0.5, 1.5, shape))


def _with(text: str, weights: str, opset: int = 21) -> Callable[[], onnx.ModelProto]:
    """A graph with weights drawn at random, written as `w:4,3,3,3 b:4`."""

    def build() -> onnx.ModelProto:
        model = graph(text, opset=opset)
        for name, _, dims in (word.partition(":") for word in weights.split()):
            model.graph.initializer.append(_draw(name, *(int(d) for d in dims.split(",") if d)))
        return model

    return build


_IMAGE = "g (float[N,3,H,W] x) => (float[N,A,B,C] y)"
_TWO = "g (float[N,3,H,W] x) => (float[N,A,B,C] y, float[N,D,E,F] z)"
_LINE = "g (float[N,4] x) => (float[N,A] y)"

_PRODUCTS: dict[str, tuple[str, str, str]] = {
    "gemm_identity_transpose": ("ORT 32228: a Transpose that does nothing", f"{_LINE} {{ t = Transpose <perm = [0, 1]>(x) y = Gemm <transB = 1>(t, w, b) }}", "w:3,4 b:3"),
    "gemm_transposed": ("a Transpose that does something", "g (float[4,N] x) => (float[N,A] y) { t = Transpose(x) y = Gemm(t, w, b) }", "w:4,3 b:3"),
    "gemm_transposed_c": ("ORT 12071: what is added is transposed", "g (float[3,4] x) => (float[3,5] y) { c = Transpose(k) y = Gemm(x, w, c) }", "w:4,5 k:5,3"),
    "gemm_beta_bn": ("OS 3027: beta of a Gemm before a BatchNormalization", f"{_LINE} {{ a = Gemm <beta = 0.5, alpha = 2.0>(x, w, b) y = BatchNormalization(a, s, t, m, v) }}", "w:4,3 b:3 s:3 t:3 m:3 v:3"),
    "gemm_reshape_add": ("SLIM 211: an Add behind a Reshape", "g (float[N,4] x) => (float[A,B,C] y) <int64[3] r = {-1, 3, 2}> { a = Gemm(x, w) q = Reshape(a, r) y = Add(q, b) }", "w:4,6 b:3,2"),
    "matmul_add_broadcast": ("what is added makes the result larger", "g (float[1,4] x) => (float[5,3] y) { a = MatMul(x, w) y = Add(a, b) }", "w:4,3 b:5,3"),
    "matmul_vector": ("a vector has no rows", "g (float[4] x) => (float[3] y) { a = MatMul(x, w) y = Add(a, b) }", "w:4,3 b:3"),
    "matmul_shared": ("two products of one weight", "g (float[N,4] x, float[N,4] z) => (float[N,3] y, float[N,3] q) { a = MatMul(x, w) y = Mul(a, s) q = MatMul(z, w) }", "w:4,3 s:3"),
    "matmul_batched_scale": ("a scale per matrix, not per column", "g (float[3,N,4] x) => (float[3,N,3] y) { a = MatMul(x, w) y = Mul(a, s) }", "w:4,3 s:3,1,1"),
    "conv_mul_along_width": ("a factor per column of the image, as wide as channels", f"{_IMAGE.replace('W]', '4]')} {{ a = Conv(x, w) y = Mul(a, s) }}", "w:4,3,1,1 s:1,1,1,4"),
    "conv_mul_per_channel": ("a factor per channel", f"{_IMAGE} {{ a = Conv(x, w) y = Mul(a, s) }}", "w:4,3,3,3 s:1,4,1,1"),
    "conv_mul_rank_3": ("a factor per channel without the first axis", f"{_IMAGE} {{ a = Conv(x, w) y = Mul(a, s) }}", "w:4,3,3,3 s:4,1,1"),
    "conv_mul_larger": ("a factor that makes the result larger", "g (float[1,3,5,5] x) => (float[2,4,5,5] y) { a = Conv(x, w) y = Mul(a, s) }", "w:4,3,1,1 s:2,4,1,1"),
    "conv_add_full": ("ORT 12498: what is added is as large as the image", "g (float[1,4,5,5] x) => (float[1,4,5,5] y) { a = Conv <group = 2>(x, w) y = Add(a, b) }", "w:4,2,1,1 b:1,4,5,5"),
    "conv_bn": ("the ordinary case", f"{_IMAGE} {{ a = Conv(x, w, b) y = BatchNormalization(a, s, t, m, v) }}", "w:4,3,3,3 b:4 s:4 t:4 m:4 v:4"),
    "conv_bn_group": ("groups", "g (float[N,4,H,W] x) => (float[N,A,B,C] y) { a = Conv <group = 4>(x, w) y = BatchNormalization(a, s, t, m, v) }", "w:4,1,3,3 s:4 t:4 m:4 v:4"),
    "conv_bn_training": ("a BatchNormalization that still learns", f"{_IMAGE} {{ a = Conv(x, w) y, r, q = BatchNormalization <training_mode = 1>(a, s, t, m, v) }}", "w:4,3,3,3 s:4 t:4 m:4 v:4"),
    "conv_shared_weight": ("OS 2883: two convolutions share a weight, one has a BatchNormalization", f"{_TWO} {{ a = Conv(x, w) y = BatchNormalization(a, s, t, m, v) z = Conv(x, w) }}", "w:4,3,3,3 s:4 t:4 m:4 v:4"),
    "conv_shared_bias": ("they share a bias", f"{_TWO} {{ a = Conv(x, w, b) y = Mul(a, k) z = Conv(x, u, b) }}", "w:4,3,3,3 u:4,3,1,1 b:4 k:1,4,1,1"),
    "conv_two_consumers": ("SLIM 163: the product is read twice", f"{_TWO} {{ a = Conv(x, w) y = Mul(a, s) z = Relu(a) }}", "w:4,3,3,3 s:1,4,1,1"),
    "conv_is_output": ("the product is an output", f"{_TWO} {{ y = Conv(x, w) z = Mul(y, s) }}", "w:4,3,3,3 s:1,4,1,1"),
    "conv_weight_is_output": ("the weight is an output", "g (float[N,3,H,W] x) => (float[N,A,B,C] y, float[4,3,1,1] w) { a = Conv(x, w) y = Mul(a, s) }", "w:4,3,1,1 s:1,4,1,1"),
    "conv_weight_computed": ("the weight is computed", "g (float[N,3,H,W] x, float[4,3,1,1] k) => (float[N,A,B,C] y) { w = Tanh(k) a = Conv(x, w) y = Mul(a, s) }", "s:1,4,1,1"),
    "convtranspose_bn": ("OS 2879: the weight's axes are the other way round", f"{_IMAGE} {{ a = ConvTranspose <strides = [2, 2]>(x, w) y = BatchNormalization(a, s, t, m, v) }}", "w:3,4,2,2 s:4 t:4 m:4 v:4"),
    "convtranspose_group_bn": ("OPT 106: with groups", "g (float[N,4,H,W] x) => (float[N,A,B,C] y) { a = ConvTranspose <group = 2>(x, w) y = BatchNormalization(a, s, t, m, v) }", "w:4,3,2,2 s:6 t:6 m:6 v:6"),
    "bn_conv": ("a BatchNormalization before a padded convolution", f"{_IMAGE} {{ a = BatchNormalization(x, s, t, m, v) y = Conv <pads = [1, 1, 1, 1]>(a, w) }}", "w:4,3,3,3 s:3 t:3 m:3 v:3"),
    "pad_conv": ("OS 2841: a Pad before a convolution", f"{_IMAGE} <int64[8] p = {{0,0,1,2,0,0,1,0}}> {{ a = Pad(x, p) y = Conv(a, w) }}", "w:4,3,3,3"),
    "pad_conv_negative": ("SLIM 212: it cuts off", f"{_IMAGE} <int64[8] p = {{0,0,-1,1,0,0,0,-1}}> {{ a = Pad(x, p) y = Conv(a, w) }}", "w:4,3,2,2"),
    "pad_conv_value": ("it pads with something", f"{_IMAGE} <int64[8] p = {{0,0,1,1,0,0,1,1}}, float k = {{1}}> {{ a = Pad(x, p, k) y = Conv(a, w) }}", "w:4,3,3,3"),
    "pad_conv_channels": ("it pads channels", f"{_IMAGE} <int64[8] p = {{0,1,0,0,0,0,0,0}}> {{ a = Pad(x, p) y = Conv(a, w) }}", "w:4,4,3,3"),
    "pad_conv_reflect": ("it mirrors", f'{_IMAGE} <int64[8] p = {{0,0,1,1,0,0,1,1}}> {{ a = Pad <mode = "reflect">(x, p) y = Conv(a, w) }}', "w:4,3,3,3"),
    "pad_conv_auto": ("SLIM 268: the convolution pads by itself", f'{_IMAGE} <int64[8] p = {{0,0,1,1,0,0,1,1}}> {{ a = Pad(x, p) y = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]>(a, w) }}', "w:4,3,3,3"),
    "pad_pool": ("a pool that pads with other numbers", f"{_IMAGE} <int64[8] p = {{0,0,1,1,0,0,1,1}}> {{ a = Pad(x, p) y = MaxPool <kernel_shape = [3, 3]>(a) }}", ""),
    "pad_average": ("an average that counts pads, or not", f"{_IMAGE} <int64[8] p = {{0,0,1,1,0,0,1,1}}> {{ a = Pad(x, p) y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 0>(a) }}", ""),
    "layernorm_lookalike": ("ORT 25855: gamma makes the result larger", "g (float[1,4] x) => (float[3,4] y) <int64[1] a = {-1}, float e = {0.00001}, float k = {2}> { m = ReduceMean(x, a) d = Sub(x, m) p = Pow(d, k) v = ReduceMean(p, a) q = Add(v, e) r = Sqrt(q) n = Div(d, r) y = Mul(n, s) }", "s:3,4"),
    "layernorm_other_axis": ("two different axes", "g (float[4,4] x) => (float[4,4] y) <int64[1] a = {-1}, int64[1] b = {0}, float e = {0.00001}> { m = ReduceMean(x, a) d = Sub(x, m) p = Mul(d, d) v = ReduceMean(p, b) q = Add(v, e) r = Sqrt(q) y = Div(d, r) }", ""),
    "gru_last_state": ("outputs left out before one that is read", "g (float[3,N,4] x) => (float[1,N,2] y) { , y = GRU <hidden_size = 2>(x, w, r) }", "w:1,6,4 r:1,6,2"),
    "sum_of_products": ("RepVGG with branches of other pads", f"{_IMAGE} {{ a = Conv <pads = [1,1,1,1]>(x, w) b = Conv(x, u) c = Add(a, b) y = Relu(c) }}", "w:3,3,3,3 u:3,3,1,1"),
}  # fmt: skip

_TEXTS: dict[str, tuple[str, str]] = {
    "relu_clip": ("OS 2836: a Clip without an end", "y0 = Clip(x, a) y = Relu(y0)".replace("x, a", "x")),
    "relu_clip_low": ("a Clip that lets negatives pass", "g (float[N,4] x) => (float[N,4] y) <float l = {-1}, float h = {6}> { a = Clip(x, l, h) y = Relu(a) }"),
    "relu_clip_double": ("ORT 10936: in double precision", "g (double[N,4] x) => (double[N,4] y) <double l = {0}, double h = {6}> { a = Relu(x) y = Clip(a, l, h) }"),
    "clip_crossed": ("a Clip whose ends have changed places", "g (float[N,4] x) => (float[N,4] y) <float l = {1}, float h = {-1}> { a = Clip(x, l, h) y = Relu(a) }"),
    "min_max_order": ("Min of Max is not Max of Min", "g (float[N,4] x) => (float[N,4] y, float[N,4] z) <float l = {1}, float h = {-1}> { a = Max(x, l) y = Min(a, h) b = Min(x, h) z = Max(b, l) }"),
    "argmax_monotone": ("ORT 31140: Log before ArgMax makes not-a-numbers", "g (float[N,4] x) => (int64[N,1] y) { a = Log(x) y = ArgMax <axis = 1>(a) }"),
    "argmax_softmax": ("a Softmax before ArgMax makes ties", "g (float[N,4] x) => (int64[N,1] y) { a = Softmax <axis = 1>(x) y = ArgMax <axis = 1>(a) }"),
    "constant_dedupe": ("SIM 265: 0 and -0 are equal and not the same", "g (float[N,4] x) => (float[N,4] y, float[N,4] z) <float p = {0}, float n = {-0.0}> { y = Div(x, p) z = Div(x, n) }"),
    "constant_shapes": ("constants of other shapes", "g (float x) => (float y, float[1] z) <float p = {2}, float[1] q = {2}> { y = Mul(x, p) z = Mul(x, q) }"),
    "constant_types": ("ones of two types", "g (int32[N] x, int64[N] u) => (int32[N] y, int64[N] z) <int32 p = {1}, int64 q = {1}> { y = Add(x, p) z = Add(u, q) }"),
    "cse_attributes": ("nodes that differ in an attribute", "g (float[N,4] x) => (float[N,4] y, float[N,4] z) { y = Softmax <axis = 0>(x) z = Softmax <axis = 1>(x) }"),
    "cse_defaults": ("one says the default, one does not", "g (float[N,4] x) => (float[N,4] y) { a = Softmax(x) b = Softmax <axis = -1>(x) y = Sub(a, b) }"),
    "cse_order": ("Sub does not commute", "g (float[N,4] x, float[N,4] u) => (float[N,4] y, float[N,4] z) { y = Sub(x, u) z = Sub(u, x) }"),
    "ieee_add_zero": ("x + 0 is not x at -0", "g (float[N,4] x) => (float[N,4] y) <float z = {0}> { a = Add(x, z) y = Identity(a) }"),
    "ieee_mul_zero": ("x · 0 is not 0 at infinity", "g (float[N,4] x) => (float[N,4] y) <float z = {0}> { a = Mul(x, z) y = Identity(a) }"),
    "ieee_sub_self": ("x − x is not 0 at infinity", "g (float[N,4] x) => (float[N,4] y) { a = Sub(x, x) y = Identity(a) }"),
    "ieee_div_self": ("x / x is not 1 at 0", "g (float[N,4] x) => (float[N,4] y) { a = Div(x, x) y = Identity(a) }"),
    "ieee_neg_neg": ("twice negative is the same", "g (float[N,4] x) => (float[N,4] y) { a = Neg(x) y = Neg(a) }"),
    "ieee_sqrt_square": ("the root of a square has lost its sign", "g (float[N,4] x) => (float[N,4] y) { a = Mul(x, x) y = Sqrt(a) }"),
    "ieee_exp_log": ("Log of Exp overflows", "g (float[N,4] x) => (float[N,4] y) { a = Exp(x) y = Log(a) }"),
    "ieee_reciprocal": ("twice reciprocal", "g (float[N,4] x) => (float[N,4] y) { a = Reciprocal(x) y = Reciprocal(a) }"),
    "ieee_scale_zero": ("factors that come to zero and infinity", "g (float[N,4] x) => (float[N,4] y) <float p = {1e30}, float q = {1e30}, float r = {1e-30}, float s = {1e-30}> { a = Mul(x, p) b = Mul(a, q) c = Mul(b, r) y = Mul(c, s) }"),
    "ieee_add_large": ("terms that cancel", "g (float[N,4] x) => (float[N,4] y) <float p = {16777216}, float q = {-16777216}> { a = Add(x, p) y = Add(a, q) }"),
    "ieee_pow": ("powers of 0, 0.5, 1, 2 and -1", "g (float[N,4] x) => (float[N,4] a, float[N,4] b, float[N,4] c, float[N,4] d, float[N,4] e) <float p = {0}, float q = {0.5}, float r = {1}, float s = {2}, float t = {-1}> { a = Pow(x, p) b = Pow(x, q) c = Pow(x, r) d = Pow(x, s) e = Pow(x, t) }"),
    "where_same": ("both choices are one", "g (float[N,4] x, bool[N,1] c) => (float[N,4] y) { y = Where(c, x, x) }"),
    "where_broadcast": ("the condition makes the result larger", "g (float[1,4] x, bool[3,1] c) => (float[3,4] y) { y = Where(c, x, x) }"),
    "nop_broadcast": ("x · 1 makes the result larger", "g (float[1,4] x) => (float[3,4] y) <float[3,1] k = {1, 1, 1}> { y = Mul(x, k) }"),
    "nop_broadcast_dynamic": ("OS: it may, or may not", "g (float[N,4] x) => (float[A,4] y) <float[1,1] k = {1}> { a = Mul(x, k) y = Identity(a) }"),
    "nop_rank": ("x + 0 gives another rank", "g (float[4] x) => (float[1,1,4] y) <float[1,1,1] z = {-0.0}> { y = Add(x, z) }"),
    "shape_start_end": ("OnnxSlim 38: a part of a shape", "g (float[N,4,5] x) => (int64[2] y) { a = Shape <start = -2, end = 3>(x) y = Identity(a) }"),
    "shape_reversed": ("a part that is empty", "g (float[N,4,5] x) => (int64[0] y) { y = Shape <start = 2, end = 1>(x) }"),
    "shape_of_symbol": ("a Reshape to what is fed", "g (float[N,4] x) => (float[A,B] y) <int64 z = {0}, int64[1] o = {4}, int64[1] a = {0}> { s = Shape(x) n = Gather(s, z) u = Unsqueeze(n, a) t = Concat <axis = 0>(u, o) b = Relu(x) y = Reshape(b, t) }"),
    "reshape_chain": ("ORT 29788: reshapes in a row, read twice", "g (float[N,4] x) => (float[A,B] y, float[C] z) <int64[2] s = {-1, 2}, int64[1] t = {-1}, int64[2] u = {-1, 4}> { a = Reshape(x, s) z = Reshape(a, t) y = Reshape(z, u) }"),
    "reshape_zero": ("0 copies, or means nothing", "g (float[2,0] x) => (float[A,B] y, float[C,D] z) <int64[2] s = {0, 3}, int64[2] t = {2, 0}> { y = Reshape <allowzero = 1>(x, s) z = Reshape(x, t) }"),
    "slice_chain": ("SLIM 277: slices in a row", "g (float[N,9] x) => (float[N,A] y) <int64[1] s = {1}, int64[1] e = {-1}, int64[1] a = {1}, int64[1] t = {2}> { b = Slice(x, s, e, a, t) y = Slice(b, s, e, a) }"),
    "slice_backwards": ("slices that run backwards", "g (float[N,9] x) => (float[N,A] y) <int64[1] s = {-1}, int64[1] e = {-9223372036854775808}, int64[1] a = {1}, int64[1] t = {-2}> { b = Slice(x, s, e, a, t) y = Slice(b, s, e, a, t) }"),
    "transpose_chain": ("transposes in a row that do not cancel", "g (float[2,3,4] x) => (float[A,B,C] y) { a = Transpose <perm = [1, 2, 0]>(x) b = Relu(a) y = Transpose <perm = [1, 2, 0]>(b) }"),
    "squeeze_all": ("a Squeeze of whatever is one", "g (float[1,N,1] x) => (float[A] y) { y = Squeeze(x) }"),
    "concat_empty": ("SLIM 305: an operand of nothing", "g (float[N,4] x) => (float[N,4] y) { e = Constant <value = float[0,4] {}>() a = Concat <axis = 0>(x, e) y = Relu(a) }"),
    "concat_one": ("an operand alone", "g (float[N,4] x) => (float[N,4] y) { a = Concat <axis = 1>(x) y = Relu(a) }"),
    "reduce_noop": ("no axes: all, or none", "g (float[N,4] x) => (float[N,4] y, float[1,1] z) { y = ReduceSum <noop_with_empty_axes = 1>(x) z = ReduceSum(x) }"),
    "reduce_chain": ("means of means", "g (float[N,4,5] x) => (float[N] y) <int64[1] a = {1}> { b = ReduceMean <keepdims = 0>(x, a) y = ReduceMean <keepdims = 0>(b, a) }"),
    "dropout": ("a mask is read", "g (float[N,4] x) => (float[N,4] y, bool[N,4] m) { y, m = Dropout(x) }"),
    "dropout_ratio": ("a ratio without training", "g (float[N,4] x) => (float[N,4] y) <float r = {0.9}, bool t = {0}> { a = Dropout(x, r, t) y = Relu(a) }"),
    "resize_same": ("a scale of one", 'g (float[1,1,4,4] x) => (float[1,1,4,4] y) <float[4] s = {1, 1, 1, 1}> { a = Resize <mode = "linear">(x, , s) y = Relu(a) }'),
    "gather_negative": ("indices from the end", "g (float[N,4] x) => (float[N,2] y) <int64[2] i = {-1, 0}> { y = Gather <axis = 1>(x, i) }"),
    "softmax_flat": ("a Softmax of the last axis, behind a Reshape", "g (float[N,4] x) => (float[A] y) <int64[1] s = {-1}> { a = Softmax <axis = 1>(x) y = Reshape(a, s) }"),
    "gelu_lookalike": ("almost a Gelu", "g (float[N,4] x) => (float[N,4] y) <float r = {1.5}, float o = {1}, float h = {0.5}> { a = Div(x, r) b = Erf(a) c = Add(b, o) d = Mul(x, c) y = Mul(d, h) }"),
    "swish_lookalike": ("the Sigmoid of another value", "g (float[N,4] x, float[N,4] u) => (float[N,4] y) { a = Sigmoid(u) y = Mul(x, a) }"),
    "hardswish_lookalike": ("another number than six", "g (float[N,4] x) => (float[N,4] y) <float t = {3}, float l = {0}, float h = {6}, float s = {7}> { a = Add(x, t) b = Clip(a, l, h) c = Mul(x, b) y = Div(c, s) }"),
    "leaky_lookalike": ("a slope beyond one", "g (float[N,4] x) => (float[N,4] y) <float k = {2}> { a = Mul(x, k) y = Max(x, a) }"),
}  # fmt: skip


CASES = (
    *(Valid(f"product_{n}", why, _with(text, weights), dims=_DIMS, edges=False) for n, (why, text, weights) in _PRODUCTS.items()),
    Valid(
        "rule_nop_expand",
        "an Expand that does something only for one row",
        "g (float[N,4] x) => (float[A,4] y) <int64[2] s = {3, 1}> { y = Expand(x, s) }",
        dims={"N": (1, 3)},
    ),
    *(Valid(f"rule_{n}", why, text, dims=_DIMS | {"N": (2, 3)}) for n, (why, text) in _TEXTS.items()),
)  # fmt: skip
