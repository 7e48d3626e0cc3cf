"""Channels of one range: what scaling them took from int8 comes back, and what needs nothing stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import graphopt
from graphopt.analysis.factors import scalable
from graphopt.analysis.facts import extents
from graphopt.compress.integers.equalize import Equalized, equalized
from graphopt.compress.integers.quantize import Quantize
from graphopt.graph.carry import Carried
from graphopt.graph.save import serialize
from graphopt.report import words
from tests.compress.integers.test_region import ON_CPU, ON_TENSORRT
from tests.support.integers import filled, images, noise, placed

NET = """g (float[N,4,8,8] x) => (float[N,5,6,6] y)
    <float[8,4,1,1] w0, float[8] b0, float[8,1,3,3] w1, float[8] b1, float[5,8,1,1] w2, float[5] b2> {
    [wide] a = Conv(x, w0, b0) b = Relu(a) [deep] c = Conv<group=8>(b, w1, b1)
    d = LeakyRelu<alpha=0.2>(c) [last] y = Conv(d, w2, b2) }"""
TOKENS = """g (float[N,6,16] x) => (float[N,6,12] y)
    <float[16] s, float[16] t, float[16,12] m1, float[16,12] m2, float[12] b1> {
    n = LayerNormalization<axis=-1>(x, s, t)
    [first] p = MatMul(n, m1) q = Add(p, b1) [second] r = MatMul(n, m2) u = Tanh(q) y = Add(u, r) }"""
SHAPES = {NET: (4, 8, 8), TOKENS: (6, 16)}


def spread(text: str, extent: int) -> tuple[ir.Model, ir.Model]:
    """A model, and one that computes the same with channels of very different ranges."""
    model, draw = filled(text), np.random.default_rng(5)
    found = scalable(model, extents(model, images(*SHAPES[text], count=1)))
    factors = draw.integers(-extent, extent + 1, sum(map(len, found.groups))).astype(np.float64)
    return model, found.scaled(model, np.exp2(factors))


def even(model: ir.Model, text: str, target: Any = ON_CPU, **form: Any) -> Equalized:
    return equalized(model, target, Quantize(**form), images(*SHAPES[text], count=64))


@pytest.mark.parametrize("target", [ON_CPU, ON_TENSORRT], ids=["cpu", "tensorrt"])
@pytest.mark.parametrize("text", SHAPES, ids=["convolutions", "normalization"])
def test_what_is_lost_to_ranges_comes_back(text: str, target: Any) -> None:
    plain, scaled = spread(text, 4)
    samples, feed = images(*SHAPES[text], count=64), images(*SHAPES[text], count=32, seed=9)
    made = even(scaled, text, target)
    at_first, before, after = (
        noise(plain, placed(m, target, samples).model, feed) for m in (plain, scaled, made.model)
    )
    assert before > 10 * at_first
    assert after < 1.6 * at_first
    assert made.gain > 8
    assert all(g.gain > 3 and g.spread > 16 for g in made.groups)
    assert noise(scaled, made.model, feed) < 1e-11


def test_what_is_even_stays() -> None:
    first = even(spread(NET, 4)[1], NET).model
    again = even(first, NET)
    assert again.model is first
    assert (again.groups, again.gain) == ((), 0.0)


def test_a_clipping_is_left_alone() -> None:
    text = NET.replace("b = Relu(a)", "b = Clip(a, low, high)")
    text = text.replace("float[5] b2>", "float[5] b2, float low = {0}, float high = {6}>")
    model = filled(text)
    found = scalable(model, extents(model, images(4, 8, 8, count=1)))
    assert (found.sources["deep"] == -1).all()


def test_it_is_told_and_can_be_left_out(tmp_path: Path) -> None:
    _, scaled = spread(NET, 4)
    data = tmp_path / "data.npz"
    np.savez(data, x=images(4, 8, 8, count=80)["x"])
    content = tmp_path / "model.onnx"
    content.write_bytes(serialize(scaled, Carried()))
    told = []
    for form in ("quantize", "quantize{equalize=false}"):
        result = graphopt.optimize(str(content), target="openvino", data=str(data), passes=[form], threads=1)
        assert result.report.integers is not None
        told.append(result.report)
    first, second = (r.integers for r in told)
    assert first is not None
    assert second is not None
    assert {k for g in first.evened for k in g.products} == {"deep", "last"}
    assert any("brought to one range" in line for line in words.integers(first))
    assert second.evened == ()
    assert told[0].verification.metrics["sqnr"][1] > told[1].verification.metrics["sqnr"][1] + 6  # type: ignore[union-attr]
