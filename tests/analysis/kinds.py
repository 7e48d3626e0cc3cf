"""Every kind of group: a small graph, what can be cut from it, and what is held for which reason.

Weights are declared and have no contents; what has some is a shape, an index and the like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Kind:
    """One graph."""

    name: str
    text: str
    inner: Mapping[str, int]
    """Units of each group, by key, where axes that are split lose indices inside."""
    outer: Mapping[str, int] | None = None
    """Where they lose whole blocks, if that differs."""
    held: Mapping[str, str] = field(default_factory=dict)
    """A part of the reason why the result of a product is held in both, by key."""
    tolerance: float = 1e-5

    def __str__(self) -> str:
        return self.name


LAST = {"last": "an axis of the output y"}
NCHW = "g (float[N,3,6,6] x) => (float[N,M,A,B] y)"
"""Most graphs take an image and give another one."""
ROWS = "g (float[N,S,12] x) => (float[N,S,M] y)"
"""Others take a sequence."""

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

SHAPES = (
    Kind(
        "flattened image",
        """g (float[N,3,6,6] x) => (float[N,5] y) <float[8,3,3,3] w1, float[5,128] w2, float[5] b2>
        { [one] a = Conv(x, w1) b = Relu(a) c = Flatten(b) [last] y = Gemm<transB = 1>(c, w2, b2) }""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "reshaped image",
        """g (float[N,3,6,6] x) => (float[N,5] y) <float[8,3,3,3] w1, int64[2] s = {0, 128}, float[128,5] w2>
        { [one] a = Conv(x, w1) c = Reshape(a, s) [last] y = MatMul(c, w2) }""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "row that becomes an image",
        """g (float[N,12] x) => (float[N,M,A,B] y)
        <float[12,32] w1, float[32] b1, int64[4] s = {-1, 8, 2, 2}, float[8,5,2,2] w2>
        { [one] a = Gemm(x, w1, b1) b = Relu(a) c = Reshape(b, s) [last] y = ConvTranspose(c, w2) }""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "bottleneck of an image as a row",
        """g (float[N,3,4,4] x) => (float[N,M,A,B] y) <float[8,3,3,3] w1, int64[4] s = {0, 8, 2, 2}, float[5,8,2,2] w2>
        { [one] a = Conv(x, w1) b = Flatten(a) c = Tanh(b) d = Reshape(c, s) [last] y = Conv(d, w2) }""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "channels last for a while",
        f"""{NCHW} <float[8,3,1,1] w1, float[8] bias, float[8] scale, float[8] shift, float[8,6] w2, float[5,6,1,1] w3>
        {{ [one] a = Conv(x, w1) b = Transpose<perm = [0, 2, 3, 1]>(a) c = Mul(b, scale) d = Add(c, bias)
           [two] e = MatMul(d, w2) f = Transpose<perm = [0, 3, 1, 2]>(e) [last] y = Conv(f, w3) }}""",
        {"one": 8, "two": 6},
        held=LAST,
    ),
    Kind(
        "squeezed",
        f"""{NCHW} <float[8,3,6,6] w1, int64[2] ax = {{2, 3}}, float[8,6] w2, float[5,6,1,1] w3>
        {{ [one] a = Conv(x, w1) b = Squeeze(a, ax) [two] c = MatMul(b, w2) d = Unsqueeze(c, ax) [last] y = Conv(d, w3) }}""",
        {"one": 8, "two": 6},
        held=LAST,
    ),
    Kind(
        "channel shuffle",
        f"""{NCHW} <float[12,3,1,1] w1, int64[5] s = {{0, 3, 4, 6, 6}}, int64[4] t = {{0, 12, 6, 6}}, float[5,12,1,1] w2>
        {{ [one] a = Conv(x, w1) b = Reshape(a, s) c = Transpose<perm = [0, 2, 1, 3, 4]>(b) d = Reshape(c, t)
           [last] y = Conv(d, w2) }}""",
        {"one": 4},
        {"one": 3},
        held=LAST,
    ),
    Kind(
        "pixel shuffle",
        f"""{NCHW} <float[16,3,1,1] w1, float[5,4,1,1] w2>
        {{ [one] a = Conv(x, w1) b = DepthToSpace<blocksize = 2>(a) [last] y = Conv(b, w2) }}""",
        {"one": 4},
        held=LAST,
    ),
    Kind(
        "pixel shuffle, columns first",
        f"""{NCHW} <float[16,3,1,1] w1, float[5,4,1,1] w2>
        {{ [one] a = Conv(x, w1) b = DepthToSpace<blocksize = 2, mode = "CRD">(a) [last] y = Conv(b, w2) }}""",
        {"one": 4},
        held=LAST,
    ),
    Kind(
        "pixel shuffle, spelled out",
        f"""{NCHW} <float[16,3,1,1] w1, int64[6] s = {{0, 4, 2, 2, 6, 6}}, int64[4] t = {{0, 4, 12, 12}}, float[5,4,1,1] w2>
        {{ [one] a = Conv(x, w1) b = Reshape(a, s) c = Transpose<perm = [0, 1, 4, 2, 5, 3]>(b) d = Reshape(c, t)
           [last] y = Conv(d, w2) }}""",
        {"one": 4},
        held=LAST,
    ),
    Kind(
        "pixel unshuffle",
        f"""{NCHW} <float[4,3,1,1] w1, float[5,16,1,1] w2>
        {{ [one] a = Conv(x, w1) b = SpaceToDepth<blocksize = 2>(a) [last] y = Conv(b, w2) }}""",
        {"one": 4},
        held=LAST,
    ),
    Kind(
        "shape from extents of the data",
        """g (float[N,3,H,W] x) => (float[N,5,H,W] y) <float[12,3,1,1] w1, int64[1] i0 = {0}, int64[1] i2 = {2},
        int64[1] i3 = {3}, int64[1] three = {3}, int64[1] four = {4}, int64[1] all = {12}, float[5,12,1,1] w2>
        { [one] a = Conv(x, w1) shape = Shape(a) n = Gather(shape, i0) h = Gather(shape, i2) w = Gather(shape, i3)
          s = Concat<axis = 0>(n, three, four, h, w) b = Reshape(a, s) c = Transpose<perm = [0, 2, 1, 3, 4]>(b)
          t = Concat<axis = 0>(n, all, h, w) d = Reshape(c, t) [last] y = Conv(d, w2) }""",
        {"one": 4},
        {"one": 3},
        held=LAST,
    ),
    Kind(
        "one shape for several",
        """g (float[N,S,12] x) => (float[N,S,M] y) <float[12,8] w1, float[12,8] w2, float[8,4] w3, float[8,4] w4,
        int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] two = {2}, int64[1] four = {4}, int64[1] eight = {8}>
        { shape = Shape(x) n = Gather(shape, i0) l = Gather(shape, i1) s = Concat<axis = 0>(n, l, two, four)
          t = Concat<axis = 0>(n, l, eight)
          [one] a = MatMul(x, w1) [two] b = MatMul(x, w2) c = Reshape(a, s) d = Reshape(b, s) e = Relu(c) f = Tanh(d)
          g = Reshape(e, t) h = Reshape(f, t) [last] i = MatMul(g, w3) [again] j = MatMul(h, w4) y = Add(i, j) }""",
        {"one": 4, "two": 4},
        {"one": 2, "two": 2},
        held=LAST | {"again": "output y"},
    ),
    Kind(
        "extent of channels in a shape",
        """g (float[N,3,H,W] x) => (float[N,5,H,W] y) <float[12,3,1,1] w1, int64[1] one = {1}, float[5,12,1,1] w2>
        { [one] a = Conv(x, w1) shape = Shape(a) c = Gather(shape, one) d = Cast<to = 1>(c) e = Div(a, d)
          [last] y = Conv(e, w2) }""",
        {},
        held=LAST | {"one": "its extent is computed with"},
    ),
    Kind(
        "expanded like another value",
        """g (float[N,3,H,W] x) => (float[N,5,H,W] y) <float[8,3,1,1] w1, float[8,3,1,1] w2, float[5,8,1,1] w3>
        { [one] a = Conv(x, w1) [two] b = Conv(x, w2) s = Shape(a) c = Expand(b, s) [last] y = Conv(c, w3) }""",
        {"one": 8},
        held=LAST,
    ),
)

GATES = (
    Kind(
        "squeeze and excite",
        f"""{NCHW} <float[8,3,1,1] w1, float[4,8,1,1] w2, float[4] b2, float[8,4,1,1] w3, float[8] b3, float[5,8,1,1] w4>
        {{ [wide] a = Conv(x, w1) b = GlobalAveragePool(a) [narrow] c = Conv(b, w2, b2) d = Relu(c)
           [back] e = Conv(d, w3, b3) f = HardSigmoid(e) h = Mul(a, f) [last] y = Conv(h, w4) }}""",
        {"wide": 8, "narrow": 4},
        held=LAST,
    ),
    Kind(
        "squeeze by a mean, excite by matrices",
        f"""{NCHW} <float[8,3,1,1] w1, int64[2] sp = {{2, 3}}, float[8,4] w2, float[4,8] w3, int64[4] s = {{0, 8, 1, 1}},
        float[5,8,1,1] w4>
        {{ [wide] a = Conv(x, w1) b = ReduceMean<keepdims = 0>(a, sp) [narrow] c = MatMul(b, w2) d = Relu(c)
           [back] e = MatMul(d, w3) f = Sigmoid(e) g = Reshape(f, s) h = Mul(a, g) [last] y = Conv(h, w4) }}""",
        {"wide": 8, "narrow": 4},
        held=LAST,
    ),
    Kind(
        "gated units",
        f"""{ROWS} <float[12,8] w1, float[12,8] w2, float[8] b2, float[8,5] w3>
        {{ [up] a = MatMul(x, w1) [gate] b = MatMul(x, w2) c = Add(b, b2) d = Sigmoid(c) e = Mul(c, d) f = Mul(a, e)
           [last] y = MatMul(f, w3) }}""",
        {"up": 8},
        held=LAST,
    ),
    Kind(
        "gated units, packed and split",
        f"""{ROWS} <float[12,16] w1, float[8,5] w3>
        {{ [both] a = MatMul(x, w1) b, c = Split<axis = -1, num_outputs = 2>(a) d = Gelu(b) e = Mul(c, d)
           [last] y = MatMul(e, w3) }}""",
        {"both": 8},
        held=LAST,
    ),
    Kind(
        "gated units, packed and sliced",
        f"""{ROWS} <float[12,16] w1, int64[1] i0 = {{0}}, int64[1] i8 = {{8}}, int64[1] far = {{9223372036854775807}},
        int64[1] ax = {{-1}}, float[8,5] w3>
        {{ [both] a = MatMul(x, w1) b = Slice(a, i0, i8, ax) c = Slice(a, i8, far, ax) d = Gelu(b) e = Mul(c, d)
           [last] y = MatMul(e, w3) }}""",
        {"both": 8},
        held=LAST,
    ),
    Kind(
        "a slope for each channel, bounds, a power",
        f"""{NCHW} <float[8,3,1,1] w1, float[8,1,1] slope, float low = {{-1}}, float high = {{2}}, float two = {{2}},
        float[5,8,1,1] w2>
        {{ [one] a = Conv(x, w1) b = PRelu(a, slope) c = Clip(b, low, high) d = Pow(c, two) [last] y = Conv(d, w2) }}""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "a product with what is computed",
        f"""{ROWS} <float[12,8] w1, float[12,8] w2, float[12,6] w3, float[6,5] w4>
        {{ [q] a = MatMul(x, w1) [k] b = MatMul(x, w2) c = Transpose<perm = [0, 2, 1]>(b) [scores] d = MatMul(a, c)
           e = Softmax<axis = -1>(d) [v] f = MatMul(x, w3) [mix] h = MatMul(e, f) [last] y = MatMul(h, w4) }}""",
        {"q": 8, "v": 6},
        held=LAST | {"scores": "it is an axis of x"},
    ),
)

