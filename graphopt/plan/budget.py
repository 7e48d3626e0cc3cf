"""What may remain of a model, and what plans cost.

    {"macs": 0.5, "params": 0.35, "bytes": 0.25, "latency": 0.7}     shares of the model as given; several at once
    {"accuracy": 0.002, "agreement": 0.01, "sqnr": 30.0}             how much worse it may do; sqnr: its least value

A plan is a row of widths, one per group. Multiply-accumulates and parameters of a product are its full ones times the
shares that stay of what it reads, writes and repeats: exact, and cheap for many plans at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from graphopt.analysis.groups import Channels, Port, Widths
from graphopt.errors import UsageError

__all__ = [
    "LABELLED",
    "Cost",
    "Limit",
    "Metric",
    "Multilinear",
    "Resource",
    "amounts",
    "drops",
    "excess",
    "limits",
    "lines",
    "macs",
    "row",
    "shares",
]

Array = NDArray[Any]
Resource = Literal["macs", "params", "bytes", "latency"]
Metric = Literal["accuracy", "f1", "agreement", "sqnr", "cosine"]

LABELLED: Final = frozenset({"accuracy", "f1"})
"""Metrics that need labels."""
_NEEDS: Final = "`labels` in the data, the number of its class for each sample, and an output of scores"
_BELOW_ONE: Final = frozenset({"accuracy", "f1", "agreement", "cosine"})


class Cost(Protocol):
    """What many plans cost; it never falls with a width."""

    def __call__(self, plans: Array) -> Array:
        """(plans, groups) widths to (plans,)."""
        ...


@dataclass(frozen=True, eq=False)
class Multilinear:
    """rest + Σ over products of amount·(line₁·k)·(line₂·k)·(line₃·k), where k is (1, widths…).

    Where a product is written in another way, (line₂·k) is both·(line₂·k) + loose.
    """

    amounts: Array
    """(products,)."""
    lines: Array
    """(3, 1 + groups, products): which share of a product's inputs, outputs and repetitions stays."""
    rest: float = 0.0
    """What no plan changes."""
    ways: tuple[tuple[int, int, Array], ...] = ()
    """Of products that may be written in other ways: (product, group, (ways, 2)), see `Choice.left`."""

    def __call__(self, plans: Array) -> Array:
        """See `Cost`."""
        k = np.concatenate([np.ones((len(plans), 1)), plans], axis=1)
        source, result, batch = k @ self.lines
        left = source * result * batch
        for product, group, shares in self.ways:
            both, loose = shares[plans[:, group].astype(np.intp) - 1].T
            left[:, product] = source[:, product] * batch[:, product] * (both * result[:, product] + loose)
        return np.asarray(self.rest + left @ self.amounts)


@dataclass(frozen=True)
class Limit:
    """One resource, what plans cost of it, and how much of it there is."""

    resource: str
    cost: Cost
    most: float
    share: float = 1.0
    """The share of what the model took as given that was asked for."""


def shares(budget: Mapping[str, float] | Sequence[str]) -> dict[str, float]:
    """A budget, checked: the share of each resource that may remain.

    Args:
        budget: a mapping, or words like "macs=0.5".

    Raises:
        UsageError: a resource is not known, a share is none.
    """
    found = dict(_pairs(budget, "budget", "macs=0.5"))
    names = get_args(Resource)
    for name, share in found.items():
        if name not in names:
            raise UsageError(f"there is no budget {name!r}: give one of {', '.join(names)}")
        if not 0 < share < 1:
            raise UsageError(f"the budget {name}={share:g} is no share: give a number above 0 and below 1")
    return found


def drops(wanted: Mapping[str, float] | Sequence[str]) -> dict[str, float]:
    """What a result may lose, checked: how far each metric may fall; for sqnr the least value, in decibels.

    Raises:
        UsageError: a name is no word, a number makes no sense.
    """
    found = dict(_pairs(wanted, "max_drop", "accuracy=0.002"))
    for name, value in found.items():
        if not name.isidentifier():
            raise UsageError(f"{name!r} is no metric: give {', '.join(get_args(Metric))} or the name of your own")
        if name != "sqnr" and value < 0:
            raise UsageError(f"max_drop {name}={value:g} is no drop: give a number of at least 0")
        if name in _BELOW_ONE and value >= 1:
            raise UsageError(f"max_drop {name}={value:g} allows anything: give a number below 1")
    return found


