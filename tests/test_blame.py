"""The layer in which a candidate departs from its reference is named, whatever became of names, memory and devices."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

import graphopt
from graphopt.blame import Blame, blamed
from graphopt.graph.load import load
from graphopt.report.closer import blamed as lines
from graphopt.run.machine import Machine
from graphopt.verify import Judge, products
from tests.support.faking import FakeCuda
from tests.support.models import parse

HERE = Machine(threads=1)
RNG = np.random.default_rng(0)
FEEDS = [{"x": RNG.standard_normal((n, 8)).astype(np.float32)} for n in (5, 3)]

NET = """
g (float[n, 8] x) => (float[n, 8] y, float[n, 8] z) {
    a = MatMul (x, w1)
    b = Relu (a)
    c = MatMul (b, w2)
    d = Add (c, b)
    e = MatMul (d, w3)
    y = Tanh (e)
    f = MatMul (b, w4)
    z = Softmax <axis = 1> (f)
}
"""


def net(text: str = NET, change: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None) -> onnx.ModelProto:
    """A network with weights; `change` says what becomes of some of them."""
    model = parse(text)
    rng = np.random.default_rng(1)
    for name in ("w1", "w2", "w3", "w4"):
        weight = (change or {}).get(name, np.asarray)(rng.standard_normal((8, 8)) / 3)
        model.graph.initializer.append(tensor(name, weight))
    return model


def tensor(name: str, values: np.ndarray) -> onnx.TensorProto:
    content = values.astype(np.float32).tobytes()
    return onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=values.shape, raw_data=content)


def wrong(weight: np.ndarray) -> np.ndarray:
    return weight + 0.1 * np.eye(8)


def rounded(step: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda weight: step * np.round(weight / step)


def found(
    reference: onnx.ModelProto, candidate: onnx.ModelProto, machine: Machine = HERE, **bound: float
) -> Blame | None:
    a, b = load(reference), load(candidate)
    judge = Judge(a, FEEDS, products(a.model), machine)
    return blamed(a, b, FEEDS, judge, machine, **bound)


def first(candidate: onnx.ModelProto, machine: Machine = HERE) -> Blame:
    blame = found(net(), candidate, machine)
    assert blame is not None
    assert blame.first is not None
    return blame


def test_a_wrong_weight_in_the_middle_is_named_and_nothing_behind_it() -> None:
    blame = first(net(change={"w2": wrong}))
    assert blame.first is not None
    assert (blame.first.value, blame.first.operator, blame.first.stands_for) == ("c", "MatMul", ("MatMul_2",))
    assert blame.text.startswith("the first value that differs is 'c' (MatMul 'MatMul_2'): off by ")
    assert blame.text.endswith("; all that it reads is equal")
    assert [layer.value for layer in blame.worst] == ["c"]
    assert (blame.off, blame.pairs, blame.skip) == (1, 8, ())
    assert blame.first.own is not None
    assert blame.first.own.share == blame.first.error.share


def test_nothing_is_blamed_for_what_is_equal_or_allowed() -> None:
    assert found(net(), net()) is None
    assert found(net(), net(change={"w2": wrong}), atol=10.0) is None
    blame = found(net(), net(NET.replace("y = Tanh (e)", "t = Tanh (e)\n y = Identity (t)")), atol=0.0)
    assert blame is None


def test_a_branch_that_is_off_alone_is_named() -> None:
    blame = first(net(NET.replace("axis = 1", "axis = 0")))
    assert blame.first is not None
    assert (blame.first.value, blame.off) == ("z", 1)


def test_a_shape_that_is_another_one_is_named() -> None:
    text = NET.replace("(float[n, 8] y, float[n, 8] z)", "(float[n, 8] y, float[n, 8] z) <int64[1] axis = {AXIS}>")
    text = text.replace("d = Add (c, b)", "m = ReduceMax (c, axis)\n d = Add (m, b)")
    blame = found(net(text.replace("AXIS", "1")), net(text.replace("AXIS", "0")))
    assert blame is not None
    assert blame.first is not None
    assert blame.first.value == "m"
    assert "the shape [5, 1] became [1, 8]; all that it reads is equal" in blame.text
    assert blame.first.own is None
    assert [layer.value for layer in blame.worst] == ["d"]  # the layer is the one from b and c to d


def test_values_that_were_renamed_are_found_by_structure() -> None:
    model = net(change={"w2": wrong})
    keep = {"x", "y", "z"}
    for node in model.graph.node:
        node.name = ""
        for names in (node.input, node.output):
            names[:] = [n if n in keep else f"v_{n}" for n in names]
    for tensor in model.graph.initializer:
        tensor.name = f"v_{tensor.name}"
    blame = first(model)
    assert blame.first is not None
    assert (blame.first.value, blame.off) == ("c", 1)


def test_of_a_lossy_candidate_the_layers_are_ordered_by_what_they_add_themselves() -> None:
    change = {"w1": rounded(0.02), "w2": rounded(0.2), "w3": rounded(0.05), "w4": rounded(0.01)}
    blame = first(net(change=change))
    assert blame.first is not None
    assert blame.first.value == "a"
    assert [layer.value for layer in blame.worst] == ["c", "e", "a", "f"]
    told = "\n".join(lines(blame))
    assert "layers that are off on their own: 4 of 8:" in told


@dataclass(frozen=True)
class Counting(Machine):
    """Counts the bytes that each run gives."""

    fetched: list[int] = field(default_factory=list)

    def session(self, model: Any, **options: Any) -> Any:
        made, fetched = super().session(model, **options), self.fetched

        class Counted:
            def __getattr__(self, name: str) -> Any:
                return getattr(made, name)

            def run(self, feed: Any, outputs: Any = None) -> Any:
                results = made.run(feed, outputs)
                fetched.append(sum(v.nbytes for v in results.values()))
                return results

        return Counted()


def test_no_run_fetches_more_than_memory_holds_and_the_result_is_the_same() -> None:
    model = net(change={"w2": wrong, "w4": rounded(0.01)})
    wide, narrow = Counting(threads=1), Counting(threads=1, memory=2 * 3 * 8 * 8 * 4)
    a, b = first(model, wide), first(model, narrow)
    assert a == b
    inside = [n for n in wide.fetched if n > 2 * 5 * 8 * 4]
    assert max(inside) == 8 * 5 * 8 * 4
    assert max(narrow.fetched) <= 3 * 5 * 8 * 4


@dataclass(frozen=True)
class WrongAdd(FakeCuda):
    """A GPU on which the candidate's Add subtracts."""

    def session(self, model: Any, **options: Any) -> Any:
        if self.device != "cpu" and b"candidate" in model:
            model = model.replace(b"Add", b"Sub")
        return super().session(model, **options)


