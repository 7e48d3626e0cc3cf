"""Masks that float16 can hold: what is added where nothing may be seen, no lower than it has to be."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt.compress.halves.half import HalfPrecision
from graphopt.compress.halves.masks import shallow
from graphopt.graph.carry import Carried
from graphopt.graph.load import load
from graphopt.graph.save import serialize
from graphopt.plan.halves import Halves
from tests.support.models import parse, run

SEEN = np.array([[1, 1, 0], [0, 1, 1]], np.int64)
S = np.random.default_rng(2).standard_normal((2, 3, 3)).astype(np.float32)
HEAD = "g (float[N,3,3] s, int64[N,3] seen) => (float[N,3,3] y) <float one = {1}, float low = {-1e9}, int64[1] a = {1}>"
MASK = "f = Cast <to = 1> (seen) o = Sub (one, f) u = Mul (o, low) m = Unsqueeze (u, a)"


def model(text: str) -> ir.Model:
    return load(parse(text)).model


def proto(made: ir.Model) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(serialize(made, Carried()))


@pytest.mark.parametrize(
    "text",
    [
        f"{HEAD} {{ {MASK} t = Add (s, m) y = Softmax (t) }}",
        f"{HEAD} {{ {MASK} d = Add (m, m) t = Add (d, s) y = Softmax (t) }}",
        f"""{HEAD} {{ b = Cast <to = 9> (seen) m = Unsqueeze (b, a) t = Where (m, s, low) y = Softmax (t) }}""",
        f"""<ir_version: 10, opset_import: ["" : 23]> {HEAD.replace("{1}>", "{1}, int64[4] to = {1, 1, 3, 1}>")}
            {{ {MASK} w = Unsqueeze (m, a) e = Expand (w, to)
            y = Attention <q_num_heads = 1, kv_num_heads = 1> (s, s, s, e) }}""",
    ],
)
def test_a_low_mask_is_cut_off_and_nothing_else_changes(text: str) -> None:
    given = model(text)
    made = shallow(given)
    assert made is not given
    found = proto(made)
    onnx.checker.check_model(found, full_check=True)
    feed = {"s": S, "seen": SEEN}
    assert np.array_equal(run(found, feed)["y"], run(proto(given), feed)["y"])
    readers = [n for n in found.graph.node if n.op_type in {"Add", "Where", "Attention"}]
    assert any("low" in name or "Max" in name for n in readers for name in n.input)


@pytest.mark.parametrize(
    "text",
    [
        HEAD.replace("-1e9", "-9999")
        + "{ b = Cast <to = 9> (seen) m = Unsqueeze (b, a) t = Where (m, s, low) y = Softmax (t) }",
        "g (float[N,3,3] s, float[N,3] m) => (float[N,3,3] y) { t = Add (s, m) y = Softmax (t) }",
        "g (float[N,3,3] s) => (float[N,3,3] y) <float low = {-inf}> { t = Add (s, low) y = Softmax (t) }",
        "g (float[N,3,3] s) => (float[N,3,3] y) <float low = {-1e9}> { t = Add (s, low) y = Sigmoid (t) }",
    ],
)
def test_what_is_no_low_mask_or_not_known_stays(text: str) -> None:
    given = model(text)
    assert shallow(given) is given


def test_rows_that_forbid_all_are_seen() -> None:
    given = model(f"{HEAD} {{ {MASK} t = Add (s, m) y = Softmax (t) }}")
    half = HalfPrecision()
    some = {"s": np.tile(S, (8, 1, 1)), "seen": np.tile(SEEN, (8, 1))}
    found = Halves(given, half, some).shallow(known=False)
    assert found is not None
    assert found is not given
    none = some | {"seen": np.zeros_like(some["seen"])}
    assert Halves(given, half, none).shallow(known=False) is None
    assert Halves(given, half, none).shallow(known=True) is not None
    assert Halves(given, HalfPrecision("bfloat16"), none).shallow(known=False) is given
    assert Halves(given, HalfPrecision(masks=False), none).shallow(known=False) is given
