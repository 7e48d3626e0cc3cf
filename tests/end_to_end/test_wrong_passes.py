"""Every pass of every recipe with a mistake planted in one of its edits: what it does is found, named and left out.

The mistakes know nothing of the passes. An edit is looked at when it is recorded, which is the last that is done of it:
what is new in the graph by then is spoiled in one of several ways. The models are those of the golden cases on which
the pass fires, so that a new pass is covered by being in the recipe. `-m soak` tries all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import islice
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt import pipeline
from graphopt.analysis.evidence import gather
from graphopt.catalogue import LOSSLESS, ON_REQUEST
from graphopt.errors import InputError
from graphopt.graph import probes
from graphopt.graph.edit import Editor
from graphopt.graph.load import Source
from graphopt.graph.nodes import graphs, is_constant, key
from graphopt.graph.record import Edit
from graphopt.graph.save import serialize
from graphopt.pipeline import Outcome, Settings
from graphopt.protocol import Pass
from graphopt.recipe import Recipe
from graphopt.run.child import Child
from graphopt.run.session import Feed
from tests.golden.cases import RULES, Case, every
from tests.support.models import differences, feed, run

CASES = {str(c): c for c in every() if "unrunnable" not in c.fields}
SETTINGS = Settings(threads=1)
EXPOSED, EQUAL = 1e-3, 1e-4
"""Parts of an output's scale: what is off by more is wrong, and what is off by less is right."""
MOST = 12
"""Models that are tried for each mistake where not all are."""


# -- mistakes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fresh:
    """What an edit made, or what is near to it where it only took away."""

    nodes: Sequence[ir.Node]
    constants: Sequence[ir.Value]


def another_constant(made: Fresh) -> bool:
    """A hundredth too large; integers by one, and truths are lies."""
    for value in made.constants:
        tensor = value.const_value
        if tensor is not None and tensor.dtype is not ir.DataType.STRING and tensor.size:
            value.const_value = ir.tensor(_off(tensor.numpy()), dtype=tensor.dtype, name=value.name)
            return True
    return False


def _off(contents: Any) -> Any:
    if contents.dtype.kind == "b":
        return ~contents
    if contents.dtype.kind in "iu":
        return contents + contents.dtype.type(1)
    with np.errstate(over="ignore"):
        return np.where(contents == 0, 1, contents * 1.01).astype(contents.dtype)


def swapped_inputs(made: Fresh) -> bool:
    for node in made.nodes:
        first, second = (*node.inputs, None, None)[:2]
        if first is not second and second is not None:
            node.replace_input_with(0, second)
            node.replace_input_with(1, first)
            return True
    return False


def forgotten_node(made: Fresh) -> bool:
    """The last one hands on what it is given."""
    for node in reversed(made.nodes):
        if node.inputs and len(node.outputs) == 1 and node.op_type != "Identity" and node.graph is not None:
            idle, old = ir.node("Identity", node.inputs[:1], name=node.name), node.outputs[0]
            new = idle.outputs[0]
            new.name, new.type, new.shape = old.name, old.type, old.shape
            node.graph.insert_before(node, idle)
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            node.graph.remove(node, safe=True)
            return True
    return False


def another_attribute(made: Fresh) -> bool:
    for node in made.nodes:
        for name, attribute in node.attributes.items():
            if (changed := _another(attribute)) is not None:
                node.attributes[name] = changed
                return True
    return False


def _another(attribute: ir.Attr) -> ir.Attr | None:
    kind, name, value = attribute.type, attribute.name, attribute.value
    if attribute.is_ref():
        return None
    if kind is ir.AttributeType.FLOAT:
        return ir.AttrFloat32(name, value * 1.01 or 1.0)
    if kind is ir.AttributeType.INT:
        return ir.AttrInt64(name, value + 1)
    if kind is ir.AttributeType.INTS and value:
        turned = tuple(value)[::-1]
        return ir.AttrInt64s(name, turned if turned != tuple(value) else [n + 1 for n in value])
    if kind is ir.AttributeType.TENSOR and value.dtype is not ir.DataType.STRING and value.size:
        return ir.AttrTensor(name, ir.tensor(_off(value.numpy()), dtype=value.dtype))
    return None


Mistake = Callable[[Fresh], bool]
"""Spoils what an edit made; False where there is nothing that it could spoil."""

MISTAKES: Sequence[Mistake] = (another_constant, swapped_inputs, forgotten_node, another_attribute)


# -- planting --------------------------------------------------------------------------------------------------------


@dataclass
class Plan:
    """A mistake that one edit of a pass makes, and makes again whenever it is made again."""

    mistake: Mistake
    rules: frozenset[str]
    met: bool = False
    """Whether the pass made any edit at all."""
    edit: Edit | None = None
    """The first one that could be spoiled."""

    def concerns(self, edit: Edit) -> bool:
        return edit == self.edit if self.edit else edit.rule in self.rules


