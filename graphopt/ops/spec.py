"""The form of an entry in the operator table, and the small words that entries are written with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.graph.domain import Bound, Domain
from graphopt.graph.nodes import input_at, rank
from graphopt.graph.shapes import ShapeOf
from graphopt.ops.flow import Flow, opaque
from graphopt.ops.gate import Gates
from graphopt.ops.linear import Linear
from graphopt.ops.resize import Resize, unchanged

__all__ = [
    "COUNT",
    "Admits",
    "Carries",
    "Factors",
    "OpSpec",
    "ShapeOf",
    "admit",
    "axis_of_data",
    "carry",
    "contents",
    "every_input",
    "extent",
    "family",
    "first_input",
    "index_into",
    "is_off",
    "length_up_to",
    "never",
]

Admits = Callable[[ir.Node, int], Domain | None]
Carries = Callable[[ir.Node], Iterable[tuple[ir.Value, ir.Value]]]
Factors = Callable[[ir.Node], Collection[int]]


def _no_linears(_node: ir.Node) -> tuple[Linear, ...]:
    return ()


def _no_macs(_node: ir.Node, _shape: ShapeOf) -> int | None:
    return 0


def _anything(_node: ir.Node, _index: int) -> Domain | None:
    return None


def _no_pairs(_node: ir.Node) -> Iterable[tuple[ir.Value, ir.Value]]:
    return ()


def _no_factors(_node: ir.Node) -> Collection[int]:
    return ()


def _no_pull(_node: ir.Node, _index: int, _wanted: Domain) -> Domain | None:
    return None


def _nothing(_node: ir.Node) -> bool:
    return False


def _always(_node: ir.Node) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class OpSpec:
    """Everything graphopt knows about one operator. Every pass is a generic algorithm over these facts.

    A fact left at its default is the careful answer for an operator without weights; what may differ between two
    uses of one operator (an attribute, a missing input) is a function of the node.
    """

    op: str
    domain: str = ""
    summary: str
    """One line: what it computes, with the shapes where they matter."""

    pure: Callable[[ir.Node], bool] = _always
    """Same inputs, same outputs, every time. What is not pure is never folded, merged, moved or duplicated.
    Bodies of control flow are judged by `ops.is_pure`, not here."""

    foldable: bool = True
    """May be evaluated ahead of time on constants. False where the constant form is the point (quantized weights),
    where the result cannot be an initializer (sequences, optionals), and where a body may read further values."""

    commutes: bool = False
    """Inputs 0 and 1 may change places and not a bit of the result changes (but the sign of a zero in Max and Min)."""

    linears: Callable[[ir.Node], tuple[Linear, ...]] = _no_linears
    """The products with constant weights inside the node, each as y = W·unfold(x) + b."""

    looks_up: Callable[[ir.Node], bool] = _nothing
    """Whether output 0 holds rows of input 0, a matrix, at the indices that input 1 holds."""

    gates: Callable[[ir.Node], tuple[Gates, ...]] | None = None
    """The products with constant weights of a recurrent layer, in the order of a step; none where they have another
    form."""

    macs: Callable[[ir.Node, ShapeOf], int | None] = _no_macs
    """Multiply-accumulates of one run at concrete shapes; None if a needed shape is unknown. Elementwise work,
    normalization, pooling and data movement count zero, as is usual in the field."""

    admits: Admits = _anything
    """The values input `index` may take, where not every value makes sense (indices, lengths, divisors)."""

    carries: Carries = _no_pairs
    """Pairs (source, target) of values: each element of the target is one of a source's, unchanged, or padding, so that
    what the target's readers accept holds for the sources. Control flow pairs its values with those of its bodies."""

    fills: bool = False
    """Whether zeros may stand beside what it carries."""

    positive: Literal["", "always", "kept"] = ""
    """Whether results are never below 0: always, or if nothing is that it computes with. What carries keeps it too."""

    factors: Factors = _no_factors
    """Indices of the inputs that, multiplied by positive numbers, one for each index of an axis, multiply the result by
    the same; none where there are no such inputs. Whatever else is computed must be left as it is."""

    sums: Factors = _no_factors
    """Indices of the inputs that are added up, with others or to what there is without them, multiplied by numbers that
    do not depend on them, or whose elements are moved: the result is linear in all of them together."""

    flow: Flow = opaque
    """How the indices of its axes hang together, for cutting channels; see `ops.flow`."""

    resize: Resize = unchanged
    """What has to change in a node once indices are taken out of the axes of its values; see `ops.resize`."""

    adapts: Literal["", "type", "layout", "quantizer"] = ""
    """What it changes of a value between two operators that want it in different forms; empty where it computes."""

    pulls: Callable[[ir.Node, int, Domain], Domain | None] = _no_pull
    """The values of input `index` for which output 0 stays inside a domain; None where nothing simple can be said."""

    @property
    def multiplies(self) -> bool:
        """Whether the operator has multiply-accumulates that count."""
        return self.macs is not _no_macs


