"""Products over images, and what becomes of their channels."""

from __future__ import annotations

from .kind import LAST, NCHW, Kind

CONVOLUTIONS = (
    Kind(
        "chain",
        f"""{NCHW} <float[8,3,3,3] w1, float[8] b1, float[6,8,3,3] w2, float[5,6,1,1] w3, float[5] b3>
        {{ [one] a = Conv(x, w1, b1) b = Relu(a) [two] c = Conv(b, w2) d = HardSwish(c) [last] y = Conv(d, w3, b3) }}""",
        {"one": 8, "two": 6},
        held=LAST,
    ),
    Kind(
        "depthwise",
        f"""{NCHW} <float[8,3,1,1] w1, float[8,1,3,3] w2, float[8] b2, float[5,8,1,1] w3>
        {{ [one] a = Conv(x, w1) [each] b = Conv<group = 8, pads = [1, 1, 1, 1]>(a, w2, b2) [last] y = Conv(b, w3) }}""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "depthwise with a multiplier",
        f"""{NCHW} <float[6,3,1,1] w1, float[12,1,3,3] w2, float[12] b2, float[5,12,1,1] w3>
        {{ [one] a = Conv(x, w1) [each] b = Conv<group = 6>(a, w2, b2) [last] y = Conv(b, w3) }}""",
        {"one": 6},
        held=LAST,
    ),
    Kind(
        "grouped",
        f"""{NCHW} <float[8,3,1,1] w1, float[12,4,3,3] w2, float[12] b2, float[5,12,1,1] w3>
        {{ [one] a = Conv(x, w1) [two] b = Conv<group = 2>(a, w2, b2) [last] y = Conv(b, w3) }}""",
        {"one": 4, "two": 6},
        {"one": 2},
        held=LAST,
    ),
    Kind(
        "transposed",
        f"""{NCHW} <float[8,3,1,1] w1, float[8,6,2,2] w2, float[6] b2, float[6,5,3,3] w3, float[5] b3>
        {{ [one] a = Conv(x, w1) [two] b = ConvTranspose<strides = [2, 2]>(a, w2, b2) c = Relu(b)
           [last] y = ConvTranspose(c, w3, b3) }}""",
        {"one": 8, "two": 6},
        held=LAST,
    ),
    Kind(
        "transposed, grouped",
        f"""{NCHW} <float[8,3,1,1] w1, float[8,3,2,2] w2, float[6] b2, float[5,6,3,3] w3>
        {{ [one] a = Conv(x, w1) [two] b = ConvTranspose<strides = [2, 2], group = 2>(a, w2, b2) [last] y = Conv(b, w3) }}""",
        {"one": 4, "two": 3},
        {"one": 2},
        held=LAST,
    ),
    Kind(
        "transposed, depthwise",
        f"""{NCHW} <float[8,3,1,1] w1, float[8,1,2,2] w2, float[8] b2, float[5,8,3,3] w3>
        {{ [one] a = Conv(x, w1) [each] b = ConvTranspose<strides = [2, 2], group = 8>(a, w2, b2) [last] y = Conv(b, w3) }}""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "along one axis of space",
        """g (float[N,3,S] x) => (float[N,5,B] y) <float[8,3,3] w1, float[8] b1, float[5,8,2] w2>
        { [one] a = Conv(x, w1, b1) b = Gelu(a) [last] y = Conv(b, w2) }""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "weights that are computed",
        f"""{NCHW} <float[8,3,1,1] w1, float[8] scale, int64[4] s = {{8, 1, 1, 1}}, float[5,8,1,1] w2>
        {{ r = Reshape(scale, s) w = Mul(w1, r) [one] a = Conv(x, w) [last] y = Conv(a, w2) }}""",
        {"one": 8},
        held=LAST,
    ),
)


SUMS = (
    Kind(
        "residual sum",
        f"""{NCHW} <float[8,3,1,1] w1, float[4,8,1,1] w2, float[8,4,1,1] w3, float[5,8,1,1] w4>
        {{ [stream] a = Conv(x, w1) [inner] b = Conv(a, w2) c = Relu(b) [back] d = Conv(c, w3) e = Add(a, d)
           [last] y = Conv(e, w4) }}""",
        {"stream": 8, "inner": 4},
        held=LAST,
    ),
    Kind(
        "shortcut with zeros for further channels",
        f"""{NCHW} <float[4,3,1,1] w1, float[8,4,1,1] w2, float[5,8,1,1] w3,
        int64[8] p = {{0, 2, 0, 0, 0, 2, 0, 0}}, float zero = {{0}}, int64[1] a0 = {{0}}, int64[2] sp = {{2, 3}},
        int64[2] start = {{0, 0}}, int64[2] end = {{9, 9}}, int64[2] step = {{2, 2}}>
        {{ [one] a = Conv(x, w1) b = Slice(a, start, end, sp, step) c = Pad(b, p, zero)
           [two] d = Conv<strides = [2, 2]>(a, w2) e = Add(c, d) [last] y = Conv(e, w3) }}""",
        {"one": 4, "two": 4},
        held=LAST,
    ),
    Kind(
        "border of other values",
        f"""{NCHW} <float[4,3,1,1] w1, float[5,6,1,1] w3, int64[8] p = {{0, 1, 1, 0, 0, 1, 0, 2}}, float one = {{1}}>
        {{ [one] a = Conv(x, w1) b = Pad(a, p, one) [last] y = Conv(b, w3) }}""",
        {"one": 4, "last": 2},
        held=LAST,
    ),
    Kind(
        "border that repeats channels",
        f"""{NCHW} <float[4,3,1,1] w1, float[5,6,1,1] w3, int64[8] p = {{0, 1, 0, 0, 0, 1, 0, 0}}>
        {{ [one] a = Conv(x, w1) b = Pad<mode = "edge">(a, p) [last] y = Conv(b, w3) }}""",
        {},
        held=LAST | {"one": "Pad moves it"},
    ),
    Kind(
        "two branches of a Where",
        f"""{NCHW} <float[8,3,1,1] w1, float[8,3,1,1] w2, float[8,1,1] t, float[5,8,1,1] w3>
        {{ [one] a = Conv(x, w1) [two] b = Conv(x, w2) c = Greater(a, t) d = Where(c, a, b) [last] y = Conv(d, w3) }}""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "broadcast over channels",
        f"""{NCHW} <float[8,3,1,1] w1, float[1,3,1,1] w2, float[5,8,1,1] w3>
        {{ [one] a = Conv(x, w1) [gate] b = Conv(x, w2) c = Sigmoid(b) d = Mul(a, c) [last] y = Conv(d, w3) }}""",
        {"one": 8},
        held=LAST | {"gate": "Mul broadcasts it"},
    ),
)


