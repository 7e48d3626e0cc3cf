"""Lossless rewriting: strip, clean, fold, fuse."""

from __future__ import annotations

from graphopt.protocol import Pass
from graphopt.rewrite.clean import Clean, Strip
from graphopt.rewrite.fold import Fold
from graphopt.rewrite.fuse_activation import FuseActivation
from graphopt.rewrite.fuse_linear import FuseLinear
from graphopt.rewrite.fuse_norm import FuseNorm
from graphopt.rewrite.fuse_product import FuseProduct
from graphopt.rewrite.shape import Shape

__all__ = ["LOSSLESS", "Clean", "Fold", "FuseActivation", "FuseLinear", "FuseNorm", "FuseProduct", "Shape", "Strip"]

LOSSLESS: tuple[type[Pass], ...] = (Strip, Clean, Fold, Shape, FuseNorm, FuseActivation, FuseLinear, FuseProduct)
"""The passes of a plain `optimize`, in their order. They are repeated until a whole round changes nothing."""