# -- words for entries ----------------------------------------------------------------------------------------------


def family(summaries: Mapping[str, str], **facts: Any) -> tuple[OpSpec, ...]:
    """One entry per operator of `summaries`, all with the same facts."""
    return tuple(OpSpec(op=op, summary=summary, **facts) for op, summary in summaries.items())


def never(_node: ir.Node) -> bool:
    """`pure` of operators that draw random numbers: two runs differ, whatever the seed attribute says."""
    return False


def is_off(node: ir.Node, name: str) -> bool:
    """Whether flag attribute `name` is provably off; a reference to a function's attribute proves nothing."""
    found = node.attributes.get(name)
    return found is None or (not found.is_ref() and not found.value)


def contents(value: ir.Value | None) -> NDArray[Any] | None:
    """What `value` holds unless a feed replaces it: a constant, a default, or what a Constant node gives; else None.

    For rewriting, where a feed matters and Constant nodes are gone, ask `graph.nodes.array`.
    """
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def carry(*inputs: int) -> Carries:
    """`carries` of an operator whose output 0 holds elements of these inputs; no index given means all inputs."""

    def pairs(node: ir.Node) -> Iterable[tuple[ir.Value, ir.Value]]:
        sources = (input_at(node, i) for i in inputs) if inputs else node.inputs
        return [(source, node.outputs[0]) for source in sources if source is not None]

    return pairs


# -- words for `factors` ---------------------------------------------------------------------------------------------


def first_input(_node: ir.Node) -> Collection[int]:
    """The data; what else there is are settings."""
    return (0,)


def every_input(node: ir.Node) -> Collection[int]:
    """As of sums."""
    return range(len(node.inputs))


# -- words for `admits` ---------------------------------------------------------------------------------------------


def admit(rules: Mapping[int, Domain | Callable[[ir.Node], Domain | None]]) -> Admits:
    """`admits` from one rule per input: a domain, or how to find it for a node."""

    def admits(node: ir.Node, index: int) -> Domain | None:
        rule = rules.get(index)
        return rule(node) if callable(rule) else rule

    return admits


def extent(value: ir.Value | None, axis: int) -> Bound | None:
    """Extent of one axis: a number, the name of its symbolic dimension, or None where nothing is known."""
    if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    dim = value.shape[axis]
    return dim if isinstance(dim, int) else dim.value


def index_into(value: ir.Value | None, axis: int) -> Domain:
    """Indices along one axis. Where its extent is unknown only index 0 is safe."""
    found = extent(value, axis)
    return Domain(0, 1 if found is None else found)


def length_up_to(value: ir.Value | None, axis: int) -> Domain:
    """Lengths from 1 to the extent of an axis."""
    found = extent(value, axis)
    return Domain(1, found + 1 if isinstance(found, int) else found or 2)


def axis_of_data(node: ir.Node) -> Domain:
    """The number of an axis of input 0."""
    return Domain(0, rank(node.inputs[0]) or 1)


COUNT = Domain(1, 5)
"""How often or how large, where nothing but time and memory sets a limit."""
