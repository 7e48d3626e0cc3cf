from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphopt import ops
from graphopt.analysis import moments
from graphopt.analysis.moments import Moment, collect, products, sampled
from graphopt.errors import InputError
from graphopt.graph.carry import Carried
from graphopt.graph.parts import part
from graphopt.graph.save import runnable
from graphopt.run.session import Session
from tests.plan.models import counted, samples, stack


def read(model: Any, value: str, feed: dict[str, Any]) -> np.ndarray:
    """A value inside of a model."""
    return np.asarray(Session(runnable(part(model, ["x"], [value]), Carried())).run(feed)[value])


@pytest.mark.parametrize("op", ["Conv", "Gemm", "MatMul"])
def test_moments_are_those_of_the_unfolded_input(op: str) -> None:
    model, _ = stack([3, 6, 4, 2], op)
    given = samples(model, 100)
    found = collect(model, [("p1", 0), ("p9", 0)], given)
    assert set(found) == {("p1", 0)}
    linear: ops.Linear = products(model)["p1", 0]
    x = linear.unfold(read(model, "r0", given)).astype(np.float64)
    y = linear.rows(read(model, "z1", given)).reshape(linear.channels, -1)
    moment = found["p1", 0]
    assert moment.kind == "full"
    assert moment.rows == x.shape[-1]
    assert np.allclose(moment.mean, x.mean(axis=-1), atol=1e-6)
    assert np.allclose(moment.gram, x @ x.transpose(0, 2, 1) / x.shape[-1], atol=1e-5)
    assert np.allclose(moment.result_mean, y.mean(axis=-1), atol=1e-5)
    assert np.allclose(moment.result_energy, (y**2).mean(axis=-1), atol=1e-5)


def test_a_few_positions_of_each_sample_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "_FEWEST_ROWS", 0)
    monkeypatch.setattr(moments, "_ROWS_PER_COLUMN", 4)
    model, _ = stack([3, 6, 4, 2])
    given = samples(model, 100)
    (found,) = collect(model, [("p1", 0)], given).values()
    assert found.rows == 300  # 54 columns: 3 of the 36 positions of each sample
    x = products(model)["p1", 0].unfold(read(model, "r0", given))
    everywhere = np.mean(x.astype(np.float64), axis=-1)
    assert np.allclose(found.mean, everywhere, atol=0.2 * np.std(x))


def test_positions_are_settled_by_the_number_of_the_sample() -> None:
    whole = sampled(0, 4, 36, 5)
    parts = [sampled(0, 1, 36, 5), sampled(1, 3, 36, 5)]
    assert whole is not None
    assert np.array_equal(
        whole, np.concatenate([p + 36 * s for p, s in zip(parts, (0, 1), strict=True) if p is not None])
    )
    assert sampled(0, 4, 36, 36) is None
    assert len(set((whole % 36).tolist())) > 15  # spread


def test_products_that_read_the_same_share_what_is_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = counted(monkeypatch, moments._Site, "add")
    model, _ = stack([3, 6, 4, 2])
    collect(model, [("p1", 0), ("p2", 0), ("p1", 0)], samples(model, 40))
    assert len(sums) == 2


@pytest.mark.parametrize(("memory", "kind"), [(1 << 20, "full"), (30_000, "channel"), (500, "diagonal")])
def test_memory_bounds_what_is_kept(memory: int, kind: str) -> None:
    model, _ = stack([3, 6, 4, 2])
    given = samples(model, 60)
    wanted = [("p1", 0), ("p2", 0)]
    found = collect(model, wanted, given, memory=memory)
    assert found["p1", 0].kind == kind
    full = collect(model, wanted, given)["p1", 0]
    assert np.allclose(found["p1", 0].result_energy, full.result_energy, rtol=1e-4)
    assert np.allclose(found["p1", 0].result_mean, full.result_mean, atol=1e-5)
    assert found["p1", 0].covariance().shape == (1, 54, 54)
    if kind == "channel":
        taps = full.gram.reshape(6, 9, 6, 9)
        assert np.allclose(found["p1", 0].gram[0], np.einsum("akbk->ab", taps) / 9, atol=1e-5)
    if kind == "diagonal":
        assert np.allclose(found["p1", 0].gram[0], np.diag(full.gram[0]), atol=1e-5)


