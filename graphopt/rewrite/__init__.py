"""Lossless rewriting: inline, strip, clean, fold, lay out, fuse."""

from __future__ import annotations

from graphopt.protocol import Pass
from graphopt.rewrite.absorb import Absorb
from graphopt.rewrite.algebra import Algebra
from graphopt.rewrite.branches import Branches
from graphopt.rewrite.clean import Clean, Strip
from graphopt.rewrite.fold import Fold
from graphopt.rewrite.foreign import Onnxsim
from graphopt.rewrite.fuse_activation import FuseActivation
from graphopt.rewrite.fuse_attention import FuseAttention
from graphopt.rewrite.fuse_chain import FuseChain
from graphopt.rewrite.fuse_linear import FuseLinear
from graphopt.rewrite.fuse_norm import FuseNorm
from graphopt.rewrite.fuse_parallel import FuseParallel
from graphopt.rewrite.fuse_product import FuseProduct
from graphopt.rewrite.fuse_rotary import FuseRotary
from graphopt.rewrite.fuse_sum import FuseSum
from graphopt.rewrite.inline import Inline
from graphopt.rewrite.layout import Layout
from graphopt.rewrite.sandwich import Sandwich
from graphopt.rewrite.sequences import Sequences
from graphopt.rewrite.shape import Shape
from graphopt.rewrite.upgrade import Upgrade

__all__ = [
    "LOSSLESS",
    "ON_REQUEST",
    "Absorb",
    "Algebra",
    "Branches",
    "Clean",
    "Fold",
    "FuseActivation",
    "FuseAttention",
    "FuseChain",
    "FuseLinear",
    "FuseNorm",
    "FuseParallel",
    "FuseProduct",
    "FuseRotary",
    "FuseSum",
    "Inline",
    "Layout",
    "Onnxsim",
    "Sandwich",
    "Sequences",
    "Shape",
    "Strip",
    "Upgrade",
]

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
)
"""The passes of a plain `optimize`, in their order. They are repeated until a whole round changes nothing."""

ON_REQUEST: tuple[type[Pass], ...] = (Upgrade, Onnxsim)
"""Further passes, which only run where they are asked for."""
