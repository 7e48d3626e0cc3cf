"""Every rule on the graphs of its golden file: what it makes of them, and that they still compute the same."""

from __future__ import annotations

import difflib
from dataclasses import replace

import onnx
import onnx.checker
import onnx.shape_inference
import onnx_ir as ir
import pytest

from graphopt.graph import invariants, probes
from graphopt.graph.load import Source
from graphopt.graph.record import Exactness
from graphopt.graph.save import serialize
from graphopt.protocol import Evaluator
from tests.golden.cases import RULES, Case, every, write
from tests.support.models import Rewritten, differences, feed, overrides, parse, rewritten, run, show

CASES = every()
BITWISE, ROUNDED = 0.0, 1e-5


def assert_valid(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


def compare_runs(case: Case, source: Source, result: Rewritten) -> list[str]:
    """What the runtime computes differently for the two graphs, with random nodes made comparable."""
    relative = BITWISE if all(e.exactness is Exactness.BITWISE for e in result.edits) else ROUNDED
    before = onnx.ModelProto.FromString(serialize(probes.seeded(source.model), source.carried))
    after = onnx.ModelProto.FromString(serialize(probes.seeded(ir.from_proto(result.model)), source.carried))
    found = []
    for seed, dims in enumerate(case.bindings):
        given = feed(before, dims, seed=seed, edges=not relative)
        for each in (given, given | overrides(before, dims, seed=seed)):
            found += differences(run(before, each), run(after, each), relative=relative)
    return found


@pytest.mark.parametrize("case", CASES, ids=map(str, CASES))
def test_golden(case: Case, evaluate: Evaluator, request: pytest.FixtureRequest) -> None:
    given = parse(case.before)
    assert_valid(given)
    source = case.source()
    fast = "fast" in case.fields
    result = rewritten(source, case.passes, evaluate, growth=case.growth, target=case.target, fast_math=fast)
    assert_valid(result.model)
    assert not list(invariants.broken(ir.from_proto(result.model)))
    assert list(result.model.graph.input) == list(given.graph.input), "the inputs changed"
    assert list(result.model.graph.output) == list(given.graph.output), "the outputs changed"

    if request.config.getoption("--update-golden"):
        after = show(result.model) if result.edits else None
        write(replace(case, after=after))
        return
    expected = show(parse(case.after or case.before))
    text = show(result.model)
    diff = "\n".join(difflib.unified_diff(expected.splitlines(), text.splitlines(), "expected", "made", lineterm=""))
    assert not diff, f"{case}: {case.summary}\n{diff}\nedits: {[str(e) for e in result.edits]}\n{result.misses}"
    if case.after is None:
        assert not result.edits
    else:
        assert case.rule in {e.rule for e in result.edits}
    if "why" in case.fields:
        reasons = [m.reason for m in result.misses if m.rule == case.rule]
        assert any(case.fields["why"] in reason for reason in reasons), reasons
    if "unrunnable" not in case.fields:
        assert not compare_runs(case, source, result)


def test_every_rule_has_a_case_where_it_fires_and_one_where_it_does_not() -> None:
    ours = RULES.keys() - {"onnxsim"}  # what another tool makes of a graph changes with its version
    assert {c.rule for c in CASES if c.after is not None} == ours
    assert {c.rule for c in CASES if c.after is None} == ours


def test_a_case_is_read_as_it_is_written() -> None:
    for case in CASES:
        assert len([c for c in CASES if str(c) == str(case)]) == 1, f"two cases are named {case}"
        assert case.summary, f"{case} does not say what it shows"
