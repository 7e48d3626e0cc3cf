"""Plans, what was made of them, and who makes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from graphopt.analysis.groups import Channels
from graphopt.errors import Verdict
from graphopt.plan.levels import LossCurve

__all__ = ["Made", "Plan", "Tried", "Unmet", "Workshop"]


@dataclass(frozen=True)
class Plan:
    """How many units of each group stay, and how products are written. A replay needs no more."""

    widths: Mapping[str, int]
    """By group; those that are not named keep all."""
    forms: Mapping[str, str] = field(default_factory=dict)
    """By key of a product, as passes are written."""

    @classmethod
    def chosen(cls, widths: Mapping[str, int], sites: Channels) -> Plan:
        """From widths of groups and steps of choices."""
        picked = {choice.product[0]: choice.ways[widths[k] - 1] for k, choice in sites.choices.items() if k in widths}
        left = {k: w for k, w in widths.items() if k not in sites.choices}
        return cls(dict(sorted(left.items())), {k: way for k, way in sorted(picked.items()) if way})

    @classmethod
    def of(cls, widths: Mapping[str, Any], forms: Mapping[str, str], channels: Channels) -> Plan:
        """Read one back for a model.

        Raises:
            Verdict: the model has no such group, or it cannot have this width.
        """
        for key, width in widths.items():
            group = channels.groups.get(key)
            if group is None:
                raise Verdict(
                    f"the plan names the group {key!r}, which this model does not have: give the recipe of this model"
                )
            if not isinstance(width, int) or not 0 < width <= group.units:
                raise Verdict(f"the plan gives {key!r} {width} units; it has 1 to {group.units}")
        products = {key for key, _ in channels.products}
        for key in forms:
            if key not in products:
                raise Verdict(
                    f"the plan names the product {key!r}, which this model does not have: give the recipe of this model"
                )
        return cls(dict(widths), dict(forms))


@dataclass(frozen=True)
class Made:
    """A model cut to a plan, refit and measured."""

    model: Any
    loss: float
    """Of its outputs, on samples that took no part: error over signal."""
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """By name, of the original and of the model."""
    latency: float | None = None
    """Its time over the original's, where time is limited: the upper end of its 95 % interval."""


class Workshop(Protocol):
    """What planning has others do."""

    def losses(self) -> Mapping[str, LossCurve]:
        """The loss of each group by its width, on the dense model."""
        ...

    def make(self, plan: Plan) -> Made:
        """Compress the model to a plan, and measure it."""
        ...

    def time(self, plan: Plan) -> float:
        """As `Made.latency`, of the model that is cut to a plan and no more."""
        ...

    def work(self, plan: Plan) -> float:
        """Which share of the multiply-accumulates is left with a plan, as it will be written."""
        ...

    def size(self, plan: Plan) -> int:
        """Bytes of what would be emitted of a plan."""
        ...


@dataclass(frozen=True)
class Tried:
    """One plan that was compressed and measured."""

    plan: Plan
    widths: Mapping[str, int]
    """Of groups, and steps of choices, which costs are of."""
    made: Made
    predicted: float
    """The sum of losses that it was chosen for."""
    costs: Mapping[str, float]
    """By resource, the share of its limit that it uses."""
    met: bool
    """Whether it meets every limit, as measured."""


class Unmet(Verdict):
    """A budget or an allowed drop that no plan was found for; it carries what came closest."""

    def __init__(self, message: str, best: Tried | None, tried: Sequence[Tried]) -> None:
        super().__init__(message)
        self.best = best
        self.tried = tuple(tried)
