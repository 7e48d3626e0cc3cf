"""Proposals of others: taken as a whole, or not at all, with the reason."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest

import graphopt
from graphopt.graph.edit import Editor
from graphopt.graph.record import WHOLE, Edit, Exactness
from graphopt.protocol import Context, Ledger, NotEvaluated
from graphopt.rewrite import Onnxsim
from graphopt.run.child import Child, ChildFailed, Limits
from tests.support.models import cannot_evaluate, differences, feed, parse, run, source

CHAIN = "g (float[N,3] x) => (float[N,3] y) { a = Identity (x) b = Relu (a) [last] y = Relu (b) }"
SHORT = "g (float[N,3] x) => (float[N,3] y) { y = Relu (x) }"


def offered(given: str, answer: str | bytes | Callable[[bytes], bytes], *, room: int = 0, **options: object) -> Tried:
    """What the pass makes of an answer."""

    def propose(model: bytes) -> bytes:
        if callable(answer):
            return answer(model)
        return answer if isinstance(answer, bytes) else parse(answer).SerializeToString()

    edit = Editor(source(given).model, **options)  # type: ignore[arg-type]
    ctx = Context(cannot_evaluate, Ledger(room, room), propose=propose)
    Onnxsim().run(edit, ctx)
    return Tried(edit, ctx)


class Tried:
    def __init__(self, edit: Editor, ctx: Context) -> None:
        self.operators = [n.op_type for n in edit.model.graph]
        self.edits, self.left = edit.edits, ctx.ledger.left
        self.reasons = [m.reason for m in ctx.misses]
        assert all(m.root == WHOLE for m in ctx.misses)


def test_a_better_model_is_one_edit() -> None:
    tried = offered(CHAIN, SHORT)
    assert tried.operators == ["Relu"]
    assert tried.edits == [Edit("onnxsim", WHOLE, 0, Exactness.ROUNDING)]
    assert tried.reasons == []
    assert tried.left > 0


def killed(_model: bytes) -> bytes:
    raise NotEvaluated("it took longer than 30 s")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\x08\x99nonsense", "no valid model"),
        (b"", "no valid model"),
        (SHORT.replace("Relu", "Rely"), "no valid model"),
        (SHORT.replace("y = Relu (x)", "y = Relu (z)"), "no valid model"),
        (CHAIN, "leaves 3 nodes of 3"),
        (SHORT.replace("x", "z"), "the inputs would be others"),
        (SHORT.replace("y", "z"), "the outputs would be others"),
        (SHORT.replace("float[N,3]", "double[N,3]"), "the type of 'x' would change"),
        (f'<ir_version: 10, opset_import: ["" : 20]> {SHORT}', "the operator sets would change"),
        (killed, "it took longer than 30 s"),
    ],
)
def test_what_cannot_be_taken_leaves_everything_as_it_is(answer: str | bytes, reason: str) -> None:
    tried = offered(CHAIN, answer)
    assert tried.operators == ["Identity", "Relu", "Relu"]
    assert not tried.edits
    assert tried.left == 0
    assert len(tried.reasons) == 1
    assert reason in tried.reasons[0]


def test_the_file_may_not_grow_by_more_than_it_may() -> None:
    large = SHORT.replace(") {", ") <float[3] w = {1, 2, 3}, float[100] unused> {").replace("Relu (x)", "Add (x, w)")
    content = parse(large)
    content.graph.initializer.append(onnx.helper.make_tensor("more", 1, [100], bytes(400), raw=True))
    assert offered(CHAIN, content.SerializeToString()).reasons == ["the file would grow"]
    assert offered(CHAIN, content.SerializeToString(), room=500).operators == ["Add"]


def test_a_node_that_was_asked_to_stay_stays() -> None:
    tried = offered(CHAIN, SHORT, room=100, keep=["last"])
    assert tried.reasons == ["last was asked to stay"]
    assert tried.left == 100


def test_what_is_random_is_not_shown() -> None:
    tried = offered("g (float[3] x) => (float[3] y) { r = RandomNormalLike (x) y = Add (x, r) }", killed)
    assert tried.reasons == ["what is inside may be random or in training mode"]


def test_onnxsim_runs_in_the_child_and_keeps_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with Child() as child:
        made = onnx.ModelProto.FromString(child.simplify(parse(CHAIN).SerializeToString()))
        assert [n.op_type for n in made.graph.node] == ["Relu"]
        with pytest.raises(ChildFailed):
            child.simplify(b"nonsense")
        x = feed(parse(CHAIN), {"N": 2})
        assert child.evaluate(parse(CHAIN).SerializeToString(), x).keys() == {"y"}
    assert capfd.readouterr() == ("", "")


def test_onnxsim_runs_under_limits() -> None:
    with Child(Limits(seconds=0.01)) as child, pytest.raises(ChildFailed, match="longer than"):
        child.simplify(parse(CHAIN).SerializeToString())
    with Child(Limits(result_bytes=10)) as child, pytest.raises(ChildFailed):
        child.simplify(parse(CHAIN).SerializeToString())


def test_it_is_verified_like_any_edit() -> None:
    given = parse(CHAIN)
    result = graphopt.optimize(given, passes=["onnxsim"], device="cpu", threads=1)
    assert result.report.steps[0].edits == {"onnxsim": 1}
    assert result.report.verification is not None
    assert result.report.output.nodes == 1
    data = feed(given, {"N": 2})
    assert not differences(run(given, data), run(result.model, data))


def test_it_runs_only_where_it_is_named() -> None:
    assert "onnxsim" not in {s.name for s in graphopt.optimize(parse(CHAIN), device="cpu").report.steps}
    both = graphopt.optimize(parse(CHAIN), passes=["lossless", "onnxsim"], device="cpu").report
    assert both.steps[-1].name == "onnxsim"
    assert len(both.steps) > 10
