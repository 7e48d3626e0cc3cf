"""Golden cases: what a rule makes of a graph, as text. One file for each rule.

    === name of the case
    What it shows, in one sentence.
    dims: N=1; N=4              extents of symbolic dimensions, one binding after another (default: 2, then 3)
    growth: 100                 bytes by which the file may grow (default: 0)
    fast: yes                   under --fast-math
    passes: clean fold          what is run, until nothing changes, as in recipes (default: the rule's own)
    target: cuda                the runtime that the model is made for (default: portable, or cpu for a later stage)
    notes: a b                  nodes that get a doc string and metadata, which the text format cannot hold
    why: training mode          part of the reason that the rule gives for not firing
    unrunnable: no kernel       why the runtime cannot be asked
    --- before
    a graph in ONNX's text format; without a header it has opset 21
    --- after
    what becomes of it

A case in which nothing may change has a single part, `--- kept`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from graphopt.catalogue import PASSES
from graphopt.graph.load import Source, load
from graphopt.protocol import Pass
from graphopt.recipe import Recipe
from tests.support.models import parse

FOLDER = Path(__file__).parent
FIELDS = ("dims", "growth", "fast", "passes", "target", "notes", "why", "unrunnable")
RULES: Mapping[str, str] = MappingProxyType({rule: p.name for p in PASSES.values() for rule in p.rules})
"""Every rule, and the pass it belongs to."""


@dataclass(frozen=True)
class Case:
    """One golden case."""

    rule: str
    name: str
    summary: str
    before: str
    after: str | None
    """None where nothing may change."""
    fields: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.rule}/{self.name}"

    @property
    def passes(self) -> tuple[Pass, ...]:
        return Recipe.of(self.fields.get("passes", RULES[self.rule]).split()).passes

    def source(self) -> Source:
        """The model, with notes on the nodes that are to have some."""
        source = load(parse(self.before))
        for node in source.model.graph:
            if node.name in self.fields.get("notes", "").split():
                node.doc_string = node.outputs[0].doc_string = "File /home/someone/model.py, line 1"
                node.metadata_props["namespace"] = node.outputs[0].metadata_props["scope"] = "layer1"
        return source

    @property
    def growth(self) -> int:
        return int(self.fields.get("growth", "0"))

    @property
    def target(self) -> str:
        staged = any(step.stage for step in self.passes)
        return self.fields.get("target", "cpu" if staged else "portable")

    @property
    def bindings(self) -> Sequence[Mapping[str, int]]:
        """Extents by symbol."""
        if "dims" not in self.fields:
            return [defaultdict(lambda: 2), defaultdict(lambda: 3)]
        pairs = ([p.split("=") for p in part.split(",")] for part in self.fields["dims"].split(";"))
        return [{name.strip(): int(extent) for name, extent in binding} for binding in pairs]

    def text(self) -> str:
        lines = [f"=== {self.name}", self.summary]
        lines += [f"{name}: {self.fields[name]}" for name in FIELDS if name in self.fields]
        parts = (
            ["--- kept", self.before] if self.after is None else ["--- before", self.before, "--- after", self.after]
        )
        return "\n".join(lines + parts)


def read(rule: str) -> list[Case]:
    """The cases of one rule; none where it has no file yet."""
    path = FOLDER / f"{rule}.txt"
    if not path.exists():
        return []
    _, *texts = f"\n{path.read_text(encoding='utf-8')}".split("\n=== ")
    return [_case(rule, text) for text in texts]


def write(changed: Case) -> None:
    """Put a case back into its file, with the others as they are."""
    texts = [(changed if case.name == changed.name else case).text() for case in read(changed.rule)]
    (FOLDER / f"{changed.rule}.txt").write_text("\n\n".join(texts) + "\n", encoding="utf-8")


def _case(rule: str, text: str) -> Case:
    head, *parts = f"{text.strip()}\n".split("\n--- ")
    name, *lines = head.splitlines()
    fields = {k: v.strip() for k, _, v in (line.partition(":") for line in lines) if k in FIELDS}
    summary = "\n".join(line for line in lines if line.partition(":")[0] not in FIELDS)
    graphs = {title: body.strip() for title, _, body in (part.partition("\n") for part in parts)}
    case = Case(rule, name.strip(), summary, "", None, fields)
    if graphs.keys() == {"kept"}:
        return replace(case, before=graphs["kept"])
    if graphs.keys() != {"before", "after"}:
        raise ValueError(f"{case}: give `--- before` and `--- after`, or `--- kept`")
    return replace(case, before=graphs["before"], after=graphs["after"])


def every() -> list[Case]:
    return [case for rule in sorted(RULES) for case in read(rule)]
