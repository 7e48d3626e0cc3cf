from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.analysis.mirror import mirrored
from graphopt.graph.carry import Carried
from graphopt.graph.save import runnable


def model(weights: np.ndarray) -> Any:
    """Scores of two classes: what weights of shape (2, 3, 8, 8) see in an image."""
    x = ir.val("x", ir.DataType.FLOAT, ["n", *weights.shape[1:]])
    w = ir.val("w", const_value=ir.tensor(weights.astype(np.float32), name="w"))
    seen = ir.node("Conv", [x, w])
    flat = ir.node("Flatten", [seen.outputs[0]])
    flat.outputs[0].name, flat.outputs[0].type = "y", ir.TensorType(ir.DataType.FLOAT)
    flat.outputs[0].shape = ir.Shape(["n", len(weights)])
    graph = ir.Graph([x], flat.outputs, nodes=[seen, flat], initializers=[w], opset_imports={"": 17}, name="g")
    return runnable(ir.Model(graph, ir_version=8), Carried())


def images(count: int, *shape: int) -> dict[str, Any]:
    return {"x": np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)}


def test_mirror_images_follow_where_the_model_takes_them_for_the_same() -> None:
    weights = np.random.default_rng(1).standard_normal((2, 3, 8, 8))
    given = images(50, 3, 8, 8)
    found = mirrored(given, model(weights + weights[..., ::-1]))
    assert isinstance(found, dict)
    assert np.array_equal(found["x"][:48], given["x"][:48])
    assert np.array_equal(found["x"][48:], given["x"][:48, ..., ::-1])


def test_a_model_that_tells_them_apart_does_not_learn_from_them() -> None:
    assert mirrored(images(50, 3, 8, 8), model(np.random.default_rng(1).standard_normal((2, 3, 8, 8)))) is None


@pytest.mark.parametrize("shape", [(5, 8, 8), (3, 8, 4), (64,)])
def test_what_is_no_image_has_no_mirror_image(shape: tuple[int, ...]) -> None:
    assert mirrored(images(8, *shape), model(np.ones((2, 3, 8, 8)))) is None


def test_feeds_of_their_own_stay_as_they_are() -> None:
    assert mirrored([images(1, 3, 8, 8)], model(np.ones((2, 3, 8, 8)))) is None
