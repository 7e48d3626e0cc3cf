"""Operators that compute each output element from one element of each input, broadcast."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.domain import Bound, Domain
from graphopt.graph.nodes import input_at, is_constant
from graphopt.ops.flow import first_only, pointwise
from graphopt.ops.spec import Factors, OpSpec, admit, carry, contents, every_input, family, first_input

__all__ = ["SPECS"]

Pulls = Callable[[ir.Node, int, Domain], Domain | None]


def _as_is(_node: ir.Node, index: int, wanted: Domain) -> Domain | None:
    """Rounding down, and casts, keep a number inside bounds that are integers.

    What a cast cuts off takes negative numbers up, perhaps to the bound that they must stay below.
    """
    if index:
        return None
    low, high = wanted.low, wanted.high
    if isinstance(high, int) and high <= 0:
        high = high - 1 if low is None else max(high - 1, low + 1)
    return Domain(low, high, ascending=wanted.ascending)


def _rises(undo: Callable[[int, NDArray[Any]], NDArray[Any]], *inputs: int, positive: bool = False) -> Pulls:
    """`pulls` of arithmetic that rises with any of `inputs` where the other one is constant; `undo` solves for it.

    Args:
        undo: the bound of the input for a bound of the output and the constant.
        inputs: indices of the inputs for which it does so.
        positive: whether it rises only if the constant is positive.
    """

    def pulls(node: ir.Node, index: int, wanted: Domain) -> Domain | None:
        constant = contents(input_at(node, 1 - index)) if index in inputs else None
        if constant is None or constant.size == 0 or (positive and np.any(constant <= 0)):
            return None
        low = None if wanted.low is None else math.ceil(np.max(undo(wanted.low, constant)))
        high: Bound | None = wanted.high
        if isinstance(high, int):
            high = math.floor(np.min(undo(high, constant)))
        elif high is not None and np.min(undo(1, constant)) < 1:
            high = None if low is None else low + 1  # less than the symbol, and that has no name: only `low` is safe
        if low is not None and isinstance(high, int):
            high = max(high, low + 1)
        return Domain(low, high, ascending=wanted.ascending)

    return pulls


def _whole_divisor(node: ir.Node) -> Domain | None:
    """Dividing integers by zero ends the process; for floating point numbers it is defined."""
    divisor = node.inputs[1]
    return Domain(1) if divisor is not None and divisor.dtype is not None and divisor.dtype.is_integer() else None


def _real_power(node: ir.Node) -> Domain | None:
    """A fractional power of a negative number is not a number."""
    exponent = contents(input_at(node, 1))
    return None if exponent is not None and np.all(exponent == np.floor(exponent)) else Domain(0)


def _constant_factor(node: ir.Node) -> Collection[int]:
    """Of a product of two, the one that is known; then the other one may stay as it is."""
    return [i for i, value in enumerate(node.inputs) if is_constant(value)][:1]


def _beside_constant(node: ir.Node) -> Collection[int]:
    """Of a product of two, the one that is computed where the other one is known."""
    return [i for i, value in enumerate(node.inputs) if is_constant(node.inputs[1 - i])][-1:]


ARITHMETIC = (
    OpSpec(op="Add", summary="A + B", commutes=True, pulls=_rises(lambda bound, c: bound - c, 0, 1)),
    OpSpec(op="Sub", summary="A − B", pulls=_rises(lambda bound, c: bound + c, 0)),
    OpSpec(op="Mul", summary="A · B", commutes=True, pulls=_rises(lambda bound, c: bound / c, 0, 1, positive=True)),
    OpSpec(
        op="Div",
        summary="A / B, towards zero for integers",
        admits=admit({1: _whole_divisor}),
        pulls=_rises(lambda bound, c: bound * c, 0, positive=True),
    ),
    OpSpec(
        op="Mod",
        summary="A − B·floor(A / B), with the sign of B, or with that of A if `fmod`",
        admits=admit({1: _whole_divisor}),
    ),
    OpSpec(op="Pow", summary="X to the power Y", admits=admit({0: _real_power})),
    OpSpec(op="PRelu", summary="X where it is positive, else slope · X; slope broadcasts to X"),
    OpSpec(op="BitShift", summary="X shifted by Y bits to the LEFT or RIGHT", admits=admit({1: Domain(0, 8)})),
    OpSpec(op="SwiGLU", summary="A · sigmoid(alpha · A) · B"),
)

VARIADIC = (
    *family({"Max": "the largest of the inputs", "Min": "the smallest"}, commutes=True, carries=carry()),
    *family({"Sum": "the sum of the inputs", "Mean": "their mean"}, commutes=True),
)

LOGIC = (
    *family(
        {
            "And": "A and B",
            "Or": "A or B",
            "Xor": "either A or B",
            "Equal": "A = B",
            "BitwiseAnd": "A and B, bit by bit",
            "BitwiseOr": "A or B, bit by bit",
            "BitwiseXor": "either A or B, bit by bit",
        },
        commutes=True,
    ),
    *family(
        {
            "Not": "the opposite",
            "BitwiseNot": "all bits flipped",
            "Greater": "A > B",
            "GreaterOrEqual": "A ≥ B",
            "Less": "A < B",
            "LessOrEqual": "A ≤ B",
            "IsInf": "whether it is infinite (either sign, unless told which)",
            "IsNaN": "whether it is not a number",
        }
    ),
    OpSpec(op="Where", summary="X where the condition holds, else Y", carries=carry(1, 2)),
)

ROUNDING = (
    *family(
        {
            "Cast": "X in type `to`; out of range is undefined except where `saturate` says",
            "CastLike": "X in the type of input 1",
        },
        pulls=_as_is,
        adapts="type",
    ),
    OpSpec(op="Floor", summary="largest integer not above X", pulls=_as_is),
    *family(
        {
            "Ceil": "smallest integer not below X",
            "Round": "nearest integer, halves to the even one",
            "BitCast": "the same bytes read as another type of the same size",
        }
    ),
    OpSpec(op="Clip", summary="X, not below min and not above max", carries=carry()),
)

FUNCTIONS = (
    *family(
        {"Sqrt": "√X", "Log": "natural logarithm"},
        admits=admit({0: Domain(0)}),
    ),
    *family(
        {"Acos": "inverse cosine", "Asin": "inverse sine", "Atanh": "inverse hyperbolic tangent"},
        admits=admit({0: Domain(-1, 1)}),
    ),
    OpSpec(op="Acosh", summary="inverse hyperbolic cosine", admits=admit({0: Domain(1)})),
    *family(
        {
            "Abs": "|X|",
            "Asinh": "inverse hyperbolic sine",
            "Atan": "inverse tangent",
            "Cos": "cosine",
            "Cosh": "hyperbolic cosine",
            "Erf": "error function",
            "Exp": "e^X",
            "Neg": "−X",
            "Reciprocal": "1 / X",
            "Sign": "−1, 0 or 1",
            "Sin": "sine",
            "Sinh": "hyperbolic sine",
            "Tan": "tangent",
            "Tanh": "hyperbolic tangent",
        }
    ),
)

ACTIVATIONS = family(
    {
        "Celu": "max(0, X) + min(0, alpha · (exp(X / alpha) − 1))",
        "Elu": "X where it is positive, else alpha · (exp(X) − 1)",
        "Gelu": "X · Φ(X), Φ the normal distribution, or its tanh approximation",
        "HardSigmoid": "max(0, min(1, alpha · X + beta))",
        "HardSwish": "X · HardSigmoid(X) with alpha 1/6 and beta 1/2",
        "LeakyRelu": "X where it is positive, else alpha · X",
        "Mish": "X · tanh(softplus(X))",
        "Relu": "max(0, X)",
        "Selu": "gamma · Elu(X)",
        "Shrink": "X + bias below −lambd, X − bias above lambd, else 0",
        "Sigmoid": "1 / (1 + exp(−X))",
        "Softplus": "log(1 + exp(X))",
        "Softsign": "X / (1 + |X|)",
        "Swish": "X · sigmoid(alpha · X)",
        "ThresholdedRelu": "X where it is above alpha, else 0",
    }
)

_SETTINGS = frozenset({"Clip", "CastLike"})
"""Operators that work on input 0 alone, whatever else they are given."""

_POSITIVE = frozenset({"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softplus", "Sqrt"})
_KEPT = frozenset({"Add", "Div", "HardSwish", "LeakyRelu", "Mean", "Mul", "Sum", "Swish"})

_FACTORS: Mapping[str, Factors] = {
    **dict.fromkeys(("Abs", "LeakyRelu", "Neg", "PRelu", "Relu"), first_input),
    **dict.fromkeys(("Add", "Max", "Mean", "Min", "Sub", "Sum"), every_input),
    "Mul": _constant_factor,
}

_SUMS: Mapping[str, Factors] = {
    **dict.fromkeys(("Add", "Mean", "Sub", "Sum"), every_input),
    "Div": first_input,
    "Mul": _beside_constant,
    "Neg": first_input,
}

SPECS = tuple(
    replace(
        spec,
        flow=first_only if spec.op in _SETTINGS else pointwise,
        factors=_FACTORS.get(spec.op, spec.factors),
        sums=_SUMS.get(spec.op, spec.sums),
        positive="always" if spec.op in _POSITIVE else "kept" if spec.op in _KEPT else "",
    )
    for spec in (*ARITHMETIC, *VARIADIC, *LOGIC, *ROUNDING, *FUNCTIONS, *ACTIVATIONS)
)
