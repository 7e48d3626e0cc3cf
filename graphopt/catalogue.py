"""Every pass there is, in its order; written `name` or `name{field=value,…}`, with values as in TOML."""

from __future__ import annotations

from collections.abc import Mapping

from graphopt.compress.forms.offers import FORMS
from graphopt.compress.halves.half import HalfPrecision
from graphopt.compress.integers.blocks import Blocks
from graphopt.compress.integers.dynamic import Dynamic
from graphopt.compress.integers.quantize import Quantize
from graphopt.compress.integers.unquantize import Unquantize
from graphopt.compress.sparsify import Sparsify
from graphopt.fuse import (
    FuseActivation,
    FuseAttention,
    FuseChain,
    FuseLinear,
    FuseNorm,
    FuseParallel,
    FuseProduct,
    FuseRotary,
    FuseSum,
)
from graphopt.lower import Lower
from graphopt.protocol import Named, Pass
from graphopt.rewrite import (
    Absorb,
    Algebra,
    Border,
    Branches,
    Clean,
    Fold,
    Inline,
    Layout,
    Onnxsim,
    Sandwich,
    Sequences,
    Shape,
    Strip,
)
from graphopt.spelling import parse
from graphopt.upgrade import Upgrade

__all__ = ["LOSSLESS", "LOSSY", "ON_REQUEST", "PASSES", "USUAL", "parse_pass"]

LOSSLESS: tuple[type[Pass], ...] = (
    Inline,
    Strip,
    Clean,
    Fold,
    Shape,
    Branches,
    Sequences,
    Layout,
    Sandwich,
    Algebra,
    Absorb,
    FuseNorm,
    FuseActivation,
    FuseRotary,
    FuseAttention,
    FuseLinear,
    FuseProduct,
    FuseChain,
    FuseSum,
    FuseParallel,
    Lower,
)
"""The passes of a plain `optimize`, in their order. They are repeated until a whole round changes nothing."""

ON_REQUEST: tuple[type[Pass], ...] = (Upgrade, Border, Onnxsim)
"""Further passes, which only run where they are asked for; the second one also where work is to be saved."""

LOSSY: tuple[type[Named], ...] = (Unquantize, *FORMS, Sparsify, Quantize, Blocks, Dynamic, HalfPrecision)
"""Passes that give something up. Wherever they are named, the first comes before all else, forms in place of a plan,
the others after all that is planned."""

PASSES: Mapping[str, type[Named]] = {p.name: p for kinds in (LOSSLESS, ON_REQUEST, LOSSY) for p in kinds}
"""Every pass by name."""

USUAL = "lossless"
"""Stands for all passes that run unasked."""


def parse_pass(text: str) -> Named:
    """The pass that `text` describes; see `spelling.parse`."""
    return parse(text, PASSES, USUAL)
