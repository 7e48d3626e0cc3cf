from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from graphopt.analysis import moments
from graphopt.analysis.moments import Key, Moment, collect, gather, mirror, products
from graphopt.analysis.places import sampled
from graphopt.errors import InputError
from graphopt.graph.carry import Carried
from graphopt.graph.parts import part
from graphopt.graph.save import runnable
from graphopt.run.machine import Machine, news
from graphopt.run.session import Session
from tests.plan.models import counted, samples, stack
from tests.support.models import source

Array = NDArray[Any]


def read(model: ir.Model, value: str, feed: dict[str, Any]) -> Array:
    """A value inside of a model."""
    return np.asarray(Session(runnable(part(model, ["x"], [value]), Carried())).run(feed)[value])


def found(model: ir.Model, wanted: Iterable[Key], given: Any, **limits: Any) -> dict[Key, Moment]:
    return dict(collect(model, wanted, given, Machine(**limits)))


@pytest.mark.parametrize("op", ["Conv", "Gemm", "MatMul"])
def test_moments_are_those_of_the_unfolded_input(op: str) -> None:
    model, _ = stack([3, 6, 4, 2], op)
    given = samples(model, 100)
    made = found(model, [("p1", 0), ("p9", 0)], given)
    assert set(made) == {("p1", 0)}
    linear, moment = products(model)["p1", 0], made["p1", 0]
    x = linear.unfold(read(model, "r0", given)).astype(np.float64)
    y = linear.rows(read(model, "z1", given)).reshape(linear.channels, -1)
    assert (moment.kind, moment.rows) == ("full", x.shape[-1])
    assert np.allclose(moment.mean, x.mean(axis=-1), atol=1e-6)
    assert np.allclose(moment.gram, x @ x.transpose(0, 2, 1) / x.shape[-1], atol=1e-5)
    assert moment.variance == pytest.approx(y.var(axis=1).sum(), rel=1e-5)


def test_groups_of_a_convolution_are_apart() -> None:
    x = np.random.default_rng(0).standard_normal((80, 4, 5, 5)).astype(np.float32)
    weight = ", ".join(f"{v:.3f}" for v in np.random.default_rng(1).standard_normal(6 * 2 * 9))
    model = source(
        f"""<ir_version: 10, opset_import: ["" : 21]> g (float[N,4,5,5] x) => (float[N,6,3,3] y)
        <float[6,2,3,3] w = {{{weight}}}> {{ y = Conv<group=2, kernel_shape=[3,3]>(x, w) }}"""
    ).model
    ((name, moment),) = found(model, products(model), {"x": x}).items()
    unfolded = products(model)[name].unfold(x).astype(np.float64)
    assert moment.gram.shape == (2, 18, 18)
    assert np.allclose(moment.gram, unfolded @ unfolded.transpose(0, 2, 1) / unfolded.shape[-1], atol=1e-5)


@pytest.mark.parametrize("shape", ["N,4,6,6", "N,4,1,1"])
def test_a_result_varies_as_the_sum_in_which_it_ends(shape: str) -> None:
    """Unless the sum is larger than the result."""
    weight = ", ".join(f"{v:.3f}" for v in np.random.default_rng(1).standard_normal(16))
    where = "x" if shape == "N,4,6,6" else "p"
    model = source(
        f"""<ir_version: 10, opset_import: ["" : 21]> g (float[N,4,6,6] x) => (float[N,4,6,6] y)
        <float[4,4,1,1] w = {{{weight}}}> {{
            p = GlobalAveragePool(x)
            z = Conv<kernel_shape=[1,1]>({where}, w)
            s = Add(x, z)
            y = Relu(s)
        }}"""
    ).model
    given = samples(model, 50)
    (moment,) = found(model, products(model), given).values()
    value = read(model, "s" if shape == "N,4,6,6" else "z", given)
    assert moment.variance == pytest.approx(value.var(axis=(0, 2, 3), dtype=np.float64).sum(), rel=1e-4)


def test_a_few_positions_of_each_sample_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "_FEWEST_ROWS", 0)
    monkeypatch.setattr(moments, "ROWS", 4)
    model, _ = stack([3, 6, 4, 2])
    given = samples(model, 100)
    (moment,) = found(model, [("p1", 0)], given).values()
    assert moment.rows == 300  # 54 columns: 3 of the 36 positions of each sample
    x = products(model)["p1", 0].unfold(read(model, "r0", given))
    assert np.allclose(moment.mean, np.mean(x.astype(np.float64), axis=-1), atol=0.2 * np.std(x))


def test_positions_are_settled_by_the_number_of_the_sample() -> None:
    whole = sampled(0, 4, 4 * 36, 5)
    parts = [sampled(0, 1, 36, 5), sampled(1, 3, 3 * 36, 5)]
    assert whole is not None
    assert np.array_equal(
        whole, np.concatenate([p + 36 * s for p, s in zip(parts, (0, 1), strict=True) if p is not None])
    )
    assert len(set((whole % 36).tolist())) > 15  # spread
    assert sampled(0, 4, 4 * 36, 36) is None
    strange = sampled(0, 4, 101, 5)  # rows that are not those of four samples
    assert strange is not None
    assert len(strange) == 20
    assert 75 < strange.max() < 101


