"""The second rewrite: from the canonical standard form to the operators of the runtime that a model is made for."""

from __future__ import annotations

from graphopt.lower.lower import Lower

__all__ = ["Lower"]
