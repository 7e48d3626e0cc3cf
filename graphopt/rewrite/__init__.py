"""Lossless rewriting: strip, clean, fold, lay out, fuse."""

from __future__ import annotations

from graphopt.passes import Pass
from graphopt.rewrite.absorb import Absorb
from graphopt.rewrite.algebra import Algebra
from graphopt.rewrite.branches import Branches
from graphopt.rewrite.clean import Clean, Strip
from graphopt.rewrite.fold import Fold
from graphopt.rewrite.fuse_linear import FuseLinear
from graphopt.rewrite.layout import Layout
from graphopt.rewrite.sandwich import Sandwich
from graphopt.rewrite.shape import Shape

__all__ = [
    "LOSSLESS",
    "Absorb",
    "Algebra",
    "Branches",
    "Clean",
    "Fold",
    "FuseLinear",
    "Layout",
    "Sandwich",
    "Shape",
    "Strip",
]

LOSSLESS: tuple[type[Pass], ...] = (
    Strip,
    Clean,
    Fold,
    Shape,
    Branches,
    Layout,
    Sandwich,
    Algebra,
    Absorb,
    FuseLinear,
)
"""The passes of a plain `optimize`, in their order. They are repeated until a whole round changes nothing."""
