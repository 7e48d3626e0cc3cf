from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import graphopt
from graphopt.report import data
from graphopt.report.data import Metric, PassReport, PortReport, to_json
from graphopt.report.timing import TimingReport
from tests.end_to_end.support import net

DATACLASSES = [c for c in vars(data).values() if dataclasses.is_dataclass(c) and isinstance(c, type)]


def test_dataclasses_become_objects_and_tuples_lists() -> None:
    step = PassReport("fold", "BITWISE", "ключ", {"max_bytes": 1}, {"a": "b"}, "on cpu", "")
    assert json.loads(to_json((step,), "passes")) == {"passes": [dataclasses.asdict(step)], "schema": 1}
    assert to_json(step).isascii()


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_json_has_no_word_for_becomes_null(number: float) -> None:
    timing = TimingReport(1.0, number, 1.0, 1.0, 1.0, 1, "CPU", None)
    assert json.loads(to_json(timing))["candidate_ms"] is None
    assert json.loads(to_json({"m": Metric(1.0, number)})) == {"m": {"before": 1.0, "after": None}}
    assert json.loads(to_json({"a": [number, (1.5, number)]})) == {"a": [None, [1.5, None]]}


def test_keys_are_text() -> None:
    assert json.loads(to_json({1: {None: True}})) == {"1": {"None": True}}


def test_a_whole_report_is_the_same_tree_in_json() -> None:
    result = graphopt.optimize(net(), device="cpu", threads=1)
    tree = json.loads(result.report.to_json())
    assert list(tree) == [*(f.name for f in dataclasses.fields(result.report)), "schema"]
    assert {s["name"]: s["edits"] for s in tree["steps"] if s["edits"]} == {"fuse-linear": {"fold_batchnorm": 2}}
    assert tree["source"]["sha256"] == result.report.source.sha256
    assert result.report.data is not None
    assert tree["data"] == dataclasses.asdict(result.report.data)
    assert tree["data"]["synthetic"] is True


@pytest.mark.parametrize("kind", DATACLASSES, ids=lambda k: k.__name__)
def test_reports_are_frozen(kind: type) -> None:
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_every_document_carries_its_schema() -> None:
    documents = (
        graphopt.optimize(net(), threads=1).report,
        graphopt.check(net(), net(), threads=1),
        graphopt.bench(net(), threads=1),
        *graphopt.inspect(net()),
    )
    assert all(json.loads(d.to_json())["schema"] == d.schema == 1 for d in documents)


FLOAT = ir.TensorType(ir.DataType.FLOAT)


@pytest.mark.parametrize(
    ("declared", "shape", "told"),
    [
        (FLOAT, ["N", 3], PortReport("y", "float32", ("N", 3))),
        (ir.TensorType(ir.DataType.BFLOAT16), [1], PortReport("y", "bfloat16", (1,))),
        (ir.TensorType(ir.DataType.STRING), [], PortReport("y", "string", ())),
        (ir.TensorType(ir.DataType.INT64), [None], PortReport("y", "int64", (None,))),
        (ir.SequenceType(FLOAT), None, PortReport("y", "sequence(float32)", None)),
        (ir.OptionalType(ir.SequenceType(FLOAT)), None, PortReport("y", "optional(sequence(float32))", None)),
        (ir.SparseTensorType(ir.DataType.FLOAT), [2], PortReport("y", "sparse(float32)", (2,))),
        (None, None, PortReport("y", "unknown", None)),
    ],
)
def test_ports_are_told_as_numpy_calls_them(declared: Any, shape: list[Any] | None, told: PortReport) -> None:
    value = ir.Value(name="y", type=declared, shape=None if shape is None else ir.Shape(shape))
    assert PortReport.of(value) == told


def test_a_port_in_words() -> None:
    assert str(PortReport("x", "float32", ("batch", 1, None))) == "x  float32 [batch, 1, ?]"
    assert str(PortReport("x", "float32", None)) == "x  float32 […]"


@pytest.mark.parametrize(
    ("feed", "rows"),
    [
        ({"a": np.zeros((4, 2)), "b": np.zeros(4)}, 4),
        ({"a": np.zeros((4, 2)), "b": np.zeros(3)}, None),
        ({"a": np.zeros(())}, None),
        ({"a": [np.zeros(2)]}, None),
        ({}, None),
    ],
)
def test_rows_are_what_all_inputs_share(feed: dict[str, Any], rows: int | None) -> None:
    assert TimingReport.rows_of(feed) == rows
