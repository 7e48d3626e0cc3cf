"""Lossless rewriting: strip, clean, fold, lay out, fuse."""

from __future__ import annotations

from graphopt.protocol import Pass
from graphopt.rewrite.absorb import Absorb
from graphopt.rewrite.algebra import Algebra
from graphopt.rewrite.branches import Branches
from graphopt.rewrite.clean import Clean, Strip
from graphopt.rewrite.fold import Fold
from graphopt.rewrite.fuse_activation import FuseActivation
from graphopt.rewrite.fuse_attention import FuseAttention
from graphopt.rewrite.fuse_linear import FuseLinear
from graphopt.rewrite.fuse_norm import FuseNorm
from graphopt.rewrite.fuse_product import FuseProduct
from graphopt.rewrite.fuse_rotary import FuseRotary
from graphopt.rewrite.layout import Layout
from graphopt.rewrite.sandwich import Sandwich
from graphopt.rewrite.sequences import Sequences
from graphopt.rewrite.shape import Shape

__all__ = [
    "LOSSLESS",
    "Absorb",
    "Algebra",
    "Branches",
    "Clean",
    "Fold",
    "FuseActivation",
    "FuseAttention",
    "FuseLinear",
    "FuseNorm",
    "FuseProduct",
    "FuseRotary",
    "Layout",
    "Sandwich",
    "Sequences",
    "Shape",
    "Strip",
]

LOSSLESS: tuple[type[Pass], ...] = (
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
)
"""The passes of a plain `optimize`, in their order. They are repeated until a whole round changes nothing."""
