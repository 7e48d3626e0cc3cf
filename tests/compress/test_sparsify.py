"""Sparse weights through a whole model: the masks are those that were asked for, and the fit pays."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from graphopt import ops
from graphopt.compress.sparsify import Sparsify, sparsify
from graphopt.errors import UsageError
from graphopt.graph.carry import Carried
from graphopt.graph.nodes import key
from graphopt.graph.save import serialize
from graphopt.run.session import Session
from tests.compress.test_compress import data as images
from tests.compress.test_compress import error, residual
from tests.support.models import source

Array = NDArray[Any]


def weights(model: ir.Model) -> dict[str, ops.Linear]:
    return {key(n): linear for n in model.graph for linear in ops.linears(n)}


def many_kinds() -> ir.Model:
    """A plain, a grouped, a depthwise and a transposed convolution, and a product of matrices."""
    random = np.random.default_rng(0)
    shapes = {"wa": (8, 3, 3, 3), "wb": (12, 4, 3, 3), "wc": (12, 1, 3, 3), "wd": (12, 8, 2, 2), "we": (8, 10)}
    declared = ", ".join(
        f"float[{','.join(map(str, s))}] {n} = {{{','.join(f'{v:.4f}' for v in random.standard_normal(s).ravel())}}}"
        for n, s in shapes.items()
    )
    return source(
        f"""<ir_version: 10, opset_import: ["" : 21]> g (float[N,3,8,8] x) => (float[N,6,6,10] y)
        <{declared}, int64[4] p = {{0, 2, 3, 1}}> {{
            [plain] a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, wa)
            ra = Relu(a)
            [grouped] b = Conv<kernel_shape=[3,3], group=2>(ra, wb)
            rb = Relu(b)
            [depthwise] c = Conv<kernel_shape=[3,3], group=12, strides=[2,2], pads=[1,1,1,1]>(rb, wc)
            [transposed] d = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(c, wd)
            rd = Relu(d)
            t = Transpose<perm=[0,2,3,1]>(rd)
            [matrix] y = MatMul(t, we)
        }}"""
    ).model


def feed(count: int = 60, seed: int = 1) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)}


def difference(model: ir.Model, other: ir.Model) -> float:
    fresh = feed(seed=2)
    first, second = (Session(serialize(m, Carried())).run(fresh)["y"] for m in (model, other))
    return float(np.mean((first - second) ** 2) / np.var(first))


@pytest.mark.parametrize("by", ["obs", "magnitude"])
@pytest.mark.parametrize(("pattern", "count", "among"), [("2:4", 2, 4), ("1:2", 1, 2), ("1:4", 1, 4), ("3:4", 3, 4)])
def test_of_every_few_input_channels_so_many_stay(by: str, pattern: str, count: int, among: int) -> None:
    model = many_kinds()
    result = sparsify(model, Sparsify(pattern=pattern, by=by), feed())
    found = weights(result.model)
    for name, channels, axis in (("grouped", 4, 1), ("transposed", 12, 0), ("matrix", 8, 0)):
        tensor = np.moveaxis(found[name].weights, axis, -1)
        assert tensor.shape[-1] == channels
        groups = tensor.reshape(-1, channels // among, among)
        assert np.all(np.count_nonzero(groups, axis=-1) == count), name
    told = {s.key: s for s in result.sparse}
    assert told["plain"].form == f"its 3 input channels are no multiple of {among}"
    assert told["depthwise"].form == "it is depthwise"
    assert not told["plain"].zeros
    assert told["matrix"].zeros == 80 * (among - count) // among
    assert np.all(found["plain"].weights == weights(model)["plain"].weights)


@pytest.mark.parametrize("share", [0.3, 0.75])
def test_a_share_is_of_all_weights(share: float) -> None:
    result = sparsify(many_kinds(), Sparsify(share=share), feed())
    found = weights(result.model)
    of = [s for s in result.sparse if s.key != "depthwise"]
    total = sum(s.weights for s in of)
    assert abs(sum(s.zeros for s in of) - share * total) <= len(of)
    assert {s.key: s.zeros for s in of} == {s.key: int(np.sum(found[s.key].weights == 0)) for s in of}
    assert len({round(s.zeros / s.weights, 2) for s in of}) > 1, "some products can do without more than others"


def test_by_magnitude_each_product_loses_the_same_part() -> None:
    model = many_kinds()
    result = sparsify(model, Sparsify(share=0.5, by="magnitude", refit=False), feed())
    for name, linear in weights(model).items():
        after = weights(result.model)[name].weights
        if name == "depthwise":
            assert np.array_equal(after, linear.weights)
            continue
        gone = after == 0
        assert np.sum(gone) == round(0.5 * after.size)
        assert np.array_equal(after[~gone], linear.weights[~gone])
        assert np.abs(linear.weights[gone]).max() <= np.abs(linear.weights[~gone]).min()


def test_below_a_threshold_all_go_and_no_others() -> None:
    model = many_kinds()
    result = sparsify(model, Sparsify(threshold=0.4), feed())
    for name, linear in weights(model).items():
        if name != "depthwise":
            assert np.array_equal(weights(result.model)[name].weights == 0, np.abs(linear.weights) < 0.4), name


def test_what_is_skipped_stays_as_it_is() -> None:
    model = many_kinds()
    result = sparsify(model, Sparsify(share=0.5), feed(), skip=["matrix", "depthwise"])
    for name in ("matrix", "depthwise"):
        assert np.array_equal(weights(result.model)[name].weights, weights(model)[name].weights)
    assert [s.form for s in result.sparse if s.key in {"matrix", "depthwise"}] == ["it is skipped"] * 2


@pytest.mark.parametrize(
    "form", [{"share": 0.6}, {"pattern": "2:4"}, {"threshold": 0.5}, {"share": 0.6, "by": "magnitude"}]
)
def test_refitting_pays_on_data_that_was_not_seen(form: dict[str, Any]) -> None:
    model = many_kinds()
    plain, fitted = (sparsify(model, Sparsify(**form, refit=refit), feed()) for refit in (False, True))
    assert difference(model, fitted.model) < 0.7 * difference(model, plain.model)
    assert all(s.after <= s.before for s in fitted.sparse)


def test_cost_is_a_better_choice_than_magnitude() -> None:
    model, _ = residual()
    by = {
        way: error(model, sparsify(model, Sparsify(share=0.6, by=way), images()).model) for way in ("obs", "magnitude")
    }
    assert by["obs"] < 0.8 * by["magnitude"]


def test_the_model_that_was_given_stays_and_the_result_is_the_same_again() -> None:
    model = many_kinds()
    before = serialize(model, Carried())
    first, second = (sparsify(model, Sparsify(share=0.5), feed()).model for _ in range(2))
    assert serialize(model, Carried()) == before
    assert serialize(first, Carried()) == serialize(second, Carried()) != before


def test_values_that_are_not_finite_teach_nothing() -> None:
    given = feed()
    given["x"][3] = np.nan
    result = sparsify(many_kinds(), Sparsify(share=0.5), given)
    assert {s.form for s in result.sparse} == {"its values are not finite", "it is depthwise"}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "takes one of share, threshold and pattern: give one, as in"),
        ({"share": 0.5, "pattern": "2:4"}, "give one, not share and pattern"),
        ({"share": 1.5}, "share=1.5} is no share: give a number above 0 and below 1"),
        ({"share": -0.5}, "is no share"),
        ({"share": float("nan")}, "is no share"),
        ({"threshold": -1.0}, "give a finite number above 0"),
        ({"threshold": float("inf")}, "give a finite number above 0"),
        ({"pattern": "4:2"}, "'4:2' is no pattern of zeros: write N:M"),
        ({"pattern": "4:4"}, "is no pattern"),
        ({"pattern": "0:4"}, "is no pattern"),
        ({"pattern": "half"}, "is no pattern"),
        ({"share": 0.5, "by": "luck"}, "cannot choose by 'luck': give one of obs, magnitude"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        Sparsify(**fields)
    assert sentence in str(caught.value)
