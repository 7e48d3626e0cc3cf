"""What was cut, why so much of each, and what that costs: the part of the report that a compression adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from graphopt.analysis.groups import Choice
from graphopt.analysis.robustness import Noisy
from graphopt.compress.refit import Refit
from graphopt.compress.sparse import Sparse
from graphopt.lossy import Lossy
from graphopt.plan.budget import excess, macs
from graphopt.plan.levels import LossCurve
from graphopt.spelling import spec

__all__ = ["FormReport", "Metric", "NoiseReport", "PlanReport", "TriedReport", "WidthReport"]


class Metric(NamedTuple):
    """How well the original and the result do, on the data that was given."""

    before: float
    after: float


@dataclass(frozen=True)
class NoiseReport:
    """How both models do with Gaussian noise on their float inputs, measured against the original without it."""

    level: float
    """Standard deviation of the noise, as a part of that of each input."""
    samples: int
    """Of those that judge."""
    metrics: Mapping[str, Metric]

    @classmethod
    def of(cls, found: Noisy) -> NoiseReport:
        """What was measured at one level."""
        return cls(found.level, found.samples, {name: Metric(*values) for name, values in found.metrics.items()})


@dataclass(frozen=True)
class WidthReport:
    """One group of channels under the plan."""

    key: str
    kind: str
    before: int
    after: int
    macs: float
    """Share of the model's multiply-accumulates that went with what was cut from this group alone."""
    curve: Mapping[int, float]
    """By number of units, what it costs the outputs to keep only so many of this group: where that was measured, and,
    in between, at `after`."""


@dataclass(frozen=True)
class FormReport:
    """One product that is written in another way under the plan."""

    key: str
    form: str
    """As passes are written."""
    left: Mapping[str, float]
    """By resource, the share of the product that is left at full width; nothing where a recipe held the plan."""
    loss: float | None
    """What that alone costs, on samples held back, as a part of what its result varies."""


@dataclass(frozen=True)
class TriedReport:
    """One plan that was compressed and measured."""

    macs: float
    """Share of the model that was planned for."""
    loss: float
    """Distance of the outputs to the original's, on samples that took no part in the fit."""
    predicted: float
    metrics: Mapping[str, Metric]
    latency: float | None
    met: bool
    """Whether it meets every limit, as measured, and loses no more than it may."""
    chosen: bool = False
    """Whether it is the one that was emitted."""


@dataclass(frozen=True)
class PlanReport:
    """What was cut or set to zero, why so much of each, and what that costs."""

    budget: Mapping[str, float]
    max_drop: Mapping[str, float]
    groups: tuple[WidthReport, ...]
    forms: tuple[FormReport, ...]
    """Of products that are written in another way."""
    tried: tuple[TriedReport, ...]
    refits: tuple[Refit, ...]
    calibrated: int
    """Samples that were learned from."""
    judged: int
    """Samples that the metrics are measured on, and nothing else."""
    only: bool
    """Whether no more than a plan was asked for, so that nothing was cut."""
    sparsify: str = ""
    """Which weights were to become zero, as `--pass` takes it."""
    sparse: tuple[Sparse, ...] = ()
    """Where some did, every product, and how many of its weights did."""

    @property
    def zeros(self) -> tuple[int, int]:
        """Weights that became zero, and all weights of these products."""
        return sum(s.zeros for s in self.sparse), sum(s.weights for s in self.sparse)

    @classmethod
    def of(cls, found: Lossy) -> PlanReport:
        """What of a compression a report keeps."""
        channels, widths, recipe = found.channels, found.plan.widths, found.outcome.recipe
        full = macs(channels, {}) or 1.0
        groups = tuple(
            WidthReport(
                key,
                group.kind,
                group.units,
                widths.get(key, group.units),
                1 - macs(channels, {key: widths.get(key, group.units)}) / full,
                _told(curve, widths.get(key, group.units)) if (curve := found.curves.get(key)) else {},
            )
            for key, group in channels.groups.items()
        )
        known = {choice.product[0]: choice for choice in found.sites.choices.values()}
        forms = tuple(_form(key, form, known.get(key)) for key, form in found.plan.forms.items())
        tried = tuple(
            TriedReport(
                macs(found.sites, t.widths) / full,
                t.made.loss,
                t.predicted,
                {name: Metric(*values) for name, values in t.made.metrics.items()},
                t.made.latency,
                t.met and excess(t.made.metrics, recipe.max_drop) <= 1,
                t.plan == found.plan,
            )
            for t in found.tried
        )
        return cls(
            dict(recipe.budget),
            dict(recipe.max_drop),
            groups,
            forms,
            tried,
            found.refits,
            found.split.calibrated,
            found.split.judged,
            found.only,
            "" if recipe.sparsify is None else spec(recipe.sparsify),
            found.sparse,
        )


def _form(key: str, form: str, choice: Choice | None) -> FormReport:
    if choice is None:
        return FormReport(key, form, {}, None)
    place = choice.ways.index(form)
    return FormReport(key, form, {n: float(x[place].sum()) for n, x in choice.left.items()}, choice.losses[place])


def _told(curve: LossCurve, width: int) -> dict[int, float]:
    """What a curve says, also of a width that was chosen; falling."""
    known = dict(zip(curve.widths, curve.losses, strict=True))
    if width >= curve.least:
        known.setdefault(width, curve(width))
    return dict(sorted(known.items(), reverse=True))
