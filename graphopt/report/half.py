"""What became of a model that was to compute in half precision: the part of the report that this adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from graphopt.graph.nodes import graphs
from graphopt.lossy import Lossy

__all__ = ["HalfReport"]


@dataclass(frozen=True)
class HalfReport:
    """What computes in half precision, and why not all."""

    type: str
    """float16 or bfloat16."""
    nodes: int
    """How many compute with it."""
    ends: tuple[str, ...]
    """Names of inputs and outputs of the model that are in half precision."""
    floats: Mapping[str, str]
    """Why not, by key of a node of the main graph that computes on floats, and by name of an input or output."""
    casts: int
    """How many stand between both."""
    before: int
    """Bytes of the constants of floats of the model as given."""
    after: int
    samples: int
    """How many evidence is from; 0 where a recipe said what to do."""

    @classmethod
    def of(cls, found: Lossy) -> HalfReport | None:
        """What a report keeps; None where nothing was to be in half precision."""
        made, outcome = found.halves, found.outcome
        if made is None:
            return None
        before, after = (_bytes(m) for m in (outcome.source.model, outcome.model))
        return cls(made.type, len(made.halves), made.ends, dict(made.floats), made.casts, before, after, made.seen)


def _bytes(model: ir.Model) -> int:
    """Of constants of floats, in bodies as well."""
    tensors = (v.const_value for graph in graphs(model) for v in graph.initializers.values())
    return sum(t.nbytes for t in tensors if t is not None and t.dtype.is_floating_point())
