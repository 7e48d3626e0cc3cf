"""What a check found, for what reads such reports: test servers, code scanning, pull requests.

Each line of the policy is one test case, one result, one row. Names from models are made harmless first (`shown`); what
XML cannot hold is spelled out by that as well.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from graphopt.counted import counted
from graphopt.gate.rules import RULES, Row
from graphopt.report import words
from graphopt.report.data import CheckReport
from graphopt.report.text import cell, shown

__all__ = ["junit", "markdown", "sarif"]

_NAME = "graphopt check"
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


# -- JUnit -----------------------------------------------------------------------------------------------------------


def junit(report: CheckReport) -> str:
    """JUnit's XML, as Jenkins and others read it."""
    counts = {"tests": str(len(report.rows)), "failures": str(sum(not row for row in report.rows)), "errors": "0"}
    suites = ET.Element("testsuites", {"name": _NAME, **counts})
    suite = ET.SubElement(suites, "testsuite", {"name": shown(report.candidate), **counts, "skipped": "0"})
    properties = ET.SubElement(suite, "properties")
    for name, value in _facts(report).items():
        ET.SubElement(properties, "property", name=name, value=shown(value))
    for row in report.rows:
        case = ET.SubElement(suite, "testcase", classname=shown(f"{_NAME}.{row.rule}"), name=shown(row.key))
        if not row:
            failure = ET.SubElement(case, "failure", message=shown(row.text), type=row.rule)
            failure.text = shown(f"{report.candidate}: {row.text}")
        else:
            ET.SubElement(case, "system-out").text = shown(row.text)
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _facts(report: CheckReport) -> dict[str, str]:
    """What else a reader may want to know."""
    return {
        "reference": report.reference,
        "candidate": report.candidate,
        "graphopt": version("graphopt"),
        "environment": str(report.verification.environment),
        "data": words.data(report.data),
    }


# -- SARIF -----------------------------------------------------------------------------------------------------------


def sarif(report: CheckReport) -> str:
    """SARIF 2.1.0: a result for each line, of the kind "pass" or "fail", at the candidate's file."""
    used = list(dict.fromkeys(row.rule for row in report.rows))
    rules = [{"id": key, "shortDescription": {"text": RULES[key].help}} for key in used]
    home = {"name": "graphopt", "version": version("graphopt"), "rules": rules}
    run: dict[str, Any] = {
        "tool": {"driver": home},
        "automationDetails": {"id": f"{_NAME}/"},
        "artifacts": [{"location": _place(report.candidate)}],
        "results": [_result(row, used.index(row.rule), report.candidate) for row in report.rows],
        "properties": {name: shown(value) for name, value in _facts(report).items()},
    }
    document = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _result(row: Row, rule: int, candidate: str) -> dict[str, Any]:
    place = {"physicalLocation": {"artifactLocation": {**_place(candidate), "index": 0}}}
    return {
        "ruleId": row.rule,
        "ruleIndex": rule,
        "kind": "pass" if row else "fail",
        "level": "none" if row else "error",
        "message": {"text": shown(f"{row.key}: {row.text}")},
        "locations": [place],
        "partialFingerprints": {"line/v1": row.key},
    }


def _place(name: str) -> dict[str, Any]:
    """A file's place, relative to the folder at hand where it is below that: scanners look it up in a checkout."""
    path = Path(name).absolute()
    below = path.is_relative_to(Path.cwd())
    address = quote((path.relative_to(Path.cwd()) if below else path).as_posix(), errors="surrogatepass")
    return {"uri": address if below else f"file://{address}"}


# -- Markdown --------------------------------------------------------------------------------------------------------


def markdown(report: CheckReport) -> str:
    """A table for a pull request."""
    failed = sum(not row for row in report.rows)
    lines = counted(len(report.rows), "line")
    verdict = f"❌ {failed} of {lines} not kept" if failed else f"✅ {lines} kept"
    parts = [
        f"### {_NAME}: {verdict}",
        "",
        f"Candidate: {cell(report.candidate)}, reference: {cell(report.reference)}",
        "",
    ]
    parts += ["| | line | found |", "|---|---|---|"]
    parts += [f"| {'✅' if row else '❌'} | {cell(row.key)} | {cell(row.text)} |" for row in report.rows]
    if report.distances:
        parts += ["", "| output | largest error | relative | SQNR | cosine |", "|---|--:|--:|--:|--:|"]
        for d in report.distances:
            told = (f"{d.max_abs:.3g}", f"{d.max_rel:.3g}", words.value("sqnr", d.sqnr_db), f"{d.cosine:.6f}")
            parts.append(f"| {cell(d.name)} | {' | '.join(map(cell, told))} |")
    metrics = [f"{name} {words.metric(name, values)}" for name, values in report.verification.metrics.items()]
    facts = [*metrics, words.data(report.data), f"on {report.verification.environment}"]
    return "\n".join([*parts, "", *(f"- {cell(fact)}" for fact in facts)]) + "\n"
