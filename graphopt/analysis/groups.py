"""What can be cut from a model together: groups of channels, and the products that read and write them.

A *unit* is what lives or dies as one: a channel with all its copies behind residual sums, a head, a hidden unit with
its gates. A *group* holds the units that play the same part in the graph, so that only their number and choice matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["Channels", "Choice", "Group", "Port", "Product", "Widths"]

Widths = Mapping[str, int]
"""How many units of each group stay, by the group's key; groups that are not named keep all."""


@dataclass(frozen=True, eq=False)
class Port:
    """One side of a product: which unit each of its channels belongs to."""

    groups: tuple[str, ...]
    """Keys of the groups of its channels, in their order along the axis."""
    group: NDArray[np.int64]
    """(channels,): index into `groups` of each channel; -1 for channels that always stay."""
    unit: NDArray[np.int64]
    """(channels,): number of the unit inside its group; -1 for channels that always stay."""

    def owner(self, group: str) -> NDArray[np.int64]:
        """(channels,): number of the unit of one group that each belongs to; -1 for those of others."""
        place = self.groups.index(group) if group in self.groups else len(self.groups)
        return np.where(self.group == place, self.unit, -1)

    def kept(self, keep: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """(channels,): which channels stay, given which units of each group do."""
        stays = np.ones(len(self.group), np.bool_)
        for index, key in enumerate(self.groups):
            if key in keep:
                mine = self.group == index
                stays[mine] = keep[key][self.unit[mine]]
        return stays


@dataclass(frozen=True, eq=False)
class Product:
    """One sum of products: a constant weight times data (`linear`), or two data tensors."""

    key: str
    """Key of its node."""
    index: int
    """Which of `ops.linears(node)` it is; -1 where no weight is constant, or the node has no such entry."""
    macs: int
    """Multiply-accumulates of one sample at full width."""
    params: int
    """Elements of its weights at full width; 0 where another product before it reads the same."""
    source: Port
    """The channels that it sums over: all input channels of the node, also where it has groups."""
    result: Port
    """Its output channels."""
    diagonal: bool = False
    """Depthwise: input and output channels are the same units, and cost is linear in their number."""
    batch: Port | None = None
    """A further axis along which there are more products (the heads of attention)."""
    itemsize: int = 4
    """Bytes of an element of its weights."""


@dataclass(frozen=True, eq=False)
class Group:
    """Units that can be cut one by one."""

    key: str
    """Key of the first node that writes it; with a suffix where one node writes several."""
    units: int
    kind: str
    """What a unit is: "channel", "head", "hidden unit", …"""
    writers: tuple[tuple[str, int], ...]
    """(key, index) of the products whose results hold its units, in graph order."""
    readers: tuple[tuple[str, int], ...]
    """(key, index) of the products that sum over its units, in graph order."""


@dataclass(frozen=True, eq=False)
class Choice:
    """Ways to write one product, of which a plan chooses: cheap ones first, as it is last."""

    product: tuple[str, int]
    """(key, index)."""
    ways: tuple[str, ...]
    """As passes are written; the last one is empty."""
    losses: tuple[float, ...]
    """Of each; never rising."""
    left: Mapping[str, NDArray[np.float64]]
    """By resource, (ways, 2): shares of the product's cost that are left, of what depends on its input and output
    channels, and of what depends on its input channels alone. Neither falls."""

    def times(self, weight: float) -> Choice:
        """The same with other losses."""
        return replace(self, losses=tuple(loss * weight for loss in self.losses))


@dataclass(frozen=True, eq=False)
class Channels:
    """Every group of a model."""

    groups: Mapping[str, Group]
    """By key, in graph order."""
    products: Mapping[tuple[str, int], Product]
    """By (key, index), in graph order."""
    frozen: Mapping[str, str]
    """Why the result of a product cannot be cut, by the key of its node."""
    values: Mapping[str, tuple[Port | None, ...]]
    """For each value that something can be cut from, by name, the units along each of its axes."""
    choices: Mapping[str, Choice] = field(default_factory=dict)
    """Of some groups, what their units are steps of: these have neither writers nor readers."""

    @property
    def units(self) -> dict[str, int]:
        """Number of units of each group."""
        return {key: group.units for key, group in self.groups.items()}
