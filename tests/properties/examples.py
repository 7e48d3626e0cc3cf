"""One or more small concrete uses of every operator, as data: what the property tests run over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[Any]
SEED = 20


@dataclass(frozen=True, eq=False)
class Const:
    """An input that is an initializer of the model."""

    array: Array


@dataclass(frozen=True, eq=False)
class Example:
    """A model of one node. Lists of arrays are sequences, None an input left out."""

    op: str
    inputs: tuple[Array | list[Array] | Const | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = ""
    outputs: int = 1
    opset: int | None = None
    strict: tuple[int, ...] = ()
    """Inputs where the operator refuses what lies outside of the admitted domain."""

    def __str__(self) -> str:
        details = ",".join(f"{k}={v}" for k, v in self.attributes.items() if not isinstance(v, ir.Graph))
        return f"{self.op}({details})"

    @property
    def arrays(self) -> list[Array | list[Array] | None]:
        return [v.array if isinstance(v, Const) else v for v in self.inputs]

    def feed(self) -> dict[str, Any]:
        return {f"in{i}": v for i, v in enumerate(self.inputs) if v is not None and not isinstance(v, Const)}

    def model(self) -> ir.Model:
        """The node alone in a graph; its inputs are named in0, in1, …, its outputs out0, out1, …"""
        values = [None if v is None else _value(f"in{i}", v) for i, v in enumerate(self.inputs)]
        node = ir.node(
            self.op, values, dict(self.attributes), domain=self.domain, num_outputs=self.outputs, name="node"
        )
        for i, output in enumerate(node.outputs):
            output.name = f"out{i}"
        given = [v for v in values if v is not None]
        graph = ir.Graph(
            [v for v in given if v.const_value is None],
            node.outputs,
            nodes=[node],
            initializers=[v for v in given if v.const_value is not None],
            opset_imports={"": self.opset or newest_opset(), **({self.domain: 1} if self.domain else {})},
            name=self.op,
        )
        return ir.Model(graph, ir_version=10)

    def run(self, feed: Mapping[str, Any] | None = None) -> list[Any]:
        return run(self.model(), self.feed() if feed is None else feed)


def _value(name: str, content: Array | list[Array] | Const) -> ir.Value:
    if isinstance(content, Const):
        tensor = ir.tensor(content.array, name=name)
        return ir.Value(
            name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(content.array.shape)
        )
    if isinstance(content, list):
        return ir.Value(name=name, type=ir.SequenceType(ir.TensorType(ir.DataType.from_numpy(content[0].dtype))))
    dtype = ir.DataType.STRING if content.dtype.kind in "UO" else ir.DataType.from_numpy(content.dtype)
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(content.shape))


@cache
def newest_opset() -> int:
    """The newest opset that the installed runtime accepts."""
    for opset in range(onnx.defs.onnx_opset_version(), 0, -1):
        try:
            Example("Identity", (np.zeros(1, np.float32),), opset=opset).run()
        except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
            continue
        return opset
    raise AssertionError("the runtime accepts no opset")


def session(model: ir.Model) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(model: ir.Model, feed: Mapping[str, Any]) -> list[Any]:
    """All outputs of one run, computed as the graph says."""
    return list(session(model).run(None, dict(feed)))


def flat(value: Any) -> Array:
    """All elements of a tensor, or of the tensors of a sequence."""
    parts = value if isinstance(value, list) else [value]
    parts = parts or [np.zeros(0)]
    return np.concatenate([np.asarray(p).reshape(-1) for p in parts])


# -- the table ------------------------------------------------------------------------------------------------------

UNARY = """Abs Asinh Atan Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish IsInf IsNaN LeakyRelu Mish Neg
    Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Tan Tanh ThresholdedRelu
    Identity Shape Size Flatten Transpose Softmax LogSoftmax Hardmax LpNormalization MeanVarianceNormalization ArgMax
    ArgMin NonZero Unique ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare Dropout SequenceConstruct Optional"""
POSITIVE = "Acos Asin Atanh Log Sqrt ReduceLogSum"
BINARY = "Add Sub Mul Div Equal Greater GreaterOrEqual Less LessOrEqual Max Min Sum Mean Pow PRelu CastLike Mod"


def examples() -> Iterator[Example]:
    """All examples; every call gives the same."""
    draw = np.random.default_rng(SEED)

    def f(*shape: int) -> Array:
        return draw.standard_normal(shape).astype(np.float32)

    def p(*shape: int) -> Array:
        return draw.uniform(0.1, 0.9, shape).astype(np.float32)

    def z(high: int, *shape: int, dtype: type = np.int64) -> Array:
        return draw.integers(0, high, shape).astype(dtype)

    def i(*numbers: int) -> Array:
        return np.array(numbers, np.int64)

    def one(number: float, dtype: type = np.int64) -> Array:
        return np.array(number, dtype)

    def b(*shape: int) -> Array:
        return draw.integers(0, 2, shape).astype(bool)

    def text(*words: str) -> Array:
        return np.array(words, dtype=object)

    u8, i8 = np.uint8, np.int8
    yield from (Example(op, (f(2, 3, 4),)) for op in UNARY.split())
    yield from (Example(op, (p(2, 3, 4),)) for op in POSITIVE.split())
    yield Example("Acosh", (p(2, 3) + 1,))
    yield from (Example(op, (p(2, 3, 4), p(2, 3, 4)), {"fmod": 1} if op == "Mod" else {}) for op in BINARY.split())
    yield from (Example(op, (f(2, 3), f(2, 3), f(2, 3))) for op in ("Max", "Min", "Sum", "Mean"))
    yield from (Example(op, (z(9, 40) + 1, z(9, 40) + 1)) for op in ("Div", "Mod", "Add", "Max"))
    yield from (Example(op, (b(8), b(8))) for op in ("And", "Or", "Xor", "Equal"))
    yield from (Example(op, (z(99, 8), z(99, 8))) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"))
    yield from (
        Example("BitShift", (z(99, 8, dtype=u8), z(8, 8, dtype=u8)), {"direction": d}) for d in ("LEFT", "RIGHT")
    )
    yield Example("Not", (b(8),))
    yield Example("BitwiseNot", (z(99, 8),))
    yield Example("Cast", (z(99, 8),), {"to": 1})
    yield Example("BitCast", (f(8),), {"to": 6})
    yield Example("Clip", (f(2, 3, 4), one(-0.5, np.float32), one(0.5, np.float32)))
    yield Example("Where", (b(2, 3), f(2, 3), f(1, 3)))

    # convolutions and products
    yield Example("Conv", (f(2, 4, 7, 6), f(6, 2, 3, 2), f(6)), {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1]})
    yield Example("Conv", (f(1, 3, 9), f(2, 3, 3)), {"dilations": [2]})
    yield Example("Conv", (f(1, 2, 5, 4, 4), f(3, 2, 3, 2, 2)), {"auto_pad": "SAME_UPPER"})
    transposed = {"group": 2, "pads": [1, 0, 0, 1], "strides": [2, 1], "output_padding": [1, 0]}
    yield Example("ConvTranspose", (f(2, 4, 4, 3), f(4, 3, 3, 2), f(6)), transposed)
    yield Example("ConvTranspose", (f(1, 3, 5), f(3, 2, 3)), {"dilations": [2]})
    yield Example("ConvInteger", (z(9, 1, 2, 5, 5, dtype=u8), z(9, 3, 2, 3, 3, dtype=u8)))
    scale, zero = one(0.1, np.float32), one(3, u8)
    quantized = (z(255, 1, 2, 5, 5, dtype=u8), scale, zero, z(255, 3, 2, 3, 3, dtype=u8), scale, zero, scale, zero)
    yield Example("QLinearConv", quantized)
    yield Example("DeformConv", (f(1, 2, 5, 5), f(3, 2, 3, 3), np.zeros((1, 18, 3, 3), np.float32), f(3)))
    yield Example("Col2Im", (f(1, 10, 15), i(5, 5), i(1, 5)), {"pads": [0, 1, 0, 1]})
    yield Example("Gemm", (f(3, 4), f(4, 5), f(5)))
    yield Example("Gemm", (f(4, 3), f(5, 4), f(3, 1)), {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0})
    yield Example("MatMul", (f(2, 3, 4), f(4, 5)))
    yield Example("MatMul", (f(2, 1, 3, 4), f(5, 4, 2)))
    yield Example("MatMul", (f(4), f(4, 2)))
    yield Example("MatMulInteger", (z(9, 3, 4, dtype=u8), z(9, 4, 5, dtype=u8)))
    yield Example("QLinearMatMul", (z(9, 3, 4, dtype=u8), scale, zero, z(9, 4, 5, dtype=u8), scale, zero, scale, zero))
    yield Example("Einsum", (f(2, 3, 4), f(2, 4, 5)), {"equation": "bij,bjk->bik"})
    yield Example("Einsum", (f(2, 3, 4), f(4, 5)), {"equation": "...i, ij -> ...j"})
    yield Example("Einsum", (f(3, 3),), {"equation": "ii->i"})
    yield Example("Det", (f(2, 3, 3),))

    # normalizations
    channel = (f(3), f(3))
    yield Example("BatchNormalization", (f(2, 3, 4), *channel, f(3), p(3)))
    yield Example("BatchNormalization", (f(2, 3, 4), *channel, f(3), p(3)), {"training_mode": 1}, outputs=3)
    yield Example("InstanceNormalization", (f(2, 3, 4), *channel))
    yield Example("GroupNormalization", (f(2, 6, 4), f(6), f(6)), {"num_groups": 3})
    yield Example("LayerNormalization", (f(2, 3, 4), f(4), f(4)))
    yield Example("RMSNormalization", (f(2, 3, 4), f(4)))
    yield Example("LRN", (f(2, 5, 3, 3),), {"size": 3})

    # pooling and images
    yield from (Example(op, (f(2, 3, 4, 5),)) for op in ("GlobalAveragePool", "GlobalMaxPool"))
    yield Example("GlobalLpPool", (f(2, 3, 4, 5),), opset=21)
    window = {"kernel_shape": [2, 3], "strides": [2, 1], "pads": [0, 1, 1, 1]}
    yield Example("MaxPool", (f(1, 2, 6, 6),), window, outputs=2)
    yield from (Example(op, (f(1, 2, 6, 6),), window) for op in ("AveragePool", "LpPool"))
    yield Example(
        "MaxUnpool", (f(1, 1, 2, 2), np.array([[[[0, 3], [10, 13]]]])), {"kernel_shape": [2, 2], "strides": [2, 2]}
    )
    yield Example("Resize", (f(1, 2, 3, 3), None, np.array([1, 1, 2, 1.5], np.float32)))
    yield Example("Resize", (f(1, 2, 3, 3), None, None, Const(i(1, 2, 5, 4))), {"mode": "linear"})
    yield Example("Upsample", (f(1, 2, 3, 3), np.array([1, 1, 2, 2], np.float32)), opset=9)
    yield Example("AffineGrid", (f(2, 2, 3), Const(i(2, 3, 4, 5))))
    yield Example("GridSample", (f(1, 2, 4, 4), p(1, 3, 3, 2)))
    boxes = np.array([[0, 0, 3, 3], [1, 1, 4, 4]], np.float32)
    yield Example(
        "RoiAlign", (f(2, 3, 6, 6), boxes, z(2, 2)), {"output_height": 2, "output_width": 2}, opset=21, strict=(2,)
    )
    regions = np.array([[0, 0, 0, 3, 3]], np.float32)
    yield Example("MaxRoiPool", (f(1, 3, 6, 6), regions), {"pooled_shape": [2, 2]}, opset=21)
    limits = (one(2), one(0.5, np.float32), one(0.1, np.float32))
    yield Example("NonMaxSuppression", (boxes[None], p(1, 1, 2), *limits))

    # layout
    yield Example("Transpose", (f(2, 3, 4),), {"perm": [1, 2, 0]})
    yield Example("DepthToSpace", (f(1, 8, 2, 3),), {"blocksize": 2})
    yield Example("SpaceToDepth", (f(1, 2, 4, 6),), {"blocksize": 2})
    yield Example("Reshape", (f(2, 3, 4), Const(i(0, -1))))
    yield Example("Reshape", (f(24), i(24)))
    yield Example("Squeeze", (f(1, 3), i(0)))
    yield Example("Unsqueeze", (f(2, 3), i(0)))
    yield Example("Concat", (f(2, 3), f(2, 1), f(2, 2)), {"axis": 1})
    yield Example("Split", (f(6, 2),), {"num_outputs": 3}, outputs=3)
    yield Example("Slice", (f(5, 6), i(1), i(4), i(1), i(2)))
    yield Example("Expand", (f(3, 1), i(2, 1, 4)))
    yield Example("Tile", (f(2, 3), i(2, 2)))
    yield Example("Pad", (f(2, 3), i(0, 1, 1, 0), one(7, np.float32)))
    yield Example("Trilu", (f(4, 4), one(1)))
    yield Example("CenterCropPad", (f(4, 4), i(2, 5)))

    # indices
    yield Example("Gather", (f(5, 3), z(5, 2, 2)), strict=(1,))
    yield Example("Gather", (f(3, 4), z(4, 2)), {"axis": -1}, strict=(1,))
    yield Example("GatherElements", (f(3, 4), z(3, 2, 4)), strict=(1,))
    yield Example("GatherND", (f(3, 4, 2), z(3, 5, 2)), strict=(1,))
    yield Example("GatherND", (f(2, 3, 4), z(3, 2, 1)), {"batch_dims": 1}, strict=(1,))
    yield Example("Scatter", (f(3, 4), z(3, 2, 4), f(2, 4)), opset=9, strict=(1,))
    yield Example("ScatterElements", (f(3, 4), z(3, 2, 4), f(2, 4)), strict=(1,))
    yield Example("ScatterElements", (f(3, 4), z(3, 2, 4), f(2, 4)), {"reduction": "add"}, strict=(1,))
    yield Example("ScatterND", (f(3, 4), z(3, 2, 1), f(2, 4)), strict=(1,))
    yield Example("TensorScatter", (f(2, 5, 3), f(2, 2, 3), z(3, 2)), strict=(2,))
    yield Example("OneHot", (z(3, 4), one(3), np.array([0.5, 2.5], np.float32)))
    yield Example("OneHot", (z(3, 4), Const(one(3)), np.array([0.5, 2.5], np.float32)))
    yield Example("ReverseSequence", (f(4, 2, 3), i(2, 4)), strict=(1,))
    yield Example("Compress", (f(4, 3), np.array([True, False, True])), {"axis": 0})
    yield Example("TopK", (f(2, 5), i(3)), outputs=2, strict=(1,))
    yield from (Example(op, (f(2, 3), one(1))) for op in ("CumSum", "CumProd"))
    yield from (Example(op, (f(2, 3, 4), i(1))) for op in ("ReduceSum", "ReduceMax", "ReduceMean"))

    # made from a shape or nothing
    yield Example("Constant", (), {"value_floats": [1.0, 2.0]})
    yield Example("ConstantOfShape", (i(2, 3),), {"value": ir.tensor([2.0])})
    yield Example("Range", (one(0), one(7), one(2)))
    yield Example("EyeLike", (f(3, 4),))
    yield from (Example(op, (one(8),)) for op in ("BlackmanWindow", "HammingWindow", "HannWindow"))
    yield Example("MelWeightMatrix", (one(4), one(16), one(8000), one(0.0, np.float32), one(3000.0, np.float32)))
    yield from (Example(op, (), {"shape": [2, 3]}, opset=21) for op in ("RandomNormal", "RandomUniform"))
    yield from (Example(op, (f(9),), opset=21) for op in ("RandomNormalLike", "RandomUniformLike"))
    yield Example("Multinomial", (f(2, 9),), {"sample_size": 20}, opset=21)
    yield Example("Bernoulli", (p(9, 9),), opset=21)
    yield Example("Dropout", (f(9, 9), one(0.5, np.float32), one(1, bool)))

    # attention and recurrent layers
    heads = (f(2, 4, 3, 5), f(2, 2, 6, 5), f(2, 2, 6, 7))
    yield Example("Attention", heads)
    yield Example("Attention", (f(2, 3, 8), f(2, 6, 8), f(2, 6, 8)), {"q_num_heads": 2, "kv_num_heads": 2})
    past = (f(1, 2, 3, 4), f(1, 2, 2, 4), f(1, 2, 2, 4), None, f(1, 2, 5, 4), f(1, 2, 5, 4))
    yield Example("Attention", past, outputs=3)
    yield Example("Attention", (*heads, None, None, None, i(4, 6)))
    yield Example("RotaryEmbedding", (f(1, 2, 3, 4), f(9, 2), f(9, 2), z(9, 1, 3)), strict=(3,))
    for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        hidden: dict[str, Any] = {"hidden_size": 3}
        yield Example(op, (f(5, 2, 4), f(1, gates * 3, 4), f(1, gates * 3, 3)), hidden)
        both = (f(5, 2, 4), f(2, gates * 3, 4), f(2, gates * 3, 3), f(2, gates * 6), np.array([5, 3], np.int32))
        yield Example(op, both, hidden | {"direction": "bidirectional"}, strict=(4,))

    # quantizers, spectra, losses, strings
    yield Example("QuantizeLinear", (f(2, 3), scale, zero))
    yield Example("DynamicQuantizeLinear", (f(2, 3),), outputs=3)
    yield Example("DequantizeLinear", (z(9, 2, 3, dtype=i8), scale, one(3, i8)))
    yield Example("DFT", (f(1, 8, 1), one(8), one(1)))
    yield Example("STFT", (f(1, 16, 1), one(4), f(8)))
    yield from (
        Example(op, (f(3, 5), z(5, 3)), {"reduction": "mean"}, strict=(1,))
        for op in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
    )
    yield Example("StringConcat", (text("a", "b"), text("c", "d")))
    yield Example("StringNormalizer", (text("Ab", "cD"),), {"case_change_action": "NONE"})
    yield Example("StringSplit", (text("a b", "c"),), outputs=2)
    yield Example("RegexFullMatch", (text("ab", "b"),), {"pattern": "a.*"})
    grams = {"mode": "TF", "min_gram_length": 1, "max_gram_length": 1, "max_skip_count": 0}
    grams |= {"ngram_counts": [0], "ngram_indexes": [0, 1], "pool_int64s": [2, 3]}
    yield Example("TfIdfVectorizer", (z(5, 6),), grams)

    # sequences and optionals
    three = [f(2, 3), f(2, 3), f(2, 3)]
    yield Example("SequenceEmpty", ())
    yield Example("SequenceConstruct", (f(2, 3), f(2, 3)))
    yield Example("SplitToSequence", (f(6, 2), one(2)))
    yield Example("SequenceInsert", (three, f(2, 3), one(1)))
    yield Example("SequenceErase", (three, one(1)))
    yield Example("SequenceAt", (three, one(2)))
    yield Example("SequenceLength", (three,))
    yield Example("ConcatFromSequence", (three,), {"axis": 0})
    yield from (Example(op, (f(2, 3),)) for op in ("OptionalGetElement", "OptionalHasElement"))

    # control flow
    yield Example("If", (one(1, bool),), {"then_branch": body(), "else_branch": body()})
    loop = body(("i", 7, []), ("c", 9, []), ("s", 1, [2]), outputs=("c", "s"))
    yield Example("Loop", (one(3), one(1, bool), f(2)), {"body": loop})
    scan = body(("s", 1, [2]), ("x", 1, [2]), outputs=("s", "x"))
    yield Example("Scan", (f(2), f(5, 2)), {"body": scan, "num_scan_inputs": 1}, outputs=2)
    yield Example("SequenceMap", (three,), {"body": body(("x", 1, [2, 3]), outputs=("x",))})

    # classical machine learning
    def ml(op: str, *inputs: Array, outputs: int = 1, **attributes: Any) -> Example:
        return Example(op, inputs, attributes, domain="ai.onnx.ml", outputs=outputs)

    yield ml("ArrayFeatureExtractor", f(2, 5), i(1, 3))
    yield ml("Binarizer", f(2, 3))
    yield ml("CategoryMapper", i(1, 2), cats_int64s=[1, 2], cats_strings=["a", "b"])
    yield ml("FeatureVectorizer", f(2, 3), f(2, 2), inputdimensions=[3, 2])
    yield ml("Imputer", f(2, 3), imputed_value_floats=[0.0])
    yield ml("LabelEncoder", i(1, 2), classes_strings=["a", "b", "c"])
    plane = {"coefficients": [1.0, 2.0, 3.0, 3.0, 2.0, 1.0], "intercepts": [0.0, 1.0], "classlabels_ints": [0, 1]}
    yield ml("LinearClassifier", f(2, 3), outputs=2, **plane)
    yield ml("LinearRegressor", f(2, 3), coefficients=[1.0, 2.0, 3.0], intercepts=[1.0])
    yield ml("Normalizer", f(2, 3), norm="L2")
    yield ml("OneHotEncoder", i(1, 2), cats_int64s=[1, 2])
    yield ml("Scaler", f(2, 3), offset=[0.0], scale=[2.0])


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
    ("ai.onnx.ml", "ZipMap"): "gives a map, which has no elements to compare",
}
"""Operators without an example, and why."""
