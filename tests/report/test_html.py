"""The report as a page: all of it is there, none of it is live but our script, and it needs nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphopt
from graphopt.compress.refit import Refit
from graphopt.compress.sparse import Sparse
from graphopt.report.data import LeftOutReport, Report
from graphopt.report.html import page
from graphopt.report.markup import code, curve, lines, path, scatter
from graphopt.report.plan import (
    FormReport,
    Metric,
    NoiseReport,
    PlanReport,
    TriedReport,
    WidthReport,
)
from tests.end_to_end.support import command, net, stored
from tests.report.test_any_text import harmless, nasty, spoken, usual

PLAN = PlanReport(
    budget={"macs": 0.5},
    max_drop={"accuracy": 0.01},
    groups=(
        WidthReport("conv7", "channel", 64, 24, 0.3125, {64: 0.0, 32: 0.01, 24: 0.0234, 8: 0.7}),
        WidthReport("conv8", "block", 12, 12, 0.0, {}),
    ),
    forms=(FormReport("conv5", 'lowrank{first="h"}', {"macs": 0.5, "params": 0.5, "bytes": 0.5}, 0.0321),),
    tried=(
        TriedReport(0.625, 0.02, 0.015, {"accuracy": Metric(0.98, 0.9765)}, 0.8, met=True),
        TriedReport(0.5, 0.03, 0.02, {"accuracy": Metric(0.98, 0.9712)}, None, met=True, chosen=True),
        TriedReport(0.25, 0.2, 0.1, {"accuracy": Metric(0.98, 0.7)}, None, met=False),
    ),
    refits=(Refit("conv9", 640, 24, 1e-3, "primal", 0.4321, 0.0123),),
    calibrated=1234,
    judged=137,
    only=False,
)
NOISE = (
    NoiseReport(0.0, 50, {"accuracy": Metric(0.98, 0.96), "sqnr": Metric(math.inf, 23.4)}),
    NoiseReport(0.25, 50, {"accuracy": Metric(0.97, 0.75), "sqnr": Metric(20.0, 12.25)}),
)
LIVE = {"link", "img", "iframe", "object", "embed", "base", "a", "form", "use", "image", "foreignObject"}
LOADS = {"src", "href", "srcset", "action", "data", "style", "xlink:href"}
COORDINATES = {"x", "y", "cx", "cy", "r", "width", "height", "points", "d", "viewBox"}


@cache
def lossless() -> Report:
    return graphopt.optimize(net(), device="cpu", threads=1).report.at(Path("out.onnx"))


@cache
def report() -> Report:
    found = lossless()
    assert found.verification is not None
    metrics = {"accuracy": Metric(0.98, 0.9512), "sqnr": Metric(math.inf, 23.4)}
    return replace(
        found,
        plan=PLAN,
        verification=replace(found.verification, metrics=metrics, noise=NOISE),
        left_out=(LeftOutReport("noop", "n1", "it was wrong"),),
        notes=("a note",),
    )


class Reader(HTMLParser):
    """Keeps the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_data(self, data: str) -> None:
        self.found.append(data)


def read(text: str) -> ET.Element:
    """The page, which is XML as well, once nothing in it was found to be live."""
    tree = ET.fromstring(text)  # noqa: S314 - our own, without entities
    assert not {e.tag for e in tree.iter()} & LIVE
    scripts = list(tree.iter("script"))
    assert len(scripts) <= 1
    for script in scripts:
        known = base64.b64encode(hashlib.sha256((script.text or "").encode()).digest()).decode()
        assert f"script-src 'sha256-{known}';" in text
        assert not script.attrib
    names = {name for e in tree.iter() for name in e.attrib}
    assert not names & LOADS
    assert not [name for name in names if name.startswith("on")]
    for e in tree.iter():
        for name in COORDINATES & e.attrib.keys():
            assert all(math.isfinite(float(n)) for n in re.findall(r"[^\sMVH,]+", e.attrib[name])), e.attrib[name]
    return tree


def said(text: str) -> str:
    """What a reader sees, as HTML parsers read it."""
    reader = Reader()
    reader.feed(text)
    reader.close()
    return " ".join(part for part in reader.found if part.strip())


def rows(tree: ET.Element) -> Iterator[list[str]]:
    return (["".join(cell.itertext()) for cell in row] for row in tree.iter("tr"))


def test_the_page_of_a_report_without_a_plan() -> None:
    tree = read(page(lossless()))
    heads = ["What came out", "Verification", "Steps", "Where it was made", "To do it again"]
    assert [h.text for h in tree.iter("h2")] == heads
    lines = {row[0]: row[1:] for row in rows(tree)}
    assert lines["nodes"][:3] == ["6", "4", "-33.3%"]
    assert lines["MACs"][:3] == ["11,664", "11,664", ""]
    step = lines["fuse-linear"]
    assert (step[0], step[1], step[3]) == ("rounding", "2", "fold_batchnorm × 2")
    assert float(step[2]) > 0
    assert "nothing to do for " in said(page(lossless()))
    edits = next(e for e in tree.iter("details") if "Each edit" in (e.findtext("summary") or ""))
    assert [e.text for e in edits.iter("li")] == list(lossless().edits)
    host, found = lossless().host, lossless().verification
    assert host is not None
    assert found is not None
    assert lines["system"] == [host.system]
    assert lines["models ran on"] == [str(found.environment)]
    assert next(tree.iter("code")).text == "graphopt optimize MODEL --device cpu --threads 1 -o out.onnx"
    assert "the same function, smaller and faster" in said(page(lossless()))
    assert "verified: " in said(page(lossless()))


