"""Every hostile case is refused in one sentence, or goes through and does no harm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from tests.corpus import (
    hostile_bombs,
    hostile_checker,
    hostile_crashes,
    hostile_data,
    hostile_external,
    hostile_format,
    hostile_names,
    hostile_structure,
)
from tests.corpus.case import Hostile, Place
from tests.corpus.jail import Jail

FAMILIES = (
    hostile_external,
    hostile_format,
    hostile_structure,
    hostile_bombs,
    hostile_checker,
    hostile_crashes,
    hostile_names,
    hostile_data,
)
CASES = [case for family in FAMILIES for case in family.CASES]
_SAMPLED = 10
"""Every so many are tried in each run of the tests, and the others with `-m soak`."""
FAILING: dict[str, str] = {}
"""Cases that are known to fail, and why."""


@pytest.fixture(scope="module")
def jail() -> Iterator[Jail]:
    with Jail() as made:
        yield made


def _parameter(case: Hostile) -> object:
    marks = [pytest.mark.xfail(strict=True, reason=FAILING[case.name])] if case.name in FAILING else []
    if case not in CASES[::_SAMPLED]:
        marks.append(pytest.mark.soak)  # all of them take minutes
    return pytest.param(case, id=case.name, marks=marks)


@pytest.mark.parametrize("case", [_parameter(c) for c in CASES])
def test_hostile(case: Hostile, jail: Jail, tmp_path: Path) -> None:
    place = Place(tmp_path).made()
    model = case.prepared(place)
    before = _contents(place.outside)
    out, blind = place.inner / "out.onnx", place.inner / "blind.onnx"
    commands: list[list[object]] = [["optimize", model, "-o", out, "--json", "-", *case.words]]
    if not case.words:
        commands.append(["optimize", model, "-o", blind, "--unverified"])
    if not case.words and case not in (*hostile_bombs.CASES, *hostile_checker.CASES, *hostile_crashes.CASES):
        commands.append(["inspect", model])
    found = jail.run(place, *commands)
    found.insist(len(commands))
    assert 0 not in (() if case.passes else found.codes[:1] if case.blind else found.codes), found.told
    assert _contents(place.outside) == before
    assert not (place.inner / "tripped").exists()
    left = {p.name for p in place.inner.iterdir() if p.name.startswith(".")}
    assert not left, left
    for code, written in zip(found.codes, (out, blind), strict=False):
        assert written.exists() == (code == 0)
        if code == 0:
            content = written.read_bytes()
            onnx.ModelProto.FromString(content)
            assert b"SECRET##" not in content


def _contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}
