"""Which part of the original program a node or a weight comes from.

Exporters rename weights just where their names are wanted: `val_87`, `onnx::MatMul_1144`. What reads them still tells:

    the weight's name                                         layers.0.fc.weight                           → layers.0.fc
    torch.export      metadata `pkg.torch.onnx.name_scopes`    ['', 'head', 'head.1', 'linear']             → head.1
                      metadata `namespace`                     : Net/head: Sequential/head.1: Linear/linear: aten
    TorchScript       the node's name                          /layers/layers.0/fc/MatMul                  → layers.0.fc

The last step of a scope is the operator itself.
"""

from __future__ import annotations

import ast
import heapq
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graphopt import ops
from graphopt.graph.nodes import attr, graphs

__all__ = ["Weight", "largest", "owner"]

_SCOPES = "pkg.torch.onnx.name_scopes"
_NAMESPACE = "namespace"
_OPERATORS = frozenset(operator for _, operator in ops.known())
_PATH = re.compile(r"\w+(\.\w+)*\.[A-Za-z_]\w*")
"""A parameter's name as PyTorch gives it; a module in a Sequential has a number for its name."""


@dataclass(frozen=True)
class Weight:
    """One constant of a model."""

    name: str
    owner: str | None
    """Path of the module that it belongs to, as far as the exporter tells."""
    type: str
    shape: tuple[int, ...]
    bytes: int


def owner(node: ir.Node) -> str | None:
    """Path of the module that a node comes from; None if the exporter does not say, or it is the outermost one."""
    notes = node.metadata_props
    scopes = _listed(notes.get(_SCOPES, "")) or [s.partition(":")[0] for s in notes.get(_NAMESPACE, "").split("/")]
    if len(scopes) > 1:  # each is the whole path; a module that runs again is marked with @1
        return re.sub(r"@\d+", "", scopes[-2]).strip() or None
    name = node.name or ""
    return _path(name.split("/")[1:-1]) if name.startswith("/") else None


def largest(model: ir.Model, most: int = 10) -> tuple[Weight, ...]:
    """The largest constants, and the modules that they belong to."""
    found = heapq.nsmallest(most, _constants(model), key=lambda item: (-item[1].nbytes, item[0].name or ""))
    return tuple(
        Weight(str(v.name), _owner_of(v), t.dtype.name.lower(), tuple(t.shape.numpy()), t.nbytes) for v, t in found
    )


def _constants(model: ir.Model) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Initializers, and what Constant nodes hold."""
    for graph in graphs(model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value, value.const_value
        for node in graph:
            if node.op_type == "Constant" and not node.domain and attr(node, "value") is not None:
                yield node.outputs[0], attr(node, "value")


def _owner_of(value: ir.Value) -> str | None:
    """Its own name says it best: what reads it may be two nodes in one, named after the later one."""
    name = value.name or ""
    if _PATH.fullmatch(name):
        return name.rpartition(".")[0]
    return next(filter(None, map(owner, value.consumers())), None)


def _listed(text: str) -> Sequence[str]:
    """The list of text that `text` spells; nothing where it spells none."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ()
    return found if isinstance(found, list) and all(isinstance(s, str) for s in found) else ()


def _path(steps: Sequence[str]) -> str | None:
    """`layers`, `layers.0`, `fc` → `layers.0.fc`: a step that begins with the one before it takes its place."""
    path: list[str] = []
    for step in filter(None, steps):
        if path and step.startswith(f"{path[-1]}."):
            path.pop()
        path.append(step)
    while path and re.sub(r"_\d+$", "", path[-1]) in _OPERATORS:  # rewrites name nodes after those they replaced
        path.pop()
    return ".".join(path) or None
