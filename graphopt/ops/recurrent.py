"""Recurrent layers. X: (S, N, I), W: (D, gates·H, I), R: (D, gates·H, H); S and N swapped if `layout` is 1."""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from graphopt.graph.nodes import attr
from graphopt.ops.spec import ShapeOf, admit, family, length_up_to

__all__ = ["SPECS"]


def _macs(node: ir.Node, shape: ShapeOf) -> int | None:
    """Both products at every step of every sample; sequence lengths shorten nothing."""
    x, w, r = (shape(v) for v in node.inputs[:3])
    return None if x is None or w is None or r is None else prod(x[:2]) * (prod(w) + prod(r))


SPECS = family(
    {
        "RNN": "H' = f(X·Wᵀ + H·Rᵀ + B)",
        "GRU": "gates z, r, h; H' = (1 − z) · h + z · H",
        "LSTM": "gates i, o, f, c; C' = f · C + i · c, H' = o · h(C')",
    },
    macs=_macs,
    admits=admit({4: lambda n: length_up_to(n.inputs[0], attr(n, "layout", 0))}),
)
