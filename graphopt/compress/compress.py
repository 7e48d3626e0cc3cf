"""Cuts a model to a plan, and fits what is left of it to what it was: choose → cut → refit.

All in closed form, with neither labels nor gradients. Products are refit in topological order, each on what the ones
before it really give: those that write the units that stay (to the original's values of these), those that read them,
and every other one behind, as far as rows that were held back say that it pays. So each product is taught by the
original's own intermediate results (feature distillation), and the last one by its outputs (output distillation).
For the gates of recurrent layers see `recurrent`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.analysis.frontier import Frontier, Site
from graphopt.analysis.groups import Channels
from graphopt.analysis.layers import Layer
from graphopt.analysis.segments import Samples
from graphopt.compress import joint, recurrent
from graphopt.compress.cut import Keep, cut
from graphopt.compress.joint import ROUNDS
from graphopt.compress.refit import ROWS, STEPS, Refit, fit, row_count
from graphopt.compress.sparse import Sparse
from graphopt.ops.gate import OF_STATE
from graphopt.run.machine import HERE, Machine

__all__ = ["Compressed", "compress", "kept"]

PAIRED = 200_000
"""Positions of whole samples that two products are fitted to together."""
_VALUES = 16_000_000
"""Elements of what both make there, at most: fits go over all of them again and again."""


@dataclass(frozen=True, eq=False)
class Compressed:
    """A compressed model, and how it came about."""

    model: ir.Model
    refits: tuple[Refit, ...]
    """Of every product that reads or writes something else than the original, in order."""
    sparse: tuple[Sparse, ...] = ()
    """Where weights were set to zero: every product with a constant weight of its own, in order."""
    seconds: float = 0.0
    """Spent on that."""


def compress(
    model: ir.Model,
    channels: Channels,
    keep: Keep,
    samples: Samples,
    machine: Machine = HERE,
    *,
    rows: int = ROWS,
    steps: int = STEPS,
    rounds: int = ROUNDS,
) -> Compressed:
    """A copy of a model with only some units of each group, refit.

    Args:
        model: canonical; it is not changed.
        channels: its groups.
        keep: which units of each group stay.
        samples: what is fed, in an order that does not depend on how it was given.
        rows: how many for each column a product is fitted to.
        steps: how often one-sided targets are moved.
        rounds: of fitting two products together; 0 fits each alone.
        machine: where to run, and what values between products, and the rows of one, may take.
    """
    thin = cut(model, channels, keep)
    done: list[Refit] = []

    def met(layer: Layer) -> None:
        if not layer.intact:
            machine.progress(f"refitting {layer.key}")
            product = channels.products.get((layer.key, OF_STATE))
            stays = None if product is None else product.source.kept(keep)
            done.append(recurrent.refit(layer, stays, rows, machine.memory))

    for site in Frontier(model, thin, samples, machine, layers=met):
        if not site.intact:
            machine.progress(f"refitting {site.key}")
            done.append(_refit(site, channels, keep, rows, steps, rounds, machine))
    return Compressed(thin, tuple(done))


def kept(channels: Channels, order: Mapping[str, NDArray[np.int64]], widths: Mapping[str, int]) -> Keep:
    """Which units stay at these widths, if they go in their group's order; groups without an order stay whole."""
    found = {}
    for name, width in widths.items():
        if name in order and width < channels.groups[name].units:
            found[name] = np.ones(channels.groups[name].units, np.bool_)
            found[name][order[name][: channels.groups[name].units - width]] = False
    return found


def _refit(
    site: Site,
    channels: Channels,
    keep: Keep,
    rows: int,
    steps: int,
    rounds: int,
    machine: Machine,
) -> Refit:
    product = channels.products.get((site.key, 0))
    stays = None if product is None else product.result.kept(keep)
    if stays is not None and np.sum(stays) != site.linear.channels:
        return Refit(site.key, 0, 0, None, "its channels are not those of a plain product", 0.0, 0.0)
    paired = min(PAIRED, _VALUES // (site.linear.in_channels + site.linear.channels))
    count = row_count(site.linear.reduction, rows, machine.memory, site.linear.groups)
    sampled = site.sample(count, stays, paired if rounds else 0)
    if not sampled.finite:
        return Refit(site.key, 0, 0, None, "its values are not finite", 0.0, 0.0)
    found = fit(sampled, site.matrix(), site.bias(), bounds=(site.low, site.high), biased=site.biased, steps=steps)
    if found.damping is not None:
        site.put(found.matrix, found.bias)
    if sampled.pair is not None and site.before is not None and not site.before.intact:
        both = joint.fit(site, sampled.pair, machine, rounds=rounds)
        if both is not None:
            site.put_before(*both.first)
            site.put(*both.second)
    return Refit(site.key, found.rows, found.columns, found.damping, found.form, found.before, found.after)