def test_the_page_of_a_report_with_a_plan() -> None:
    text = page(report(), 'passes = ["clean"]\n')
    found = list(rows(read(text)))
    group = next(row for row in found if row[0] == "conv7")
    hover = "error 0 to 0.70.7 at 80.023 at 240.01 at 320 at 64"
    assert group[1:] == ["64", "24", "", "-31.2%", "0.023", "0.01", hover, "channel"]
    assert ["conv9", "primal", "640 × 24", "0.001", "0.432", "0.0123"] in found
    assert ["62.5%", "0.02", "0.015", "98.00% → 97.65%", "80.0%", "yes"] in found
    assert ["50.0%", "0.03", "0.02", "98.00% → 97.12%", "", "yes, emitted"] in found
    assert ["25.0%", "0.2", "0.1", "98.00% → 70.00%", "", "no"] in found
    assert ["0.25", "97.00% → 75.00%", "20.0 dB → 12.2 dB"] in found
    assert ["accuracy", "98.00% → 95.12%"] in found
    for words in (
        "at most 50.0% of macs; accuracy may fall by 1.00%",
        "accuracy falls by 2.88%",
        "verified against the model as it was compressed, not the original",
        "warning: the data is synthetic",
        "left out: noop at n1 changed the result (it was wrong)",
        "note: a note",
        "learned from 1,234 samples, judged by 137 others",
        'passes = ["clean"]',
    ):
        assert words in said(text), words


def circles(tree: ET.Element, inside: str) -> list[tuple[str, float, float]]:
    """What each dot of a picture looks like, and where it is."""
    picture = next(e for e in tree.iter("svg") if (e.findtext("title") or "").startswith(inside))
    return [(c.attrib["class"], float(c.attrib["cx"]), float(c.attrib["cy"])) for c in picture.iter("circle")]


def points(line: ET.Element) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, _, y in (p.partition(",") for p in line.attrib["points"].split())]


def test_the_page_of_a_report_with_zeros() -> None:
    sparse = (
        Sparse("conv9", 640, 480, "share by obs", math.inf, 0.5, 0.25),
        Sparse("conv<3>", 160, 0, "it is depthwise", None, 0.0, 0.0),
    )
    plan = replace(PLAN, groups=(), forms=(), tried=(), sparsify="sparsify{share=0.75}", sparse=sparse)
    text = page(replace(report(), plan=plan))
    found = list(rows(read(text)))
    assert ["conv9", "share by obs", "640", "75.0%", "", "bias only", "0.5", "0.25"] in found
    assert ["conv<3>", "it is depthwise", "160", "0.0%", "", "as it was", "0", "0"] in found
    told = "zeros: 480 of 800 weights (60.0%), in 1 product, dense: 1 other"
    assert told in said(text)
    assert "sparsify{share=0.75}" in said(text)
    assert "learned from 1,234 samples, judged by 137 others" in said(text)
    assert "What was cut" not in said(text)


def test_the_chosen_width_is_marked() -> None:
    tree = read(page(report()))
    line = points(next(e for e in tree.iter("polyline") if e.attrib["class"] == "curve"))
    assert circles(tree, "error") == [("chosen" if i == 1 else "dot", *p) for i, p in enumerate(line)]
    xs, ys = zip(*line, strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys), "fewer units, to the left, cost more: that is up, where y is small"


def test_every_plan_is_marked_and_the_original_beside_them() -> None:
    found = circles(read(page(report())), "3 plans")
    assert [look for look, _, _ in found] == ["kept", "chosen", "open", "original dot"]
    places = {look: (x, y) for look, x, y in found}
    assert places["open"][0] < places["chosen"][0] < places["kept"][0] < places["original dot"][0]
    assert places["open"][1] > places["chosen"][1] > places["kept"][1] > places["original dot"][1]


def test_noise_is_a_line_for_each_model() -> None:
    tree = read(page(report()))
    first, second = (
        points(next(e for e in tree.iter("polyline") if e.attrib["class"] == look)) for look in ("original", "result")
    )
    assert all(a[0] == b[0] and a[1] < b[1] for a, b in zip(first, second, strict=True))
    assert first[0][0] < first[1][0]
    assert "With noise" in said(page(report()))
    assert "With noise" not in said(page(lossless()))


def test_what_is_allowed_is_said() -> None:
    plan = replace(PLAN, max_drop={"accuracy": 0.001, "sqnr": 20, "cosine": 0.01})
    text = page(replace(report(), plan=plan))
    assert "accuracy may fall by 0.10%; sqnr of at least 20 dB; cosine may fall by 0.01" in said(text)


