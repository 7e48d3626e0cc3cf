"""Fusion: what is spelled out becomes one operator, and what stands around a product goes into its weight."""

from __future__ import annotations

from graphopt.fuse.activation import FuseActivation
from graphopt.fuse.attention import FuseAttention
from graphopt.fuse.chain import FuseChain
from graphopt.fuse.linear import FuseLinear
from graphopt.fuse.norm import FuseNorm
from graphopt.fuse.parallel import FuseParallel
from graphopt.fuse.product import FuseProduct
from graphopt.fuse.rotary import FuseRotary
from graphopt.fuse.sums import FuseSum

__all__ = [
    "FuseActivation",
    "FuseAttention",
    "FuseChain",
    "FuseLinear",
    "FuseNorm",
    "FuseParallel",
    "FuseProduct",
    "FuseRotary",
    "FuseSum",
]
