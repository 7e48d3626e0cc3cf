"""Disturbed samples: what is disturbed and how far, the same whatever the batch, and whether a loss is beyond doubt."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx
import pytest

import graphopt
from graphopt.analysis.perturb import Disturbed, _Seen, disturbed
from graphopt.errors import UsageError
from graphopt.report.closer import perturbed
from graphopt.run.data import Pair
from graphopt.run.machine import Machine

RNG = np.random.default_rng(0)
X = RNG.standard_normal((300, 4)).astype(np.float32) + 5
TEXT = '<ir_version: 10, opset_import: ["" : 21]> g ({}) => (float[n, {}] y) {{ {} }}'


def model(body: str, inputs: str = "float[n, 4] x", columns: int = 4) -> bytes:
    return onnx.parser.parse_model(TEXT.format(inputs, columns, body)).SerializeToString()


def run(
    reference: bytes,
    candidate: bytes,
    arrays: Mapping[str, np.ndarray],
    labels: np.ndarray | None = None,
    size: int = 64,
    seed: int = 0,
) -> dict[str, Disturbed]:
    count = len(next(iter(arrays.values())))

    def data() -> Iterator[Pair]:
        for i in range(0, count, size):
            yield {n: v[i : i + size] for n, v in arrays.items()}, None if labels is None else labels[i : i + size]

    return {d.name: d for d in disturbed(reference, candidate, data, Machine(threads=1, seed=seed))}


SAME = model("y = Identity(x)")
SAME_PROTO = onnx.load_from_string(SAME)


def test_what_is_the_same_loses_the_same() -> None:
    found = run(SAME, SAME, {"x": X})
    assert list(found) == ["noise of 0.05", "noise of 0.1", "noise of 0.2", "noise of 0.4", "8 bits", "4 bits"]
    for one in found.values():
        assert (one.samples, one.extra, one.agreement, one.fragile) == (len(X), 0.0, 1.0, False)
        assert one.low < 0 < one.high
        assert one.kept is not None
        assert one.lost == pytest.approx([1 - kept for kept in one.kept])
        assert one.accuracy is None
    lost = [one.lost[0] for one in list(found.values())[:4]]
    assert lost == sorted(lost)
    assert 0 < lost[0] < lost[3]


def test_neither_batches_nor_order_change_anything_but_the_seed_does() -> None:
    sloped = model("s = Sign (x)\n y = Add (x, s)")
    once = run(SAME, sloped, {"x": X})
    assert run(SAME, sloped, {"x": X}, size=7) == once
    assert run(SAME, sloped, {"x": X[::-1]}) == once
    assert run(SAME, sloped, {"x": X}, seed=1) != once


def test_a_candidate_that_rounds_is_more_fragile_beyond_doubt() -> None:
    steep = "h = Constant <value = float {8}> ()\n t = Mul (x, h)\n r = Sin (t)\n y = Add (r, x)"
    found = run(SAME, model(steep), {"x": X})["noise of 0.2"]
    assert found.fragile
    assert found.extra == pytest.approx(found.lost[1] - found.lost[0])
    assert found.low < found.extra < found.high
    back = run(model(steep), SAME, {"x": X})["noise of 0.2"]
    assert (back.extra, back.fragile) == (-found.extra, False)


def test_one_sample_more_is_not_beyond_doubt() -> None:
    x = np.zeros((50, 2), np.float32)
    x[:, 0], x[0, 0] = 1, 0.05
    shifted = model("b = Constant <value = float[2] {0.04, 0}> ()\n y = Sub (x, b)", "float[n, 2] x", 2)
    found = run(model("y = Identity(x)", "float[n, 2] x", 2), shifted, {"x": x})
    assert not any(one.fragile for one in found.values())


def test_with_labels_only_right_answers_can_be_lost() -> None:
    labels = X.argmax(axis=1)
    labels[::2] = (labels[::2] + 1) % 4  # every other one is wrong from the start
    found = run(SAME, SAME, {"x": X}, labels)["noise of 0.4"]
    free = run(SAME, SAME, {"x": X})["noise of 0.4"]
    assert found.accuracy is not None
    assert 0 < found.lost[0] < free.lost[0]


def test_outputs_that_are_no_scores_lose_what_they_change() -> None:
    one = model("y = Identity (x)", "float[n, 1] x", 1)
    two = model("h = Constant <value = float {3}> ()\n t = Sub (x, h)\n y = Mul (t, t)", "float[n, 1] x", 1)
    found = run(one, two, {"x": X[:, :1]})["noise of 0.1"]
    assert found.kept is None
    assert found.agreement is None
    power = np.mean(X[:, 0].astype(np.float64) ** 2)
    expected = 0.1 * X[:, 0].std() * np.sqrt(2 / np.pi) / np.sqrt(power)  # the mean of |normal|
    assert found.lost[0] == pytest.approx(expected, rel=0.1)
    assert found.fragile


def test_scalars_and_outputs_whose_shape_depends_on_the_input() -> None:
    header = '<ir_version: 10, opset_import: ["" : 21]>'
    scalar = onnx.parser.parse_model(f"{header} g (float x) => (float y) {{ y = Exp (x) }}").SerializeToString()
    feeds = [({"x": np.array(i, np.float32)}, None) for i in range(4)]
    assert {d.samples for d in disturbed(scalar, scalar, lambda: feeds, Machine(threads=1), rows=False)} == {4}
    body = "h = Constant <value = float {5}> ()\n b = Greater (x, h)\n i = NonZero (b)\n y = Cast <to = 1> (i)"
    text = f"{header} g (float[n, 4] x) => (float[2, m] y) {{ {body} }}"
    above = onnx.parser.parse_model(text).SerializeToString()
    assert run(above, above, {"x": X})["noise of 0.1"].lost[0] > 0


def test_what_is_not_finite_is_not_disturbed() -> None:
    assert not run(SAME, SAME, {"x": np.full_like(X, np.nan)})


def ways(*parts: np.ndarray) -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    seen = _Seen()
    for part in parts:
        seen.add(part, rows=True)
    return dict(seen.ways())


def test_images_become_brighter_and_starker_within_their_range() -> None:
    images = RNG.uniform(2, 9, (40, 3, 2, 2)).astype(np.float32)
    found, none = ways(images[:30], images[30:]), np.zeros_like(images)
    assert list(found)[6:] == ["brightness -0.5", "brightness +0.5", "contrast 0.5", "contrast 1.5"]
    assert list(ways(images.swapaxes(1, 3))) == list(found)
    assert list(ways(np.concatenate([images, images], axis=1))) == list(found)[:6]
    for name, way in list(found.items())[4:]:
        changed = way(images, none)
        assert changed.dtype == np.float32
        assert images.min() <= changed.min() < changed.max() <= images.max(), name
    low, deviation = images.min(), images.std()
    inner = images < images.max() - deviation
    np.testing.assert_allclose((found["brightness +0.5"](images, none) - images)[inner], 0.5 * deviation, rtol=1e-4)
    np.testing.assert_allclose(found["contrast 0.5"](images, none), (images + images.mean()) / 2, rtol=1e-5)
    steps = 15 * (found["4 bits"](images, none) - low) / (images.max() - low)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)


def test_tokens_are_replaced_by_the_most_frequent_one_and_masks_stay() -> None:
    ids = RNG.integers(5, 50, (400, 10))
    ids[:, 0] = 7
    (few, many), found = ways(ids), ways(ids[:1], ids[1:])
    assert (few, many) == ("5% of tokens", "15% of tokens")
    drawn = RNG.random(ids.shape)
    np.testing.assert_array_equal(found[many](ids, drawn), np.where(drawn < 0.15, 7, ids))
    masks = RNG.integers(0, 2, (400, 10))
    for stays in (masks, masks.astype(np.float32), ids[:, 0:1] + 0 * ids, np.tile(np.arange(10), (400, 1)), ids[:, 1]):
        assert ways(stays) == {}


def test_of_several_inputs_only_those_are_disturbed_that_may_be() -> None:
    inputs = "int64[n, 10] ids, int64[n, 10] mask"
    arrays = {"ids": RNG.integers(5, 50, (200, 10)), "mask": RNG.integers(0, 2, (200, 10))}
    ids, mask = (run(m, m, arrays) for m in (model(f"y = Cast <to = 1> ({n})", inputs, 10) for n in arrays))
    assert ids["15% of tokens"].lost[0] > 0
    assert mask["15% of tokens"].lost == (0.0, 0.0)


def test_nothing_to_disturb_is_said() -> None:
    assert run(SAME, SAME, {"x": np.ones((9, 4), np.float32)}) == {}
    assert "no input can be disturbed" in perturbed(())[0]


def test_check_tells_it_in_its_report() -> None:
    report = graphopt.check(SAME_PROTO, SAME_PROTO, data={"x": X}, device="cpu", perturb=True)
    assert report.perturbed is not None
    told = json.loads(report.to_json())["perturbed"]
    assert [one["name"] for one in told] == [one.name for one in report.perturbed]
    assert perturbed(report.perturbed)[-1] == "the candidate is no more fragile"
    with pytest.raises(UsageError, match="give data"):
        graphopt.check(SAME_PROTO, SAME_PROTO, device="cpu", perturb=True)
