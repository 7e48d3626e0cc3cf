"""Sparse weights: a part of them becomes zero, and the others are fitted to what there was.

    sparsify{share=0.5}        such a part of all weights goes, where they are missed least
    sparsify{threshold=1e-3}   the weights below it in magnitude go
    sparsify{pattern="2:4"}    of every 4 weights in a row, at most 2 stay

Products are taken in topological order, each on what the ones before it really give, as they are when channels are cut.

A share is of all weights together. What each product loses without a part of its weights is computed for some parts on
the model as given, relative to how much the product's result varies, and the parts are chosen so that the sum of these
losses is least. So a small or sensitive product, often the first or the last one, keeps more, and none needs to be an
exception; the same part of each was up to 9 dB worse on the networks tried. Magnitudes of different products do not
compare: by these, each product loses the same part.

N:M runs along the input channels, for each output channel and each position of the kernel: that is what TensorRT looks
for before it takes the sparse tensor cores for 2:4, where the number of input channels is a multiple of 4 (TensorRT
documentation, "Structured Sparsity": weights [K, C, R, S] with C % 4 == 0, at most 2 nonzeros among every 4 of C). A
product whose input channels, in each of its groups, are no multiple of M stays dense: its zeros would pay nowhere.

A depthwise product stays dense in any case: it has few weights, and no other channel can stand in for one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Container, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.frontier import Frontier, Rows, Site
from graphopt.analysis.segments import Samples
from graphopt.compress.compress import Compressed
from graphopt.compress.refit import ROWS, fit, row_count, times
from graphopt.compress.sparse import ROUNDS, SHARES, Sparse, allocated, cheapest, dearest, fit_kept, thinned
from graphopt.errors import UsageError
from graphopt.graph.record import Exactness
from graphopt.protocol import Named
from graphopt.run.machine import HERE, Machine

__all__ = ["Sparsify", "sparsify"]

Array = NDArray[Any]

_PATTERN: Final = re.compile(r"(\d{1,4}):(\d{1,4})")
_WAYS: Final = ("obs", "magnitude")
_PRICED: Final = 20
"""Rows per column that losses are computed from."""


@dataclass(frozen=True)
class Sparsify(Named):
    """See the module's docstring. One of share, threshold and pattern is given.

    Measured: models/digits_resnet.onnx has 363 kB after gzip, with share=0.5 202 kB and with share=0.8 94 kB, at an
    accuracy of 99.6 %, 99.6 % and 99.4 %; with pattern="2:4" 99.6 %. onnxruntime takes as long as before.
    """

    name: ClassVar[str] = "sparsify"
    summary: ClassVar[str] = "set a share of the weights, small ones, or N:M of them to zero, and refit the others"
    pays: ClassVar[str] = "in bytes of a packed file"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    rules: ClassVar[Mapping[str, str]] = {}

    share: float = 0.0
    """Of the weights, how many become zero."""
    threshold: float = 0.0
    """Weights whose magnitude is below it become zero."""
    pattern: str = ""
    """"N:M": of every M consecutive input channels at most N weights stay."""
    by: str = "obs"
    """What decides which ones: "obs", what removing them costs, or "magnitude"."""
    refit: bool = True
    """Whether those that stay are fitted to what there was."""

    def __post_init__(self) -> None:
        """Insist on one kind that makes sense.

        Raises:
            UsageError: there is none, or several, or a value is out of range.
        """
        given = [name for name in ("share", "threshold", "pattern") if getattr(self, name)]
        if len(given) != 1:
            found = f"not {' and '.join(given)}" if given else "as in sparsify{share=0.5}"
            raise UsageError(f"sparsify takes one of share, threshold and pattern: give one, {found}")
        if self.share and not 0 < self.share < 1:
            raise UsageError(f"sparsify{{share={self.share:g}}} is no share: give a number above 0 and below 1")
        if self.threshold and not (self.threshold > 0 and isfinite(self.threshold)):
            raise UsageError(f"sparsify{{threshold={self.threshold:g}}} is none: give a finite number above 0")
        if self.pattern and not 0 < self.kept[0] < self.kept[1]:
            raise UsageError(
                f"{self.pattern!r} is no pattern of zeros: write N:M with N from 1 on and below M, as in 2:4"
            )
        if self.by not in _WAYS:
            raise UsageError(f"sparsify cannot choose by {self.by!r}: give one of {', '.join(_WAYS)}")

    @property
    def kept(self) -> tuple[int, int]:
        """Of a pattern, N and M; zeros where it is none."""
        found = _PATTERN.fullmatch(self.pattern)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    @property
    def measures(self) -> bool:
        """Whether the choice depends on data."""
        return self.by == "obs" and not self.threshold

    def dense(self, linear: ops.Linear) -> str | None:
        """Why a product stays dense; None where it does not."""
        inputs = linear.in_channels // linear.groups
        if linear.groups > 1 and inputs == 1:
            return "it is depthwise"
        if self.pattern and inputs % self.kept[1]:
            return f"its {inputs} input channels are no multiple of {self.kept[1]}"
        return None


def sparsify(
    model: ir.Model,
    form: Sparsify,
    samples: Samples,
    machine: Machine = HERE,
    *,
    skip: Container[str] = (),
) -> Compressed:
    """A copy of a model in which weights are zero. A weight that several nodes read stays as it is.

    Args:
        model: it is not changed.
        form: which weights go.
        samples: what is fed, in an order that does not depend on how it was given.
        skip: keys of nodes that are left as they are.
        machine: where to run, and what values between products, and the rows of one, may take.
    """
    begin = time.perf_counter()
    copy, done, shares = model.clone(), list[Sparse](), dict[str, float]()
    if form.share and form.measures:
        machine.progress("pricing weights")
        dense = Frontier(model, model.clone(), samples, machine)
        shares = _shares(dense, form, skip, machine.memory)
    for site in Frontier(model, copy, samples, machine):
        reason = "it is skipped" if site.key in skip else form.dense(site.linear)
        if site.key not in skip and (reason is None or (form.refit and site.drifted)):
            site.tell("zeroing weights of" if reason is None else "refitting")
            done.append(_made(site, form, reason, shares.get(site.key, form.share), machine.memory))
        else:
            done.append(_left(site, reason or ""))
    return Compressed(copy, (), tuple(done), seconds=time.perf_counter() - begin)


def _left(site: Site, reason: str) -> Sparse:
    return Sparse(site.key, site.matrix().size, 0, reason, None, 0.0, 0.0)


def _made(site: Site, form: Sparsify, reason: str | None, share: float, memory: int) -> Sparse:
    """Choose, refit and put."""
    matrix, bias = site.matrix(), site.bias()
    rows = site.sample(row_count(site.linear.reduction, ROWS, memory, site.linear.groups))
    if not rows.finite:
        return _left(site, "its values are not finite")
    bounds = (site.low, site.high)
    first = matrix
    if reason is not None or (form.measures and form.refit and site.drifted):
        found = fit(rows, matrix, bias, bounds=bounds, biased=site.biased)
        if reason is not None:
            if found.damping is not None:
                site.put(found.matrix, found.bias)
            return Sparse(site.key, matrix.size, 0, reason, found.damping, found.before, found.after)
        first = found.matrix
    stays, start = _chosen(site, form, share, first, rows)
    zeros = int(np.sum(~stays))
    kind = next(name for name in ("share", "threshold", "pattern") if getattr(form, name))
    told = f"{kind} by {form.by if form.measures else 'magnitude'}" if zeros else "none of its weights is small enough"
    if not form.refit:
        site.put(np.where(stays, matrix, 0), bias)
        return Sparse(site.key, matrix.size, zeros, told, None, 0.0, 0.0)
    result = fit_kept(rows, matrix, bias, stays, start, bounds=bounds, biased=site.biased)
    site.put(result.matrix, result.bias)
    return Sparse(site.key, matrix.size, zeros, told, result.damping, result.before, result.after)


def _chosen(site: Site, form: Sparsify, share: float, matrix: Array, rows: Rows) -> tuple[Array, Array]:
    """Which weights stay, and what they are to start from: (groups, out, columns) both."""
    given = site.matrix()
    if form.threshold:
        stays = np.abs(site.linear.matrix()) >= form.threshold
        return stays, np.where(stays, given, 0)
    columns = _along_channels(site.linear) if form.pattern else np.arange(site.linear.reduction)
    back, among = np.argsort(columns), form.kept if form.pattern else None
    share = 1 - among[0] / among[1] if among else share
    if not form.measures:
        cost = np.abs(given[..., columns]).reshape(-1, len(columns))
        stays = dearest(cost, share) if among is None else ~cheapest(cost, *among)
        stays = stays[:, back].reshape(given.shape)
        return stays, np.where(stays, given, 0)
    grams = _grams(rows, slice(rows.fitted))[:, columns[:, None], columns]
    rounds = [share * r for r in ROUNDS]
    *_, pairs = zip(
        *(thinned(w[:, columns], g, rounds, among) for w, g in zip(matrix, grams, strict=True)), strict=True
    )
    stays, start = (np.stack(each)[..., back] for each in zip(*pairs, strict=True))
    return stays, start


def _shares(sites: Frontier, form: Sparsify, skip: Container[str], memory: int) -> dict[str, float]:
    """By product, the part of its weights that goes where the sum of all products' losses is least."""
    losses, sizes = dict[str, Array](), dict[str, int]()
    for site in sites:
        if site.key in skip or form.dense(site.linear) is not None:
            continue
        rows, matrix = site.sample(row_count(site.linear.reduction, _PRICED, memory, site.linear.groups)), site.matrix()
        if not rows.finite:
            continue
        loss = np.zeros(len(SHARES))
        for w, gram in zip(matrix, _grams(rows, slice(None)), strict=True):
            changes = (weights - w for _, weights in thinned(w, gram, SHARES))
            loss += [float(np.sum(d @ gram * d)) for d in changes]
        scale = float(np.sum(np.var(rows.target, axis=-1, dtype=np.float64)))
        losses[site.key], sizes[site.key] = loss / max(scale, float(np.finfo(np.float32).tiny)), matrix.size
    if not losses:
        return {}
    found = allocated(np.array([*losses.values()]), np.array([*sizes.values()]), form.share)
    return {key: float(each) for key, each in zip(losses, found, strict=True)}


def _grams(rows: Rows, at: slice) -> Array:
    """(groups, columns, columns): second moments."""
    x = rows.x[..., at]
    gram: Array = times(x, x) / x.shape[-1]
    return gram


def _along_channels(linear: ops.Linear) -> NDArray[np.int64]:
    """(columns,): all input channels of one position of the kernel after the other."""
    return np.arange(linear.reduction).reshape(linear.in_channels // linear.groups, -1).T.reshape(-1)
