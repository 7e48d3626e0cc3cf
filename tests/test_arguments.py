"""What Python callers may give, where the command line has a parser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphopt
from graphopt.errors import UsageError
from tests.end_to_end.support import net

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"device": "tpu"}, "device is 'tpu': give one of auto, cpu, cuda"),
    ({"device": None}, "device is None"),
    ({"threads": -1}, "threads is -1: give a whole number from 0"),
    ({"threads": 1.0}, "threads is 1.0"),
    ({"threads": True}, "threads is True"),
    ({"seed": -1}, "seed is -1"),
    ({"seed": 2**63}, "seed is 9223372036854775808"),
    ({"seed": None}, "seed is None"),
    ({"set_dims": ["N=2"]}, "set_dims is .*: give a mapping"),
    ({"set_dims": {1: 2}}, "set_dims names a dimension 1"),
    ({"set_dims": {"N": 0}}, "the dimension 'N' is 0: give a whole number from 1"),
    ({"set_dims": {"N": "2"}}, "the dimension 'N' is '2'"),
    ({"set_dims": {"N": 2.0}}, "the dimension 'N' is 2.0"),
]


@pytest.mark.parametrize(("given", "reason"), WRONG)
def test_what_makes_no_sense_is_refused_by_every_verb(given: dict[str, Any], reason: str) -> None:
    for verb in (graphopt.optimize, graphopt.check, graphopt.bench):
        models = [net()] * (2 if verb is graphopt.check else 1)
        with pytest.raises(UsageError, match=reason):
            verb(*models, **given)
    if not given.keys() & {"device", "threads"}:
        with pytest.raises(UsageError, match=reason):
            graphopt.inspect(net(), **given)


@pytest.mark.parametrize("given", [-1.0, float("nan"), float("inf"), "1", True])
def test_a_tolerance_is_a_number(given: Any) -> None:
    for name in ("atol", "rtol"):
        with pytest.raises(UsageError, match=f"{name} is .*: give a finite number, at least 0"):
            graphopt.check(net(), net(), **{name: given})


def test_numbers_may_be_those_of_numpy() -> None:
    given: dict[str, Any] = {"threads": np.int64(1), "seed": np.int32(3), "set_dims": {"N": np.int64(5)}}
    report = graphopt.check(net(), net(), **given | {"atol": np.float32(1)})
    assert report
    assert "N=5" in report.data.description
