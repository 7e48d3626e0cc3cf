"""What proves that a cut is right: where products read zeros for what was taken out, the rest is as without it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.channels import channels
from graphopt.analysis.groups import Channels, Port
from graphopt.compress.cut import cut
from graphopt.graph import values
from graphopt.graph.load import Source, load
from graphopt.graph.nodes import attr, key
from graphopt.graph.save import serialize
from graphopt.plan.budget import macs
from graphopt.run.session import Feed
from tests.support.models import differences, feed, parse, run

Keep = Mapping[str, NDArray[np.bool_]]
EXTENTS = (
    MappingProxyType({"N": 2, "S": 6, "H": 6, "W": 7}),
    MappingProxyType({"N": 3, "S": 5, "H": 9, "W": 8}),
    MappingProxyType({"N": 1, "S": 4, "H": 5, "W": 5}),
)
"""Of symbolic dimensions: the first ones are those in which groups are looked for."""


def model(text: str, *, seed: int = 0) -> onnx.ModelProto:
    """A model from text, in which values that are declared and that nothing computes are random weights.

    Of floating point numbers; those whose names start with "var" are positive.
    """
    made, draw = parse(text), np.random.default_rng(seed)
    computed = {name for node in made.graph.node for name in node.output}
    for info in [i for i in made.graph.value_info if i.name not in computed]:
        made.graph.value_info.remove(info)
        kind = info.type.tensor_type
        array = draw.standard_normal([d.dim_value for d in kind.shape.dim])
        array = np.abs(array) + 0.1 if info.name.startswith("var") else array
        tensor = ir.tensor(array.astype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)), name=info.name)
        made.graph.initializer.append(ir.serde.serialize_tensor(tensor))
    return made


@dataclass(frozen=True)
class Case:
    """A model and feeds for it; groups are looked for at the extents of the first one."""

    source: Source
    feeds: tuple[Feed, ...]
    tolerance: float = 1e-5
    """Of the largest number of each output."""

    def find(self, *, inner: bool) -> Channels:
        """Its groups."""
        given = {name: np.shape(v) for name, v in self.feeds[0].items() if isinstance(v, np.ndarray)}
        return channels(self.source.model, values.bound(self.source.model, given), inner=inner)


def case(text: str, *, tolerance: float = 1e-5) -> Case:
    """A model from text, with a feed for each of `EXTENTS` (one, if it has no symbols)."""
    made = model(text)
    symbols = any(
        d.dim_param or not d.HasField("dim_value") for i in made.graph.input for d in i.type.tensor_type.shape.dim
    )
    feeds = tuple(feed(made, dims, seed=seed) for seed, dims in enumerate(EXTENTS if symbols else EXTENTS[:1]))
    return Case(load(made), feeds, tolerance)


def keeps(found: Channels, *, alone: bool = True, seed: int = 0) -> Iterator[tuple[str, Keep]]:
    """What to try, with a name: each group alone, all together, and all of which one unit is left."""
    draw = np.random.default_rng(seed)
    some = {k: _random(g.units, draw) for k, g in found.groups.items()}
    if alone:
        yield from ((k, {k: keep}) for k, keep in some.items())
    if some:
        yield "all", some
        yield "one of each", {k: np.arange(g.units) == draw.integers(g.units) for k, g in found.groups.items()}


def _random(units: int, draw: np.random.Generator) -> NDArray[np.bool_]:
    keep = draw.random(units) < 0.6
    keep[draw.permutation(units)[:2]] = True, False
    return keep


def violations(given: Case, found: Channels, *, alone: bool = True, seed: int = 0) -> list[str]:
    """Where what is cut differs from what is masked, or is not a valid model."""
    result: list[str] = []
    for name, keep in keeps(found, alone=alone, seed=seed):
        thin = sliced(given.source, found, keep)
        zeros = serialize(masked(given.source.model, found, keep), given.source.carried)
        result += [
            f"{name}: {d}"
            for some in given.feeds
            for d in differences(run(zeros, some), run(thin, some), relative=given.tolerance)
        ]
    return result


def sliced(source: Source, found: Channels, keep: Keep) -> bytes:
    """The model with only those units, serialized; the official checker has no more against it than before."""
    thin = serialize(cut(source.model, found, keep), source.carried.without(found.values))
    proto = onnx.ModelProto.FromString(thin)
    onnx.checker.check_model(proto, full_check=not _complaint(serialize(source.model, source.carried)))
    return thin


def _complaint(content: bytes) -> str:
    """What inference has against a model: there are valid ones that it does not follow."""
    try:
        onnx.shape_inference.infer_shapes(onnx.ModelProto.FromString(content), strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        return str(error)
    return ""


def masked(given: ir.Model, found: Channels, keep: Keep) -> ir.Model:
    """The model with a Mul by zeros and ones wherever a product sums over units that do not stay."""
    result = given.clone()
    products = {p.key for p in found.products.values()}
    for node in [n for n in result.graph if key(n) in products]:
        for index, axis in _summed(node):
            value = node.inputs[index]
            ports: tuple[Port | None, ...] = () if value is None else found.values.get(str(value.name), ())
            if value is None or not ports or (port := ports[axis]) is None or (stays := port.kept(keep)).all():
                continue
            shape = [-1 if i == axis % len(ports) else 1 for i in range(len(ports))]
            name = f"{node.name}/masked_{index}"
            mask = ir.tensor(stays.reshape(shape).astype((value.dtype or ir.DataType.FLOAT).numpy()), name=f"{name}/m")
            constant = ir.Value(name=mask.name, const_value=mask, type=ir.TensorType(mask.dtype))
            result.graph.register_initializer(constant)
            zeros = ir.node("Mul", [value, constant], name=name)
            zeros.outputs[0].name = f"{name}/y"
            result.graph.insert_before(node, [zeros])
            node.replace_input_with(index, zeros.outputs[0])
    return result


def _summed(node: ir.Node) -> Iterable[tuple[int, int]]:
    """(input, axis) over which a product sums, of one operand: zeros in one are enough."""
    match node.op_type:
        case "Conv" | "ConvTranspose":
            return [(0, 1)]
        case "Gemm":
            return [(0, 0 if attr(node, "transA", 0) else 1)]
        case "MatMul" | "Attention":
            return [(0, -1)]
        case "LSTM" | "GRU" | "RNN":
            return [(0, 2), (2, 2)]
        case "Einsum":
            first, _, out = attr(node, "equation").replace(" ", "").replace(",", "->", 1).split("->")
            return [(0, i) for i, letter in enumerate(first) if letter not in out]
    raise AssertionError(f"what does {node.op_type} sum over?")


def work(given: ir.Model, inputs: Feed) -> int:
    """Multiply-accumulates of a run."""
    shape = values.bound(given, {name: np.shape(v) for name, v in inputs.items() if isinstance(v, np.ndarray)})
    return sum(ops.macs(node, shape) or 0 for node in given.graph)


def thin_work(given: Case, found: Channels, keep: Keep) -> tuple[Any, Any]:
    """Multiply-accumulates of a cut model, as foretold and as counted."""
    foretold = macs(found, {k: int(stays.sum()) for k, stays in keep.items()})
    return foretold, work(cut(given.source.model, found, keep), given.feeds[0])