PARTS = (
    Kind(
        "concatenation",
        f"""{NCHW} <float[4,3,1,1] w1, float[6,3,1,1] w2, float[8,10,1,1] w3, float[5,18,1,1] w4>
        {{ [one] a = Conv(x, w1) [two] b = Conv(x, w2) c = Concat<axis = 1>(a, b) [three] d = Conv(c, w3)
           e = Concat<axis = 1>(d, c) [last] y = Conv(e, w4) }}""",
        {"one": 4, "two": 6, "three": 8},
        held=LAST,
    ),
    Kind(
        "split",
        f"""{NCHW} <float[10,3,1,1] w1, int64[2] parts = {{4, 6}}, float[6,4,1,1] w2, float[5,6,1,1] w3>
        {{ [one] a = Conv(x, w1) b, c = Split<axis = 1>(a, parts) [two] d = Conv(b, w2) e = Add(c, d)
           [last] y = Conv(e, w3) }}""",
        {"one": 6, "one#2": 4},
        held=LAST,
    ),
    Kind(
        "split into equal parts",
        f"""{NCHW} <float[8,3,1,1] w1, float[6,4,1,1] w2, float[5,10,1,1] w3>
        {{ [one] a = Conv(x, w1) b, c = Split<axis = 1, num_outputs = 2>(a) [two] d = Conv(b, w2)
           e = Concat<axis = 1>(c, d) [last] y = Conv(e, w3) }}""",
        {"one": 4, "one#2": 4, "two": 6},
        held=LAST,
    ),
    Kind(
        "split before opset 13",
        """<ir_version: 8, opset_import: ["" : 11]> g (float[N,3,6,6] x) => (float[N,5,6,6] y)
        <float[8,3,1,1] w1, float[6,4,1,1] w2, float[5,10,1,1] w3>
        { [one] a = Conv(x, w1) b, c = Split<axis = 1>(a) [two] d = Conv(b, w2)
           e = Concat<axis = 1>(c, d) [last] y = Conv(e, w3) }""",
        {"one": 4, "one#2": 4, "two": 6},
        held=LAST,
    ),
    Kind(
        "slices",
        f"""{NCHW} <float[8,3,1,1] w1, int64[1] one = {{1}}, int64[1] zero = {{0}}, int64[1] three = {{3}},
        int64[1] end = {{9223372036854775807}}, int64[1] minus = {{-1}}, int64[1] low = {{-9223372036854775807}},
        float[5,3,1,1] w2, float[5,5,1,1] w3, float[5,8,1,1] w4>
        {{ [one] a = Conv(x, w1) b = Slice(a, zero, three, one) c = Slice(a, three, end, one)
           d = Slice(a, minus, low, one, minus)
           [two] e = Conv(b, w2) [three] f = Conv(c, w3) [four] g = Conv(d, w4) y = Sum(e, f, g) }}""",
        {"one": 3, "one#2": 5},
        held={"two": "output y", "three": "output y", "four": "output y"},
    ),
    Kind(
        "every second channel",
        f"""{NCHW} <float[8,3,1,1] w1, int64[1] one = {{1}}, int64[1] zero = {{0}}, int64[1] end = {{9}},
        int64[1] two = {{2}}, float[5,4,1,1] w2>
        {{ [one] a = Conv(x, w1) b = Slice(a, zero, end, one, two) [last] y = Conv(b, w2) }}""",
        {},
        held=LAST | {"one": "Slice does not take every index"},
    ),
    Kind(
        "picked in another order",
        f"""{NCHW} <float[8,3,1,1] w1, int64[5] pick = {{7, 1, -3, 0, 2}}, float[5,5,1,1] w2, float[5,8,1,1] w3>
        {{ [one] a = Conv(x, w1) b = Gather<axis = 1>(a, pick) [two] c = Conv(b, w2) [three] d = Conv(a, w3)
           y = Add(c, d) }}""",
        {"one": 5, "one#2": 3},
        held={"two": "output y", "three": "output y"},
    ),
    Kind(
        "picked twice",
        f"""{NCHW} <float[4,3,1,1] w1, int64[8] pick = {{0, 0, 1, 1, 2, 2, 3, 3}}, float[5,8,1,1] w2>
        {{ [one] a = Conv(x, w1) b = Gather<axis = 1>(a, pick) [last] y = Conv(b, w2) }}""",
        {"one": 4},
        held=LAST,
    ),
    Kind(
        "one channel picked",
        """g (float[N,3,6,6] x) => (float[N,6,6] y) <float[8,3,1,1] w1, int64 pick = {2}>
        { [one] a = Conv(x, w1) y = Gather<axis = 1>(a, pick) }""",
        {},
        held={"one": "Gather looks indices up in it"},
    ),
    Kind(
        "picked by what is computed",
        """g (float[N,3,6,6] x, int64[2] i) => (float[N,5,A,B] y) <float[8,3,1,1] w1, float[5,2,1,1] w2>
        { [one] a = Conv(x, w1) b = Gather<axis = 1>(a, i) [last] y = Conv(b, w2) }""",
        {},
        held=LAST | {"one": "Gather looks indices up in it"},
    ),
    Kind(
        "repeated",
        f"""{NCHW} <float[4,3,1,1] w1, int64[4] s = {{1, 2, 1, 1}}, float[5,8,1,1] w2>
        {{ [one] a = Conv(x, w1) b = Tile(a, s) [last] y = Conv(b, w2) }}""",
        {"one": 4},
        held=LAST,
    ),
)
