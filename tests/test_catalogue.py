"""What is told of passes: where they pay, and what was measured of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from graphopt.catalogue import LOSSY, PASSES
from graphopt.protocol import Named


@dataclass(frozen=True)
class Told(Named):
    """Something.

    More of it, which was not measured.

    Measured: half of
    the nodes.
    """


@dataclass(frozen=True)
class Untold(Told):
    """Measured by nobody."""


def test_evidence_is_a_paragraph_of_the_docstring() -> None:
    assert Told.evidence() == "half of the nodes."
    assert Untold.evidence() == ""


@pytest.mark.parametrize("kind", LOSSY)
def test_what_gives_something_up_says_what_was_measured(kind: type[Named]) -> None:
    assert re.search(r"[0-9]", kind.evidence()), kind
    assert "digits" in kind.evidence()  # which everybody has, to measure it again


@pytest.mark.parametrize("kind", PASSES.values())
def test_where_a_pass_pays_is_told_in_few_words(kind: type[Named]) -> None:
    assert 0 < len(kind.pays) < 40
    assert kind.pays.startswith(("on ", "in "))
