"""One or more small concrete uses of every operator, as data: what the property tests run over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import onnx_ir as ir

from .single import Array, Const, Example

UNARY = """Abs Asinh Atan Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish IsInf IsNaN LeakyRelu Mish Neg
    Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Tan Tanh ThresholdedRelu
    Identity Shape Size Flatten Transpose Softmax LogSoftmax Hardmax LpNormalization MeanVarianceNormalization ArgMax
    ArgMin NonZero Unique ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Dropout SequenceConstruct Optional"""
POSITIVE = "Acos Asin Atanh Log Sqrt ReduceLogSum"
BINARY = "Add Sub Mul Div Equal Greater GreaterOrEqual Less LessOrEqual Max Min Sum Mean Pow PRelu CastLike Mod"


def examples() -> Iterator[Example]:
    """All examples; every call gives the same."""
    return chain.from_iterable(family(Draw()) for family in FAMILIES)


class Draw:
    """Random tensors of given shape."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(20)

    def f(self, *shape: int) -> Array:
        """Normal numbers."""
        return self._random.standard_normal(shape).astype(np.float32)

    def p(self, *shape: int) -> Array:
        """Numbers between 0 and 1, but not close to either."""
        return self._random.uniform(0.1, 0.9, shape).astype(np.float32)

    def z(self, high: int, *shape: int, dtype: type = np.int64) -> Array:
        """Integers from 0 to `high`, exclusive."""
        return self._random.integers(0, high, shape).astype(dtype)

    def b(self, *shape: int) -> Array:
        """Truth values."""
        return self._random.integers(0, 2, shape).astype(bool)


