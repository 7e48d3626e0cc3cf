"""Nets of the sizes that people deploy, with random weights: `python -m tests.bench.nets FOLDER`.

As exporters write them: BatchNormalization beside Conv, normalizations, attention and Gelu spelled out, and shapes
computed. Weights are drawn so that activations keep their size through all layers. The first axis of all inputs is
free.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
from onnx import TensorProto

from tests.bench.graphs import Builder

__all__ = ["NETS"]

_CLASSES = 1000
_WORDS = 30_522


class _Net(Builder):
    """Layers."""

    def drawn(self, *shape: int, sums: int) -> str:
        """A weight of variance 1 / `sums`: so many products are added up."""
        return self.const((self.rng.standard_normal(shape) / sums**0.5).astype(np.float32))

    def linear(self, x: str, into: int, out: int) -> str:
        """x·W + b over the last axis."""
        return self("Add", self("MatMul", x, self.drawn(into, out, sums=into)), self.drawn(out, sums=100))

    def conv(self, x: str, into: int, out: int, kernel: int, stride: int = 1, *, group: int = 1) -> str:
        """Conv and BatchNormalization."""
        sums = into // group * kernel**2
        pads, strides = [kernel // 2] * 4, [stride] * 2
        weight = self.drawn(out, into // group, kernel, kernel, sums=sums)
        y = self("Conv", x, weight, pads=pads, strides=strides, group=group, kernel_shape=[kernel] * 2)
        scale, shift, mean = (self.const(v + self.rng.normal(0, 0.1, out).astype(np.float32)) for v in (1, 0, 0))
        return self("BatchNormalization", y, scale, shift, mean, self.const(np.full(out, 1.1, np.float32)))

    def norm(self, x: str, width: int) -> str:
        """LayerNormalization."""
        centred = self("Sub", x, self("ReduceMean", x, axes=[-1]))
        variance = self("ReduceMean", self("Pow", centred, self.held(np.float32(2))), axes=[-1])
        deviation = self("Sqrt", self("Add", variance, self.held(np.float32(1e-5))))
        scale, shift = (self.const(v + self.rng.normal(0, 0.1, width).astype(np.float32)) for v in (1, 0))
        return self("Add", self("Mul", self("Div", centred, deviation), scale), shift)

    def gelu(self, x: str) -> str:
        """By erf."""
        erf = self("Add", self("Erf", self("Div", x, self.held(np.float32(2**0.5)))), self.held(np.float32(1)))
        return self("Mul", self("Mul", x, erf), self.held(np.float32(0.5)))

    def extent(self, x: str, axis: int) -> str:
        """One extent of a value, as exporters find it."""
        return self("Unsqueeze", self("Gather", self("Shape", x), self.held(np.int64(axis))), self.held(np.array([0])))

    def shaped(self, x: str, *last: int) -> str:
        """The same with other axes behind the first two."""
        target = self("Concat", self.extent(x, 0), self.extent(x, 1), self.held(np.array(last)), axis=0)
        return self("Reshape", x, target)

    def attention(self, x: str, width: int, heads: int, mask: str | None) -> str:
        """Self-attention with its four products."""
        q, k, v = (
            self("Transpose", self.shaped(self.linear(x, width, width), heads, width // heads), perm=[0, 2, 1, 3])
            for _ in range(3)
        )
        scores = self("MatMul", q, self("Transpose", k, perm=[0, 1, 3, 2]))
        scores = self("Div", scores, self.held(np.float32((width // heads) ** 0.5)))
        scores = scores if mask is None else self("Add", scores, mask)
        mixed = self("Transpose", self("MatMul", self("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
        return self.linear(self.shaped(mixed, width), width, width)


def _resnet(widths: tuple[int, ...], depths: tuple[int, ...]) -> onnx.ModelProto:
    """Bottleneck blocks, 4 times as wide outside as inside."""
    b = _Net()
    x = b("Relu", b.conv("x", 3, widths[0], 7, 2))
    x, before = b("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), widths[0]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            y = b("Relu", b.conv(x, before, width, 1))
            y = b.conv(b("Relu", b.conv(y, width, width, 3, stride)), width, 4 * width, 1)
            skip = x if before == 4 * width else b.conv(x, before, 4 * width, 1, stride)
            x, before = b("Relu", b("Add", y, skip)), 4 * width
    x = b("Flatten", b("GlobalAveragePool", x))
    return b.model({"x": ["batch", 3, 224, 224]}, b.linear(x, before, _CLASSES))


def _mobilenet(plan: tuple[tuple[int, int, int, int], ...]) -> onnx.ModelProto:
    """Inverted residual blocks: (expansion, width, depth, stride)."""
    b = _Net()

    def clipped(x: str) -> str:
        return b("Clip", x, b.held(np.float32(0)), b.held(np.float32(6)))

    x, before = clipped(b.conv("x", 3, 32, 3, 2)), 32
    for expansion, width, depth, stride in plan:
        for block in range(depth):
            inner = expansion * before
            y = x if expansion == 1 else clipped(b.conv(x, before, inner, 1))
            y = clipped(b.conv(y, inner, inner, 3, 1 if block else stride, group=inner))
            y = b.conv(y, inner, width, 1)
            x, before = b("Add", x, y) if before == width and block else y, width
    x = b("Flatten", b("GlobalAveragePool", clipped(b.conv(x, before, 1280, 1))))
    return b.model({"x": ["batch", 3, 224, 224]}, b.linear(x, 1280, _CLASSES))


def _encoder(width: int, layers: int, heads: int) -> onnx.ModelProto:
    """Words, normalization behind each sum, a class of each text."""
    b = _Net()
    places = b("Slice", b.drawn(512, width, sums=10), b.held(np.array([0])), b.extent("ids", 1), b.held(np.array([0])))
    x = b.norm(b("Add", b("Gather", b.drawn(_WORDS, width, sums=1), "ids"), places), width)
    for _ in range(layers):
        x = b.norm(b("Add", b.attention(x, width, heads, None), x), width)
        x = b.norm(b("Add", b.linear(b.gelu(b.linear(x, width, 4 * width)), 4 * width, width), x), width)
    first = b("Gather", x, b.held(np.int64(0)), axis=1)
    classes = b.linear(b("Tanh", b.linear(first, width, width)), width, 2)
    return b.model({"ids": ["batch", "length"]}, classes, TensorProto.INT64)


def _decoder(width: int, layers: int, heads: int) -> onnx.ModelProto:
    """Words, each of which sees those before it; normalization ahead of each part, the next word's scores."""
    b = _Net()
    length = b.extent("ids", 1)
    steps = b("Range", b.held(np.int64(0)), b("Squeeze", length), b.held(np.int64(1)))
    later = b("Greater", b("Unsqueeze", steps, b.held(np.array([0]))), b("Unsqueeze", steps, b.held(np.array([1]))))
    mask = b("Where", later, b.held(np.float32(-1e4)), b.held(np.float32(0)))
    words = b.drawn(_WORDS, width, sums=1)
    x = b("Add", b("Gather", words, "ids"), b("Gather", b.drawn(1024, width, sums=10), steps))
    for _ in range(layers):
        x = b("Add", b.attention(b.norm(x, width), width, heads, mask), x)
        x = b("Add", b.linear(b.gelu(b.linear(b.norm(x, width), width, 4 * width)), 4 * width, width), x)
    last = b("Gather", b.norm(x, width), b.held(np.int64(-1)), axis=1)
    return b.model({"ids": ["batch", "length"]}, b.linear(last, width, _WORDS), TensorProto.INT64)


