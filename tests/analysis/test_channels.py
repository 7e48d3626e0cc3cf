"""Which groups are found, and what is held for which reason."""

from __future__ import annotations

import pytest

from tests.analysis.kinds import KINDS, Kind
from tests.support.masking import Case, case, keeps, thin_work


@pytest.fixture(scope="module", params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> tuple[Kind, Case]:
    found: Kind = request.param
    return found, case(found.text)


both = pytest.mark.parametrize("inner", [True, False], ids=["inner", "outer"])


@both
def test_groups_and_what_is_held(kind: tuple[Kind, Case], *, inner: bool) -> None:
    wanted, given = kind
    found = given.find(inner=inner)
    groups = wanted.inner if inner or wanted.outer is None else wanted.outer
    assert {key: group.units for key, group in found.groups.items()} == groups
    for key, reason in wanted.held.items():
        assert reason in found.frozen[key]


@both
def test_groups_name_the_products_that_write_and_read_them(kind: tuple[Kind, Case], *, inner: bool) -> None:
    found = kind[1].find(inner=inner)
    for key, group in found.groups.items():
        assert group.readers
        for each in group.writers:
            product = found.products[each]
            assert key in product.result.groups
        for each in group.readers:
            assert key in found.products[each].source.groups


@both
def test_work_that_is_left_is_foretold(kind: tuple[Kind, Case], *, inner: bool) -> None:
    given = kind[1]
    found = given.find(inner=inner)
    for _, keep in keeps(found):
        foretold, counted = thin_work(given, found, keep)
        assert foretold == pytest.approx(counted, rel=1e-6)


@both
def test_the_same_groups_at_other_extents(kind: tuple[Kind, Case], *, inner: bool) -> None:
    given = kind[1]
    for feed in given.feeds[1:]:
        other = Case(given.source, (feed,)).find(inner=inner)
        assert {k: g.units for k, g in other.groups.items()} == {
            k: g.units for k, g in given.find(inner=inner).groups.items()
        }
