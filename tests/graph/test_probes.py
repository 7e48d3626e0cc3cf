"""Copies for measuring: noise where edits were made, fixed random nodes, told shapes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from graphopt.graph import probes
from graphopt.graph.save import serialize
from tests.support.models import run, source

X = {"x": np.linspace(-3, 3, 200, dtype=np.float32).reshape(100, 2)}
EPS = float(np.finfo(np.float32).eps)


def outputs(model: ir.Model) -> dict[str, np.ndarray]:
    return run(ir.to_proto(model), X)


@pytest.mark.parametrize("value", ["a", "y"])
@pytest.mark.parametrize("length", [1, 100])
def test_noise_is_about_one_eps_for_each_root_of_a_term(value: str, length: int) -> None:
    model = source("g (float[N,2] x) => (float[N,2] y) { a = Mul (x, x) y = Neg (a) }").model
    noisy = probes.noisy(model, {value: length}, seed=1)
    assert noisy is not None
    exact, shaken = outputs(model)["y"], outputs(noisy)["y"]
    relative = np.abs(shaken / exact - 1)
    amplitude = EPS * np.sqrt(length)
    assert 0.3 * amplitude < relative.max() < 2 * amplitude + EPS
    assert len(model.graph) == 2


@pytest.mark.parametrize("opset", [18, 22, 24])
@pytest.mark.parametrize(("kind", "eps"), [(1, EPS), (10, 2.0**-10), (11, 2.0**-52)])
def test_noise_is_of_the_type_in_every_opset(kind: int, eps: float, opset: int) -> None:
    header = f'<ir_version: 10, opset_import: ["" : {opset}]>'
    model = source(f"""{header} g (float[N,2] x) => (double[N,2] y)
        {{ a = Cast <to = {kind}> (x) b = Abs (a) y = Cast <to = 11> (b) }}""").model
    one, two = (probes.noisy(model, {"b": 1}, seed=s) for s in (1, 2))
    assert one is not None
    assert two is not None
    exact, first, second = (outputs(m)["y"] for m in (model, one, two))
    relative = np.abs(first / exact - 1)
    assert 0.2 * eps < np.sqrt(np.mean(relative**2)) < 2 * eps
    assert np.any(first != second)


def test_noise_reaches_readers_in_bodies() -> None:
    model = source("""g (float[N,2] x) => (float[N,2] y) <bool c = {1}> {
      a = Mul (x, x)
      y = If (c) <
        then_branch = t () => (float[N,2] p) { p = Neg (a) },
        else_branch = e () => (float[N,2] q) { q = Abs (a) }
      >
    }""").model
    noisy = probes.noisy(model, {"a": 10_000}, seed=1)
    assert noisy is not None
    assert np.any(outputs(noisy)["y"] != outputs(model)["y"])


def test_each_seed_gives_other_noise_and_the_same_seed_the_same() -> None:
    model = source("g (float[N,2] x) => (float[N,2] y) { y = Mul (x, x) }").model
    one, again, two = (probes.noisy(model, {"y": 9}, seed=s) for s in (1, 1, 2))
    assert one is not None
    assert again is not None
    assert two is not None
    np.testing.assert_array_equal(outputs(one)["y"], outputs(again)["y"])
    assert np.any(outputs(one)["y"] != outputs(two)["y"])


def test_there_is_no_noise_on_integers_or_on_what_is_not_there() -> None:
    model = source("g (float[N,2] x) => (int64[N,2] y) { y = Cast <to = 7> (x) }").model
    assert probes.noisy(model, {"y": 9, "nowhere": 9}, seed=1) is None


def test_without_reductions_nothing_is_cloned(monkeypatch: pytest.MonkeyPatch) -> None:
    model = source("g (float[N,2] x) => (float[N,2] y) { y = Neg (x) }").model
    monkeypatch.setattr(ir.Model, "clone", lambda _: pytest.fail("it was cloned"))
    assert probes.noisy(model, {}, seed=1) is None


RANDOM = """g (float[N,2] x) => (float[N,2] y) {{
  {before}
  a = RandomNormalLike (x)
  b = RandomUniformLike (x)
  y = Sub (a, b)
}}"""


def test_random_models_become_comparable() -> None:
    one, two = (source(RANDOM.format(before=b)).model for b in ("", "c = RandomNormalLike (x)"))
    onnxruntime.set_seed(1)
    left = outputs(probes.seeded(one))
    onnxruntime.set_seed(2)
    right = outputs(probes.seeded(two))
    np.testing.assert_array_equal(left["y"], right["y"])
    assert np.any(left["y"] != 0), "two draws are still two"
    assert not any("seed" in n.attributes for n in one.graph), "the model itself is as it was"


def test_seeds_follow_the_names_of_nodes_whatever_their_outputs_are_called() -> None:
    def seeds(output: str, *, named: bool) -> list[int]:
        model = source(f"g (float[2] x) => (float[2] {output}) {{ {output} = RandomNormalLike (x) }}").model
        model.graph[0].name = "draw" if named else ""
        return [n.attributes["seed"].value for n in probes.seeded(model).graph]

    assert seeds("y", named=True) == seeds("z", named=True)
    assert seeds("y", named=False) != seeds("z", named=False)


def test_nodes_of_the_same_name_draw_differently() -> None:
    model = source(
        "g (float[2] x) => (float[2] y, float[2] z) { y = RandomNormalLike (x) z = RandomNormalLike (x) }"
    ).model
    for node in model.graph:
        node.name = "draw"
    one, two = (n.attributes["seed"].value for n in probes.seeded(model).graph)
    assert one != two


def test_random_nodes_in_bodies_are_seeded_as_well() -> None:
    model = source("""g (bool c, float[2] x) => (float[2] y) {
      y = If (c) <
        then_branch = t () => (float[2] p) { p = RandomNormalLike (x) },
        else_branch = e () => (float[2] q) { q = Bernoulli (x) }
      >
    }""").model
    bodies = [a.as_graph() for a in probes.seeded(model).graph[0].attributes.values()]
    assert all("seed" in b[0].attributes for b in bodies)


def test_a_model_without_random_nodes_is_returned_as_it_is() -> None:
    model = source("g (float[N] x) => (float[N] y) { y = Relu (x) }").model
    assert probes.seeded(model) is model
    given = source("g () => (float[2] y) { y = RandomNormal <shape = [2], seed = 1.0> () }").model
    assert probes.seeded(given) is given


def test_shapes_are_told() -> None:
    given = source("g (float[N,2] x) => (float[2,N] y) { a = Relu (x) b = Neg (a) y = Transpose (b) }")
    telling, names = probes.telling_shapes(given.model, ["a", "y", "nowhere"])
    found = {names[k]: v.tolist() for k, v in run(serialize(telling, given.carried), X).items()}
    assert found == {"a": [100, 2], "y": [2, 100]}
    assert [v.name for v in given.model.graph.outputs] == ["y"]
