"""Operators that draw random numbers, and Dropout."""

from __future__ import annotations

import onnx_ir as ir

from graphopt.graph.domain import Domain
from graphopt.graph.nodes import input_at
from graphopt.ops.flow import first_only
from graphopt.ops.norm import infers
from graphopt.ops.spec import OpSpec, admit, carry, contents, family, never

__all__ = ["SPECS"]


def _dropout_is_pure(node: ir.Node) -> bool:
    """In inference: `training_mode` absent or false (from opset 12), always (7 to 11), `is_test` (1 to 6)."""
    training = input_at(node, 2)
    if training is None:
        return infers(node)
    flag = None if training.is_graph_input() else contents(training)
    return flag is not None and not flag.any()


SPECS = (
    *family(
        {
            "RandomNormal": "normal numbers of a given shape",
            "RandomNormalLike": "normal numbers in the shape of the input",
            "RandomUniform": "uniform numbers of a given shape",
            "RandomUniformLike": "uniform numbers in the shape of the input",
            "Multinomial": "classes drawn by their log probabilities; (N, classes) to (N, sample_size)",
        },
        pure=never,
    ),
    OpSpec(
        op="Bernoulli",
        summary="one with the probability that the input states, else zero",
        pure=never,
        admits=admit({0: Domain(0, 1)}),
    ),
    OpSpec(
        op="Dropout",
        summary="in inference the data as it is, and a mask of ones",
        pure=_dropout_is_pure,
        admits=admit({1: Domain(0, 1)}),
        flow=first_only,
        carries=lambda node: carry(0)(node) if _dropout_is_pure(node) else (),
    ),
)
