"""What a product loses if it is written in another way, on samples that took no part in finding it.

Of all forms those are offered that lose less than any cheaper one. Losses are relative to how much the values vary that
the product's result ends in, as those of its readers are where channels are cut, so that a plan can weigh both. Where
only products read that result, what counts is what is left of the error behind them (`_weights`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final, Literal, get_args

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.groups import Channels, Choice, Group
from graphopt.analysis.moments import Key, Moment, halves, products
from graphopt.analysis.places import has_bias
from graphopt.analysis.segments import Samples
from graphopt.compress.axis import NOTHING, damp
from graphopt.compress.forms.codebook import Codebook, damped
from graphopt.compress.forms.factor import Factored, solved
from graphopt.compress.forms.form import Form, Left
from graphopt.compress.forms.lowrank import LowRank, Tucker
from graphopt.compress.forms.separable import Separable
from graphopt.compress.forms.vectors import blocks, coded, table
from graphopt.errors import UsageError
from graphopt.run.machine import HERE, Machine, Stage
from graphopt.spelling import parse, spec

__all__ = ["FACTORED", "FORMS", "Stored", "everywhere", "form_of", "offers", "with_choices"]

Array = NDArray[Any]
Stored = Literal["macs", "params", "bytes"]
"""What a form may save, apart from time."""
FACTORED: Final[tuple[type[Factored], ...]] = (LowRank, Tucker, Separable)
FORMS: Final[tuple[type[Form], ...]] = (*FACTORED, Codebook)
_DAMPING: Final = 1e-3
_MOST: Final = 1.0
"""A loss that nothing is worth."""
_LARGE: Final = 2304
"""Columns above which bases that are not nested take too long."""
_SOME: Final = 256
"""Rows of weights that codes are tried on, about."""
_SWEEPS: Final = 1
"""Of descent, where nothing but the loss is wanted."""
_PAYS: Final = 0.95
"""What may be left of a product, for it to be written in another way."""


def offers(
    model: ir.Model,
    channels: Channels,
    samples: Samples,
    machine: Machine = HERE,
    *,
    resources: Sequence[Stored] = ("macs", "params"),
    skip: Collection[str] = (),
) -> dict[str, Choice]:
    """By key, ways to write each product that has any.

    Args:
        model: canonical.
        channels: its products.
        samples: as in `collect`.
        machine: as in `collect`.
        resources: what is limited: a way that leaves more of any of these than a better one is no way.
        skip: keys of nodes that stay as they are.
    """
    linears = {name: linear for name, linear in _free(model, skip).items() if name in channels.products}
    found, tables = {}, _tables(linears.values()) if "bytes" in resources else {}
    gains = dict[Key, float]()
    for name, moment, held in halves(model, linears, samples, machine):
        with np.errstate(invalid="ignore"):
            finite = np.isfinite([moment.variance, moment.gram.sum(), held.gram.sum()]).all()
        if finite and "diagonal" not in (moment.kind, held.kind):
            machine.progress(Stage(f"looking for other forms of {name[0]}", len(gains), len(linears)))
            gains[name] = _gain(linears[name], moment)
            choice = _choice(name, list(_ways(linears[name], moment, held, tables)), resources)
            if choice is not None:
                found[name[0]] = choice
    weights = _weights(channels, gains)
    return {k[0]: found[k[0]].times(weights[k]) for k in linears if k[0] in found}


def everywhere(model: ir.Model, form: Form, skip: Collection[str] = ()) -> dict[str, str]:
    """The form, as passes are written, for each product that there is less of with it, by key.

    Raises:
        UsageError: there is none.
    """
    found = {name: spec(form) for (name, _), linear in _free(model, skip).items() if _has(linear, form)}
    if not found:
        raise UsageError(f"no product of the model is smaller as {spec(form)}: ask for less, or for another form")
    return found


def _free(model: ir.Model, skip: Collection[str]) -> dict[Key, ops.Linear]:
    """Products that can be written in another way."""
    return {k: linear for k, linear in products(model).items() if k[0] not in skip and _is_free(linear)}


def _has(linear: ops.Linear, form: Form) -> bool:
    if isinstance(form, Codebook):
        return form.suits(linear) and form.left(linear).bytes < _PAYS
    return isinstance(form, Factored) and bool(rank := form.rank(linear)) and _pays(form.left(linear, rank))


def form_of(text: str) -> Form:
    """A form as passes are written; see `spec`."""
    return parse(text, {kind.name: kind for kind in FORMS})


def with_choices(channels: Channels, choices: Mapping[str, Choice]) -> Channels:
    """The same groups, and one for each choice, whose units are its ways."""
    named = {f"form of {name}": choice for name, choice in choices.items()}
    more = {name: Group(name, len(choice.ways), "way", (), ()) for name, choice in named.items()}
    return replace(channels, groups={**channels.groups, **more}, choices=named)


def _is_free(linear: ops.Linear) -> bool:
    """Whether it can be written in another way: its weight is its own, and it is all that its node does."""
    weight = linear.node.inputs[linear.weight]
    alone = weight is not None and len(weight.uses()) == 1 and not weight.is_graph_output()
    return (
        alone
        and len(ops.linears(linear.node)) == 1
        and linear.parter is not None
        and linear.groups == 1
        and bool(linear.alpha)
    )


@dataclass(frozen=True, eq=False)
class _Way:
    """One form of a product."""

    form: Form
    left: Left
    loss: float


def _tables(linears: Iterable[ops.Linear]) -> dict[Codebook, Array]:
    """Of each length, made of all products."""
    found = dict[Codebook, list[Array]]()
    for linear in linears:
        for (form,) in Codebook.offered(linear):
            found.setdefault(form, []).append(linear.matrix()[0])
    return {form: table(matrices, form.length) for form, matrices in found.items()}


class _Reads:
    """What a product reads, less its mean where a bias is free: E[x·xᵀ], or x itself."""

    def __init__(self, linear: ops.Linear, moment: Moment) -> None:
        biased = has_bias(linear)
        mean = moment.mean[0] * biased
        self.gram = moment.gram[0] - np.outer(mean, mean) if moment.kind == "full" else None
        self._x = np.empty((0, 0)) if moment.kind == "full" else moment.gram[0] - mean[:, None]

    def block(self, at: slice, damping: float = 0.0) -> Array:
        """E[x·xᵀ] of some columns."""
        if self.gram is not None:
            found: Array = self.gram[at, at].copy()
        else:
            found = (self._x[at] @ self._x[at].T / self._x.shape[1]).astype(np.float64)
        return damp(found, damping)

    def error(self, gap: Array) -> float:
        """E|gap·x|²."""
        if self.gram is not None:
            return float(np.sum((gap @ self.gram) * gap))
        return float(np.sum(np.square(gap @ self._x)) / self._x.shape[1])


def _ways(linear: ops.Linear, moment: Moment, held: Moment, tables: Mapping[Codebook, Array]) -> Iterator[_Way]:
    """Every form of a product, and what it loses."""
    matrix = linear.alpha * linear.matrix()[0].astype(np.float64)
    data, judge, scale = _Reads(linear, moment), _Reads(linear, held), max(moment.variance, NOTHING)
    if data.gram is not None:
        gram = data.block(slice(None), _DAMPING)
        lost = _Lost(matrix, gram, judge.block(slice(None)))
        for series in chain.from_iterable(kind.offered(linear) for kind in FACTORED):
            ranks = [(form, form.rank(linear)) for form in series]
            offered = [(form, rank) for form, rank in ranks if rank and _pays(form.left(linear, rank))]
            if not offered or (len(gram) > _LARGE and not offered[0][0].nested):
                continue
            spans, error = offered[0][0].spans(linear, matrix, gram), None
            for form, rank in offered:
                if error is None or not form.nested:
                    error = lost.with_basis(spans(rank).matrix)
                yield _Way(form, form.left(linear, rank), error(form.rows(linear, rank)) / scale)
    some = matrix[:: -(-len(matrix) // _SOME)]
    for code, entries in tables.items():
        if code.suits(linear):
            damping = damped(matrix.shape[1], moment.rows)
            grams = [data.block(at, damping) for at in blocks(matrix.shape[1], code.length)]
            gap = coded(some, grams, entries, sweeps=_SWEEPS).matrix - some
            yield _Way(code, code.left(linear), judge.error(gap) * len(matrix) / len(some) / scale)


def _gain(linear: ops.Linear, moment: Moment) -> float:
    """What an error of what a product reads is where its result ends, both relative.

    Half of it is taken to be as the data is, half as if each channel erred by itself.
    """
    matrix, data = linear.alpha * linear.matrix()[0].astype(np.float64), _Reads(linear, moment)
    width = matrix.shape[1] // linear.in_channels
    channels = (slice(start, start + width) for start in range(0, matrix.shape[1], width))
    apart = sum(float(np.sum((matrix[:, at] @ data.block(at)) * matrix[:, at])) for at in channels)
    return (data.error(matrix) + apart) / 2 / max(moment.variance, NOTHING)


def _weights(channels: Channels, gains: Mapping[Key, float]) -> dict[Key, float]:
    """What an error of each product, relative to its result, is where what is made of it goes on.

    In a residual block, what the first product gets wrong is wrong in no more than the part of the stream that the
    second one adds; where many units are summed to few, most of what each gets wrong cancels.
    """
    writers = {k: [w for w in g.writers if not channels.products[w].diagonal] for k, g in channels.groups.items()}
    found = dict[Key, float]()
    for name, product in reversed([*channels.products.items()]):
        mine = [channels.groups[key] for key in product.result.groups if writers[key] == [name]]
        readers = [r for group in mine for r in group.readers]
        whole = len(mine) != len(product.result.groups) or not readers
        found[name] = 1.0 if whole else min(1.0, sum(gains.get(r, 1.0) * found.get(r, 1.0) for r in readers))
    return found


def _pays(left: Left) -> bool:
    return max(left.macs, left.params) <= _PAYS


class _Lost:
    """What a product loses with bases that were found on some samples, on others."""

    def __init__(self, matrix: Array, gram: Array, judge: Array) -> None:
        self._gram, self._judge = gram, judge
        self._aim, self._truth = gram @ matrix.T, judge @ matrix.T
        self._whole = float(np.sum(matrix.T * self._truth))

    def with_basis(self, basis: Array) -> Callable[[int], float]:
        """The error with only so many of the first rows of a basis."""
        own, held = basis @ self._gram @ basis.T, basis @ self._judge @ basis.T
        aim, truth = basis @ self._aim, basis @ self._truth

        def error(rows: int) -> float:
            last = solved(own[:rows, :rows], aim[:rows])
            found = self._whole - 2 * np.sum(last * truth[:rows]) + np.sum(last * (held[:rows, :rows] @ last))
            return max(float(found), 0.0)

        return error


def _choice(name: tuple[str, int], ways: Sequence[_Way], resources: Sequence[Stored]) -> Choice | None:
    """Those that lose less than any that is cheaper in some respect."""
    best, sizes = list[_Way](), {id(way): [getattr(way.left, r) for r in resources] for way in ways}
    for way in sorted(ways, key=lambda w: (max(sizes[id(w)]), w.loss)):
        more = not best or all(a >= b for a, b in zip(sizes[id(way)], sizes[id(best[-1])], strict=True))
        if more and max(sizes[id(way)]) <= _PAYS and way.loss < (best[-1].loss if best else _MOST):
            best.append(way)
    if not best:
        return None
    left = {
        resource: np.array([_parts(getattr(w.left, resource), w.left.loose) for w in best] + [(1.0, 0.0)])
        for resource in get_args(Stored)
    }
    return Choice(name, (*(spec(w.form) for w in best), ""), (*(w.loss for w in best), 0.0), left)


def _parts(share: float, loose: float) -> tuple[float, float]:
    return share * (1 - loose), share * loose
