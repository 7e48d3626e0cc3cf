"""Patterns: what a rule looks for, as data.

    op.BatchNormalization(linear("lin"), const("s"), const("t"), const("mu"), const("v"), name="bn")

reads: a BatchNormalization node, bound to `bn`, whose first input comes from a product with a constant weight, bound
to `lin`, and whose other inputs are constants, bound as arrays.

A name that stands twice means the same thing twice: the same value, the same node, an equal constant. So x·sigmoid(x)
is `op.Mul(x, op.Sigmoid(x))` with `x = var("x")`. A pattern is a value and may be part of several others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "Any",
    "Const",
    "Either",
    "LinearOf",
    "NodeOf",
    "Number",
    "Pattern",
    "const",
    "contrib",
    "either",
    "linear",
    "number",
    "one_of",
    "op",
    "var",
]


@dataclass(frozen=True)
class Any:
    """Any value, bound to `name`; the same name twice means the same value. An absent input matches if `optional`."""

    name: str
    optional: bool = False


@dataclass(frozen=True)
class Const:
    """A constant that no feed can override, bound to `name` as an array."""

    name: str
    optional: bool = False


@dataclass(frozen=True)
class Number:
    """A constant of one element that is `value`, or as close to it as its type comes."""

    value: float
    ulps: int = 0
    """How many neighbours of the rounded value are taken for it as well: exporters round irrational numbers."""


@dataclass(frozen=True)
class LinearOf:
    """The output of a node with exactly one product with a constant weight, bound to `name` as a `Linear`."""

    name: str


@dataclass(frozen=True)
class NodeOf:
    """An output 0 of a node of one of `ops` in a domain, bound to `name` if that is given."""

    ops: frozenset[str]
    inputs: tuple[Pattern, ...] | None
    """One pattern for each input; None accepts any inputs."""
    name: str | None = None
    domain: str = ""


@dataclass(frozen=True)
class Either:
    """Whatever one of `choices` matches. They are tried in their order."""

    choices: tuple[Pattern, ...]


Pattern = Any | Const | Number | LinearOf | NodeOf | Either


def var(name: str, *, optional: bool = False) -> Any:
    """Any value."""
    return Any(name, optional)


def const(name: str, *, optional: bool = False) -> Const:
    """A constant."""
    return Const(name, optional)


def number(value: float, *, ulps: int = 0) -> Number:
    """A constant with one element and this value."""
    return Number(value, ulps)


def either(*choices: Pattern) -> Either:
    """One of several patterns."""
    return Either(choices)


def linear(name: str) -> LinearOf:
    """A Conv, ConvTranspose, Gemm or MatMul with constant weights: whatever the operator table calls linear."""
    return LinearOf(name)


def one_of(*ops: str, domain: str = "") -> Callable[..., NodeOf]:
    """A node of one of several operators; call the result with patterns for the inputs, or with none for any."""

    def build(*inputs: Pattern, name: str | None = None) -> NodeOf:
        return NodeOf(frozenset(ops), inputs or None, name, domain)

    return build


@dataclass(frozen=True)
class _Op:
    """`op.Add(a, b)` is a node pattern."""

    _domain: str = ""

    def __getattr__(self, name: str) -> Callable[..., NodeOf]:
        return one_of(name, domain=self._domain)


op = _Op()
contrib = _Op("com.microsoft")
"""`contrib.FusedMatMul(a, b)` is one of onnxruntime's own operators."""
