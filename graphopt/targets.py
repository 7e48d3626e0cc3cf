"""What a deployment runtime runs, and what it costs there, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["TARGETS", "Integers", "Target"]


@dataclass(frozen=True, kw_only=True)
class Integers:
    """How a runtime computes on 8-bit integers, and where it wants quantizers for that."""

    unsigned: bool
    """Whether activations are uint8 with a zero point where it fits best, or int8 around 0. Weights are int8."""
    products: frozenset[str]
    """Operators with a constant weight that it has integer kernels for."""
    results: frozenset[str] = frozenset()
    """Those of them that need a quantizer behind their result; where others give floats, less is lost."""
    others: frozenset[str] = frozenset()
    """Operators between them that it computes on integers as well, if all that they read and make is quantized."""
    passed: frozenset[str] = frozenset()
    """Operators on floats that it moves a quantizer in front of, which is slow, unless a clipping is between both."""
    skips: frozenset[str] = frozenset()
    """Those of them with whose result what is added becomes one kernel: that is quantized, the result itself not."""
    bias: bool = False
    """Whether a bias is a 32-bit integer, in steps of the data's times the weight's."""
    stepped: frozenset[str] = frozenset()
    """Products that are left on floats where it is not; others are computed, and wrong."""
    signed: frozenset[str] = frozenset()
    """Products whose data may be int8 although others' is not, if the weight is."""
    instead: str = ""
    """What is faster there than integers, if that is known; they are emitted all the same, for whoever asks."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A runtime that models are made for."""

    name: str
    summary: str
    operators: frozenset[str] = frozenset()
    """Operators beyond standard ONNX that may be emitted, as `domain::operator`."""
    halves: frozenset[str] = frozenset()
    """Those of them with kernels for float16 as well; all have some for float32."""
    floats: frozenset[str] = frozenset()
    """Operators of standard ONNX with kernels for float32 and none for float16, although their schema has it."""
    behind: frozenset[str] = frozenset()
    """Activations that a convolution takes in behind it, where it may be fused."""
    uneven: int | None = None
    """The most channels of attention whose heads are not as wide in values as in queries; None without such a bound."""
    opset: int | None = None
    """Of standard ONNX, to which older models are raised, so that there is an operator to stand beside its own."""
    multiple: int = 8
    """Numbers of channels should be multiples of it: kernels work on blocks of so many."""
    strict: bool = False
    """Whether others leave its fast kernels: those on tensor cores and of fused attention."""
    provider: str | None = None
    """onnxruntime's name for it; None where it is not one that onnxruntime has on its own."""
    integers: Integers | None = None
    """None where static int8 does not pay, or nothing is known of it."""
    dynamic: bool = True
    """Whether it computes products of integers whose scales are found as it runs, and not slower than on floats."""
    centred: bool = False
    """Whether weights in blocks lie around 0."""
    node_macs: int
    """Multiply-accumulates that take as long as starting one node."""
    byte_macs: float
    """Multiply-accumulates that take as long as reading or writing one byte."""

    def price(self, macs: int, bytes_moved: int, nodes: int) -> float:
        """What some work costs, in multiply-accumulates."""
        return macs + self.byte_macs * bytes_moved + self.node_macs * nodes


PORTABLE = Target(
    name="portable",
    summary="any runtime: standard ONNX only",
    node_macs=50_000,
    byte_macs=2.0,
)

