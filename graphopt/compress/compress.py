"""Brings a model to a plan, and fits what is left of it to what it was: choose → cut → factor → refit → code.

All in closed form, with neither labels nor gradients. Products are refit in topological order, each on what the ones
before it really give: those that write the units that stay (to the original's values of these), those that read them,
and every other one behind, as far as rows that were held back say that it pays. So each product is taught by the
original's own intermediate results (feature distillation), and the last one by its outputs (output distillation).
For the gates of recurrent layers see `recurrent`.

A product that is to be several is fitted within the span of its first ones, and written as these at the end (`factor`).
Weights that come from tables are chosen last, in a second way through the model, when all others are what they will be
(`codebook`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.frontier import Frontier, Rows, Site
from graphopt.analysis.groups import Channels
from graphopt.analysis.layers import Layer
from graphopt.analysis.segments import Samples
from graphopt.compress import joint, recurrent
from graphopt.compress.axis import damp
from graphopt.compress.cut import Keep, cut
from graphopt.compress.forms import codebook, factor
from graphopt.compress.forms.codebook import Codebook
from graphopt.compress.forms.factor import Basis, Factored, refined, solved
from graphopt.compress.forms.form import Form
from graphopt.compress.forms.terse import shorten
from graphopt.compress.forms.vectors import ENTRIES, Coded, table
from graphopt.compress.joint import ROUNDS
from graphopt.compress.refit import ROWS, STEPS, Fit, Refit, fit, row_count, times
from graphopt.compress.sparse import Sparse
from graphopt.graph import values
from graphopt.graph.nodes import key
from graphopt.ops.gate import OF_STATE
from graphopt.run.machine import HERE, Machine

__all__ = ["Compressed", "compress", "kept", "outlined"]

Array = NDArray[Any]

PAIRED = 200_000
"""Positions of whole samples that two products are fitted to together."""
_VALUES = 16_000_000
"""Elements of what both make there, at most: fits go over all of them again and again."""
_DAMPING: Final = 1e-3
"""Of what a product reads, where its first products are found."""


@dataclass(frozen=True, eq=False)
class Compressed:
    """A compressed model, and how it came about."""

    model: ir.Model
    refits: tuple[Refit, ...]
    """Of every product that reads or writes something else than the original, in order."""
    sparse: tuple[Sparse, ...] = ()
    """Where weights were set to zero: every product with a constant weight of its own, in order."""
    coded: bool = False
    """Whether weights are made of tables, which nothing must fold."""
    seconds: float = 0.0
    """Spent on that."""


def compress(
    model: ir.Model,
    channels: Channels,
    keep: Keep,
    samples: Samples,
    machine: Machine = HERE,
    *,
    forms: Mapping[str, Form] = MappingProxyType({}),
    rows: int = ROWS,
    steps: int = STEPS,
    rounds: int = ROUNDS,
) -> Compressed:
    """A copy of a model with only some units of each group, refit, and some products written in other ways.

    Args:
        model: canonical; it is not changed.
        channels: its groups.
        keep: which units of each group stay.
        samples: what is fed, in an order that does not depend on how it was given.
        forms: how products are written, by key.
        rows: how many for each column a product is fitted to.
        steps: how often one-sided targets are moved.
        rounds: of fitting two products together; 0 fits each alone.
        machine: where to run, and what values between products, and the rows of one, may take.
    """
    thin = cut(model, channels, keep)
    work = _Work(channels, keep, dict(forms), machine, rows, steps, rounds)
    factored = any(isinstance(form, Factored) for form in forms.values())
    for site in Frontier(model, thin, samples, machine, layers=work.recur) if keep or factored else ():
        if not site.intact or isinstance(forms.get(site.key), Factored):
            site.tell("refitting")
            work.done.append(work.refit(site))
    coded = any(isinstance(form, Codebook) for form in forms.values())
    if coded:
        work.code(Frontier(model, thin, samples, machine, pairs=False), thin)
    if work.bases:
        factor.write(thin, work.bases)
        values.follow(thin)
    if coded:
        shorten(thin)
    return Compressed(thin, tuple(work.done), coded=coded)


def outlined(model: ir.Model, channels: Channels, keep: Keep, forms: Mapping[str, Form]) -> ir.Model:
    """A copy of a model of the extents that `compress` would give it, at once; its weights are none of use."""
    thin = cut(model, channels, keep)
    bases, codes, lengths = dict[str, Basis](), dict[str, Coded](), set[int]()
    for node in thin.graph:
        form, linears = forms.get(key(node)), ops.linears(node)
        if isinstance(form, Factored) and (rank := form.rank(linears[0])):
            columns = linears[0].reduction
            bases[key(node)] = form.spans(linears[0], np.eye(linears[0].channels, columns), np.eye(columns))(rank)
        elif isinstance(form, Codebook) and form.suits(linears[0]):
            codes[key(node)] = codebook.blank(linears[0], form.length)
            lengths.add(form.length)
    factor.write(thin, bases)
    codebook.write(thin, codes, {length: np.zeros((ENTRIES, length), np.float32) for length in lengths})
    if codes:
        shorten(thin)
    return thin


def kept(channels: Channels, order: Mapping[str, NDArray[np.int64]], widths: Mapping[str, int]) -> Keep:
    """Which units stay at these widths, if they go in their group's order; groups without an order stay whole."""
    found = {}
    for name, width in widths.items():
        if name in order and width < channels.groups[name].units:
            found[name] = np.ones(channels.groups[name].units, np.bool_)
            found[name][order[name][: channels.groups[name].units - width]] = False
    return found