def excess(metrics: Mapping[str, tuple[float, float]], allowed: Mapping[str, float]) -> float:
    """How far a result is beyond what it may lose: at most 1 where it is not, the share of it that is used.

    Args:
        metrics: by name, of the original and of the result.
        allowed: as `drops` has it.

    Raises:
        UsageError: a metric was not measured.
    """
    worst = 0.0
    for name, most in allowed.items():
        if name not in metrics:
            known, needs = ", ".join(metrics) or "none", f"; it needs {_NEEDS}" if name in LABELLED else ""
            raise UsageError(f"the metric {name!r} cannot be measured on this model and data{needs}; there is: {known}")
        before, after = metrics[name]
        lost = before - after
        if name == "sqnr":
            used = 10 ** ((most - after) / 20)
        elif most:
            used = lost / most
        else:
            used = float("inf") if lost > 0 else 0.0
        worst = max(worst, used if not np.isnan(used) else float("inf"))
    return worst


def lines(channels: Channels) -> Array:
    """(3, 1 + groups, products): see `Multilinear`; groups and products are numbered as `channels` lists them."""
    place = {key: i + 1 for i, key in enumerate(channels.groups)}
    found = np.zeros((3, len(place) + 1, len(channels.products)))
    for column, product in enumerate(channels.products.values()):
        ports = (None if product.diagonal else product.source, product.result, product.batch)
        for side, port in enumerate(ports):
            found[side, :, column] = _line(port, channels, place)
    return found


def amounts(channels: Channels) -> dict[str, Multilinear]:
    """Multiply-accumulates, parameters and bytes of plans."""
    shared, found = lines(channels), dict[str, Multilinear]()
    groups, products = list(channels.groups), list(channels.products)
    each = np.array([(p.macs, p.params, p.params * p.itemsize) for p in channels.products.values()], np.float64)
    for name, sizes in zip(("macs", "params", "bytes"), each.reshape(-1, 3).T, strict=True):
        ways = tuple(
            (products.index(choice.product), groups.index(group), choice.left[name])
            for group, choice in channels.choices.items()
        )
        found[name] = Multilinear(sizes, shared, ways=ways)
    return found


def macs(channels: Channels, widths: Widths) -> float:
    """Multiply-accumulates of one sample with only so many units left."""
    return float(amounts(channels)["macs"](row(channels, widths))[0])


def limits(
    channels: Channels, budget: Mapping[str, float], given: Mapping[str, float], now: Mapping[str, float]
) -> list[Limit]:
    """The limits on plans of a model; a latency table is added by who measured it.

    Args:
        channels: of the model at hand.
        budget: as `shares` has it.
        given: macs, params and bytes of the model as given, which shares are of.
        now: the same of the model at hand, which a plan changes.
    """
    costs = amounts(channels)
    found = list[Limit]()
    for name, cost in costs.items():
        if name in budget:
            rest = now[name] - float(cost(row(channels, {}))[0])
            found.append(Limit(name, replace(cost, rest=rest), budget[name] * given[name], budget[name]))
    return found


def row(channels: Channels, widths: Widths) -> Array:
    """(1, groups): a plan as costs take it."""
    return np.array([[widths.get(key, g.units) for key, g in channels.groups.items()]], np.float64)


def _pairs(given: Mapping[str, float] | Sequence[str], what: str, example: str) -> list[tuple[str, float]]:
    if not isinstance(given, Mapping | Sequence):
        raise UsageError(f"{what} is {given!r}: name what it is of, as in {example}")
    items: list[tuple[Any, Any]] = list(given.items()) if isinstance(given, Mapping) else []
    if not isinstance(given, Mapping):
        for word in [given] if isinstance(given, str) else given:
            name, equals, value = str(word).partition("=")
            if not equals:
                raise UsageError(f"{what} {word!r} has no value: write {example}")
            items.append((name.strip(), value))
    found = list[tuple[str, float]]()
    for name, value in items:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise UsageError(f"{what} {name}={value} has no number: write {example}") from None
        if not np.isfinite(number):
            raise UsageError(f"{what} {name}={value} has no finite number: write {example}")
        if name in dict(found):
            raise UsageError(f"{what} {name} is given twice")
        found.append((str(name), number))
    if not found:
        raise UsageError(f"{what} is empty: write {example}")
    return found


def _line(port: Port | None, channels: Channels, place: Mapping[str, int]) -> Array:
    """(1 + groups,): the share of a port's channels that stay, as a line in the widths."""
    line = np.zeros(len(place) + 1)
    if port is None or not len(port.group):
        line[0] = 1.0
        return line
    line[0] = np.mean(port.group < 0)
    for index, key in enumerate(port.groups):
        line[place[key]] += np.mean(port.group == index) / channels.groups[key].units
    return line
