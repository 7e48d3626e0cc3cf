"""`OpSpec.macs` against naive implementations whose numbers count how often they are multiplied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from graphopt import ops

from .examples import WITHOUT, examples
from .single import Array, Example, flat


class Tally:
    """Multiplies, adds up, and counts the products."""

    def __init__(self) -> None:
        self.products = 0

    def dot(self, left: Array, right: Array) -> float:
        """Sum of products of two arrays of the same shape."""
        total = 0.0
        for a, b in zip(left.flat, right.flat, strict=True):
            total += float(a) * float(b)
            self.products += 1
        return total

    def matmul(self, left: Array, right: Array) -> Array:
        """(…, M, K) by (…, K, N), one row and one column after another."""
        left, right = np.atleast_2d(left), right if right.ndim > 1 else right[:, None]
        batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        left = np.broadcast_to(left, batch + left.shape[-2:])
        right = np.broadcast_to(right, batch + right.shape[-2:])
        y = np.empty((*batch, left.shape[-2], right.shape[-1]))
        for *at, m, n in np.ndindex(y.shape):
            y[*at, m, n] = self.dot(left[*at, m], right[*at, :, n])
        return y


Naive = Callable[[Tally, Example], Array | None]
"""Computes output 0; None where only the count matters."""


def conv(tally: Tally, x: Array, w: Array, bias: Array | None, attributes: Mapping[str, Any]) -> Array:
    rank, groups = w.ndim - 2, attributes.get("group", 1)
    strides, dilations = (attributes.get(name, [1] * rank) for name in ("strides", "dilations"))
    pads = attributes.get("pads", [0] * 2 * rank)
    if attributes.get("auto_pad") == "SAME_UPPER":  # with stride 1: as many as the kernel is longer than 1
        pads = [(k - 1) // 2 for k in w.shape[2:]] + [k // 2 for k in w.shape[2:]]
    x = np.pad(x.astype(float), [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    spans = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
    out = [(n - span) // s + 1 for n, span, s in zip(x.shape[2:], spans, strides, strict=True)]
    y = np.empty((len(x), len(w), *out))
    for n, m, *at in np.ndindex(y.shape):
        first = m // (len(w) // groups) * w.shape[1]
        window = [slice(o * s, o * s + span, d) for o, s, span, d in zip(at, strides, spans, dilations, strict=True)]
        y[n, m, *at] = tally.dot(x[n, first : first + w.shape[1], *window], w[m]) + (0 if bias is None else bias[m])
    return y


def naive_conv(tally: Tally, e: Example) -> Array:
    x, w, *bias = e.arrays
    return conv(tally, x, w, bias[0] if bias else None, e.attributes)


def naive_quantized_conv(tally: Tally, e: Example) -> None:
    conv(tally, e.arrays[0], e.arrays[3], None, e.attributes)


def naive_deform_conv(tally: Tally, e: Example) -> Array:
    x, w, offset, bias = e.arrays
    assert not np.any(offset)
    return conv(tally, x, w, bias, e.attributes)


def naive_conv_transpose(tally: Tally, e: Example) -> Array:
    x, w, *bias = e.arrays
    rank, groups = w.ndim - 2, e.attributes.get("group", 1)
    strides, dilations = (e.attributes.get(name, [1] * rank) for name in ("strides", "dilations"))
    pads, extra = e.attributes.get("pads", [0] * 2 * rank), e.attributes.get("output_padding", [0] * rank)
    axes = zip(x.shape[2:], w.shape[2:], strides, dilations, extra, strict=True)
    full = np.zeros((len(x), w.shape[1] * groups, *((n - 1) * s + (k - 1) * d + 1 + o for n, k, s, d, o in axes)))
    for n, c, *at in np.ndindex(x.shape):
        group = c // (len(w) // groups)
        for m, *offset in np.ndindex(w.shape[1:]):
            target = [p * s + k * d for p, s, k, d in zip(at, strides, offset, dilations, strict=True)]
            full[n, group * w.shape[1] + m, *target] += tally.dot(x[n, c, *at], w[c, m, *offset])
    crop = [slice(a, n - b) for a, b, n in zip(pads[:rank], pads[rank:], full.shape[2:], strict=True)]
    y = full[:, :, *crop]
    return y + bias[0].reshape(-1, *[1] * rank) if bias else y


def naive_gemm(tally: Tally, e: Example) -> Array:
    a, b, c = e.arrays
    a, b = a.T if e.attributes.get("transA") else a, b.T if e.attributes.get("transB") else b
    y: Array = e.attributes.get("alpha", 1.0) * tally.matmul(a, b) + e.attributes.get("beta", 1.0) * c
    return y


def naive_matmul(tally: Tally, e: Example) -> Array:
    a, b = e.arrays[:2]
    y = tally.matmul(a, b)
    return y[0] if a.ndim == 1 else y


def naive_quantized_matmul(tally: Tally, e: Example) -> None:
    tally.matmul(e.arrays[0], e.arrays[3])


def naive_einsum(tally: Tally, e: Example) -> Array:
    equation = e.attributes["equation"].replace(" ", "").replace("...", "AB")
    terms, result = equation.split("->")
    names = terms.split(",")
    extents = {i: n for term, a in zip(names, e.arrays, strict=True) for i, n in zip(term, a.shape, strict=True)}
    y = np.zeros([extents[i] for i in result])
    for at in product(*(range(n) for n in extents.values())):
        where = dict(zip(extents, at, strict=True))
        first, *others = (a[tuple(where[i] for i in term)] for term, a in zip(names, e.arrays, strict=True))
        for other in others:
            first = tally.dot(np.array(first), np.array(other))
        y[tuple(where[i] for i in result)] += first
    return y


def naive_recurrent(tally: Tally, e: Example) -> None:
    x, weights, recurrences = e.arrays[:3]
    for w, r in zip(weights, recurrences, strict=True):
        for step in x:
            tally.matmul(step, w.T)
            tally.matmul(np.zeros((len(step), r.shape[1])), r.T)


def naive_attention(tally: Tally, e: Example) -> Array | None:
    absent: list[Any] = [None] * (7 - len(e.arrays))
    q, k, v, _, past_k, past_v, lengths = e.arrays + absent
    packed = q.ndim == 3
    if packed:
        count = e.attributes["q_num_heads"], e.attributes["kv_num_heads"], e.attributes["kv_num_heads"]
        q, k, v = (a.reshape(*a.shape[:2], n, -1).swapaxes(1, 2) for a, n in zip((q, k, v), count, strict=True))
    if past_k is not None:
        k, v = np.concatenate([past_k, k], 2), np.concatenate([past_v, v], 2)
    k, v = (np.repeat(a, q.shape[1] // a.shape[1], 1) for a in (k, v))
    weights = np.exp(tally.matmul(q, k.swapaxes(2, 3)) / np.sqrt(q.shape[-1]))
    y = tally.matmul(weights / weights.sum(-1, keepdims=True), v)
    if lengths is not None:
        return None  # the mask spares no product here, and is not worth writing down
    return y.swapaxes(1, 2).reshape(len(y), y.shape[2], -1) if packed else y


def naive_fused_conv(tally: Tally, e: Example) -> Array:
    return np.maximum(naive_conv(tally, e), 0)


def naive_fused_gemm(tally: Tally, e: Example) -> Array:
    y = naive_gemm(tally, e)
    return np.where(y < 0, e.attributes["activation_alpha"] * y, y)


def naive_fused_matmul(tally: Tally, e: Example) -> Array:
    a, b = e.arrays
    a = a.swapaxes(-1, -2) if e.attributes.get("transA") else a
    b = b.swapaxes(-1, -2) if e.attributes.get("transB") else b
    y: Array = e.attributes.get("alpha", 1.0) * tally.matmul(a, b)
    return y


def naive_packed_attention(tally: Tally, e: Example) -> Array:
    x, weight, bias = e.arrays
    q, k, v = np.split(tally.matmul(x, weight) + bias, np.cumsum(e.attributes["qkv_hidden_sizes"])[:2], -1)
    return _naive_heads(tally, e, q, k, v)


def naive_heads(tally: Tally, e: Example) -> Array:
    return _naive_heads(tally, e, *e.arrays)


def _naive_heads(tally: Tally, e: Example, *packed: Array) -> Array:
    q, k, v = (a.reshape(*a.shape[:2], e.attributes["num_heads"], -1).swapaxes(1, 2) for a in packed)
    weights = np.exp(tally.matmul(q, k.swapaxes(2, 3)) / np.sqrt(q.shape[-1]))
    y = tally.matmul(weights / weights.sum(-1, keepdims=True), v)
    return y.swapaxes(1, 2).reshape(len(y), q.shape[2], -1)


NAIVE: Mapping[str, Naive] = {
    "com.microsoft::Attention": naive_packed_attention,
    "com.microsoft::FusedConv": naive_fused_conv,
    "com.microsoft::FusedGemm": naive_fused_gemm,
    "com.microsoft::FusedMatMul": naive_fused_matmul,
    "com.microsoft::MultiHeadAttention": naive_heads,
    "com.microsoft::QGemm": naive_quantized_matmul,
    "Attention": naive_attention,
    "Conv": naive_conv,
    "ConvInteger": naive_conv,
    "ConvTranspose": naive_conv_transpose,
    "DeformConv": naive_deform_conv,
    "Einsum": naive_einsum,
    "GRU": naive_recurrent,
    "Gemm": naive_gemm,
    "LSTM": naive_recurrent,
    "MatMul": naive_matmul,
    "MatMulInteger": naive_matmul,
    "QLinearConv": naive_quantized_conv,
    "QLinearMatMul": naive_quantized_matmul,
    "RNN": naive_recurrent,
}
MULTIPLY = [e for e in examples() if ops.TABLE[e.domain, e.op].multiplies]


def operator(name: str) -> tuple[str, str]:
    domain, _, op = name.rpartition("::")
    return domain, op


def test_whatever_multiplies_is_counted_naively() -> None:
    counted = {(d, op) for (d, op), spec in ops.TABLE.items() if spec.multiplies}
    assert counted - WITHOUT.keys() == {operator(name) for name in NAIVE} == {(e.domain, e.op) for e in MULTIPLY}


@pytest.mark.parametrize("example", MULTIPLY, ids=[f"{i}-{e}" for i, e in enumerate(MULTIPLY)])
def test_macs_are_what_a_naive_implementation_multiplies(example: Example) -> None:
    tally, outputs = Tally(), example.run()
    y = NAIVE[f"{example.domain}::{example.op}" if example.domain else example.op](tally, example)
    if y is not None:
        assert np.allclose(flat(y), flat(outputs[0]), rtol=1e-4, atol=1e-4)
    model = example.model()
    contents = {f"in{i}": v for i, v in enumerate(example.arrays)} | {f"out{i}": v for i, v in enumerate(outputs)}

    def shape(value: ir.Value | None) -> tuple[int, ...] | None:
        return None if value is None else tuple(np.shape(contents[str(value.name)]))

    assert ops.macs(model.graph.node("node"), shape) == tally.products
    assert ops.macs(model.graph.node("node"), lambda _: None) is (0 if tally.products == 0 else None)
