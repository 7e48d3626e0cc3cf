"""What a shell may complete behind an option. Nothing is imported before somebody presses a key."""

from __future__ import annotations

from typing import get_args

__all__ = ["budgets", "drops", "passes", "rules", "targets"]


def passes(incomplete: str) -> list[tuple[str, str]]:
    """Names of passes, and what each does."""
    from graphopt.catalogue import PASSES, USUAL

    every = {USUAL: "All that lose nothing, in their order."} | {name: p.summary for name, p in PASSES.items()}
    return [(name, told) for name, told in every.items() if name.startswith(incomplete)]


def rules(incomplete: str) -> list[tuple[str, str]]:
    """Names of rules, and what each does."""
    from graphopt.catalogue import PASSES

    every = {name: told for p in PASSES.values() for name, told in p.rules.items()}
    return [(name, told) for name, told in every.items() if name.startswith(incomplete)]


def targets(incomplete: str) -> list[tuple[str, str]]:
    """Runtimes that a model can be made for."""
    from graphopt.targets import TARGETS

    return [(name, t.summary) for name, t in TARGETS.items() if name.startswith(incomplete)]


def budgets(incomplete: str) -> list[str]:
    """What may be limited; the share is the user's."""
    from graphopt.plan.budget import Resource

    return [f"{name}=" for name in get_args(Resource) if name.startswith(incomplete)]


def drops(incomplete: str) -> list[str]:
    """By what a result is judged; how much is the user's."""
    from graphopt.plan.budget import Metric

    return [f"{name}=" for name in get_args(Metric) if name.startswith(incomplete)]
