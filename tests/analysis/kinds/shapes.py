"""Channels in other shapes, behind gates, in space."""

from __future__ import annotations

from .kind import LAST, NCHW, ROWS, Kind

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
