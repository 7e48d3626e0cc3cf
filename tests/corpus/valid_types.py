"""Every element type and every kind of value, empty and scalar ones among them, and what no runtime here can run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tests.corpus.case import Valid, graph, tensor, words

__all__ = ["CASES"]

_N = {"N": (2, 3)}


def _typed(
    dtype: str, nodes: str, weights: object = None, kind: Any = np.float32, opset: int = 21
) -> Callable[[], onnx.ModelProto]:
    """A graph of x and y of an element type, with a weight w if there is one."""

    def build() -> onnx.ModelProto:
        model = graph(f"g ({dtype}[N,4] x) => ({dtype}[N,4] y) {{ {nodes} }}", opset=opset)
        if weights is not None:
            model.graph.initializer.append(tensor("w", weights, kind))
        return model

    return build


def _stored(
    kind: int, content: bytes, dims: list[int], nodes: str = "y = Identity(w)", name: str = "float", opset: int = 21
) -> Callable[[], onnx.ModelProto]:
    """A weight of a type that numpy has not, handed through."""

    def build() -> onnx.ModelProto:
        model = graph(f"g () => ({name}[{','.join(map(str, dims))}] y) {{ {nodes} }}", opset=opset)
        model.graph.initializer.add(name="w", data_type=kind, dims=dims, raw_data=content)
        return model

    return build


def _text_weight() -> onnx.ModelProto:
    model = graph("g (string[N] x) => (bool[N,3] y) { a = Unsqueeze(x, k) b = Identity(a) y = Equal(b, w) }")
    model.graph.initializer.append(tensor("k", [1], np.int64))
    model.graph.initializer.append(words("w", [3], [b"text 0", "é".encode(), b""]))
    return model


def _maps() -> onnx.ModelProto:
    model = graph("g (float[N,3] x) => (float[N,3] y) { i = Identity(x) y = Relu(i) }", opset=17)
    model.opset_import.add(domain="ai.onnx.ml", version=3)
    names = onnx.helper.make_attribute("classlabels_int64s", [0, 1, 2])
    model.graph.node.add(op_type="ZipMap", domain="ai.onnx.ml", input=["y"], output=["z"], attribute=[names])
    score = onnx.helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    maps = onnx.helper.make_sequence_type_proto(onnx.helper.make_map_type_proto(TensorProto.INT64, score))
    model.graph.output.append(onnx.helper.make_value_info("z", maps))
    return model


def _text_cast() -> onnx.ModelProto:
    model = graph("g (float[N,4] x) => (float[N,4] y) { a = Cast <to = 1>(w) y = Add(x, a) }")
    model.graph.initializer.append(words("w", [4], [b"1.5", b"NaN", b"-INF", b"1e3"]))
    return model


def _int4_weight() -> onnx.ModelProto:
    model = graph(
        "g (float[N,4] x) => (float[N,2] y) <float s = {0.5}> { d = DequantizeLinear(w, s) y = MatMul(x, d) }"
    )
    model.graph.initializer.add(
        name="w", data_type=TensorProto.INT4, dims=[4, 2], raw_data=bytes([0x21, 0x8F, 0x73, 0xE0])
    )
    return model


def _fields(kind: int, field: str, values: list[object], dims: list[int], dtype: str) -> Callable[[], onnx.ModelProto]:
    """A weight in the field of its type rather than in raw bytes."""

    def build() -> onnx.ModelProto:
        model = graph(
            f"g ({dtype}[{','.join(map(str, dims))}] x) => ({dtype}[A] y) <int64[1] s = {{-1}}> {{ a = Concat <axis = 0>(x, w) y = Reshape(a, s) }}"
        )
        made = model.graph.initializer.add(name="w", data_type=kind, dims=dims)
        getattr(made, field).extend(values)
        return model

    return build


_SPECIAL = np.array([0.0, -0.0, np.inf, np.nan])
_LIMITS: dict[Any, Any] = {
    t: np.array([np.iinfo(t).min, np.iinfo(t).max, 0, 1], t)
    for t in (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
}


def _narrow(dtype: Any) -> Callable[[], onnx.ModelProto]:
    """Where many operators are missing: only what moves elements."""

    def build() -> onnx.ModelProto:
        name = np.dtype(dtype).name
        model = graph(
            f"g ({name}[N,4] x) => ({name}[M,4] y) {{ a = Identity(x) b = Concat <axis = 0>(a, w) c = Identity(b) y = Transpose <perm = [0, 1]>(c) }}"
        )
        model.graph.initializer.append(tensor("w", _LIMITS[dtype].reshape(1, 4), dtype))
        return model

    return build


def _wide(dtype: Any) -> Callable[[], onnx.ModelProto]:
    return _typed(
        np.dtype(dtype).name, "a = Add(x, w) b = Mul(a, w) c = Identity(b) y = Sub(c, w)", _LIMITS[dtype], dtype
    )


_FLOATS: dict[str, tuple[str, Callable[[], onnx.ModelProto]]] = {
    "float16": (
        "half precision",
        _typed("float16", "a = Mul(x, w) b = Identity(a) y = Add(b, w)", [1, 2, 0.5, -1], np.float16),
    ),
    "float16_special": ("its special values", _typed("float16", "a = Mul(x, w) y = Identity(a)", _SPECIAL, np.float16)),
    "float_special": (
        "special values as weights",
        _typed("float", "a = Mul(x, w) b = Add(a, w) y = Identity(b)", _SPECIAL),
    ),
    "float_denormal": (
        "numbers that flush to zero",
        _typed("float", "a = Mul(x, w) b = Mul(a, w) y = Identity(b)", [1e-40, -1e-42, 1e-38, 1e-45]),
    ),
    "float_signalling": (
        "not-a-numbers with a message",
        _typed(
            "float",
            "a = Identity(x) y = Max(a, w)",
            np.array([0x7F800001, 0xFFC12345, 0x7FC00000, 0x80000000], np.uint32).view(np.float32),
        ),
    ),
    "double": (
        "double precision",
        _typed("double", "a = Mul(x, w) b = Identity(a) y = Add(b, w)", [1, 1e-11, 1e300, -1e-300], np.float64),
    ),
    "double_almost_nothing": (
        "OS: additions that are almost nothing",
        _typed("double", "a = Add(x, w) b = Mul(a, a) y = Identity(b)", [1e-11, 1e-15, 1e-9, 1e-5], np.float64),
    ),
    "bfloat16": ("the other half precision", _typed("bfloat16", "a = Identity(x) b = Identity(a) y = Identity(b)")),
    "bool": (
        "truth values",
        _typed("bool", "a = And(x, w) b = Not(a) c = Not(b) y = Or(c, w)", [True, False, True, False], np.bool_),
    ),
}

_TEXTS: dict[str, tuple[str, str]] = {
    "scalars": ("rank 0 is not rank 1", "g (float[N,4] x, float s) => (float[N,4] y, float z) <float[1] one = {2}, float nil = {2}> { a = Mul(x, one) y = Mul(a, nil) z = Mul(s, nil) }"),
    "scalar_and_one": ("ORT 24160: {1} against {}", "g (float s) => (float[1] y) <float[1] one = {1}> { y = Mul(s, one) }"),
    "scalar_one_shape": ("a one that gives its rank", "g (float s) => (float[1,1] y) <float[1,1] zero = {0}> { a = Add(s, zero) y = Identity(a) }"),
    "empty": ("no rows at all", "g (float[0,4] x) => (float[0,4] y) { a = Relu(x) b = Relu(a) y = Neg(b) }"),
    "empty_weight": ("a weight of nothing", "g (float[N,4] x) => (float[M,4] y) { w = Constant <value = float[0,4] {}>() y = Concat <axis = 0>(x, w) }"),
    "empty_reduction": ("a sum over nothing", "g (float[N,0] x) => (float[N] y, float[N] z) <int64[1] a = {1}> { y = ReduceSum <keepdims = 0>(x, a) z = ReduceProd <keepdims = 0>(x, a) }"),
    "empty_slice": ("a slice of nothing", "g (float[N,4] x) => (float[N,0] y) <int64[1] s = {3}, int64[1] e = {1}, int64[1] a = {1}> { y = Slice(x, s, e, a) }"),
    "empty_split": ("a part of nothing", "g (float[N,4] x) => (float[N,4] y, float[N,0] z) <int64[2] s = {4, 0}> { y, z = Split <axis = 1>(x, s) }"),
    "empty_text": ("texts in and out", "g (string[N] x) => (string[N] y) { a = Identity(x) y = Identity(a) }"),
    "sequence": ("a sequence is built and taken apart", "g (float[N,4] x) => (float[N,4] y) <int64 i = {1}> { a = Neg(x) s = SequenceConstruct(x, a) e = SequenceAt(s, i) y = Relu(e) }"),
    "sequence_uneven": ("OS 2858: parts of different sizes", "g (float[N,4] x) => (float[N,A] y, seq(float[N,B]) s) <int64 k = {3}, int64 i = {-1}> { s = SplitToSequence <axis = 1>(x, k) y = SequenceAt(s, i) }"),
    "sequence_kept": ("parts without their axis", "g (float[3,4] x) => (seq(float[4]) s) { s = SplitToSequence <axis = 0, keepdims = 0>(x) }"),
    "sequence_input": ("a sequence is fed", "g (seq(float[3]) s) => (float[A] y, int64 n) { y = ConcatFromSequence <axis = 0>(s) n = SequenceLength(s) }"),
    "sequence_edited": ("insert and erase", "g (float[3] x) => (seq(float[3]) t) <int64 i = {0}> { e = SequenceEmpty() a = SequenceInsert(e, x) b = Neg(x) c = SequenceInsert(a, b, i) t = SequenceErase(c, i) }"),
    "optional": ("something that may not be there", "g (float[N,4] x) => (float[N,4] y, bool k) { o = Optional(x) k = OptionalHasElement(o) y = OptionalGetElement(o) }"),
    "optional_inputs": ("inputs left out in the middle", "g (float[N,4] x) => (float[N,4] y) <float h = {1}> { a = Clip(x, , h) y = Relu(a) }"),
    "cast_chain": ("SLIM 281: a cast that loses", "g (float[N,4] x) => (float[N,4] y) { a = Cast <to = 6>(x) y = Cast <to = 1>(a) }"),
    "cast_narrowing": ("a cast that wraps around", "g (int32[N,4] x) => (int32[N,4] y) { a = Cast <to = 3>(x) y = Cast <to = 6>(a) }"),
    "cast_half": ("ORT 8787: float to half and back", "g (float[N,4] x) => (float[N,4] y) { a = Cast <to = 10>(x) y = Cast <to = 1>(a) }"),
    "cast_bfloat": ("the same by the other half", "g (float[N,4] x) => (float[N,4] y) { a = Cast <to = 16>(x) y = Cast <to = 1>(a) }"),
    "cast_bool": ("a cast through truth", "g (float[N,4] x) => (float[N,4] y) { a = Cast <to = 9>(x) y = Cast <to = 1>(a) }"),
    "cast_unsigned": ("a cast through unsigned numbers", "g (int64[N,4] x) => (int64[N,4] y) { a = Cast <to = 2>(x) b = Cast <to = 6>(a) y = Cast <to = 7>(b) }"),
    "cast_widening": ("a cast that loses nothing, and back", "g (int32[N,4] x) => (int32[N,4] y) { a = Cast <to = 7>(x) y = Cast <to = 6>(a) }"),
    "cast_double": ("a cast through double", "g (float[N,4] x) => (float[N,4] y) { a = Cast <to = 11>(x) y = Cast <to = 1>(a) }"),
    "cast_float8": ("a cast that saturates", "g (float[N,4] x) => (float[N,4] y) { a = Cast <to = 17>(x) y = Cast <to = 1>(a) }"),
    "cast_float8_not": ("a cast that does not saturate", "g (float[N,4] x) => (float[N,4] y) { a = Cast <to = 19, saturate = 0>(x) y = Cast <to = 1>(a) }"),
    "cast_int4": ("a cast to four bits", "g (int8[N,4] x) => (int8[N,4] y) { a = Cast <to = 22>(x) y = Cast <to = 3>(a) }"),
    "cast_same_mul_one": ("ORT 32416: two no-ops in a row", "g (float[N,4] x) => (float[N,4] y) <float k = {1}> { a = Cast <to = 1>(x) b = Mul(a, k) c = Div(k, k) y = Mul(b, c) }"),
    "quantized": ("a scale and its way back", "g (float[N,4] x) => (float[N,4] y) <float s = {0.1}, uint8 z = {128}> { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"),
    "quantized_axis": ("scales per column", "g (float[N,4] x) => (float[N,4] y) <float[4] s = {0.1, 0.2, 0.3, 0.4}, int8[4] z = {0, 1, -1, 127}> { q = QuantizeLinear <axis = 1>(x, s, z) y = DequantizeLinear <axis = 1>(q, s, z) }"),
    "quantized_weight": ("weights of eight bits stay so", "g (float[N,4] x) => (float[N,2] y) <int8[4,2] w = {1, -2, 3, -4, 5, -6, 7, -8}, float s = {0.5}> { d = DequantizeLinear(w, s) y = MatMul(x, d) }"),
    "integer_division": ("it rounds towards zero", "g (int64[N,4] x) => (int64[N,4] y) <int64 k = {-3}, int64 o = {1}> { a = Sub(x, o) b = Div(a, k) c = Mul(b, k) y = Identity(c) }"),
    "integer_remainder": ("its sign is the divisor's, or not", "g (int64[N,4] x) => (int64[N,4] y, int64[N,4] z) <int64 k = {3}, int64 o = {50}> { a = Sub(x, o) y = Mod(a, k) z = Mod <fmod = 1>(a, k) }"),
}  # fmt: skip

CASES = (
    *(Valid(f"type_{np.dtype(t).name}", "sums wrap around at its limits", _wide(t), dims=_N, high=100) for t in (np.int32, np.int64, np.uint32, np.uint64)),
    *(Valid(f"type_{np.dtype(t).name}", "its limits are weights", _narrow(t), dims=_N, high=100) for t in (np.int8, np.int16, np.uint8, np.uint16)),
    *(Valid(f"type_{n}", why, build, dims=_N, relative=2e-3 if "16" in n else 2e-5) for n, (why, build) in _FLOATS.items()),
    *(Valid(f"type_{n}", why, text, dims=_N, high=100) for n, (why, text) in _TEXTS.items()),
    Valid("type_text_weight", "texts as weights, and one of another language", _text_weight, dims=_N),
    Valid("type_text_cast", "numbers written as texts", _text_cast, dims=_N),
    Valid("type_maps", "a list of maps, for which the graph in memory has no type", _maps, dims=_N),
    Valid("type_float8", "eight bits", _stored(17, bytes([0x00, 0x80, 0x7F, 0x38]), [4], name="float8e4m3fn")),
    Valid("type_float8_fast", "eight bits in other ways", _stored(19, bytes([0x00, 0x80, 0x7C, 0x3C]), [4], name="float8e5m2")),
    Valid("type_int4", "four bits, an odd number of them", _stored(22, bytes([0x71, 0x08]), [3], "y = Cast <to = 3>(w)", "int8")),
    Valid("type_uint4", "the same unsigned", _stored(21, bytes([0xF1, 0x08]), [3], "y = Cast <to = 2>(w)", "uint8")),
    Valid("type_quantized_int4", "weights of four bits stay so", _int4_weight, dims=_N),
    Valid("type_complex", "complex numbers", "g (float[N,4] x, complex64[N] c) => (float[N,4] y, complex64[N] d) { y = Neg(x) d = Identity(c) }", runs=False),
    Valid("type_complex_weight", "complex weights", _stored(14, np.array([1 + 2j, -0.0], np.complex64).tobytes(), [2], name="complex64"), runs=False),
    Valid("type_float4", "four bits of a float", _stored(23, bytes([0x71, 0x08]), [4], name="float4e2m1", opset=23), runs=False),
    Valid("type_of_fields_half", "halves as integers", _fields(10, "int32_data", [0x3C00, 0x8000], [2], "float16")),
    Valid("type_of_fields_bool", "truth values as integers", _fields(9, "int32_data", [1, 0], [2], "bool")),
    Valid("type_of_fields_int8", "small numbers as integers", _fields(3, "int32_data", [-128, 127], [2], "int8")),
    Valid("type_of_fields_uint64", "unsigned numbers", _fields(13, "uint64_data", [2**64 - 1, 0], [2], "uint64")),
    Valid("type_of_fields_double", "doubles", _fields(11, "double_data", [1e-300, -0.0], [2], "double")),
)  # fmt: skip
