"""Models as text, and what tests do with them: feed, run, rewrite, print."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx.printer
from numpy.typing import NDArray

from graphopt.graph.edit import Editor
from graphopt.graph.load import Source, load
from graphopt.graph.record import Edit
from graphopt.graph.save import serialize
from graphopt.protocol import Context, Evaluator, Ledger, Miss, NotEvaluated, Pass
from graphopt.run.child import Child, ChildFailed
from graphopt.run.session import Feed, Session
from graphopt.targets import TARGETS

HEADER = '<ir_version: 10, opset_import: ["" : 21]>'
MOST_ROUNDS = 8


def parse(text: str) -> onnx.ModelProto:
    """A model from ONNX's text format; a text without a header gets a usual one."""
    text = text.strip()
    return onnx.parser.parse_model(text if text.startswith("<") else f"{HEADER}\n{text}")


def source(text: str) -> Source:
    return load(parse(text))


def show(model: onnx.ModelProto) -> str:
    """The model as text that `parse` reads, one node or constant on a line."""
    lines = onnx.printer.to_text(model).splitlines()
    body = next(i for i, line in enumerate(lines) if line.startswith(">"))
    head = f"<{' '.join(line.strip() for line in lines[1:body])}>"
    rest = [line.replace("   ", "  ").replace(" =  {", " = {").rstrip() for line in lines[body + 1 :]]
    return "\n".join(rest if head == HEADER else [head, *rest])


def evaluator(child: Child) -> Evaluator:
    """Folding's evaluator on a child process."""

    def evaluate(model: bytes) -> dict[str, NDArray[Any]]:
        try:
            return child.evaluate(model)
        except ChildFailed as failure:
            raise NotEvaluated(str(failure)) from None

    return evaluate


def cannot_evaluate(_model: bytes) -> dict[str, NDArray[Any]]:
    raise NotEvaluated("nothing is evaluated in this test")


@dataclass(frozen=True)
class Rewritten:
    """What passes made of a model."""

    model: onnx.ModelProto
    edits: tuple[Edit, ...]
    misses: tuple[Miss, ...]


def rewritten(
    given: Source,
    passes: Iterable[Pass],
    evaluate: Evaluator = cannot_evaluate,
    *,
    growth: int = 0,
    target: str = "portable",
    fast_math: bool = False,
    editor: Callable[..., Editor] = Editor,
) -> Rewritten:
    """Run passes over a copy of the model until a round changes nothing."""
    edit, steps = editor(given.model.clone()), tuple(passes)
    ctx = Context(evaluate, Ledger(growth, growth), TARGETS[target], fast_math)
    for _ in range(MOST_ROUNDS):
        before = len(edit.edits)
        ctx.misses.clear()
        for step in steps:
            step.run(edit, ctx)
        if len(edit.edits) == before:
            break
    else:
        raise AssertionError(f"{MOST_ROUNDS} rounds were not enough")
    result = onnx.ModelProto.FromString(serialize(edit.model, given.carried))
    return Rewritten(result, tuple(edit.edits), tuple(ctx.misses))


# -- running ---------------------------------------------------------------------------------------------------------

EDGES = (np.nan, np.inf, -np.inf, -0.0, 0.0)


def feed(model: onnx.ModelProto, dims: Mapping[str, int], *, seed: int = 0, edges: bool = False) -> Feed:
    """Values for every input that has to be fed.

    Args:
        model: the model.
        dims: extents of symbolic dimensions, by name.
        seed: of the numbers.
        edges: put not-a-numbers, infinities and zeros of both signs among floats.
    """
    given = {t.name for t in model.graph.initializer}
    return {i.name: value(i, dims, seed=seed, edges=edges) for i in model.graph.input if i.name not in given}


def overrides(model: onnx.ModelProto, dims: Mapping[str, int], *, seed: int = 0) -> Feed:
    """Values for the initializers that a feed may override."""
    given = {t.name for t in model.graph.initializer}
    return {i.name: value(i, dims, seed=seed) for i in model.graph.input if i.name in given}


def value(
    info: onnx.ValueInfoProto, dims: Mapping[str, int], *, seed: int = 0, edges: bool = False
) -> NDArray[Any] | list[NDArray[Any]]:
    draw = np.random.default_rng([seed, zlib.crc32(info.name.encode())])
    if info.type.HasField("sequence_type"):
        item = onnx.ValueInfoProto(name=info.name, type=info.type.sequence_type.elem_type)
        return [np.asarray(value(item, dims, seed=seed + k)) for k in range(2)]
    kind = info.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else dims[d.dim_param] for d in kind.shape.dim)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    if dtype.kind == "O":
        return np.array([f"text {k}" for k in range(int(np.prod(shape)))], object).reshape(shape)
    if dtype.kind == "b":
        return np.asarray(draw.integers(0, 2, shape)).astype(dtype)
    if dtype.kind in "iu":
        return np.asarray(draw.integers(0, 2, shape)).astype(dtype)
    made = np.asarray(draw.standard_normal(shape)).astype(dtype)
    if edges:
        flat = made.reshape(-1)
        flat[: len(EDGES)] = draw.permutation(EDGES)[: flat.size]
    return made


def run(model: onnx.ModelProto | bytes, given: Feed) -> dict[str, Any]:
    """The outputs, computed with the runtime's optimizations off."""
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return Session(content, optimize=False, threads=1).run(given)


def differences(left: Mapping[str, Any], right: Mapping[str, Any], *, relative: float = 0.0) -> list[str]:
    """What differs between two results: bit for bit, or by more than a part of each output's scale."""
    found = [f"outputs {list(left)} and {list(right)}"] if list(left) != list(right) else []
    for name in left.keys() & right.keys():
        for a, b in zip(_tensors(left[name]), _tensors(right[name]), strict=True):
            if a.dtype != b.dtype or a.shape != b.shape:
                found.append(f"{name}: {a.dtype}{a.shape} and {b.dtype}{b.shape}")
            elif not _equal(a, b, relative):
                found.append(f"{name}: {a} and {b}")
    return found


def _tensors(result: Any) -> Sequence[NDArray[Any]]:
    return [np.asarray(r) for r in result] if isinstance(result, list) else [np.asarray(result)]


def _equal(a: NDArray[Any], b: NDArray[Any], relative: float) -> bool:
    if a.dtype.kind == "V":  # bfloat16 and float8
        a, b = a.astype(np.float32), b.astype(np.float32)
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    if not relative:
        both_nan = np.isnan(a) & np.isnan(b)
        same = (a == b) & (np.signbit(a) == np.signbit(b))
        return bool(np.all(same | both_nan))
    finite = np.isfinite(a)
    scale = float(np.max(np.abs(a[finite]), initial=1e-30))
    unequal = ~np.isclose(a, b, rtol=0, atol=relative * scale, equal_nan=True)
    return not unequal.any()
