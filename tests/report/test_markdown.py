"""The report as Markdown: what a pull request shows of it, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

from graphopt.report.data import LeftOutReport, Report
from graphopt.report.markdown import markdown
from tests.end_to_end.support import command, net, stored
from tests.report.test_browser import HOSTILE
from tests.report.test_gate import rendered
from tests.report.test_html import lossless, report


def tree(found: Report) -> ET.Element:
    return ET.fromstring(f"<x>{rendered(markdown(found))}</x>")  # noqa: S314 - our own, without entities


def test_before_and_after_and_what_must_not_be_missed() -> None:
    found = tree(report())
    rows = [["".join(cell.itertext()) for cell in row] for row in found.iter("tr")]
    assert rows[1] == ["nodes", "6", "4", "-33.3%"]
    assert ["accuracy", "98.00%", "95.12%", ""] in rows
    assert ["sqnr", "", "23.4 dB", ""] in rows
    items = ["".join(item.itertext()) for item in found.iter("li")]
    assert "accuracy falls by 2.88%" in items
    assert "left out: noop at n1 changed the result (it was wrong)" in items
    assert [e.text for e in found.iter("code")] == ["graphopt optimize MODEL --device cpu --threads 1 -o out.onnx\n"]


def test_only_what_was_verified_is_marked_as_good() -> None:
    assert "✅ verified" in markdown(lossless())
    assert "❌ unverified" in markdown(replace(lossless(), verification=None))


def test_nothing_in_a_name_is_markup() -> None:
    usual = {e.tag for e in tree(report()).iter()}
    for name in (*HOSTILE, "`a` | b", "\n\n# head", "```", "@all #1 http://x.example"):
        source = replace(report().source, name=name)
        hostile = replace(report(), source=source, asked=name, left_out=(LeftOutReport(name, name, name),))
        assert {e.tag for e in tree(hostile).iter()} == usual, name
        assert len(list(tree(hostile).iter("tr"))) == len(list(tree(report()).iter("tr")))


def test_the_command_writes_it(tmp_path: Path) -> None:
    model, file = stored(net(), tmp_path / "net.onnx"), tmp_path / "report.md"
    assert command("optimize", model, "-q", "--unverified", "--markdown", file).code == 0
    assert "### graphopt optimize: " in file.read_text("utf-8")
