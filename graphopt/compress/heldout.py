"""What readers lose by the units that are gone, on samples that took no part in choosing them.

    Δ = Ŵ − W,  Ŵ_S = 0,  Ŵ_K = W_K + W_S·G_SK·(G_KK + λ·m·I)⁻¹      G: covariance of the samples fitted to
    ε = E|Δ·(x − μ)|²                                                of the ones held back

Where columns are many and samples few (a classifier behind a pooling has one row for each), what is left fits whatever
it is fitted to, and an error that is not held out says that everything can go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from graphopt.compress.axis import NOTHING, Reader

__all__ = ["losses"]

Array = NDArray[Any]
_DAMPINGS: Final = (1e-3, 1e-1, 1e1)
_WIDTHS: Final = 12
_FEW: Final = 4
"""Widths where there are many columns."""
_MANY: Final = 2048


def losses(units: int, readers: Sequence[Reader], order: NDArray[np.int64]) -> dict[int, float]:
    """The error of some widths, each reader at its best damping; each of its gain.

    Args:
        units: how many there are.
        readers: the matrices that sum over them; without `held`, the samples that they were made from have to do.
        order: the units, in the order in which they go.
    """
    count = _WIDTHS if max((len(r.unit) for r in readers), default=0) <= _MANY else _FEW
    widths = {max(1, units // 16), *(round(units * i / count) for i in range(1, count))} - {0, units}
    return {units: 0.0} | {w: sum(_lost(r, order[: units - w]) for r in readers) for w in sorted(widths, reverse=True)}


def _lost(reader: Reader, units: Array) -> float:
    """The error of one reader without some units."""
    out = np.isin(reader.unit, units)
    gone, stay = np.flatnonzero(out), np.flatnonzero(~out)
    if not len(gone):
        return 0.0
    judge = reader.held or reader
    change = np.zeros(reader.matrix.shape)
    change[:, gone] = -reader.matrix[:, gone]
    best = judge.error(change, reader.mean)
    for fitted in _fits(reader, gone, stay) if len(stay) else ():
        change[:, stay] = fitted
        best = min(best, judge.error(change, reader.mean))
    return best


def _fits(reader: Reader, gone: Array, stay: Array) -> list[Array]:
    """Ŵ_K − W_K, (out, stay), for each damping."""
    shift = max(float(np.mean(reader.energy - reader.mean**2)), NOTHING)
    lost, found = reader.matrix[:, gone].astype(np.float64), list[Array]()
    if reader.kind == "diagonal":
        return found
    if reader.kind == "rows":
        x = reader.gram.astype(np.float64) - reader.mean[:, None]
        square, side, back = x[stay].T @ x[stay] / x.shape[1], (lost @ x[gone]).T, x[stay].T / x.shape[1]
    else:
        mean = reader.mean
        square = reader.gram[np.ix_(stay, stay)] - np.outer(mean[stay], mean[stay])
        side, back = (reader.gram[np.ix_(stay, gone)] - np.outer(mean[stay], mean[gone])) @ lost.T, None
    for damping in _DAMPINGS:
        damped = square + np.diag(np.full(len(square), damping * shift))
        try:
            solved = scipy.linalg.solve(damped, side, assume_a="pos", check_finite=False).T
        except np.linalg.LinAlgError:  # rounding left it indefinite; more damping will do
            continue
        found.append(solved if back is None else solved @ back)
    return found
