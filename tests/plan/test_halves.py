"""What stays on floats, and why: by what was seen, with the fewest casts, and never a number that is none."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt.compress.halves.half import HalfPrecision, halved
from graphopt.compress.halves.lifted import lifted
from graphopt.compress.halves.ports import ports
from graphopt.errors import MachineError
from graphopt.graph.carry import Carried
from graphopt.graph.nodes import graphs, key
from graphopt.graph.save import serialize
from graphopt.plan.halves import Halved, Halves
from graphopt.plan.islands import Unit, islands
from graphopt.plan.rounding import Rounding
from graphopt.run.machine import HERE
from graphopt.targets import TARGETS
from tests.support.integers import filled

X = {"x": np.random.default_rng(3).standard_normal((12, 16)).astype(np.float32)}
KIND = ir.DataType.FLOAT16


def net(between: str, *, constants: str = "") -> ir.Model:
    """Something between two products, whose weights are worth a cast."""
    return filled(f"""g (float[N,16] x) => (float[N,16] y)
        <float[16,64] m1, float[64,64] m2, float[64,16] m3{constants}> {{
        [first] a = MatMul(x, m1) {between} [middle] c = MatMul(b, m2) [cut] d = Relu(c) [last] y = MatMul(d, m3) }}""")


def settled(model: ir.Model, **form: Any) -> Halved:
    """In half precision; the result runs, and is close, also where each value is rounded."""
    found = Halves(model, HalfPrecision(**form), X).settled()
    onnx.checker.check_model(onnx.ModelProto.FromString(serialize(found.model, Carried())), full_check=True)
    exact = HERE.session(model).run(X)["y"]
    for made in (found.model, lifted(found.model, KIND)):
        y = HERE.session(made).run(X)["y"]
        assert y.dtype == np.float32
        assert np.isfinite(y).all()
        assert np.abs(y - exact).max() < 0.01 * np.abs(exact).max()
    return found


def casts(model: ir.Model) -> int:
    return sum(n.op_type == "Cast" for graph in graphs(model) for n in graph)


def test_all_of_a_plain_net_is_half_between_two_casts() -> None:
    found = settled(net("[plain] b = Relu(a)"))
    assert set(found.halves) == {"first", "plain", "middle", "cut", "last"}
    assert not found.floats
    assert found.casts == casts(found.model) == 2
    assert {v.dtype for v in found.model.graph.initializers.values()} == {KIND}
    assert set(found.model.graph.initializers) == {"m1", "m2", "m3"}


@pytest.mark.parametrize(
    ("between", "constants", "floats", "why"),
    [
        ("[up] u = Mul(a, big) [down] b = Div(u, big)", ", float big = {3e4}", {"up", "down"}, "overflow is near: u"),
        ("[up] u = Add(a, big) [down] b = Max(u, a)", ", float big = {-1e9}", {"up"}, "a constant overflows: big"),
        ("[up] u = Mul(a, few) [down] b = Div(u, few)", ", float few = {1e-6}", {"up", "down"}, "underflow: u"),
        (
            "p = Abs(a) [up] u = Add(p, eps) [down] q = Log(u) b = Tanh(q)",
            ", float eps = {1e-9}",
            {"up"},
            "a constant underflows: eps",
        ),
        (
            "[up] u = Add(a, far) [down] b = Sub(u, far)",
            ", float far = {2000}",
            {"up", "down"},
            "of rounded values, its result keeps",
        ),
    ],
)
def test_what_half_precision_does_not_tell_stays_on_floats(
    between: str, constants: str, floats: set[str], why: str
) -> None:
    found = settled(net(between, constants=constants))
    assert floats <= found.floats.keys()
    assert any(reason.startswith(why) for reason in found.floats.values()), found.floats
    assert {"middle", "last"} <= set(found.halves)


def test_weights_of_a_product_on_floats_are_stored_in_half() -> None:
    model = net("[up] u = Mul(a, big) b = Div(u, big)", constants=", float big = {3e4}")
    weight = model.graph.initializers["m1"]
    weight.const_value = ir.tensor(np.full((16, 64), 3e4, np.float32), name="m1")  # what is made of it would overflow
    found = Halves(model, HalfPrecision(), X).settled()
    assert "first" in found.floats
    kinds = {name: v.dtype for name, v in found.model.graph.initializers.items()}
    assert kinds["m1"] is KIND


def test_bodies_go_with_their_node() -> None:
    model = filled("""g (float[N,16] x) => (float[N,16] y)
        <float[16,64] m1, float[64,64] m2, float[64,16] m3, float s = {0}> {
        [first] a = MatMul(x, m1) t = ReduceMax<keepdims=0>(a) c = Greater(t, s)
        [choice] b = If(c) <then_branch = yes () => (float[N,64] p) { q = MatMul(a, m2) p = Tanh(q) },
                            else_branch = no () => (float[N,64] r) { r = Neg(a) }>
        [last] y = MatMul(b, m3) }""")
    found = settled(model)
    assert {"first", "choice", "last"} <= set(found.halves)
    assert found.model.graph.initializers["m2"].dtype is KIND


def test_a_constant_in_a_body_counts() -> None:
    model = filled("""g (float[N,16] x) => (float[N,16] y) <float[16,64] m1, float[64,16] m2, float s = {0}> {
        [first] a = MatMul(x, m1) t = ReduceMax<keepdims=0>(a) c = Greater(t, s)
        [choice] b = If(c) <then_branch = yes () => (float[N,64] p) <float big = {1e5}> { q = Mul(a, big)
                                                                                                 p = Div(q, big) },
                            else_branch = no () => (float[N,64] r) { r = Neg(a) }>
        [last] y = MatMul(b, m2) }""")
    found = settled(model)
    assert found.floats["choice"].startswith("a constant overflows: big")
    assert "first" in found.halves


@pytest.mark.parametrize(("kind", "near_by"), [(KIND, 2e-3), (ir.DataType.BFLOAT16, 2e-2)])
def test_what_is_rounded_shows_on_floats(kind: ir.DataType, near_by: float) -> None:
    model = net("[plain] b = Relu(a)")
    low = lifted(halved(model, kind, lambda _: True), kind)
    x = X["x"]
    arrays = {n: v.const_value.numpy() for n, v in model.graph.initializers.items() if v.const_value is not None}

    def near(value: Any) -> Any:
        return value.astype(kind.numpy()).astype(np.float32)

    a = near(near(x) @ near(arrays["m1"]))
    c = near(np.maximum(a, 0) @ near(arrays["m2"]))
    y = near(np.maximum(c, 0) @ near(arrays["m3"]))
    np.testing.assert_allclose(HERE.session(low).run(X)["y"], y, rtol=near_by, atol=near_by)
    assert not np.array_equal(HERE.session(model).run(X)["y"], HERE.session(low).run(X)["y"])


def ends(found: Halved) -> dict[str, ir.DataType | None]:
    return {str(v.name): v.dtype for v in (*found.model.graph.inputs, *found.model.graph.outputs)}


def test_inputs_and_outputs_are_of_half_precision_where_that_is_asked_for() -> None:
    model = net("[plain] b = Relu(a)")
    found = Halves(model, HalfPrecision(io=True), X).settled()
    assert ends(found) == {"x": KIND, "y": KIND}
    assert found.ends == ("x", "y")
    assert found.casts == 0
    exact = HERE.session(model).run(X)["y"]
    for made in (found.model, lifted(found.model, KIND)):
        np.testing.assert_allclose(HERE.session(made).run(X)["y"].astype(np.float32), exact, atol=2e-3 * exact.max())
    assert ends(Halves(model, HalfPrecision(io=True), X, skip=["x"]).settled()) == {"x": ir.DataType.FLOAT, "y": KIND}


def test_an_input_that_half_precision_does_not_tell_stays_a_float() -> None:
    model = filled("""g (float[N,16] x, float[N,16] far) => (float[N,16] y, float[N,16] z)
        <float[16,16] m, float s = {1e-5}> {
        [first] a = MatMul(x, m) [down] b = Mul(far, s) [sum] y = Add(a, b) [copy] z = Neg(far) }""")
    feed = {**X, "far": 1e5 * X["x"]}
    found = Halves(model, HalfPrecision(io=True), feed).settled()
    assert ends(found) == {"x": KIND, "far": ir.DataType.FLOAT, "y": KIND, "z": ir.DataType.FLOAT}
    assert found.floats["far"].startswith("overflow is near: far reaches")
    assert {"far", "z"} <= set(found.left)
    result = HERE.session(found.model).run(feed)
    assert all(np.isfinite(v).all() for v in result.values())
    again = Halves(model, HalfPrecision(io=True), feed).halved(found.left)
    assert serialize(again.model, Carried()) == serialize(found.model, Carried())


def test_an_input_that_the_outputs_need_exact_stays_a_float() -> None:
    """Numbers of rows are exact in half precision up to 2048."""
    model = filled("""g (float[N] row, float[N,16] x) => (float[N,16] y) <float[4096,16] table, float[16,16] m> {
        i = Cast<to=7>(row) a = Gather(table, i) b = MatMul(x, m) y = Add(a, b) }""")
    feed = {**X, "row": np.arange(2049, 4096, 180, dtype=np.float32)}
    found = Halves(model, HalfPrecision(io=True), feed).settled()
    assert ends(found) == {"row": ir.DataType.FLOAT, "x": KIND, "y": KIND}
    assert found.floats["row"] == "of a rounded one, the outputs are others"


def test_bfloat16_has_the_range_of_floats() -> None:
    model = net("[up] u = Mul(a, big) [down] b = Div(u, big)", constants=", float big = {3e4}")
    halves = Halves(model, HalfPrecision("bfloat16"), X)
    assert not halves._values()  # what follows needs a runtime that has it
    assert not halves._constants()


def test_bfloat16_that_the_runtime_does_not_run_is_told() -> None:
    with pytest.raises(MachineError, match=r"^CPUExecutionProvider does not run middle in bfloat16, .* give --fp16"):
        Halves(net("[plain] b = Relu(a)"), HalfPrecision("bfloat16"), X).settled()


def test_what_the_runtime_does_not_run_in_half_precision_stays_on_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that has kernels for all of bfloat16 but one."""
    low = ir.DataType.BFLOAT16

    def runs(_: Rounding, model: ir.Model) -> bool:
        return not any(v.dtype is low for node in model.graph if key(node) == "plain" for v in node.inputs if v)

    monkeypatch.setattr(Rounding, "runs", runs)
    model = net("[plain] b = Relu(a)")
    found = Halves(model, HalfPrecision("bfloat16"), X).settled()
    assert found.floats == {"plain": "the runtime does not run it in half precision"}
    assert set(found.halves) == {"first", "middle", "cut", "last"}
    assert {v.dtype for v in found.model.graph.initializers.values()} == {low}
    exact, y = (HERE.session(m).run(X)["y"] for m in (model, lifted(found.model, low)))
    assert 1e-4 < np.abs(y - exact).max() / np.abs(exact).max() < 0.05


