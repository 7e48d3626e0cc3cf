"""Every valid case comes out as the same function, with everything that belongs to others untouched."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import graphopt
from graphopt import pipeline
from graphopt.graph.record import Exactness
from graphopt.run import feeds as generated
from graphopt.run.child import Child
from graphopt.run.session import Feed
from tests.corpus import valid_interface, valid_rules, valid_structure, valid_types
from tests.corpus.case import Place, Valid
from tests.support.models import run

FAMILIES = (valid_interface, valid_types, valid_rules, valid_structure)
CASES = [case for family in FAMILIES for case in family.CASES]
WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "unverified": {"unverified": True},
    "opset": {"opset": 21},
    "cpu": {"target": "cpu"},
}
_SAMPLED = 4
"""Every so many cases are tried in each run of the tests, and the others with `-m soak`."""
EDGES = (np.nan, np.inf, -np.inf, -0.0, 0.0)
_SHAPES = {"interface_overridable_shape"}
"""Where an override has to be a shape, and not any numbers."""
FAILING: dict[str, str] = {}
"""Cases, or cases and ways, that are known to fail, and why."""


class _Lasting(Child):
    """A child process that outlives its user: most of these graphs take less time than to start one."""

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True, scope="module")
def children() -> Iterator[None]:
    """One child process for all models, and one for all feeds."""
    with pytest.MonkeyPatch.context() as patch:
        made: dict[object, _Lasting] = {}

        def child(limits: Any = None) -> _Lasting:
            return made.setdefault("feeds" if limits else "folds", _Lasting(limits))

        patch.setattr(pipeline, "Child", child)
        patch.setattr(generated, "Child", child)
        yield
        for each in made.values():
            each.close()


def _ways(number: int, case: Valid) -> list[str]:
    """Default for all, and the other three in turn for one in three."""
    if not case.runs:
        return ["unverified"]
    opset = next((o.version for o in case.model().opset_import if not o.domain), 99)
    return [
        "default",
        *(w for i, w in enumerate(("unverified", "opset", "cpu")) if number % 3 == i and (w != "opset" or opset < 21)),
    ]


def _parameters() -> Iterator[Any]:
    for number, case in enumerate(CASES):
        for way in _ways(number, case):
            name = case.name if way == "default" else f"{case.name}-{way}"
            reason = FAILING.get(name)
            marks = [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
            if number % _SAMPLED:
                marks.append(pytest.mark.soak)  # all of them take minutes
            yield pytest.param(case, way, id=name, marks=marks)


@pytest.mark.parametrize(("case", "way"), list(_parameters()))
def test_valid(case: Valid, way: str, tmp_path: Path) -> None:
    place = Place(tmp_path).made()
    path, out = case_file(case, place), place.inner / "out.onnx"
    source = onnx.ModelProto.FromString(path.read_bytes())
    result = graphopt.optimize(path, device="cpu", threads=1, **WAYS[way])
    result.save(out)
    made = onnx.ModelProto.FromString(out.read_bytes())
    assert not result.outcome.left_out, result.outcome.left_out
    assert "would differ" not in (result.outcome.unchanged or ""), result.outcome.unchanged
    assert_same_interface(source, made, raised=way in {"opset", "cpu"})
    if not case.runs:
        assert made.graph.SerializeToString(deterministic=True) == source.graph.SerializeToString(deterministic=True)
        assert list(made.functions) == list(source.functions)
        return
    if case.random:
        assert _draws(made) == _draws(source)
        return
    rounded = any(e.exactness >= Exactness.ROUNDING for e in result.outcome.attempt.edits)
    for seed in range(4):
        feed = feed_of(source, case, seed)
        assert_same(run(source, feed), run(made, feed), case.relative if rounded else 0.0)


def case_file(case: Valid, place: Place) -> Path:
    place.model.write_bytes(case.model().SerializeToString())
    return place.model


def assert_same_interface(source: onnx.ModelProto, made: onnx.ModelProto, *, raised: bool) -> None:
    given = {t.name for t in source.graph.initializer} if source.ir_version < 4 else set()
    kept = [i for i in source.graph.input if i.name not in given]
    assert list(made.graph.input) == kept
    assert list(made.graph.output) == list(source.graph.output)
    inputs = {i.name for i in kept}
    before, after = ({t.name: t for t in m.graph.initializer if t.name in inputs} for m in (source, made))
    assert before == after
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        assert getattr(made, field) == getattr(source, field), field
    theirs = [p for p in made.metadata_props if not p.key.startswith("graphopt.")]
    assert sorted(map(str, theirs)) == sorted(map(str, source.metadata_props))
    assert list(made.training_info) == list(source.training_info)
    assert list(made.graph.quantization_annotation) == list(source.graph.quantization_annotation)
    assert list(made.graph.sparse_initializer) == list(source.graph.sparse_initializer)
    assert (made.graph.name, made.graph.doc_string) == (source.graph.name, source.graph.doc_string)
    versions = [{o.domain: o.version for o in m.opset_import if not o.domain} for m in (source, made)]
    if not raised:
        assert versions[0] == versions[1]
        assert made.ir_version == max(source.ir_version, 4)


def _draws(model: onnx.ModelProto) -> list[str]:
    """The operators of chance, wherever they are."""
    found, pending = [], [model.graph]
    while pending:
        for node in pending.pop().node:
            if node.op_type.startswith(("Random", "Bernoulli", "Multinomial", "Dropout")):
                found.append(node.op_type)
            pending.extend(a.g for a in node.attribute if a.HasField("g"))
    return sorted(found)


def feed_of(model: onnx.ModelProto, case: Valid, seed: int) -> Feed:
    """Feeds number 0 to 3: at two bindings of dimensions, first ordinary ones, then those with extreme values."""
    given = {t.name for t in (*model.graph.initializer, *(s.values for s in model.graph.sparse_initializer))}
    overridden = seed == 1 and model.ir_version >= 4 and case.name not in _SHAPES
    dims = {name: extents[seed % 2] for name, extents in case.dims.items()}
    ports = [i for i in model.graph.input if i.name not in given or overridden]
    return {
        i.name: _value(
            i.type,
            dims,
            case,
            np.random.default_rng([seed, zlib.crc32(i.name.encode())]),
            extreme=seed > 1 and case.edges,
        )
        for i in ports
    }


def _value(kind: onnx.TypeProto, dims: dict[str, int], case: Valid, draw: np.random.Generator, *, extreme: bool) -> Any:
    if kind.HasField("sequence_type"):
        return [_value(kind.sequence_type.elem_type, dims, case, draw, extreme=extreme) for _ in range(2)]
    shape = [d.dim_value if d.HasField("dim_value") else dims.get(d.dim_param, 2) for d in kind.tensor_type.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type)
    if dtype.kind == "O":
        return np.array([f"text {k}" for k in range(int(np.prod(shape)))], object).reshape(shape)
    if dtype.kind == "b":
        return np.asarray(draw.integers(0, 2, shape)).astype(dtype)
    if dtype.kind in "iu":
        return np.asarray(draw.integers(case.low, case.high, shape)).astype(dtype)
    made = np.asarray(draw.standard_normal(shape)).astype(dtype)
    if extreme:
        flat = made.reshape(-1)
        largest = [65504.0] if dtype.itemsize == 2 else [float(np.finfo(dtype).max), float(np.finfo(dtype).tiny)]
        flat[: len(EDGES) + len(largest)] = draw.permutation([*EDGES, *largest]).astype(dtype)[: flat.size]
    return made


def _flat(value: Any) -> np.ndarray:
    """Of a map, its keys and values."""
    return np.array(list(value.items())) if isinstance(value, dict) else np.asarray(value)


def assert_same(expected: dict[str, Any], found: dict[str, Any], relative: float) -> None:
    assert list(expected) == list(found)
    for name, value in expected.items():
        other = found[name]
        pairs = zip(value, other, strict=True) if isinstance(value, list) else [(value, other)]
        for a, b in ((_flat(p), _flat(q)) for p, q in pairs):
            assert (a.dtype, a.shape) == (b.dtype, b.shape), name
            if a.dtype.kind in "biuO":
                np.testing.assert_array_equal(a, b, name)
                continue
            wide = np.complex128 if a.dtype.kind == "c" else np.float64
            with np.errstate(invalid="ignore"):  # not-a-numbers that signal
                left, right = a.astype(wide), b.astype(wide)
            if not relative:
                same = (left == right) & (np.signbit(left.real) == np.signbit(right.real))
                assert np.all(same | (np.isnan(left) & np.isnan(right))), f"{name}: {a} is not {b}"
                continue
            finite = np.isfinite(left)
            scale = float(np.max(np.abs(left[finite]), initial=1e-30))
            assert np.allclose(right, left, rtol=relative, atol=relative * min(scale, 1e3), equal_nan=True), (
                f"{name}: {a} is not {b}"
            )
