"""Long series of tests, of which each run takes some and `-m soak` all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def one_in(count: int, cases: Iterable[Any], ids: Iterable[str]) -> list[Any]:
    """Parameters of which one in so many is for every run: the second of each lot, as the first of all is extreme."""
    return [
        pytest.param(case, id=name, marks=[] if number % count == 1 % count else [pytest.mark.soak])
        for number, (case, name) in enumerate(zip(cases, ids, strict=True))
    ]