def test_several_passes_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = stack([3, 6, 6, 6, 2])
    given, wanted = samples(model, 30), [("p1", 0), ("p2", 0), ("p3", 0)]
    passes = counted(monkeypatch, moments, "_pass")
    together, apart = collect(model, wanted, given), collect(model, wanted, given, memory=2 * 8 * 54 * 54)
    assert len(passes) == 1 + 2
    assert all(np.array_equal(apart[name].gram, together[name].gram) for name in wanted)


def test_fewer_rows_than_columns_are_kept_as_they_are() -> None:
    model, _ = stack([3, 40, 5], "Gemm")
    given = samples(model, 25)
    moment = collect(model, [("p1", 0)], given)["p1", 0]
    assert (moment.kind, moment.rows) == ("rows", 25)
    x = read(model, "r0", given).astype(np.float64)
    assert np.allclose(moment.covariance()[0], np.cov(x.T, bias=True), atol=1e-6)
    linear = products(model)["p1", 0]
    keep = np.arange(40) < 20
    full = Moment("full", 25, moment.mean, (x.T @ x / 25)[None], moment.result_mean, moment.result_energy)
    for ours, theirs in zip(
        moment.refit(linear.matrix(), linear.bias_vector(), keep, 1e-2),
        full.refit(linear.matrix(), linear.bias_vector(), keep, 1e-2),
        strict=True,
    ):
        assert np.allclose(ours, theirs, atol=1e-4)
    assert moment.damping > full.damping / 2 > 1e-3


def test_feeds_that_are_no_rows_are_samples_each() -> None:
    model, _ = stack([3, 6, 2], "Gemm")
    given = samples(model, 12)["x"]
    one = collect(model, [("p1", 0)], [{"x": given[:4]}, {"x": given[4:]}])["p1", 0]
    other = collect(model, [("p1", 0)], {"x": given})["p1", 0]
    assert np.allclose(one.covariance(), other.covariance(), atol=1e-6)
    with pytest.raises(InputError, match="samples"):
        collect(model, [("p1", 0)], {"x": given[:0]})


@pytest.mark.parametrize("op", ["Conv", "Gemm", "MatMul"])
def test_refitted_columns_are_the_least_squares_solution(op: str) -> None:
    model, _ = stack([3, 6, 4, 2], op)
    given = samples(model, 100)
    linear = products(model)["p1", 0]
    keep = np.array([True, False, True, True, False, True])
    moment = collect(model, [("p1", 0)], given)["p1", 0]
    matrix, bias = moment.refit(linear.matrix(), linear.bias_vector(), keep, 0.0)
    x = linear.unfold(read(model, "r0", given)).astype(np.float64)[0]
    y = linear.matrix()[0].astype(np.float64) @ x + linear.bias_vector()[:, None]
    columns = keep.repeat(len(x) // 6)
    assert not matrix[0][:, ~columns].any()
    best, *_ = np.linalg.lstsq(np.vstack([x[columns], np.ones(x.shape[1])]).T, y.T, rcond=None)
    error = y - best.T @ np.vstack([x[columns], np.ones(x.shape[1])])
    ours = y - matrix[0] @ x - bias[:, None]
    assert np.sum(ours**2) <= 1.001 * np.sum(error**2) + 1e-6
    assert np.allclose(ours.mean(axis=1), 0, atol=1e-5)


def test_with_much_damping_nothing_but_the_mean_is_repaired() -> None:
    model, _ = stack([3, 6, 2], "Gemm")
    linear = products(model)["p1", 0]
    moment = collect(model, [("p1", 0)], samples(model, 50))["p1", 0]
    keep = np.arange(6) != 2
    matrix, bias = moment.refit(linear.matrix(), linear.bias_vector(), keep, 1e12)
    assert np.allclose(matrix[0][:, keep], linear.matrix()[0][:, keep], atol=1e-6)
    assert np.allclose(bias, linear.bias_vector() + linear.matrix()[0][:, 2] * moment.mean[0, 2], atol=1e-6)