def _vision(width: int, layers: int, heads: int) -> onnx.ModelProto:
    """Patches of 16 × 16, normalization ahead of each part."""
    b = _Net()
    x = b("Conv", "x", b.drawn(width, 3, 16, 16, sums=768), b.drawn(width, sums=100), strides=[16, 16])
    x = b("Transpose", b("Reshape", x, b.held(np.array([0, width, 196]))), perm=[0, 2, 1])
    x = b("Add", x, b.drawn(1, 196, width, sums=10))
    for _ in range(layers):
        x = b("Add", b.attention(b.norm(x, width), width, heads, None), x)
        x = b("Add", b.linear(b.gelu(b.linear(b.norm(x, width), width, 4 * width)), 4 * width, width), x)
    x = b("ReduceMean", b.norm(x, width), axes=[1], keepdims=0)
    return b.model({"x": ["batch", 3, 224, 224]}, b.linear(x, width, _CLASSES))


NETS: Mapping[str, Callable[[], onnx.ModelProto]] = MappingProxyType(
    {
        "resnet50": partial(_resnet, (64, 128, 256, 512), (3, 4, 6, 3)),
        "mobilenet_v2": partial(
            _mobilenet,
            ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
        ),
        "encoder_12x768": partial(_encoder, 768, 12, 12),
        "encoder_6x384": partial(_encoder, 384, 6, 12),
        "decoder_12x768": partial(_decoder, 768, 12, 12),
        "vision_12x384": partial(_vision, 384, 12, 6),
        "tiny_cnn": partial(_resnet, (8, 16), (1, 2)),
        "tiny_encoder": partial(_encoder, 32, 2, 4),
    }
)
"""By name; the tiny ones are for trying the benchmark itself."""

if __name__ == "__main__":
    for name, make in NETS.items():
        onnx.save(make(), Path(sys.argv[1]) / f"{name}.onnx")
