"""JSON is what its schema says, and the schema that is given away is that of the code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from graphopt.report.data import BenchReport, CheckReport, Inspection, Report
from graphopt.report.integers import IntegersReport
from graphopt.report.schema import schema
from tests.report.test_html import lossless, report

FILE = Path(__file__).parents[2] / "docs" / "report.schema.json"


def told(document: type) -> Any:
    jsonschema.Draft202012Validator.check_schema(schema(document))
    return jsonschema.Draft202012Validator(schema(document))


def test_the_file_is_that_of_the_code(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-golden"):
        FILE.write_text(json.dumps(schema(Report), indent=2) + "\n", "utf-8")
    assert json.loads(FILE.read_text("utf-8")) == schema(Report), "--update-golden writes it"


def test_reports_are_what_it_says() -> None:
    for one in (lossless(), report(), replace(lossless(), verification=None, timing=None, data=None)):
        told(Report).validate(json.loads(one.to_json()))


def test_what_is_missing_or_of_another_type_is_found() -> None:
    whole = json.loads(report().to_json())
    source = whole["source"] | {"nodes": "6"}
    changes: list[dict[str, Any]] = [{"schema": 2}, {"steps": None}, {"plan": {}}, {"source": source}]
    for wrong in changes:
        assert not told(Report).is_valid(whole | wrong), wrong


@pytest.mark.parametrize("document", [CheckReport, BenchReport, Inspection, IntegersReport])
def test_all_documents_have_one(document: type) -> None:
    told(document)
