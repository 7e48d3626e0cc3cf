"""Tables, shared and quantized weights, and what is held."""

from __future__ import annotations

from .kind import LAST, ROWS, Kind

TABLES = (
    Kind(
        "embedding",
        """g (int64[N,S] x) => (float[N,S,5] y) <float[9,8] table, float[7,8] places, int64[1] i0 = {0}, int64[1] i1 = {1},
        int64[1] ax = {0}, float[8,6] w1, float[6,5] w2>
        { a = Gather(table, x) s = Shape(x) l = Gather(s, i1) p = Slice(places, i0, l, ax) b = Add(a, p)
          [one] c = MatMul(b, w1) d = Relu(c) [last] y = MatMul(d, w2) }""",
        {"one": 6},
        held=LAST,
    ),
    Kind(
        "embedding that is cut",
        """g (int64[N,S] x) => (float[N,S,5] y) <float[9,8] table, float[8] bias, float[8,6] w1, float[6,5] w2>
        { a = Gather(table, x) b = Add(a, bias) [one] c = MatMul(b, w1) d = Relu(c) [last] y = MatMul(d, w2) }""",
        {"one": 6, "one#2": 8},
        held=LAST,
    ),
    Kind(
        "embedding that is the last layer too",
        """g (int64[N] x) => (float[N,9] y) <float[9,8] table, float[8,6] w1, float[6,8] w2>
        { a = Gather(table, x) [up] b = MatMul(a, w1) c = Relu(b) [down] d = MatMul(c, w2) e = Add(a, d)
          [last] y = Gemm<transB = 1>(e, table) }""",
        {"up": 6, "down": 8},
        held={"last": "Gather looks indices up in it"},
    ),
    Kind(
        "two branches with the same weights",
        """g (float[N,3,6,6] x, float[N,3,6,6] z) => (float[N,5] y) <float[8,3,3,3] w1, float[6,8,3,3] w2, float[6,5] w3>
        { [a1] a = Conv(x, w1) [b1] b = Conv(z, w1) c = Relu(a) d = Relu(b) [a2] e = Conv(c, w2) [b2] f = Conv(d, w2)
          h = Sub(e, f) i = GlobalAveragePool(h) j = Flatten(i) [last] y = MatMul(j, w3) }""",
        {"a1": 8, "a2": 6},
        held=LAST,
    ),
    Kind(
        "a weight in two roles",
        f"""{ROWS} <float[12,8] w1, float[8,8] w, float[8,5] w2>
        {{ [one] a = MatMul(x, w1) b = Relu(a) [two] c = MatMul(b, w) d = Relu(c) [three] e = MatMul(d, w) f = Tanh(e)
           [last] y = MatMul(f, w2) }}""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "a weight that is also added",
        f"""{ROWS} <float[12,8] w1, float[8,8] w, float[8,5] w2, int64[2] s = {{1, 8}}>
        {{ [one] a = MatMul(x, w1) [two] b = MatMul(a, w) m = ReduceMax<axes = [0], keepdims = 1>(w) c = Add(b, m)
           [last] y = MatMul(c, w2) }}""".replace("g (", '<ir_version: 8, opset_import: ["" : 13]> g (', 1),
        {"two": 8},
        held=LAST | {"one": "ReduceMax reduces it"},
    ),
)


QUANTIZED = (
    Kind(
        "quantizers for each channel",
        """g (float[N,3,6,6] x) => (float[N,5,4,4] y)
        <int8[8,3,3,3] w1, float[8] var1, int8[8] z1, int32[8] b1, float[8] var2, int32[8] zb, int8[5,8,1,1] w2,
        float[5] var3, int8[5] z3, float s = {0.05}, int8 z = {3}>
        { w = DequantizeLinear<axis = 0>(w1, var1, z1) b = DequantizeLinear<axis = 0>(b1, var2, zb)
          [one] a = Conv(x, w, b) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) r = Relu(d)
          v = DequantizeLinear<axis = 0>(w2, var3, z3) [last] y = Conv(r, v) }""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "quantizers for blocks",
        """g (float[N,S,12] x) => (float[N,S,5] y)
        <int8[12,8] w1, float[6,8] var1, float[8,5] w2>
        { w = DequantizeLinear<axis = 0, block_size = 2>(w1, var1) [one] a = MatMul(x, w) [last] y = MatMul(a, w2) }""",
        {},
        held=LAST | {"one": "DequantizeLinear"},
    ),
)


