"""Verify: does a rewritten graph still do the original's job, and if not, which edits are to blame?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from graphopt import ops
from graphopt.graph import invariants, probes
from graphopt.graph.external import Runnable
from graphopt.graph.load import Source, load
from graphopt.graph.record import Edit, Exactness
from graphopt.graph.save import EXTERNAL_ABOVE, runnable, serialize, weight_bytes
from graphopt.run.compare import Comparison, Reference, Way
from graphopt.run.machine import HERE, Machine
from graphopt.run.session import Feed

__all__ = ["Judge", "explain", "guilty", "products", "rounded"]

_NOISE_SEEDS = (1, 2)


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
        noisy = [probes.noisy(original, reductions, 1000 * s) for s in _NOISE_SEEDS if small]
        self.reference = Reference(
            self._runnable(source),
            feeds,
            machine,
            noisy=[serialize(n, source.carried) for n in noisy if n is not None],
            twice=all(ops.is_pure(node, original.functions) for node in original.graph),
        )

    def __call__(self, model: ir.Model) -> Comparison:
        """Compare a graph: its structure first, then its outputs in each way in which the original runs."""
        problem = next(invariants.broken(model), None)
        if problem:
            return Comparison((), 0, passed=False, differences=(problem,))
        return self._compare(runnable(probes.seeded(model), self._source.carried), self.reference.ways)

    def source(self, other: Source, *, atol: float | None = None, rtol: float | None = None) -> Comparison:
        """Compare another model in each way in which the original runs; the tolerance may be given."""
        return self._compare(self._runnable(other), self.reference.ways, atol, rtol)

    def written(self, path: Path) -> Comparison:
        """Read a file back and run it."""
        return self._compare(self._runnable(load(path)), self.reference.ways[:1])

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

    def _runnable(self, source: Source) -> Runnable:
        """What to run: the model as it is, unless random nodes need their seeds fixed or weights were frozen."""
        fixed = probes.seeded(source.model)
        return source.runnable if fixed is source.model and not source.frozen else runnable(fixed, source.carried)


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
