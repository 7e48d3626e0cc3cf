"""Recurrent layers. X: (S, N, I), W: (D, gates·H, I), R: (D, gates·H, H); S and N swapped if `layout` is 1."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from graphopt.graph.nodes import attr
from graphopt.ops.flow import Axes, opaque
from graphopt.ops.gate import LENGTHS, OF_DATA, OF_STATE, RECURRENCE, WEIGHT, Gates, is_plain
from graphopt.ops.resize import hidden
from graphopt.ops.spec import ShapeOf, admit, family, length_up_to

__all__ = ["SPECS"]


def _macs(node: ir.Node, shape: ShapeOf) -> int | None:
    """Both products at every step of every sample; sequence lengths shorten nothing."""
    x, w, r = (shape(v) for v in node.inputs[:3])
    return None if x is None or w is None or r is None else prod(x[:2]) * (prod(w) + prod(r))


def _flow(node: ir.Node, axes: Axes) -> None:
    """A hidden unit has a row of W and R for each gate, a column of R, and the numbers of its bias and peepholes."""
    x, w, r = node.inputs[:3]
    if x is None or w is None or r is None:
        return opaque(node, axes)
    given, weight, recurrence = axes.of(x), axes.of(w), axes.of(r)
    unit = recurrence[2]
    gates = np.tile(unit, len(recurrence[1]) // len(unit))
    axes.tie(gates, recurrence[1])
    axes.tie(gates, weight[1])
    axes.tie(given[2], weight[2])
    for index, value in enumerate(node.inputs[3:], 3):
        if value is None:
            continue
        *others, last = axes.of(value)
        for axis in (*others, *([last] if index == LENGTHS else ())):
            axes.hold(axis, f"{node.op_type} needs it as it is")
        if index != LENGTHS:
            axes.tie(last, np.tile(unit, len(last) // len(unit)))
    for axis in (*given[:2], weight[0], recurrence[0]):
        axes.hold(axis, f"{node.op_type} works along it")
    for value in node.outputs:
        why = f"{node.op_type} works along it"
        axes.put(value, [*(axes.held(n, why) for n in axes.shape(value)[:-1]), unit])
    part = len(given[2]) / (len(given[2]) + len(unit))
    axes.product(node, given[2], gates, index=OF_DATA, weight=1, part=part)
    return axes.product(node, unit, gates, index=OF_STATE, weight=2, part=1 - part)


def _gates(node: ir.Node) -> tuple[Gates, ...]:
    """All gates are one product; only GRU applies r, for its last gate, to its state before, or to R·H + Rb."""
    if not is_plain(node):
        return ()
    if node.op_type != "GRU":
        return (Gates(node, 0, _GATES[node.op_type]),)
    update = Gates(node, 0, 2)
    if attr(node, "linear_before_reset", 0):
        return update, Gates(node, 2, 1, (WEIGHT,)), Gates(node, 2, 1, (RECURRENCE,))
    if attr(node, "clip") is not None or {*attr(node, "activations", ())[::2]} - {"Sigmoid"}:
        return ()  # r is another one
    return update, Gates(node, 2, 1, reset=Gates(node, 1, 1))


_GATES = {"RNN": 1, "LSTM": 4}

SPECS = family(
    {
        "RNN": "H' = f(X·Wᵀ + H·Rᵀ + B)",
        "GRU": "gates z, r, h; H' = (1 − z) · h + z · H",
        "LSTM": "gates i, o, f, c; C' = f · C + i · c, H' = o · h(C')",
    },
    macs=_macs,
    flow=_flow,
    gates=_gates,
    resize=hidden,
    admits=admit({LENGTHS: lambda n: length_up_to(n.inputs[0], attr(n, "layout", 0))}),
)
