"""What half precision loses: of a constant, of values that were seen, of each node alone, and at the outputs.

Nodes are looked at alone, each on the values that the original computes: what one of them loses is not blamed on the
next. All of them stand in one model, in which no node reads what another one makes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.analysis.evidence import survives
from graphopt.compress.halves.half import halved, rounded
from graphopt.compress.halves.lifted import lifted
from graphopt.errors import InputError
from graphopt.graph.carry import Carried
from graphopt.graph.names import Names
from graphopt.graph.nodes import key
from graphopt.graph.save import runnable
from graphopt.run.child import Child
from graphopt.run.machine import HERE, Machine
from graphopt.run.session import Feed, Session

__all__ = ["Deviation", "Rounding"]

Array = NDArray[Any]

_VANISHED: Final = 0.1
"""Share of a constant's energy that may become 0."""


@dataclass
class Deviation:
    """Of a tensor from what it was, added up over samples."""

    signal: float = 0.0
    noise: float = 0.0
    wrong: int = 0
    """Elements that are no numbers where the original's are or the other way round, and integers that are others."""
    largest: float = 0.0
    """Magnitude of the original's largest number."""

    def add(self, expected: object, found: object) -> None:
        """Take in what there should be and what there is."""
        if not isinstance(expected, np.ndarray) or not isinstance(found, np.ndarray) or expected.shape != found.shape:
            self.wrong += 1
            return
        if expected.dtype.kind != "f":
            self.wrong += int(np.count_nonzero(expected != found))
            return
        a, b = expected.astype(np.float64).ravel(), found.astype(np.float64).ravel()
        self.largest = max(self.largest, float(np.abs(a, where=np.isfinite(a), out=np.zeros_like(a)).max(initial=0.0)))
        both = np.isfinite(a) & np.isfinite(b)
        if not both.all():
            self.wrong += int(np.count_nonzero(~both & (a != b) & ~(np.isnan(a) & np.isnan(b))))
            a, b = a[both], b[both]
        self.signal += float(a @ a)
        b -= a
        self.noise += float(b @ b)

    @property
    def decibels(self) -> float:
        """The ratio of signal to noise; infinite where all is exact, and −infinite where it is wrong."""
        if self.wrong or (self.noise and not self.signal):
            return -np.inf
        return float(10 * np.log10(self.signal / self.noise)) if self.noise else np.inf


