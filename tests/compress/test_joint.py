from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.analysis.frontier import Frontier, Pair, Site
from graphopt.compress import joint
from graphopt.compress.compress import compress, kept
from graphopt.compress.order import orders
from graphopt.graph.carry import Carried
from graphopt.graph.nodes import key
from graphopt.graph.save import serialize
from graphopt.run.session import Session
from tests.support.models import source

from .test_compress import residual

SAMPLES = 64


def images(count: int = SAMPLES, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 4, 6, 6)).astype(np.float32)


def outputs(model: ir.Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(Session(serialize(model, Carried())).run({"x": x})["y"])


def pairs(dense: ir.Model, thin: ir.Model, x: np.ndarray, look: Callable[[Site, Pair], None]) -> int:
    """Look at each pair that a frontier comes by."""
    count = 0
    for site in Frontier(dense, thin, {"x": x}):
        rows = site.sample(1000, paired=10_000)
        if rows.pair is not None:
            look(site, rows.pair)
            count += 1
    return count


def test_products_with_only_a_clipping_in_between_are_pairs() -> None:
    model, _ = residual()
    found: list[tuple[str, str]] = []

    def look(site: Site, pair: Pair) -> None:
        assert site.before is not None
        found.append((site.before.key, site.key))
        assert len(pair.x) == len(pair.target) == SAMPLES

    pairs(model, model.clone(), images(), look)
    names = [key(n) for n in model.graph if n.op_type in {"Conv", "Gemm"}]
    first, second, third, fourth, _ = names
    assert found == [(first, second), (third, fourth)]  # a pool stands before the last one


def test_weights_that_were_spoiled_are_found_again() -> None:
    """Both products of a block are off; what comes out of them can still be what it was."""
    model, _ = residual()
    thin = model.clone()
    random = np.random.default_rng(3)
    convolutions = [n for n in thin.graph if n.op_type == "Conv"][:2]
    for node in convolutions:
        weight = node.inputs[1]
        assert weight is not None
        assert weight.const_value is not None
        old = weight.const_value.numpy()
        weight.const_value = ir.tensor((old + 0.1 * random.standard_normal(old.shape)).astype(np.float32))
    errors: list[tuple[float, float]] = []

    def look(site: Site, pair: Pair) -> None:
        if not errors:
            found = joint.fit(site, pair, rounds=60)
            assert found is not None
            site.put_before(*found.first)
            site.put(*found.second)
            errors.append((found.before, found.after))

    pairs(model, thin, images(200), look)
    ((before, after),) = errors
    assert after < 0.2 * before


def test_a_pair_gives_what_the_cut_model_alone_cannot() -> None:
    model, groups = residual()
    x = images(200)
    order = {k: c.order for k, c in orders(model, groups, {"x": x}).items()}
    name = next(k for k, g in groups.groups.items() if g.units == 12)
    keep = kept(groups, order, {name: 6})
    test = images(200, seed=2)
    wanted = outputs(model, test)
    alone, both = (outputs(compress(model, groups, keep, {"x": x}, rounds=r).model, test) for r in (0, 60))
    assert np.mean((both - wanted) ** 2) < 0.9 * np.mean((alone - wanted) ** 2)


@pytest.mark.parametrize("count", [4, 1])
def test_few_samples_are_left_alone(count: int) -> None:
    model, _ = residual()

    def look(site: Site, pair: Pair) -> None:
        assert joint.fit(site, pair) is None

    assert pairs(model, model.clone(), images(count), look)


def test_matrices_are_pairs_as_well() -> None:
    random = np.random.default_rng(0)
    w1, w2 = (", ".join(f"{v:.4f}" for v in random.standard_normal(48)) for _ in range(2))
    model = source(
        f"""<ir_version: 10, opset_import: ["" : 21]> g (float[N,6] x) => (float[N,6] y)
        <float[6,8] w1 = {{{w1}}}, float[8,6] w2 = {{{w2}}}> {{ a = MatMul(x, w1) b = Relu(a) y = MatMul(b, w2) }}"""
    ).model
    x = random.standard_normal((100, 6)).astype(np.float32)
    thin = model.clone()
    weight = thin.graph.initializers["w1"]
    assert weight.const_value is not None
    spoiled = weight.const_value.numpy() + 0.2 * random.standard_normal((6, 8))
    weight.const_value = ir.tensor(spoiled.astype(np.float32))
    errors: list[float] = []

    def look(site: Site, pair: Pair) -> None:
        found = joint.fit(site, pair, rounds=60)
        assert found is not None
        errors.append(found.after / found.before)

    assert pairs(model, thin, x, look) == 1
    assert errors[0] < 0.5