def test_what_is_off_on_cuda_alone_is_said_to_be() -> None:
    model = net(NET.replace("g (", "candidate ("))
    blame = first(model, WrongAdd("auto", threads=1))
    assert blame.first is not None
    assert (blame.first.value, blame.only, blame.provider) == ("d", "on CUDA only", "CUDAExecutionProvider")
    assert "'d' (Add 'Add_3'), on CUDA only: off by" in blame.text
    everywhere = first(net(change={"w2": wrong}), FakeCuda("auto", threads=1))
    assert (everywhere.provider, everywhere.only) == ("CUDAExecutionProvider", "")


def test_of_our_own_results_the_rule_and_the_key_to_skip_are_told() -> None:
    text = NET.replace("c = MatMul (b, w2)", "k = MatMul (b, w2)\n c = Mul (k, s)")
    reference = net(text.replace("float[n, 8] z)", "float[n, 8] z) <float[1] s = {0.25}>"))
    reference.graph.node[2].name, reference.graph.node[3].name = "the product", "the factor"
    unused = np.ones((64, 64))  # which goes, so that there is room to say how the result was made
    reference.graph.initializer.append(tensor("unused", unused))
    result = graphopt.optimize(reference).model
    assert found(reference, result) is None
    (scaled,) = (t for t in result.graph.initializer if t.name not in {"w1", "w3", "w4"})
    scaled.raw_data = tensor("", wrong(np.frombuffer(scaled.raw_data, np.float32).reshape(8, 8))).raw_data
    blame = found(reference, result)
    assert blame is not None
    assert blame.skip == ("the factor", "the product")
    assert "to try: --skip 'the factor' --skip 'the product', so that fold_scale leaves that alone" in "\n".join(
        lines(blame)
    )


def test_what_computes_in_half_precision_is_compared_with_what_it_stands_for() -> None:
    half = "h = Cast <to = 10> (b)\n v = Cast <to = 10> (w2)\n c = MatMul (h, v)\n l = Cast <to = 1> (c)"
    blame = first(net(NET.replace("c = MatMul (b, w2)", half).replace("Add (c, b)", "Add (l, b)")))
    assert blame.first is not None
    assert blame.first.value == "c"
    assert 50 < blame.first.own_db < 90
    assert {layer.value for layer in blame.worst} == {"c", "d"}  # d reads c as it is rounded


def test_check_tells_it_in_its_report() -> None:
    report = graphopt.check(net(), net(change={"w2": wrong}), data=FEEDS[0], device="cpu", blame=True)
    assert report.blame is not None
    told = json.loads(report.to_json())["blame"]
    assert told["text"] == report.blame.text
    assert told["first"]["error"]["name"] == "c"
    assert graphopt.check(net(), net(), data=FEEDS[0], device="cpu", blame=True).blame is None
    assert graphopt.check(net(), net(change={"w2": wrong}), data=FEEDS[0], device="cpu").blame is None


def test_a_value_that_kept_its_name_but_not_its_meaning_is_not_blamed() -> None:
    text = "k = Constant <value = float {0.1}> ()\n s = Mul (c, k)\n d = Add (s, b)"
    reference = net(NET.replace("d = Add (c, b)", text))
    moved = {"w2": lambda w: 0.1 * w}  # the factor is in the weight, so that c is another value
    candidate = NET.replace("d = Add (c, b)", "s = Identity (c)\n d = Add (s, b)")
    assert found(reference, net(candidate, moved)) is None
    for culprit, value in (("w3", "e"), ("w1", "a")):
        blame = found(reference, net(candidate, {**moved, culprit: wrong}))
        assert blame is not None
        assert blame.first is not None
        assert (blame.first.value, [layer.value for layer in blame.worst]) == (value, [value])
