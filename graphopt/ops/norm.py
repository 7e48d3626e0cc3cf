"""Normalizations: over channels, groups or axes, with statistics given or taken from the data."""

from __future__ import annotations

import onnx_ir as ir

from graphopt.graph.domain import Domain
from graphopt.graph.nodes import attr
from graphopt.ops.spec import OpSpec, admit, family, is_off

__all__ = ["SPECS"]

FIRST_INFERENCE_OPSET = 7
"""Up to opset 6 BatchNormalization and Dropout train unless `is_test` is set."""


def infers(node: ir.Node) -> bool:
    """Whether a node of an early opset, if it is one, has its `is_test` flag set."""
    opset = node.version or (node.graph.opset_imports.get("") if isinstance(node.graph, ir.Graph) else None)
    return bool(attr(node, "is_test", opset is None or opset >= FIRST_INFERENCE_OPSET))


def _trains(node: ir.Node) -> bool:
    """Whether it may normalize by the batch: what says so changed with opsets 7 and 14."""
    return not is_off(node, "training_mode") or any(v.name for v in node.outputs[1:]) or not infers(node)


def _batchnorm_is_pure(node: ir.Node) -> bool:
    """From opset 14 on even in training, where the new statistics are outputs; before, they change in place."""
    return not _trains(node) or "training_mode" in node.attributes


SPECS = (
    OpSpec(
        op="BatchNormalization",
        summary="(X − mean) / sqrt(var + epsilon) · scale + B per channel; X: (N, C, …), the others (C,)",
        pure=_batchnorm_is_pure,
        admits=admit({4: Domain(0)}),
    ),
    *family(
        {
            "InstanceNormalization": "each channel of each sample to mean B and deviation scale; X: (N, C, …)",
            "GroupNormalization": "each group of channels of each sample normalized, then scale and bias; X: (N, C, …)",
            "LayerNormalization": "all axes from `axis` on normalized, then Scale and B",
            "RMSNormalization": "all axes from `axis` on divided by their root mean square, then scale",
            "MeanVarianceNormalization": "(X − mean) / deviation over `axes`",
            "LpNormalization": "X divided by its p-norm along `axis`",
            "LRN": "X / (bias + alpha/size · sum of squares of neighbouring channels)^beta",
            "Softmax": "exp(X) / sum of exp(X) along `axis` (all axes from `axis` on before opset 13)",
            "LogSoftmax": "log of Softmax",
            "Hardmax": "one at the first maximum along `axis`, zero elsewhere",
        }
    ),
)
