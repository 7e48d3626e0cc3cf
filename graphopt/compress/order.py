"""In which order the units of each group go, and what their readers lose, from moments of the dense model.

Moments are summed in the order of the groups that read them and let go of with the last one: at a time there are those
of one pass over the samples, and what the elimination of one group makes of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.frontier import Frontier
from graphopt.analysis.groups import Channels, Group, Port
from graphopt.analysis.layers import Layer
from graphopt.analysis.moments import ROWS, Key, Moment, halves, products
from graphopt.analysis.places import has_bias
from graphopt.analysis.segments import Samples
from graphopt.compress import recurrent
from graphopt.compress.axis import NOTHING, Curve, Importance, Reader, curve, ranked
from graphopt.compress.heldout import losses
from graphopt.fuse.linear import BATCHNORM
from graphopt.graph.nodes import key
from graphopt.run.machine import HERE, Machine, Stage

__all__ = ["gathered", "orders"]


def orders(
    model: ir.Model,
    channels: Channels,
    samples: Samples,
    machine: Machine = HERE,
    *,
    importance: Importance = "obs",
) -> dict[str, Curve]:
    """By group, the order in which its units go and the error of its readers at every width, on the dense model.

    Args:
        model: canonical.
        channels: its groups. Of those that no plain product reads, units go in the order of the weights that write
            them, and nothing is known of the error (it is told as 0); those that nothing sums over are left out.
        samples: as in `collect`.
        importance: what says which unit goes first.
        machine: as in `collect`.
    """
    found, gated = dict[str, Curve](), {key(node) for node in model.graph if ops.gates(node)}
    partial = {k for k, g in channels.groups.items() if any(i < 0 and n not in gated for n, i in g.readers)}
    for group, readers in gathered(model, channels, channels.groups, samples, machine):
        machine.progress(Stage(f"ordering the units of {group.key}", len(found), len(channels.groups)))
        order = None if importance == "obs" else ranked(_scores(model, channels, group, readers, importance))
        made = curve(group.units, readers, order)
        found[group.key] = replace(
            made,
            held=losses(group.units, readers, made.order),
            rough=any(r.kind == "diagonal" for r in readers),
            partial=group.key in partial,
        )
    for name, group in channels.groups.items():
        if name not in found and name in partial:
            order = ranked(_written(model, channels, group, "l2"))
            found[name] = Curve(order, np.zeros(group.units + 1), {group.units: 0.0, 1: 0.0}, partial=True)
    return {name: found[name] for name in channels.groups if name in found}


def gathered(
    model: ir.Model,
    channels: Channels,
    groups: Iterable[str],
    samples: Samples,
    machine: Machine = HERE,
) -> Iterator[tuple[Group, list[Reader]]]:
    """Each of these groups with those of its readers that are gates or plain products, if there are any.

    A plain product has a constant weight that nothing else reads, and sums over more than one channel. What reads
    values that are not finite is left out: nothing can be learned from them.
    """
    linears, open_ = products(model), dict[str, list[Key]]()
    readers = _steps(model, channels, list(groups), samples, machine)
    for name in groups:
        open_[name] = [r for r in channels.groups[name].readers if r in linears and _is_plain(channels, linears[r], r)]
    wanted = dict.fromkeys(r for mine in open_.values() for r in mine)
    for name in [name for name, mine in open_.items() if not mine]:
        del open_[name]
        if mine := readers.pop(name):
            yield channels.groups[name], mine
    for reader, moment, held in halves(model, wanted, samples, machine):
        for name in [name for name, mine in open_.items() if reader in mine]:
            open_[name].remove(reader)
            if np.isfinite([moment.variance, *moment.mean.sum(axis=1), *held.mean.sum(axis=1)]).all():
                readers[name] += _readers(linears[reader], moment, held, channels.products[reader].source, name)
        del moment, held  # what nobody else needs goes as soon as the caller is done with it
        for name in [name for name, mine in open_.items() if not mine]:
            del open_[name]
            if mine := readers.pop(name):
                yield channels.groups[name], mine


def _steps(
    model: ir.Model, channels: Channels, groups: Sequence[str], samples: Samples, machine: Machine
) -> dict[str, list[Reader]]:
    """By group, its readers that are gates of recurrent layers."""
    found: dict[str, list[Reader]] = {name: [] for name in groups}
    wanted = {node for name in groups for node, index in channels.groups[name].readers if index < 0}

    def met(layer: Layer) -> None:
        if layer.key in wanted:
            machine.progress(f"looking at the steps of {layer.key}")
            for name, reader in recurrent.readers(layer, channels, machine.memory):
                if name in found:
                    found[name].append(reader)

    if any(key(node) in wanted and ops.gates(node) for node in model.graph):
        for _ in Frontier(model, model.clone(), samples, machine, layers=met):
            pass
    return found


def _is_plain(channels: Channels, linear: ops.Linear, name: Key) -> bool:
    weight = linear.node.inputs[linear.weight]
    return not channels.products[name].diagonal and weight is not None and len(weight.uses()) == 1


def _readers(linear: ops.Linear, moment: Moment, held: Moment, port: Port, group: str) -> list[Reader]:
    """A product as a reader of a group, once for each of its own groups."""
    weights = linear.matrix()
    columns = weights.shape[2]
    owner = port.owner(group).reshape(len(weights), -1)
    owner = owner.repeat(columns // owner.shape[1], axis=1)
    biased = has_bias(linear)
    mean = moment.mean if biased else np.zeros_like(moment.mean)
    gain = linear.alpha**2 / max(moment.variance, NOTHING)
    damping = 1e-3 if moment.rows >= ROWS * columns else 1e-2
    return [
        Reader(w, gram, mu, own, gain, damping, moment.kind, Reader(w, other, m, own, gain, damping, held.kind))
        for w, gram, mu, own, other, m in zip(weights, moment.gram, mean, owner, held.gram, held.mean, strict=True)
        if (own >= 0).any()
    ]


def _scores(
    model: ir.Model, channels: Channels, group: Group, readers: list[Reader], importance: Importance
) -> NDArray[np.float64]:
    """By unit, how much it matters."""
    if importance == "random":
        return np.random.default_rng(0).random(group.units)
    if importance != "energy":
        return _written(model, channels, group, importance)
    scores = np.zeros(group.units)
    for r in readers:
        mine = r.unit >= 0
        np.add.at(scores, r.unit[mine], (r.energy * (r.matrix**2).sum(axis=0) * r.gain)[mine])
    return scores


def _written(model: ir.Model, channels: Channels, group: Group, importance: Importance) -> NDArray[np.float64]:
    """By unit, the norm of the weights that write it, or the scale of the normalization that was folded into them."""
    scores = np.zeros(group.units)
    linears = products(model)
    for writer in (w for w in group.writers if w in linears):
        port, linear = channels.products[writer].result, linears[writer]
        mine = port.group == port.groups.index(group.key)
        size = np.abs(linear.matrix().astype(np.float64)) ** (1 if importance == "l1" else 2)
        score = size.reshape(len(mine), -1).sum(axis=1)
        if importance == "scale" and BATCHNORM in linear.node.meta:
            score = np.abs(linear.node.meta[BATCHNORM][0]).reshape(-1)
        np.add.at(scores, port.unit[mine], score[mine])
    return scores
