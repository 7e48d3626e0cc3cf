"""The units inside of heads in a basis in which few of them do most.

What queries x·Q and keys y·K give is a product of two, and so is what values and the projection behind them do:

    s = (x·Q)·(y·K)ᵀ = (x·Q·A)·(y·K·B)ᵀ,    A·Bᵀ = 1

Of rank r, the product that is closest to it, E|s − ŝ|² for a and b independent of each other, a = x·Q and b = y·K, is
told by the singular values of C_a^½·C_b^½ = U·S·Vᵀ, C = E[aᵀ·a] (Eckart-Young on what was whitened). With

    A = C_a^-½·U·S^½,    B = C_b^-½·V·S^½        A·Bᵀ = 1,  Aᵀ·C_a·A = Bᵀ·C_b·B = S

it is what the first r units give: a balanced realization, as of linear systems (Moore, 1981). So the best low rank of
each head is had by cutting units as ever, once weights are turned; what the model computes stays the same, to rounding.
Of a weight on the right, C_b is that of its rows; what a has for a mean is left to the bias that is refit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.analysis.channels import channels
from graphopt.analysis.facts import extents
from graphopt.analysis.groups import Channels
from graphopt.analysis.inside import Tap
from graphopt.analysis.mixing import Meeting, Place, meetings
from graphopt.analysis.segments import Samples, batches
from graphopt.compress.axis import NOTHING
from graphopt.graph.nodes import array
from graphopt.run.machine import HERE, Machine

__all__ = ["Turns", "balanced", "turns"]

Array = NDArray[np.float64]

_SAMPLES: Final = 128
"""That are looked at, about: each has as many rows as tokens."""
_BATCH: Final = 4
"""Samples of one run: what all heads compute is held at once."""
_LEAST: Final = 1e-7
"""Of the largest variance: what is less than this part of it counts as so much."""


@dataclass(frozen=True, eq=False)
class Turns:
    """Other bases of the units of some groups."""

    model: ir.Model
    by: Mapping[str, tuple[tuple[Place, Array], ...]] = field(default_factory=dict)
    """By group, its constants, and what each head of them is multiplied by: (heads, units, units)."""

    def turned(self, groups: Collection[str]) -> ir.Model:
        """A copy of the model with those of these groups in their other basis, units in falling order; or itself."""
        mine = [turn for name in self.by if name in groups for turn in self.by[name]]
        if not mine:
            return self.model
        copy = self.model.clone()
        for place, by in mine:
            value = copy.graph.initializers[place.value]
            value.const_value = ir.tensor(np.ascontiguousarray(place.mixed(_held(copy, place), by)), name=value.name)
        return copy


def turns(model: ir.Model, groups: Channels, samples: Samples, machine: Machine = HERE) -> Turns:
    """Other bases for all groups whose units may be mixed.

    Args:
        model: canonical; it is not changed.
        groups: its groups.
        samples: what is fed, in an order that does not depend on how it was given.
        machine: where to run.
    """
    if not groups.groups:
        return Turns(model)
    feeds, counts = batches(model, samples, _BATCH)
    feeds = feeds[: int(np.searchsorted(np.cumsum(counts), _SAMPLES)) + 1]
    found = meetings(model, groups, channels(model, extents(model, feeds[0]), inner=False), feeds[0], machine)
    if not found:
        return Turns(model)
    every = [meeting for mine in found.values() for meeting in mine]
    places = [p for m in every for p in m.sides if p.value not in model.graph.initializers]
    sums = {place: _Sum(place) for place in places}
    run = Tap(model, [place.value for place in places], machine)
    for feed in machine.track(feeds, "turning heads"):
        told = run(feed)
        for place, one in sums.items():
            one.add(told[place.value])
    by = {name: [_turn(model, meeting, sums) for meeting in mine] for name, mine in found.items()}
    return Turns(model, {name: tuple(t for one in made for t in one) for name, made in by.items() if all(made)})


def balanced(a: Array, b: Array) -> tuple[Array, Array]:
    """A and B, as above, of the same norm, for C_a and C_b; what is next to nothing counts as a little."""
    (root_a, back_a), (root_b, back_b) = _roots(a), _roots(b)
    u, s, vt = np.linalg.svd(root_a @ root_b)
    first, second = back_a @ u * np.sqrt(s), back_b @ vt.T * np.sqrt(s)
    even = np.sqrt(np.linalg.norm(second) / np.linalg.norm(first))
    return first * even, second / even


class _Sum:
    """E[aᵀ·a] and E[a] of the units of a value, head by head."""

    def __init__(self, place: Place, *arrays: NDArray[Any]) -> None:
        self._place, self._count = place, 0
        heads, _, units = place.at.shape
        self._gram, self._total = np.zeros((heads, units, units)), np.zeros((heads, units))
        for one in arrays:
            self.add(one)

    @np.errstate(invalid="ignore")  # infinities of both signs have no sum
    def add(self, found: NDArray[Any]) -> None:
        at = self._place.at.swapaxes(1, 2)
        rows = self._place.laid(found)[at].reshape(*at.shape[:2], -1).astype(np.float64)
        self._gram += rows @ rows.swapaxes(1, 2)
        self._total += rows.sum(axis=2)
        self._count += rows.shape[2]

    @np.errstate(invalid="ignore")
    def told(self, *, centred: bool) -> Array:
        mean = self._total / max(1, self._count)
        return self._gram / max(1, self._count) - centred * mean[:, :, None] * mean[:, None]


def _turn(model: ir.Model, meeting: Meeting, sums: Mapping[Place, _Sum]) -> list[tuple[Place, Array]]:
    """What the constants of both sides are multiplied by; none where something is not finite."""
    grams = list[Array]()
    for place in meeting.sides:
        one = sums.get(place) or _Sum(place, _held(model, place))
        grams.append(one.told(centred=meeting.biased and place in sums))
    if not all(np.isfinite(gram).all() for gram in grams):
        return []
    pairs = [balanced(a, b) for a, b in zip(*grams, strict=True)]
    by = [np.stack(some) for some in zip(*pairs, strict=True)]
    return [(p, matrix) for places, matrix in zip(meeting.constants, by, strict=True) for p in places]


def _held(model: ir.Model, place: Place) -> NDArray[Any]:
    found = array(model.graph.initializers[place.value])
    if found is None:
        raise TypeError(f"{place.value!r} is not a constant")
    return found


def _roots(gram: Array) -> tuple[Array, Array]:
    """C^½ and C^-½."""
    values, vectors = np.linalg.eigh(gram)
    scale = np.sqrt(np.maximum(values, max(values[-1] * _LEAST, NOTHING)))
    return vectors * scale @ vectors.T, vectors / scale @ vectors.T
