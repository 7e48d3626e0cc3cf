"""Normalizations, attention, recurrent layers."""

from __future__ import annotations

from .kind import LAST, NCHW, ROWS, Kind

NORMALIZATIONS = (
    Kind(
        "statistics that are given",
        f"""{NCHW} <float[8] s, float[8] b, float[8] m, float[8] var, float[8,3,1,1] w1, float[5,8,1,1] w2>
        {{ [one] a = Conv(x, w1) c = Relu(a) d = BatchNormalization(c, s, b, m, var) [last] y = Conv(d, w2) }}""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "statistics of each channel",
        f"""{NCHW} <float[8] s, float[8] b, float[8,3,1,1] w1, float[5,8,1,1] w2>
        {{ [one] a = Conv(x, w1) d = InstanceNormalization(a, s, b) [last] y = Conv(d, w2) }}""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "statistics of groups",
        f"""{NCHW} <float[8] s, float[8] b, float[8,3,1,1] w1, float[5,8,1,1] w2>
        {{ [one] a = Conv(x, w1) d = GroupNormalization<num_groups = 4>(a, s, b) [last] y = Conv(d, w2) }}""",
        {},
        {"one": 4},
        held=LAST,
    ),
    Kind(
        "statistics of groups, spelled out",
        """g (float[N,3,H,W] x) => (float[N,5,H,W] y) <float[4] one = {1, 1, 1, 1}, float[4] zero = {0, 0, 0, 0},
        int64[3] s = {0, 4, -1}, float[8,1,1] scale, float[8,1,1] bias, float[8,3,1,1] w1, float[5,8,1,1] w2>
        { [one] a = Conv(x, w1) c = Reshape(a, s) d = InstanceNormalization(c, one, zero) t = Shape(a) e = Reshape(d, t)
          f = Mul(e, scale) h = Add(f, bias) [last] y = Conv(h, w2) }""",
        {"one": 4},
        held=LAST,
    ),
    Kind(
        "statistics of all channels",
        f"""{ROWS} <float[12,8] w1, float[8] s, float[8] b, float[8,5] w2, float[12,8] w3, float[8,5] w4, float[8] r>
        {{ [one] a = MatMul(x, w1) c = LayerNormalization(a, s, b) [two] d = MatMul(c, w2)
           [three] e = MatMul(x, w3) f = RMSNormalization(e, r) [four] h = MatMul(f, w4) y = Add(d, h) }}""".replace(
            "g (", '<ir_version: 10, opset_import: ["" : 23]> g (', 1
        ),
        {},
        held={"one": "LayerNormalization", "two": "output y", "three": "RMSNormalization", "four": "output y"},
    ),
    Kind(
        "chances of channels",
        f"""{ROWS} <float[12,8] w1, float[8,5] w2> {{ [one] a = MatMul(x, w1) b = Softmax<axis = -1>(a)
        [last] y = MatMul(b, w2) }}""",
        {},
        held=LAST | {"one": "Softmax works along it"},
    ),
    Kind(
        "chances along time",
        f"""{ROWS} <float[12,8] w1, float[8,5] w2> {{ [one] a = MatMul(x, w1) b = Softmax<axis = 1>(a)
        [last] y = MatMul(b, w2) }}""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "neighbours among channels",
        f"""{NCHW} <float[8,3,1,1] w1, float[5,8,1,1] w2> {{ [one] a = Conv(x, w1) b = LRN<size = 3>(a)
        [last] y = Conv(b, w2) }}""",
        {},
        held=LAST | {"one": "LRN"},
    ),
)


QKV = """<float[12,24] wq, float[12,24] wk, float[12,24] wv, float[24,5] wo, float root = {0.5},
        int64[4] heads = {0, 0, 4, 6}, int64[3] flat = {0, 0, 24}"""
MIXED = """t = Transpose<perm = [0, 2, 1, 3]>(qh) u = Transpose<perm = [0, 2, 3, 1]>(kh)
           v = Transpose<perm = [0, 2, 1, 3]>(vh) [scores] s = MatMul(t, u) r = Mul(s, root) p = Softmax<axis = -1>(r)
           [mix] o = MatMul(p, v) z = Transpose<perm = [0, 2, 1, 3]>(o) a = Reshape(z, flat) [last] y = MatMul(a, wo)"""

ATTENTIONS = (
    Kind(
        "attention",
        f"""{ROWS} {QKV}> {{ [q] qf = MatMul(x, wq) [k] kf = MatMul(x, wk) [v] vf = MatMul(x, wv)
           qh = Reshape(qf, heads) kh = Reshape(kf, heads) vh = Reshape(vf, heads) {MIXED} }}""",
        {"q": 6, "v": 6},
        {"q": 4},
        held=LAST,
    ),
    Kind(
        "attention, packed and split",
        f"""{ROWS} {QKV}, float[12,72] w> {{ [qkv] f = MatMul(x, w) qf, kf, vf = Split<axis = -1, num_outputs = 3>(f)
           qh = Reshape(qf, heads) kh = Reshape(kf, heads) vh = Reshape(vf, heads) {MIXED} }}""",
        {"qkv": 6, "qkv#2": 6},
        {"qkv": 4},
        held=LAST,
    ),
    Kind(
        "attention, packed as three",
        f"""{ROWS} {QKV}, float[12,72] w, int64[5] three = {{0, 0, 3, 4, 6}}, int64 i0 = {{0}}, int64 i1 = {{1}},
        int64 i2 = {{2}}> {{ [qkv] f = MatMul(x, w) h = Reshape(f, three) t = Transpose<perm = [2, 0, 3, 1, 4]>(h)
           q = Gather(t, i0) k = Gather(t, i1) v = Gather(t, i2) u = Transpose<perm = [0, 1, 3, 2]>(k)
           [scores] s = MatMul(q, u) r = Mul(s, root) p = Softmax<axis = -1>(r) [mix] o = MatMul(p, v)
           z = Transpose<perm = [0, 2, 1, 3]>(o) a = Reshape(z, flat) [last] y = MatMul(a, wo) }}""",
        {"qkv": 6},
        {"qkv": 4},
        held=LAST,
    ),
    Kind(
        "attention in one batch with the samples",
        """g (float[S,N,12] x) => (float[S,N,5] y) <float[12,24] wq, float[12,24] wk, float[12,24] wv, float[24,5] wo,
        int64[1] i0 = {0}, int64[1] i1 = {1}, int64 j1 = {1}, int64 four = {4}, int64[1] six = {6},
        int64[1] all = {24}, int64[1] ax = {0}, int64[1] minus = {-1}>
        { shape = Shape(x) l = Gather(shape, i0) n = Gather(shape, i1) m = Mul(n, four)
          s = Concat<axis = 0>(l, m, six) back = Concat<axis = 0>(l, n, all)
          [q] qf = MatMul(x, wq) [k] kf = MatMul(x, wk) [v] vf = MatMul(x, wv)
          qr = Reshape(qf, s) kr = Reshape(kf, s) vr = Reshape(vf, s)
          qt = Transpose<perm = [1, 0, 2]>(qr) kt = Transpose<perm = [1, 2, 0]>(kr) vt = Transpose<perm = [1, 0, 2]>(vr)
          [scores] c = MatMul(qt, kt) p = Softmax<axis = -1>(c) [mix] o = MatMul(p, vt)
          ot = Transpose<perm = [1, 0, 2]>(o) a = Reshape(ot, back) [last] y = MatMul(a, wo) }""",
        {"q": 6, "v": 6},
        held=LAST,
    ),
    Kind(
        "heads of queries that share keys",
        f"""{ROWS} <float[12,24] wq, float[12,12] wk, float[12,12] wv, float[24,5] wo, float root = {{0.5}},
        int64[4] four = {{0, 0, 4, 6}}, int64[4] two = {{0, 0, 2, 6}}, int64[3] flat = {{0, 0, 24}}, int64[1] ax = {{3}},
        int64[5] twice = {{1, 1, 1, 2, 1}}> {{ [q] qf = MatMul(x, wq) [k] kf = MatMul(x, wk) [v] vf = MatMul(x, wv)
           qh = Reshape(qf, four) k0 = Reshape(kf, two) v0 = Reshape(vf, two)
           k1 = Unsqueeze(k0, ax) v1 = Unsqueeze(v0, ax) k2 = Expand(k1, twice) v2 = Expand(v1, twice)
           kh = Reshape(k2, four) vh = Reshape(v2, four) {MIXED} }}""",
        {"q": 6, "v": 6},
        {"q": 2},
        held=LAST,
    ),
    Kind(
        "heads of queries that share keys, by indices",
        f"""{ROWS} <float[12,24] wq, float[12,12] wk, float[12,12] wv, float[24,5] wo, float root = {{0.5}},
        int64[4] four = {{0, 0, 4, 6}}, int64[4] two = {{0, 0, 2, 6}}, int64[3] flat = {{0, 0, 24}},
        int64[4] pick = {{0, 0, 1, 1}}> {{ [q] qf = MatMul(x, wq) [k] kf = MatMul(x, wk) [v] vf = MatMul(x, wv)
           qh = Reshape(qf, four) k0 = Reshape(kf, two) v0 = Reshape(vf, two)
           kh = Gather<axis = 2>(k0, pick) vh = Gather<axis = 2>(v0, pick) {MIXED} }}""",
        {"q": 6, "v": 6},
        {"q": 2},
        held=LAST,
    ),
    Kind(
        "one head of keys, repeated",
        f"""{ROWS} <float[12,24] wq, float[12,6] wk, float[12,6] wv, float[24,5] wo, float root = {{0.5}},
        int64[4] four = {{0, 0, 4, 6}}, int64[4] one = {{0, 0, 1, 6}}, int64[3] flat = {{0, 0, 24}},
        int64[4] times = {{1, 1, 4, 1}}> {{ [q] qf = MatMul(x, wq) [k] kf = MatMul(x, wk) [v] vf = MatMul(x, wv)
           qh = Reshape(qf, four) k0 = Reshape(kf, one) v0 = Reshape(vf, one)
           kh = Tile(k0, times) vh = Tile(v0, times) {MIXED} }}""",
        {"q": 6, "v": 6},
        {"q": 4},
        held=LAST,
    ),
    Kind(
        "attention with rotated halves",
        f"""{ROWS} {QKV}, float[6,1,6] unused, int64[1] i0 = {{0}}, int64[1] i3 = {{3}}, int64[1] i6 = {{6}},
        int64[1] ax = {{3}}, float[1,1,1,6] cos, float[1,1,1,6] sin> {{
           [q] qf = MatMul(x, wq) [k] kf = MatMul(x, wk) [v] vf = MatMul(x, wv)
           q0 = Reshape(qf, heads) k0 = Reshape(kf, heads) vh = Reshape(vf, heads)
           q1 = Slice(q0, i0, i3, ax) q2 = Slice(q0, i3, i6, ax) q3 = Neg(q2) q4 = Concat<axis = -1>(q3, q1)
           q5 = Mul(q0, cos) q6 = Mul(q4, sin) qh = Add(q5, q6)
           k1 = Slice(k0, i0, i3, ax) k2 = Slice(k0, i3, i6, ax) k3 = Neg(k2) k4 = Concat<axis = -1>(k3, k1)
           k5 = Mul(k0, cos) k6 = Mul(k4, sin) kh = Add(k5, k6) {MIXED} }}""",
        {"q": 3, "v": 6},
        {"q": 4},
        held=LAST,
    ),
    Kind(
        "attention of packed heads as one operator",
        """<ir_version: 11, opset_import: ["" : 23]> g (float[N,S,12] x) => (float[N,S,5] y)
        <float[12,24] wq, float[12,12] wk, float[12,16] wv, float[32,5] wo>
        { [q] q = MatMul(x, wq) [k] k = MatMul(x, wk) [v] v = MatMul(x, wv)
          [mix] a = Attention<q_num_heads = 4, kv_num_heads = 2>(q, k, v) [last] y = MatMul(a, wo) }""",
        {"q": 6, "v": 8},
        {"q": 2},
        held=LAST,
    ),
    Kind(
        "attention of heads as one operator",
        """<ir_version: 11, opset_import: ["" : 23]> g (float[N,S,12] x, bool[N,1,S,S] m) => (float[N,S,5] y)
        <float[12,24] wq, float[12,24] wk, float[12,24] wv, float[24,5] wo, int64[4] heads = {0, 0, 4, 6},
        int64[3] flat = {0, 0, 24}>
        { [q] q = MatMul(x, wq) [k] k = MatMul(x, wk) [v] v = MatMul(x, wv)
          qh = Reshape(q, heads) kh = Reshape(k, heads) vh = Reshape(v, heads)
          qt = Transpose<perm = [0, 2, 1, 3]>(qh) kt = Transpose<perm = [0, 2, 1, 3]>(kh)
          vt = Transpose<perm = [0, 2, 1, 3]>(vh) [mix] a = Attention<scale = 0.3>(qt, kt, vt, m)
          b = Transpose<perm = [0, 2, 1, 3]>(a) c = Reshape(b, flat) [last] y = MatMul(c, wo) }""",
        {"q": 6, "v": 6},
        {"q": 4},
        held=LAST,
    ),
    Kind(
        "attention with a mask for each head",
        """<ir_version: 11, opset_import: ["" : 23]> g (float[N,S,12] x, float[N,2,S,S] m) => (float[N,S,5] y)
        <float[12,24] wq, float[12,12] wk, float[12,12] wv, float[24,5] wo>
        { [q] q = MatMul(x, wq) [k] k = MatMul(x, wk) [v] v = MatMul(x, wv)
          [mix] a = Attention<q_num_heads = 2, kv_num_heads = 1>(q, k, v, m) [last] y = MatMul(a, wo) }""",
        {"q": 12, "v": 12},
        held=LAST,
    ),
    Kind(
        "attention with a past",
        """<ir_version: 11, opset_import: ["" : 23]>
        g (float[N,S,12] x, float[N,2,3,6] pk, float[N,2,3,6] pv) => (float[N,S,5] y)
        <float[12,12] wq, float[12,12] wk, float[12,12] wv, float[12,5] wo>
        { [q] q = MatMul(x, wq) [k] k = MatMul(x, wk) [v] v = MatMul(x, wv)
          [mix] a, nk, nv = Attention<q_num_heads = 2, kv_num_heads = 2>(q, k, v, , pk, pv) [last] y = MatMul(a, wo) }""",
        {},
        held=LAST | {"q": "Attention needs", "v": "Attention needs"},
    ),
    Kind(
        "attention with rotations as operators",
        """<ir_version: 11, opset_import: ["" : 23]> g (float[N,S,12] x) => (float[N,S,5] y)
        <float[12,24] wq, float[12,12] wk, float[12,12] wv, float[24,5] wo, float[1,1,3] c0, float[1,1,3] s0,
        int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] one = {1}>
        { shape = Shape(x) n = Gather(shape, i0) l = Gather(shape, i1) to = Concat<axis = 0>(n, l, one)
          cos = Expand(c0, to) sin = Expand(s0, to)
          [q] q = MatMul(x, wq) [k] k = MatMul(x, wk) [v] v = MatMul(x, wv)
          qr = RotaryEmbedding<num_heads = 4>(q, cos, sin) kr = RotaryEmbedding<num_heads = 2>(k, cos, sin)
          [mix] a = Attention<q_num_heads = 4, kv_num_heads = 2>(qr, kr, v) [last] y = MatMul(a, wo) }""",
        {"v": 6},
        {"q": 2},
        held=LAST,
    ),
    Kind(
        "feed forward between sums and norms",
        f"""{ROWS} <float[12] s, float[12] b, float[12,32] w1, float[32] b1, float[32,12] w2, float[12] b2, float[12,5] w3>
        {{ a = LayerNormalization(x, s, b) [up] c = MatMul(a, w1) d = Add(c, b1) e = Gelu(d) [down] f = MatMul(e, w2)
           h = Add(f, b2) i = Add(x, h) [last] y = MatMul(i, w3) }}""",
        {"up": 32},
        held=LAST | {"down": "it is an axis of x"},
    ),
)


RECURRENT = (
    Kind(
        "recurrent layers on one another",
        """g (float[S,N,4] x) => (float[S,N,3] y) <float[1,24,4] w1, float[1,24,6] r1, float[1,48] b1, float[1,15,6] w2,
        float[1,15,5] r2, float[1,30] b2, int64[1] ax = {1}, float[5,3] w3>
        { [first] a = LSTM<hidden_size = 6>(x, w1, r1, b1) b = Squeeze(a, ax)
          [second] c = GRU<hidden_size = 5, linear_before_reset = 1>(b, w2, r2, b2) d = Squeeze(c, ax)
          [last] y = MatMul(d, w3) }""",
        {"first": 6, "second": 5},
        held=LAST,
    ),
    Kind(
        "both directions, states, peepholes",
        """g (float[S,N,4] x) => (float[S,N,3] y, float[N,3] z)
        <float[2,24,4] w1, float[2,24,6] r1, float[2,48] b1, float[2,1,6] h0, float[2,1,6] c0, float[2,18] p1,
        int64[3] s = {0, 0, 12}, int64[3] many = {2, 1, 6}, float[12,3] w2, float[12,3] w3, int64[2] flat = {0, 12},
        int64[1] i1 = {1}, int64[1] two = {2}, int64[1] six = {6}>
        { shape = Shape(x) n = Gather(shape, i1) full = Concat<axis = 0>(two, n, six)
          h = Expand(h0, full) c = Expand(c0, full)
          [one] a, ah, ac = LSTM<hidden_size = 6, direction = "bidirectional">(x, w1, r1, b1, , h, c, p1)
          b = Transpose<perm = [0, 2, 1, 3]>(a) d = Reshape(b, s) [last] y = MatMul(d, w2)
          e = Transpose<perm = [1, 0, 2]>(ah) f = Reshape(e, flat) [end] z = MatMul(f, w3) }""",
        {"one": 6},
        held=LAST | {"end": "output z"},
    ),
    Kind(
        "last state only",
        """g (float[S,N,4] x) => (float[N,3] y) <float[1,6,4] w1, float[1,6,6] r1, float[1,12] b1, int64[1] ax = {0},
        float[6,3] w2>
        { [one] , h = RNN<hidden_size = 6>(x, w1, r1, b1) b = Squeeze(h, ax) [last] y = Gemm(b, w2) }""",
        {"one": 6},
        held=LAST,
    ),
    Kind(
        "a state that is fed",
        """g (float[S,N,4] x, float[1,N,6] h) => (float[S,N,3] y)
        <float[1,18,4] w1, float[1,18,6] r1, int64[1] ax = {1}, float[6,3] w2>
        { [one] a = GRU<hidden_size = 6>(x, w1, r1, , , h) b = Squeeze(a, ax) [last] y = MatMul(b, w2) }""",
        {},
        held=LAST | {"one": "it is an axis of h"},
    ),
    Kind(
        "a state that is put out",
        """g (float[S,N,4] x) => (float[S,N,3] y, float[1,N,6] h) <float[1,18,4] w1, float[1,18,6] r1, int64[1] ax = {1},
        float[6,3] w2>
        { [one] a, h = GRU<hidden_size = 6>(x, w1, r1) b = Squeeze(a, ax) [last] y = MatMul(b, w2) }""",
        {},
        held=LAST | {"one": "output h"},
    ),
)
