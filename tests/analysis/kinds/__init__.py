"""Every kind of group, as data."""

from __future__ import annotations

from .barriers import BARRIERS, QUANTIZED, TABLES
from .convolutions import CONVOLUTIONS, PARTS, SUMS
from .kind import Kind
from .sequences import ATTENTIONS, NORMALIZATIONS, RECURRENT
from .shapes import GATES, SHAPES, SPACE

__all__ = ["KINDS", "Kind"]

KINDS = (
    *CONVOLUTIONS,
    *SUMS,
    *PARTS,
    *SHAPES,
    *GATES,
    *SPACE,
    *NORMALIZATIONS,
    *ATTENTIONS,
    *RECURRENT,
    *TABLES,
    *QUANTIZED,
    *BARRIERS,
)
