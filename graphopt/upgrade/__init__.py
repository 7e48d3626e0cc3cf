"""The model in a newer opset: what changes between two of them, and how nodes are brought along."""

from __future__ import annotations

from graphopt.upgrade.upgrade import Upgrade

__all__ = ["Upgrade"]
