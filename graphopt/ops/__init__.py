"""The operator table: what each operator means, written once."""

from __future__ import annotations

from graphopt.ops.cost import Cost, cost, node_cost
from graphopt.ops.domain import domains
from graphopt.ops.gate import Gates
from graphopt.ops.linear import Linear, Part
from graphopt.ops.noop import NOOPS, adds_zeros, noop
from graphopt.ops.spec import OpSpec, ShapeOf
from graphopt.ops.table import (
    TABLE,
    Functions,
    gates,
    is_foldable,
    is_pure,
    known,
    linears,
    looks_up,
    macs,
    places,
    spec_of,
)
from graphopt.ops.zeros import seen_signs

__all__ = [
    "NOOPS",
    "TABLE",
    "Cost",
    "Functions",
    "Gates",
    "Linear",
    "OpSpec",
    "Part",
    "ShapeOf",
    "adds_zeros",
    "cost",
    "domains",
    "gates",
    "is_foldable",
    "is_pure",
    "known",
    "linears",
    "looks_up",
    "macs",
    "node_cost",
    "noop",
    "places",
    "seen_signs",
    "spec_of",
]
