"""A dense graph and a compressed copy, advanced side by side over a set of samples.

    for site in frontier:        # each product with a constant weight, in topological order
        rows = site.sample(n)    # what it reads and should give, while everything before it is compressed already
        site.put(matrix, bias)   # the frontier moves on with this

What nothing before has changed is not computed twice: the compressed side then holds the very arrays of the dense one.

Where the result z of a product meets another operand s in an Add, and s is known on both sides, the product is asked to
make up for the drift of s (the identity path of a residual block, or its shortcut if that comes first):

    W·x̃ + b ≈ z + s − s̃

and what follows may say that some errors do not count: below the lower bound of a Relu or a Clip, all is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.layers import Layer
from graphopt.analysis.places import added, bounds, only_reader, past_offset, past_sum, sampled
from graphopt.analysis.segments import BATCH, FOLD, Samples, Store, Walk, batches, differs
from graphopt.graph.names import Names
from graphopt.graph.nodes import input_at, key, readers, static_shape
from graphopt.run.machine import HERE, Machine, Stage

__all__ = ["Frontier", "Pair", "Rows", "Site"]


@dataclass(frozen=True, eq=False)
class Rows:
    """What a product reads and should give at some positions of all samples; rows are the last axis."""

    x: NDArray[np.float32]
    """(groups, columns, rows): of the compressed side, less `mean`."""
    mean: NDArray[np.float32]
    """(groups, columns): its mean where the product has a place for a bias, else zeros."""
    target: NDArray[np.float32]
    """(groups, out, rows): of the dense side, the other operand of an Add behind it included."""
    base: NDArray[np.float32] | None
    """(groups, out, rows): that operand on the compressed side; W·x + b + base should be the target."""
    fitted: int
    """So many rows come first; the others are held back, to choose between fits."""
    pair: Pair | None = None
    """The same for the product and the one before it, where there is one."""

    def through(self, first: NDArray[Any]) -> Rows:
        """The same for a product that reads what another one, (rows, columns), makes of these columns."""
        moved = first.astype(self.x.dtype)
        return replace(self, x=moved @ self.x, mean=(moved @ self.mean[..., None])[..., 0])

    @property
    def finite(self) -> bool:
        """Whether there is no infinity in it, and no not-a-number."""
        with np.errstate(invalid="ignore"):  # infinities of both signs have no sum
            return all(np.isfinite(a.sum(dtype=np.float64)) for a in (self.x, self.target))


@dataclass(frozen=True, eq=False)
class Pair:
    """What two products in a row read and should give, whole, for some of the samples: the first axis."""

    x: NDArray[Any]
    """What the first one reads on the compressed side."""
    target: NDArray[Any]
    """What the second one gives on the dense side, the other operand of an Add behind it included."""
    base: NDArray[Any] | None
    """That operand on the compressed side."""


@dataclass(frozen=True, eq=False)
class Site:
    """A product of the compressed graph, when the frontier stands before it."""

    key: str
    linear: ops.Linear
    """In the compressed graph."""
    dense: ops.Linear
    drifted: bool
    """Whether what it reads, or what it is added to, differs from what it is on the dense side."""
    offset: ir.Value | None
    """The constant of an Add behind it that serves as its bias, where the operator has none (MatMul)."""
    value: str
    """Name of the result, its bias included, on both sides."""
    other: str | None
    """Name of the other operand of the Add in which the result ends, on the dense side."""
    beside: str | None
    """The same on the compressed side."""
    low: float
    """What is below counts as this, once that is added; −inf where it is not so."""
    high: float
    frontier: Frontier = field(repr=False)
    before: Site | None = None
    """The product whose result, clipped, this one reads and nothing else does."""

    @property
    def source(self) -> str:
        """Name of what it reads."""
        return str(self.linear.node.inputs[self.linear.x].name)  # type: ignore[union-attr]

    @property
    def biased(self) -> bool:
        """Whether there is a place for a bias."""
        return self.offset is not None or (self.linear.bias is not None and self.linear.beta != 0)

    @property
    def intact(self) -> bool:
        """Whether nothing has changed here yet: the same weights, and the same data."""
        return not self.drifted and not differs(self.linear.node, self.dense.node)

    def tell(self, doing: str) -> None:
        """Say what is done with it, and how far along the graph that is."""
        self.frontier.tell(f"{doing} {self.key}")

    def matrix(self) -> NDArray[np.float64]:
        """(groups, out, columns): what the data is multiplied with now."""
        return self.linear.alpha * self.linear.matrix().astype(np.float64)

    def bias(self) -> NDArray[np.float64]:
        """(groups, out): what is added to the product now."""
        return added(self.linear)

    def sample(self, rows: int, kept: NDArray[np.bool_] | None = None, paired: int = 0) -> Rows:
        """What it reads and should give, at about `rows` positions, the same number of each sample.

        Args:
            rows: how many; at least one of each sample.
            kept: (channels of the dense product,): which of them the compressed one still has.
            paired: how many positions of whole samples to give for the pair with the product before it.
        """
        return self.frontier.sample(self, rows, kept, paired)

    def put_before(self, matrix: NDArray[Any], bias: NDArray[Any]) -> None:
        """Give the product before other weights; what this one reads is computed anew."""
        if self.before is not None:
            self.before.put(matrix, bias)
            self.frontier.again(self.before, self.source)

    def put(self, matrix: NDArray[Any], bias: NDArray[Any]) -> None:
        """Give the compressed product other weights, shaped as `matrix()` and `bias()` answer."""
        linear, hold = self.linear, self.frontier.hold
        weight = linear.unmatrix(matrix / linear.alpha)
        hold(linear.node, linear.weight, weight)
        if self.offset is not None:
            (reader,) = self.offset.consumers()
            row = bias.reshape(static_shape(self.offset)).astype(weight.dtype)
            hold(reader, list(reader.inputs).index(self.offset), row)
        elif linear.bias is not None and linear.beta:
            hold(linear.node, linear.bias, (bias.reshape(-1) / linear.beta).astype(weight.dtype))


class Frontier:
    """Advances samples through a dense graph and a compressed one, product by product.

    Args:
        dense: the original, canonical.
        compressed: a cut copy, in which nodes have the same keys and values the same names; changed in place.
        samples: what is fed, in an order that does not depend on how it was given.
        batch: samples of one run, unless the model says it.
        pairs: whether a product may be fitted together with the one before it.
        machine: where to run; activations beyond its memory are kept on disk.
        layers: told of each recurrent layer when the frontier stands before it; it may give it other weights.
    """

    def __init__(
        self,
        dense: ir.Model,
        compressed: ir.Model,
        samples: Samples,
        machine: Machine = HERE,
        *,
        batch: int = BATCH,
        pairs: bool = True,
        layers: Callable[[Layer], None] = lambda _: None,
    ) -> None:
        feeds, self._sizes = batches(dense, samples, batch)
        store = Store(machine.memory)
        self._dense, self._compressed = (Walk(m, feeds, store, machine) for m in (dense, compressed))
        self._ends: dict[str, Site] = {}
        self._pairs = pairs
        self._names = Names(compressed)
        self._layers = layers
        self._progress = machine.progress

    def __iter__(self) -> Iterator[Site]:
        dense, compressed = self._dense, self._compressed
        while compressed.done < len(compressed.segments):
            segment = compressed.segments[compressed.done]
            place = dense.place(key(segment[0])) if compressed.done else 0
            if place is not None:
                dense.advance(place)
                node = segment[0] if compressed.done and dense.done == place else None
                if node is not None and ops.gates(node) is not None:
                    self._layers(self._layer(node))
                site = None if node is None else self._site(node)
                if site is not None:
                    if self._opens(site):
                        compressed.late.add(site.source)  # the next product may want it
                    yield site
                    if site.before is not None:
                        compressed.late.discard(site.before.source)
                dense.advance(place + 1)
            compressed.follow(dense)
        dense.advance(len(dense.segments))

    def tell(self, text: str) -> None:
        """See `Site.tell`."""
        self._progress(Stage(text, self._compressed.done, len(self._compressed.segments)))

    def again(self, site: Site, end: str) -> None:
        """Compute anew, on the compressed side, what comes of a product that was passed, up to a value."""
        nodes, value = [site.linear.node], site.linear.node.outputs[0]
        while value.name != end:
            nodes.append(next(iter(value.uses())).node)
            value = nodes[-1].outputs[0]
        self._compressed.again(nodes)

    def _opens(self, site: Site) -> bool:
        """Whether the next product may be fitted together with this one: its result is only clipped before that."""
        if not self._pairs:
            return False
        value = self._compressed.value(site.value)
        reader = only_reader(value) if site.other is None and np.isfinite([site.low, site.high]).any() else None
        if reader is None or only_reader(reader.outputs[0]) is None:
            return False
        self._ends[str(reader.outputs[0].name)] = site
        return True

    def sample(self, site: Site, rows: int, kept: NDArray[np.bool_] | None, paired: int = 0) -> Rows:
        """See `Site.sample`. Only while the frontier stands before the site, and once."""
        share = -(-rows // sum(self._sizes))
        starts = np.cumsum([0, *self._sizes])
        linear, wide = site.linear, list[list[int]]()
        chosen: list[tuple[NDArray[np.intp] | None, NDArray[np.bool_]]] = []
        targets: list[NDArray[Any]] = []
        whole: list[NDArray[Any]] = []

        def take(index: int, z: NDArray[Any]) -> None:
            first, count = int(starts[index]), self._sizes[index]
            at = sampled(first, count, z.size // site.dense.channels, share)
            if site.before is not None and sum(w.size for w in whole) < paired * linear.channels:
                total = z if site.other is None else z + self._dense.cache[site.other][index]
                whole.append(total if kept is None else np.compress(kept, total, linear.y_axis))
            target = _rows(site.dense, z, at)
            if site.other is not None:
                target += _rows(site.dense, np.broadcast_to(self._dense.cache[site.other][index], z.shape), at)
            targets.append(target if kept is None else target[kept])
            chosen.append((at, (first + np.arange(target.shape[1]) * count // target.shape[1]) % FOLD == FOLD - 1))
            wide.append([linear.channels if axis == linear.y_axis % z.ndim else d for axis, d in enumerate(z.shape)])

        self._dense.advance(self._dense.done + 1, {site.value: take})
        held = np.concatenate([h for _, h in chosen])
        order = np.argsort(held, kind="stable")
        to = np.split(np.argsort(order), np.cumsum([len(h) for _, h in chosen])[:-1])
        source = self._compressed.cache[str(linear.node.inputs[linear.x].name)]  # type: ignore[union-attr]
        x = np.empty((linear.groups, linear.reduction, len(held)), np.float32)
        target = np.empty((linear.channels, len(held)), np.float32)
        base = np.empty_like(target) if site.other is not None else None
        for index, (at, _) in enumerate(chosen):
            x[..., to[index]] = linear.unfold(source[index], at)
            target[..., to[index]] = targets[index]
            if base is not None and site.beside is not None:
                s = np.broadcast_to(self._compressed.cache[site.beside][index], wide[index])
                base[..., to[index]] = _rows(linear, s, at)
        mean = np.zeros(x.shape[:2], np.float32)
        if site.biased:
            mean = x.mean(axis=-1, dtype=np.float64).astype(np.float32)
            x -= mean[..., None]
        shape = (linear.groups, linear.channels // linear.groups, -1)
        bases = None if base is None else base.reshape(shape)
        return Rows(x, mean, target.reshape(shape), bases, int(np.sum(~held)), self._pair(site, whole, paired))

    def _pair(self, site: Site, whole: Sequence[NDArray[Any]], paired: int) -> Pair | None:
        """The samples whose targets are at hand, as many as are asked for."""
        if site.before is None or not whole or len({w.shape[1:] for w in whole}) > 1:
            return None
        target = np.concatenate(whole)
        if len(target) != sum(self._sizes[: len(whole)]):  # the first axis is not that of samples
            return None
        count = max(1, min(len(target), paired * site.linear.channels * len(target) // target.size))
        x = np.concatenate(self._compressed.cache[site.before.source][: len(whole)])[:count]
        base = None
        if site.beside is not None:
            pieces = [
                np.broadcast_to(b, w.shape) for b, w in zip(self._compressed.cache[site.beside], whole, strict=False)
            ]
            base = np.concatenate(pieces)[:count]
        return Pair(x, target[:count], base)

    def hold(self, node: ir.Node, index: int, contents: NDArray[Any]) -> None:
        """Let an input of the compressed graph be a constant; one that others read as well stays what it is to them."""
        graph, old = self._compressed.model.graph, input_at(node, index)
        tensor, shape = ir.tensor(np.ascontiguousarray(contents)), ir.Shape(contents.shape)
        if old is not None and next(islice(readers(old), 1, None), None) is None:
            old.const_value, old.shape = tensor, shape
            return
        name = self._names.fresh(str(old.name) if old is not None else f"{key(node)}.bias")
        value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=shape)
        graph.register_initializer(value)
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        node.replace_input_with(index, value)

    def _layer(self, node: ir.Node) -> Layer:
        twin = self._dense.nodes[key(node)]
        drifted = not self._compressed.changed.isdisjoint(str(v.name) for v in node.inputs if v is not None)
        return Layer(key(node), node, twin, drifted, (self._compressed, self._dense), self._sizes, self.hold)

    def _site(self, node: ir.Node) -> Site | None:
        linears, twins = ops.linears(node), ops.linears(self._dense.nodes[key(node)])
        if len(linears) != 1 or len(twins) != 1:
            return None  # not one matrix
        linear, twin = linears[0], twins[0]
        weight, x = node.inputs[linear.weight], node.inputs[linear.x]
        if weight is None or x is None or not linear.alpha or not linear.channels:
            return None
        if len(weight.uses()) > 1 or weight.is_graph_output():
            return None  # what it does is somebody else's concern as well
        value, offset = past_offset(twin)[0], past_offset(linear)[1]
        total, other, beside = self._past_sum(value)
        low, high = bounds(total)
        drifted = not self._compressed.changed.isdisjoint({str(x.name), beside or ""})
        before = self._ends.get(str(x.name))
        return Site(key(node), linear, twin, drifted, offset, str(value.name), other, beside, low, high, self, before)

    def _past_sum(self, value: ir.Value) -> tuple[ir.Value, str | None, str | None]:
        """As `past_sum`, and the operand's name on the compressed side, if it is known on both sides."""
        total, other = past_sum(value)
        add = total.producer()
        if add is not None and other in self._dense.cache:
            index = next(i for i, v in enumerate(add.inputs) if v is not None and v.name == other)
            beside = str(self._compressed.nodes[key(add)].inputs[index].name)  # type: ignore[union-attr]
            if beside in self._compressed.cache:
                return total, other, beside
        return value, None, None


def _rows(linear: ops.Linear, y: NDArray[Any], at: NDArray[np.intp] | None) -> NDArray[np.float32]:
    """(channels, rows): a result at some positions."""
    return linear.rows(y, at).reshape(linear.channels, -1).astype(np.float32)
