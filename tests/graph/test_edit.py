"""The editor: what it refuses, what it records, which names it gives, and what it sweeps away."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt.graph import invariants
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.load import Source
from graphopt.graph.nodes import PROTECTED, graphs
from graphopt.graph.record import Edit, Exactness, Refused
from graphopt.graph.save import serialize
from tests.support.models import show, source

BITWISE, ROUNDING = Exactness.BITWISE, Exactness.ROUNDING

CHAIN = """g (float[N,2] x) => (float[N,2] y) <float[2] w = {1, 2}> {
  [na] a = Relu (x)
  [nb] b = Neg (a)
  [nc] c = Mul (b, w)
  [ny] y = Abs (c)
}"""

BRANCHES = """g (bool c, float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
  [na] a = Relu (x)
  [nz] z = If (c) <
    then_branch = t () => (float[2] p) <float[2] v = {3, 4}> { [nq] q = Mul (a, w) [np] p = Add (q, v) },
    else_branch = e () => (float[2] r) { [nr] r = Neg (x) }
  >
  [ny] y = Abs (x)
}"""


def text(given: Source) -> str:
    return show(onnx.ModelProto.FromString(serialize(given.model, given.carried)))


def values(model: ir.Model) -> dict[str, ir.Value]:
    found = {}
    for graph in graphs(model):
        for value in (*graph.inputs, *graph.initializers.values(), *(o for n in graph for o in n.outputs)):
            found[str(value.name)] = value
    return found


def nodes(model: ir.Model) -> dict[str, ir.Node]:
    return {str(n.name): n for g in graphs(model) for n in g}


def replaced(model: ir.Model, old: str, new: str) -> dict[ir.Value, ir.Value]:
    known = values(model)
    return {known[old]: known[new]}


def refused(given: Source, change: Callable[[Editor], None], words: str, **options: object) -> None:
    """The change is refused for a reason, and nothing has changed."""
    before = text(given)
    edit = Editor(given.model, **options)  # type: ignore[arg-type]
    with pytest.raises(Refused, match=words):
        change(edit)
    assert text(given) == before
    assert not edit.edits


# -- commit ----------------------------------------------------------------------------------------------------------


def test_readers_read_the_new_value_and_the_rest_is_swept() -> None:
    given = source(CHAIN)
    Editor(given.model).commit("r", BITWISE, replaced(given.model, "c", "a"))
    assert [n.name for n in given.model.graph] == ["na", "ny"]
    assert not given.model.graph.initializers
    assert text(given).endswith("[na] a = Relu (x)\n  [ny] y = Abs (a)\n}")


def test_a_new_node_takes_over_the_name_the_type_and_the_shape() -> None:
    given = source(CHAIN)
    known = values(given.model)
    draft = Draft(nodes(given.model)["nc"])
    made = draft.node("Mul", [known["a"], draft.const(np.array([-1, -2], np.float32), "w")])
    Editor(given.model).commit("r", ROUNDING, {known["c"]: made}, draft=draft, matched=[nodes(given.model)["nb"]])
    assert made.name == "c"
    assert made.dtype is ir.DataType.FLOAT
    assert str(made.shape) == "[N,2]"
    assert list(given.model.graph.initializers) == ["w_1"]
    assert not list(invariants.broken(given.model))


def test_a_constant_can_take_the_place_of_a_value() -> None:
    given = source(CHAIN)
    draft = Draft(nodes(given.model)["nb"])
    made = draft.const(np.zeros((1, 2), np.float32), "zero")
    Editor(given.model).commit("r", BITWISE, {values(given.model)["b"]: made}, draft=draft)
    assert set(given.model.graph.initializers) == {"w", "b"}


def test_several_outputs_at_once() -> None:
    given = source("""g (float[N,4] x) => (float[N,2] y) <int64[1] k = {2}> {
      v, i = TopK (x, k)
      w, j = TopK (x, k)
      f = Cast <to = 1> (j)
      a = Add (w, f)
      y = Add (a, v)
    }""")
    known = values(given.model)
    Editor(given.model).commit("r", BITWISE, {known["w"]: known["v"], known["j"]: known["i"]})
    assert [n.op_type for n in given.model.graph] == ["TopK", "Cast", "Add", "Add"]


def test_a_shape_that_is_found_to_be_another_is_refused() -> None:
    def wider(edit: Editor) -> None:
        known = values(edit.model)
        draft = Draft(nodes(edit.model)["nb"])
        extra = draft.node("Mul", [known["a"], draft.const(np.array([1, 2], np.float32), "extra")])
        made = draft.node("Concat", [known["a"], extra], {"axis": 1})
        edit.commit("r", BITWISE, {known["b"]: made}, draft=draft)

    refused(source(CHAIN), wider, r"the shape would change from \[N,2\] to \[N,4\]")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("b", "b", "nothing would change"),
        ("w", "x", "not computed by a node"),
        ("y", "x", "under its own name"),
        ("c", "w", "the shape would change"),
    ],
)
def test_what_is_not_safe_is_refused(old: str, new: str, words: str) -> None:
    given = source(CHAIN)
    refused(given, lambda edit: edit.commit("r", BITWISE, replaced(given.model, old, new)), words)


def test_an_output_stays_computed_by_a_node() -> None:
    given = source(CHAIN)
    draft = Draft(nodes(given.model)["ny"])
    made = draft.const(np.zeros((1, 2), np.float32), "zero")
    old = values(given.model)["y"]
    refused(given, lambda edit: edit.commit("r", BITWISE, {old: made}, draft=draft), "stays computed by a node")


def test_another_type_is_refused() -> None:
    given = source("g (float[N] x) => (int64[N] y) { a = Cast <to = 7> (x) y = Neg (a) }")
    refused(given, lambda edit: edit.commit("r", BITWISE, replaced(given.model, "a", "x")), "type would change")


@pytest.mark.parametrize(("old", "new"), [("y", "z"), ("z", "y")])
def test_two_outputs_keep_two_values(old: str, new: str) -> None:
    given = source("g (float[N] x) => (float[N] y, float[N] z) { y = Relu (x) z = Relu (x) }")
    refused(given, lambda edit: edit.commit("r", BITWISE, replaced(given.model, old, new)), "under its own name")


def test_the_output_of_a_body_is_computed_in_the_body() -> None:
    given = source(BRANCHES)
    refused(given, lambda edit: edit.commit("r", BITWISE, replaced(given.model, "p", "a")), "under its own name")


def test_what_an_annotation_names_is_not_replaced_or_swept() -> None:
    for name, root in (("c", "c"), ("b", "c")):
        given = source(CHAIN)
        known = values(given.model)
        known[name].meta[PROTECTED] = True

        def change(edit: Editor, model: ir.Model = given.model, root: str = root) -> None:
            edit.commit("r", BITWISE, replaced(model, root, "a"), matched=[nodes(model)["nb"]])

        refused(given, change, "an annotation refers")


def test_a_node_that_is_gone_is_refused() -> None:
    given = source(CHAIN)
    known, edit = values(given.model), Editor(given.model)
    edit.commit("r", BITWISE, {known["c"]: known["a"]})
    with pytest.raises(Refused, match="not computed by a node"):
        edit.commit("r", BITWISE, {known["b"]: known["a"]})


def test_what_is_declared_of_inputs_and_outputs_stays() -> None:
    given = source("""g (float[N,3] x) => (float[2,3] y, float[N,3] z) <int64[2] s = {2, 3}> {
      z = Relu (x)
      a = Reshape (x, s)
      b = Reshape (z, s)
      y = Add (a, b)
    }""")
    edit = Editor(given.model)
    edit.commit("r", BITWISE, replaced(given.model, "a", "x"))
    edit.commit("r", BITWISE, replaced(given.model, "b", "z"))
    assert text(given).startswith("g (float[N,3] x) => (float[2,3] y, float[N,3] z)")


# -- keep, skip, limit, occurrence -----------------------------------------------------------------------------------


def test_nodes_that_were_asked_to_stay() -> None:
    for kept in ("nb", "nc"):
        given = source(CHAIN)

        def change(edit: Editor, model: ir.Model = given.model) -> None:
            edit.commit("r", BITWISE, replaced(model, "c", "a"), matched=[nodes(model)["nb"]])

        refused(given, change, "asked to stay", keep=[kept])


def test_a_kept_node_survives_the_sweep() -> None:
    given = source(CHAIN)
    Editor(given.model, keep=["nb"]).commit("r", BITWISE, replaced(given.model, "c", "a"))
    assert [n.name for n in given.model.graph] == ["na", "nb", "ny"]


def test_edits_that_were_found_to_be_wrong() -> None:
    given = source(CHAIN)
    wrong = Edit("r", "nc", 0, ROUNDING)
    refused(
        given,
        lambda edit: edit.commit("r", ROUNDING, replaced(given.model, "c", "a")),
        "found to change the result",
        skip=[wrong],
    )


def test_an_edit_that_is_left_out_stays_out_when_its_rule_comes_by_again() -> None:
    given = source(CHAIN)
    edit = Editor(given.model, skip=[Edit("r", "w", 0, BITWISE)])
    weight = given.model.graph.initializers["w"]
    for text in ("a", "b"):
        with pytest.raises(Refused):
            edit.annotate("r", weight, {"doc_string": text})
    edit.annotate("other", weight, {"doc_string": "c"})
    assert [str(e) for e in edit.edits] == ["other at w"]


def test_no_edit_after_the_last_one() -> None:
    given = source(CHAIN)
    edit = Editor(given.model, limit=1)
    edit.commit("r", BITWISE, replaced(given.model, "c", "b"))
    with pytest.raises(Refused, match="enough"):
        edit.commit("r", BITWISE, replaced(given.model, "b", "a"))
    assert len(edit.edits) == 1


def test_an_edit_tells_what_is_computed_anew() -> None:
    given = source(CHAIN)
    known = values(given.model)
    draft = Draft(nodes(given.model)["nc"])
    draft.reduction = 7
    made = draft.like(nodes(given.model)["nc"], [known["a"], known["w"]])
    edit = Editor(given.model)
    edit.commit("r", ROUNDING, {known["c"]: made}, draft=draft)
    assert edit.edits == [Edit("r", "nc", 0, ROUNDING)]
    assert edit.edits[0].values == ("c",)
    assert edit.edits[0].reduction == 7


# -- names -----------------------------------------------------------------------------------------------------------


def test_fresh_names_are_fresh_in_all_graphs() -> None:
    given = source(BRANCHES)
    known = values(given.model)
    draft = Draft(nodes(given.model)["ny"])
    first, second = (draft.const(np.array([5, 6], np.float32), name) for name in ("v", "nq"))
    made = draft.node("Add", [draft.node("Mul", [known["x"], first]), second])
    Editor(given.model).commit("r", BITWISE, {known["y"]: made}, draft=draft)
    assert (first.name, second.name) == ("v_1", "nq_1")
    names = [name for g in graphs(given.model) for n in g for name in (n.name, *(o.name for o in n.outputs))]
    assert len(set(names)) == len(names)
    assert not list(invariants.broken(given.model))


def test_constants_of_a_draft_that_nothing_reads_stay_out() -> None:
    given = source(CHAIN)
    draft = Draft(nodes(given.model)["nc"])
    draft.const(np.zeros(1, np.float32), "unused")
    made = draft.node("Neg", [values(given.model)["b"]])
    Editor(given.model).commit("r", BITWISE, {values(given.model)["c"]: made}, draft=draft)
    assert not given.model.graph.initializers


# -- sweeping --------------------------------------------------------------------------------------------------------


def test_a_branch_goes_with_all_that_only_it_reads() -> None:
    given = source(BRANCHES)
    Editor(given.model).remove("r", nodes(given.model)["nz"])
    assert [n.name for n in given.model.graph] == ["ny"]
    assert not given.model.graph.initializers


def test_what_a_branch_reads_stays() -> None:
    given = source(BRANCHES.replace("Abs (x)", "Abs (z)"))
    known = values(given.model)
    refused(given, lambda edit: edit.remove("r", nodes(given.model)["na"]), "its result is used")
    refused(given, lambda edit: edit.drop_constant("r", known["w"]), "it is used")


def test_a_chain_of_four_thousand_nodes_is_swept() -> None:
    count = 4000
    links = " ".join(f"a{i + 1} = Neg (a{i})" for i in range(count))
    given = source(f"g (float[N] x) => (float[N] y) {{ a0 = Relu (x) {links} y = Abs (x) }}")
    last = values(given.model)[f"a{count}"].producer()
    assert last is not None
    Editor(given.model).remove("r", last)
    assert len(given.model.graph) == 1


# -- the other changes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interface", "words"),
    [
        ("(float[N,2] x, float[2] v) => (float[N,2] y)", "by name"),
        ("(float[N,2] x) => (float[N,2] y, float[2] v)", "by name"),
    ],
    ids=["input", "output"],
)
def test_constants_with_a_name_to_the_outside_are_not_merged(interface: str, words: str) -> None:
    given = source(f"g {interface} <float[2] v = {{1, 2}}, float[2] w = {{1, 2}}> {{ a = Mul (x, v) y = Mul (a, w) }}")
    known: Mapping[str, ir.Value] = values(given.model)
    refused(given, lambda edit: edit.merge_constants("r", known["v"], known["w"]), words)
    Editor(given.model).merge_constants("r", known["w"], known["v"])
    assert list(given.model.graph.initializers) == ["v"]


def test_notes_are_replaced_as_a_whole() -> None:
    given = source(CHAIN)
    node = nodes(given.model)["na"]
    node.metadata_props["scope"] = "layer"
    Editor(given.model).annotate("r", node, {"doc_string": None, "metadata_props": {"other": "x"}})
    assert dict(node.metadata_props) == {"other": "x"}
    assert not node.doc_string
