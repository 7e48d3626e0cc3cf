from __future__ import annotations

import dataclasses
import json
import math

import pytest

import graphopt
from graphopt.report import data
from graphopt.report.data import DataReport, ModelReport, PassReport, to_json
from tests.end_to_end.support import net

DATACLASSES = [c for c in vars(data).values() if dataclasses.is_dataclass(c) and isinstance(c, type)]


def test_dataclasses_become_objects_and_tuples_lists() -> None:
    step = PassReport("fold", "BITWISE", "ключ", {"max_bytes": 1}, {"a": "b"})
    assert json.loads(to_json((step,))) == [dataclasses.asdict(step)]
    assert "ключ" in to_json(step)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_json_has_no_word_for_becomes_null(number: float) -> None:
    model = ModelReport("m", 1, 2, None, 0, 3, "f00", number)
    assert json.loads(to_json(model))["milliseconds"] is None
    assert json.loads(to_json({"a": [number, (1.5, number)]})) == {"a": [None, [1.5, None]]}


def test_keys_are_text() -> None:
    assert json.loads(to_json({1: {None: True}})) == {"1": {"None": True}}


def test_a_whole_report_is_the_same_tree_in_json() -> None:
    result = graphopt.optimize(net(), device="cpu", threads=1)
    tree = json.loads(to_json(result.report))
    assert list(tree) == [f.name for f in dataclasses.fields(result.report)]
    assert tree["steps"][3]["edits"] == {"fold_batchnorm": 2}
    assert tree["source"]["sha256"] == result.report.source.sha256
    assert tree["data"] == dataclasses.asdict(DataReport("4 generated feeds (N=2 and N=3)", True, None, 4))


@pytest.mark.parametrize("kind", DATACLASSES, ids=lambda k: k.__name__)
def test_reports_are_frozen(kind: type) -> None:
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