@dataclass(frozen=True, eq=False)
class Rounding:
    """One model, and what it is looked at with."""

    model: ir.Model
    kind: ir.DataType
    """Of half precision."""
    feeds: Sequence[Feed]
    machine: Machine = HERE
    carried: Carried = field(default_factory=Carried)
    """What its file holds beside the graph: bodies of a Scan need their shapes."""
    child: Child | None = None
    """Where what the runtime may not survive is tried."""

    @property
    def bits(self) -> int:
        """Of precision."""
        return int(self._info.nmant) + 1

    @property
    def most(self) -> float:
        """The largest number of half precision."""
        return float(self._info.max)

    @property
    def provider(self) -> str:
        """What the model really runs on."""
        return self._session(self.model).provider

    @property
    def _info(self) -> Any:
        return ml_dtypes.finfo(self.kind.numpy())  # type: ignore[no-untyped-call]

    def lost(self, value: ir.Value) -> str:
        """What half precision loses of a constant, as a reason; empty where it is told well enough."""
        exact = np.zeros(0) if value.const_value is None else value.const_value.numpy()
        low, known = rounded(exact, self.kind).astype(np.float64), np.isfinite(exact)
        largest = float(np.abs(exact[known]).max(initial=0.0))
        if np.any(np.isinf(low[known])):
            return f"a constant overflows: {value.name} reaches {largest:.3g}"
        squares = np.square(exact[known], dtype=np.float64)
        if squares[low[known] == 0].sum() > _VANISHED * squares.sum():
            return f"a constant underflows: {value.name} is at most {largest:.3g}"
        return ""

    def values(self, names: Sequence[str]) -> dict[str, Deviation]:
        """By name, what rounding does to computed values."""
        if not names:
            return {}
        found, run = {name: Deviation() for name in names}, self._tapped(names)
        for feed in self.feeds:
            told = run(feed)
            for name in names:
                value = told[name]
                found[name].add(value, rounded(value, self.kind).astype(value.dtype))
        return found

    def alone(self, keys: Sequence[str]) -> dict[str, Deviation]:
        """By key, how far the result of each of some nodes is off, alone in half precision on exact values."""
        if not keys:
            return {}
        try:
            return self._apart(set(keys))
        except InputError:
            if len(keys) == 1:  # it does not run
                return {keys[0]: Deviation(wrong=1)}
        middle = len(keys) // 2
        return self.alone(keys[:middle]) | self.alone(keys[middle:])

    def outputs(self, other: ir.Model) -> dict[str, Deviation]:
        """By name, how far outputs of floats of another model are off."""
        first, second = self._session(self.model), self._session(other)
        found = {str(v.name): Deviation() for v in self.model.graph.outputs}
        for feed in self.feeds:
            _compare(found, first.run(feed), second.run(feed))
        return found

    def inputs(self, names: Sequence[str]) -> dict[str, float]:
        """By name, the decibels that the worst output keeps where one input alone is rounded, and all else exact."""
        found, session = dict[str, float](), self._session(self.model)
        for name in names:
            deviations = {str(v.name): Deviation() for v in self.model.graph.outputs}
            for feed in self.feeds:
                near = feed | {name: rounded(feed[name], self.kind).astype(feed[name].dtype)}
                _compare(deviations, session.run(feed), session.run(near))
            found[name] = min(d.decibels for d in deviations.values())
        return found

    def runs(self, model: ir.Model) -> bool:
        """Whether the runtime runs a model as it is, and survives that."""
        try:
            survives(runnable(model, self.carried), self.feeds[:1], self.child)
            self._session(model).run(self.feeds[0])
        except InputError:
            return False
        return True

    def _apart(self, keys: Collection[str]) -> dict[str, Deviation]:
        copy, made = _severed(self.model, keys)
        low = self._session(lifted(halved(copy, self.kind, lambda n: key(n) in keys), self.kind))
        needed = [p.name for p in low.inputs]
        run, found = self._tapped((*needed, *made)), {name: Deviation() for name in keys}
        for feed in self.feeds:
            exact = run(feed)
            results = low.run({n: exact[n] for n in needed})
            for name, (owner, output) in made.items():
                found[owner].add(exact[name], results[output])
        return found

    def _session(self, model: ir.Model) -> Session:
        return self.machine.session(runnable(model, self.carried))

    def _tapped(self, values: Iterable[str]) -> Callable[[Feed], Feed]:
        """Runs the model, and tells values of its main graph beside what was fed."""
        copy = self.model.clone()
        known = {str(v.name): v for n in copy.graph for v in n.outputs if v.name}
        copy.graph.outputs[:] = [known[n] for n in dict.fromkeys(values) if n in known]
        session = self._session(copy)
        return lambda feed: feed | session.run(feed)


def _compare(deviations: Mapping[str, Deviation], expected: Feed, found: Feed) -> None:
    """Take in outputs of floats, by name."""
    for name, deviation in deviations.items():
        if isinstance(expected[name], np.ndarray) and expected[name].dtype.kind == "f":
            deviation.add(expected[name], found[name])


def _severed(model: ir.Model, keys: Collection[str]) -> tuple[ir.Model, dict[str, tuple[str, str]]]:
    """Some nodes of a model, each on inputs of its own, and by value that one of them makes, its key and the output."""
    copy = model.clone()
    graph, names, made = copy.graph, Names(copy), dict[str, tuple[str, str]]()
    values = [(n, v) for n in graph for v in n.outputs if v.name]
    graph.outputs.clear()
    for node, value in values:
        if isinstance(value.type, ir.TensorType):
            name = str(value.name)
            fed = ir.Value(name=name, type=value.type, shape=value.shape)
            value.replace_all_uses_with(fed)
            value.name = names.fresh(f"{name}/alone")
            if key(node) in keys:
                made[name] = (key(node), value.name)
                graph.outputs.append(value)
            if fed.uses():
                graph.inputs.append(fed)
    for node in reversed(list(graph)):
        if key(node) not in keys and not any(v.uses() or v.is_graph_output() for v in node.outputs):
            graph.remove(node, safe=True)
    for value in list(graph.inputs):
        if not value.uses() and not value.is_initializer():
            graph.inputs.remove(value)
    return copy, made
