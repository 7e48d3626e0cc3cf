"""Cuts a model to a plan, and fits what is left of it to what it was: choose → cut → refit.

All in closed form, with neither labels nor gradients. Products are refit in topological order, each on what the ones
before it really give: those that write the units that stay (to the original's values of these), those that read them,
and every other one behind, as far as rows that were held back say that it pays. So each product is taught by the
original's own intermediate results (feature distillation), and the last one by its outputs (output distillation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.frontier import Frontier, Site
from graphopt.analysis.groups import Channels, Group, Port
from graphopt.analysis.segments import MEMORY, Samples
from graphopt.compress import joint
from graphopt.compress.axis import SINGLE, Curve, Importance, Reader, curve, ranked
from graphopt.compress.cut import Keep, cut
from graphopt.compress.joint import ROUNDS
from graphopt.compress.refit import STEPS, fit
from graphopt.fuse.linear import BATCHNORM
from graphopt.graph.nodes import key
from graphopt.run.session import Device

__all__ = ["Compressed", "Refit", "compress", "kept", "orders"]

ROWS = 60
"""Rows per column that a product is fitted to, where memory and the samples allow it."""
_FEWEST_ROWS = 16384
PAIRED = 200_000
"""Positions of whole samples that two products are fitted to together."""
_CHOICE_ROWS = 20
"""Rows per column that an order is found from."""
_SHARE = 4
"""The part of the memory that the rows of one product may take."""


@dataclass(frozen=True)
class Refit:
    """What became of one product."""

    key: str
    rows: int
    columns: int
    damping: float | None
    """inf where only the bias is new, None where all was best as it was."""
    form: str
    """How it was solved: "primal", "dual"; else why it was not."""
    before: float
    """Error on rows held back with the weights cut only, as a part of what the original's values vary."""
    after: float
    """The same once fitted to the other rows."""


@dataclass(frozen=True, eq=False)
class Compressed:
    """A compressed model, and how it came about."""

    model: ir.Model
    refits: tuple[Refit, ...]
    """Of every product that reads or writes something else than the original, in order."""


