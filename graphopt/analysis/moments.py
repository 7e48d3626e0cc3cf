"""What the dense model's products read: means and Gram matrices, once, for every compression.

A product is y = alpha·W·x + beta·b, x its unfolded input. Samples stream through the model, a few positions of each are
taken, and E[x] and E[xxᵀ] are summed in float64, batch by batch, so that the result depends on nothing but the samples
and their order. How well W can be replaced by a poorer matrix follows from these alone. With K the columns that stay,
R the others, G = E[xxᵀ] − E[x]E[x]ᵀ and D = damping·mean(diag G)·I:

    W' = W_K + W_R·G_RK·(G_KK + D)⁻¹            b' = b + (W − W')·E[x], so that the mean stays

Where memory does not allow a Gram matrix (`Kind`), the best that it allows is kept, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, Final, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.segments import MEMORY, Samples, batches
from graphopt.errors import InputError
from graphopt.graph.carry import Carried
from graphopt.graph.nodes import key
from graphopt.graph.parts import part
from graphopt.graph.save import runnable
from graphopt.run.session import Device, Feed, Session

__all__ = ["Kind", "Moment", "collect", "products", "sampled"]

Array = NDArray[Any]
Key = tuple[str, int]
Kind = Literal["full", "rows", "channel", "diagonal"]
"""`full`: E[xxᵀ]. `rows`: x itself, where it has fewer rows than columns. `channel`: E[xxᵀ] of channels, averaged over
the positions in the kernel. `diagonal`: E[x²]."""

_ROWS_PER_COLUMN: Final = 12
_FEWEST_ROWS: Final = 4096
_GOLDEN: Final = (5**0.5 - 1) / 2
_DAMPING: Final = 1e-3
_ENOUGH: Final = 10
"""Rows per column from which on `_DAMPING` is enough."""
_TRIES: Final = 8


@dataclass(frozen=True, eq=False)
class Moment:
    """What one product reads, over all samples."""

    kind: Kind
    rows: int
    """How many were summed."""
    mean: Array
    """(groups, d): E[x]."""
    gram: Array
    """full: (groups, d, d); rows: x, (groups, d, rows), in float32; channel: (groups, d/kernel, d/kernel);
    diagonal: (groups, d)."""
    result_mean: Array
    """(channels,): E[y]."""
    result_energy: Array
    """(channels,): E[y²]."""

    @property
    def damping(self) -> float:
        """How much to distrust it, as a share of the mean diagonal: more with fewer rows than a fit needs."""
        return float(_DAMPING * max(1.0, _ENOUGH * self.mean.shape[1] / self.rows) ** 2)

    @property
    def energy(self) -> Array:
        """(groups, d): E[x²]; of channels where only they are known."""
        match self.kind:
            case "full" | "channel":
                return np.diagonal(self.gram, axis1=1, axis2=2)
            case "rows":
                return np.asarray(np.mean(self.gram.astype(np.float64) ** 2, axis=2))
            case _:
                return self.gram

    def covariance(self) -> Array:
        """(groups, d, d): E[xxᵀ] − E[x]E[x]ᵀ, as far as it is known: of channels alike for all kernel positions."""
        match self.kind:
            case "full":
                return np.asarray(self.gram - self.mean[:, :, None] * self.mean[:, None, :])
            case "rows":
                centred = self.gram - self.mean[:, :, None]
                return np.asarray(centred @ centred.transpose(0, 2, 1) / self.rows)
            case "channel":
                kernel = self.mean.shape[1] // self.gram.shape[1]
                return np.stack([np.kron(g, np.eye(kernel)) for g in self._channels()])
            case _:
                return np.stack([np.diag(np.maximum(e - m**2, 0)) for e, m in zip(self.gram, self.mean, strict=True)])

    def refit(
        self, matrix: Array, bias: Array, keep: NDArray[np.bool_], damping: float | None = None
    ) -> tuple[Array, Array]:
        """The product with columns cut and the others refit.

        Args:
            matrix: (groups, outputs, d): what x is multiplied with.
            bias: (groups·outputs,): what is added.
            keep: (input channels,): which ones stay.
            damping: see `damping`, its default.

        Returns:
            Both in float64, the matrix with zeros where columns were cut.
        """
        strength = self.damping if damping is None else damping
        columns = keep.reshape(len(matrix), -1).repeat(matrix.shape[2] * len(matrix) // len(keep), axis=1)
        fitted = np.stack([self._fit(g, w.astype(np.float64), columns[g], strength) for g, w in enumerate(matrix)])
        target = np.einsum("god,gd->go", matrix, self.mean) + bias.reshape(len(matrix), -1)
        return fitted, (target - np.einsum("god,gd->go", fitted, self.mean)).reshape(-1)

    def _fit(self, group: int, matrix: Array, kept: NDArray[np.bool_], damping: float) -> Array:
        """One group of `refit`."""
        fitted = np.where(kept, matrix, 0.0)
        if not kept.any() or self.kind == "diagonal" or kept.all():
            return fitted
        cut = ~kept
        if self.kind == "rows":
            x = (self.gram[group] - self.mean[group][:, None]).astype(np.float64)
            square = x[kept].T @ x[kept] / self.rows
            pull = matrix[:, cut] @ x[cut] / self.rows
            fitted[:, kept] += _solve(square, pull, damping * np.trace(square) / np.sum(kept)) @ x[kept].T
        elif self.kind == "full":
            square = self.gram[group] - np.outer(self.mean[group], self.mean[group])
            pull = matrix[:, cut] @ square[np.ix_(cut, kept)]
            square = square[np.ix_(kept, kept)]
            fitted[:, kept] += _solve(square, pull, damping * np.trace(square) / len(square))
        else:
            square = self._channels()[group]
            channels = kept.reshape(len(square), -1)[:, 0]
            taps = np.moveaxis(matrix.reshape(len(matrix), len(square), -1), 1, 2)  # (outputs, kernel, channels)
            pull = taps[..., ~channels] @ square[np.ix_(~channels, channels)]
            square = square[np.ix_(channels, channels)]
            solved = _solve(square, pull.reshape(-1, len(square)), damping * np.trace(square) / len(square))
            fitted[:, kept] += np.moveaxis(solved.reshape(pull.shape), 1, 2).reshape(len(matrix), -1)
        return fitted

    def _channels(self) -> Array:
        """(groups, channels, channels): the covariance averaged over the positions in the kernel."""
        mean = self.mean.reshape(*self.gram.shape[:2], -1)
        return np.asarray(self.gram - mean @ mean.transpose(0, 2, 1) / mean.shape[2])


def _solve(square: Array, right: Array, damping: float) -> Array:
    """right·(square + damping·I)⁻¹, with more damping where rounding left the matrix indefinite."""
    trace = float(np.trace(square))
    strength = max(damping, np.finfo(np.float64).eps * trace, np.finfo(np.float64).tiny)
    for _ in range(_TRIES if np.isfinite(trace) else 0):
        damped = square + strength * np.eye(len(square))
        try:
            np.linalg.cholesky(damped)
            return np.linalg.solve(damped, right.T).T
        except np.linalg.LinAlgError:
            strength *= 10
    return np.zeros_like(right)  # not even that: there is nothing to learn


def products(model: ir.Model) -> dict[Key, ops.Linear]:
    """Every product with a constant weight in the main graph, in graph order."""
    return {(key(node), i): linear for node in model.graph for i, linear in enumerate(ops.linears(node))}


def sampled(first: int, samples: int, length: int, take: int) -> NDArray[np.intp] | None:
    """Which rows to take of samples of `length` rows each; None for all.

    The positions follow the golden ratio: spread evenly over each sample and over all of them, and settled by the
    number of the sample alone.
    """
    if take >= length:
        return None
    steps = np.arange(first * take, (first + samples) * take)
    places = np.floor(np.modf(steps * _GOLDEN)[0] * length).astype(np.intp)
    return np.asarray(places + np.repeat(np.arange(samples) * length, take))


def collect(
    model: ir.Model,
    wanted: Iterable[Key],
    samples: Samples,
    *,
    memory: int = MEMORY,
    device: Device = "cpu",
    threads: int = 0,
) -> dict[Key, Moment]:
    """The moments of these products; what is no product with a constant weight in the main graph is left out.

    Args:
        model: the dense model.
        wanted: (key, index) as `products` has them.
        samples: what is fed, in an order that does not depend on how it was given.
        memory: bytes that the results of one pass over the samples may take, and those of one product half of it.
        device: where to run.
        threads: as in `Session`.

    Raises:
        InputError: there are no samples, or the model does not run on them.
    """
    sites: dict[Any, _Site] = {}
    linears = products(model)
    for name in (n for n in wanted if n in linears):
        site = _Site(linears[name])
        sites.setdefault(site.signature, site).readers[name] = linears[name]
    survey = _Survey(model, samples)
    pending = list(sites.values())
    for site, x in _Taps(model, pending, device, threads).run(survey.probe):
        site.size(x, survey.share, survey.samples, memory // 2)
    found: dict[Key, Moment] = {}
    while pending:
        now = [pending.pop(0)]
        while pending and sum(s.bytes for s in now) + pending[0].bytes <= memory:
            now.append(pending.pop(0))
        found.update(_pass(_Taps(model, now, device, threads), survey))
    return found


def _pass(taps: _Taps, survey: _Survey) -> dict[Key, Moment]:
    """The moments of some products, by one pass over the samples."""
    for first, count, feed, probe in survey:
        if probe is not None:
            for site, x in taps.run(probe):
                site.length = site.linear.unfold(x).shape[-1] // survey.share
        for site, x in taps.run(feed):
            site.add(x, first, count)
    return {name: moment for site in taps.sites for name, moment in site.moments()}


class _Survey:
    """The samples in batches, and how many there are."""

    def __init__(self, model: ir.Model, samples: Samples) -> None:
        self._feeds, self._counts = batches(model, samples)
        self.samples = sum(self._counts)
        if not self.samples:
            raise InputError("there are no samples to learn from")
        free = all(v.shape is None or not isinstance(v.shape[0], int) for v in model.graph.inputs if v.shape != ())
        self._cut = isinstance(samples, Mapping) and free
        self.share = 1 if self._cut else self._counts[0]
        """Samples in one of the probes, which tell shapes."""
        self.probe = self._probe(self._feeds[0])

    def __iter__(self) -> Iterator[tuple[int, int, Feed, Feed | None]]:
        """Number of its first sample, number of samples, the feed, and a probe where its shapes are new."""
        start, shapes = 0, None
        for feed, count in zip(self._feeds, self._counts, strict=True):
            probe = self._probe(feed)
            now = {n: np.shape(v) for n, v in probe.items()}
            yield start, count, feed, None if now == shapes or self._cut else probe
            start, shapes = start + count, now

    def _probe(self, feed: Feed) -> Feed:
        return {n: v[:1] for n, v in feed.items()} if self._cut else feed


class _Taps:
    """The model, ending where some products read."""

    def __init__(self, model: ir.Model, sites: Sequence[_Site], device: Device, threads: int) -> None:
        self.sites = sites
        inputs = {str(v.name) for v in model.graph.inputs}
        self._inner = list(dict.fromkeys(s.value for s in sites if s.value not in inputs))
        self._needed = inputs
        self._session = None
        if self._inner:
            ends = part(model, [str(v.name) for v in model.graph.inputs], self._inner)
            self._session = Session(runnable(ends, Carried()), device=device, threads=threads)
            self._needed = {p.name for p in (*self._session.inputs, *self._session.overridable)}

    def run(self, feed: Feed) -> Iterator[tuple[_Site, Array]]:
        """Each product with what it reads."""
        given = {n: v for n, v in feed.items() if n in self._needed}
        found = feed if self._session is None else feed | self._session.run(given)
        return ((site, found[site.value]) for site in self.sites)


class _Site:
    """Products that read the same, unfolded in the same way, and what was summed for them."""

    def __init__(self, linear: ops.Linear) -> None:
        node, self.linear = linear.node, linear
        x = node.inputs[linear.x]
        self.value = "" if x is None else str(x.name)
        kernel = linear.weights.shape[2:]
        said = tuple(sorted((n, str(a.value)) for n, a in node.attributes.items())) if kernel else ()
        self.signature = (self.value, linear.unfolder, linear.groups, kernel, said)
        self.readers: dict[Key, ops.Linear] = {}
        self.columns, self.kernel = linear.reduction, prod(kernel)
        self.kind: Kind = "full"
        self.bytes = self.length = self.take = self.rows = 0
        self.sum: Array = np.zeros((linear.groups, self.columns))
        self.gram: Array = np.zeros(())
        self.held: list[Array] = []
        self.seen: dict[Key, tuple[Array, Array]] = {}

    def size(self, x: Array, share: int, samples: int, most: int) -> None:
        """Settle what to keep, given what is read of `share` samples."""
        self.length = self.linear.unfold(x).shape[-1] // share
        self.take = ceil(max(_ROWS_PER_COLUMN * self.columns, _FEWEST_ROWS) / samples)
        rows = samples * min(self.take, self.length)
        groups, channels = self.linear.groups, self.columns // self.kernel
        sizes: dict[Kind, int] = {
            "full": 8 * groups * self.columns**2,
            "channel": 8 * groups * channels**2,
            "diagonal": 8 * groups * self.columns,
        }
        if rows < self.columns and 4 * rows * self.columns * groups <= most:
            self.kind, self.bytes = "rows", 4 * rows * self.columns * groups
        else:
            self.kind = next((k for k, size in sizes.items() if size <= most), "diagonal")
            self.bytes = sizes[self.kind]
        shapes = {"full": (groups, self.columns, self.columns), "channel": (groups, channels, channels)}
        self._shape = shapes.get(self.kind, (groups, self.columns))

    def add(self, x: Array, first: int, samples: int) -> None:
        """Sum over one batch."""
        unfolded = self.linear.unfold(x, sampled(first, samples, self.length, self.take))
        wide = unfolded.astype(np.float64)
        if not self.rows:
            self.gram = np.zeros(() if self.kind == "rows" else self._shape)
        self.rows += wide.shape[-1]
        self.sum += wide.sum(axis=2)
        match self.kind:
            case "rows":
                self.held.append(unfolded.astype(np.float32))
            case "diagonal":
                self.gram += np.einsum("gdr,gdr->gd", wide, wide)
            case "channel":
                taps = wide.reshape(*self._shape[:2], self.kernel, -1)
                for tap in range(self.kernel):
                    self.gram += taps[:, :, tap] @ taps[:, :, tap].transpose(0, 2, 1) / self.kernel
            case _:
                for group, block in enumerate(wide):
                    self.gram[group] += block @ block.T
        if self.kind != "full":
            for name, linear in self.readers.items():
                y = _result(linear, wide)
                total, square = self.seen.get(name, (0.0, 0.0))
                self.seen[name] = total + y.sum(axis=1), square + (y**2).sum(axis=1)

    def moments(self) -> Iterator[tuple[Key, Moment]]:
        """What was summed, for each product; the memory that it took is free."""
        mean = self.sum / self.rows
        gram = np.concatenate(self.held, axis=2) if self.kind == "rows" else self.gram / self.rows
        self.held, self.gram = [], np.zeros(())
        for name, linear in self.readers.items():
            if self.kind == "full":
                matrix = linear.alpha * linear.matrix().astype(np.float64)
                bias = linear.beta * linear.bias_vector().astype(np.float64)
                inner = np.einsum("god,gd->go", matrix, mean).reshape(-1)
                energy = np.sum((matrix @ gram) * matrix, axis=2).reshape(-1) + 2 * bias * inner + bias**2
                yield name, Moment(self.kind, self.rows, mean, gram, inner + bias, energy)
            else:
                total, square = self.seen[name]
                yield name, Moment(self.kind, self.rows, mean, gram, total / self.rows, square / self.rows)


def _result(linear: ops.Linear, unfolded: Array) -> Array:
    """(channels, rows): what the product makes of its unfolded input."""
    y = linear.alpha * (linear.matrix() @ unfolded)
    return np.asarray(y.reshape(linear.channels, -1) + linear.beta * linear.bias_vector()[:, None])
