"""Fits what is left of a recurrent layer to what the original computes there.

The gates of the units that stay, g = W·x + R·h + b at each step, are to be what they are in the original, although some
units of h, and maybe of x, are gone: ridge least squares over all steps of all samples (`refit`), first with the states
that the original has there (teacher forcing), then with those that the layer now really has, so that it makes up for
its own drift (as in DAgger: Ross, Gordon and Bagnell, 2011). A round counts if it brings the states closer to the
original's on samples held back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.frontier import Rows
from graphopt.analysis.groups import Channels
from graphopt.analysis.layers import Layer, Steps
from graphopt.analysis.moments import ROWS as FEW
from graphopt.compress.axis import NOTHING, Reader
from graphopt.compress.refit import Fit, Refit, fit, row_count, times
from graphopt.ops.gate import OF_DATA, OF_STATE, RECURRENCE, WEIGHT

__all__ = ["readers", "refit"]

Array = NDArray[Any]

_ROUNDS: Final = 2


def refit(layer: Layer, stays: NDArray[np.bool_] | None, rows: int, memory: int) -> Refit:
    """Give a recurrent layer the weights that fit what is left of it.

    Args:
        layer: it, when the frontier stands before it.
        stays: (units of the dense layer,): which of them are left; None for all.
        rows: how many steps for each column its gates are fitted to.
        memory: what these may take, in bytes.
    """
    gates, twins = ops.gates(layer.node) or (), ops.gates(layer.dense) or ()
    if not gates or not twins:
        return _left(layer, "its gates are not plain products with constant weights of its own")
    count = _count(twins, rows, memory)
    dense, thin = layer.steps(count, dense=True), layer.steps(count)
    stays = np.ones(len(dense.end[0, 0]), np.bool_) if stays is None else stays
    goal, begin = dense.end[..., stays], dense.begin[..., stays]
    targets = [g.values(dense.x, dense.begin)[:, np.tile(stays, g.count)] for g in twins]
    if not all(np.isfinite(a.sum(dtype=np.float64)) for a in (thin.x, thin.end, *targets)):
        return _left(layer, "its values are not finite")
    best, damping, before = [(g.matrix(), g.bias()) for g in gates], None, _error(thin, goal)
    after = before
    for _ in range(_ROUNDS):
        fits = [_fitted(layer, g, Steps(thin.x, begin, t, thin.fitted)) for g, t in zip(gates, targets, strict=True)]
        if all(f.damping is None for f in fits):
            break
        thin = layer.steps(count)
        begin, error = thin.begin, _error(thin, goal)
        if error >= after:
            for gate, weights in zip(gates, best, strict=True):
                layer.put(gate, *weights)
            break
        best, damping, after = [(f.matrix, f.bias) for f in fits], fits[0].damping, error
    return Refit(layer.key, fits[0].rows, fits[0].columns, damping, fits[0].form, before, after)


def readers(layer: Layer, channels: Channels, memory: int) -> Iterator[tuple[str, Reader]]:
    """The products of a dense layer as readers of groups, each direction by itself, with the group's key.

    Arguments as in `refit`.
    """
    gates = ops.gates(layer.dense) or ()
    products = {WEIGHT: OF_DATA, RECURRENCE: OF_STATE}
    ports = {weight: channels.products[layer.key, index].source for weight, index in products.items()}
    steps = layer.steps(_count(gates, FEW, memory), dense=True)
    variance = sum(float(np.var(g.values(steps.x, steps.begin), axis=-1, dtype=np.float64).sum()) for g in gates)
    for gate in gates if np.isfinite(variance) else ():
        mine = [ports[index] for index in gate.weights]
        x = gate.columns(steps.x, steps.begin)
        damping = 1e-3 if steps.fitted >= FEW * x.shape[1] else 1e-2
        for matrix, columns in zip(gate.matrix(), x, strict=True):
            sides = [_moments(part) for part in (columns[:, : steps.fitted], columns[:, steps.fitted :]) if part.size]
            for name in dict.fromkeys(name for port in mine for name in port.groups):
                owner = np.concatenate([port.owner(name) for port in mine])
                made = [Reader(matrix, *side, owner, 1 / max(variance, NOTHING), damping) for side in sides]
                yield name, replace(made[0], held=made[-1])


def _moments(x: Array) -> tuple[Array, Array]:
    """(columns, rows) to E[x·xᵀ] and E[x]."""
    return times(x[None], x[None])[0] / x.shape[1], x.mean(axis=1, dtype=np.float64)


def _count(gates: Sequence[ops.Gates], rows: int, memory: int) -> int:
    """How many steps to look at, if there are to be so many for each column."""
    directions, _, columns = gates[0].matrix().shape
    width = columns + sum(g.matrix().shape[1] for g in gates)
    return row_count(columns, rows, memory, directions * -(-width // columns))


def _fitted(layer: Layer, gates: ops.Gates, steps: Steps) -> Fit:
    """Gates fitted to give `steps.end`, and given to the layer."""
    x = gates.columns(steps.x, steps.begin)
    mean = x.mean(axis=-1, dtype=np.float64).astype(np.float32)
    rows = Rows(x - mean[..., None], mean, steps.end, None, steps.fitted)
    found = fit(rows, gates.matrix(), gates.bias())
    if found.damping is not None:
        layer.put(gates, found.matrix, found.bias)
    return found


def _error(steps: Steps, goal: Array) -> float:
    """Mean squared distance of states to what they should be, on samples held back, relative to their variance."""
    distance = float(np.square(steps.end[:, steps.fitted :] - goal[:, steps.fitted :]).sum(dtype=np.float64))
    scale = float(np.var(goal, axis=1, dtype=np.float64).sum()) or 1.0
    held: int = goal.shape[1] - steps.fitted
    return distance / scale / max(1, held)


def _left(layer: Layer, reason: str) -> Refit:
    return Refit(layer.key, 0, 0, None, reason, 0.0, 0.0)
