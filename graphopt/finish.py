"""The second half of the lossy story: what is left of a model is rewritten, or put on integers, and emitted.

What is on integers is timed against the same model on floats, once it is as it would be emitted: the faster one is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from graphopt import moving, pipeline
from graphopt.analysis.audit import Audit, audit
from graphopt.analysis.segments import Samples
from graphopt.arguments import check_keys
from graphopt.compress.compress import Compressed
from graphopt.compress.halves.half import HalfPrecision
from graphopt.compress.integers.dynamic import Dynamic
from graphopt.compress.integers.equalize import Equalized, equalized
from graphopt.compress.integers.packing import Packed, Packing, packed
from graphopt.compress.integers.quantize import Quantize
from graphopt.compress.integers.unquantize import Unquantize
from graphopt.errors import UsageError
from graphopt.graph.carry import Carried
from graphopt.graph.external import Runnable, weight_of
from graphopt.graph.load import Source
from graphopt.graph.nodes import key
from graphopt.graph.save import runnable
from graphopt.plan.halves import Halved, Halves
from graphopt.plan.plan import Plan
from graphopt.plan.regions import Quantized, Regions
from graphopt.protocol import Pass
from graphopt.recipe import Recipe
from graphopt.rewrite import Clean, Layout
from graphopt.run.bench import Timing, bench
from graphopt.run.child import Child
from graphopt.run.session import Feed
from graphopt.spelling import spec
from graphopt.targets import TARGETS
from graphopt.workshop import Workshop

__all__ = ["Half", "Integral", "Packages"]

_OPSET = 13
"""Of standard ONNX, from which on integers may have one scale for each channel."""
_STAMP = 400
"""Bytes of the notes on where a model comes from, about."""
_SECONDS = 5.0
"""That timing integers against floats may take."""


@dataclass(frozen=True, eq=False)
class Integral:
    """What became of a model that was to compute on integers."""

    found: Quantized
    even: Equalized
    """What was done to channels before."""
    audit: Audit | None
    """What the runtime makes of it; None where that is not the one at hand."""
    timing: Timing | None
    """Against the same model on floats; None where it was not asked."""
    bits: int
    """Of a weight."""
    emitted: bool
    """Whether that is what is emitted: not if it was slower, or all products are better off on floats."""


@dataclass(frozen=True, eq=False)
class Packages:
    """What became of a model whose weights were to be packed."""

    form: Packing
    """What was asked for."""
    found: Packed
    timing: Timing | None
    """Against the same model on floats; None where it was not asked."""
    emitted: bool
    """Whether that is what is emitted: not if it was slower."""


@dataclass(frozen=True, eq=False)
class Half:
    """The second half of the story, for models that something was taken from."""

    source: Source
    floating: Source
    """The same without what was quantized."""
    carried: Carried
    feeds: Sequence[Feed]
    settings: pipeline.Settings
    child: Child | None

    def after(self, made: Compressed) -> Half:
        """What goes on with this model; where values are named anew, what the file said of them is of no use."""
        return replace(self, carried=replace(self.carried, described={})) if made.coded else self

    def runnable(self, thin: ir.Model) -> Runnable:
        """Made ready to run, as it is."""
        return runnable(thin, self.carried)

    def _given(self, thin: ir.Model) -> Source:
        return replace(self.floating, model=thin, runnable=self.runnable(thin), carried=self.carried, frozen=0)

    def finished(self, recipe: Recipe, thin: ir.Model) -> Runnable:
        """As it will be emitted, only not verified."""
        settings = replace(self.settings, measure=False)
        last = pipeline.optimize(self._given(thin), recipe, None, settings, self.child)
        return self.runnable(last.model) if last.content is None else last.content

    def sized(self, recipe: Recipe, thin: ir.Model, plan: Plan) -> int:
        """Bytes of what is emitted, about: with its recipe, but not rewritten."""
        return weight_of(self.runnable(thin)) + len(replace(recipe, plan=plan.widths, forms=plan.forms).text()) + _STAMP

    def emitted(self, thin: ir.Model, done: Recipe, passes: Sequence[Pass] | None = None) -> pipeline.Outcome:
        """Rewritten by these passes, or those of the recipe, verified, and with a word on all that was done."""
        recipe = done if passes is None else replace(done, passes=tuple(passes))
        feeds = self.feeds if recipe.passes else self.feeds[:1]  # nothing is rewritten then, so that it only has to run
        return pipeline.optimize(self._given(thin), recipe, feeds, replace(self.settings, stamp=done), self.child)

    def quantized(
        self, thin: ir.Model, done: Recipe, workshop: Workshop, samples: Samples, moved: moving.Moved
    ) -> tuple[pipeline.Outcome, Integral | None]:
        """On integers, if that is not slower; it is written as quantizers around standard operators.

        What was quantized before keeps its ranges and integers, and stays as it came if nothing would change.
        """
        begin, target, form = time.perf_counter(), TARGETS[done.target], done.quantize or Quantize()
        if target.integers is None:
            raise ValueError(f"{target.name} does not compute on integers")
        here = self.settings.session(thin).provider == target.provider
        timed = self.feeds[0] if here else None
        if (opset := thin.graph.opset_imports.get("", _OPSET)) < _OPSET:
            raise UsageError(f"int8 needs opset {_OPSET}, and the model has {opset}: give --opset {_OPSET} as well")
        check_keys(self.source, done.floats or (), {key(node) for node in thin.graph})
        kept, skip = moved.undone.weights(thin, form.weight_bits), (*done.skip, *moved.floats(thin))
        emit = form.always or bool(target.integers.instead)
        again, asked = moved.intact and bool(moved.undone.products), None if emit else timed
        even = Equalized(thin)
        if form.equalize and not (kept or moved.ranges):
            even = equalized(thin, target.integers, form, samples, skip=skip, machine=self.settings)
        regions = Regions(
            even.model,
            target.integers,
            form,
            samples,
            skip,
            asked,
            self.settings,
            moved.ranges,
            kept,
            again,
            self.settings.calibration,
        )
        if done.floats is not None:
            found = regions.quantized(done.floats)
        else:
            found = regions.settled(lambda model: workshop.scores(self.runnable(model)), done.max_drop)
        if not self.source.frozen and moved.stays(found.model):
            return self.unchanged(done), None
        took, timing = time.perf_counter() - begin, None
        if timed is not None and done.floats is None and found.weights:
            timing = self._timing(self.finished(done, thin), self.runnable(found.model), timed)
        audited = audit(found.model, self.settings) if here else None
        if not found.weights or (timing is not None and timing.slower and not emit):
            undo = Unquantize() if moved.undone.undone else None
            last = self.emitted(thin, replace(done, quantize=None, unquantize=undo))
            return last, Integral(found, even, audited, timing, form.weight_bits, emitted=False)
        last = self.emitted(found.model, replace(done, floats=found.floats), ())
        step = pipeline.Step(spec(form), form.exactness.name, {form.name: len(found.weights)}, round(took, 4))
        attempt = replace(last.attempt, steps=(step, *last.attempt.steps))
        instead = [target.integers.instead] if target.integers.instead else []
        notes = (*last.notes, *moved.notes(found, kept), *regions.notes(), *instead)
        outcome = replace(last, attempt=attempt, notes=notes)
        return outcome, Integral(found, even, audited, timing, form.weight_bits, emitted=True)

    def _timing(self, floats: Runnable, integers: Runnable, feed: Feed) -> Timing:
        """Of integers against floats; nothing of it is held."""
        self.settings.progress("timing integers against floats")
        first = self.settings.timed(floats)
        del floats  # its weights are in the session
        return bench(first, self.settings.timed(integers), feed, seconds=_SECONDS)

    def packed(
        self, thin: ir.Model, done: Recipe, form: Packing, samples: Samples
    ) -> tuple[pipeline.Outcome, Packages]:
        """With packed weights; if the clock is asked and finds that slower, on floats.

        Raises:
            UsageError: its opset is too old, or there is nothing to pack.
        """
        target, asked = TARGETS[done.target], isinstance(form, Dynamic) and not form.always
        given, needed = thin.graph.opset_imports.get("", 1), form.opset(target)
        if given < needed:
            raise UsageError(
                f"{spec(form)} for {target.name} needs opset {needed}, and the model has {given}: "
                f"give --opset {needed} as well"
            )
        found = packed(thin, form, samples, target, self.settings, skip=done.skip)
        if not found.count:
            why = "; ".join(f"{p.key}: {p.form}" for p in found.packages[-1:])
            raise UsageError(f"{spec(form)} packs nothing of {self.source.name} ({why or 'it has no products'})")
        timing = None
        if asked and target.provider in (None, self.settings.session(thin).provider):
            floats = self.finished(replace(done, dynamic=None), thin)
            timing = self._timing(floats, self.runnable(found.model), self.feeds[0])
        if timing is not None and not timing.faster:
            return self.emitted(thin, replace(done, dynamic=None)), Packages(form, found, timing, emitted=False)
        if isinstance(form, Dynamic):
            done = replace(done, dynamic=replace(form, always=True))  # so that the clock is not asked again
        last = self.emitted(found.model, done, None if form.kept else ())
        step = pipeline.Step(spec(form), form.exactness.name, {form.name: found.count}, round(found.seconds, 4))
        attempt = replace(last.attempt, steps=(step, *last.attempt.steps))
        return replace(last, attempt=attempt), Packages(form, found, timing, emitted=True)

    def lowered(
        self, thin: ir.Model, done: Recipe, form: HalfPrecision, workshop: Workshop, samples: Samples
    ) -> tuple[pipeline.Outcome, Halved]:
        """In half precision, where that does no harm, and rewritten for the target."""
        begin = time.perf_counter()
        target = TARGETS[done.target]
        halves = Halves(thin, form, samples, done.skip, self.settings, self.carried, self.child, target)
        if (model := halves.shallow(known=done.floats is not None)) is None:
            done = replace(done, half=replace(form, masks=False))  # so that it is not tried again
        else:
            halves = replace(halves, model=model)
        if done.floats is not None:
            check_keys(self.source, done.floats, {*halves.ends, *map(key, halves.model.graph)})
            found = halves.halved(done.floats)
        else:
            found = halves.settled(lambda model: workshop.scores(self.runnable(model)), done.max_drop)
        took = round(time.perf_counter() - begin, 4)
        if not found.halves and not found.ends:
            return self.emitted(thin, replace(done, half=None)), found
        done = replace(done, floats=found.left)
        # What lowering leaves meets and goes; further passes could undo casts.
        tidy = (Clean, Layout) if target.operators else ()
        last = self.emitted(found.model, done, [p for p in done.passes if p.stage or isinstance(p, tidy)])
        step = pipeline.Step(spec(form), form.exactness.name, {form.name: len(found.halves)}, took)
        return replace(last, attempt=replace(last.attempt, steps=(step, *last.attempt.steps))), found

    def unchanged(self, done: Recipe) -> pipeline.Outcome:
        """The source as it came."""
        settings = replace(self.settings, measure=False)
        outcome = pipeline.optimize(self.source, replace(done, passes=()), self.feeds, settings, self.child)
        return replace(outcome, recipe=done, unchanged=f"its quantizers stand as {done.target} wants them")
