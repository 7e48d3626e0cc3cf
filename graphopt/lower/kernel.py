"""Which types and sizes the target has kernels for."""

from __future__ import annotations

import onnx_ir as ir

from graphopt.match.engine import No
from graphopt.ops.runtime import DOMAIN
from graphopt.protocol import Context

__all__ = ["lacking", "too_uneven"]


def lacking(ctx: Context, operator: str, value: ir.Value | None) -> No | None:
    """Why the target has no kernel of an operator of the runtime's own for the type of a value, if so."""
    kind = None if value is None else value.dtype
    if kind is ir.DataType.FLOAT:
        return None
    if kind is ir.DataType.FLOAT16 and f"{DOMAIN}::{operator}" in ctx.target.halves:
        return None
    return No("it is not known to be float32, or of another type that the target has a kernel for")


def too_uneven(ctx: Context, queries: int, values: int) -> bool:
    """Whether the target has no attention of so many channels, of all heads together, which are not as many in both."""
    return queries != values and ctx.target.uneven is not None and max(queries, values) > ctx.target.uneven
