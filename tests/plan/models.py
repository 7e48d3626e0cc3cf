"""Small models to plan for: convolutions or products one behind the other, with Relu in between."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.analysis.groups import Channels
from graphopt.graph import values
from graphopt.graph.nodes import name_keys

from .chain import chain

__all__ = ["counted", "samples", "stack"]


def stack(widths: Sequence[int], op: str = "Conv", seed: int = 0) -> tuple[ir.Model, Channels]:
    """p0 → Relu → p1 → … with random weights; Conv is 3x3 on images of 6x6, the last one averaged to scores."""
    random = np.random.default_rng(seed)
    shape = "N, {}, 6, 6" if op == "Conv" else "N, {}"
    body, constants, read = list[str](), dict[str, np.ndarray](), "x"
    for i, (source, result) in enumerate(pairwise(widths)):
        dims = (result, source, 3, 3) if op == "Conv" else (source, result)
        constants[f"w{i}"] = (random.standard_normal(dims) / np.sqrt(source * 4)).astype(np.float32)
        constants[f"b{i}"] = (random.standard_normal(result) / 4).astype(np.float32)
        operands = f"{read}, w{i}" if op == "MatMul" else f"{read}, w{i}, b{i}"
        said = "<pads = [1, 1, 1, 1]>" if op == "Conv" else ""
        last = i == len(widths) - 2
        made = f"z{i}" if not last or op == "Conv" else "y"
        body.append(f"{made} = {op}{said}({operands})")
        if not last:
            body.append(f"r{i} = Relu({made})")
            read = f"r{i}"
        elif op == "Conv":
            body.append(f"y = ReduceMean<axes = [2, 3], keepdims = 0>({made})")
    text = (
        '<ir_version: 8, opset_import: ["" : 13]> '
        f"g (float[{shape.format(widths[0])}] x) => (float[N, {widths[-1]}] y) "
        "{ " + "; ".join(body).replace("; ", "\n") + " }"
    )
    used = set(constants) if op != "MatMul" else {n for n in constants if n.startswith("w")}
    inputs = ", ".join(f"float[{', '.join(map(str, c.shape))}] {n}" for n, c in constants.items() if n in used)
    model = ir.from_onnx_text(text.replace("] x)", f"] x, {inputs})"))
    for name in used:
        value = next(v for v in model.graph.inputs if v.name == name)
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(constants[name], name=name)
        model.graph.register_initializer(value)
    number = 0
    for node in model.graph:
        node.name = f"p{number}" if node.op_type == op else f"{node.op_type}_{number}"
        number += node.op_type == op
    name_keys(model)
    values.follow(model)
    work = [36 * 9] * (len(widths) - 1) if op == "Conv" else None
    return model, chain(widths, work)


def samples(model: ir.Model, count: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Inputs with few dimensions of their own, so that units are redundant."""
    random = np.random.default_rng(seed)
    x = model.graph.inputs[0]
    assert x.shape is not None
    dims = [d for d in x.shape if isinstance(d, int)]
    mixed = random.standard_normal((count, 3)) @ np.random.default_rng(0).standard_normal((3, int(np.prod(dims))))
    return {str(x.name): mixed.reshape(count, *dims).astype(np.float32)}


def counted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[str]:
    """A list that grows with each call of a function of a class or module."""
    calls: list[str] = []
    function = getattr(owner, name)

    def call(*args: Any, **options: Any) -> Any:
        calls.append(name)
        return function(*args, **options)

    monkeypatch.setattr(owner, name, call)
    return calls
