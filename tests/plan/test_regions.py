"""Which regions stay on floats: decibels and the clock, or an allowed drop, decide; both are made up here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import ceil, log2
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.compress.integers.quantize import Quantize
from graphopt.compress.integers.region import layout
from graphopt.errors import Verdict
from graphopt.graph.carry import Carried
from graphopt.graph.nodes import array, key
from graphopt.graph.save import serialize
from graphopt.plan import regions
from graphopt.plan.regions import Quantized, Regions
from graphopt.run.bench import Timing
from graphopt.run.machine import Machine
from graphopt.run.session import Feed
from graphopt.targets import Integers
from tests.compress.integers.test_region import BLOCK, ON_CPU, ON_TENSORRT
from tests.support.integers import filled, images, noise

Score = Callable[[ir.Model], Mapping[str, tuple[float, float]]]
ALL = ("p", "q", "s", "last")


def on_integers(model: ir.Model) -> set[str]:
    """The products whose weight is one of integers."""
    return {key(n) for n in model.graph if n.op_type == "Conv" and array(n.inputs[1]) is None}


def block(**more: Any) -> Regions:
    return Regions(filled(BLOCK), ON_CPU, Quantize(), images(4, 6, 6), **more)


def unasked(_: ir.Model) -> Mapping[str, tuple[float, float]]:
    raise AssertionError("nobody wants to know")


class Clock:
    """A clock that tells what is made up, and remembers what it was asked about."""

    def __init__(self, *ratios: float) -> None:
        self.ratios, self.asked = list(ratios), list[Feed]()

    def __call__(self, first: object, second: object, feed: Feed, *, seconds: float) -> Timing:
        assert first is not second
        assert seconds > 0
        self.asked.append(feed)
        ratio = self.ratios.pop(0)
        return Timing(1.0, ratio, ratio, ratio, ratio, 50, "CPUExecutionProvider")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Clock]:
    def put(*ratios: float) -> Clock:
        made = Clock(*ratios)
        monkeypatch.setattr(regions, "bench", made)
        return made

    return put


def test_what_a_region_costs_is_what_the_outputs_gain_without_it() -> None:
    some = block()
    found = some.settled(unasked, {})
    assert found.floats == ()
    assert found.slower is None
    assert found.weights.keys() == set(ALL)
    assert found.gains.keys() == set(ALL)
    assert on_integers(found.model) == set(ALL)
    feed = {"x": images(4, 6, 6)["x"]}
    before = noise(some.model, found.model, feed)
    for name, gain in found.gains.items():
        after = noise(some.model, some.quantized([name]).model, feed)
        assert gain == pytest.approx(10 * np.log10(before / after), abs=0.3)


def test_regions_stay_on_floats_where_that_brings_much_and_takes_little(clock: Callable[..., Clock]) -> None:
    feed = images(4, 6, 6, count=1)
    some = block(timed=feed)
    gains = block().settled(unasked, {}).gains
    worth = sorted((n for n in gains if gains[n] >= 0.25), key=lambda n: -gains[n])
    assert len(worth) >= 2
    told = clock(1.2, 1.04, *([2.0] * 9))
    found = some.settled(unasked, {})
    assert found.floats == (worth[1],)
    assert found.slower == 1.04
    assert on_integers(found.model) == set(ALL) - {worth[1]}
    assert found.weights.keys() == found.layout.nodes & set(ALL) == set(ALL) - {worth[1]}
    assert len(told.asked) == min(4, len(worth))
    assert all(asked is feed for asked in told.asked)


def test_what_is_costly_has_a_cause_and_a_word_on_what_was_done(clock: Callable[..., Clock]) -> None:
    feed = images(4, 6, 6, count=1)
    clock(1.2, 1.04, *([2.0] * 9))
    found = block(timed=feed).settled(unasked, {})
    dearest = sorted((n for n in found.gains if found.gains[n] >= 0.5), key=lambda n: -found.gains[n])
    assert list(found.costs) == dearest
    done = [found.costs[n].done for n in dearest]
    assert done[:2] == ["nothing: on floats, the model would take +20.0% of the time", "kept on floats"]
    assert all("its weights: rounding them to 3 bits" in c.cause for c in coarse(block).costs.values())
    assert {c.done for c in coarse(block).costs.values()} == {"nothing: no clock was asked"}
    far = images(4, 6, 6)
    far["x"][:3, 0, 0, 0] = 60
    cost = replace(block(), samples=far, form=Quantize(ranges="minmax")).settled(unasked, {}).costs["p"]
    assert cost.cause.startswith("what it reads: outlier channel: one reaches")


def coarse(block: Callable[..., Regions]) -> Quantized:
    return replace(block(), form=Quantize(3)).settled(unasked, {})


def test_what_was_chosen_adds_up(clock: Callable[..., Clock]) -> None:
    clock(1.01, 1.02, 1.3, 1.3)
    found = block(timed=images(4, 6, 6, count=1)).settled(unasked, {})
    assert len(found.floats) == 2
    assert found.slower == 1.02


def test_without_a_clock_all_is_on_integers(clock: Callable[..., Clock]) -> None:
    told = clock()
    assert block().settled(unasked, {}).floats == ()
    assert not told.asked


def test_an_allowed_drop_that_integers_keep_asks_for_nothing_else(clock: Callable[..., Clock]) -> None:
    told, asked = clock(), list[set[str]]()

    def score(model: ir.Model) -> Mapping[str, tuple[float, float]]:
        asked.append(on_integers(model))
        return {"accuracy": (1.0, 0.995)}

    found = block(timed=images(4, 6, 6, count=1)).settled(score, {"accuracy": 0.01})
    assert (found.floats, found.gains) == ((), {})
    assert asked == [set(ALL)]
    assert not told.asked


@pytest.mark.parametrize("needed", [1, 2, 3, 4])
def test_the_fewest_regions_that_keep_to_an_allowed_drop_are_found_by_bisection(
    needed: int, clock: Callable[..., Clock]
) -> None:
    told, asked = clock(), list[set[str]]()
    gains = block().settled(unasked, {}).gains
    dearest = sorted(gains, key=lambda n: -gains[n])

    def score(model: ir.Model) -> Mapping[str, tuple[float, float]]:
        asked.append(on_integers(model))
        return {"accuracy": (1.0, 1.0 if not asked[-1] & set(dearest[:needed]) else 0.5)}

    found = block(timed=images(4, 6, 6, count=1)).settled(score, {"accuracy": 0.01})
    assert found.floats == tuple(dearest[:needed])
    assert on_integers(found.model) == set(ALL) - set(found.floats)
    assert len(asked) <= 2 + ceil(log2(len(ALL))) - (needed == len(ALL))
    assert not told.asked


def test_what_is_emitted_is_what_was_measured() -> None:
    asked = list[bytes]()

    def score(model: ir.Model) -> Mapping[str, tuple[float, float]]:
        asked.append(serialize(model, Carried()))
        return {"accuracy": (1.0, 1.0 if len(asked) > 1 else 0.5)}

    found = block().settled(score, {"accuracy": 0.01})
    assert len(found.floats) == 1
    assert serialize(found.model, Carried()) == asked[-1]


def test_nothing_that_can_be_quantized_is_a_verdict() -> None:
    text = "g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }"
    some = Regions(filled(text), ON_CPU, Quantize(), images(3))
    with pytest.raises(Verdict, match="nothing in the model can be quantized"):
        some.settled(unasked, {})


def test_what_is_skipped_is_not_even_asked_about() -> None:
    found = block(skip=["q", "last"]).settled(unasked, {})
    assert found.gains.keys() == {"p", "s"}
    assert on_integers(found.model) == {"p", "s"}


def test_the_same_regions_give_the_same_model(clock: Callable[..., Clock]) -> None:
    clock(1.01, *([2.0] * 9))
    found = block(timed=images(4, 6, 6, count=1)).settled(unasked, {})
    assert len(found.floats) == 1
    again = block().quantized(found.floats)
    assert serialize(again.model, Carried()) == serialize(found.model, Carried())
    assert again.floats == found.floats


@pytest.mark.parametrize("target", [ON_CPU, ON_TENSORRT])
@pytest.mark.parametrize("text", [BLOCK, BLOCK.replace("Add(e, r)", "Add(e, b)")])
def test_with_fewer_regions_no_other_values_are_quantized(text: str, target: Integers) -> None:
    model = filled(text)
    every = layout(model, target).values
    for number in range(1, 16):
        gone = {name for place, name in enumerate(ALL) if number >> place & 1}
        assert layout(model, target, gone).values.keys() <= every.keys()


def test_progress_is_told() -> None:
    told = list[str]()
    block(machine=Machine(progress=told.append)).settled(unasked, {})
    assert [t for t in told if t.startswith("measuring what quantizing")] == [
        f"measuring what quantizing {name} costs" for name in ALL
    ]
    assert "rounding last" in told
