"""Errors of readers on samples held back."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.compress.axis import Reader
from graphopt.compress.heldout import losses


def _reader(x: np.ndarray, held: np.ndarray, outputs: int = 3, *, rows: bool = False) -> Reader:
    columns = len(x)
    matrix, unit = np.random.default_rng(0).standard_normal((outputs, columns)), np.arange(columns)

    def made(data: np.ndarray, other: Reader | None) -> Reader:
        gram = data if rows else data @ data.T / data.shape[1]
        return Reader(matrix, gram, data.mean(axis=1), unit, kind="rows" if rows else "full", held=other)

    return made(x, made(held, None))


def test_few_samples_fit_themselves_but_not_others() -> None:
    x, held = (np.random.default_rng(seed).standard_normal((40, 20)) for seed in (1, 2))
    reader = _reader(x, held, rows=True)
    alone = Reader(reader.matrix, reader.gram, reader.mean, reader.unit, kind="rows")
    order = np.arange(40)
    told, believed = losses(40, [reader], order)[20], losses(40, [alone], order)[20]
    nothing = float(np.sum(reader.matrix[:, :20] ** 2))
    assert believed < 0.1 * nothing
    assert told > 0.5 * nothing


@pytest.mark.parametrize("rows", [True, False])
def test_what_others_can_say_as_well_is_not_missed(*, rows: bool) -> None:
    random = np.random.default_rng(3)
    mixing = random.standard_normal((32, 4))
    x, held = (mixing @ random.standard_normal((4, count)) for count in (24 if rows else 400, 50))
    found = losses(32, [_reader(x, held, rows=rows)], np.arange(32))
    assert found[32] == 0
    assert found[16] < 1e-2 * float(np.sum(_reader(x, held).matrix[:, :16] ** 2))
    assert found[2] > 10 * found[16]


def test_both_forms_tell_the_same() -> None:
    x, held = (np.random.default_rng(seed).standard_normal((12, 30)) for seed in (4, 5))
    order = np.random.default_rng(6).permutation(12)
    first, second = (losses(12, [_reader(x, held, rows=rows)], order) for rows in (True, False))
    assert first == pytest.approx(second)
