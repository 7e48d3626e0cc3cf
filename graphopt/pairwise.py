"""Two models, value by value: how far each value of one is from the other's, and how much of that its layer adds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from graphopt.analysis.facts import measured
from graphopt.errors import InputError
from graphopt.graph.load import Source
from graphopt.graph.matching import Pairs, Side
from graphopt.graph.nodes import key
from graphopt.graph.save import runnable
from graphopt.graph.shapes import bytes_of
from graphopt.run.compare import OutputError, Reference, Way
from graphopt.run.machine import Machine
from graphopt.run.session import Feed, Session
from graphopt.verify import Judge, prepared, products

__all__ = ["NEGLIGIBLE", "Layer", "Pairwise", "decibels"]

_NAMED: Final = 3
"""Keys that are told of one layer."""
_GIVEN: Final = "/given"
NEGLIGIBLE: Final = 60.0
"""Decibels: an error that is smaller by so much than another one has no part in it."""
_ANOTHER: Final = 20.0
"""Decibels, below which a value of a compressed model may be another one altogether."""
_BETTER: Final = 6.0
"""Decibels, that what reads such a value gains where it is left to the candidate."""
_FLOATS: Final = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}
"""Types that are compared with each other."""


@dataclass(frozen=True)
class Layer:
    """What a candidate computes from values that both models have to the next one."""

    key: str
    """Of the node that gives the value."""
    operator: str
    value: str
    """Its name in the reference."""
    error: OutputError
    """Of the value, on the same feeds."""
    own: OutputError | None
    """What is left of it where the layer reads the reference's values; None where both have not the same shapes."""
    stands_for: tuple[str, ...]
    """Keys of the nodes of the reference in whose place it is."""

    @property
    def own_db(self) -> float:
        """Signal over own error in decibels: −inf where that is no number, inf without an error."""
        return math.inf if self.own is None else decibels(self.own)


