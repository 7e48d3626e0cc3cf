"""The pass of the second rewrite. Families come in their order: what is fused early is not there for the next one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

from graphopt.graph.edit import Editor
from graphopt.graph.record import Exactness
from graphopt.lower import activation, attention, conv, gemm, heads, norm, quant
from graphopt.match.engine import described, rewrite
from graphopt.protocol import Context, Pass

__all__ = ["Lower"]

FAMILIES = (
    *(quant.UNSIGNED, quant.RULES, attention.RULES, heads.RULES),
    *(norm.RULES, activation.RULES, conv.RULES, gemm.RULES),
)


@dataclass(frozen=True)
class Lower(Pass):
    """What the modules of this room say, where the target takes any operators of its own."""

    name: ClassVar[str] = "lower"
    summary: ClassVar[str] = "standard operators into the target's own ones (`--target`)"
    pays: ClassVar[str] = "on cpu and cuda"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    stage: ClassVar[int] = 1
    rules: ClassVar[Mapping[str, str]] = described(tuple(chain.from_iterable(FAMILIES)))

    def run(self, edit: Editor, ctx: Context) -> None:
        """Until no rule fires any more, family by family."""
        if ctx.target.operators:
            for rules in FAMILIES:
                rewrite(edit, ctx, rules)
