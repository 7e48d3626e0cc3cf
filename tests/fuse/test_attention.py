"""What attention and rotary embedding come to together, in a layer as exporters write it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt.catalogue import LOSSLESS
from graphopt.fuse import FuseAttention
from graphopt.fuse.ranges import LARGEST, range_of
from graphopt.graph.edit import Editor
from graphopt.graph.load import load
from graphopt.protocol import Context, Evaluator, Ledger
from tests.support.models import cannot_evaluate, differences, feed, parse, rewritten, run, source

DECODER = """<ir_version: 11, opset_import: ["" : 23]>
g (float[N,S,16] x, int64[N,S] ids, int64[N,S] pad) => (float[N,S,16] y)
<float[1,1,4] frequency = {1, 0.5, 0.25, 0.125},
 int64[4] q4 = {0, 0, 2, 8}, int64[4] k4 = {0, 0, 1, 8}, int64[3] flat = {0, 0, 16}, int64[1] a0 = {0},
 int64[1] a1 = {1}, int64[1] a2 = {2}, int64[1] a3 = {3}, int64[1] four = {4}, int64[1] far = {9223372036854775807},
 int64[5] twice = {1, 1, 2, 1, 1}, int64[4] heads = {0, 2, -1, 8}, float root = {0.35355338}, float zero = {0},
 float low = {-3.4028234663852886e38}, int64 none = {0}, int64 one = {1}, int64 minus = {-1}>
{
  shape = Shape (ids)  length = Gather (shape, one)  index = Range (none, length, one)
  later = Unsqueeze (index, a0)  sooner = Unsqueeze (index, a1)  causal = LessOrEqual (later, sooner)
  position = POSITION
  row = Unsqueeze (position, a2)
  angle = Mul (row, frequency)
  both = Concat <axis = -1> (angle, angle)
  c3 = Cos (both)  s3 = Sin (both)
  c = Unsqueeze (c3, a1)  s = Unsqueeze (s3, a1)
  q0 = MatMul (x, wq)  q1 = Reshape (q0, q4)  q = Transpose <perm = [0, 2, 1, 3]> (q1)
  k0 = MatMul (x, wk)  k1 = Reshape (k0, k4)  k = Transpose <perm = [0, 2, 1, 3]> (k1)
  v0 = MatMul (x, wv)  v1 = Reshape (v0, k4)  v = Transpose <perm = [0, 2, 1, 3]> (v1)
  qa = Slice (q, a0, four, a3)  qb = Slice (q, four, far, a3)  qn = Neg (qb)  qt = Concat <axis = -1> (qn, qa)
  qc = Mul (q, c)  qs = Mul (qt, s)  qr = Add (qc, qs)
  ka = Slice (k, a0, four, a3)  kb = Slice (k, four, far, a3)  kn = Neg (kb)  kt = Concat <axis = -1> (kn, ka)
  kc = Mul (k, c)  ks = Mul (kt, s)  kr = Add (kc, ks)
  ku = Unsqueeze (kr, a2)  ke = Expand (ku, twice)  kg = Reshape (ke, heads)
  vu = Unsqueeze (v, a2)  ve = Expand (vu, twice)  vg = Reshape (ve, heads)
  kp = Transpose <perm = [0, 1, 3, 2]> (kg)
  score = MatMul (qr, kp)  scaled = Mul (score, root)
  p0 = Cast <to = 9> (pad)  p1 = Unsqueeze (p0, a1)  p2 = Unsqueeze (p1, a1)
  allowed = And (causal, p2)  mask = Where (allowed, zero, low)
  masked = Add (scaled, mask)  weight = Softmax <axis = -1> (masked)
  o = MatMul (weight, vg)  o1 = Transpose <perm = [0, 2, 1, 3]> (o)  o2 = Reshape (o1, flat)
  y = MatMul (o2, wo)
}"""


def decoder(position: str) -> onnx.ModelProto:
    """With positions that are fed, or counted for all samples alike."""
    model, draw = parse(DECODER.replace("POSITION", position)), np.random.default_rng(0)
    for name, width in (("wq", 16), ("wk", 8), ("wv", 8), ("wo", 16)):
        weight = ir.tensor(draw.standard_normal((16, width)).astype(np.float32), name=name)
        model.graph.initializer.append(ir.serde.serialize_tensor(weight))
    return model


@pytest.mark.parametrize("position", ["Cast <to = 1> (ids)", "Cast <to = 1> (later)"])
def test_a_decoder_layer(position: str, evaluate: Evaluator) -> None:
    """Rotary embedding before the heads are split, attention of grouped heads, no Transpose and no Reshape."""
    model = decoder(position)
    result = rewritten(load(model), [p() for p in LOSSLESS], evaluate, growth=10_000)
    count = Counter(n.op_type for n in result.model.graph.node)
    assert (count["Attention"], count["RotaryEmbedding"], count["MatMul"]) == (1, 2, 4)
    assert not count.keys() & {"Transpose", "Reshape", "Softmax", "Split", "Slice", "Neg"}
    for seed, dims in enumerate(({"N": 1, "S": 1}, {"N": 2, "S": 5}, {"N": 7, "S": 2})):
        given = feed(model, dims, seed=seed)  # with rows that forbid all
        assert not differences(run(model, given), run(result.model, given), relative=1e-5)


def test_fast_math_cuts_off_a_mask_that_may_be_infinite() -> None:
    """Rows that allow something come out as spelled out."""
    before = parse("""<ir_version: 11, opset_import: ["" : 23]>
    g (float[N,2,S,4] q, float[N,2,S,4] k, float[N,2,S,6] v, float[N,1,S,S] m) => (float[N,2,S,6] y)
    { t = Transpose <perm = [0, 1, 3, 2]> (k) s = MatMul (q, t) a = Add (s, m) p = Softmax (a) y = MatMul (p, v) }""")
    edit = Editor(load(before).model)
    FuseAttention().run(edit, Context(cannot_evaluate, Ledger(0, 0), fast_math=True))
    after = ir.to_proto(edit.model)
    assert [n.op_type for n in after.graph.node] == ["Max", "Attention"]
    given = feed(before, {"N": 2, "S": 3})
    given["m"] = np.where(np.tri(3, dtype=bool), np.asarray(given["m"]), -np.inf).astype(np.float32)
    assert not differences(run(before, given), run(after, given), relative=1e-5)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("y = Where (b, one, low)", (-LARGEST, 1.0)),
        ("f = Cast <to = 1> (b) y = Sub (one, f)", (0.0, 1.0)),
        ("f = Cast <to = 1> (i) y = Mul (f, low)", (-LARGEST, LARGEST)),
        ("w = Where (b, one, low) y = Add (w, one)", (-LARGEST, 2.0)),
        ("w = Where (b, one, low) y = Add (w, low)", None),
        ("w = Where (b, one, low) v = Unsqueeze (w, axes) y = Min (v, one, one)", (-LARGEST, 1.0)),
        ("f = Cast <to = 1> (b) y = Max (f, two)", (2.0, 2.0)),
        ("f = Cast <to = 1> (b) y = Concat <axis = 0> (f, rows)", (-3.0, 4.0)),
        ("y = Gather (rows, i)", (-3.0, 4.0)),
        ("y = Where (b, one, infinite)", None),
        ("y = Where (b, x, one)", None),
        ("y = Identity (x)", None),
        ("f = Cast <to = 1> (h) y = Neg (f)", None),
        ("f = Cast <to = 1> (h) y = Identity (f)", None),
        ("f = Cast <to = 1> (b) y = Log (f)", None),
    ],
)
def test_the_range_of_a_value(nodes: str, expected: tuple[float, float] | None) -> None:
    found = source(f"""g (bool[N] b, int64[N] i, float[N] x, float16[N] h, float over) => (float[M] y)
    <float one = {{1}}, float two = {{2}}, float low = {{-3.4028234663852886e38}}, float infinite = {{-inf}},
     float[2] rows = {{-3, 4}}, int64[1] axes = {{0}}> {{ {nodes} }}""")
    assert range_of(found.model.graph.outputs[0]) == expected


def test_the_range_of_a_long_sum_is_not_looked_for() -> None:
    steps = " ".join(f"x{i + 1} = Add (x{i}, x{i})" for i in range(80))
    found = source(f"g (bool[N] b) => (float[N] y) {{ x0 = Cast <to = 1> (b) {steps} y = Neg (x80) }}")
    assert range_of(next(n for n in found.model.graph if n.outputs[0].name == "x80").outputs[0]) is None
    assert range_of(next(n for n in found.model.graph if n.outputs[0].name == "x30").outputs[0]) == (0.0, 2.0**30)
