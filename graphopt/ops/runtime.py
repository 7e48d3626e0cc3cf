"""Operators of onnxruntime's own, domain com.microsoft: what the second rewrite puts in for a target that takes them.

None of them is `linear`: what they compute behind the product could not be told from what a rule puts there.
Source: onnxruntime, docs/ContribOperators.md.
"""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from graphopt.graph.nodes import attr
from graphopt.ops.spec import OpSpec, ShapeOf, family

__all__ = ["DOMAIN", "SPECS"]

DOMAIN = "com.microsoft"


def _fused_conv(node: ir.Node, shape: ShapeOf) -> int | None:
    """As for Conv: one product per output element and weight of its channel."""
    y, w = shape(node.outputs[0]), shape(node.inputs[1])
    return None if y is None or w is None else prod(y) * prod(w[1:])


def _product(node: ir.Node, shape: ShapeOf) -> int | None:
    """Each output element sums over the last axis of the left operand, or the one before if that is transposed."""
    a, y = shape(node.inputs[0]), shape(node.outputs[0])
    return None if not a or y is None else prod(y) * a[-2 if attr(node, "transA", 0) else -1]


def _unpacked(node: ir.Node, shape: ShapeOf) -> int | None:
    """Each output element sums over the last axis of the data."""
    y = shape(node.outputs[0])
    return None if y is None else prod(y) * int(attr(node, "K", 0))


def _attention(node: ir.Node, shape: ShapeOf) -> int | None:
    """The product with the packed weights, Q·Kᵀ, and its product with V."""
    x, w, y = shape(node.inputs[0]), shape(node.inputs[1]), shape(node.outputs[0])
    if x is None or w is None or y is None:
        return None
    batch, length, _ = x
    return batch * length * (prod(w) + length * ((w[1] - y[-1]) // 2 + y[-1]))


def _multi_head(node: ir.Node, shape: ShapeOf) -> int | None:
    """Q·Kᵀ, and its product with V: each over the keys of a sample."""
    q, k, v = (shape(value) for value in node.inputs[:3])
    return None if q is None or k is None or v is None else prod(q[:2]) * k[1] * (q[2] + v[2])


SPECS = (
    OpSpec(op="FusedConv", domain=DOMAIN, summary="activation(W ⋆ X + B)", macs=_fused_conv),
    OpSpec(op="FusedGemm", domain=DOMAIN, summary="activation(alpha·A'·B' + beta·C)", macs=_product),
    OpSpec(op="FusedMatMul", domain=DOMAIN, summary="alpha·A'·B' over the last two axes", macs=_product),
    OpSpec(
        op="Attention",
        domain=DOMAIN,
        summary="softmax(scale · Q·Kᵀ + mask) · V of packed heads, with Q, K, V = X·W + B side by side",
        macs=_attention,
    ),
    OpSpec(
        op="MultiHeadAttention",
        domain=DOMAIN,
        summary="softmax(scale · Q·Kᵀ + mask) · V of packed heads; bias, masks and cache may be missing",
        macs=_multi_head,
    ),
    OpSpec(
        op="MatMulNBits",
        domain=DOMAIN,
        summary="A·B over the last two axes, B of few bits, in blocks with scales; bias may be missing",
        macs=_unpacked,
    ),
    OpSpec(op="QGemm", domain=DOMAIN, summary="Gemm of quantized tensors into a quantized tensor", macs=_product),
    *family(
        {
            "QLinearAdd": "A + B of quantized tensors into a quantized tensor",
            "QLinearGlobalAveragePool": "averages over space of a quantized tensor into a quantized tensor",
            "QLinearLeakyRelu": "LeakyRelu of a quantized tensor into a quantized tensor",
            "QLinearMul": "A · B of quantized tensors into a quantized tensor",
            "QLinearSigmoid": "1 / (1 + e^−x) of a quantized tensor into a quantized tensor",
        },
        domain=DOMAIN,
    ),
    *family(
        {
            "BiasGelu": "x · (1 + erf(x / √2)) / 2 of A + B; B: (last axis,)",
            "FastGelu": "x · (1 + tanh(√(2/π) · (x + 0.044715 x³))) / 2 of X + B; B: (last axis,), may be missing",
            "Gelu": "x · (1 + erf(x / √2)) / 2",
            "QuickGelu": "x · sigmoid(alpha·x)",
        },
        domain=DOMAIN,
    ),
    *family(
        {
            "SkipLayerNormalization": "LayerNormalization of X + Z + bias over the last axis; output 3 is the sum",
            "SkipSimplifiedLayerNormalization": "RMSNormalization of X + Z + bias over the last axis; 3 is the sum",
        },
        domain=DOMAIN,
        commutes=True,
    ),
)
