"""graphopt makes exported ONNX models smaller and faster, and verifies that they still do their job.

    import graphopt

    result = graphopt.optimize("model.onnx")
    result.save("model.opt.onnx")

Nothing heavy is imported before a verb is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graphopt.deferred import defer
from graphopt.errors import GraphoptError, InputError, MachineError, NeedsData, UsageError, Verdict

if TYPE_CHECKING:
    from graphopt.api import Result, bench, check, diff, doctor, inspect, optimize, passes
    from graphopt.recipe import Recipe

    __version__: str

__all__ = [
    "GraphoptError",
    "InputError",
    "MachineError",
    "NeedsData",
    "Recipe",
    "Result",
    "UsageError",
    "Verdict",
    "bench",
    "check",
    "diff",
    "doctor",
    "inspect",
    "optimize",
    "passes",
]

defer()


def __getattr__(name: str) -> Any:
    """Import a verb's room when the verb is first used (PEP 562), and look the version up when it is asked for."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - most never ask

        return version("graphopt")
    if name not in __all__:
        raise AttributeError(f"module 'graphopt' has no attribute {name!r}")
    return getattr(importlib.import_module("graphopt.recipe" if name == "Recipe" else "graphopt.api"), name)


def __dir__() -> list[str]:
    return __all__
