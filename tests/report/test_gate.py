"""What a check found, as others read it: each form is valid, complete, and harmless whatever a model is called."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import xmlschema
from markdown_it import MarkdownIt

import graphopt
from graphopt.gate.rules import Row
from graphopt.report import gate
from graphopt.report.data import CheckReport
from tests.end_to_end.support import net

HERE = Path(__file__).parent
HOSTILE = (
    "\x00\x1b[31m]]><script>alert(1)</script>&amp;|`code` [link](http://evil.example) ![i](x) **b** _i_ "
    "| a | b |\n# head\n- item\n@everyone #1 www.evil.example mail@evil.example $x$ ~~s~~ <!-- \ud800 \uffff \u202e"
)


@cache
def report() -> CheckReport:
    lines = {"min-sqnr": 10, "max-bytes": 0.5, "synthetic": True}
    return graphopt.check(net(), net(), policy=lines, device="cpu", threads=1)


def hostile() -> CheckReport:
    rows = (Row("max-bytes", "max-bytes", 1, 2, passed=False, text=HOSTILE), *report().rows)
    distances = tuple(replace(d, name=HOSTILE) for d in report().distances)
    return replace(report(), candidate=HOSTILE, reference=HOSTILE, passed=False, rows=rows, distances=distances)


@cache
def sarif_schema() -> Any:
    return jsonschema.Draft7Validator(json.loads((HERE / "sarif" / "sarif-schema-2.1.0.json").read_text()))


@pytest.mark.parametrize("found", [report, hostile])
def test_junit_is_valid(found: Any) -> None:
    text = gate.junit(found())
    xmlschema.XMLSchema(HERE / "junit.xsd").validate(text)
    cases = ET.fromstring(text).iter("testcase")  # noqa: S314 - our own
    assert [(c.get("name"), c.find("failure") is None) for c in cases] == [(r.key, r.passed) for r in found().rows]


def test_junit_counts() -> None:
    suites = ET.fromstring(gate.junit(report()))  # noqa: S314
    assert (suites.get("tests"), suites.get("failures"), suites.get("errors")) == ("4", "1", "0")
    (failure,) = suites.iter("failure")
    assert failure.get("message") == "bytes: 100.0%, at most 50.0%"


def test_the_schema_is_strict() -> None:
    schema = xmlschema.XMLSchema(HERE / "junit.xsd")
    assert not schema.is_valid(gate.junit(report()).replace("testcase", "case"))
    assert not schema.is_valid(gate.junit(report()).replace('tests="4"', 'tests="some"'))


@pytest.mark.parametrize("found", [report, hostile])
def test_sarif_is_valid(found: Any) -> None:
    document = json.loads(gate.sarif(found()))
    sarif_schema().validate(document)
    (run,) = document["runs"]
    told = [(r["ruleId"], r["kind"], r["level"]) for r in run["results"]]
    assert told == [(r.rule, *(("pass", "none") if r else ("fail", "error"))) for r in found().rows]
    ids = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert all(ids[r["ruleIndex"]] == r["ruleId"] for r in run["results"])


def test_sarif_names_files_as_a_checkout_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def place(name: str) -> str:
        run = json.loads(gate.sarif(replace(report(), candidate=name)))["runs"][0]
        return str(run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"])

    assert place(str(tmp_path / "models" / "a b.onnx")) == place("models/a b.onnx") == "models/a%20b.onnx"
    assert place("c:d.onnx") == "c%3Ad.onnx"
    assert place("/elsewhere/m.onnx") == "file:///elsewhere/m.onnx"


def test_the_schema_of_sarif_is_strict() -> None:
    document = json.loads(gate.sarif(report()))
    document["runs"][0]["results"][0]["kind"] = "maybe"
    assert not sarif_schema().is_valid(document)


def rendered(text: str) -> str:
    return str(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text))


def test_markdown_renders() -> None:
    html = rendered(gate.markdown(report()))
    assert "<h3>graphopt check: ❌ 1 of 4 lines not kept</h3>" in html
    assert html.count("<table>") == 2
    rows = [[cell.text for cell in row] for row in ET.fromstring(f"<x>{html}</x>").iter("tr")]  # noqa: S314
    assert rows[1] == ["✅", "interface", "the same names, types and shapes"]
    assert rows[4] == ["❌", "max-bytes", "bytes: 100.0%, at most 50.0%"]
    assert rows[6][:2] == ["y", "0"]


def test_nothing_in_a_name_is_markup() -> None:
    text = gate.markdown(hostile())
    html = ET.fromstring(f"<x>{rendered(text)}</x>")  # noqa: S314
    known = {"x", "h3", "p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert {element.tag for element in html.iter()} == known
    assert len(list(html.iter("table"))) == 2
    assert all(len(row) == len(next(table.iter("tr"))) for table in html.iter("table") for row in table.iter("tr"))
    shown = "".join(html.itertext()).replace("\u200b", "")
    assert "<script>alert(1)</script>&amp;|`code` [link](http://evil.example)" in shown
    assert "@everyone" not in "".join(html.itertext()), "somebody would be told"
    assert "www." not in text
    assert r"\x1b[31m" in shown
    assert "\x1b" not in text
