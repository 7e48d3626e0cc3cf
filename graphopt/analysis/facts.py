"""What a model is: how many nodes, how many parameters, how much work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt import ops
from graphopt.analysis.segments import Samples, batches
from graphopt.errors import InputError
from graphopt.graph import probes, shapes, values
from graphopt.graph.carry import Carried
from graphopt.graph.nodes import graphs
from graphopt.graph.save import EXTERNAL_ABOVE, serialize, weight_bytes
from graphopt.run.session import Feed, Session

__all__ = ["Facts", "extents", "facts", "few", "measured", "work_of"]


@dataclass(frozen=True)
class Facts:
    """Counts over the main graph, all bodies of control flow and, once each, local functions.

    Multiply-accumulates are those of one given feed.
    """

    nodes: int
    params: int
    """Elements of floating point constants, shared ones once."""
    macs: int | None
    """Multiply-accumulates of one run; None where no feed gave shapes."""
    unknown_macs: int
    """Nodes whose multiply-accumulates could not be told; `macs` leaves them out."""
    operators: Mapping[str, int]


def facts(model: ir.Model, carried: Carried, feed: Feed | None) -> Facts:
    """Count what is in `model`.

    Args:
        model: the graph.
        carried: from `load`.
        feed: gives the shapes of one run. Where inference cannot follow them, the model is run once.
    """
    every = [node for graph in graphs(model) for node in graph]
    every += [node for function in model.functions.values() for node in function.all_nodes()]
    operators = Counter(f"{n.domain}.{n.op_type}".lstrip(".") for n in every)
    if feed is None:
        known: shapes.ShapeOf = lambda _: None  # noqa: E731 - no shape is known
        cost = ops.cost(model, known)
        return Facts(len(every), cost.params, None, cost.unknown, dict(sorted(operators.items())))
    shape = extents(model, feed)
    cost = ops.cost(model, shape)
    if cost.unknown:
        cost = ops.cost(model, measured(model, carried, feed))
    return Facts(len(every), cost.params, cost.macs, cost.unknown, dict(sorted(operators.items())))


def extents(model: ir.Model, feed: Feed) -> shapes.ShapeOf:
    """The shapes of values when the model runs on a feed, as far as they follow from its inputs'."""
    return values.bound(model, {name: np.shape(v) for name, v in feed.items() if isinstance(v, np.ndarray)})


def few(model: ir.Model, samples: Samples, count: tuple[int, int], work: float) -> Samples:
    """The first samples, as many as take so many multiply-accumulates, at least and at most `count`."""
    most = int(np.clip(work / max(work_of(model, samples), 1), *count))
    return {n: v[:most] for n, v in samples.items()} if isinstance(samples, Mapping) else samples[:most]


def work_of(model: ir.Model, samples: Samples) -> float:
    """Multiply-accumulates of one sample, as far as they can be told."""
    feeds, counts = batches(model, samples, 1)
    return ops.cost(model, extents(model, feeds[0])).macs / counts[0]


def measured(model: ir.Model, carried: Carried, feed: Feed) -> shapes.ShapeOf:
    """`extents`, completed by running the model once with the shapes of what is still unknown as outputs."""
    shape = extents(model, feed)
    unknown = [
        v.name
        for node in model.graph
        for v in node.outputs
        if v.name and shape(v) is None and isinstance(v.type, ir.TensorType | None)
    ]
    if weight_bytes(model) >= EXTERNAL_ABOVE:
        return shape
    probe, told = probes.telling_shapes(model, unknown)
    found: dict[str, Any] = {}
    try:
        found = Session(serialize(probe, carried), optimize=False).run(feed)
    except InputError:
        return shape
    known = {told[name]: tuple(int(d) for d in dims) for name, dims in found.items()}
    return lambda value: None if value is None else shape(value) or known.get(str(value.name))
