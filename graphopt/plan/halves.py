"""Which nodes of a model compute in half precision, by evidence.

    types ─► constants ─► values that were seen ─► rounding at each node alone ─► fewest casts ─► outputs

1. The operator has no such type, or a constant of it would become infinite or vanish: it stays on floats.
2. A value that comes near to what is infinite in half precision, or is not told well by it (underflow), stays a float:
   what makes it and what reads it compute on floats.
3. Each node is run on the values of the original, rounded, its constants and all in its bodies as well. Where the error
   of its result is far above that of rounding itself (a difference of what is nearly equal, a logarithm of what is
   nearly 0), it stays on floats, and so does what makes the values that it reads.
4. Of what is left, a minimum cut leaves those on floats that are not worth their casts (`islands`).
5. The whole, rounded wherever it holds half, has to give what the original gives; if not, the nodes with the largest
   errors of their own go back to floats, the fewest that it takes, found by bisection: log2 N whole runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import onnx_ir as ir

from graphopt.analysis.segments import Samples, batches
from graphopt.compress.halves.half import HalfPrecision, halved
from graphopt.compress.halves.lifted import lifted
from graphopt.compress.halves.masks import shallow
from graphopt.compress.halves.ports import Ports, constants, is_float, ports
from graphopt.compress.integers.quantize import NOTHING
from graphopt.errors import MachineError
from graphopt.graph.carry import Carried
from graphopt.graph.nodes import bodies, is_constant, key
from graphopt.plan.budget import excess
from graphopt.plan.islands import Unit, islands
from graphopt.plan.rounding import Deviation, Rounding
from graphopt.run.child import Child
from graphopt.run.machine import HERE, Machine
from graphopt.targets import PORTABLE, Target

__all__ = ["Halved", "Halves"]

Metrics = Mapping[str, tuple[float, float]]

_SAMPLES: Final = 16
"""That evidence is taken from, at most."""
_BIT: Final = 6.02
"""Decibels."""
_LOCAL: Final = 16.0
"""Decibels that rounding at one node may cost, below what so many bits have: 50 for float16, 32 for bfloat16."""
_OUTPUT: Final = 30.0
"""The same for all of them, at the outputs: 36 and 18. Without an allowed drop."""
_LARGE: Final = 1024
"""Bytes of a constant that are worth a Cast of its own."""
_NOT_WORTH: Final = "not worth its casts"


@dataclass(frozen=True, eq=False)
class Halved:
    """A model in half precision, and what led to it."""

    model: ir.Model
    type: str
    """Of half precision."""
    halves: tuple[str, ...]
    """Keys of nodes that compute in half precision."""
    ends: tuple[str, ...]
    """Names of inputs and outputs of the model that are in half precision."""
    floats: Mapping[str, str]
    """Why not, by key of a node that computes on floats, and by name of an input or output that was asked for."""
    left: tuple[str, ...]
    """Those of them that could, by their types, and do not."""
    casts: int
    """How many there are between both."""
    seen: int
    """Samples that evidence is from; 0 where a recipe said what to do."""


@dataclass(frozen=True, eq=False)
class Halves:
    """One model that is to compute in half precision."""

    model: ir.Model
    """Canonical."""
    form: HalfPrecision
    samples: Samples
    """What is learned from."""
    skip: Collection[str] = ()
    """Keys of nodes that compute on floats, and names of inputs and outputs that are floats."""
    machine: Machine = HERE
    carried: Carried = field(default_factory=Carried)
    """What its file holds beside the graph: bodies of a Scan need their shapes."""
    child: Child | None = None
    """Where what the runtime may not survive is tried."""
    target: Target = PORTABLE
    """What it is made for: operators without a kernel of half precision stay on floats."""

    def shallow(self, *, known: bool) -> ir.Model | None:
        """The model with masks that half precision can hold; None where its outputs are others then.

        Args:
            known: whether that was found out before.
        """
        made = shallow(self.model) if self.form.masks and self.form.dtype is ir.DataType.FLOAT16 else self.model
        return made if known or made is self.model or self._is_close(made) else None

    def halved(self, floats: Collection[str]) -> Halved:
        """With these nodes, inputs and outputs on floats, and all others that can in half precision."""
        told = dict.fromkeys(floats, "the recipe says so")
        return self._made(told, self._units.keys() - told.keys() - self._types.keys(), seen=0)

    def settled(
        self, score: Callable[[ir.Model], Metrics] = lambda _: NOTHING, allowed: Mapping[str, float] = NOTHING
    ) -> Halved:
        """With those on floats that evidence speaks against.

        Args:
            score: what metrics a model has.
            allowed: as `plan.budget.drops` has it.

        Raises:
            MachineError: the runtime has no such type here.
        """
        self.machine.progress("looking for what half precision loses")
        floats = self._inputs() | self._values() | self._constants() | self._types
        alone = self._rounding.alone([k for k in self._units if k not in floats])
        floats |= self._amplified(alone, floats)
        worst = sorted((k for k in alone if k not in floats), key=lambda k: alone[k].decibels)

        def attempt(number: int) -> Halved:
            told = floats | dict.fromkeys(worst[:number], "the outputs need it")
            return self._made(told, self._worth(told.keys()), count)

        def holds(made: Halved) -> bool:
            low = lifted(made.model, self.form.dtype)
            within = not allowed or excess(score(low), allowed) <= 1
            return within and self._rounding.runs(made.model) and self._is_close(low)

        self.machine.progress("comparing half precision with floats")
        count = len(self._rounding.feeds)
        found, wrong, right = attempt(0), 0, 1
        self._check_able(found.halves)
        if failing := self._failing(found.halves):
            floats |= dict.fromkeys(failing, "the runtime does not run it in half precision")
            found = attempt(0)
        if holds(found):
            return found
        while right < len(worst) and not holds(attempt(right)):
            wrong, right = right, 2 * right
        right = min(right, len(worst))
        while right - wrong > 1:
            middle = (right + wrong) // 2
            wrong, right = (wrong, middle) if holds(attempt(middle)) else (middle, right)
        return attempt(right)

    def _worth(self, floats: Collection[str]) -> set[str]:
        """Keys of nodes that are worth their casts."""
        half, graph = {n for n in self.ends if n not in floats}, self.model.graph
        made, read = ([str(v.name) for v in values] for values in (graph.inputs, graph.outputs))
        outside = Unit([n for n in read if n in half], [n for n in made if n in half], 0)
        return islands(self._units, floats, self._fixed, [n for n in read if n not in half], outside)

    def _check_able(self, keys: Collection[str]) -> None:
        """Insist that bfloat16 is of use: that the node with the largest weights runs in it.

        Raises:
            MachineError: it does not. Float16 differs in that its weights are worth storing in it all the same.
        """
        heaviest = max(keys, key=lambda k: self._units[k].size, default=None)
        if heaviest is None or self.form.dtype is not ir.DataType.BFLOAT16:
            return
        if not self._rounding.runs(halved(self.model, self.form.dtype, lambda n: key(n) == heaviest)):
            provider = self._rounding.provider
            raise MachineError(
                f"{provider} does not run {heaviest} in bfloat16, so nothing would gain by it: "
                "give --fp16, or --device cuda on a machine that has one"
            )

    def _failing(self, keys: Sequence[str]) -> list[str]:
        """Those of some nodes in half precision that keep the runtime from running the model, found by halving."""
        if not keys or self._rounding.runs(halved(self.model, self.form.dtype, lambda n: key(n) in keys)):
            return []
        middle = len(keys) // 2
        return [*self._failing(keys[:middle]), *self._failing(keys[middle:])] if middle else list(keys)

    def _is_close(self, low: ir.Model) -> bool:
        """Whether each output is what the original's is, nearly."""
        return all(deviation.decibels >= self._close for deviation in self._rounding.outputs(low).values())

    @property
    def _close(self) -> float:
        """Decibels that rounding must leave at each output."""
        return _BIT * self._rounding.bits - _OUTPUT

    @cached_property
    def ends(self) -> tuple[str, ...]:
        """Names of inputs and outputs of floats that were asked for in half precision."""
        every = (*self.model.graph.inputs, *self.model.graph.outputs) if self.form.io else ()
        names = (str(v.name) for v in every if is_float(v) and not v.is_initializer())
        return tuple(name for name in dict.fromkeys(names) if name not in self.skip)

    @cached_property
    def _ports(self) -> dict[str, Ports | str]:
        return {key(n): self._left(n) or ports(n, self.form.dtype) for n in self.model.graph}

    def _left(self, node: ir.Node) -> str:
        """Why a node is not looked at."""
        if key(node) in self.skip:
            return "it is to be left alone"
        lacks = not node.domain and node.op_type in self.target.floats
        return f"target {self.target.name} has no {node.op_type} of half precision" if lacks else ""

    @cached_property
    def _types(self) -> dict[str, str]:
        """Nodes that have to do with floats and nothing else."""
        return {k: found for k, found in self._ports.items() if isinstance(found, str) and found}

    @cached_property
    def _nodes(self) -> dict[str, ir.Node]:
        return {key(n): n for n in self.model.graph}

    @cached_property
    def _units(self) -> dict[str, Unit]:
        found = dict[str, Unit]()
        for name, node in self._nodes.items():
            at = self._ports[name]
            if isinstance(at, Ports):
                reads = [v for i in at.inputs if (v := node.inputs[i]) is not None]
                reads += [v for v in _captured(node) if v.dtype is ir.DataType.FLOAT]
                weights = (v.const_value for v in _constants(node, self.form.dtype))
                size = sum(t.nbytes // 2 for t in weights if t is not None)
                names = [str(v.name) for v in reads if not is_constant(v)]
                found[name] = Unit(names, [str(node.outputs[i].name) for i in at.outputs], size)
        return found

    @cached_property
    def _stored(self) -> set[str]:
        """Names of constants that are large, and that half precision tells."""
        every = {v for name in self._units for v in _constants(self._nodes[name], self.form.dtype)}
        large = [v for v in every if v.const_value is not None and v.const_value.nbytes >= _LARGE]
        return {str(v.name) for v in large if not self._rounding.lost(v)}

    @cached_property
    def _fixed(self) -> set[str]:
        """Names of values that something reads as floats, whatever is in half precision."""
        found = set[str]()
        for name, node in self._nodes.items():
            if name not in self._units:
                found |= {str(v.name) for v in (*node.inputs, *_captured(node)) if v is not None}
        return found

    def _inputs(self) -> dict[str, str]:
        """Inputs that the outputs need exact, as indices of rows that are floats."""
        names = {str(v.name) for v in self.model.graph.inputs}.intersection(self.ends)
        kept = self._rounding.inputs(sorted(names)) if names else {}
        return {n: "of a rounded one, the outputs are others" for n, decibels in kept.items() if decibels < self._close}

    def _constants(self) -> dict[str, str]:
        """Nodes with a constant that half precision does not tell."""
        told = {
            name: next(filter(None, map(self._rounding.lost, _constants(node, self.form.dtype))), "")
            for name, node in self._nodes.items()
            if name in self._units
        }
        return {name: why for name, why in told.items() if why}

    def _values(self) -> dict[str, str]:
        """Nodes that make or read a value that half precision does not tell, and inputs and outputs that are one."""
        limit, bad = self._rounding.most / self.form.margin, dict[str, str]()
        names = dict.fromkeys((*(n for u in self._units.values() for n in (*u.reads, *u.makes)), *self.ends))
        for name, seen in self._rounding.values(tuple(names)).items():
            if seen.largest > limit:
                bad[name] = f"overflow is near: {name} reaches {seen.largest:.3g}"
            elif seen.decibels < self._least:
                bad[name] = f"underflow: {name} is at most {seen.largest:.3g}"
        told = {k: next((bad[v] for v in (*u.makes, *u.reads) if v in bad), "") for k, u in self._units.items()}
        told |= {name: bad[name] for name in self.ends if name in bad}
        return {name: why for name, why in told.items() if why}

    def _amplified(self, alone: Mapping[str, Deviation], floats: Collection[str]) -> dict[str, str]:
        """Nodes whose result rounding harms, and what makes the values that they read."""
        makers = {v: k for k, u in self._units.items() for v in u.makes}
        found = dict[str, str]()
        for name, deviation in alone.items():
            if deviation.decibels < self._least:
                why = "is another one" if deviation.wrong else f"keeps {deviation.decibels:.0f} dB"
                found[name] = f"of rounded values, its result {why}"
        for name in list(found):
            for value in self._units[name].reads:
                if (maker := makers.get(value)) is not None and maker not in floats:
                    found.setdefault(maker, f"{name} needs it exact")
        return found

    @property
    def _least(self) -> float:
        """Decibels that rounding at one node must leave."""
        return _BIT * self._rounding.bits - _LOCAL

    @cached_property
    def _rounding(self) -> Rounding:
        feeds = batches(self.model, self.samples, 1)[0]
        some = feeds[:: max(1, len(feeds) // _SAMPLES)][:_SAMPLES]
        return Rounding(self.model, self.form.dtype, some, self.machine, self.carried, self.child)

    def _made(self, floats: Mapping[str, str], chosen: Collection[str], seen: int) -> Halved:
        ends = tuple(name for name in self.ends if name not in floats)
        model = halved(self.model, self.form.dtype, lambda n: key(n) in chosen, self._stored, ends)
        left = [*(k for k in self._units if k not in chosen), *(n for n in self.ends if n not in ends)]
        told = dict(floats) | {k: _NOT_WORTH for k in left if k not in floats}
        casts = sum(n not in self._nodes for n in map(key, model.graph))
        halves = tuple(k for k in self._units if k in chosen)
        return Halved(model, self.form.type, halves, ends, told, tuple(left), casts, seen)


def _constants(node: ir.Node, kind: ir.DataType) -> Iterable[ir.Value]:
    return dict.fromkeys(constants(node, kind))


def _captured(node: ir.Node) -> Iterator[ir.Value]:
    """Values of the main graph that the bodies of a node read."""
    inner = {v for body in bodies(node) for n in body for v in n.outputs} | {
        v for body in bodies(node) for v in (*body.inputs, *body.initializers.values())
    }
    for body in bodies(node):
        for value in (*(v for n in body for v in n.inputs), *body.outputs):
            if value is not None and value not in inner:
                yield value
