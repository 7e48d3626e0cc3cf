"""Constants that come to more than a machine can hold, or never end, and others hidden where no feed comes by."""

from __future__ import annotations

import onnx
from onnx import helper

from tests.corpus.case import Hostile, constant, graph, words

__all__ = ["CASES"]

_MIN = "-9223372036854775808"


def _doubling(
    times: int, node: str = "Concat <axis = 0>", start: str = "float[4] a0 = {1, 2, 3, 4}"
) -> onnx.ModelProto:
    steps = " ".join(f"a{i + 1} = {node}(a{i}, a{i})" for i in range(times))
    return constant(f"{steps} c = Identity(a{times})", start)


def _strings(times: int) -> onnx.ModelProto:
    steps = " ".join(f"a{i + 1} = StringConcat(a{i}, a{i})" for i in range(times))
    model = graph(f"g (float[N,4] x) => (float[N,4] y, string[1] z) {{ {steps} z = Identity(a{times}) y = Relu(x) }}")
    model.graph.initializer.append(words("a0", [1], [b"haha" * 16]))
    return model


def _loop(
    trips: str, body: str, state: str = "float[1] s = {1}", cond: str = "bool t = {1}", take: str = "float[K]"
) -> onnx.ModelProto:
    """A Loop over constants alone."""
    return constant(
        f"c = Loop(n, t, s) <body = b (int64 i, bool p, {take} v) => (bool q, {take} w) {{ {body} }}>",
        f"int64 n = {{{trips}}}, {cond}, {state}",
    )


def _in_branch(node: str, initializers: str) -> onnx.ModelProto:
    """What kills is in a branch that no ordinary feed takes: only who folds it runs it."""
    return graph(f"""g (float[N,4] x) => (float[N,4] y) <float h = {{1e38}}, {initializers}> {{
      m = ReduceMax <keepdims = 0>(x)
      p = Greater(m, h)
      y = If(p) <
        then_branch = t () => (float[N,4] r) {{ {node} k = ReduceMax <keepdims = 0>(c) f = Cast <to = 1>(k) r = Add(x, f) }},
        else_branch = e () => (float[N,4] q) {{ q = Abs(x) }}
      > }}""")


def _repeated(part: str) -> bytes:
    """Two bytes each, many times over."""
    model = graph("y = Relu(x)")
    parts = getattr(model.graph if part in {"node", "value_info"} else model, part)
    for _ in range(100_000):
        parts.add()
    return model.SerializeToString()


def _chain(length: int) -> onnx.ModelProto:
    """As many nodes as a very deep network has."""
    ops = ("Neg", "Sigmoid", "Tanh", "Abs")
    nodes = [helper.make_node(ops[i % 4], [f"a{i}" if i else "x"], [f"a{i + 1}"]) for i in range(length)]
    nodes[-1].output[0] = "y"
    model = graph("y = Relu(x)")
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _wide(count: int) -> onnx.ModelProto:
    """One node that reads very much, and very many that read one."""
    model = graph("y = Relu(x)")
    del model.graph.node[:]
    model.graph.node.extend(
        helper.make_node("Neg" if i % 2 else "Abs", ["x"], [f"a{i}"], name=f"n{i}") for i in range(count)
    )
    model.graph.node.append(helper.make_node("Sum", [f"a{i}" for i in range(count)], ["y"]))
    return model


def _many_medium(count: int) -> onnx.ModelProto:
    """Each tensor is small enough to be folded; all together are not."""
    steps = " ".join(f"c{i} = Expand(v{i}, n) e{i} = Add(x, c{i})" for i in range(count))
    total = ", ".join(f"e{i}" for i in range(count))
    values = ", ".join(f"float[1] v{i} = {{{i}}}" for i in range(count))
    return graph(
        f"g (float[1000000] x) => (float[1000000] y) <int64[1] n = {{1000000}}, {values}> {{ {steps} y = Sum({total}) }}"
    )


_BIG = "int64[1] n = {10000000000}"
_OUTER = "float[100000,1] a0, float[1,100000] b0"

