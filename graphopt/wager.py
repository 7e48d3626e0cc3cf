"""Wagers: a pass that could make a model slower is kept if the clock says that it makes it faster.

The decision is written in the recipe, which then does without the pass: replaying a recipe times nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from graphopt.counted import counted
from graphopt.errors import InputError
from graphopt.recipe import Recipe
from graphopt.run.bench import Timing
from graphopt.spelling import spec

__all__ = ["Candidate", "settle"]


@dataclass(frozen=True)
class Candidate:
    """What a recipe makes of the model."""

    content: bytes | None
    """None where it is too large to be held in memory."""
    edits: Sequence[int]
    """How many each pass of the recipe made."""


def settle(
    recipe: Recipe,
    make: Callable[[Recipe], Candidate],
    compare: Callable[[bytes, bytes], Timing],
    progress: Callable[[str], None],
) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe without the wagers that were lost, and a sentence on each that was made.

    Args:
        recipe: what to do.
        make: what a recipe makes of the model.
        compare: times two models side by side.
        progress: told what begins.
    """
    told: list[str] = []
    best = make(recipe)
    for step in (p for p in recipe.passes if p.wager):
        if not best.edits[recipe.passes.index(step)]:
            continue
        progress(f"timing {step.name}")
        fewer = replace(recipe, passes=tuple(p for p in recipe.passes if p != step))
        other = make(fewer)
        if best.content is None or other.content is None:
            told.append(f"{spec(step)} was not timed: the model is too large to be held in memory")
            continue
        try:
            found = compare(other.content, best.content)
        except InputError as problem:  # verification will find whom to blame
            told.append(f"{spec(step)} was not timed: {problem}")
            continue
        pairs = counted(found.pairs, "pair")
        numbers = f"{found.ratio:.3f} [{found.low:.3f}, {found.high:.3f}] of the time without it, {pairs}"
        told.append(f"{spec(step)} was {'kept' if found.faster else 'left out'}: {numbers}")
        if not found.faster:
            recipe, best = fewer, other
    return recipe, tuple(told)
