"""Which products of a quantized model the runtime at hand computes on integers, and why not the others.

What is computed on integers is no matter of opinion: the products are marked, onnxruntime writes down the graph that it
runs in place of the model, and the marks are looked up there. A product is one of integers if what computes it reads
constants of 8 bits or less.

Why another one is not, `unfused` finds in the graph behind onnxruntime's basic optimizations.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from graphopt import ops
from graphopt.analysis.unfused import reason
from graphopt.graph.nodes import graphs, key, readers
from graphopt.run.machine import HERE, Machine
from graphopt.run.optimized import optimized

__all__ = ["Audit", "Product", "audit"]

_MARK: Final = re.compile(r"<#(\d+)>")
_FEW_BITS: Final = 8


@dataclass(frozen=True)
class Product:
    """One product with a constant weight."""

    key: str
    operator: str
    kernel: str | None
    """What computes it, as in `Audit.kernels`; None where nothing does by itself."""
    integer: bool
    reason: str
    """Why it is not on integers; empty if it is."""


@dataclass(frozen=True)
class Audit:
    """What a model becomes in the runtime."""

    products: tuple[Product, ...]
    kernels: Mapping[str, int]
    """How often each operator runs, bodies included: "Add", "com.microsoft::QLinearConv"."""
    provider: str

    @property
    def integer(self) -> tuple[Product, ...]:
        """The products on integers."""
        return tuple(p for p in self.products if p.integer)

    @property
    def floating(self) -> tuple[Product, ...]:
        """The other ones."""
        return tuple(p for p in self.products if not p.integer)


def audit(model: ir.Model, machine: Machine = HERE) -> Audit:
    """Which products of `model` run on integers on a machine, and why not the others.

    Products in local functions and those of two computed tensors are not among them.

    Args:
        model: is not changed.
        machine: what it runs on. The reasons are those of the CPU provider; another has one for all.

    Raises:
        InputError: onnxruntime does not load the model.
        MachineError: the device is missing, or there is no room for a temporary file.
    """
    given, marked = _nodes(model), model.clone()
    for index, node in enumerate(_nodes(marked)):
        node.name = f"{node.name or ''}<#{index}>"
        for value in node.outputs[:1]:  # some fusions name what they make after it
            value.name = f"{value.name or ''}<#{index}>"
    final, basic = optimized(marked, machine), optimized(marked, machine, fuse=False)
    kernels, before, marks = _found(final.graph), _found(basic.graph), {n: i for i, n in enumerate(given)}
    found = []
    for index, node in enumerate(given):
        if not _is_product(node):
            continue
        last = next((n for n in _chain(node) if marks[n] in kernels), None)
        kernel = _sharing(final.graph, node) if last is None else kernels[marks[last]]
        integer = kernel is not None and any(_is_small(v) for v in kernel.inputs)
        why = "" if integer else reason(node, before.get(index), final.provider)
        name = None if kernel is None else _name(kernel)
        found.append(Product(key(node), node.op_type, name, integer, why))
    return Audit(tuple(found), Counter(_name(n) for n in final.graph.all_nodes()), final.provider)


# -- what computes what ----------------------------------------------------------------------------------------------


def _nodes(model: ir.Model) -> list[ir.Node]:
    return [node for graph in graphs(model) for node in graph]


def _name(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _is_product(node: ir.Node) -> bool:
    return _multiplies(node) and any(_is_fixed(v) for v in node.inputs)


def _multiplies(node: ir.Node) -> bool:
    spec = ops.spec_of(node)
    return spec is not None and spec.multiplies


def _is_fixed(value: ir.Value | None) -> bool:
    """Whether it is a tensor, no single number, that is computed of constants alone."""
    return _is_constant(value) and not (value is not None and value.shape is not None and value.shape.rank() == 0)


def _is_constant(value: ir.Value | None) -> bool:
    if value is None or value.is_graph_input():
        return False
    node = value.producer()
    if node is None or not node.inputs:
        return ir.convenience.get_const_tensor(value) is not None
    return all(v is None or _is_constant(v) for v in node.inputs)


def _found(graph: ir.Graph) -> dict[int, ir.Node]:
    """By mark, the node that carries it in its name and may be a product: those of operators without an entry may."""
    found: dict[int, ir.Node] = {}
    for node in graph.all_nodes():
        if ops.spec_of(node) is None or _multiplies(node):
            for mark in _MARK.findall(node.name or ""):
                found.setdefault(int(mark), node)
    return found


def _chain(product: ir.Node) -> Iterator[ir.Node]:
    """A product and what alone reads it, and so on, up to the next product: a fusion goes by the name of its last."""
    node: ir.Node | None = product
    while node is not None:
        yield node
        users = list(readers(node.outputs[0]))
        node = users[0] if len(users) == 1 and not _multiplies(users[0]) else None


def _sharing(graph: ir.Graph, node: ir.Node) -> ir.Node | None:
    """The one node that reads a weight of this product, for fusions that make up a new name."""
    names = {v.name for v in node.inputs if v is not None and _is_fixed(v)}
    users = [n for n in graph.all_nodes() if any(v is not None and v.name in names for v in n.inputs)]
    return users[0] if len(users) == 1 else None


def _is_small(value: ir.Value | None) -> bool:
    """Whether it is a constant of integers that products take."""
    if value is None or value.const_value is None:
        return False
    kind = value.const_value.dtype
    return kind.is_integer() and kind.bitwidth <= _FEW_BITS
