"""Static quantization: ranges → quantizers → weights rounded, one product after the other.

What is written is standard ONNX, QuantizeLinear and DequantizeLinear (QDQ); the runtime makes integer kernels of it:

    x ─ Q ─ DQ ─┐
    int8 ── DQ ─┼─ Conv ─ Relu ─ Q ─ DQ ─ …          weights: one scale per output channel, around 0
    int32 ─ DQ ─┘                                    bias: in steps of the data's times the weight's

While weights are rounded, in topological order, quantizers stand already but weights are floats still: each product
sees the data that quantized ones before it give, and is fitted to the original's values (`round`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from types import MappingProxyType
from typing import Any, ClassVar, Final, get_args

import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.analysis.frontier import Frontier
from graphopt.analysis.histogram import Histogram
from graphopt.analysis.ranges import Method, chosen
from graphopt.analysis.segments import Samples
from graphopt.compress.integers.quantizers import Quantizers, Ranged
from graphopt.compress.integers.region import Grid, Layout
from graphopt.compress.integers.round import Rounded, rounded
from graphopt.compress.integers.steps import BITS, Steps
from graphopt.compress.refit import row_count
from graphopt.errors import UsageError
from graphopt.graph.record import Exactness
from graphopt.protocol import Named
from graphopt.run.machine import HERE, Machine

__all__ = ["NOTHING", "PART", "ROWS", "Quantize", "grids", "weights"]

Array = NDArray[Any]

ROWS: Final = 20
"""Rows per column that weights are rounded by."""
PART: Final = 8
"""Of the memory, what values between products may take: the rows of one product take as much, several times."""
_BATCH: Final = 16
"""Samples of one run."""
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True)
class Quantize(Named):
    """8-bit activations, and weights of 8 bits or fewer.

    Measured: models/digits_resnet.onnx for cpu has 32 % of its bytes, takes 0.51 of the time and has the same accuracy;
    digits_mobilenet.onnx 25 % of its bytes and the same accuracy.
    """

    name: ClassVar[str] = "quantize"
    summary: ClassVar[str] = "compute on 8-bit integers where the target does (`--int8`)"
    pays: ClassVar[str] = "on cpu, tensorrt and openvino"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    rules: ClassVar[Mapping[str, str]] = {}

    weight_bits: int = 8
    """Of each weight: 8, or with coarser grids that 8-bit kernels still compute with, 4 or 3."""
    ranges: str = "mse"
    """How the range of an activation is chosen: one of `analysis.ranges`."""
    equalize: bool = True
    """Whether ranges of channels are evened out before, where the outputs gain by it (`equalize`)."""
    always: bool = False
    """Whether the clock is not asked: all that can be is on integers, and emitted even if floats are faster."""

    def __post_init__(self) -> None:
        """Insist on what there is.

        Raises:
            UsageError: a value is out of range.
        """
        if self.weight_bits not in BITS:
            raise UsageError(
                f"weights have {', '.join(map(str, BITS))} bits, not {self.weight_bits}: give one of these"
            )
        if self.ranges not in get_args(Method):
            raise UsageError(f"ranges are not chosen by {self.ranges!r}: give one of {', '.join(get_args(Method))}")

    @property
    def method(self) -> Method:
        """How ranges are chosen."""
        return next(m for m in get_args(Method) if m == self.ranges)


def grids(
    plan: Layout,
    observed: Mapping[str, Histogram],
    method: Method,
    *,
    unsigned: bool,
    known: Mapping[str, tuple[float, float]] = NOTHING,
    memory: dict[Any, Ranged] | None = None,
) -> dict[int, Ranged]:
    """The integers of each grid of a layout.

    Args:
        plan: where quantizers stand.
        observed: by name, what was seen of each quantized value that is not known.
        method: how ranges are chosen.
        unsigned: whether integers are unsigned; otherwise they lie around 0.
        known: by name, ranges that are kept.
        memory: what was found for other layouts by the same arguments, and is from now on.
    """
    memory = {} if memory is None else memory
    classes: dict[int, list[str]] = {}
    for name, number in plan.values.items():
        classes.setdefault(number, []).append(name)
    found = {}
    for number, names in classes.items():
        limits = plan.bounds[number]
        settled = (*names, limits)
        if settled not in memory:
            seen = [observed[name] for name in names if name not in known]
            ends = [known[name] for name in names if name in known]
            memory[settled] = _ranged(reduce(add, seen) if seen else None, ends, limits, method, unsigned=unsigned)
        found[number] = memory[settled]
    return found


def _ranged(
    seen: Histogram | None,
    ends: Sequence[tuple[float, float]],
    limits: tuple[float, float],
    method: Method,
    *,
    unsigned: bool,
) -> Ranged:
    """The integers that reach as far as all of these, inside of the limits."""
    best = None if seen is None else chosen(seen, method, symmetric=not unsigned)
    every = [*ends] if best is None else [*ends, (best.low, best.high)]
    least, most = max(min(e[0] for e in every), limits[0]), min(max(e[1] for e in every), limits[1])
    return Ranged(Grid.over(least, most, unsigned=unsigned), best, seen)


def weights(
    model: ir.Model,
    plan: Layout,
    found: Mapping[int, Ranged],
    samples: Samples,
    machine: Machine = HERE,
    *,
    bits: int = 8,
    kept: Mapping[str, Rounded] = NOTHING,
) -> dict[str, Rounded]:
    """Integer weights of each product, by its key.

    Args:
        model: canonical; it is not changed.
        plan: where quantizers stand.
        found: the integers of each grid, by its number.
        samples: what weights are rounded by, in an order that does not depend on how it was given.
        machine: where to run, and what values between products, and the rows of one, may take.
        bits: of a weight.
        kept: weights that are integers already, by key of the product.
    """
    made = {name: one for name, one in kept.items() if name in plan.products}
    if len(made) == len(plan.products):
        return made
    copy = model.clone()
    Quantizers(copy).place(plan, found)
    apart = replace(machine, integers=False, memory=machine.memory // PART)
    for site in Frontier(model, copy, samples, apart, pairs=False, batch=_BATCH):
        if site.key in plan.products and site.key not in made:
            site.tell("rounding")
            rows = site.sample(row_count(site.linear.reduction, ROWS, machine.memory, site.linear.groups))
            limits = (site.low, site.high)
            one = rounded(rows, site.matrix(), site.bias(), steps=Steps(bits), bounds=limits, biased=site.biased)
            site.put(one.matrix, one.bias)
            made[site.key] = one
    return made