_FOLDS: dict[str, tuple[str, onnx.ModelProto]] = {
    "constant_of_shape": ("40 GB of zeros", constant("c = ConstantOfShape(n)", _BIG)),
    "constant_of_many_dims": (
        "a product beyond 64 bits",
        constant("c = ConstantOfShape(n)", "int64[3] n = {4294967296, 4294967296, 4294967296}"),
    ),
    "constant_of_negative": ("a negative extent", constant("c = ConstantOfShape(n)", "int64[1] n = {-1}")),
    "expand": ("40 GB of one number", constant("c = Expand(a, n)", f"float[1] a = {{1}}, {_BIG}")),
    "expand_overflow": (
        "ORT 28055: a product that overflows",
        constant("c = Expand(a, n)", "float[1,1] a = {1}, int64[2] n = {9223372036854775807, 9223372036854775807}"),
    ),
    "tile": ("40 GB of repetition", constant("c = Tile(a, n)", f"float[1] a = {{1}}, {_BIG}")),
    "tile_negative": (
        "a negative number of repetitions",
        constant("c = Tile(a, n)", "float[1] a = {1}, int64[1] n = {-1}"),
    ),
    "range": (
        "40 GB of numbers",
        constant("c = Range(a, n, d)", "int64 a = {0}, int64 n = {10000000000}, int64 d = {1}"),
    ),
    "range_step_zero": (
        "steps of nothing",
        constant("c = Range(a, n, d)", "int64 a = {0}, int64 n = {10}, int64 d = {0}"),
    ),
    "range_tiny_steps": (
        "very many steps",
        constant("c = Range(a, n, d)", "double a = {0}, double n = {1}, double d = {1e-300}"),
    ),
    "range_not_a_number": (
        "a bound that is no number",
        constant("z = Div(a, a) c = Range(a, z, d)", "float a = {0}, float d = {1}"),
    ),
    "range_extreme": (
        "bounds whose difference overflows",
        constant("c = Range(a, n, d)", f"int64 a = {{{_MIN}}}, int64 n = {{9223372036854775807}}, int64 d = {{1}}"),
    ),
    "pad": ("40 GB of padding", constant("c = Pad(a, n)", "float[1] a = {1}, int64[2] n = {0, 10000000000}")),
    "pad_overflow": (
        "pads whose sum overflows",
        constant("c = Pad(a, n)", "float[1] a = {1}, int64[2] n = {9223372036854775807, 9223372036854775807}"),
    ),
    "pad_negative": (
        "less than nothing is left",
        constant("c = Pad(a, n)", "float[1] a = {1}, int64[2] n = {-5, -5}"),
    ),
    "resize_sizes": ("40 GB of pixels", constant("c = Resize(a, , , n)", f"float[1] a = {{1}}, {_BIG}")),
    "resize_scales": ("a scale of 1e30", constant("c = Resize(a, , n)", "float[1] a = {1}, float[1] n = {1e30}")),
    "resize_zero": ("a scale of 0", constant("c = Resize(a, , n)", "float[1] a = {1}, float[1] n = {0}")),
    "resize_not_a_number": (
        "a scale that is no number",
        constant("n = Div(z, z) c = Resize(a, , n)", "float[1] a = {1}, float[1] z = {0}"),
    ),
    "one_hot": (
        "40 GB of zeros and a one",
        constant("c = OneHot(a, n, v)", "int64[1] a = {1}, int64 n = {10000000000}, float[2] v = {0, 1}"),
    ),
    "one_hot_negative": (
        "a negative depth",
        constant("c = OneHot(a, n, v)", "int64[1] a = {1}, int64 n = {-4}, float[2] v = {0, 1}"),
    ),
    "eye": ("a matrix of 40 GB", constant("a = ConstantOfShape(n) c = EyeLike(a)", "int64[2] n = {100000, 100000}")),
    "outer_sum": (
        "40 GB by broadcasting",
        constant(
            "a = ConstantOfShape(n) b = ConstantOfShape(m) c = Add(a, b)",
            "int64[2] n = {100000, 1}, int64[2] m = {1, 100000}",
        ),
    ),
    "outer_product": (
        "40 GB by a product",
        constant(
            "a = ConstantOfShape(n) b = ConstantOfShape(m) c = MatMul(a, b)",
            "int64[2] n = {100000, 1}, int64[2] m = {1, 100000}",
        ),
    ),
    "einsum": (
        "40 GB by letters",
        constant('a = ConstantOfShape(n) c = Einsum <equation = "a,b->ab">(a, a)', "int64[1] n = {100000}"),
    ),
    "where": (
        "40 GB of choices",
        constant(
            "a = ConstantOfShape(n) b = ConstantOfShape(m) e = Equal(a, b) c = Where(e, a, b)",
            "int64[2] n = {100000, 1}, int64[2] m = {1, 100000}",
        ),
    ),
    "gather": (
        "very many indices",
        constant("i = ConstantOfShape <value = int64[1] {0}>(n) c = Gather(a, i)", f"float[1] a = {{1}}, {_BIG}"),
    ),
    "non_zero": ("very many places", constant("a = ConstantOfShape <value = float[1] {1}>(n) c = NonZero(a)", _BIG)),
    "cumulative_product": (
        "40 GB read for one number",
        constant("a = ConstantOfShape(n) c = CumSum(a, z)", f"{_BIG}, int64 z = {{0}}"),
    ),
    "random": ("40 GB of chance", constant("c = RandomNormal <shape = [100000, 100000]>()")),
    "multinomial": (
        "very many draws",
        constant("c = Multinomial <sample_size = 2000000000>(a)", "float[1,2] a = {1, 2}"),
    ),
    "fourier": ("a very long transform", constant("c = DFT(a, n)", "float[1,2,1] a = {1, 2}, int64 n = {1000000000}")),
    "window": ("a very long window", constant("c = HannWindow(n)", "int64 n = {10000000000}")),
    "mel": (
        "a very large matrix",
        constant(
            "c = MelWeightMatrix(a, b, r, l, h)",
            "int64 a = {1000000}, int64 b = {1000000}, int64 r = {8192}, float l = {0}, float h = {4096}",
        ),
    ),
    "col2im": (
        "a very large image",
        constant("c = Col2Im(a, n, b)", "float[1,1,1] a = {1}, int64[2] n = {100000, 100000}, int64[2] b = {1, 1}"),
    ),
    "grid": (
        "a very large grid",
        constant("c = AffineGrid(a, n)", "float[1,2,3] a = {1, 0, 0, 0, 1, 0}, int64[4] n = {1, 1, 100000, 100000}"),
    ),
    "max_unpool": (
        "a very large unpooling",
        constant(
            "c = MaxUnpool <kernel_shape = [1]>(a, i, n)",
            "float[1,1,1] a = {1}, int64[1,1,1] i = {0}, int64[3] n = {1, 1, 10000000000}",
        ),
    ),
    "conv_transpose": (
        "a very large output by strides",
        constant(
            "c = ConvTranspose <strides = [1000000000]>(a, w)",
            "float[1,1,9] a = {1,2,3,4,5,6,7,8,9}, float[1,1,1] w = {1}",
        ),
    ),
    "doubling": ("4 numbers, doubled 40 times", _doubling(40)),
    "doubling_to_memory": ("4 numbers, doubled 28 times: 4 GB, one after another", _doubling(28)),
    "doubling_strings": ("64 letters, doubled 40 times; their size is never known", _strings(40)),
    "many_medium": ("200 constants of 4 MB each", _many_medium(200)),
    "sequence": (
        "a sequence of very many parts",
        constant(
            "a = ConstantOfShape(n) s = SplitToSequence(a, o) c = ConcatFromSequence <axis = 0>(s)",
            "int64[1] n = {4000000}, int64 o = {1}",
        ),
    ),
}

