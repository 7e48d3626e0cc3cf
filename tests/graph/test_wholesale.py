"""Replacing a whole model: one edit, and people's view of the model stays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt.graph import invariants
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.nodes import KEY, PROTECTED, graphs, key
from graphopt.graph.record import WHOLE, Edit, Exactness, Refused
from graphopt.graph.save import serialize
from tests.support.models import parse, show, source

CHAIN = """g (float[N,2] x) => (float[N,2] y) <float[2] w = {1, 2}> {
  [na] a = Relu (x)
  b = Neg (a)
  [nc] c = Mul (b, w)
  [ny] y = Abs (c)
}"""
TAKEN = ("y/Neg", "y/Neg_1")
BITWISE, ROUNDING = Exactness.BITWISE, Exactness.ROUNDING


def nodes(model: ir.Model) -> dict[str, ir.Node]:
    return {key(n): n for g in graphs(model) for n in g}


def other(text: str) -> Callable[[ir.Model], ir.Model]:
    return lambda _: ir.from_proto(parse(text))


def renamed(model: ir.Model) -> ir.Model:
    nodes(model)["ny"].op_type = "Sigmoid"
    return model


def test_it_is_one_edit_and_the_model_stays_the_same_object() -> None:
    given = source(CHAIN)
    edit = Editor(given.model)
    edit.replace_model("whole", BITWISE, renamed)
    assert edit.model is given.model
    assert [n.op_type for n in edit.model.graph] == ["Relu", "Neg", "Mul", "Sigmoid"]
    assert edit.edits == [Edit("whole", WHOLE, 0, BITWISE)]
    assert str(edit.edits[0]) == "whole at the whole model"


def test_tensors_are_shared() -> None:
    given = source(CHAIN)
    tensor = given.model.graph.initializers["w"].const_value
    Editor(given.model).replace_model("whole", BITWISE, renamed)
    assert given.model.graph.initializers["w"].const_value is tensor


def test_it_can_be_left_out() -> None:
    given, calls = source(CHAIN), list[ir.Model]()

    def change(model: ir.Model) -> ir.Model:
        calls.append(model)
        return renamed(model)

    for edit in (Editor(given.model, limit=0), Editor(given.model, skip=[Edit("whole", WHOLE, 0, BITWISE)])):
        with pytest.raises(Refused):
            edit.replace_model("whole", BITWISE, change)
        assert not edit.edits
    assert not calls
    assert nodes(given.model)["ny"].op_type == "Abs"


def test_keys_stay_and_new_nodes_get_their_own() -> None:
    given = source(CHAIN)
    text = CHAIN.replace("[nc] c = Mul (b, w)", "c = Mul (b, w)").replace("b = Neg (a)", "a2 = Relu (a) b = Neg (a2)")
    Editor(given.model).replace_model("whole", BITWISE, other(text))
    found = [key(n) for n in given.model.graph]
    assert found[0] == "na"
    assert found[-1] == "ny"
    assert len(set(found)) == 5
    assert all(KEY in n.meta for n in given.model.graph)


def test_later_edits_know_the_new_names() -> None:
    given = source(CHAIN)
    edit = Editor(given.model)

    def change(model: ir.Model) -> ir.Model:
        for value, name in zip((nodes(model)["na"].outputs[0], nodes(model)["nc"].outputs[0]), TAKEN, strict=True):
            value.name = name
        return model

    edit.replace_model("whole", BITWISE, change)
    root = nodes(edit.model)["ny"]
    draft = Draft(root)
    inner = draft.node("Neg", [root.inputs[0]])
    edit.commit("r", BITWISE, {root.outputs[0]: draft.node("Neg", [inner])}, draft=draft)
    assert not list(invariants.broken(edit.model))
    assert len(edit.edits) == 2


def test_inputs_and_outputs_are_described_as_they_were() -> None:
    given = source(CHAIN)
    Editor(given.model).replace_model("whole", BITWISE, other(CHAIN.replace("float[N,2] y", "float[M,2] y")))
    assert "float[N,2] y" in show(onnx.ModelProto.FromString(serialize(given.model, given.carried)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CHAIN.replace("x", "z"), "inputs would be others"),
        (CHAIN.replace("y)", "z)").replace("y =", "z ="), "outputs would be others"),
        (CHAIN.replace("float[N,2] y", "double[N,2] y"), "type of 'y' would change"),
        (CHAIN.replace("float[N,2] y", "float[N,3] y"), "shape of 'y' would change"),
    ],
)
def test_the_interface_must_stay(text: str, words: str) -> None:
    given = source(CHAIN)
    edit = Editor(given.model)
    with pytest.raises(Refused, match=words):
        edit.replace_model("whole", BITWISE, other(text))
    assert not edit.edits
    edit.replace_model("whole", BITWISE, renamed)
    assert edit.edits[0].occurrence == 0


def test_what_was_asked_to_stay_stays() -> None:
    given = source(CHAIN)
    with pytest.raises(Refused, match="ny was asked to stay"):
        Editor(given.model, keep=["ny"]).replace_model("whole", BITWISE, renamed)
    Editor(given.model, keep=["nc", "elsewhere"]).replace_model("whole", BITWISE, renamed)


def test_an_overridable_weight_stays_what_it_is() -> None:
    text = CHAIN.replace("(float[N,2] x)", "(float[N,2] x, float[2] w)")
    given = source(text)
    with pytest.raises(Refused, match="'w', which a feed may override"):
        Editor(given.model).replace_model("whole", BITWISE, other(text.replace("{1, 2}", "{1, 3}")))
    Editor(given.model).replace_model("whole", BITWISE, other(text))


def test_what_annotations_refer_to_stays() -> None:
    given = source(CHAIN)
    nodes(given.model)["nc"].outputs[0].meta[PROTECTED] = True
    with pytest.raises(Refused, match="annotation refers to 'c'"):
        Editor(given.model).replace_model("whole", BITWISE, other(CHAIN.replace("c", "d")))
    Editor(given.model).replace_model("whole", BITWISE, other(CHAIN))
    assert PROTECTED in nodes(given.model)["nc"].outputs[0].meta


def test_a_broken_graph_is_refused() -> None:
    given = source(CHAIN)

    def change(model: ir.Model) -> ir.Model:
        model.graph.remove(nodes(model)["na"])
        return model

    with pytest.raises(Refused, match="the graph would be broken"):
        Editor(given.model).replace_model("whole", BITWISE, change)


def test_the_record_names_what_is_rounded_differently() -> None:
    given = source(CHAIN)

    def change(model: ir.Model) -> ir.Model:
        model.graph.initializers["w"].const_value = ir.tensor(np.array([2, 2], np.float32))
        return renamed(model)

    edit = Editor(given.model)
    edit.replace_model("whole", ROUNDING, change, reduction=7)
    assert edit.edits[0].values == ("c", "y")
    assert edit.edits[0].reduction == 7
