"""The page with two graphs, in a browser: it opens, it answers to hands, and names from a model do nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import onnx

import graphopt
from graphopt.report.changes import DiffReport
from graphopt.report.changes_page import page
from tests.end_to_end.support import net
from tests.report.test_any_text import harmless
from tests.report.test_changes import said
from tests.support.browser import Browser

HOSTILE = (
    "</script><img src=x onerror=\"document.title='owned'\">",
    "<svg/onload=alert(1)>",
    "]]>--><script>document.title='owned'</script>",
    "\"'`\\ \u2028\u2029\u202eevil\u0000\u001b[31m",
    "__proto__",
    "constructor",
    "n" * 5000,
)


@cache
def report() -> DiffReport:
    model = net(3)
    return graphopt.diff(model, graphopt.optimize(model, device="cpu", threads=1).model)


def hostile() -> DiffReport:
    """The same, in which every node, value and attribute is called something bad."""
    found = report()

    def named(side: int) -> dict[str, str]:
        return {
            n.key: f"{HOSTILE[i % len(HOSTILE)]}{side}{i}"
            for i, n in enumerate((found.before, found.after)[side].nodes)
        }

    keys = named(0), named(1)
    sides = [
        replace(
            side,
            name=HOSTILE[0],
            values=dict.fromkeys(HOSTILE, HOSTILE[0]),
            nodes=tuple(
                replace(
                    n,
                    key=keys[i][n.key],
                    op=HOSTILE[k % 2],
                    nodes=tuple(keys[1 - i][o] for o in n.nodes),
                    notes=HOSTILE,
                    inputs=HOSTILE,
                    attributes=dict.fromkeys(HOSTILE, HOSTILE[0]),
                    reads=tuple(keys[i][r] for r in n.reads),
                )
                for k, n in enumerate(side.nodes)
            ),
        )
        for i, side in enumerate((found.before, found.after))
    ]
    return replace(found, before=sides[0], after=sides[1], ports=HOSTILE, notes=HOSTILE)


class Tags(HTMLParser):
    """The elements and attributes of a page, and what stands in its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: set[tuple[str, ...]] = set()
        self.scripts: list[str] = []
        self._inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add((tag, *sorted(name for name, _ in attrs)))
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data

    def handle_endtag(self, _tag: str) -> None:
        self._inside = False


def test_no_name_becomes_an_element_an_attribute_or_a_script() -> None:
    plain, made = Tags(page(report())), Tags(page(hostile()))
    assert made.seen - plain.seen <= {("ul",), ("li",)}
    assert len(made.scripts) == 2
    assert made.scripts[1] == plain.scripts[1]
    assert not set("<>&") & set(made.scripts[0])
    assert made.scripts[0].isascii()


def test_nothing_that_is_printed_reaches_the_terminal_as_it_came() -> None:
    harmless(said(hostile(), whole=True))


def test_it_needs_nothing_from_anywhere_and_allows_one_script() -> None:
    text = page(report())
    assert "default-src 'none'" in text
    assert len(re.findall(r"script-src 'sha256-[\w+/=]{44}'", text)) == 1
    assert not re.findall(r"(?:src|href)\s*=|url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)


# -- in a browser ------------------------------------------------------------------------------------------------------


def opened(browser: Browser, folder: Path, report: DiffReport, fragment: str = "") -> None:
    path = folder / "page.html"
    path.write_text(page(report), encoding="utf-8")
    browser.open(path, fragment)
    browser.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")


def test_it_opens_at_once_and_draws_both_graphs(browser: Browser, tmp_path: Path) -> None:
    opened(browser, tmp_path, report())
    assert browser.run("Number(document.documentElement.dataset.drawn)") < 3000
    drawn = browser.run("['before', 'after'].map(s => document.querySelectorAll(`#${s} .node`).length)")
    assert drawn[0] > drawn[1] > 0
    assert browser.complaints() == []


def test_a_click_on_a_fused_node_tells_what_it_came_from(browser: Browser, tmp_path: Path) -> None:
    opened(browser, tmp_path, report())
    fused = next(n for n in report().after.nodes if n.kind == "fused")
    browser.click("#after .node.fused")
    assert browser.run("document.querySelectorAll('#before .kin').length") == len(fused.nodes)
    assert browser.run("document.querySelectorAll('#after .on:not(.edge)').length") == 1
    text = browser.run("document.getElementById('told').innerText")
    assert all(key in text for key in (fused.key, *fused.nodes))
    browser.click("#told ul li button[data-side='0']")
    assert browser.run("document.querySelector('#told .key').textContent") == fused.nodes[0]
    assert browser.run("decodeURIComponent(location.hash)") == f"#node=before:{fused.nodes[0]}"
    browser.press("Escape")
    assert browser.run("document.getElementById('lists').isConnected")
    assert browser.complaints() == []


def test_search_and_keys(browser: Browser, tmp_path: Path) -> None:
    opened(browser, tmp_path, report())
    browser.press("/")
    for letter in "relu":
        browser.press(letter)
    count = sum(
        "relu" in f"{n.key}{n.op}{n.outputs}".lower() for s in (report().before, report().after) for n in s.nodes
    )
    assert browser.run("document.getElementById('found').textContent") == str(count)
    browser.press("Enter")
    assert browser.run("document.getElementById('found').textContent") == f"1/{count}"
    browser.press("Escape")
    browser.press("n")
    first = next(n for n in report().after.nodes if n.kind != "same")
    assert browser.run("document.querySelector('#told .key').textContent") == first.key
    browser.press("ArrowLeft")
    assert browser.run("document.querySelector('#told .key').textContent") == first.nodes[0]
    scale = "document.querySelector('#after > g').getAttribute('transform')"
    before = browser.run(scale)
    browser.press("+")
    browser.run("new Promise(requestAnimationFrame)")
    assert browser.run(scale) != before
    assert browser.complaints() == []


def test_an_address_may_name_a_node_or_a_word(browser: Browser, tmp_path: Path) -> None:
    key = report().after.nodes[-1].key
    opened(browser, tmp_path, report(), f"#node=after:{key}")
    assert browser.run("document.querySelector('#told .key').textContent") == key
    opened(browser, tmp_path, report(), "#q=no%20such%20thing")
    assert browser.run("document.getElementById('found').textContent") == "0"


def test_hostile_names_are_shown_and_do_nothing(browser: Browser, tmp_path: Path) -> None:
    opened(browser, tmp_path, hostile())
    title = browser.run("document.title")
    browser.click("#after .node")
    browser.run("document.querySelectorAll('#told button').forEach(b => b.click())")
    browser.press("/")
    for letter in "<img":
        browser.press(letter)
    browser.run("new Promise(r => setTimeout(r, 50))")
    assert browser.run("document.title") == title
    assert browser.run("document.querySelectorAll('img, script').length") == 2
    assert "<img" in browser.run("document.getElementById('told').innerText")
    assert browser.complaints() == []


def test_only_what_is_seen_is_drawn(browser: Browser, tmp_path: Path) -> None:
    nodes = [onnx.helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"], name=f"n{i}") for i in range(2000)]
    first, last = (onnx.helper.make_tensor_value_info(n, 1, [2]) for n in ("v0", "v2000"))
    graph = onnx.helper.make_graph(nodes, "g", [first], [last])
    model = onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 21)])
    opened(browser, tmp_path, graphopt.diff(model, model))
    count = "document.querySelectorAll('svg *').length"
    assert browser.run(count) < 500
    browser.press("0")
    browser.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
    assert browser.run(count) < 50
