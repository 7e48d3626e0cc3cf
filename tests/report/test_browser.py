"""The page of a report in a real browser: it loads, sorts, tells and marks; what a model is called does nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from graphopt.report.data import LeftOutReport, Report
from graphopt.report.html import page
from tests.report.test_html import PLAN, report
from tests.support.browser import Browser

HOSTILE = (
    "</script><img src=x onerror=boom()>", "'\"><svg onload=boom()>", "</style><script>boom()</script>",
    "\u202e\x1b[2J\0", "javascript:boom()", "${boom()}", "&lt;script&gt;", "a" * 5000,
)  # fmt: skip
NAMES = "Array.from(document.querySelectorAll('table')).find(t => t.tHead.textContent.startsWith('group'))"


@contextmanager
def opened(browser: Browser, folder: Path, found: Report, *, refused: bool = False) -> Iterator[Browser]:
    """A report; at the end nothing was asked for but the page, and only what is to be refused was."""
    file = folder / "report.html"
    file.write_text(page(found, "version = 1\n"), "utf-8")
    browser.open(file)
    yield browser
    browser.view()
    complaints = browser.complaints()
    assert bool(complaints) == refused, complaints
    assert all("Content Security Policy" in c for c in complaints)


@pytest.fixture
def shown(browser: Browser, tmp_path: Path) -> Iterator[Browser]:
    """A report of four groups, one of which is named elsewhere as well."""
    first, second = (replace(g, after=g.before - 1) for g in PLAN.groups)
    groups = (
        first,
        second,
        replace(first, key="conv10", before=512, curve={}),
        replace(first, key="conv9", before=1024),
    )
    with opened(browser, tmp_path, replace(report(), plan=replace(PLAN, groups=groups))) as there:
        yield there


def column(there: Browser, number: int) -> list[str]:
    found: list[str] = there.run(f"Array.from({NAMES}.tBodies[0].rows).map(r => r.cells[{number}].textContent)")
    return found


def test_tables_sort_by_mouse_and_by_keyboard(shown: Browser) -> None:
    shown.run(f"{NAMES}.id = 'groups'")
    shown.click("#groups th:nth-child(2) button")
    assert column(shown, 1) == ["1,024", "512", "64", "12"]
    assert shown.run("document.querySelector('#groups [aria-sort]').ariaSort") == "descending"
    shown.press("Enter")
    assert column(shown, 1) == ["12", "64", "512", "1,024"]
    shown.run("document.querySelector('#groups th button').focus()")
    shown.press(" ")
    assert column(shown, 0) == ["conv7", "conv8", "conv9", "conv10"], "numbers in names count as numbers"
    assert shown.run("document.querySelectorAll('#groups [aria-sort]').length") == 1
    shown.click("#groups th:nth-child(6) button")
    assert column(shown, 5)[-2:] == ["", ""], "what is not known comes last"


def test_values_are_shown_under_the_pointer(shown: Browser) -> None:
    assert not shown.run("document.getElementById('tip').checkVisibility()")
    shown.hover("circle.chosen[data-told^='97.12']")
    assert shown.run("document.getElementById('tip').checkVisibility()")
    assert shown.run("document.getElementById('tip').textContent") == "97.12% at 50.0%"
    shown.hover("h1")
    assert not shown.run("document.getElementById('tip').checkVisibility()")


def test_a_layer_is_marked_wherever_it_is_named(shown: Browser) -> None:
    marked = "Array.from(document.querySelectorAll('.marked')).map(r => [r.cells[0].textContent, r.checkVisibility()])"
    assert shown.run(marked) == []
    shown.run("Array.from(document.querySelectorAll('.path')).find(p => p.textContent === 'conv9').id = 'nine'")
    shown.click("#nine")
    assert shown.run(marked) == [["conv9", True], ["conv9", True]], "as a group, and as a product that was fitted"
    shown.run("document.getElementById('nine').focus()")
    shown.press("Enter")
    assert shown.run(marked) == []


def test_it_is_dark_where_that_is_wanted_and_prints_all(shown: Browser) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light, seen = shown.run(ground), shown.picture()
    shown.view(dark=True)
    assert shown.run(ground) != light
    assert shown.picture() != seen
    shown.view(dark=True, media="print")
    assert shown.run(ground) == light
    assert shown.printed().startswith(b"%PDF")
    shown.view((360, 700))
    assert shown.run("document.documentElement.scrollWidth") <= 360, "what is too wide moves on its own"


def test_hostile_names_stay_text(browser: Browser, tmp_path: Path) -> None:
    plan = replace(PLAN, groups=tuple(replace(PLAN.groups[0], key=n) for n in HOSTILE))
    left_out = tuple(LeftOutReport(n, n, n) for n in HOSTILE)
    source = replace(report().source, name=HOSTILE[0])
    told = replace(report(), plan=plan, left_out=left_out, source=source, asked=HOSTILE[1])
    with opened(browser, tmp_path, told) as there:  # what ran would complain: there is no boom
        for number in range(1, len(HOSTILE) + 1):
            there.click(f"tbody tr:nth-child({number}) .path")
            there.hover(f"tbody tr:nth-child({number}) svg[role=img]")
        there.run("document.querySelectorAll('th button').forEach(b => b.click())")
        assert there.run("document.querySelectorAll('script').length") == 1
        assert there.run("document.querySelectorAll('img, [onload], [onerror], body > svg').length") == 0
        assert HOSTILE[0] in there.run("document.body.innerText")


def test_a_script_that_got_in_does_not_run(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, tmp_path, report(), refused=True) as there:
        there.run("document.body.append(Object.assign(document.createElement('script'), { text: 'window.ran = 1' }))")
        there.run("document.body.insertAdjacentHTML('beforeend', '<details open ontoggle=\"window.ran = 2\">')")
        assert there.run("window.ran") is None
