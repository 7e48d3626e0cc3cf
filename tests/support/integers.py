"""Models as text with random weights, and what becomes of them on integers."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.analysis.calibration import observe
from graphopt.compress.integers.quantize import grids, weights
from graphopt.compress.integers.quantizers import Ranged, assembled
from graphopt.compress.integers.region import Layout, layout
from graphopt.compress.integers.round import Rounded
from graphopt.graph.carry import Carried
from graphopt.graph.load import load
from graphopt.graph.save import serialize
from graphopt.run.session import Feed, Session
from graphopt.targets import Integers

from .models import parse

__all__ = ["Placed", "filled", "images", "noise", "placed"]

Array = NDArray[Any]


def filled(text: str, seed: int = 0) -> ir.Model:
    """A model with random numbers for tensors that are declared without any: weights that keep sizes, small biases."""
    made, draw = parse(text), np.random.default_rng(seed)
    known = {t.name for t in made.graph.initializer}
    for declared in made.graph.value_info:
        if declared.name not in known:
            shape = [d.dim_value for d in declared.type.tensor_type.shape.dim]
            few = shape[0] if declared.name.startswith("m") else int(np.prod(shape[1:]))  # m: read by rows
            contents = draw.standard_normal(shape) / (np.sqrt(few) if len(shape) > 1 else 4)
            kind = onnx.helper.tensor_dtype_to_np_dtype(declared.type.tensor_type.elem_type)
            tensor = ir.tensor(contents.astype(kind), name=declared.name)
            made.graph.initializer.append(ir.serde.serialize_tensor(tensor))
    return load(made).model


def images(*shape: int, count: int = 40, seed: int = 1) -> dict[str, Array]:
    """Samples of an input x."""
    return {"x": np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)}


@dataclass(frozen=True)
class Placed:
    """A model with quantizers, and what led to it."""

    model: ir.Model
    layout: Layout
    ranges: Mapping[int, Ranged]
    weights: Mapping[str, Rounded]


def placed(model: ir.Model, target: Integers, samples: Feed, *, skip: Container[str] = (), bits: int = 8) -> Placed:
    """The model on integers, with every region that can be."""
    plan = layout(model, target, skip)
    ranges = grids(plan, observe(model, plan.values, samples), "mse", unsigned=target.unsigned)
    made = weights(model, plan, ranges, samples, bits=bits)
    return Placed(
        assembled(model, plan, ranges, made, integer_bias=target.bias, passed=target.passed), plan, ranges, made
    )


def noise(model: ir.Model, other: ir.Model, feed: Feed) -> float:
    """What the outputs of two models differ by, as a part of what the first one's vary; both are checked on the way."""
    found = list[dict[str, Any]]()
    for each in (model, other):
        content = serialize(each, Carried())
        onnx.checker.check_model(content, full_check=True)
        found.append(Session(content).run(feed))
    first, second = found
    assert list(first) == list(second)
    assert all(first[n].dtype == second[n].dtype and first[n].shape == second[n].shape for n in first)
    gap = sum(np.sum(np.square(first[n] - second[n], dtype=np.float64)) for n in first)
    return float(gap / sum(np.sum(np.square(first[n] - first[n].mean(), dtype=np.float64)) for n in first))