BARRIERS = (
    Kind(
        "an output on the way",
        """g (float[N,3,6,6] x) => (float[N,5,6,6] y, float[N,8,6,6] z) <float[8,3,1,1] w1, float[6,8,1,1] w2,
        float[5,6,1,1] w3>
        { [one] z = Conv(x, w1) [two] b = Conv(z, w2) [last] y = Conv(b, w3) }""",
        {"two": 6},
        held=LAST | {"one": "an axis of the output z"},
    ),
    Kind(
        "two outputs",
        """g (float[N,3,6,6] x) => (float[N,5,6,6] y, float[N,4,6,6] z) <float[8,3,1,1] w1, float[4,8,1,1] w2,
        float[5,8,1,1] w3>
        { [one] a = Conv(x, w1) [two] z = Conv(a, w2) [last] y = Conv(a, w3) }""",
        {"one": 8},
        held=LAST | {"two": "output z"},
    ),
    Kind(
        "a body that reads it",
        """g (float[N,3,6,6] x, bool c) => (float[N,5,6,6] y) <float[8,3,1,1] w1, float[8,8,1,1] w2, float[5,8,1,1] w3>
        { [one] a = Conv(x, w1) [two] b = Conv(a, w2)
          d = If(c) <then_branch = t () => (float[N,8,6,6] e) { e = Relu(b) },
                     else_branch = f () => (float[N,8,6,6] h) { h = Neg(b) }>
          [last] y = Conv(d, w3) }""",
        {"one": 8},
        held=LAST | {"two": "a body of If reads it"},
    ),
    Kind(
        "a loop that reads it",
        """g (float[N,3,6,6] x, int64 n, bool c) => (float[N,5,6,6] y) <float[8,3,1,1] w1, float[5,8,1,1] w3>
        { [one] a = Conv(x, w1)
          d = Loop(n, c, a) <body = b (int64 i, bool k, float[N,8,6,6] s) => (bool ko, float[N,8,6,6] t)
                             { ko = Identity(k) t = Add(s, a) }>
          [last] y = Conv(d, w3) }""",
        {},
        held={"one": "a body of Loop reads it"},
    ),
    Kind(
        "an operator of which nothing is known",
        """<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]> g (float[N,3,6,6] x) => (float[N,5,6,6] y)
        <float[8,3,1,1] w1, float[5,8,1,1] w2>
        { [one] a = Conv(x, w1) b = com.microsoft.QuickGelu<alpha = 1.0>(a) [last] y = Conv(b, w2) }""",
        {},
        held={"one": "QuickGelu"},
    ),
    Kind(
        "an operator without a rule",
        """g (float[2,3,6,6] x) => (float[2,5,6,6] y) <float[8,3,1,1] w1, float[6,8,1,1] w2, int64[2] l = {4, 6},
        float[5,6,1,1] w3>
        { [one] a = Conv(x, w1) b = ReverseSequence<batch_axis = 0, time_axis = 1>(a, l) [two] c = Conv(b, w2)
          [last] y = Conv(c, w3) }""",
        {"two": 6},
        held=LAST | {"one": "ReverseSequence needs it as it is"},
    ),
    Kind(
        "a weight that a feed may replace",
        """g (float[N,3,6,6] x, float[8,3,1,1] w1) => (float[N,5,6,6] y) <float[6,8,1,1] w2, float[5,6,1,1] w3>
        { [one] a = Conv(x, w1) [two] b = Conv(a, w2) [last] y = Conv(b, w3) }""",
        {"two": 6},
        held=LAST | {"one": "it is an axis of w1"},
    ),
    Kind(
        "space of any size",
        """g (float[N,3,H,W] x) => (float[N,5,P,Q] y) <float[8,3,3,3] w1, float[6,8,3,3] w2, float[5,6,1,1] w3>
        { [one] a = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(x, w1) b = Relu(a) [two] c = Conv(b, w2)
          [last] y = Conv(c, w3) }""",
        {"one": 8, "two": 6},
        held=LAST,
    ),
    Kind(
        "a weight on the left",
        """g (float[N,12,S] x) => (float[N,5,S] y) <float[8,12] w1, float[8,1] b1, float[5,8] w2>
        { [one] a = MatMul(w1, x) b = Add(a, b1) c = Relu(b) [last] y = MatMul(w2, c) }""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "a transposed product",
        """g (float[12,N] x) => (float[N,5] y) <float[12,8] w1, float[8] b1, float[5,8] w2>
        { [one] a = Gemm<transA = 1, alpha = 0.5, beta = 2.0>(x, w1, b1) c = Relu(a) [last] y = Gemm<transB = 1>(c, w2) }""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "sums by equations",
        """g (float[N,S,12] x) => (float[N,S,5] y) <float[12,8] w1, float[12,8] w2, float[8,5] w3>
        { [one] a = Einsum<equation = "nsi,io->nso">(x, w1) [two] b = Einsum<equation = "nsi,io->nso">(x, w2)
          [pairs] c = Einsum<equation = "nqi,nki->nqk">(a, b) d = Softmax(c)
          [mix] e = Einsum<equation = "nqk,nki->nqi">(d, b) [last] y = Einsum<equation = "nso,op->nsp">(e, w3) }""",
        {"one": 8},
        held=LAST,
    ),
)
