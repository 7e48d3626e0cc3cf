from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphopt.analysis.groups import Group
from graphopt.plan.levels import LossCurve, candidates


@pytest.mark.parametrize(
    ("units", "step", "expected"),
    [
        (64, 8, tuple(range(8, 65, 8))),
        (16, 8, tuple(range(2, 17, 2))),
        (6, 8, (1, 2, 3, 4, 5, 6)),
        (50, 8, (*range(4, 49, 4), 50)),
        (96, 32, tuple(range(8, 97, 8))),
        (1, 8, (1,)),
    ],
)
def test_candidates_are_multiples_and_all_units(units: int, step: int, expected: tuple[int, ...]) -> None:
    assert candidates(Group("g", units, "channel", (), ()), step) == expected


@pytest.mark.parametrize(
    ("units", "kind", "expected"),
    [(64, "channel", tuple(range(8, 65, 8))), (20, "channel", (8, 16, 20)), (12, "hidden unit", (8, 12)),
     (8, "channel", (8,)), (12, "block", tuple(range(1, 13)))],
)  # fmt: skip
def test_where_other_widths_are_slow_there_are_none(units: int, kind: Any, expected: tuple[int, ...]) -> None:
    assert candidates(Group("g", units, kind, (), ()), 8, strict=True) == expected


def test_a_curve_never_falls_and_is_a_power_between_what_was_measured() -> None:
    curve = LossCurve.through({16: 0.0, 12: 0.04, 8: 0.16, 4: 0.1})
    assert curve.losses == (0.0, 0.04, 0.16, 0.16)
    assert curve(10) == pytest.approx(0.04 * (6 / 4) ** 2)
    assert curve(14) == pytest.approx(0.01)  # as from 12 to 8: with the square of what is cut
    assert curve(16) == 0
    assert curve(6) == pytest.approx(0.16)
    losses = [curve(w) for w in np.linspace(4, 16, 40)]
    assert np.all(np.diff(losses) <= 1e-12)
    with pytest.raises(ValueError, match="width 3 is outside of what was measured, 4 to 16"):
        curve(3)


def test_a_curve_through_nothing_but_zeros_is_flat() -> None:
    curve = LossCurve.through({16: 0.0, 8: 0.0, 4: 0.0})
    assert 0 <= curve(10) < 1e-9