def test_operators_say_what_they_take() -> None:
    model = filled("""g (float[N,16] x, int64[N] i) => (float[N,16] y) {
        [plain] a = Relu(x) [rows] b = Gather(a, i) [back] j = Cast<to=1>(i) [count] s = Shape(b)
        [boxes] c = Reshape(b, s) y = Identity(c) }""")
    found = {key(n): ports(n, KIND) for n in model.graph}
    assert found["back"] == ""
    for name in ("plain", "rows", "count", "boxes"):
        told = found[name]
        assert not isinstance(told, str)
        assert told.inputs == (0,)
        assert told.outputs == (() if name == "count" else (0,))


def test_a_later_opset_that_has_the_type_is_told() -> None:
    model = filled("""g (float[1,4,8,8] x) => (float[1,4,8,8] y) <float[4,4,3,3] w> {
        [window] y = Conv<pads=[1,1,1,1]>(x, w) }""")
    model.graph.opset_imports[""] = 17
    (window,) = model.graph
    assert ports(window, ir.DataType.BFLOAT16) == "opset 17 has no Conv of bfloat16, opset 22 has"
    assert not isinstance(ports(window, KIND), str)


@pytest.mark.parametrize("seed", range(20))
def test_no_other_choice_costs_less(seed: int) -> None:
    """Against all of them, on graphs of a few nodes."""
    draw = np.random.default_rng(seed)
    count = int(draw.integers(2, 8))
    units = dict[str, Unit]()
    for i in range(count):
        names = ["x", *(f"v{j}" for j in range(i))]
        reads = [str(n) for n in draw.choice(names, size=min(len(names), int(draw.integers(1, 3))), replace=False)]
        units[f"n{i}"] = Unit(reads, [f"v{i}"], int(draw.choice([0, 0, 700, 4000])))
    floats = {k for k in units if draw.random() < 0.2}
    fixed = {f"v{i}" for i in range(count) if draw.random() < 0.2}
    outputs = {f"v{count - 1}"}
    ends = {name for name in ("x", *outputs) if draw.random() < 0.4}

    def price(half: set[str]) -> int:
        total = sum(u.size + 500 for k, u in units.items() if k not in half and k not in floats)
        for name in ("x", *(f"v{i}" for i in range(count))):
            made = name in ends if name == "x" else f"n{name[1:]}" in half
            read = {k in half for k, u in units.items() if name in u.reads}
            read |= {True} & {name in outputs & ends}
            if made and (False in read or name in fixed | (outputs - ends)):
                total += 3000 if name in outputs - ends else 1000
            total += 1000 * (not made and True in read)
        return total

    free = [k for k in units if k not in floats]
    every = [{k for k, on in zip(free, way, strict=True) if on} for way in product([False, True], repeat=len(free))]
    outside = Unit(outputs & ends, ends - outputs, 0)
    assert price(islands(units, floats, fixed, outputs - ends, outside)) == min(map(price, every))


def test_what_a_target_has_no_kernel_of_half_precision_for_stays_on_floats() -> None:
    model = net(
        "i = Reshape(a, image) w = Reshape(x, at) [sample] s = GridSample(i, w) f = Reshape(s, flat) b = MatMul(f, m4)",
        constants=", float[8,64] m4, int64[4] image = {0, 1, 8, 8}, int64[4] at = {0, 2, 4, 2}, int64[2] flat = {0, 8}",
    )
    assert "sample" in Halves(model, HalfPrecision(), X).halved(()).halves
    found = Halves(model, HalfPrecision(), X, target=TARGETS["cuda"]).settled()
    assert found.floats["sample"] == "target cuda has no GridSample of half precision"
    assert {"middle", "last"} <= set(found.halves)