SPACE = (
    Kind(
        "pooling",
        f"""{NCHW} <float[8,3,1,1] w1, float[5,8,1,1] w2>
        {{ [one] a = Conv(x, w1) b = MaxPool<kernel_shape = [2, 2]>(a) c = AveragePool<kernel_shape = [2, 2]>(b)
           d = LpPool<kernel_shape = [2, 2]>(c) [last] y = Conv(d, w2) }}""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "pooling that tells where",
        f"""{NCHW} <float[8,3,1,1] w1, float[5,8,1,1] w2>
        {{ [one] a = Conv(x, w1) b, i = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a) c = Cast<to = 1>(i)
           d = Add(b, c) [last] y = Conv(d, w2) }}""",
        {},
        held=LAST | {"one": "MaxPool counts along it"},
    ),
    Kind(
        "resampled by scales",
        f"""{NCHW} <float[8,3,1,1] w1, float[4] s = {{1, 1, 2, 1.5}}, float[5,8,1,1] w2>
        {{ [one] a = Conv(x, w1) b = Resize<mode = "linear">(a, , s) [last] y = Conv(b, w2) }}""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "resampled to sizes",
        """g (float[2,3,6,6] x) => (float[2,5,9,8] y) <float[8,3,1,1] w1, int64[4] s = {2, 8, 9, 8}, float[5,8,1,1] w2>
        { [one] a = Conv(x, w1) b = Resize<mode = "linear">(a, , , s) [last] y = Conv(b, w2) }""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "resampled to sizes of space",
        f"""{NCHW} <float[8,3,1,1] w1, int64[2] s = {{9, 8}}, float[5,8,1,1] w2>
        {{ [one] a = Conv(x, w1) b = Resize<mode = "linear", axes = [2, 3]>(a, , , s) [last] y = Conv(b, w2) }}""",
        {"one": 8},
        held=LAST,
    ),
    Kind(
        "resampled to the size of another image",
        """g (float[N,3,H,W] x) => (float[N,5,H,W] y) <float[8,3,1,1] w1, float[8,3,3,3] w2, int64[1] i2 = {2},
        int64[1] i4 = {4}, int64[1] i0 = {0}, float[5,8,1,1] w3>
        { [one] a = Conv(x, w1) [two] b = Conv(x, w2) s = Shape(b) f = Slice(s, i0, i2) t = Shape(a) h = Slice(t, i2, i4)
          s2 = Concat<axis = 0>(f, h) c = Resize<mode = "nearest">(b, , , s2) [last] y = Conv(c, w3) }""",
        {},
        held=LAST | {"two": "its extent is computed with"},
    ),
    Kind(
        "resampled to the extents of another value",
        """g (float[N,3,H,W] x) => (float[N,5,H,W] y) <float[8,3,1,1] w1, float[8,3,3,3] w2, float[5,8,1,1] w3>
        { [one] a = Conv(x, w1) [two] b = Conv(x, w2) s = Shape<start = 0, end = 2>(b) t = Shape<start = 2>(a)
          s2 = Concat<axis = 0>(s, t) c = Resize<mode = "nearest">(b, , , s2) [last] y = Conv(c, w3) }""",
        {"two": 8},
        held=LAST,
    ),
    Kind(
        "extrema of channels",
        """g (float[N,3,6,6] x) => (int64[N,6,6] i, float[N,2,6,6] t, float[N,6,6] m, float[N,1,6,6] p)
        <float[8,3,1,1] w1, float[8,3,1,1] w2, float[8,3,1,1] w3, float[8,3,1,1] w4, int64[1] k = {2}, int64[1] ax = {1}>
        { [one] a = Conv(x, w1) i = ArgMax<axis = 1, keepdims = 0>(a) [two] b = Conv(x, w2) t, u = TopK<axis = 1>(b, k)
          [three] c = Conv(x, w3) m = ReduceMax<keepdims = 0>(c, ax) [four] d = Conv(x, w4) p = ReduceSum(d, ax) }""",
        {},
        held={"one": "ArgMax", "two": "TopK", "three": "ReduceMax", "four": "ReduceSum"},
    ),
)

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

KINDS = (
    *CONVOLUTIONS,
    *SUMS,
    *PARTS,
    *SHAPES,
    *GATES,
    *SPACE,
    *NORMALIZATIONS,
    *ATTENTIONS,
    *RECURRENT,
    *TABLES,
    *QUANTIZED,
    *BARRIERS,
)