@dataclass
class Record(list[Edit]):
    """The record of an editor, where mistakes come in."""

    model: ir.Model
    plan: Plan
    seen: dict[int, Any] = field(default_factory=dict)

    def append(self, edit: Edit) -> None:
        super().append(edit)
        if self.plan.concerns(edit):
            self.plan.met = True
            if self.plan.mistake(self._fresh(edit)):
                self.plan.edit = edit
        self.look()

    def look(self) -> None:
        """Remember the graph as it is. What is remembered is held, so that nothing new can have its identity."""
        self.seen = {id(n): (n, n.inputs) for n in _nodes(self.model)}
        self.seen |= {id(v): (v, ()) for v in _constants(self.model)}

    def _fresh(self, edit: Edit) -> Fresh:
        there = list(_nodes(self.model))
        nodes = [n for n in there if self.seen.get(id(n), (n, None))[1] != n.inputs]
        nodes = nodes or [n for n in there if key(n) == edit.root] or there
        constants = [v for v in _constants(self.model) if id(v) not in self.seen]
        return Fresh(nodes, constants or [v for n in nodes for v in n.inputs if v is not None and is_constant(v)])


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    return (node for graph in graphs(model) for node in graph)


def _constants(model: ir.Model) -> Iterator[ir.Value]:
    return (value for graph in graphs(model) for value in graph.initializers.values())


class Careless(Editor):
    """An editor that lets a plan come true."""

    def __init__(self, plan: Plan, model: ir.Model, **options: Any) -> None:
        super().__init__(model, **options)
        record = Record(model, plan)
        record.look()
        self.edits = record


# -- trying ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A model on which some pass fires, and what it is run on."""

    case: Case
    passes: tuple[Pass, ...]
    source: Source
    feeds: tuple[Feed, ...]

    @property
    def recipe(self) -> Recipe:
        return Recipe(self.passes, target=self.case.target, fast_math="fast" in self.case.fields)

    def rewritten(self, *, verified: bool) -> Outcome:
        return pipeline.optimize(self.source, self.recipe, self.feeds if verified else None, SETTINGS)

    def off(self, outcome: Outcome, relative: float) -> list[str]:
        """Where a result differs from the source by more than a part of each output's scale, on feeds of our own."""
        before, after = (_seeded(m, self.source) for m in (self.source.model, outcome.model))
        found = []
        for seed, dims in enumerate(self.case.bindings):
            given = feed(before, dims, seed=seed)
            try:
                found += differences(run(before, given), run(after, given), relative=relative)
            except InputError as problem:
                found.append(str(problem))
        return found


def _seeded(model: ir.Model, source: Source) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(serialize(probes.seeded(model), source.carried))


@cache
def subject(name: str) -> Subject | None:
    """The model of a case, if feeds can be made up for it."""
    case = CASES[name]
    source = case.source()
    try:
        return Subject(case, case.passes, source, gather(source, None).feeds)
    except InputError:
        return None


@pytest.fixture(autouse=True, scope="module")
def _one_child() -> Iterator[None]:
    """A process for all: to start one takes longer than anything that is asked of it here."""
    with Child() as child, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "Child", lambda: nullcontext(child))
        yield


def caught(tried: Subject, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a mistake matters; if it does, insist that it is found."""
    monkeypatch.setattr(pipeline, "Editor", partial(Careless, plan))
    wrong = tried.rewritten(verified=False)
    if plan.edit is None or wrong.unchanged or not tried.off(wrong, EXPOSED):
        return False
    found = tried.rewritten(verified=True)
    if found.verification is not None and not found.verification.evidence:
        return False  # and it says so: where a slice is empty at every extent that was tried, for one
    told = f"{plan.mistake.__name__} in {plan.edit} of {tried.case}"
    assert found.unchanged or plan.edit in [x.edit for x in found.left_out], f"{told}: {found.left_out}"
    assert not tried.off(found, EQUAL), told
    return True


@pytest.mark.parametrize("step", [*LOSSLESS, *ON_REQUEST], ids=lambda p: p.name)
def test_a_mistake_in_any_pass_is_found(step: type[Pass], monkeypatch: pytest.MonkeyPatch) -> None:
    missing = list(MISTAKES)
    for tried in islice(subjects(step), MOST):
        for mistake in tuple(missing):
            plan = Plan(mistake, frozenset(step.rules))
            if caught(tried, plan, monkeypatch):
                missing.remove(mistake)
            if not plan.met:
                break
        if not missing:
            break
    assert len(missing) < len(MISTAKES), "no mistake made any difference"


@pytest.mark.soak
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.__name__)
@pytest.mark.parametrize("step", [*LOSSLESS, *ON_REQUEST], ids=lambda p: p.name)
def test_every_mistake_is_found(step: type[Pass], mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    for tried in subjects(step):
        caught(tried, Plan(mistake, frozenset(step.rules)), monkeypatch)


def subjects(step: type[Pass]) -> Iterator[Subject]:
    """Models on which the pass fires; for one without cases of its own, all there are."""
    mine = [c for c in CASES.values() if RULES[c.rule] == step.name and c.after is not None]
    for case in mine or CASES.values():
        tried = subject(str(case))
        if tried is not None:
            yield tried if mine else replace(tried, passes=(step(),))