class Pairwise:
    """Two models with their values paired, and feeds on which these are compared.

    Args:
        reference: the model to compare with.
        candidate: the model in question.
        feeds: what both are run on.
        words: the way of running, as `run.compare` calls it.
        machine: where to run; values that are held at a time take at most half of its memory.
    """

    def __init__(
        self, reference: Source, candidate: Source, feeds: Sequence[Feed], words: str, machine: Machine
    ) -> None:
        self._reference, self._candidate, self._feeds = reference, candidate, feeds
        self._words, self._machine = words, machine
        self._reductions = products(reference.model)
        self._side = Side(candidate.model)
        pairs = Pairs(Side(reference.model), self._side).values
        made = [v for node in candidate.model.graph for v in node.outputs]
        self._theirs = {v: pairs[v] for v in made if v in pairs and _comparable(pairs[v], v, reference.model.graph)}
        """In the candidate's order: its values, and those of the reference."""
        self._ours = {str(theirs.name): v for v, theirs in self._theirs.items()}
        self._size = dict.fromkeys(self._ours, 0)
        fits = set(self._theirs)
        for feed in feeds:
            before = measured(reference.model, reference.carried, feed)
            after = measured(candidate.model, candidate.carried, feed)
            fits = {v for v in fits if (shape := after(v)) is not None and shape == before(self._theirs[v])}
            for name, v in self._ours.items():
                self._size[name] += bytes_of(self._theirs[v], before)
        self._others: set[str] = set()
        """Those of the pairs, by the reference's names, that turned out to be none."""
        self._bounds = {v: read for v, read in _near(self._side, fits).items() if v in fits}
        """Of those with the same shapes in both models, the nearest such values that they are computed from."""

    def layers(self) -> dict[str, Layer]:
        """By the name that the reference has for the value, in the candidate's order."""
        found: dict[str, OutputError] = {}
        alone: dict[str, OutputError] = {}
        for names in self._passes():
            with suppress(InputError):  # a part may lack what makes the whole run
                reference = self._judge(names).reference
                way = next((w for w in reference.ways if w.words == self._words), reference.ways[0])
                found |= self._judged(reference, way, names)
                bounds = {n: self._bounds[v] for n in names if (v := self._ours[n]) in self._bounds}
                own = self._judged(reference, way, list(bounds), bounds)
                for least in (math.inf, _ANOTHER):
                    own = self._reconciled(reference, way, bounds, own, least)
                alone |= own
        return {n: self._layer(n, e, alone.get(n)) for n, e in found.items() if n not in self._others}

    def _reconciled(
        self,
        reference: Reference,
        way: Way,
        bounds: Mapping[str, set[ir.Value]],
        own: dict[str, OutputError],
        least: float,
    ) -> dict[str, OutputError]:
        """Own errors without the values that were paired by mistake, which are found here.

        A rewriting may leave a value its name and make another one of it, as where a factor is moved past it. What
        reads it then does well, or better than before, on what the candidate has there instead of the reference's.

        Args:
            reference: holds the values, and what they are computed from.
            way: to run the candidate in.
            bounds: what each layer reads.
            own: the own error of each.
            least: only what has a smaller ratio of signal to error, in decibels, is doubted.
        """
        ends = set(self._candidate.model.graph.outputs)
        doubted = {self._ours[n] for n, e in own.items() if decibels(e) < least} - ends
        past = {n: _past(read, doubted, self._bounds) for n, read in bounds.items() if read & doubted}
        past = {n: read for n, read in past.items() if self._ours[n] not in doubted}
        merged = self._judged(reference, way, list(past), past)
        better = {n for n, e in merged.items() if e or decibels(e) > decibels(own[n]) + _BETTER}
        chains = {n: _between(bounds[n], doubted, self._bounds) for n in merged}
        wrong = {v for n in better for v in chains[n]}
        wrong -= {v for n in merged if n not in better for v in chains[n]}
        self._others |= {str(self._theirs[v].name) for v in wrong}
        kept = {n: e for n, e in own.items() if n not in self._others}
        return kept | {n: merged[n] for n in better if not wrong.isdisjoint(chains[n])}

    def first(self, layers: Mapping[str, Layer], outputs: Sequence[str]) -> Layer | None:
        """From an output that is off back to where that began; of several, the earliest."""
        order, before = {name: i for i, name in enumerate(layers)}, self._before(layers)
        off = [n for n in outputs if n in layers and not layers[n].error]
        found: str | None = None
        while off:
            found = min(off, key=order.__getitem__)
            near = [str(self._theirs[v].name) for v in before[self._ours[found]]]
            most = decibels(layers[found].error)
            most = most + NEGLIGIBLE if most > -math.inf else math.inf
            off = [n for n in near if decibels(layers[n].error) < most]
        return None if found is None else layers[found]

    def knows(self, layers: Mapping[str, Layer], layer: Layer) -> bool:
        """Whether both models have values inside that a layer is computed from."""
        return bool(self._before(layers)[self._ours[layer.value]])

    def _before(self, layers: Mapping[str, Layer]) -> dict[ir.Value, set[ir.Value]]:
        """For each value of the candidate, the nearest of those in question that it is computed from."""
        return _near(self._side, {self._ours[name] for name in layers})

    def only(self, layer: Layer) -> str:
        """Whether a value is within its tolerance in other ways of running, in words."""
        reference = self._judge([layer.value]).reference
        off = [w for w in reference.ways if not all(self._judged(reference, w, [layer.value]).values())]
        if reference.twice and off and reference.ways[-1] not in off:
            return "on CUDA only"
        if off == [w for w in reference.ways if w.optimize]:
            return "with the runtime's optimizations only"
        return "on the CPU only" if reference.twice and off == [reference.ways[-1]] else ""

    def _passes(self) -> Iterator[list[str]]:
        """As many pairs as fit into memory with what they are computed from, time and again."""
        names, held = list[str](), set[str]()
        for name in self._ours:
            wanted = held | self._wanted(name)
            if names and sum(self._size[n] for n in wanted) > self._machine.memory // 2:
                yield names
                names, wanted = [], self._wanted(name)
            names, held = [*names, name], wanted
        if names:
            yield names

    def _wanted(self, name: str) -> set[str]:
        return {name, *(str(self._theirs[v].name) for v in self._bounds.get(self._ours[name], ()))}

    def _judge(self, names: Iterable[str]) -> Judge:
        """Of the reference, with these values and what they are computed from as its outputs."""
        wanted = dict.fromkeys(w for n in names for w in sorted(self._wanted(n)))
        source = _with(self._reference, _giving(self._reference.model, list(wanted)))
        return Judge(source, self._feeds, self._reductions, self._machine)

    def _judged(
        self,
        reference: Reference,
        way: Way,
        names: Sequence[str],
        bounds: Mapping[str, set[ir.Value]] | None = None,
    ) -> dict[str, OutputError]:
        """How far values of the candidate are from the reference's.

        Args:
            reference: holds them, and what they are computed from.
            way: to run the candidate in.
            names: those of the reference.
            bounds: where to let the candidate read the reference's values, for each of them.
        """
        mine = {str(self._ours[n].name): n for n in names}
        read = {v for n in names for v in (bounds or {}).get(n, ())}
        given = {str(v.name): str(self._theirs[v].name) for v in self._theirs if v in read}
        if not mine:
            return {}
        try:
            session = way.session(prepared(self._candidate, _giving(self._candidate.model, list(mine), list(given))))
            errors = reference.judged(names, self._runs(session, mine, given, reference.expected))
        except InputError:  # what is around a value can be what makes it run
            return {}
        return {e.name: e for e in errors}

    def _runs(
        self, session: Session, mine: Mapping[str, str], given: Mapping[str, str], expected: Sequence[Mapping[str, Any]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, (feed, known) in enumerate(zip(self._feeds, expected, strict=True)):
            filled = feed | {name + _GIVEN: known[theirs][0] for name, theirs in given.items()}
            found = session.run(filled, list(mine))
            yield index, {mine[n]: _like(value, known[mine[n]][0]) for n, value in found.items()}

    def _layer(self, name: str, error: OutputError, own: OutputError | None) -> Layer:
        value = self._ours[name]
        node = value.producer()
        assert node is not None  # noqa: S101 - only values that nodes make are paired here
        return Layer(key(node), node.op_type, name, error, own, tuple(self._region(self._theirs[value])))

    def _region(self, value: ir.Value) -> list[str]:
        """Keys of the first few nodes of the reference that compute a value from other pairs."""
        keys, pending = dict[str, None](), [value]
        paired = {v for v in self._theirs.values() if str(v.name) not in self._others}
        while pending and len(keys) < _NAMED:
            node = pending.pop(0).producer()
            if node is not None and key(node) not in keys:
                keys[key(node)] = None
                pending += [v for v in node.inputs if v is not None and v not in paired]
        return list(keys)


def _near(side: Side, wanted: set[ir.Value]) -> dict[ir.Value, set[ir.Value]]:
    """For each value that a node makes, the nearest of those wanted that it is computed from."""
    found: dict[ir.Value, set[ir.Value]] = {}
    for node in side.model.graph:
        read = set[ir.Value]()
        for value in side.reads(node):
            read |= {value} if value in wanted else found.get(value, set())
        found |= dict.fromkeys(node.outputs, read)
    return found


def _past(read: set[ir.Value], doubted: set[ir.Value], bounds: Mapping[ir.Value, set[ir.Value]]) -> set[ir.Value]:
    """What values are computed from, where those that are doubted do not count."""
    every = {w for v in _between(read, doubted, bounds) for w in bounds[v]} | read
    return every - doubted


def _between(read: set[ir.Value], doubted: set[ir.Value], bounds: Mapping[ir.Value, set[ir.Value]]) -> set[ir.Value]:
    """Those that are doubted, and those that they are computed from without others in between."""
    found, pending = set[ir.Value](), [v for v in read if v in doubted]
    while pending:
        value = pending.pop()
        if value not in found:
            found.add(value)
            pending += bounds[value] & doubted
    return found


def decibels(error: OutputError) -> float:
    """Signal over error: inf where a value is within its tolerance, −inf where the error is no number."""
    if error.passed:
        return math.inf
    return -math.inf if error.sqnr_db is None else error.sqnr_db


def _comparable(theirs: ir.Value, ours: ir.Value, graph: ir.Graph) -> bool:
    """Whether both are tensors of one type, or of floats, that nodes of the main graphs make."""
    node = theirs.producer()
    if node is None or node.graph is not graph or not (theirs.name and ours.name):
        return False
    if not all(isinstance(v.type, ir.TensorType | None) for v in (theirs, ours)):
        return False
    return theirs.dtype == ours.dtype or {theirs.dtype, ours.dtype} <= _FLOATS


def _giving(model: ir.Model, outputs: Sequence[str], inputs: Sequence[str] = ()) -> ir.Model:
    """A copy with other outputs and further inputs, in place of values of the main graph; with what computes them."""
    copy = model.clone()
    made = {v.name: v for node in copy.graph for v in node.outputs}
    copy.graph.outputs.clear()
    for name in inputs:
        value = made[name]
        given = ir.Value(name=name + _GIVEN, type=value.type, shape=value.shape)
        ir.convenience.replace_all_uses_with(value, given)
        copy.graph.inputs.append(given)
    copy.graph.outputs.extend(made[name] for name in outputs)
    RemoveUnusedNodesPass()(copy)
    return copy


def _with(source: Source, model: ir.Model) -> Source:
    return replace(source, model=model, runnable=runnable(model, source.carried), frozen=0)


def _like(value: Any, expected: np.ndarray) -> Any:
    """A value as floats of the other type, where both are floats."""
    floats = isinstance(value, np.ndarray) and value.dtype != expected.dtype and expected.dtype.kind == "f"
    return value.astype(expected.dtype) if floats else value