@pytest.mark.parametrize("size", [7, 100])
def test_how_samples_are_cut_changes_nothing_but_rounding(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "_FEWEST_ROWS", 0)
    monkeypatch.setattr(moments, "ROWS", 4)
    model, _ = stack([3, 6, 4, 2])
    given, wanted = samples(model, 60), [("p1", 0), ("p2", 0)]
    usual = found(model, wanted, given)
    monkeypatch.setattr(moments, "_BATCH", size)
    for name, moment in found(model, wanted, given).items():
        assert moment.rows == usual[name].rows
        assert np.allclose(moment.gram, usual[name].gram, rtol=1e-6, atol=1e-9)
        assert moment.variance == pytest.approx(usual[name].variance)


def test_products_that_read_the_same_share_what_is_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = counted(monkeypatch, moments._Site, "add")
    a, b = (", ".join([v] * 12) for v in ("0.5", "0.7"))
    model = source(
        f"""<ir_version: 10, opset_import: ["" : 21]> g (float[N,4] x) => (float[N,3] y, float[N,3] z)
        <float[4,3] a = {{{a}}}, float[4,3] b = {{{b}}}> {{ y = MatMul(x, a) z = MatMul(x, b) }}"""
    ).model
    first, second = found(model, [*products(model), *products(model)], samples(model, 10)).values()
    assert len(sums) == 1
    assert first.gram is second.gram
    assert second.variance == pytest.approx(first.variance * (0.7 / 0.5) ** 2, rel=1e-5)


def test_several_passes_give_the_same() -> None:
    model, _ = stack([3, 6, 6, 6, 2])
    given, wanted = samples(model, 30), [("p1", 0), ("p2", 0), ("p3", 0)]
    told: list[str] = []
    together = found(model, wanted, given, progress=news(told.append))
    apart = found(model, wanted, given, memory=2 * 8 * 54 * 54, progress=news(told.append))
    assert told == ["summing what p1 reads, and 2 others", *(f"summing what p{i} reads" for i in (1, 2, 3))]
    for name in wanted:
        assert np.array_equal(apart[name].gram, together[name].gram)
        assert apart[name].variance == together[name].variance


def test_without_memory_only_the_diagonal_is_known_and_that_is_said() -> None:
    model, _ = stack([3, 6, 4, 2])
    given, wanted = samples(model, 60), [("p1", 0), ("p2", 0)]
    full, scarce = found(model, wanted, given), found(model, wanted, given, memory=500)
    for name, moment in scarce.items():
        assert (full[name].kind, moment.kind) == ("full", "diagonal")
        assert np.allclose(moment.gram, np.diagonal(full[name].gram, axis1=1, axis2=2), atol=1e-5)
        assert np.array_equal(moment.mean, full[name].mean)


def test_fewer_rows_than_columns_are_kept_as_they_are() -> None:
    model, _ = stack([3, 40, 5], "Gemm")
    given = samples(model, 25)
    moment = found(model, [("p1", 0)], given)["p1", 0]
    assert (moment.kind, moment.rows) == ("rows", 25)
    assert np.array_equal(moment.gram[0], read(model, "r0", given).T)


def test_what_was_summed_is_held_by_nobody_else() -> None:
    """A Gram matrix may be as large as all that is left of the memory."""
    model, _ = stack([3, 6, 6, 6, 2])
    walk = collect(model, [("p1", 0), ("p2", 0), ("p3", 0)], samples(model, 30))
    _, moment = next(walk)
    gone = weakref.ref(moment.gram)
    del moment, _
    assert gone() is None
    assert len(list(walk)) == 2


def test_feeds_that_are_no_rows_are_samples_each() -> None:
    model, _ = stack([3, 6, 2], "Gemm")
    given = samples(model, 12)["x"]
    one = found(model, [("p1", 0)], [{"x": given[:4]}, {"x": given[4:]}])["p1", 0]
    other = found(model, [("p1", 0)], {"x": given})["p1", 0]
    assert np.allclose(one.gram, other.gram, atol=1e-6)
    none: list[Any] = [{"x": given[:0]}, []]
    for nothing in none:
        with pytest.raises(InputError, match="samples"):
            found(model, [("p1", 0)], nothing)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_squares_are_added_in_place(kind: type[np.floating[Any]]) -> None:
    x = np.random.default_rng(0).standard_normal((5, 9)).astype(kind)
    total = np.eye(5, dtype=kind)
    gather(total, x, -0.5)
    assert np.array_equal(np.triu(total, 1), np.zeros((5, 5)))
    mirror(total)
    assert np.allclose(total, np.eye(5) - 0.5 * x @ x.T, atol=1e-5)
