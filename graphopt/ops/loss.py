"""Losses, and the update steps of training. Scores: (N, C, …), targets: (N, …)."""

from __future__ import annotations

from graphopt.ops.spec import admit, family, index_into

__all__ = ["SPECS"]

SPECS = (
    *family(
        {
            "NegativeLogLikelihoodLoss": "minus the scores at the targets, weighted and reduced",
            "SoftmaxCrossEntropyLoss": "NegativeLogLikelihoodLoss of LogSoftmax over the classes",
        },
        admits=admit({1: lambda n: index_into(n.inputs[0], 1)}),
    ),
    *family(
        {
            "Adagrad": "one step of Adagrad",
            "Adam": "one step of Adam",
            "Momentum": "one step of gradient descent with momentum",
            "Gradient": "derivatives of an output of the graph",
        },
        domain="ai.onnx.preview.training",
        pure=lambda _node: False,
        foldable=False,
    ),
)
