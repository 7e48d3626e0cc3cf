"""Quantized models that become floats, or integers as another runtime wants them, with the scales that they have."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from graphopt import pipeline
from graphopt.compress.integers.unquantize import Unquantize, Unquantized, unquantized
from graphopt.counted import counted, grouped
from graphopt.errors import UsageError
from graphopt.graph.load import Source
from graphopt.graph.nodes import graphs, key
from graphopt.graph.save import runnable, weight_bytes
from graphopt.plan.regions import Quantized
from graphopt.recipe import Recipe
from graphopt.spelling import spec

__all__ = ["Moved", "floating", "left", "undone"]


def floating(source: Source, model: ir.Model) -> Source:
    """A source with another model, and with its size."""
    if model is source.model:
        return source
    content = runnable(model, source.carried)
    size = len(content) if isinstance(content, bytes) else weight_bytes(model)
    return replace(source, model=model, runnable=content, size=size, frozen=0)


def undone(source: Source, recipe: Recipe) -> tuple[Unquantized, tuple[pipeline.Step, ...]]:
    """The model on floats, where that is asked for or others are to be its integers, and what was done for it.

    Raises:
        UsageError: nothing, where it was asked for; or what would be done is to be left alone.
    """
    begin = time.perf_counter()
    if recipe.unquantize is None and recipe.quantize is None:
        return Unquantized(source.model), ()
    found = unquantized(source.model)
    if not found.undone:
        if recipe.unquantize is not None:
            why = "; ".join(f"{k}: {r}" for k, r in list(found.left.items())[:1])
            raise UsageError(
                f"nothing in {source.name} is quantized in a form that becomes floats{why and f' ({why})'}"
            )
        return replace(found, model=source.model), ()
    there, standing = ({key(n) for graph in graphs(m) for n in graph} for m in (source.model, found.model))
    if gone := [k for k in recipe.skip if k in there - standing]:
        raise UsageError(f"{gone[0]!r} is a quantizer, and all of these go: skip the product whose floats are to stay")
    form = recipe.unquantize or Unquantize()
    seconds = round(time.perf_counter() - begin, 4)
    return found, (pipeline.Step(spec(form), form.exactness.name, dict(found.undone), seconds),)


def left(given: Unquantized) -> Iterator[str]:
    """What stays quantized as it is."""
    return (f"left as it is: {told}" for told in grouped(given.left))


@dataclass(frozen=True, eq=False)
class Moved:
    """What a model that is to be quantized has of quantizers that it came with."""

    undone: Unquantized
    intact: bool
    """Whether values are what they were: nothing was cut or set to zero."""
    rewritten: bool
    """Whether anything else was changed."""

    @property
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """Those that still hold, by name of the value."""
        return self.undone.ranges if self.intact else {}

    def floats(self, model: ir.Model) -> tuple[str, ...]:
        """Keys of products that computed on floats among integers: they still do."""
        return self.undone.floats(model) if self.intact else ()

    def stays(self, made: ir.Model) -> bool:
        """Whether a model is quantized just as the one that came."""
        same = bool(self.undone.undone) and self.intact and not self.rewritten
        return same and unquantized(made).readings == self.undone.readings

    def notes(self, found: Quantized, kept: Mapping[str, object]) -> Iterator[str]:
        """What was kept."""
        if self.undone.undone:
            values = found.layout.values
            known, weights = sum(v in self.ranges for v in values), sum(k in kept for k in found.weights)
            observed = len(values) - known
            kept_scales = f"{counted(known, 'value')} and {counted(weights, 'weight')}"
            yield f"moved: with the scales that they had, {kept_scales}; with new ones, {counted(observed, 'value')}"
