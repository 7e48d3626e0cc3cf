"""Two products with a clipping in between, fitted together to what the second one should give.

    min  Σ |clip₂(W₂·h + b₂ + s) − clip₂(z)|²,   h = clip₁(W₁·x + b₁)

What is left of the hidden values between them need not be what it was: other ones may serve the second product better.
Both are solved for in turn, each a least squares problem of its own. For W₂ it is that of `refit`. For W₁, with the
residual r of the second product, the error is majorized by the distance of h to

    h' = h + B⁻¹·W₂ᵀ·r,    B diagonal, B_c = Σ |(W₂ᵀ·W₂)_c,…|

(Gershgorin's bound on what a change of h does), so that W₁ is fitted to h' where h is not clipped. Steps are
extrapolated as Nesterov does (1983), and the weights with the least error on samples held back are the answer.
This is a method of auxiliary coordinates (Carreira-Perpiñán and Wang, 2014) in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.analysis.frontier import Pair, Site
from graphopt.analysis.segments import FOLD
from graphopt.graph.carry import Carried
from graphopt.graph.save import runnable
from graphopt.run.machine import HERE, Machine
from graphopt.run.session import Session

__all__ = ["Joint", "fit"]

Array = NDArray[Any]

ROUNDS: Final = 40
_TURN: Final = 10
"""Rounds after which the second product is solved for."""
_MOMENTUM: Final = 0.9
_DAMPING: Final = 1e-3
_PACE: Final = 0.995
"""What of the error must be left at most after some rounds, for there to be more."""
_FEWEST: Final = 100
"""Samples, of which a quarter is to tell whether what is learned from the others holds for these as well."""


@dataclass(frozen=True, eq=False)
class Joint:
    """New weights of both products, as `Site.put` takes them, and the error before and after on samples held back."""

    first: tuple[Array, Array]
    second: tuple[Array, Array]
    before: float
    after: float


def fit(
    site: Site,
    pair: Pair,
    machine: Machine = HERE,
    *,
    rounds: int = ROUNDS,
    spans: tuple[Array | None, Array | None] = (None, None),
) -> Joint | None:
    """Fit a product and the one before it; None where that is not possible, or brings nothing.

    Args:
        site: the second product; both have the weights that were found for each alone.
        pair: what the first one reads, and the second one should give.
        rounds: steps of the first product.
        spans: (rows, columns) each: what the weights of either are made of, if they may not be any.
        machine: where and how to run.
    """
    first, count = site.before, len(pair.x)
    if first is None or site.linear.adjoint is None or count < _FEWEST:
        return None
    if {first.linear.weights.dtype, site.linear.weights.dtype, pair.x.dtype} != {np.dtype(np.float32)}:
        return None
    held = np.arange(count) % FOLD == FOLD - 1
    fitted, rest = _cut(pair, ~held), _cut(pair, held)
    system = _System(first, site, fitted, machine, spans)
    judge = _System(first, site, rest, machine, spans)
    weights = (first.matrix(), first.bias()), (site.matrix(), site.bias())
    best, before = weights, judge.error(*weights)
    least = before
    (w1, b1), second = weights
    speed: tuple[Array, Array] = (np.zeros_like(w1), np.zeros_like(b1))
    for number in range(rounds):
        ahead = (w1 + _MOMENTUM * speed[0], b1 + _MOMENTUM * speed[1])
        if number % _TURN == 0:
            second = system.second(ahead, second)
        matrix, bias = system.first(ahead, second)
        speed, (w1, b1) = (matrix - w1, bias - b1), (matrix, bias)
        if number % _TURN == _TURN - 1:
            error = judge.error((w1, b1), second)
            enough = error > _PACE * least
            if error < least:
                best, least = ((w1, b1), second), error
            if enough:
                break
    return None if best is weights else Joint(*best, before, least)


def _cut(pair: Pair, at: NDArray[np.bool_]) -> Pair:
    return Pair(pair.x[at], pair.target[at], None if pair.base is None else pair.base[at])


class _System:
    """Both products on some samples."""

    def __init__(
        self, first: Site, second: Site, pair: Pair, machine: Machine, spans: tuple[Array | None, Array | None]
    ) -> None:
        self._first, self._second, self._spans = first, second, spans
        z, low, high = pair.target, np.float32(second.low), np.float32(second.high)
        self._given = {
            "x": pair.x,
            "from": np.where(z <= low, np.float32(-np.inf), np.minimum(z, high)),
            "to": np.where(z >= high, np.float32(np.inf), np.maximum(z, low)),
        }
        if pair.base is not None:
            self._given["s"] = pair.base
        hidden = _hidden_shape(first, pair)
        along = [
            first.linear.channels if axis == first.linear.y_axis % len(hidden) else 1 for axis in range(len(hidden))
        ]
        self._given["k"] = np.zeros(along, np.float32)
        self._session = machine.session(_model(first, second, pair, hidden, along))
        self._x = _through(spans[0], first.linear.unfold(pair.x))
        self._gram, self._mean = _moments(self._x)
        self._inverse = _inverse(self._gram)

    def _run(self, first: tuple[Array, Array], second: tuple[Array, Array], *wanted: str) -> list[Array]:
        feed = dict(self._given)
        for number, (site, (matrix, bias)) in enumerate(((self._first, first), (self._second, second)), 1):
            feed[f"w{number}"] = np.ascontiguousarray(site.linear.unmatrix(matrix / site.linear.alpha))
            feed[f"b{number}"] = bias.reshape(-1).astype(np.float32)
        found = self._session.run(feed, list(wanted))
        return [found[name] for name in wanted]

    def error(self, first: tuple[Array, Array], second: tuple[Array, Array]) -> float:
        """Mean squared distance to the nearest right values."""
        (residual,) = self._run(first, second, "r")
        found: float = float(np.mean(np.square(residual, dtype=np.float64)))
        return found

    def second(self, first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
        """The second product, solved for."""
        hidden, residual = self._run(first, second, "h", "r")
        x = _through(self._spans[1], self._second.linear.unfold(hidden))
        gram, mean = _moments(x)
        inverse = _inverse(gram)
        for _ in range(2):
            second = _moved(second, self._second.linear.rows(residual), x, mean, inverse, self._spans[1])
            (residual,) = self._run(first, second, "r")
        return second

    def first(self, first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
        """One step of the first product."""
        self._given["k"] = (1 / _bound(self._second, second[0])).astype(np.float32).reshape(self._given["k"].shape)
        (change,) = self._run(first, second, "c")
        return _moved(first, self._first.linear.rows(change), self._x, self._mean, self._inverse, self._spans[0])


def _bound(site: Site, matrix: Array) -> Array:
    """(in channels,): B of the second product."""
    groups, _, columns = matrix.shape
    channels = site.linear.in_channels // groups
    square = np.abs(matrix.transpose(0, 2, 1) @ matrix)
    found = square.sum(axis=2).reshape(groups, channels, columns // channels).sum(axis=2).reshape(-1)
    return np.asarray(np.maximum(found, np.finfo(np.float32).tiny) + 1e-6 * found.mean())


def _moments(x: Array) -> tuple[Array, Array]:
    """(groups, d, d), (groups, d): covariance and mean of columns."""
    mean = x.mean(axis=-1, dtype=np.float64)
    gram = (x @ x.transpose(0, 2, 1)).astype(np.float64) / x.shape[-1]
    return gram - mean[:, :, None] * mean[:, None, :], mean


def _inverse(gram: Array) -> Array:
    scale = np.maximum(np.trace(gram, axis1=1, axis2=2) / gram.shape[1], np.finfo(np.float32).tiny)
    found: Array = np.linalg.inv(gram + (_DAMPING * scale)[:, None, None] * np.eye(gram.shape[1]))
    return found


def _through(span: Array | None, x: Array) -> Array:
    return x if span is None else span.astype(x.dtype) @ x


def _moved(
    weights: tuple[Array, Array], change: Array, x: Array, mean: Array, inverse: Array, span: Array | None
) -> tuple[Array, Array]:
    """The weights that give a change of the result, as well as they can: (groups, out, rows)."""
    matrix, bias = weights
    level = change.mean(axis=-1, dtype=np.float64)
    across = (change @ x.transpose(0, 2, 1)).astype(np.float64) / x.shape[-1] - level[:, :, None] * mean[:, None, :]
    turn = across @ inverse
    shift = bias + level - (turn @ mean[..., None])[..., 0]
    return matrix + (turn if span is None else turn @ span), shift


def _model(first: Site, second: Site, pair: Pair, hidden_shape: Sequence[int], along: Sequence[int]) -> ir.Model:
    """What both compute of x, with weights as inputs: h, the residual r, and how h' differs from h, c.

    Right is what lies between two tensors, since beyond a clipping all is one; k is B⁻¹.
    """
    x = ir.val("x", ir.DataType.FLOAT, ["n", *pair.x.shape[1:]])
    ends = [ir.val(name, ir.DataType.FLOAT, ["n", *pair.target.shape[1:]]) for name in ("from", "to")]
    step = ir.val("k", ir.DataType.FLOAT, along)
    inputs, nodes = [x, *ends, step], list[ir.Node]()

    def made(node: ir.Node, name: str = "") -> ir.Value:
        nodes.append(node)
        if name:
            node.outputs[0].name = name
        return node.outputs[0]

    def clipped(value: ir.Value, site: Site, name: str = "") -> ir.Value:
        ends = [made(ir.node("Constant", [], {"value": ir.tensor(np.float32(e))})) for e in (site.low, site.high)]
        return made(ir.node("Clip", [value, *ends]), name)

    def product(site: Site, data: ir.Value, number: int, name: str = "") -> ir.Value:
        linear = site.linear
        weight = ir.val(f"w{number}", ir.DataType.FLOAT, linear.weights.shape)
        bias = ir.val(f"b{number}", ir.DataType.FLOAT, [linear.channels])
        inputs.extend([weight, bias])
        attributes = {n: a.value for n, a in linear.node.attributes.items() if n != "beta"}
        if linear.bias is not None:
            return made(ir.node(linear.node.op_type, [data, weight, bias], attributes), name)
        return made(ir.node("Add", [made(ir.node(linear.node.op_type, [data, weight], attributes)), bias]), name)

    value = product(first, x, 1, "u")
    hidden = clipped(value, first, "h")
    total = product(second, hidden, 2)
    if pair.base is not None:
        base = ir.val("s", ir.DataType.FLOAT, ["n", *pair.base.shape[1:]])
        inputs.append(base)
        total = made(ir.node("Add", [total, base]))
    # Where the target is clipped, the result is right where it is clipped to the same.
    right = made(ir.node("Min", [made(ir.node("Max", [total, ends[0]])), ends[1]]))
    residual = made(ir.node("Sub", [right, total]), "r")
    shapes = tuple(hidden_shape), pair.target.shape
    weight = next(v for v in inputs if v.name == "w2")
    nodes += second.linear.adjoint(second.linear, residual, weight, *shapes) if second.linear.adjoint else []
    back = made(ir.node("Mul", [nodes[-1].outputs[0], step]))
    wanted = clipped(made(ir.node("Add", [value, back])), first)
    free = made(ir.node("Equal", [hidden, value]))  # what is clipped does not move
    zero = made(ir.node("Constant", [], {"value": ir.tensor(np.float32(0))}))
    change = made(ir.node("Where", [free, made(ir.node("Sub", [wanted, value])), zero]), "c")
    outputs = [hidden, residual, change]
    return ir.Model(ir.Graph(inputs, outputs, nodes=nodes, opset_imports={"": 17}, name="pair"), ir_version=8)


def _hidden_shape(first: Site, pair: Pair) -> tuple[int, ...]:
    """Of what is between the two, which one run of the first one tells."""
    linear = first.linear
    x = ir.val("x", ir.DataType.FLOAT, ["n", *pair.x.shape[1:]])
    weight = ir.val("w", const_value=ir.tensor(linear.weights, name="w"))
    attributes = {n: a.value for n, a in linear.node.attributes.items() if n != "beta"}
    node = ir.node(linear.node.op_type, [x, weight], attributes)
    node.outputs[0].name = "y"
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[weight], opset_imports={"": 17}, name="first")
    session = Session(runnable(ir.Model(graph, ir_version=8), Carried()))
    return tuple(session.run({"x": pair.x[:1]})["y"].shape)
