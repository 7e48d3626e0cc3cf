"""Half precision: a model in which some nodes compute with it.

    float ─ Cast ─► half node ─► half node ─ Cast ─► float node        a Cast for each value that crosses the border
    weight, of half                                                    constants are converted ahead of time
                                            weight, of half ─ Cast ─► float node: it is stored in half where it can be

Bodies of control flow go with their node: what is float on its border becomes half, and inside of it whatever can.
Inputs and outputs of the model stay floats, unless they are asked for in half precision as well.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.compress.halves.ports import Ports, is_float, ports
from graphopt.errors import UsageError
from graphopt.graph.names import Names
from graphopt.graph.nodes import graphs, is_constant, subgraphs
from graphopt.graph.record import Exactness
from graphopt.protocol import Named

__all__ = ["TYPES", "HalfPrecision", "cast", "halved", "rounded"]

TYPES: Final = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}
"""Types of half precision by name."""


@dataclass(frozen=True)
class HalfPrecision(Named):
    """Half precision wherever it does no harm.

    Measured: models/digits_*.onnx have 25 % to 50 % of their bytes and the same accuracy, at the same time on a CPU;
    ResNet-20 and ResNet-56 (CIFAR-10) half the bytes of weights and the same class for all of 2,000 images, SqueezeNet
    1.1 for all of 300.
    """

    name: ClassVar[str] = "half"
    summary: ClassVar[str] = "compute in half precision where that does no harm (`--fp16`, `--bf16`)"
    pays: ClassVar[str] = "in bytes on any target, in time on cuda"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    rules: ClassVar[dict[str, str]] = {}

    type: str = "float16"
    """Of half precision: float16, or bfloat16, which has the range of floats and 8 bits of precision."""
    margin: float = 4.0
    """How many times as large as any value that was seen others may be."""
    io: bool = False
    """Whether inputs and outputs of the model are in half precision as well, where their values can be."""
    masks: bool = True
    """Whether masks of scores are cut off where float16 can hold them (`masks`), if the outputs stay the same."""

    def __post_init__(self) -> None:
        """Insist on what there is.

        Raises:
            UsageError: a value is out of range.
        """
        if self.type not in TYPES:
            raise UsageError(f"half precision is of type {' or '.join(TYPES)}, not {self.type!r}: give one of these")
        if not 1 <= self.margin < np.inf:
            raise UsageError(f"margin is {self.margin}: give a number that is 1 or more")

    @property
    def dtype(self) -> ir.DataType:
        """The type in the graph."""
        return TYPES[self.type]


def halved(
    model: ir.Model,
    kind: ir.DataType,
    chosen: Callable[[ir.Node], bool],
    stored: Collection[str] = (),
    ends: Collection[str] = (),
) -> ir.Model:
    """A copy of a model in which some nodes compute in half precision.

    Args:
        model: is not changed.
        kind: of half precision.
        chosen: which nodes of the main graph; those without such a form stay as they are.
        stored: names of constants that are stored in half also for others, which runtimes undo when they load it.
        ends: names of inputs and outputs of floats that are in half precision; the others stay floats.
    """
    copy = model.clone()
    _Writer(copy, kind, stored).write(chosen, ends)
    return copy


class _Writer:
    """Puts half precision into a model."""

    def __init__(self, model: ir.Model, kind: ir.DataType, stored: Collection[str]) -> None:
        self._model, self._kind, self._stored, self._names = model, kind, stored, Names(model)
        self._ports = {n: ports(n, kind) for graph in graphs(model) for n in graph}
        self._made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._half = set[ir.Value]()

    def write(self, chosen: Callable[[ir.Node], bool], ends: Collection[str]) -> None:
        graph = self._model.graph
        for value in graph.inputs:
            if value.name in ends:
                self._turn(value)
        self._convert(graph, chosen)
        for index, value in enumerate(list(graph.outputs)):
            half = value.name in ends
            if half != (value in self._half):
                other = self._as(value, self._kind if half else ir.DataType.FLOAT)
                value.name, other.name = self._names.fresh(f"{value.name}/{'float' if half else 'half'}"), value.name
                graph.outputs[index] = other
        for (old, _), new in self._made.items():
            home = old.graph
            if (
                is_constant(new)
                and isinstance(home, ir.Graph)
                and is_constant(old)
                and not old.uses()
                and not old.is_graph_output()
            ):
                name = str(old.name)
                del home.initializers[name], home.initializers[str(new.name)]
                new.name = name
                home.register_initializer(new)

    def _convert(self, graph: ir.Graph, chosen: Callable[[ir.Node], bool]) -> None:
        for node in list(graph):
            found = self._ports[node] if chosen(node) else ""
            for index, value in enumerate(node.inputs):
                if value is not None and isinstance(found, Ports) and index in found.inputs:
                    node.replace_input_with(index, self._as(value, self._kind))
                elif value in self._half or (value is not None and value.name in self._stored and is_constant(value)):
                    node.replace_input_with(index, self._as(value, ir.DataType.FLOAT))
            for body in subgraphs(node):
                self._convert_body(body, inside=isinstance(found, Ports))
            for index in found.outputs if isinstance(found, Ports) else ():
                self._turn(node.outputs[index])

    def _convert_body(self, body: ir.Graph, *, inside: bool) -> None:
        """All of a body, what is on its border included, or nothing but what it reads."""
        for value in body.inputs if inside else ():
            if is_float(value):
                self._turn(value)
        self._convert(body, lambda _: inside)
        for index, value in enumerate(list(body.outputs)):
            if inside and is_float(value):
                body.outputs[index] = self._as(value, self._kind)
            elif not inside and value in self._half:
                body.outputs[index] = self._as(value, ir.DataType.FLOAT)

    def _turn(self, value: ir.Value) -> None:
        value.type = ir.TensorType(self._kind)
        self._half.add(value)

    def _as(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The same in another type: one constant or Cast for all that read it."""
        if value.dtype is dtype and not (is_constant(value) and value.name in self._stored):
            return value
        if (value, dtype) not in self._made:
            name = self._names.fresh(f"{value.name}/{dtype.name.lower()}")
            if dtype is ir.DataType.FLOAT and is_constant(value):
                made = cast(self._as(value, self._kind), dtype, name)
            elif is_constant(value) and value.const_value is not None and value.graph is not None:
                tensor = ir.tensor(rounded(value.const_value.numpy(), dtype), name=name)
                made = ir.Value(name=name, const_value=tensor, type=ir.TensorType(dtype), shape=value.shape)
                value.graph.register_initializer(made)
            else:
                made = cast(value, dtype, name)
            self._made[value, dtype] = made
        return self._made[value, dtype]


def rounded(array: NDArray[Any], dtype: ir.DataType) -> NDArray[Any]:
    """An array in another type; what is too large becomes infinite."""
    with np.errstate(over="ignore"):
        return array.astype(dtype.numpy())


def cast(value: ir.Value, dtype: ir.DataType, name: str) -> ir.Value:
    """A value in another type, by a Cast right behind where it is made."""
    node = ir.node("Cast", [value], {"to": int(dtype)}, name=name)
    made, producer, graph = node.outputs[0], value.producer(), value.graph
    made.name, made.type, made.shape = name, ir.TensorType(dtype), value.shape
    if producer is not None and producer.graph is not None:
        producer.graph.insert_after(producer, node)
    elif isinstance(graph, ir.Graph):
        if len(graph):
            graph.insert_before(graph[0], node)
        else:
            graph.append(node)
    return made
