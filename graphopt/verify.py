"""Verify: does a rewritten graph still do the original's job, and if not, which edits are to blame?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import onnx_ir as ir

from graphopt import ops
from graphopt.errors import InputError
from graphopt.graph import invariants, probes
from graphopt.graph.external import Runnable
from graphopt.graph.load import Source, load
from graphopt.graph.record import Edit, Exactness
from graphopt.graph.save import EXTERNAL_ABOVE, runnable, weight_bytes
from graphopt.run.compare import Comparison, Pick, Reference, Way
from graphopt.run.machine import HERE, Machine
from graphopt.run.session import Feed

__all__ = ["Judge", "explain", "guilty", "prepared", "products", "rounded"]

_NOISE_SEEDS = (1, 2)
_COPIED = 1 << 24
"""Bytes of weights up to which copies of the original have their own: onnxruntime makes several more while it loads."""


class Judge:
    """Compares graphs with the original on fixed feeds.

    Args:
        source: the original.
        feeds: what to run it on.
        reductions: where noise is injected into the original to learn how it responds to rounding, as in `noisy`.
        machine: where to run.

    Raises:
        InputError: the original does not run on the feeds.
    """

    def __init__(
        self,
        source: Source,
        feeds: Sequence[Feed],
        reductions: Mapping[str, int],
        machine: Machine = HERE,
    ) -> None:
        self._source = source
        small = weight_bytes(source.model) < EXTERNAL_ABOVE
        original = probes.seeded(source.model)
        twice = all(ops.is_pure(node, original.functions) for node in original.graph)

        def reference(content: Runnable, model: ir.Model, picks: Mapping[str, Pick]) -> Reference:
            noisy = (probes.noisy(model, reductions, 1000 * s) for s in _NOISE_SEEDS if small)
            contents = (runnable(n, source.carried, _COPIED) for n in noisy if n is not None)  # one after the other
            return Reference(content, feeds, machine, noisy=contents, picks=picks, twice=twice)

        picks: dict[str, Pick] = {}
        if found := _picks(original):
            shown = probes.showing(original, (name for name, _ in found.values()))
            with suppress(InputError):  # a value that cannot be shown is not looked at
                scores = reference(runnable(shown, source.carried), shown, {})
                picks = {output: Pick(scores, name, axis) for output, (name, axis) in found.items()}
        self.reference = reference(prepared(source), original, picks)

    def __call__(self, model: ir.Model) -> Comparison:
        """Compare a graph: its structure first, then its outputs in each way in which the original runs."""
        problem = next(invariants.broken(model), None)
        if problem:
            return Comparison((), 0, passed=False, differences=(problem,))
        return self._compare(prepared(self._source, model), self.reference.ways)

    def other(self, model: Runnable, *, atol: float | None = None, rtol: float | None = None) -> Comparison:
        """Compare what `prepared` makes of another model, in each way in which the original runs."""
        return self._compare(model, self.reference.ways, atol, rtol)

    def written(self, path: Path) -> Comparison:
        """Read a file back and run it."""
        return self._compare(prepared(load(path)), self.reference.ways[:1])

    def _compare(
        self, model: Runnable, ways: Sequence[Way], atol: float | None = None, rtol: float | None = None
    ) -> Comparison:
        """The first comparison that failed; if none did, the last one."""
        found = Comparison((), 0, passed=False, differences=("the original does not run",))
        for way in ways:
            found = self.reference.compare(model, way, atol=atol, rtol=rtol)
            if not found:
                break
        return found


def prepared(source: Source, model: ir.Model | None = None) -> Runnable:
    """What to run of a source, or another graph of it: as it is, unless seeds must be fixed or weights were frozen."""
    fixed = probes.seeded(source.model if model is None else model)
    return source.runnable if fixed is source.model and not source.frozen else runnable(fixed, source.carried)


def _picks(model: ir.Model) -> dict[str, tuple[str, int]]:
    """Outputs that hold places along an axis of another value: its name, and the axis."""
    found = {str(v.name): ops.places(v) for v in model.graph.outputs}
    known = {name: pick for name, pick in found.items() if pick is not None}
    return {n: (str(v.name), axis) for n, (v, axis) in known.items() if v.dtype is not None and v.shape is not None}


def guilty(edits: Sequence[Edit], holds: Callable[[int], bool]) -> Edit:
    """The first edit after which the graph is wrong, found by halving.

    Args:
        edits: in their order; with all of them the graph is known to be wrong.
        holds: whether the graph is right with only the first n edits made.
    """
    right, wrong = 0, len(edits)
    while wrong - right > 1:
        middle = (right + wrong) // 2
        if holds(middle):
            right = middle
        else:
            wrong = middle
    return edits[wrong - 1]


def rounded(edits: Iterable[Edit]) -> dict[str, int]:
    """Which values edits round differently, with the length of the longest sum behind each."""
    found: dict[str, int] = {}
    for edit in edits:
        if edit.exactness >= Exactness.ROUNDING:
            found |= {name: max(edit.reduction, found.get(name, 1)) for name in edit.values}
    return found


def products(model: ir.Model) -> dict[str, int]:
    """The results of all products with constant weights in the main graph, with the length of their sums."""
    return {str(node.outputs[0].name): linear.reduction for node in model.graph for linear in ops.linears(node)}


def explain(found: Comparison) -> str:
    """Why a comparison failed, in one sentence."""
    if found.differences:
        return found.differences[0]
    return next((str(o) for o in found.outputs if not o), "it passed")
