"""Noise on the inputs: as large as it is said to be, the same for both models, and only on floats."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graphopt.analysis.robustness import LEVELS, Noisy, noisy
from graphopt.run.machine import Machine

X = 3 * np.random.default_rng(0).standard_normal((4000, 3)).astype(np.float32) + 7
TEXT = '<ir_version: 10, opset_import: ["" : 21]> g ({}) => (float[n, 3] y) {{ {} }}'


def model(body: str, inputs: str = "float[n, 3] x") -> bytes:
    return onnx.parser.parse_model(TEXT.format(inputs, body)).SerializeToString()


SAME = model("y = Identity(x)")


def run(
    original: bytes, result: bytes, feed: dict[str, np.ndarray], labels: np.ndarray | None = None
) -> tuple[Noisy, ...]:
    return noisy(original, result, [(feed, labels)], len(X), Machine(threads=1))


def test_noise_is_as_large_as_it_is_said_to_be_and_the_same_for_both() -> None:
    found = run(SAME, SAME, {"x": X})
    assert [n.level for n in found] == list(LEVELS)
    power = float(np.mean(X.astype(np.float64) ** 2))
    for one in found[1:]:
        before, after = one.metrics["sqnr"]
        assert before == after
        assert before == pytest.approx(10 * np.log10(power / (one.level * X.std()) ** 2), abs=0.1)
    assert found[0].metrics["sqnr"] == (np.inf, np.inf)


def test_both_are_held_against_the_original_without_noise() -> None:
    clean, *_, worst = run(SAME, model("y = Neg(x)"), {"x": X}, X.argmax(axis=1))
    assert clean.metrics["accuracy"][0] == clean.metrics["agreement"][0] == 1.0
    assert clean.metrics["accuracy"][1] == float(np.mean(X.argmax(axis=1) == X.argmin(axis=1)))
    assert 0.5 < worst.metrics["agreement"][0] < 1.0


def test_what_is_not_finite_counts_for_nothing() -> None:
    odd = X.copy()
    odd[0, 0] = np.inf
    odd[1, 1] = np.nan
    found = run(SAME, SAME, {"x": odd})
    assert found[2].metrics["sqnr"][0] == pytest.approx(run(SAME, SAME, {"x": X})[2].metrics["sqnr"][0], abs=0.1)


def test_without_floats_that_vary_there_is_none() -> None:
    whole = model("y = Cast<to = 1>(x)", "int64[n, 3] x")
    assert run(whole, whole, {"x": X.astype(np.int64)}) == ()
    assert run(SAME, SAME, {"x": np.ones_like(X)}) == ()


def test_integers_stay_beside_floats() -> None:
    both = model("i = Cast<to = 1>(k)  s = Mul(x, i)  y = Add(s, i)", "float[n, 3] x, int64[n, 3] k")
    zero = np.zeros((len(X), 3), np.int64)
    assert all(n.metrics.keys() == {"agreement"} for n in run(both, both, {"x": X, "k": zero}))