def ints(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def one(number: float, dtype: type = np.int64) -> Array:
    return np.array(number, dtype)


def text(*words: str) -> Array:
    return np.array(words, dtype=object)


def pointwise(d: Draw) -> Iterator[Example]:
    yield from (Example(op, (d.f(2, 3, 4),)) for op in UNARY.split())
    yield from (Example(op, (d.p(2, 3, 4),)) for op in POSITIVE.split())
    yield Example("Acosh", (d.p(2, 3) + 1,))
    yield from (Example(op, (d.p(2, 3, 4), d.p(2, 3, 4)), {"fmod": 1} if op == "Mod" else {}) for op in BINARY.split())
    yield from (Example(op, (d.f(2, 3), d.f(2, 3), d.f(2, 3))) for op in ("Max", "Min", "Sum", "Mean"))
    yield from (Example(op, (d.z(9, 40) + 1, d.z(9, 40) + 1)) for op in ("Div", "Mod", "Add", "Max"))
    yield from (Example(op, (d.b(8), d.b(8))) for op in ("And", "Or", "Xor", "Equal"))
    yield from (Example(op, (d.z(99, 8), d.z(99, 8))) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"))
    yield from (
        Example("BitShift", (d.z(99, 8, dtype=np.uint8), d.z(8, 8, dtype=np.uint8)), {"direction": way})
        for way in ("LEFT", "RIGHT")
    )
    yield Example("Not", (d.b(8),))
    yield Example("BitwiseNot", (d.z(99, 8),))
    yield Example("Cast", (d.z(99, 8),), {"to": 1})
    yield Example("BitCast", (d.f(8),), {"to": 6})
    yield Example("Clip", (d.f(2, 3, 4), one(-0.5, np.float32), one(0.5, np.float32)))
    yield Example("Where", (d.b(2, 3), d.f(2, 3), d.f(1, 3)))


def products(d: Draw) -> Iterator[Example]:
    yield Example(
        "Conv", (d.f(2, 4, 7, 6), d.f(6, 2, 3, 2), d.f(6)), {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1]}
    )
    yield Example("Conv", (d.f(1, 3, 9), d.f(2, 3, 3)), {"dilations": [2]})
    yield Example("Conv", (d.f(1, 2, 5, 4, 4), d.f(3, 2, 3, 2, 2)), {"auto_pad": "SAME_UPPER"})
    transposed = {"group": 2, "pads": [1, 0, 0, 1], "strides": [2, 1], "output_padding": [1, 0]}
    yield Example("ConvTranspose", (d.f(2, 4, 4, 3), d.f(4, 3, 3, 2), d.f(6)), transposed)
    yield Example("ConvTranspose", (d.f(1, 3, 5), d.f(3, 2, 3)), {"dilations": [2]})
    yield Example("ConvInteger", (d.z(9, 1, 2, 5, 5, dtype=np.uint8), d.z(9, 3, 2, 3, 3, dtype=np.uint8)))
    scale, zero = one(0.1, np.float32), one(3, np.uint8)
    quantized = (
        d.z(255, 1, 2, 5, 5, dtype=np.uint8),
        scale,
        zero,
        d.z(255, 3, 2, 3, 3, dtype=np.uint8),
        scale,
        zero,
        scale,
        zero,
    )
    yield Example("QLinearConv", quantized)
    yield Example("DeformConv", (d.f(1, 2, 5, 5), d.f(3, 2, 3, 3), np.zeros((1, 18, 3, 3), np.float32), d.f(3)))
    yield Example("Col2Im", (d.f(1, 10, 15), ints(5, 5), ints(1, 5)), {"pads": [0, 1, 0, 1]})
    yield Example("Gemm", (d.f(3, 4), d.f(4, 5), d.f(5)))
    yield Example("Gemm", (d.f(4, 3), d.f(5, 4), d.f(3, 1)), {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0})
    yield Example("MatMul", (d.f(2, 3, 4), d.f(4, 5)))
    yield Example("MatMul", (d.f(2, 1, 3, 4), d.f(5, 4, 2)))
    yield Example("MatMul", (d.f(4), d.f(4, 2)))
    yield Example("MatMulInteger", (d.z(9, 3, 4, dtype=np.uint8), d.z(9, 4, 5, dtype=np.uint8)))
    yield Example(
        "QLinearMatMul",
        (d.z(9, 3, 4, dtype=np.uint8), scale, zero, d.z(9, 4, 5, dtype=np.uint8), scale, zero, scale, zero),
    )
    yield Example("Einsum", (d.f(2, 3, 4), d.f(2, 4, 5)), {"equation": "bij,bjk->bik"})
    yield Example("Einsum", (d.f(2, 3, 4), d.f(4, 5)), {"equation": "...i, ij -> ...j"})
    yield Example("Einsum", (d.f(3, 3),), {"equation": "ii->i"})
    yield Example("Det", (d.f(2, 3, 3),))


def normalizations(d: Draw) -> Iterator[Example]:
    channel = (d.f(3), d.f(3))
    yield Example("BatchNormalization", (d.f(2, 3, 4), *channel, d.f(3), d.p(3)))
    yield Example("BatchNormalization", (d.f(2, 3, 4), *channel, d.f(3), d.p(3)), {"training_mode": 1}, outputs=3)
    yield Example("InstanceNormalization", (d.f(2, 3, 4), *channel))
    yield Example("GroupNormalization", (d.f(2, 6, 4), d.f(6), d.f(6)), {"num_groups": 3})
    yield Example("LayerNormalization", (d.f(2, 3, 4), d.f(4), d.f(4)))
    yield Example("RMSNormalization", (d.f(2, 3, 4), d.f(4)))
    yield Example("LRN", (d.f(2, 5, 3, 3),), {"size": 3})


def images(d: Draw) -> Iterator[Example]:
    yield from (Example(op, (d.f(2, 3, 4, 5),)) for op in ("GlobalAveragePool", "GlobalMaxPool"))
    yield Example("GlobalLpPool", (d.f(2, 3, 4, 5),), opset=21)
    window = {"kernel_shape": [2, 3], "strides": [2, 1], "pads": [0, 1, 1, 1]}
    yield Example("MaxPool", (d.f(1, 2, 6, 6),), window, outputs=2)
    yield from (Example(op, (d.f(1, 2, 6, 6),), window) for op in ("AveragePool", "LpPool"))
    yield Example(
        "MaxUnpool", (d.f(1, 1, 2, 2), np.array([[[[0, 3], [10, 13]]]])), {"kernel_shape": [2, 2], "strides": [2, 2]}
    )
    yield Example("Resize", (d.f(1, 2, 3, 3), None, np.array([1, 1, 2, 1.5], np.float32)))
    yield Example("Resize", (d.f(1, 2, 3, 3), None, None, Const(ints(1, 2, 5, 4))), {"mode": "linear"})
    yield Example("Upsample", (d.f(1, 2, 3, 3), np.array([1, 1, 2, 2], np.float32)), opset=9)
    yield Example("AffineGrid", (d.f(2, 2, 3), Const(ints(2, 3, 4, 5))))
    yield Example("GridSample", (d.f(1, 2, 4, 4), d.p(1, 3, 3, 2)))
    boxes = np.array([[0, 0, 3, 3], [1, 1, 4, 4]], np.float32)
    yield Example(
        "RoiAlign", (d.f(2, 3, 6, 6), boxes, d.z(2, 2)), {"output_height": 2, "output_width": 2}, opset=21, strict=(2,)
    )
    regions = np.array([[0, 0, 0, 3, 3]], np.float32)
    yield Example("MaxRoiPool", (d.f(1, 3, 6, 6), regions), {"pooled_shape": [2, 2]}, opset=21)
    limits = (one(2), one(0.5, np.float32), one(0.1, np.float32))
    yield Example("NonMaxSuppression", (boxes[None], d.p(1, 1, 2), *limits))


def layouts(d: Draw) -> Iterator[Example]:
    yield Example("Transpose", (d.f(2, 3, 4),), {"perm": [1, 2, 0]})
    yield Example("DepthToSpace", (d.f(1, 8, 2, 3),), {"blocksize": 2})
    yield Example("SpaceToDepth", (d.f(1, 2, 4, 6),), {"blocksize": 2})
    yield Example("Reshape", (d.f(2, 3, 4), Const(ints(0, -1))))
    yield Example("Reshape", (d.f(24), ints(24)))
    yield Example("Squeeze", (d.f(1, 3), ints(0)))
    yield Example("Unsqueeze", (d.f(2, 3), ints(0)))
    yield Example("Concat", (d.f(2, 3), d.f(2, 1), d.f(2, 2)), {"axis": 1})
    yield Example("Split", (d.f(6, 2),), {"num_outputs": 3}, outputs=3)
    yield Example("Slice", (d.f(5, 6), ints(1), ints(4), ints(1), ints(2)))
    yield Example("Expand", (d.f(3, 1), ints(2, 1, 4)))
    yield Example("Tile", (d.f(2, 3), ints(2, 2)))
    yield Example("Pad", (d.f(2, 3), ints(0, 1, 1, 0), one(7, np.float32)))
    yield Example("Trilu", (d.f(4, 4), one(1)))
    yield Example("CenterCropPad", (d.f(4, 4), ints(2, 5)))


def indexed(d: Draw) -> Iterator[Example]:
    yield Example("Gather", (d.f(5, 3), d.z(5, 2, 2)), strict=(1,))
    yield Example("Gather", (d.f(3, 4), d.z(4, 2)), {"axis": -1}, strict=(1,))
    yield Example("GatherElements", (d.f(3, 4), d.z(3, 2, 4)), strict=(1,))
    yield Example("GatherND", (d.f(3, 4, 2), d.z(3, 5, 2)), strict=(1,))
    yield Example("GatherND", (d.f(2, 3, 4), d.z(3, 2, 1)), {"batch_dims": 1}, strict=(1,))
    yield Example("Scatter", (d.f(3, 4), d.z(3, 2, 4), d.f(2, 4)), opset=9, strict=(1,))
    yield Example("ScatterElements", (d.f(3, 4), d.z(3, 2, 4), d.f(2, 4)), strict=(1,))
    yield Example("ScatterElements", (d.f(3, 4), d.z(3, 2, 4), d.f(2, 4)), {"reduction": "add"}, strict=(1,))
    yield Example("ScatterND", (d.f(3, 4), d.z(3, 2, 1), d.f(2, 4)), strict=(1,))
    yield Example("TensorScatter", (d.f(2, 5, 3), d.f(2, 2, 3), d.z(3, 2)), strict=(2,))
    yield Example("OneHot", (d.z(3, 4), one(3), np.array([0.5, 2.5], np.float32)))
    yield Example("OneHot", (d.z(3, 4), Const(one(3)), np.array([0.5, 2.5], np.float32)))
    yield Example("ReverseSequence", (d.f(4, 2, 3), ints(2, 4)), strict=(1,))
    yield Example("Compress", (d.f(4, 3), np.array([True, False, True])), {"axis": 0})
    yield Example("TopK", (d.f(2, 5), ints(3)), outputs=2, strict=(1,))
    yield from (Example(op, (d.f(2, 3), one(1))) for op in ("CumSum", "CumProd"))
    yield from (Example(op, (d.f(2, 3, 4), ints(1))) for op in ("ReduceSum", "ReduceMax", "ReduceMean"))


def sources(d: Draw) -> Iterator[Example]:
    yield Example("Constant", (), {"value_floats": [1.0, 2.0]})
    yield Example("ConstantOfShape", (ints(2, 3),), {"value": ir.tensor([2.0])})
    yield Example("Range", (one(0), one(7), one(2)))
    yield Example("EyeLike", (d.f(3, 4),))
    yield from (Example(op, (one(8),)) for op in ("BlackmanWindow", "HammingWindow", "HannWindow"))
    yield Example("MelWeightMatrix", (one(4), one(16), one(8000), one(0.0, np.float32), one(3000.0, np.float32)))
    yield from (Example(op, (), {"shape": [2, 3]}, opset=21) for op in ("RandomNormal", "RandomUniform"))
    yield from (Example(op, (d.f(9),), opset=21) for op in ("RandomNormalLike", "RandomUniformLike"))
    yield Example("Multinomial", (d.f(2, 9),), {"sample_size": 20}, opset=21)
    yield Example("Bernoulli", (d.p(9, 9),), opset=21)
    yield Example("Dropout", (d.f(9, 9), one(0.5, np.float32), one(1, bool)))


def attentions(d: Draw) -> Iterator[Example]:
    heads = (d.f(2, 4, 3, 5), d.f(2, 2, 6, 5), d.f(2, 2, 6, 7))
    yield Example("Attention", heads)
    yield Example("Attention", (d.f(2, 3, 8), d.f(2, 6, 8), d.f(2, 6, 8)), {"q_num_heads": 2, "kv_num_heads": 2})
    past = (d.f(1, 2, 3, 4), d.f(1, 2, 2, 4), d.f(1, 2, 2, 4), None, d.f(1, 2, 5, 4), d.f(1, 2, 5, 4))
    yield Example("Attention", past, outputs=3)
    yield Example("Attention", (*heads, None, None, None, ints(4, 6)))
    yield Example("RotaryEmbedding", (d.f(1, 2, 3, 4), d.f(9, 2), d.f(9, 2), d.z(9, 1, 3)), strict=(3,))
    for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        hidden: dict[str, Any] = {"hidden_size": 3}
        yield Example(op, (d.f(5, 2, 4), d.f(1, gates * 3, 4), d.f(1, gates * 3, 3)), hidden)
        both = (d.f(5, 2, 4), d.f(2, gates * 3, 4), d.f(2, gates * 3, 3), d.f(2, gates * 6), np.array([5, 3], np.int32))
        yield Example(op, both, hidden | {"direction": "bidirectional"}, strict=(4,))


def others(d: Draw) -> Iterator[Example]:
    scale, zero = one(0.1, np.float32), one(3, np.uint8)
    yield Example("QuantizeLinear", (d.f(2, 3), scale, zero))
    yield Example("DynamicQuantizeLinear", (d.f(2, 3),), outputs=3)
    yield Example("DequantizeLinear", (d.z(9, 2, 3, dtype=np.int8), scale, one(3, np.int8)))
    yield Example("DFT", (d.f(1, 8, 1), one(8), one(1)))
    yield Example("STFT", (d.f(1, 16, 1), one(4), d.f(8)))
    yield from (
        Example(op, (d.f(3, 5), d.z(5, 3)), {"reduction": "mean"}, strict=(1,))
        for op in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
    )
    yield Example("StringConcat", (text("a", "b"), text("c", "d")))
    yield Example("StringNormalizer", (text("Ab", "cD"),), {"case_change_action": "NONE"})
    yield Example("StringSplit", (text("a b", "c"),), outputs=2)
    yield Example("RegexFullMatch", (text("ab", "b"),), {"pattern": "a.*"})
    grams = {"mode": "TF", "min_gram_length": 1, "max_gram_length": 1, "max_skip_count": 0}
    grams |= {"ngram_counts": [0], "ngram_indexes": [0, 1], "pool_int64s": [2, 3]}
    yield Example("TfIdfVectorizer", (d.z(5, 6),), grams)


def sequences(d: Draw) -> Iterator[Example]:
    three = [d.f(2, 3), d.f(2, 3), d.f(2, 3)]
    yield Example("SequenceEmpty", ())
    yield Example("SequenceConstruct", (d.f(2, 3), d.f(2, 3)))
    yield Example("SplitToSequence", (d.f(6, 2), one(2)))
    yield Example("SequenceInsert", (three, d.f(2, 3), one(1)))
    yield Example("SequenceErase", (three, one(1)))
    yield Example("SequenceAt", (three, one(2)))
    yield Example("SequenceLength", (three,))
    yield Example("ConcatFromSequence", (three,), {"axis": 0})
    yield from (Example(op, (d.f(2, 3),)) for op in ("OptionalGetElement", "OptionalHasElement"))


def control(d: Draw) -> Iterator[Example]:
    yield Example("If", (one(1, bool),), {"then_branch": body(), "else_branch": body()})
    loop = body(("i", 7, []), ("c", 9, []), ("s", 1, [2]), outputs=("c", "s"))
    yield Example("Loop", (one(3), one(1, bool), d.f(2)), {"body": loop})
    scan = body(("s", 1, [2]), ("x", 1, [2]), outputs=("s", "x"))
    yield Example("Scan", (d.f(2), d.f(5, 2)), {"body": scan, "num_scan_inputs": 1}, outputs=2)
    yield Example("SequenceMap", ([d.f(2), d.f(2)],), {"body": body(("x", 1, [2]), outputs=("x",))})


def classical(d: Draw) -> Iterator[Example]:
    def ml(op: str, *inputs: Array, outputs: int = 1, **attributes: Any) -> Example:
        return Example(op, inputs, attributes, domain="ai.onnx.ml", outputs=outputs)

    yield ml("ArrayFeatureExtractor", d.f(2, 5), ints(1, 3))
    yield ml("Binarizer", d.f(2, 3))
    yield ml("CategoryMapper", ints(1, 2), cats_int64s=[1, 2], cats_strings=["a", "b"])
    yield ml("FeatureVectorizer", d.f(2, 3), d.f(2, 2), inputdimensions=[3, 2])
    yield ml("Imputer", d.f(2, 3), imputed_value_floats=[0.0])
    yield ml("LabelEncoder", ints(1, 2), classes_strings=["a", "b", "c"])
    plane = {"coefficients": [1.0, 2.0, 3.0, 3.0, 2.0, 1.0], "intercepts": [0.0, 1.0], "classlabels_ints": [0, 1]}
    yield ml("LinearClassifier", d.f(2, 3), outputs=2, **plane)
    yield ml("LinearRegressor", d.f(2, 3), coefficients=[1.0, 2.0, 3.0], intercepts=[1.0])
    yield ml("Normalizer", d.f(2, 3), norm="L2")
    yield ml("OneHotEncoder", ints(1, 2), cats_int64s=[1, 2])
    yield ml("Scaler", d.f(2, 3), offset=[0.0], scale=[2.0])


def contrib(d: Draw) -> Iterator[Example]:
    """The runtime's own operators."""

    def ms(op: str, *inputs: Array | None, **attributes: Any) -> Example:
        return Example(op, inputs, attributes, domain="com.microsoft")

    yield ms("FusedConv", d.f(2, 4, 7, 6), d.f(6, 2, 3, 2), d.f(6), group=2, pads=[1, 0, 2, 1], activation="Relu")
    yield ms("FusedGemm", d.f(3, 4), d.f(4, 5), d.f(5), activation="LeakyRelu", activation_alpha=0.1)
    yield ms("FusedMatMul", d.f(2, 3, 4), d.f(2, 5, 4), alpha=0.5, transB=1)
    yield ms("FusedMatMul", d.f(2, 4, 3), d.f(4, 5), transA=1)
    yield ms("Attention", d.f(2, 3, 8), d.f(8, 14), d.f(14), num_heads=2, qkv_hidden_sizes=[4, 4, 6])
    yield ms("MultiHeadAttention", d.f(2, 3, 8), d.f(2, 5, 8), d.f(2, 5, 6), num_heads=2)
    yield ms("SkipLayerNormalization", d.f(2, 3, 4), d.f(2, 3, 4), d.f(4), d.f(4), epsilon=1e-5)
    yield ms("SkipSimplifiedLayerNormalization", d.f(2, 3, 4), d.f(2, 3, 4), d.f(4), epsilon=1e-5)
    yield ms("BiasGelu", d.f(2, 4), d.f(4))
    yield ms("FastGelu", d.f(2, 4), d.f(4))
    yield ms("Gelu", d.f(2, 4))
    yield ms("QuickGelu", d.f(2, 4), alpha=1.5)
    steps = (one(0.1, np.float32), one(3, np.uint8))

    def u(*shape: int) -> tuple[Array, ...]:
        return d.z(255, *shape, dtype=np.uint8), *steps

    yield ms("QGemm", *u(3, 4), *u(4, 5), None, *steps, transA=0)
    yield from (ms(op, *u(2, 3), *u(2, 3), *steps) for op in ("QLinearAdd", "QLinearMul"))
    yield from (ms(op, *u(2, 3), *steps) for op in ("QLinearSigmoid", "QLinearLeakyRelu"))
    yield ms("QLinearGlobalAveragePool", *u(1, 2, 3, 3), *steps, channels_last=0)


def body(*inputs: tuple[str, int, Sequence[int]], outputs: Sequence[str] = ()) -> ir.Graph:
    """A graph that passes inputs on, or gives a constant."""
    values = {n: ir.Value(name=n, type=ir.TensorType(ir.DataType(t)), shape=ir.Shape(s)) for n, t, s in inputs}
    nodes = [ir.node("Identity", [values[n]]) for n in outputs] or [ir.node("Constant", [], {"value_float": 3.0})]
    for k, node in enumerate(nodes):
        node.outputs[0].name = f"result{k}"
        source = node.inputs[0] if node.inputs else None
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT) if source is None else source.type
        node.outputs[0].shape = ir.Shape([]) if source is None or source.shape is None else source.shape.copy()
    return ir.Graph(list(values.values()), [n.outputs[0] for n in nodes], nodes=nodes, name="body")


