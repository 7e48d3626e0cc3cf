"""Fragments of transformers: attention and rotary embedding, as exporters spell them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from onnx import TensorProto

from tests.support.growing import Graph

__all__ = ["FRAGMENTS"]

_HEADS = 2


def attention(g: Graph) -> None:
    """Projections, heads, scaled and maybe masked scores, and the heads side by side again."""
    x = g.value(lambda p: p.dtype == TensorProto.FLOAT and p.rank == 3 and p.shape[-1] in {4, 8})
    if not x:
        return
    width = int(g.ports[x].shape[-1])
    other = g.value(lambda p: p == g.ports[x]) if g.chance(3) else x
    query, key, value = (_projected(g, source, width) for source in (x, other, other))
    query, value = _heads(g, query, width, [0, 2, 1, 3]), _heads(g, value, width, [0, 2, 1, 3])
    if g.chance(2):
        key = _heads(g, key, width, [0, 2, 3, 1])
    else:
        key = g.node(
            "Transpose", _heads(g, key, width, [0, 2, 1, 3]), perm=g.pick(([0, 1, 3, 2], [0, 1, 3, 2], [0, 1, 2, 3]))
        )
    factor = (width // _HEADS) ** -0.5
    if g.chance(2):
        query, key = (s and g.node("Mul", s, g.number(s, factor**0.5)) for s in (query, key))
        scores = g.node("MatMul", query, key)
    else:
        scores = g.node("MatMul", query, key)
        scores = scores and g.node(
            *g.pick((("Mul", scores, g.number(scores, factor)), ("Div", scores, g.number(scores, 1 / factor))))
        )
    scores = scores and _masked(g, scores)
    weights = g.node("Softmax", scores, axis=g.pick((-1, -1, 3, 2)))
    if g.chance(4) and weights:
        weights = g.node("Dropout", weights)
    y = g.node("Transpose", g.node("MatMul", weights, value), perm=[0, 2, 1, 3])
    y and g.node("Reshape", y, g.ints(0, 0, g.pick((width, width, -1))))


def _projected(g: Graph, x: str, width: int) -> str:
    y = g.node("MatMul", x, g.const(0.5 * g.numbers(width, width), TensorProto.FLOAT))
    return g.node("Add", y, g.const(g.numbers(width), TensorProto.FLOAT)) if y and g.chance(2) else y


def _heads(g: Graph, x: str, width: int, perm: list[int]) -> str:
    return g.node("Transpose", g.node("Reshape", x, g.ints(0, 0, _HEADS, width // _HEADS)), perm=perm)


def _masked(g: Graph, scores: str) -> str:
    kind = g.pick(("none", "add", "where", "scores"))
    if kind == "add":
        return g.node("Add", scores, g.floats(scores, *g.pick(((), (1,), (1, 1, 1, 1)))))
    if kind == "where":
        least = g.const(np.array(g.pick((-np.inf, -1e9))), g.ports[scores].dtype)
        return g.node("Where", g.node("Greater", scores, g.number(scores, 0.0)), scores, least)
    return g.node("Add", scores, scores) if kind == "scores" else scores


def rotary(g: Graph) -> None:
    """One half is turned against the other, by cosines and sines of angles that stand there twice, or do not."""
    x = g.value(lambda p: p.dtype == TensorProto.FLOAT and p.rank > 2 and p.static(-1) and p.shape[-1] in {2, 4, 8})
    if not x:
        return
    last, rank = int(g.ports[x].shape[-1]), g.ports[x].rank
    half = last // 2
    if g.chance(2) and g.opset > 12:
        first = g.node("Split", x, split=[half, half], axis=g.pick((-1, rank - 1)), outputs=2)
        first, second = (g.nodes[-1].output) if first else ("", "")
    else:
        first = g.node("Slice", x, starts=[0], ends=[half], axes=[rank - 1])
        second = g.node("Slice", x, starts=[half], ends=[g.pick((last, 2**63 - 1))], axes=[rank - 1])
    pair = (g.node("Neg", second), first) if not g.chance(5) else (second, g.node("Neg", first))
    turned = g.node("Concat", *pair, axis=rank - 1)
    rows = g.ports[x].shape[-2]
    angles = g.numbers(*((rows, half) if isinstance(rows, int) and g.chance(2) else (half,)))
    twice = np.concatenate([angles, angles if not g.chance(5) else angles + 1], axis=-1)
    if g.chance(2):
        cosine, sine = (g.const(f(twice), TensorProto.FLOAT) for f in (np.cos, np.sin))
    else:
        held = g.const(twice, TensorProto.FLOAT)
        cosine, sine = g.node("Cos", held), g.node("Sin", held)
    parts = [g.node("Mul", x, cosine), g.node("Mul", turned, sine)]
    g.node("Add", *(parts[::-1] if g.chance(2) else parts))


FRAGMENTS: Mapping[str, Callable[[Graph], None]] = MappingProxyType({f.__name__: f for f in (attention, rotary)})
"""By name."""