@dataclass(frozen=True, eq=False)
class _Work:
    """What is done to one product after the other."""

    channels: Channels
    keep: Keep
    forms: Mapping[str, Form]
    machine: Machine
    rows: int
    steps: int
    rounds: int
    done: list[Refit] = field(default_factory=list)
    bases: dict[str, Basis] = field(default_factory=dict)
    """What the first of several products computes, by key."""

    def recur(self, layer: Layer) -> None:
        """Refit a recurrent layer."""
        if not layer.intact:
            self.machine.progress(f"refitting {layer.key}")
            product = self.channels.products.get((layer.key, OF_STATE))
            stays = None if product is None else product.source.kept(self.keep)
            self.done.append(recurrent.refit(layer, stays, self.rows, self.machine.memory))

    def code(self, sites: Frontier, thin: ir.Model) -> None:
        """Let products be made of entries of tables, one after the other, once all others are what they will be."""
        lengths, matrices = dict[str, int](), dict[int, list[Array]]()
        for node in thin.graph:
            form, linears = self.forms.get(key(node)), ops.linears(node)
            if isinstance(form, Codebook) and form.suits(linears[0]):
                lengths[key(node)] = form.length
                matrices.setdefault(form.length, []).append(linears[0].matrix()[0])
        tables = {length: table(found, length) for length, found in matrices.items()}
        made = dict[str, Coded]()
        for site in sites:
            if site.key not in lengths:
                continue
            site.tell("coding")
            count = row_count(site.linear.reduction, self.rows, self.machine.memory, site.linear.groups)
            rows, bounds = site.sample(count, self._stays(site)), (site.low, site.high)
            if not rows.finite:
                continue
            given, entries = (site.matrix(), site.bias()), tables[lengths[site.key]]
            one, bias, before, after = codebook.fitted(rows, *given, entries, bounds=bounds, biased=site.biased)
            site.put(one.matrix[None], bias)
            made[site.key] = one
            self.done.append(Refit(site.key, count, site.linear.reduction, None, "codebook", before, after))
        codebook.write(thin, made, tables)

    def _stays(self, site: Site) -> NDArray[np.bool_] | None:
        """Which channels of the original's result stay."""
        product = self.channels.products.get((site.key, 0))
        return None if product is None else product.result.kept(self.keep)

    def refit(self, site: Site) -> Refit:
        """Refit a product, write it in another way, and fit it once more together with the one before it."""
        stays = self._stays(site)
        if stays is not None and np.sum(stays) != site.linear.channels:
            return Refit(site.key, 0, 0, None, "its channels are not those of a plain product", 0.0, 0.0)
        paired = min(PAIRED, _VALUES // (site.linear.in_channels + site.linear.channels))
        count = row_count(site.linear.reduction, self.rows, self.machine.memory, site.linear.groups)
        sampled = site.sample(count, stays, paired if self.rounds else 0)
        if not sampled.finite:
            return Refit(site.key, 0, 0, None, "its values are not finite", 0.0, 0.0)
        found = self._fit(site, sampled, site.matrix(), site.bias())
        if found.damping is not None:
            site.put(found.matrix, found.bias)
        form = self.forms.get(site.key)
        if isinstance(form, Factored) and (rank := form.rank(site.linear)):
            found = self._formed(site, sampled, form, rank, found)
        before = site.before
        if sampled.pair is not None and before is not None and (not before.intact or before.key in self.bases):
            spans = (self._span(before), self._span(site))
            both = joint.fit(site, sampled.pair, self.machine, rounds=self.rounds, spans=spans)
            if both is not None:
                site.put_before(*both.first)
                site.put(*both.second)
        return Refit(site.key, found.rows, found.columns, found.damping, found.form, found.before, found.after)

    def _fit(self, site: Site, rows: Rows, matrix: Array, bias: Array) -> Fit:
        return fit(rows, matrix, bias, bounds=(site.low, site.high), biased=site.biased, steps=self.steps)

    def _formed(self, site: Site, rows: Rows, form: Factored, rank: int, found: Fit) -> Fit:
        """Let a product be of a form: its first products are found, and the last one is fitted behind them."""
        gram = times(rows.x, rows.x)[0] / max(1, rows.x.shape[-1])
        damp(gram, _DAMPING)
        rough = form.spans(site.linear, found.matrix[0], gram)(rank)
        basis = refined(rough, found.matrix[0], gram, site.linear.kernel)
        span = basis.matrix
        last = solved(span @ gram @ span.T, span @ gram @ found.matrix[0].T).T
        again = self._fit(site, rows.through(span), last[None], found.bias)
        site.put(again.matrix @ span, again.bias)
        self.bases[site.key] = basis
        return replace(again, before=found.before)

    def _span(self, site: Site) -> Array | None:
        return self.bases[site.key].matrix if site.key in self.bases else None
