"""Lossless rewriting: strip, clean, fold, fuse."""

from __future__ import annotations

from graphopt.protocol import Pass
from graphopt.rewrite.clean import Clean, Strip
from graphopt.rewrite.fold import Fold
from graphopt.rewrite.fuse_linear import FuseLinear

__all__ = ["LOSSLESS", "Clean", "Fold", "FuseLinear", "Strip"]

LOSSLESS: tuple[type[Pass], ...] = (Strip, Clean, Fold, FuseLinear)
"""The passes of a plain `optimize`, in their order. They are repeated until a whole round changes nothing."""
