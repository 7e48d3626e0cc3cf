"""Fuse a sum of convolutions of the same input into one, as RepVGG is trained and deployed.

    W·x + V·x  → (W + V)·x               kernels that are read at the same places
    W·x + x    → (W + 1)·x               1 in the middle of the kernel
    W·x + (k⊙x + t)  → (W + k)·x + t     BatchNormalization that is not in training mode

in any order and association of Add and Sum, with further terms left in the sum.

Conditions: the strides agree, and so do the dilations of kernels that have more than one element; each kernel lies,
with its pads, inside the largest one, so that what the largest one reads of the padding stands for all of them; all
results have the same extents; each group of the finest grouping lies inside one of the coarsest, whose kernel is the
largest one, since what no term reads may be no number; nothing else reads a term. The result multiplies no more than
the terms do: a depthwise Conv beside a dense one stays.

Source: Ding et al., RepVGG: Making VGG-style ConvNets Great Again, 2021, section 3.3.

ROUNDING: the same function of the reals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.fuse.affine import affine
from graphopt.graph.draft import Draft
from graphopt.graph.edit import Editor
from graphopt.graph.nodes import attr, static_shape
from graphopt.graph.record import Exactness
from graphopt.match.engine import Answer, No, Rule, described, rewrite, rule
from graphopt.match.pattern import one_of
from graphopt.ops import Linear
from graphopt.protocol import Context, Pass
from graphopt.rewrite.ask import dims, made_by

__all__ = ["FuseSum"]

Array = NDArray[Any]


@dataclass(frozen=True)
class _Term:
    """A Conv of x, or what is one: BatchNormalization, and x itself."""

    value: ir.Value
    x: ir.Value
    shape: tuple[int, ...]
    """Of the weight: (M, C/group, kernel…)."""
    bias: Array | None
    groups: int
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    """Pads in front of each axis."""
    ends: tuple[int, ...]
    macs: int
    """Per element of an output channel."""
    lin: Linear | None = None
    scale: Array | None = None
    """The weight of what is no Conv, one number for each channel."""

    def weight(self) -> Array:
        """In float64."""
        if self.lin is not None:
            return self.lin.weights.astype(np.float64)
        return np.ones(self.shape) if self.scale is None else self.scale.reshape(self.shape)

    def first(self, axis: int) -> int:
        """Where the kernel starts to read, relative to the position of the result."""
        return -self.begins[axis]

    def grown(self, axis: int) -> int:
        """By how much the result is longer than the input, for stride 1."""
        span = (self.shape[2 + axis] - 1) * self.dilations[axis]
        return self.begins[axis] + self.ends[axis] - span


@rule(one_of("Add", "Sum")(name="node"), exactness=Exactness.ROUNDING)
def sum_of_convs(draft: Draft, ctx: Context, node: ir.Node) -> Answer:
    """A sum of Convs of the same input, that input itself and its BatchNormalization becomes one Conv."""
    y = node.outputs[0]
    if any(_is_part(y, user) for user in y.consumers()):
        return No("a larger sum holds this one")
    values = list(_addends(node))
    convs: dict[ir.Value, list[_Term]] = {}
    for value in values:
        term = _conv(value, node)
        if term is not None:
            convs.setdefault(term.x, []).append(term)
    for x, found in convs.items():
        kinds = {(t.shape, t.groups, t.strides, t.dilations, t.begins): t for t in reversed(found)}
        for base in sorted(kinds.values(), key=lambda t: -prod(t.shape[2:])):
            points = [t for v in values if (t := _pointwise(v, x, base, node)) is not None]
            terms = _together(base, [t for t in (*found, *points) if t is not base and _lies_inside(t, base)])
            if len(terms) > 1:
                return _summed(draft, ctx, values, terms)
    return No("no two terms are Convs of the same input that read the same places")


def _is_part(value: ir.Value, reader: ir.Node) -> bool:
    """Whether a sum is there for another sum alone, so that both are one."""
    inner = made_by(value, reader.op_type)
    return inner is not None and not reader.domain and _is_spare(value, reader)


def _is_spare(value: ir.Value, reader: ir.Node) -> bool:
    """Whether nothing but one sum needs the value, which is computed as often as the sum."""
    node = value.producer()
    return node is not None and node.graph is reader.graph and len(value.uses()) == 1 and not value.is_graph_output()


def _addends(node: ir.Node) -> Iterator[ir.Value]:
    """What is summed up in the end, from left to right."""
    pending = [v for v in reversed(node.inputs) if v is not None]
    while pending:
        value = pending.pop()
        inner = value.producer()
        if inner is not None and inner.op_type == node.op_type and _is_part(value, node):
            pending += [v for v in reversed(inner.inputs) if v is not None]
        else:
            yield value


def _conv(value: ir.Value, root: ir.Node) -> _Term | None:
    """The term that a Conv with known pads gives, which nothing else reads."""
    node = made_by(value, "Conv")
    found = () if node is None else ops.linears(node)
    if not found or not _is_spare(value, root):
        return None
    (lin,) = found
    x, shape = lin.node.inputs[0], static_shape(lin.node.inputs[1]) or ()
    count = len(shape) - 2
    strides, dilations = (tuple(attr(lin.node, n) or [1] * count) for n in ("strides", "dilations"))
    pads, mode = list(attr(lin.node, "pads") or [0] * 2 * count), attr(lin.node, "auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        totals = [(k - 1) * d for k, d in zip(shape[2:], dilations, strict=True)]
        if any(s != 1 for s in strides):
            return None
        less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
        pads = less + more if mode == "SAME_UPPER" else more + less
    elif mode == "VALID":
        pads = [0] * 2 * count
    if x is None or any(p < 0 for p in pads):
        return None
    bias = None if lin.bias_value is None else lin.bias_vector().astype(np.float64)
    begins, ends = tuple(pads[:count]), tuple(pads[count:])
    return _Term(value, x, shape, bias, lin.groups, strides, dilations, begins, ends, prod(shape), lin)


def _pointwise(value: ir.Value, x: ir.Value, base: _Term, root: ir.Node) -> _Term | None:
    """The term that x, or what scales and shifts it per channel, is beside Convs of x: a depthwise 1×1 Conv."""
    channels, count = base.shape[1] * base.groups, len(base.shape) - 2
    extents = dims(x)
    if base.shape[0] != channels or extents is None or len(extents) != count + 2 or extents[1] != channels:
        return None
    scale, shift = None, None
    if value is not x:
        node = made_by(value, "BatchNormalization")
        found = None if node is None or node.inputs[0] is not x else affine(node, 1, channels)
        if found is None or isinstance(found, No) or not _is_spare(value, root):
            return None
        scale, shift = found.scale, found.shift
    ones, zeros = (1,) * count, (0,) * count
    shape = (channels, 1, *ones)
    return _Term(value, x, shape, shift, channels, ones, ones, zeros, zeros, 0, scale=scale)


def _lies_inside(term: _Term, base: _Term) -> bool:
    """Whether the base reads all that the term reads, and gives a result of the same extents."""
    if term.shape[0] != base.shape[0] or term.strides != base.strides:
        return False
    for axis in range(len(term.strides)):
        step, size, largest = base.dilations[axis], term.shape[2 + axis], base.shape[2 + axis]
        offset = term.first(axis) - base.first(axis)
        if size > 1 and term.dilations[axis] != step:
            return False
        if offset < 0 or offset % step or offset // step + size > largest or term.grown(axis) != base.grown(axis):
            return False
    return True


def _together(base: _Term, terms: Sequence[_Term]) -> list[_Term]:
    """The base and the terms that go into one Conv with it which multiplies no more than they do."""
    chosen, groups, macs = [base], base.groups, base.macs
    for term in sorted(terms, key=lambda t: -t.macs):
        fewer = min(groups, term.groups)
        nests = max(groups, term.groups) % fewer == 0 and all(t.groups % fewer == 0 for t in chosen)
        reads_all = fewer == groups or term.shape[2:] == base.shape[2:]
        if nests and reads_all and prod(base.shape) * base.groups // fewer <= macs + term.macs:
            chosen, groups, macs = [*chosen, term], fewer, macs + term.macs
    return chosen


def _merged(terms: Sequence[_Term], groups: int) -> Array:
    """The weight of the sum, in float64; the kernel is that of the first term."""
    outputs, inputs = terms[0].shape[0], terms[0].shape[1] * terms[0].groups
    weight = np.zeros((outputs, inputs // groups, *terms[0].shape[2:]))
    for term in terms:
        width, numbers = term.shape[1], term.weight()
        offsets = [(term.first(a) - terms[0].first(a)) // d for a, d in enumerate(terms[0].dilations)]
        window = tuple(slice(o, o + k) for o, k in zip(offsets, term.shape[2:], strict=True))
        for channel in range(outputs):
            start = channel // (outputs // term.groups) * width - channel // (outputs // groups) * (inputs // groups)
            weight[channel, start : start + width][(slice(None), *window)] += numbers[channel]
    return weight


def _summed(draft: Draft, ctx: Context, values: Sequence[ir.Value], terms: Sequence[_Term]) -> Answer:
    """The sum of what is left and the merged Conv, which stands where its first term stood."""
    convs = [t.lin for t in terms if t.lin is not None]
    base, groups = convs[0], min(t.groups for t in terms)
    biases = [t.bias for t in terms if t.bias is not None]
    with np.errstate(all="ignore"):
        weight = _merged(terms, groups).astype(base.weights.dtype)
        bias = np.sum(biases, axis=0).astype(weight.dtype) if biases else None
    if not np.all(np.isfinite(weight)) or (bias is not None and not np.all(np.isfinite(bias))):
        return No("the fused weights overflow their type")
    old = [lin.node.inputs[lin.weight] for lin in convs]
    leaving = sum(v.const_value.nbytes for v in old if v is not None and v.const_value and len(v.uses()) == 1)
    if not ctx.ledger.spend(weight.nbytes - leaving):
        return No("a weight is shared and the file may not grow")
    draft.matched += [lin.node for lin in convs]
    draft.reduction = int(weight[0].size)
    name = str(old[0].name if old[0] is not None else base.node.name)
    inputs: list[ir.Value | None] = [terms[0].x, draft.const(weight, name)]
    if bias is not None:
        inputs.append(draft.const(bias, f"{name}/bias"))
    made = draft.like(base.node, inputs, **({} if groups == base.groups else {"group": groups}))
    left = list(values)
    left[left.index(terms[0].value)] = made
    for term in terms[1:]:
        left.remove(term.value)
    if draft.root.op_type == "Sum" and len(left) > 1:
        return draft.like(draft.root, left)
    total = left[0]
    for value in left[1:]:
        total = draft.node("Add", [total, value])
    return total


RULES: tuple[Rule, ...] = (sum_of_convs,)


@dataclass(frozen=True)
class FuseSum(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "fuse-sum"
    summary: ClassVar[str] = "a sum of convolutions of the same input into one"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    rules: ClassVar[Mapping[str, str]] = described(RULES)

    def run(self, edit: Editor, ctx: Context) -> None:
        """Until no rule fires any more."""
        rewrite(edit, ctx, RULES)
