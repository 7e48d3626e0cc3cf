"""Whatever a model, its data or the runtime says, every view of every report is harmless, and JSON stays JSON."""

from __future__ import annotations

import dataclasses
import io
import json
import unicodedata
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console, RenderableType

import graphopt
from graphopt import command
from graphopt.analysis.facts import Facts
from graphopt.report import table
from graphopt.report.data import LeftOutReport, to_json
from graphopt.run.finding import Finding
from tests.end_to_end.support import net

usual = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
OURS = frozenset({"exactness", "level", "version", "sha256", "steps"})
"""Fields that hold words of our own."""
nasty = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(
            "\0\x07\x1b\x7f\x85\x9b\r\n\t\u00ad\u200b\u200e\u2028\u202e\u2066\ufeff\ue000\U000e0041[]\\%{}"
        ),
    ),
    max_size=30,
)


def harmless(text: str) -> None:
    """No control, format, surrogate or private character but the end of a line."""
    odd = [c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} and c != "\n"]
    assert not odd, ascii(text)
    text.encode()


def spoken(tree: Any, draw: Callable[[], str]) -> Any:
    """The same report, in which every text that is not ours is another."""
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        changed = {f.name: spoken(getattr(tree, f.name), draw) for f in dataclasses.fields(tree) if f.name not in OURS}
        return dataclasses.replace(tree, **changed)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return tree
    if isinstance(tree, Mapping):
        return {draw() if isinstance(k, str) else k: spoken(v, draw) for k, v in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(spoken(v, draw) for v in tree)
    return draw() if isinstance(tree, str) else tree


@cache
def reports() -> list[tuple[Callable[[Any], RenderableType], Any]]:
    model = net(1)
    done = graphopt.optimize(model, device="cpu", threads=1).report
    odd = dataclasses.replace(done, left_out=(LeftOutReport("r", "n", "why"),), notes=("note",), unchanged=None)
    counted = graphopt.inspect(model)[0]
    named = dataclasses.replace(counted, notes=("note",))
    assert isinstance(counted.facts, Facts)
    return [
        (lambda r: table.optimize(r, edits=True), odd),
        (table.optimize, dataclasses.replace(odd, unchanged="why", verification=None)),
        (table.check, graphopt.check(model, model, device="cpu", threads=1)),
        (table.check, graphopt.check(model, net(1, seed=1), device="cpu", threads=1)),
        (lambda r: table.inspect([r]), named),
        (lambda r: table.inspect(r, why="noop"), graphopt.inspect(model, why="noop")),
        (table.bench, graphopt.bench(model, device="cpu", threads=1)),
        (table.doctor, [Finding("ok", "text", "advice")]),
    ]


@settings(usual, max_examples=100)
@given(data=st.data())
def test_every_view_is_harmless(data: st.DataObject) -> None:
    for view, report in reports():
        told = spoken(report, lambda: data.draw(nasty))
        laid = io.StringIO()
        console = Console(file=laid, width=160, markup=False, highlight=False, emoji=False, force_terminal=False)
        console.print(view(told))
        harmless(laid.getvalue())
        written = to_json(told, "all" if isinstance(told, list | tuple) else "")
        assert written.isascii()
        harmless(written)
        json.loads(written)


@settings(usual, max_examples=100)
@given(text=nasty)
def test_an_error_is_one_harmless_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    command.complain(text)
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    harmless(said)
