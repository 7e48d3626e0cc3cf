"""What the products of a dense model read: E[x] and E[xxᵀ], once, for every choice of what can go.

A product is y = alpha·W·x + beta·b, x its unfolded input. Samples stream through the model, a few positions of each are
taken, and sums are made batch by batch, so that the result depends on nothing but the samples and their order. Products
that read the same value, unfolded in the same way, share one sum. Where columns are many, rows few, or memory is short,
less is kept than E[xxᵀ] (`Kind`), which the moment says. On a GPU sums are made there (`Inside`), and read at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any, Final, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from scipy.linalg import get_blas_funcs

from graphopt import ops
from graphopt.analysis.inside import Inside, Tap, extents
from graphopt.analysis.places import past_offset, past_sum, sampled
from graphopt.analysis.segments import Samples, batches, first, folded
from graphopt.counted import counted
from graphopt.errors import InputError
from graphopt.graph.nodes import key
from graphopt.ops.linear import Positions
from graphopt.run.machine import HERE, Machine
from graphopt.run.session import Held, held

__all__ = ["ROWS", "Key", "Kind", "Moment", "collect", "gather", "halves", "mirror", "precision", "products"]

Array = NDArray[Any]
Key = tuple[str, int]
Kind = Literal["full", "rows", "diagonal"]
"""`full`: E[xxᵀ]. `rows`: x itself, where it has fewer rows than columns. `diagonal`: E[x²], for want of memory."""

ROWS: Final = 20
"""Rows per column, where the samples have as many: enough for little damping."""
_FEWEST_ROWS: Final = 16384
_MOST: Final = 1 << 26
"""Elements of x that are read for one product: more would take time and tell little."""
_SINGLE: Final = 4096
"""Columns above which single precision has to do."""
_BATCH: Final = 10
"""Samples of one run, unless the model says it: few, since much of what is in between is held at once."""
_COPIES: Final = 2
"""Of the values of one run, in the runtime and out of it."""


@dataclass(frozen=True, eq=False)
class Moment:
    """What one product reads, over all samples."""

    kind: Kind
    rows: int
    """How many were summed."""
    mean: Array
    """(groups, d): E[x]."""
    gram: Array
    """full: (groups, d, d); rows: x, (groups, d, rows), in float32; diagonal: (groups, d)."""
    variance: float
    """Of the value in which the product's result ends, an Add with another computed value included; summed over output
    channels."""


def precision(columns: int) -> np.dtype[Any]:
    """What matrices with so many columns are held in."""
    return np.dtype(np.float64 if columns <= _SINGLE else np.float32)


def gather(total: Array, x: Array, factor: float = 1.0) -> None:
    """Add factor·x·xᵀ to the lower triangle of `total`, (d, d), in place; x is (d, rows), of the same type."""
    get_blas_funcs("syrk", dtype=total.dtype)(factor, x.T, beta=1.0, c=total.T, trans=1, overwrite_c=1)


def mirror(matrix: Array) -> None:
    """Copy the lower triangle of a matrix to its upper one."""
    for i in range(1, len(matrix)):
        matrix[:i, i] = matrix[i, :i]


def products(model: ir.Model) -> dict[Key, ops.Linear]:
    """Every product with a constant weight in the main graph, in graph order."""
    return {(key(node), i): linear for node in model.graph for i, linear in enumerate(ops.linears(node))}


def collect(
    model: ir.Model,
    wanted: Iterable[Key],
    samples: Samples,
    machine: Machine = HERE,
) -> Iterator[tuple[Key, Moment]]:
    """The moments of these products, one by one; what is no product with a constant weight is left out.

    Args:
        model: the dense model.
        wanted: (key, index) as `products` has them; what comes first is summed first.
        samples: what is fed, in an order that does not depend on how it was given.
        machine: where to run. Sums, and the values of one batch, may take its memory in one pass over the samples, one
            product half of it; there are as many passes as that takes.

    Raises:
        InputError: there are no samples, or the model does not run on them.
    """
    feeds, counts = batches(model, samples, _BATCH)
    if not feeds:
        raise InputError("there are no samples to learn from: give data with at least one")
    sites: dict[Any, _Site] = {}
    linears = products(model)
    for name in (n for n in dict.fromkeys(wanted) if n in linears):
        site = _Site(linears[name])
        sites.setdefault(site.signature, site).read_by(name, linears[name])
    inside = Inside(machine)
    one, few = first(model, samples, feeds[0], counts[0])
    found = Tap(model, _names(sites.values()), machine)(one)
    for site in sites.values():
        site.size(found, few, counts, machine.memory // 2)
    for now in _passes(list(sites.values()), machine.memory):
        text = f"summing what {now[0].name} reads" + f", and {counted(len(now) - 1, 'other')}" * (len(now) > 1)
        run, start = Tap(model, _names(now), machine), 0
        for feed, count in machine.track(list(zip(feeds, counts, strict=True)), text):
            found = run.held(feed) if run.remote else run(feed)
            for site in now:
                site.add(found, start, count, inside if run.remote else None)
            start += count
        del found, site, run
        while now:  # what was summed is the caller's alone
            made = now.pop(0).moments()
            while made:
                yield made.pop(0)


def halves(
    model: ir.Model, wanted: Iterable[Key], samples: Samples, machine: Machine = HERE
) -> Iterator[tuple[Key, Moment, Moment]]:
    """As `collect`, of the samples to learn from, and of those that judge what was learned."""
    names = list(wanted)
    sides = (
        collect(model, names, part, replace(machine, memory=machine.memory // 2, progress=told))
        for part, told in zip(folded(samples), (machine.progress, HERE.progress), strict=True)
    )
    for (name, moment), (_, other) in zip(*sides, strict=True):
        yield name, moment, other
        del moment, other


def _names(sites: Iterable[_Site]) -> list[str]:
    """What some products read, and where their results end."""
    return [name for s in sites for name in (s.value, *s.ends.values())]


def _passes(sites: list[_Site], memory: int) -> Iterator[list[_Site]]:
    """As many products as fit into memory, time and again; the list is emptied."""
    sites.reverse()
    while sites:
        now = [sites.pop()]
        while sites and sum(s.bytes for s in (*now, sites[-1])) <= memory:
            now.append(sites.pop())
        yield now


class _Site:
    """Products that read the same, unfolded in the same way, and what was summed for them."""

    def __init__(self, linear: ops.Linear) -> None:
        node, self.linear = linear.node, linear
        x = node.inputs[linear.x]
        self.name, self.value = key(node), "" if x is None else str(x.name)
        kernel = linear.weights.shape[2:]
        said = tuple(sorted((n, str(a.value)) for n, a in node.attributes.items())) if kernel else ()
        self.signature = (self.value, linear.unfolder, linear.groups, kernel, said)
        self.kind: Kind = "full"
        self.bytes = self.take = 0
        self.readers: dict[Key, ops.Linear] = {}
        self.ends: dict[Key, str] = {}
        """The values in which the results of the readers end."""
        self._sums: _Here | _There | None = None

    def read_by(self, name: Key, linear: ops.Linear) -> None:
        """One more product."""
        self.readers[name] = linear
        self.ends[name] = str(past_sum(past_offset(linear)[0])[0].name)

    def size(self, found: Mapping[str, Array], few: int, counts: Sequence[int], most: int) -> None:
        """Settle what to keep, given the values of `few` samples."""
        groups, columns = self.linear.groups, self.linear.reduction
        rows = self.linear.unfold(found[self.value]).shape[-1]
        values = sum(found[n].nbytes for n in {self.value, *self.ends.values()})
        for name, linear in self.readers.items():
            if found[self.ends[name]].size != rows * linear.channels:  # spread out by what it is added to
                self.ends[name] = str(linear.node.outputs[0].name)
        samples = sum(counts)
        self.take = ceil(min(max(ROWS * columns, _FEWEST_ROWS), _MOST // (groups * columns)) / samples)
        total = samples * min(self.take, rows // few)
        sizes: dict[Kind, int] = {
            "full": precision(columns).itemsize * groups * columns**2,
            "rows": 4 * groups * columns * total,
            "diagonal": 8 * groups * columns,
        }
        kinds: tuple[Kind, ...] = ("rows", "diagonal") if total < columns else ("full", "diagonal")
        self.kind = next((k for k in kinds if sizes[k] <= most), "diagonal")
        self.bytes = sizes[self.kind] + _COPIES * values // few * max(counts)

    def add(self, found: Mapping[str, Any], first: int, samples: int, inside: Inside | None) -> None:
        """Sum over one batch, whose values are arrays or, if they are to be summed inside of a session, held there."""
        if self._sums is None:
            self._sums = _Here(self) if inside is None else _There(self, inside)
        name, reader = next(iter(self.readers.items()))
        at = sampled(first, samples, prod(extents(found[self.ends[name]])) // reader.channels, self.take)
        self._sums.add(found, at)

    @np.errstate(invalid="ignore")  # infinities of both signs have no sum
    def moments(self) -> list[tuple[Key, Moment]]:
        """What was summed, for each product; nothing of it stays here."""
        sums, self._sums = self._sums, None
        if sums is None:
            return []
        total, gram, seen = sums.read()
        rows = sums.rows
        del sums
        if self.kind != "rows":
            gram /= rows
        for matrix in gram if self.kind == "full" else ():
            mirror(matrix)
        found = list[tuple[Key, Moment]]()
        for name in self.readers:
            mean, square = seen[name] / rows
            variance = float(np.sum(np.maximum(square - mean**2, 0)))
            found.append((name, Moment(self.kind, rows, total / rows, gram, variance)))
        return found

    def zeros(self) -> tuple[Array, Array, dict[Key, Array]]:
        """Sums of nothing: of rows, of their products, and of results and their squares; see `Inside`."""
        groups, columns = self.linear.groups, self.linear.reduction
        shapes: dict[Kind, tuple[int, ...]] = {
            "full": (groups, columns, columns),
            "rows": (groups, columns, 0),
            "diagonal": (groups, columns),
        }
        kinds = {"full": precision(columns), "rows": np.dtype(np.float32), "diagonal": np.dtype(np.float64)}
        seen = {name: np.zeros((2, reader.channels)) for name, reader in self.readers.items()}
        return np.zeros((groups, columns)), np.zeros(shapes[self.kind], kinds[self.kind]), seen


class _Here:
    """Sums that are made of arrays."""

    def __init__(self, site: _Site) -> None:
        self._site, self.rows = site, 0
        self._sum, self._gram, self._seen = site.zeros()
        self._held: list[Array] = []

    @np.errstate(invalid="ignore")
    def add(self, found: Mapping[str, Array], at: Positions) -> None:
        """Sum over some rows of one batch."""
        site = self._site
        x = site.linear.unfold(found[site.value], at)
        self.rows += x.shape[-1]
        self._sum += x.sum(axis=2, dtype=np.float64)
        match site.kind:
            case "rows":
                self._held.append(x.astype(np.float32))
            case "diagonal":
                self._gram += np.einsum("gdr,gdr->gd", x, x, dtype=np.float64)
            case _:
                for total, block in zip(self._gram, x, strict=True):
                    gather(total, np.ascontiguousarray(block, total.dtype))
        for name, reader in site.readers.items():
            y = reader.rows(found[site.ends[name]], at).reshape(reader.channels, -1).astype(np.float64)
            self._seen[name] += y.sum(axis=1), np.einsum("cr,cr->c", y, y)

    def read(self) -> tuple[Array, Array, dict[Key, Array]]:
        """As `_Site.zeros`, of all batches."""
        return self._sum, np.concatenate(self._held, axis=2) if self._held else self._gram, self._seen


class _There:
    """The same sums, made where a session computes."""

    def __init__(self, site: _Site, inside: Inside) -> None:
        self._site, self._inside, self.rows = site, inside, 0
        total, gram, seen = site.zeros()
        self._sum, self._gram = held(total), held(gram)
        self._seen = {name: held(s) for name, s in seen.items()}
        self._held: list[Array] = []

    def add(self, found: Mapping[str, Held], at: Positions) -> None:
        """Sum over some rows of one batch."""
        site, inside = self._site, self._inside
        rows, self._sum, gram = inside.moments(site.kind, site.linear, found[site.value], at, (self._sum, self._gram))
        self.rows += rows
        if site.kind == "rows":
            self._held.append(gram.numpy())
        else:
            self._gram = gram
        places = np.arange(rows) if at is None else at
        for name, reader in site.readers.items():
            self._seen[name] = inside.squares(found[site.ends[name]], reader.y_axis, places, self._seen[name])

    def read(self) -> tuple[Array, Array, dict[Key, Array]]:
        """As `_Here.read`."""
        gram = np.concatenate(self._held, axis=2) if self._held else self._gram.numpy()
        return self._sum.numpy(), gram, {name: s.numpy() for name, s in self._seen.items()}