def compress(
    model: ir.Model,
    channels: Channels,
    keep: Keep,
    samples: Samples,
    *,
    rows: int = ROWS,
    steps: int = STEPS,
    rounds: int = ROUNDS,
    memory: int = MEMORY,
    device: Device = "cpu",
    threads: int = 0,
    progress: Callable[[str], None] = lambda _: None,
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
        memory: bytes that values between products, and the rows of one, may take.
        device: where to run.
        threads: of the runtime.
        progress: told which product is next.
    """
    thin = cut(model, channels, keep)
    done: list[Refit] = []
    for site in Frontier(model, thin, samples, memory=memory, device=device, threads=threads):
        if not site.intact:
            progress(f"refitting {site.key}")
            done.append(_refit(site, channels, keep, rows, steps, rounds, memory, device, threads))
    return Compressed(thin, tuple(done))


def kept(channels: Channels, order: Mapping[str, NDArray[np.int64]], widths: Mapping[str, int]) -> Keep:
    """Which units stay at these widths, if they go in their group's order; groups without an order stay whole."""
    found = {}
    for name, width in widths.items():
        if name in order and width < channels.groups[name].units:
            found[name] = np.ones(channels.groups[name].units, np.bool_)
            found[name][order[name][: channels.groups[name].units - width]] = False
    return found


def orders(
    model: ir.Model,
    channels: Channels,
    samples: Samples,
    *,
    groups: Iterable[str] | None = None,
    importance: Importance = "obs",
    memory: int = MEMORY,
    device: Device = "cpu",
    threads: int = 0,
) -> dict[str, Curve]:
    """By group, the order in which its units go and the error of its readers at every width, on the dense model.

    Args:
        model: canonical.
        channels: its groups.
        samples: as in `compress`.
        groups: their keys; None for all. Those that no product reads are left out.
        importance: what says which unit goes first.
        memory: as in `compress`.
        device: where to run.
        threads: of the runtime.
    """
    wanted = [channels.groups[k] for k in (channels.groups if groups is None else groups)]
    open_ = {g.key: {r for r in g.readers if not channels.products[r].diagonal} for g in wanted}
    readers: dict[str, list[Reader]] = {g.key: [] for g in wanted}
    found: dict[str, Curve] = {}
    for site in Frontier(model, model.clone(), samples, memory=memory, device=device, threads=threads):
        mine = [g for g in wanted if (site.key, 0) in open_[g.key]]
        if not mine:
            continue
        made = _readers(site, channels.products[site.key, 0].source, [g.key for g in mine], memory)
        for group in mine:
            open_[group.key].discard((site.key, 0))
            readers[group.key] += made[group.key]
            if not open_[group.key]:
                found[group.key] = _curve(model, channels, group, readers.pop(group.key), importance)
    for name, rest in readers.items():  # a reader was no plain product
        if rest:
            found[name] = _curve(model, channels, channels.groups[name], rest, importance)
    return {name: found[name] for name in channels.groups if name in found}


def _refit(
    site: Site,
    channels: Channels,
    keep: Keep,
    rows: int,
    steps: int,
    rounds: int,
    memory: int,
    device: Device,
    threads: int,
) -> Refit:
    product = channels.products.get((site.key, 0))
    stays = None if product is None else product.result.kept(keep)
    if stays is not None and np.sum(stays) != site.linear.channels:
        return Refit(site.key, 0, 0, None, "its channels are not those of a plain product", 0.0, 0.0)
    sampled = site.sample(_count(site, rows, memory), stays, PAIRED if rounds else 0)
    if not all(np.isfinite(a.sum(dtype=np.float64)) for a in (sampled.x, sampled.target)):
        return Refit(site.key, 0, 0, None, "its values are not finite", 0.0, 0.0)
    found = fit(sampled, site.matrix(), site.bias(), bounds=(site.low, site.high), biased=site.biased, steps=steps)
    if found.damping is not None:
        site.put(found.matrix, found.bias)
    if sampled.pair is not None and site.before is not None and not site.before.intact:
        both = joint.fit(site, sampled.pair, rounds=rounds, device=device, threads=threads)
        if both is not None:
            site.put_before(*both.first)
            site.put(*both.second)
    return Refit(site.key, found.rows, found.columns, found.damping, found.form, found.before, found.after)


def _count(site: Site, rows: int, memory: int) -> int:
    """How many rows a product is given."""
    width = 4 * site.linear.groups * site.linear.reduction
    return min(max(rows * site.linear.reduction, _FEWEST_ROWS), memory // _SHARE // width)


def _readers(site: Site, port: Port, groups: list[str], memory: int) -> dict[str, list[Reader]]:
    """A product as a reader of these groups, once for each of its own groups."""
    rows = site.sample(_count(site, _CHOICE_ROWS, memory))
    count, (_, _, columns) = rows.x.shape[-1], site.matrix().shape
    damping = 1e-3 if count >= _CHOICE_ROWS * columns else 1e-2
    grams = [x @ x.T / count for x in rows.x.astype(np.float64 if columns <= SINGLE else np.float32, copy=False)]
    scale = 1 / max(float(np.var(rows.target, axis=-1, dtype=np.float64).sum()), 1e-30)
    found: dict[str, list[Reader]] = {}
    for name in groups:
        owner = np.where(port.group == port.groups.index(name), port.unit, -1).reshape(len(grams), -1)
        owner = owner.repeat(columns // owner.shape[1], axis=1)
        zero = np.zeros(columns)
        found[name] = [
            Reader(w, gram, zero, own, scale, damping)
            for w, gram, own in zip(site.matrix(), grams, owner, strict=True)
            if (own >= 0).any()
        ]
    return found


def _curve(model: ir.Model, channels: Channels, group: Group, readers: list[Reader], importance: Importance) -> Curve:
    if importance == "obs":
        return curve(group.units, readers)
    if importance == "random":
        scores = np.random.default_rng(0).random(group.units)
    elif importance == "energy":
        scores = np.zeros(group.units)
        for r in readers:
            np.add.at(
                scores, r.unit[r.unit >= 0], (np.diagonal(r.gram) * (r.matrix**2).sum(axis=0) * r.gain)[r.unit >= 0]
            )
    else:
        scores = _written(model, channels, group, importance)
    return curve(group.units, readers, order=ranked(scores))


def _written(model: ir.Model, channels: Channels, group: Group, importance: Importance) -> NDArray[np.float64]:
    """By unit, the norm of the weights that write it, or the scale of the normalization that was folded into them."""
    scores = np.zeros(group.units)
    linears = {(key(n), i): linear for n in model.graph for i, linear in enumerate(ops.linears(n))}
    for writer in (w for w in group.writers if w in linears):
        port, linear = channels.products[writer].result, linears[writer]
        mine = port.group == port.groups.index(group.key)
        size = np.abs(linear.matrix().astype(np.float64)) ** (1 if importance == "l1" else 2)
        score = size.reshape(len(mine), -1).sum(axis=1)
        if importance == "scale" and BATCHNORM in linear.node.meta:
            score = np.abs(linear.node.meta[BATCHNORM][0]).reshape(-1)
        np.add.at(scores, port.unit[mine], score[mine])
    return scores