_EVERYWHERE = ("Attention", "BiasGelu", "FastGelu", "FusedMatMul", "Gelu", "MatMulNBits", "QuickGelu")
"""Those of onnxruntime's operators that are in its kernel lists for the CPU and for CUDA, and not slower than the
standard nodes on the CPU."""
_CPU_ONLY = (
    *("FusedConv", "FusedGemm", "QGemm", "QLinearAdd", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul"),
    "QLinearSigmoid",
)
_CUDA_ONLY = ("MultiHeadAttention", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
"""On the CPU, SkipLayerNormalization takes, 128 × 256 and 128 × 768, 5 to 8 times the time of Add and
LayerNormalization where the sum is read as well, SkipSimplifiedLayerNormalization 2 times RMSNormalization's, and
MultiHeadAttention with a mask up to 1.16 times that of what it stands for."""


def _own(*names: str) -> frozenset[str]:
    return frozenset(f"com.microsoft::{name}" for name in names)


_MOVES = ("DepthToSpace", "Flatten", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that give elements of what they read: they keep its scale."""

CPU = Target(
    name="cpu",
    summary="onnxruntime on x86",
    operators=_own(*_EVERYWHERE, *_CPU_ONLY),
    behind=frozenset({"Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh"}),
    opset=17,  # LayerNormalization
    provider="CPUExecutionProvider",
    # Found by experiment with onnxruntime 1.31, and in its `qdq_selectors.cc`.
    integers=Integers(
        unsigned=True,  # with int8 data, onnxruntime's x86 kernels take five times as long
        products=frozenset({"Conv", "Gemm", "MatMul"}),
        results=frozenset({"Conv"}),
        others=frozenset({*_MOVES, "Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid"}),
        passed=frozenset({"MaxPool"}),  # of uint8, channels first: SqueezeNet takes 4 times as long
        bias=True,
        stepped=frozenset({"Conv"}),
        signed=frozenset({"Gemm"}),
    ),
    # Measured on one thread of an AMD EPYC, onnxruntime's optimizations off: a node of a chain of 2000 Adds of 4 floats
    # takes 0.23 µs, one of the 768³ products of a MatMul 30 ps, a byte of Adds of 1 and of 4 million floats 42 ps.
    node_macs=7_500,
    byte_macs=1.4,
)

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})

CUDA = Target(
    name="cuda",
    summary="onnxruntime on an NVIDIA GPU",
    # By onnxruntime's docs/OperatorKernels.md, and with kernels for float32 on the CPU as well, so that any machine can
    # verify. GroupQueryAttention has none for float32 on CUDA. FusedConv is kept there for old models only: it calls an
    # older interface of cuDNN than Conv does, and onnxruntime itself fuses no convolution any more
    # (optimizer/conv_activation_fusion.cc). Which of them are faster was measured on the CPU only.
    operators=_own(*_EVERYWHERE, *_CUDA_ONLY),
    halves=_own(*_EVERYWHERE, *_CUDA_ONLY),
    # By the same list, from opset 17 on. In float16 they run on the CPU, on floats, between casts and copies, and
    # nothing says so; so do operators without any kernel on CUDA, but these are on the CPU anyway.
    floats=frozenset({"EyeLike", "GridSample", "Range"}),
    uneven=1024,  # threads of a block: contrib_ops/cuda/bert/add_bias_transpose.cu has no other kernel for that
    opset=17,
    provider="CUDAExecutionProvider",
    # It computes on floats between quantizers, so that each of them costs: only products' data and weights have some.
    integers=Integers(
        unsigned=False,
        products=_CONVOLUTIONS | {"Gemm", "MatMul"},
        instead="onnxruntime's CUDA provider has no fast kernels on integers and computes products between quantizers "
        "on floats: what is faster there is half precision",
    ),
    dynamic=False,
    strict=True,
    # Orders of magnitude, not measured: 5 µs to launch a kernel, 10¹³ products and 10¹² bytes a second.
    node_macs=50_000_000,
    byte_macs=10.0,
)

TENSORRT = Target(
    name="tensorrt",
    summary="TensorRT, also as onnxruntime's provider",
    opset=13,  # one scale for each channel
    # By NVIDIA's guide to explicit quantization: data and weights are quantized around 0 where products read them,
    # results and biases are not, and of the sum behind a convolution only the operand that is none's result. Scales are
    # constants there, and the zero of blocks is 0.
    dynamic=False,
    centred=True,
    strict=True,
    integers=Integers(unsigned=False, products=_CONVOLUTIONS | {"Gemm", "MatMul"}, skips=_CONVOLUTIONS),
    node_macs=CUDA.node_macs,
    byte_macs=CUDA.byte_macs,
)

OPENVINO = Target(
    name="openvino",
    summary="OpenVINO on x86",
    opset=13,
    # By OpenVINO's guide to low precision transformations: quantizers on what products read, zero points are free.
    integers=Integers(unsigned=True, products=_CONVOLUTIONS | {"Gemm", "MatMul"}, skips=_CONVOLUTIONS),
    node_macs=CPU.node_macs,
    byte_macs=CPU.byte_macs,
)

TARGETS: Mapping[str, Target] = {t.name: t for t in (PORTABLE, CPU, CUDA, TENSORRT, OPENVINO)}
"""Every target by name."""
