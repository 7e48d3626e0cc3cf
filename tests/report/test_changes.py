"""The report on two models: what is told of constants, ports and headers, and where nodes are drawn."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import onnx
import pytest
from rich.console import Console

import graphopt
from graphopt.report import changes_table
from graphopt.report.changes import DiffReport
from graphopt.report.layout import Drawn, arrange
from tests.end_to_end.support import assert_fails, command, net, stored
from tests.support.models import parse


def said(report: DiffReport, *, whole: bool = False) -> str:
    laid = io.StringIO()
    Console(file=laid, width=160).print(changes_table.diff(report, whole=whole))
    return laid.getvalue()


def constants(before: str, after: str) -> list[tuple[Any, ...]]:
    head = "g (float[2] x) => (float[2] y) <{}> {{ y = Add(x, {}) }}"
    found = graphopt.diff(*(parse(head.format(text, text.split()[1])) for text in (before, after)))
    return [(c.name, c.kind, c.before, c.after) for c in found.constants]


def test_a_model_does_not_differ_from_itself() -> None:
    found = graphopt.diff(net(), net())
    assert found.equal
    assert not found.derived
    assert set(found.kinds) == {"same"}
    assert said(found).startswith("no difference: ")


def test_what_was_optimized_came_from_somewhere_and_says_so() -> None:
    model = net()
    result = graphopt.optimize(model, device="cpu", threads=1).model
    onnx.helper.set_model_props(result, {"graphopt.source_sha256": graphopt.diff(model, model).before.sha256})
    found = graphopt.diff(model, result)
    assert found.derived
    assert not found.equal
    assert "unknown" not in found.kinds
    assert all(n.nodes for n in found.after.nodes)
    assert found.gone == {n.kind: found.gone[n.kind] for n in found.before.nodes if n.kind in found.gone}
    assert sum(found.kinds.values()) == len(found.after.nodes)
    text = said(found)
    assert "B says that graphopt made it from A" in text
    assert "fused" in text
    back = graphopt.diff(graphopt.optimize(model, device="cpu", threads=1).model, model)
    assert "unknown" not in back.kinds


def test_constants_are_added_removed_changed_or_only_renamed() -> None:
    two, three = "float[2] w = {1, 2}", "float[2] w = {1, 3}"
    assert constants(two, two) == []
    assert constants(two, three) == [("w", "changed", "float 2", "float 2")]
    assert constants(two, "float[2] w_1 = {1, 3}") == [("w_1", "changed", "float 2", "float 2")]
    assert constants(two, "float[2] v_9 = {1, 2}") == []
    assert sorted(constants(two, "float[1] v_9 = {5}")) == [
        ("v_9", "added", "", "float 1"),
        ("w", "removed", "float 2", ""),
    ]


def test_ports_and_headers() -> None:
    before = parse("g (float[N,2] x, float[2] z) => (float[N,2] y) { y = Add(x, z) }")
    after = parse("g (float[3,2] x, float[2] q) => (float[3,2] y) { y = Add(x, q) }")
    after.producer_name = "somebody"
    found = graphopt.diff(before, after)
    assert found.ports == (
        "input removed: z  float32 [2]",
        "input added: q  float32 [2]",
        "input changed: x  float32 [N, 2] → x  float32 [3, 2]",
        "output changed: y  float32 [N, 2] → y  float32 [3, 2]",
    )
    assert found.header == {"producer": ("", "somebody")}
    assert found.kinds == {"same": 1}
    assert not found.equal


def test_long_lists_are_cut_unless_all_of_it_is_wanted() -> None:
    found = graphopt.diff(net(9), net(9, seed=1))
    assert "more; -v, --json and --html have them all" in said(found)
    assert "more; -v" not in said(found, whole=True)
    assert len(said(found, whole=True).splitlines()) > len(said(found).splitlines())


def test_the_command_answers_0_where_models_differ_and_3_where_one_cannot_be_read(tmp_path: Any) -> None:
    first, second = stored(net(), tmp_path / "a.onnx"), stored(net(3), tmp_path / "b.onnx")
    page, data = tmp_path / "d.html", tmp_path / "d.json"
    done = command("diff", first, second, "--html", page, "--json", data)
    assert (done.code, done.err) == (0, "")
    assert "a.onnx" in done.out
    told = json.loads(data.read_text())
    assert (told["schema"], told["equal"]) == (1, False)
    assert {"key", "op", "kind", "nodes", "notes", "attributes"} <= told["after"]["nodes"][0].keys()
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert json.loads(command("diff", first, first, "--json", "-", "-q").out)["equal"]
    second.write_bytes(b"no model")
    assert_fails(command("diff", first, second), 3, "b.onnx")
    assert_fails(command("diff", first, first, "--html", first), 2, "--html")
    assert_fails(command("diff", first, first, "--html", data, "--json", data), 2, "--json")
    assert command("diff", first).code == 2


# -- where nodes are drawn ---------------------------------------------------------------------------------------------


def chain(count: int, start: int = 0) -> list[list[int]]:
    return [[] if i == start else [i - 1] for i in range(count)]


def apart(drawn: Drawn) -> bool:
    """Whether no two nodes of a row overlap."""
    rows: dict[int, list[float]] = {}
    for x, row in zip(drawn.x.tolist(), drawn.row.tolist(), strict=True):
        rows.setdefault(row, []).append(x)
    return all((np.diff(sorted(xs)) > 0.999).all() for xs in rows.values())


def test_rows_go_down_and_counterparts_share_one() -> None:
    before, after = chain(6), chain(3)
    first, second = arrange(before, after, {0: 1, 1: 3, 2: 5})
    assert first.row.tolist() == [0, 1, 2, 3, 4, 5]
    assert second.row.tolist() == [1, 3, 5]
    longer, shorter = arrange(after, before, {1: 0, 3: 1, 5: 2})
    assert longer.row.tolist() == [1, 3, 5]
    assert shorter.row.tolist() == [0, 1, 2, 3, 4, 5]


def test_counterparts_that_changed_places_do_not_tear_graphs_apart() -> None:
    first, second = arrange(chain(4), chain(4), {0: 3, 3: 0})
    assert max(first.row.max(), second.row.max()) < 40


def test_what_feeds_one_node_stands_above_it_and_long_lines_have_a_lane() -> None:
    links = [*chain(5), [], [4, 5], [0, 6]]  # 5 is a constant for 6; 7 reads 0 again, past all others
    drawn, other = arrange(links, [], {})
    assert drawn.row.tolist() == [0, 1, 2, 3, 4, 4, 5, 6]
    assert apart(drawn)
    ways = {(a, b): way for a, b, way in drawn.edges}
    assert ways[1, 2] == ()
    assert ways[0, 7][0][1] == 1
    beside = [abs(x - drawn.x[n]) for x, row in ways[0, 7] for n in range(8) if drawn.row[n] == row]
    assert min(beside) > 0.6
    assert (other.width, len(other.x)) == (1.0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_any_graph_is_drawn_without_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    links = [sorted({int(rng.integers(i)) for _ in range(rng.integers(0, 3))}) if i else [] for i in range(120)]
    for drawn in arrange(links, links[:60], {i: i for i in range(60)}):
        assert apart(drawn)
        assert all(drawn.row[a] < drawn.row[b] for a, b, _ in drawn.edges)
        assert drawn.x.min() >= 0
        assert drawn.x.max() <= drawn.width


def test_an_empty_graph_has_a_page(tmp_path: Any) -> None:
    x = onnx.helper.make_tensor_value_info("x", 1, [1])
    path = stored(onnx.helper.make_model(onnx.helper.make_graph([], "g", [x], [x]), ir_version=10), tmp_path / "a.onnx")
    assert command("diff", path, path, "--html", tmp_path / "d.html").code == 0
