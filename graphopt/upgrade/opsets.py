"""Which versions of the standard operators mean the same as the version before, and which cannot be reached.

Every version above 7 is here or in `adapters.ADAPTERS`. A valid node of the version before means the same in a version
that is HARMLESS: that one has more types, new attributes whose default is what was done before, new optional inputs, or
clearer words. Read in the texts of both versions; that the form is a wider one is tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["HARMLESS", "LACKING", "REFUSED", "ROUNDED"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


REFUSED: Mapping[tuple[str, int], str] = MappingProxyType(
    {
        ("GroupNormalization", 21): "scale and bias are those of channels in the new form",
        ("Scan", 9): "it has a batch axis, which the new form has not",
    }
)


ROUNDED: Mapping[str, int] = MappingProxyType({"AveragePool": 19})
"""Operators that onnxruntime's kernel adds up in another order from a version on, though they mean the same."""

LACKING: Mapping[int, frozenset[str]] = MappingProxyType(
    {
        22: _names(
            "Bernoulli GlobalLpPool MaxRoiPool Multinomial RandomNormal RandomNormalLike RandomUniform "
            "RandomUniformLike RoiAlign"
        )
    }
)
"""Versions that mean the same, but that onnxruntime has no kernel for."""

HARMLESS: Mapping[int, frozenset[str]] = MappingProxyType(
    {
        8: _names("Max MaxPool Mean Min Sum"),
        9: _names("Cast Constant Flatten Gemm Greater Less MatMul PRelu"),
        10: _names("AveragePool MaxPool"),
        11: _names(
            "ArgMax ArgMin AveragePool Compress Concat Constant Conv DepthToSpace Equal Flatten Gather Gemm "
            "Hardmax If LogSoftmax Loop LpPool MaxPool MaxUnpool NonMaxSuppression ReduceL1 ReduceL2 "
            "ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare "
            "Scan Slice Softmax Split Squeeze TopK Unsqueeze"
        ),
        12: _names("ArgMax ArgMin Clip Constant GatherND Max MaxPool Min Pow ReduceMax ReduceMin"),
        13: _names(
            "Abs Add ArgMax ArgMin Cast Ceil Clip Concat Constant DepthToSpace DequantizeLinear Div Dropout "
            "Equal Exp Expand Flatten Floor Gather GatherElements GatherND Gemm Greater Identity If IsNaN LRN "
            "Less Log Loop MatMul Max Mean MeanVarianceNormalization Min Mod Mul Neg "
            "NegativeLogLikelihoodLoss NonZero Pad Pow QuantizeLinear Reciprocal ReduceL1 ReduceL2 "
            "ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare Relu "
            "Reshape ScatterElements ScatterND Shape Sigmoid Sign Size Slice SoftmaxCrossEntropyLoss "
            "SpaceToDepth Sqrt Sub Sum Tanh Tile Transpose"
        ),
        14: _names("Add CumSum Div GRU Identity LSTM Mul RNN Relu Reshape Sub"),
        15: _names("BatchNormalization Pow Shape"),
        16: _names("GreaterOrEqual Identity If LeakyRelu LessOrEqual Loop PRelu Scan ScatterElements ScatterND Where"),
        18: _names("LpPool OptionalGetElement OptionalHasElement Pad Resize ScatterElements ScatterND"),
        19: _names(
            "AveragePool Cast CastLike Constant DequantizeLinear Equal Identity If Loop Pad Reshape Resize "
            "Scan Shape Size"
        ),
        20: _names("ConstantOfShape IsInf IsNaN ReduceMax ReduceMin"),
        21: _names(
            "Cast CastLike Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad "
            "QLinearMatMul QuantizeLinear Reshape Scan Shape Size Squeeze Transpose Unsqueeze"
        ),
        22: _names(
            "Acos Acosh Asin Asinh Atan Atanh Bernoulli Conv ConvTranspose Cos Cosh DeformConv Det Dropout "
            "Elu EyeLike GRU GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample HardSigmoid HardSwish "
            "InstanceNormalization LSTM LpNormalization LpPool MaxRoiPool MaxUnpool Mish Multinomial "
            "NegativeLogLikelihoodLoss RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike "
            "RoiAlign Round Selu Sin Sinh Softplus Softsign Tan ThresholdedRelu"
        ),
        23: _names(
            "Cast CastLike Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad "
            "QuantizeLinear Reshape Scan Shape Size Squeeze Transpose Unsqueeze"
        ),
        24: _names(
            "Attention Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad QuantizeLinear "
            "Reshape Scan Shape Size SplitToSequence Squeeze TopK Transpose Unsqueeze"
        ),
        25: _names(
            "Attention Cast CastLike Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad "
            "QuantizeLinear Reshape Scan Shape Size Squeeze Transpose Unsqueeze"
        ),
        28: _names(
            "BitShift Cast Celu Compress DepthToSpace DequantizeLinear Einsum Mod OneHot Optional "
            "OptionalGetElement OptionalHasElement QuantizeLinear ReverseSequence SpaceToDepth Unique"
        ),
    }
)
