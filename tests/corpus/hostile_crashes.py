"""Constants that kill, or might kill, the process that computes them: kernels that do not look where they write."""

from __future__ import annotations

import onnx

from tests.corpus.case import Hostile, constant, graph, words

__all__ = ["CASES"]

_MIN = "-9223372036854775808"


def _divided(a: str, op: str, b: str, dtype: str = "int64", more: str = "") -> onnx.ModelProto:
    return constant(f"c = {op}{more}(a, b)", f"{dtype}[1] a = {{{a}}}, {dtype}[1] b = {{{b}}}")


_CRASHES: dict[str, tuple[str, onnx.ModelProto]] = {
    "division_overflows": ("the one integer division that kills a process", _divided(_MIN, "Div", "-1")),
    "division_overflows_32": ("the same in 32 bits", _divided("-2147483648", "Div", "-1", "int32")),
    "division_by_zero": ("an integer divided by zero", _divided("1", "Div", "0")),
    "division_by_zero_unsigned": ("the same unsigned", _divided("1", "Div", "0", "uint8")),
    "remainder_of_zero": ("a remainder of a division by zero", _divided("1", "Mod", "0")),
    "remainder_overflows": ("a remainder that overflows", _divided(_MIN, "Mod", "-1")),
    "remainder_as_in_c": ("the same with fmod", _divided(_MIN, "Mod", "-1", "int64", " <fmod = 1>")),
    "shift_too_far": (
        "a shift by more bits than there are",
        _divided("1", "BitShift", "200", "uint64", ' <direction = "LEFT">'),
    ),
    "power_overflows": ("a power beyond its type", _divided("9", "Pow", "900")),
    "power_negative": ("a negative power of zero", _divided("0", "Pow", "-1")),
    "cast_out_of_range": (
        "a float that no integer is",
        constant("c = Cast <to = 7>(a)", "float[2] a = {1e38, -1e38}"),
    ),
    "scatter_outside": (
        "it writes beyond the end",
        constant("c = ScatterElements(a, i, u)", "float[2] a = {1, 2}, int64[1] i = {100000000}, float[1] u = {7}"),
    ),
    "scatter_nd_outside": (
        "the same in more axes",
        constant("c = ScatterND(a, i, u)", "float[2] a = {1, 2}, int64[1,1] i = {100000000}, float[1] u = {7}"),
    ),
    "scatter_nd_negative": (
        "before the beginning",
        constant("c = ScatterND(a, i, u)", f"float[2] a = {{1, 2}}, int64[1,1] i = {{{_MIN}}}, float[1] u = {{7}}"),
    ),
    "gather_outside": (
        "it reads beyond the end",
        constant("c = Gather(a, i)", "float[2] a = {1, 2}, int64[1] i = {100000000}"),
    ),
    "gather_nd_outside": (
        "the same in more axes",
        constant("c = GatherND(a, i)", "float[2] a = {1, 2}, int64[1,1] i = {100000000}"),
    ),
    "gather_elements_outside": (
        "the same element by element",
        constant("c = GatherElements(a, i)", "float[2] a = {1, 2}, int64[1] i = {-100000000}"),
    ),
    "slice_extreme": (
        "a step whose negative does not exist",
        constant(
            "c = Slice(a, s, e, z, t)",
            f"float[4] a = {{1, 2, 3, 4}}, int64[1] s = {{9223372036854775807}}, int64[1] e = {{{_MIN}}}, int64[1] z = {{0}}, int64[1] t = {{{_MIN}}}",
        ),
    ),
    "slice_step_zero": (
        "steps of nothing",
        constant(
            "c = Slice(a, s, e, z, s)",
            "float[4] a = {1, 2, 3, 4}, int64[1] s = {0}, int64[1] e = {4}, int64[1] z = {0}",
        ),
    ),
    "top_more_than_all": (
        "more of the largest than there are",
        constant("c, i = TopK(a, k)", "float[2] a = {1, 2}, int64[1] k = {10000000000}"),
    ),
    "split_sizes": (
        "sizes that are not the sum",
        constant(
            "c, d = Split(a, s)", "float[4] a = {1, 2, 3, 4}, int64[2] s = {9223372036854775807, -9223372036854775803}"
        ),
    ),
    "reshape_overflows": (
        "a product that is 4 in 64 bits",
        constant("c = Reshape(a, s)", "float[4] a = {1, 2, 3, 4}, int64[2] s = {4611686018427387905, 4}"),
    ),
    "reshape_two_open": (
        "two open extents",
        constant("c = Reshape(a, s)", "float[4] a = {1, 2, 3, 4}, int64[2] s = {-1, -1}"),
    ),
    "unsqueeze_outside": (
        "an axis that is not there",
        constant("c = Unsqueeze(a, s)", "float[4] a = {1, 2, 3, 4}, int64[1] s = {9000}"),
    ),
    "unsqueeze_many": (
        "more axes than anything has",
        constant("c = Unsqueeze(a, s)", f"float a = {{1}}, int64[500] s = {{{', '.join(map(str, range(500)))}}}"),
    ),
    "conv_pads": (
        "pads as large as integers go",
        constant(
            "c = Conv <pads = [9223372036854775807, 9223372036854775807]>(a, w)",
            "float[1,1,2] a = {1, 2}, float[1,1,1] w = {1}",
        ),
    ),
    "conv_pads_huge": (
        "pads of 40 GB",
        constant("c = Conv <pads = [10000000000, 0]>(a, w)", "float[1,1,2] a = {1, 2}, float[1,1,1] w = {1}"),
    ),
    "conv_no_groups": (
        "zero groups",
        constant("c = Conv <group = 0>(a, w)", "float[1,1,2] a = {1, 2}, float[1,1,1] w = {1}"),
    ),
    "conv_no_stride": (
        "strides of zero",
        constant("c = Conv <strides = [0]>(a, w)", "float[1,1,2] a = {1, 2}, float[1,1,1] w = {1}"),
    ),
    "conv_dilated": (
        "a kernel dilated beyond all",
        constant(
            "c = Conv <dilations = [9223372036854775807]>(a, w)", "float[1,1,2] a = {1, 2}, float[1,1,2] w = {1, 1}"
        ),
    ),
    "conv_kernel_lies": (
        "a kernel that is not the weight's",
        constant("c = Conv <kernel_shape = [900]>(a, w)", "float[1,1,2] a = {1, 2}, float[1,1,2] w = {1, 1}"),
    ),
    "pool_no_kernel": (
        "a pool of nothing",
        constant("c = MaxPool <kernel_shape = [0]>(a)", "float[1,1,2] a = {1, 2}"),
    ),
    "pool_no_stride": (
        "strides of zero",
        constant("c = AveragePool <kernel_shape = [1], strides = [0]>(a)", "float[1,1,2] a = {1, 2}"),
    ),
    "norm_no_groups": (
        "zero groups",
        constant(
            "c = GroupNormalization <num_groups = 0>(a, s, s)", "float[1,2,2] a = {1, 2, 3, 4}, float[2] s = {1, 1}"
        ),
    ),
    "depth_to_nothing": (
        "blocks of zero",
        constant("c = DepthToSpace <blocksize = 0>(a)", "float[1,4,1,1] a = {1, 2, 3, 4}"),
    ),
    "lrn_negative": (
        "a window of a negative size",
        constant("c = LRN <size = -3>(a)", "float[1,2,2] a = {1, 2, 3, 4}"),
    ),
    "reverse_outside": (
        "lengths beyond the end",
        constant("c = ReverseSequence(a, n)", "float[2,2] a = {1, 2, 3, 4}, int64[2] n = {9000, 9000}"),
    ),
    "text_pattern": (
        "a pattern that backtracks without end",
        graph(
            """g (float[N,4] x) => (float[N,4] y, bool[1] z) { y = Relu(x) z = RegexFullMatch <pattern = "(a+)+$">(s) }"""
        ),
    ),
}
_CRASHES["text_pattern"][1].graph.initializer.append(words("s", [1], [b"a" * 4000 + b"!"]))

CASES = tuple(Hostile(f"crash_{n}", why, model, passes=True) for n, (why, model) in _CRASHES.items())