def test_a_long_name_is_broken_behind_its_parts_and_stays_one() -> None:
    found = path("/a/b.c<d>")
    assert found == '<span class="path">/a/<wbr/>b.<wbr/>c&lt;d&gt;</span>'
    assert said(found).replace(" ", "") == "/a/b.c<d>"


@pytest.mark.parametrize(("damping", "told"), [(None, "as it was"), (math.inf, "bias only"), (0.25, "0.25")])
def test_how_a_product_was_fitted(damping: float | None, told: str) -> None:
    plan = replace(PLAN, refits=(replace(PLAN.refits[0], damping=damping),))
    assert [row[3] for row in rows(read(page(replace(report(), plan=plan)))) if row[0] == "conv9"] == [told]


def test_of_a_plan_alone_nothing_is_said_to_be_written() -> None:
    text = page(replace(report(), plan=replace(PLAN, only=True)), "passes = []")
    assert "What would be cut" in said(text)
    assert "passes = []" not in said(text)
    assert "".join(next(read(text).iter("h1")).itertext()).endswith(" → a plan")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("verification", None),
        ("data", None),
        ("timing", None),
        ("plan", replace(PLAN, groups=(), forms=(), tried=(), refits=())),
    ],
)
def test_what_is_not_there_is_left_out(name: str, value: Any) -> None:
    bare = page(replace(report(), **{name: value}))
    assert len(bare) < len(page(report()))
    read(bare)


def test_work_that_is_not_known_is_not_shown_but_said() -> None:
    text = page(replace(lossless(), source=replace(lossless().source, macs=None, unknown_macs=3)))
    assert not [row for row in rows(read(text)) if row[0] == "MACs"]
    assert "note: MACs leave out 3 nodes" in said(text)


def test_nothing_was_run() -> None:
    text = said(page(replace(lossless(), verification=None, data=None, timing=None, unchanged="why")))
    assert "unverified: nothing was run" in text
    assert "unchanged: why" in text


def test_it_needs_nothing_from_anywhere() -> None:
    text = page(report(), "a = 1")
    assert "//" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


@settings(usual, max_examples=60)
@given(data=st.data())
def test_no_text_is_live(data: st.DataObject) -> None:
    markup = st.sampled_from(
        ["<b>", "<script>", "</style>", "</title>", "'\"><img src=x onerror=y>", "&lt;", "]]>", "-->"]
    )
    told = spoken(report(), lambda: data.draw(st.one_of(nasty, markup)))
    text = page(told, data.draw(st.one_of(nasty, markup)))
    harmless(text)
    plain, hostile = ({e.tag for e in read(t).iter()} for t in (page(report(), "a"), text))
    assert hostile <= plain | {"wbr"}, "a text became an element"


numbers = st.one_of(st.floats(), st.sampled_from([1.7e308, -1.7e308, 5e-324, 0.0, -0.0]))


@settings(usual, max_examples=50)
@given(st.dictionaries(st.integers(1, 1 << 40), numbers, max_size=6), st.integers(1, 1 << 40), st.data())
def test_every_coordinate_is_finite(points: dict[int, float], chosen: int, data: st.DataObject) -> None:
    read(f"<p>{curve(points, data.draw(st.sampled_from([*points, chosen])))}</p>")
    pairs = data.draw(st.lists(st.tuples(numbers, numbers), max_size=6))
    read(f"<p>{scatter('', pairs, ['kept'] * len(pairs), str, str)}{lines({'original': pairs}, str, str)}</p>")
    group = WidthReport("g", "channel", 8, data.draw(st.integers(0, 9)), data.draw(numbers), points)
    timing = lossless().timing
    assert timing is not None
    timing = replace(timing, original_ms=data.draw(numbers), candidate_ms=data.draw(numbers))
    read(page(replace(report(), timing=timing, plan=replace(PLAN, groups=(group,)))))


def test_a_recipe_is_shown_line_by_line() -> None:
    long = "x" * 5000
    assert said(code(f'a = "<b>"\n{long}\n\u202e')) == f'a = "<b>"\n{long}\n\\u202e'


def test_the_command_writes_what_the_api_makes(tmp_path: Path) -> None:
    model, file = stored(net(), tmp_path / "net.onnx"), tmp_path / "report.html"
    assert command("optimize", model, "-q", "--device", "cpu", "--threads", 1, "--html", file).code == 0
    result = graphopt.optimize(model, device="cpu", threads=1)
    made = result.to_html()
    written = read(file.read_text(encoding="utf-8"))
    assert "net.onnx → net.opt.onnx" in "".join(next(written.iter("h1")).itertext())
    counted = [[row[:4] for row in rows(tree) if row[0] in {"nodes", "bytes"}] for tree in (written, read(made))]
    assert counted[0] == counted[1]
    again = f"graphopt optimize {model} --device cpu --threads 1"
    asked, recipe = (e.text for e in written.iter("code"))
    assert asked == f"{again} -o {tmp_path / 'net.opt.onnx'}"
    assert [again, recipe] == [e.text for e in read(made).iter("code")]
    assert again in result.to_markdown()