_ENDLESS: dict[str, tuple[str, onnx.ModelProto]] = {
    "loop_endless": ("it never ends", _loop("9223372036854775807", "q = Identity(p) w = Neg(v)")),
    "loop_growing": ("it grows and grows", _loop("60", "q = Identity(p) w = Concat <axis = 0>(v, v)")),
    "loop_collecting": (
        "it collects and collects",
        constant(
            "c = Loop(n, t) <body = b (int64 i, bool p) => (bool q, float[1000] w) { q = Identity(p) w = ConstantOfShape(s) }>",
            "int64 n = {100000000}, bool t = {1}, int64[1] s = {1000}",
        ),
    ),
    "scan_long": (
        "a scan of very many steps",
        constant(
            "a = ConstantOfShape(n) c = Scan(a) <num_scan_inputs = 1, body = b (float i) => (float o) { o = Neg(i) }>",
            _BIG,
        ),
    ),
}

_HIDDEN: dict[str, tuple[str, str, str]] = {
    "division": ("the division that kills", "c = Div(a, b)", f"int64[1] a = {{{_MIN}}}, int64[1] b = {{-1}}"),
    "constant_of_shape": ("40 GB of zeros", "c = ConstantOfShape(n)", _BIG),
    "expand": ("40 GB of one number", "c = Expand(a, n)", f"float[1] a = {{1}}, {_BIG}"),
    "range": ("8 GB of numbers", "c = Range(a, n, d)", "int64 a = {0}, int64 n = {1000000000}, int64 d = {1}"),
    "doubling": (
        "8 numbers, doubled 28 times",
        " ".join(f"a{i + 1} = Concat <axis = 0>(a{i}, a{i})" for i in range(28)) + " c = Identity(a28)",
        "float[8] a0 = {1,2,3,4,5,6,7,8}",
    ),
}

CASES = (
    *(Hostile(f"bomb_{n}", why, model, passes=True) for n, (why, model) in (_FOLDS | _ENDLESS).items()),
    *(
        Hostile(f"hidden_{n}", f"{why}, where no feed comes by", _in_branch(*parts), passes=True)
        for n, (why, *parts) in _HIDDEN.items()
    ),
    Hostile(
        "bomb_split",
        "a list of 800 MB, made by inference",
        "g (float[6] x) => (float[K] y, float[L] z) { y, z = Split <num_outputs = 100000000>(x) }",
    ),
    Hostile(
        "bomb_input",
        "an input of 5 GB",
        "g (float[300000000,4] x) => (float[300000000,4] y) { y = Relu(x) }",
        blind=True,
    ),
    Hostile(
        "bomb_same_inputs",
        "a Concat of one tensor, 20,000 times",
        f"g (float[1] x) => (float[20000] y) {{ y = Concat <axis = 0>({','.join(['x'] * 20_000)}) }}",
        passes=True,
    ),
    *(
        Hostile(f"bomb_empty_{part}", "nothing, 100,000 times", _repeated(part), passes=True)
        for part in ("node", "value_info", "functions", "training_info")
    ),
    Hostile("bomb_chain", "3,000 nodes in a row", _chain(3_000), passes=True),
    Hostile("bomb_wide", "2,000 nodes side by side", _wide(2_000), passes=True),
)