FAMILIES = (
    pointwise,
    products,
    normalizations,
    images,
    layouts,
    indexed,
    sources,
    attentions,
    others,
    sequences,
    control,
    classical,
    contrib,
)

NO_KERNEL = "the runtime has no kernel for it"
TRAINING = "only runs in training builds of the runtime"
FITTED = "needs a fitted model, and every fact but its summary is a default"
WITHOUT: Mapping[tuple[str, str], str] = {
    ("", "CausalConvWithState"): NO_KERNEL,
    ("", "ImageDecoder"): NO_KERNEL,
    ("", "LinearAttention"): NO_KERNEL,
    ("", "SwiGLU"): NO_KERNEL,
    ("", "Swish"): NO_KERNEL,
    ("ai.onnx.preview", "FlexAttention"): NO_KERNEL,
    ("ai.onnx.preview.training", "Adagrad"): TRAINING,
    ("ai.onnx.preview.training", "Adam"): TRAINING,
    ("ai.onnx.preview.training", "Gradient"): TRAINING,
    ("ai.onnx.preview.training", "Momentum"): TRAINING,
    ("ai.onnx.ml", "CastMap"): "takes a map, which no feed can hold",
    ("ai.onnx.ml", "DictVectorizer"): "takes a map, which no feed can hold",
    ("ai.onnx.ml", "SVMClassifier"): FITTED,
    ("ai.onnx.ml", "SVMRegressor"): FITTED,
    ("ai.onnx.ml", "TreeEnsemble"): FITTED,
    ("ai.onnx.ml", "TreeEnsembleClassifier"): FITTED,
    ("ai.onnx.ml", "TreeEnsembleRegressor"): FITTED,
    ("com.microsoft", "MatMulNBits"): "its weights are packed bytes: what writes them is run against the floats",
    ("ai.onnx.ml", "ZipMap"): "gives a map, which has no elements to compare",
}
"""Operators without an example, and why."""
