"""Zeros of either sign, put into every operator that is said not to tell them apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from graphopt import ops
from graphopt.ops.zeros import _CARRIES, _HIDES, _SUMS, seen_signs
from tests.properties.examples import examples
from tests.properties.single import Example

_NAMES = _CARRIES | _HIDES | _SUMS
EVERY = list(examples())
NAMED = [e for e in EVERY if not e.domain and e.op in _NAMES and ops.is_pure(e.model().graph[0], {})]


def with_zeros(example: Example, sign: float) -> list[Any]:
    """The outputs where a third of the elements of the first input are zeros, if it has floats."""
    first = np.array(example.arrays[0])
    first.reshape(-1)[::3] = np.copysign(0.0, sign)
    return list(replace(example, inputs=(first, *example.inputs[1:])).run())


@pytest.mark.parametrize("example", NAMED, ids=str)
def test_the_sign_of_a_zero_changes_no_number(example: Example) -> None:
    if np.asarray(example.arrays[0]).dtype.kind != "f":
        return
    for positive, negative in zip(with_zeros(example, 1.0), with_zeros(example, -1.0), strict=True):
        if positive.dtype.kind == "f":
            np.testing.assert_array_equal(positive, negative)
            if example.op in _HIDES:
                assert positive.tobytes() == negative.tobytes()


def test_every_name_is_one_of_the_table() -> None:
    assert {op for domain, op in ops.known() if not domain} >= _NAMES
    assert len(_NAMES) == len(_CARRIES) + len(_HIDES) + len(_SUMS)


def test_a_body_that_divides_keeps_signs_of_what_it_reads() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x, bool c) => (float[2] y) { a = Neg (x)'
        " y = If (c) <then_branch = t () => (float[2] p) { p = Reciprocal (a) },"
        " else_branch = e () => (float[2] q) { q = Abs (x) }> }"
    )
    assert {v.name for v in seen_signs(model)} >= {"a", "x"}
