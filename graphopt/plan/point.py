"""Operating points: what products read, and should give, while the model is cut to a plan.

The cut model is walked beside the dense one (`analysis.frontier`); nothing is taken out of it, what is cut is only
multiplied with zero. So all units of all groups can be seen at the point, and how a group would do at another width is
one small linear system, the same as on the dense model: moments with a target (`Moment.cross`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.analysis.frontier import Frontier, Rows
from graphopt.analysis.groups import Channels, Widths
from graphopt.analysis.moments import Moment
from graphopt.analysis.segments import MEMORY, Samples
from graphopt.plan.variants import Variants
from graphopt.run.session import Device

__all__ = ["around"]

Array = NDArray[Any]
Key = tuple[str, int]
_ROWS_PER_COLUMN: Final = 12
_FEWEST_ROWS: Final = 4096


def around(
    model: ir.Model,
    channels: Channels,
    orders: Mapping[str, NDArray[np.int64]],
    moments: Mapping[Key, Moment],
    base: Widths,
    samples: Samples,
    *,
    memory: int = MEMORY,
    device: Device = "cpu",
    threads: int = 0,
) -> dict[Key, Moment]:
    """The moments of readers at an operating point, each refit to what it should give before the next one is seen.

    Args:
        model: the dense model.
        channels: its groups.
        orders: by group, its units in the order in which they are cut.
        moments: of the groups' readers, in the dense model; they stand in where nothing is learned.
        base: the operating point.
        samples: as in `collect`.
        memory: bytes that the results, and values that are kept, may take.
        device: where to run.
        threads: as in `Session`.
    """
    variants = Variants(model, channels, orders, moments, base)
    thin = variants.thin()
    found = dict(moments)
    room = memory
    for site in Frontier(model, thin, samples, memory=memory, device=device, threads=threads):
        name = (site.key, 0)
        if name not in variants.weighted:
            continue
        columns = site.linear.reduction
        size = 8 * site.linear.groups * columns * (columns + site.linear.channels // site.linear.groups)
        rows = site.sample(max(_ROWS_PER_COLUMN * columns, _FEWEST_ROWS))
        if size > room or rows.x.shape[-1] <= columns:
            continue
        room -= size
        found[name] = _moment(rows, moments[name])
        matrix, bias = variants.refit(name, found[name])
        site.put(matrix, bias.reshape(site.linear.groups, -1))
    return found


def _moment(rows: Rows, dense: Moment) -> Moment:
    """What a product reads at the point, and its covariance with what it should give."""
    x = rows.x.astype(np.float64) + rows.mean[..., None]
    goal = rows.target if rows.base is None else rows.target - rows.base
    count, mean, target = x.shape[-1], x.mean(axis=-1), goal.mean(axis=-1, dtype=np.float64)
    across = x.transpose(0, 2, 1)
    return Moment(
        kind="full",
        rows=count,
        mean=mean,
        gram=x @ across / count,
        result_mean=dense.result_mean,
        result_energy=dense.result_energy,
        cross=(goal - target[..., None]) @ across / count,
        target=target,
    )
