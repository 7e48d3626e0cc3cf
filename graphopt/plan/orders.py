"""In which order the units of each group are cut: block optimal brain surgeon on what their readers read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.analysis.groups import Channels
from graphopt.analysis.moments import Moment, products
from graphopt.compress.axis import Reader, curve

__all__ = ["orders"]

Key = tuple[str, int]


def orders(
    model: ir.Model,
    channels: Channels,
    moments: Mapping[Key, Moment],
) -> dict[str, NDArray[np.int64]]:
    """By group, its units from the least to the most important; groups of whose readers nothing is known are left out.

    An error counts as a share of what the result of the reader varies.

    Args:
        model: the dense model.
        channels: its groups.
        moments: of the groups' readers.
    """
    dense = products(model)
    found = {}
    for key, group in channels.groups.items():
        known = [r for r in group.readers if r in moments and not channels.products[r].diagonal]
        readers = [part for r in known for part in _parts(r, key, dense[r].matrix(), channels, moments[r])]
        if readers:
            found[key] = curve(group.units, readers).order
    return found


def _parts(name: Key, key: str, matrix: NDArray[np.float64], channels: Channels, moment: Moment) -> list[Reader]:
    """One reader for each group of a grouped product."""
    port = channels.products[name].source
    mine = port.group == (port.groups.index(key) if key in port.groups else len(port.groups))
    unit = np.where(mine, port.unit, -1).reshape(len(matrix), -1)
    columns = unit.repeat(matrix.shape[2] // unit.shape[1], axis=1)
    gram = moment.covariance()
    varies = float(np.sum(np.maximum(moment.result_energy - moment.result_mean**2, 0)))
    gain = 1 / varies if varies > 0 else 1.0
    zero = np.zeros(matrix.shape[2])
    return [
        Reader(weights, square, zero, owner, gain, moment.damping)
        for weights, square, owner in zip(matrix, gram, columns, strict=True)
    ]
