"""Where a negative zero makes another difference than the sign of a zero.

−0 = 0, and for most operators the sign of a zero in an input is seen in the sign of a zero in the output, if at all.
A few tell the two apart: 1 / −0 = −∞. Behind a sum of many terms nothing is seen: their order decides. Source: IEEE
754-2019, sections 6.3 and 7.3.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphopt.graph.nodes import array, graphs, input_at
from graphopt.ops.table import spec_of

__all__ = ["seen_signs"]

_SAME = """
    Abs ArgMax ArgMin Cos Cosh Equal Exp Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual LogSoftmax
    NonZero QuantizeLinear Shape Sigmoid Size Softmax Softplus
"""
_SUMMED = """
    Attention AveragePool Conv ConvTranspose Einsum Gemm GlobalAveragePool GlobalLpPool GroupNormalization
    InstanceNormalization LRN LayerNormalization LpNormalization LpPool MatMul Mean MeanVarianceNormalization
    RMSNormalization ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMean ReduceSum ReduceSumSquare
"""
_SIGNED = """
    Add Asin Asinh Atan Atanh BatchNormalization Ceil Celu Clip Compress Concat CumSum DepthToSpace Dropout Elu Erf
    Expand Flatten Floor Gather GatherElements GatherND Gelu GlobalMaxPool HardSigmoid HardSwish Identity LeakyRelu
    Log Max MaxPool Min Mish Mul Neg OneHot PRelu Pad Range ReduceMax ReduceMin ReduceProd Relu Reshape Resize
    RotaryEmbedding Round ScatterElements ScatterND Selu Shrink Sign Sin Sinh Slice Softsign SpaceToDepth Split Sqrt
    Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where
"""

_HIDES = frozenset(_SAME.split())
"""The output is the same for both zeros."""
_SUMS = frozenset(_SUMMED.split())
"""The order in which they add decides about the signs of zeros in the output."""
_CARRIES = frozenset(_SIGNED.split())
"""The output is the same but for the signs of its zeros."""


_DIVISORS = {"BatchNormalization": 4, "Div": 1, "QuantizeLinear": 1}
"""Inputs that something is divided by."""


def seen_signs(model: ir.Model) -> frozenset[ir.Value]:
    """The values of the model's main graph and bodies whose zeros must keep their sign: something tells them apart.

    That is an operator, or whoever reads an output. Found backwards, in one walk over each graph.
    """
    seen: set[ir.Value] = set()
    for graph in reversed(list(graphs(model))):
        seen.update(graph.outputs)
        for node in reversed(graph):
            told = any(value in seen for value in node.outputs)
            for index, value in enumerate(node.inputs):
                if value is not None and (_tells(node, index) or (told and not _hides(node, index))):
                    seen.add(value)
                elif value is not None and value.graph is not graph:
                    seen.add(value)  # a body may run more than once, and read what it made itself
    return frozenset(seen)


def _tells(node: ir.Node, index: int) -> bool:
    """Whether an input's zeros of both signs give different numbers."""
    if spec_of(node) is None or any(a.is_ref() for a in node.attributes.values()):
        return True
    if node.op_type in _DIVISORS:
        return index == _DIVISORS[node.op_type]
    if node.op_type == "Pow":
        exponent = array(input_at(node, 1))
        return index == 0 and (exponent is None or bool(np.any(exponent < 0)))
    if node.op_type in {"Cast", "CastLike"}:
        return node.outputs[0].dtype is None or node.outputs[0].dtype is ir.DataType.STRING
    return node.op_type not in _CARRIES | _SUMS | _HIDES


def _hides(node: ir.Node, index: int) -> bool:
    """Whether the output is the same for both zeros of an input, or its zeros are signed by chance."""
    if node.op_type in {"Add", "Sub"}:
        other = array(input_at(node, 1 - index))
        return other is not None and bool(np.all(other != 0))
    if node.op_type == "Pow":
        exponent = array(input_at(node, 1))
        return index == 1 or (exponent is not None and bool(np.all(exponent % 2 == 0)))
    if node.op_type in {"Cast", "CastLike"}:
        dtype = node.outputs[0].dtype
        return dtype is not None and (dtype.is_integer() or dtype is ir.DataType.BOOL)
    return node.op_type in _HIDES or node.op_type in _SUMS
