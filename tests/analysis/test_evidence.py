"""What models are compared on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphopt.analysis import evidence
from graphopt.analysis.evidence import gather
from graphopt.errors import InputError
from graphopt.graph.load import Source
from tests.support.models import source


@pytest.fixture
def rows() -> Source:
    return source("g (float[N,2] x) => (float[N,2] y) { y = Neg (x) }")


def numbered(count: int) -> np.ndarray:
    return np.repeat(np.arange(count, dtype=np.float32), 2).reshape(count, 2)


@pytest.mark.parametrize(
    ("count", "sizes", "compared"),
    [
        (1, [1], 1),
        (2, [2, 1, 1], 2),
        (5, [5, 4, 1], 5),
        (7, [7, 6, 1], 7),
        (40, [32, 8, 7, 7, 7, 7], 40),
        (500, [32, 32, 32, 32, 7, 7, 7, 7], 156),
    ],
)
def test_samples_come_from_all_over_the_data_in_two_sizes(
    rows: Source, count: int, sizes: list[int], compared: int
) -> None:
    found = gather(rows, {"x": numbered(count)})
    assert [len(f["x"]) for f in found.feeds] == sizes
    assert (found.samples, found.compared) == (count, compared)
    seen = sorted({float(v) for f in found.feeds for v in f["x"].ravel()})
    assert len(seen) == compared
    assert seen[0] == 0
    assert seen[-1] > 0.98 * count - 1


@pytest.mark.parametrize(("most", "sizes"), [(400, [5, 4]), (1, [2, 1])])
def test_where_rows_are_large_there_are_fewer_in_a_feed(
    most: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "_LARGEST", most)
    model = source("""g (float[N,2] x) => (float[N,2] y)
        <int64[1] axis = {1}, float[1,20] w = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}>
        { s = ReduceSum (x, axis)  big = MatMul (s, w)  t = ReduceSum (big, axis)  y = Add (x, t) }""")
    found = gather(model, {"x": numbered(40)})
    assert [len(f["x"]) for f in found.feeds] == [n for n in sizes for _ in range(4)]
    assert found.compared == sum(4 * n for n in sizes)


def test_a_function_is_called_once(rows: Source) -> None:
    calls: list[int] = []

    def feeds() -> Any:
        calls.append(1)
        return iter([{"x": numbered(3)}, {"x": numbered(4)}])

    assert gather(rows, feeds).samples == 7
    assert len(calls) == 1


def test_equal_feeds_count_once() -> None:
    fixed = source("g (float[1,2] x) => (float[1,2] y) { y = Neg (x) }")
    one, two = ({"x": np.full((1, 2), v, np.float32)} for v in (1, 2))
    found = gather(fixed, [one, two, one, one])
    assert [float(f["x"][0, 0]) for f in found.feeds] == [1, 2]
    assert (found.samples, found.compared) == (4, 4)


def test_rows_of_many_shapes_give_few_feeds() -> None:
    model = source("g (float[N,S] x) => (float[N,S] y) { y = Neg (x) }")
    found = gather(model, [{"x": np.full((1, n % 50 + 1), n, np.float32)} for n in range(200)])
    assert len(found.feeds) <= 8
    assert found.compared == len({float(v) for f in found.feeds for v in f["x"][:, 0]})


def test_generated_feeds_are_all_compared(rows: Source) -> None:
    found = gather(rows, None)
    assert found.synthetic
    assert found.samples == found.compared == len(found.feeds)


def test_data_without_a_sample_is_refused(rows: Source) -> None:
    with pytest.raises(InputError, match="holds no feeds"):
        gather(rows, {"x": numbered(0)})
