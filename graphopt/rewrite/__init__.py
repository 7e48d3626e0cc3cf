"""Rewriting to the canonical form: calls, dead code, constants, shapes, layout, algebra."""

from __future__ import annotations

from graphopt.rewrite.absorb import Absorb
from graphopt.rewrite.algebra import Algebra
from graphopt.rewrite.border import Border
from graphopt.rewrite.branches import Branches
from graphopt.rewrite.clean import Clean, Strip
from graphopt.rewrite.fold import Fold
from graphopt.rewrite.foreign import Onnxsim
from graphopt.rewrite.inline import Inline
from graphopt.rewrite.layout import Layout
from graphopt.rewrite.sandwich import Sandwich
from graphopt.rewrite.sequences import Sequences
from graphopt.rewrite.shape import Shape

__all__ = [
    "Absorb",
    "Algebra",
    "Border",
    "Branches",
    "Clean",
    "Fold",
    "Inline",
    "Layout",
    "Onnxsim",
    "Sandwich",
    "Sequences",
    "Shape",
    "Strip",
]
